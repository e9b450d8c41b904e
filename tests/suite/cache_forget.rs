//! Forgetting while workers run: when the command returns, no table, blob or answer holds the picture, unless
//! it was sent again.

use std::path::{Path, PathBuf};

use retouch_shared::key::Digest32;
use retouch_tests::laptop::{Laptop, counts};
use retouch_tests::pictures::{picture, same_pixels};
use retouch_tests::site::Site;
use retouch_tests::tasks::{seed, task};
use retouch_tests::wait;
use retouch_worker::editor::double;
use serde_json::{Value, json};

on_both! {
    a_picture_forgotten_under_load_is_gone_everywhere;
    a_call_under_way_does_not_restore_a_forgotten_edit;
}

/// Everywhere that a picture's digest could stand.
const PLACES: [&str; 7] = [
    "SELECT COUNT(*) FROM image_edit_cache WHERE image_hash = '{}'",
    "SELECT COUNT(*) FROM image_edit_calls WHERE image_hash = '{}'",
    "SELECT COUNT(*) FROM image_edit_tasks WHERE results LIKE '%{}%'",
    "SELECT COUNT(*) FROM image_edit_tasks WHERE inputs LIKE '%{}%'",
    "SELECT COUNT(*) FROM image_edit_gone WHERE image_hash = '{}'",
    "SELECT COUNT(*) FROM dropped_blobs WHERE hash = '{}'",
    "SELECT COUNT(*) FROM dead_letters WHERE headers LIKE '%{}%'",
];

async fn is_in_no_table(site: &Site, picture: &[u8]) {
    let hash = Digest32::of(picture).to_hex();
    for place in PLACES {
        let query = place.replace("{}", &hash);
        assert_eq!(site.number(&query).await, 0, "{query}");
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return vec![folder.to_owned()] };
    entries.flat_map(|entry| files(&entry.unwrap().path())).collect()
}

/// Whether a blob is this picture, or what the double makes of it.
fn is_in_a_blob(site: &Site, picture: &[u8]) -> bool {
    let result = double::expected(picture).unwrap();
    files(&site.env.folder().join("blobs")).iter().filter_map(|file| std::fs::read(file).ok()).any(|bytes| {
        bytes == picture || (image::guess_format(&bytes).is_ok() && same_pixels(&bytes, &result))
    })
}

async fn forget(site: &Site, arguments: &[&str]) -> Value {
    let arguments: Vec<&str> = ["cache", "forget", "--json"].iter().chain(arguments).copied().collect();
    let done = site.program(&arguments).run().await;
    assert!(done.status.success(), "{}{}", done.stdout, done.stderr);
    serde_json::from_str(&done.stdout).unwrap()
}

async fn a_picture_forgotten_under_load_is_gone_everywhere(site: Site) {
    let _workers = site.workers::<2>().await;
    let victim = picture(500);
    let sent = task("victim", json!({}), &[seed(500), seed(501)]);
    site.publish(&sent).await;
    site.ended("victim").await;
    // The flow goes on before, while and after it is forgotten; the picture is not in it.
    for n in 0..20 {
        site.publish(&task(&format!("load-{n}"), json!({}), &[seed(n % 7), seed(n)])).await;
    }
    let hash = Digest32::of(&victim).to_hex();
    let preview = forget(&site, &["--image", &hash]).await;
    assert_eq!((&preview["preview"], &preview["entries"]), (&json!(true), &json!(1)));
    assert!(is_in_a_blob(&site, &victim), "a preview changes nothing");
    let report = forget(&site, &["--image", &hash, "--yes"]).await;
    assert_eq!(report["entries"], 1, "{report}");
    assert_eq!(report["mentions"]["tasks"], 1, "{report}");
    assert_eq!(report["blobs_deleted"], 2, "{report}");
    is_in_no_table(&site, &victim).await;
    assert!(!is_in_a_blob(&site, &victim));
    assert!(is_in_a_blob(&site, &picture(501)));
    for n in 0..20 {
        assert_eq!(site.ended(&format!("load-{n}")).await.status, "completed");
    }
    // The same message again is answered from its row.
    let calls = site.calls().len();
    site.publish(&sent).await;
    let row = site.ended("victim").await;
    assert_eq!(row.images[0]["error"]["code"], "forgotten");
    assert_eq!(row.images[0].get("result_url").unwrap_or(&Value::Null), &Value::Null);
    assert!(site.is_right(&row.images[1], &picture(501)));
    // Sent again it is a new edit.
    site.publish(&task("again", json!({}), &[seed(500)])).await;
    let row = site.ended("again").await;
    assert_eq!(row.counts, [0, 0, 1, 0]);
    assert!(site.is_right(&row.images[0], &victim));
    assert_eq!(site.calls().len(), calls + 1);
    assert_eq!(site.number("SELECT COUNT(*) FROM image_edit_gone").await, 0);
}

async fn a_call_under_way_does_not_restore_a_forgotten_edit(site: Site) {
    let worker = site.workers::<1>().await;
    let victim = picture(600);
    site.publish(&task("victim", json!({"gate": "open"}), &[seed(600)])).await;
    site.called(1).await;
    let report = forget(&site, &["--task", "victim", "--yes"]).await;
    assert_eq!((&report["calls_sent"], &report["images_failed"]), (&json!(1), &json!(1)), "{report}");
    let row = site.ended("victim").await;
    assert_eq!((row.status.as_str(), row.counts), ("failed", [0, 0, 0, 1]));
    assert_eq!(row.images[0]["error"]["code"], "forgotten");
    // Its result still arrives, and belongs to no edit.
    site.open_gate("open");
    worker[0].line("the lease was lost").await;
    is_in_no_table(&site, &victim).await;
    let gone = async || (!is_in_a_blob(&site, &victim)).then_some(());
    wait::until("the result to be dropped", gone).await;
    assert_eq!(site.number("SELECT COUNT(*) FROM image_edit_cache").await, 0);
    assert_eq!(site.number("SELECT COUNT(*) FROM image_edit_waits").await, 0);
    site.publish(&task("again", json!({"gate": "open"}), &[seed(600)])).await;
    let row = site.ended("again").await;
    assert_eq!(row.counts, [0, 0, 1, 0]);
    assert!(site.is_right(&row.images[0], &victim));
}

#[tokio::test]
async fn on_a_laptop_a_picture_is_forgotten_by_its_file() {
    let laptop = Laptop::new();
    laptop.picture("a.png", 1);
    laptop.picture("b.png", 2);
    let edit = ["edit", "a.png", "b.png", "--type", "double", "--out", "out"];
    assert_eq!(counts(&laptop.report(&edit).await), [0, 0, 2, 0]);
    let report = laptop.report(&["cache", "forget", "--image", "a.png", "--yes"]).await;
    assert_eq!((&report["entries"], &report["blobs_deleted"]), (&json!(1), &json!(2)), "{report}");
    let nothing = laptop.report(&["cache", "forget", "--image", "a.png"]).await;
    assert_eq!(nothing["entries"], 0);
    assert_eq!(counts(&laptop.report(&edit).await), [1, 0, 1, 0]);
    for (arguments, says) in [
        (&["cache", "forget", "--task", "unknown"][..], "no task"),
        (&["cache", "forget", "--image", "nowhere.png"], "neither a SHA-256"),
        (&["cache", "forget"], "required"),
        (&["cache", "evict", "--dry-run"], "no limit is set"),
    ] {
        let done = laptop.retouch(arguments).run().await;
        assert_eq!(done.status.code(), Some(2), "{arguments:?}");
        assert!(done.stderr.contains(says), "{}", done.stderr);
    }
}
