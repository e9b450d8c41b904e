//! What a command says, to people and to programs, and how it ends.

use std::collections::BTreeSet;

use retouch_tests::laptop::{Laptop, counts, images};
use retouch_tests::picture_server::PictureServer;
use retouch_tests::pictures::picture;
use serde_json::{Value, json};

fn keys(object: &Value) -> BTreeSet<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

const REPORT: [&str; 7] = ["task_id", "status", "images", "hit", "joined", "paid", "failed"];
const IMAGE: [&str; 8] =
    ["position", "input", "status", "source", "image_hash", "result_url", "output", "error"];

#[tokio::test]
async fn json_is_one_object_of_the_promised_shape_and_nothing_else() {
    let laptop = Laptop::new();
    laptop.picture("cat.png", 1);
    laptop.write("fake.png", "no picture at all");
    let (code, report) = laptop.ended(&["edit", "cat.png", "fake.png", "-t", "invert"]).await;
    assert_eq!(code, 1);
    assert_eq!(keys(&report), BTreeSet::from(REPORT));
    let [cat, fake] = report["images"].as_array().unwrap().as_slice() else { panic!("{report}") };
    assert_eq!((keys(cat), keys(fake)), (BTreeSet::from(IMAGE), BTreeSet::from(IMAGE)));
    let hash = retouch_shared::key::Digest32::of(&picture(1)).to_hex();
    let url = cat["result_url"].as_str().unwrap();
    let file = url.strip_prefix("file://").unwrap_or_else(|| panic!("{url}"));
    assert_eq!(std::fs::read(file).unwrap(), laptop.read("retouched/cat-invert.png"));
    assert_eq!(
        *cat,
        json!({
            "position": 0, "input": "cat.png", "status": "done", "source": "paid", "image_hash": hash, "result_url": url,
            "output": "retouched/cat-invert.png", "error": null
        })
    );
    let message = fake["error"]["message"].as_str().unwrap();
    assert_eq!(
        *fake,
        json!({
            "position": 1, "input": "fake.png", "status": "failed", "source": null, "image_hash": null,
            "result_url": null, "output": null, "error": {"code": "not_an_image", "message": message}
        })
    );
    assert_eq!((&report["status"], counts(&report)), (&json!("partial"), [0, 0, 1, 1]));
}

#[tokio::test]
async fn a_task_shows_the_same_later_as_when_it_ended() {
    let laptop = Laptop::new();
    laptop.picture("cat.png", 1);
    laptop.write("small.png", retouch_tests::pictures::picture_as(2, 8, 8, image::ImageFormat::Png));
    let crop = ["-t", "crop", "--param", "width=32", "--param", "height=32"];
    let (_, edited) = laptop.ended(&[&["edit", "cat.png", "small.png"], &crop[..]].concat()).await;
    let id = edited["task_id"].as_str().unwrap();
    let (code, mut shown) = laptop.ended(&["task", id]).await;
    assert_eq!(code, 1, "an image has failed");
    assert_eq!(keys(&shown), keys(&edited));
    // A task remembers what it was given, and knows nothing of files.
    for (shown, edited) in
        shown["images"].as_array_mut().unwrap().iter_mut().zip(edited["images"].as_array().unwrap())
    {
        let blob = shown["input"].as_str().unwrap();
        assert!(blob.starts_with("sha256:"), "{blob}");
        for field in ["input", "output"] {
            shown[field] = edited[field].clone();
        }
    }
    assert_eq!(shown, edited);
}

#[tokio::test]
async fn people_read_every_image_and_a_summary() {
    let laptop = Laptop::new();
    laptop.picture("cat.png", 1);
    laptop.picture("dog.png", 2);
    laptop.write("fake.png", "no picture at all");
    let done = laptop.retouch(&["edit", "cat.png", "-t", "double"]).run().await;
    assert_eq!((done.status.code(), done.stderr.as_str()), (Some(0), ""));
    let done = laptop.retouch(&["edit", "cat.png", "dog.png", "fake.png", "-t", "double"]).run().await;
    assert_eq!((done.status.code(), done.stderr.as_str()), (Some(1), ""));
    let lines: Vec<&str> = done.stdout.lines().collect();
    // Each when it is settled.
    for line in ["✓ cat.png → retouched/cat-double.png", "✓ dog.png → retouched/dog-double.png"] {
        assert!(lines[..3].contains(&line), "{lines:?}");
    }
    let fake = lines[..3].iter().find(|line| line.starts_with("✗ fake.png: not a picture"));
    assert!(fake.is_some_and(|line| line.ends_with("(not_an_image)")), "{lines:?}");
    let row = |names: &str| -> Vec<String> {
        let line = lines.iter().find(|line| line.contains(names)).unwrap_or_else(|| panic!("{lines:?}"));
        line.split("  ").map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
    };
    assert_eq!(row("joined"), ["images", "hit", "joined", "paid", "failed", "time", "cost", "saved"]);
    let mut values = row(" s ");
    assert!(values.remove(5).ends_with(" s"));
    assert_eq!(values, ["3", "1", "0", "1", "1", "0.14 CNY", "0.14 CNY"]);
}

#[tokio::test]
async fn pictures_by_url_are_fetched_and_a_missing_one_fails_alone() {
    let laptop = Laptop::new();
    let server = PictureServer::start().await;
    let (cat, gone) = (server.picture(1), server.url("/gone.png"));
    let command = ["edit", &cat, &gone, "-t", "double", "--json"];
    let done = laptop.retouch(&command).env("RETOUCH_ALLOW_HOSTS", "127.0.0.1").run().await;
    assert_eq!(done.status.code(), Some(1), "{}", done.stderr);
    let report: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(images(&report, "input"), [cat.as_str(), gone.as_str()]);
    assert_eq!(images(&report, "output"), ["retouched/1-double.png", ""]);
    assert_eq!(report["images"][1]["error"]["code"], "source_not_found");
    // Whoever did not allow it is kept from his own machine.
    let (code, report) = laptop.ended(&["edit", &cat, "-t", "double"]).await;
    assert_eq!((code, &report["images"][0]["error"]["code"]), (1, &json!("private_address")));
}

#[tokio::test]
async fn a_task_that_nobody_knows_is_said_to_be_unknown() {
    let laptop = Laptop::new();
    let done = laptop.retouch(&["task", "nobody-knows"]).run().await;
    assert_eq!((done.status.code(), done.stdout.as_str()), (Some(2), ""));
    assert!(done.stderr.starts_with("retouch: no task \"nobody-knows\""), "{}", done.stderr);
}

#[tokio::test]
async fn migrating_says_whether_there_was_anything_to_do() {
    let laptop = Laptop::new();
    let migrate =
        |arguments: &[&str]| laptop.retouch(arguments).env("DATABASE_URL", "sqlite:data/mine.sqlite").run();
    let first = migrate(&["migrate"]).await;
    assert_eq!(
        (first.status.code(), first.stdout.as_str()),
        (Some(0), "migrated: the database is up to date\n")
    );
    let second = migrate(&["migrate"]).await;
    assert_eq!(
        (second.status.code(), second.stdout.as_str()),
        (Some(0), "nothing to do: the database is up to date\n")
    );
    let third = migrate(&["migrate", "--json"]).await;
    assert_eq!(third.stdout, "{\"changed\":false,\"status\":\"current\"}\n");
    assert!(laptop.list("data").contains(&"mine.sqlite".to_owned()));
}

#[tokio::test]
async fn the_schemas_are_printed_as_they_are_checked_in() {
    let laptop = Laptop::new();
    for (message, checked_in) in [
        ("task", include_str!("../../docs/task.schema.json")),
        ("event", include_str!("../../docs/event.schema.json")),
    ] {
        let done = laptop.retouch(&["schema", message]).run().await;
        assert!(done.stdout == checked_in, "run: cargo run -- schema {message} > docs/{message}.schema.json");
    }
}
