//! `retouch cache show`: a picture, its hash, an edit key, a result or its URL lead to the same entries with
//! all their fields.

use std::path::PathBuf;

use retouch_shared::key::{Digest32, KEY_VERSION_NUMBER};
use retouch_tests::pictures::picture;
use retouch_tests::site::Site;
use retouch_tests::tasks::{data, task};
use serde_json::{Value, json};

on_both! {
    every_name_of_a_picture_leads_to_its_entries;
    removed_running_and_outdated_entries_are_shown_as_such;
}

async fn show(site: &Site, what: impl Into<PathBuf>) -> (i32, Value) {
    let done = site.program(&["cache", "show", "--json"]).arg(what.into()).run().await;
    let shown = serde_json::from_str(&done.stdout);
    (done.status.code().unwrap(), shown.unwrap_or_else(|error| panic!("{error}: {}", done.stderr)))
}

fn keys(shown: &Value, list: &str) -> Vec<String> {
    shown[list]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["edit_key"].as_str().unwrap().to_owned())
        .collect()
}

async fn every_name_of_a_picture_leads_to_its_entries(site: Site) {
    let [_worker] = site.workers().await;
    let cat = site.env.folder().join("cat.png");
    std::fs::write(&cat, picture(1)).unwrap();
    let hash = Digest32::of(&picture(1)).to_hex();
    let mut message = task("one", json!({"seed": 7}), &[data(&picture(1)), data(&picture(1))]);
    message["variant"] = json!("b");
    site.publish(&message).await;
    site.publish(&task("two", json!({}), &[data(&picture(1)), data(&picture(2))])).await;
    let one = site.ended("one").await;
    site.ended("two").await;
    let of_file = show(&site, &cat).await;
    assert_eq!((of_file.0, keys(&of_file.1, "entries").len()), (0, 2));
    for name in [hash.clone(), format!("sha256:{hash}")] {
        assert_eq!(show(&site, name).await, of_file);
    }
    let entries = of_file.1["entries"].as_array().unwrap();
    let entry = entries.iter().find(|entry| entry["variant"] == "b").unwrap();
    for (field, value) in [
        ("image_hash", json!(hash)),
        ("edit_type", json!("double")),
        ("params", json!({"seed": 7})),
        ("model", json!("double-1")),
        ("mask_hash", json!(null)),
        ("key_version", json!(KEY_VERSION_NUMBER)),
        ("price", json!("0.14")),
        ("hits", json!(2)),
        ("blob", json!("present")),
        ("content_type", json!("image/png")),
    ] {
        assert_eq!(entry[field], value, "{field}");
    }
    let reference = one.images[0]["result_url"].as_str().unwrap();
    let url = entry["result_url"].as_str().unwrap().to_owned();
    assert!(url.ends_with(&format!("/{reference}")), "{url}");

    let key = entry["edit_key"].as_str().unwrap();
    let (code, by_key) = show(&site, key).await;
    assert_eq!((code, by_key["entries"].as_array().unwrap().as_slice()), (0, std::slice::from_ref(entry)));
    // The double makes the same of the same picture, whatever its parameters.
    let result = site.env.folder().join("result.png");
    std::fs::write(&result, site.result(&one.images[0])).unwrap();
    for name in [result, url.into()] {
        let (code, shown) = show(&site, name).await;
        assert_eq!((code, keys(&shown, "entries").len(), keys(&shown, "result_of").len()), (0, 0, 2));
        assert!(keys(&shown, "result_of").contains(&key.to_owned()));
    }
    assert_eq!(show(&site, "00".repeat(32)).await.0, 1);
    let refused = site.program(&["cache", "show", "nothing.png"]).run().await;
    assert_eq!((refused.status.code(), refused.stdout.as_str()), (Some(2), ""));
    site.nothing_left().await;
}

async fn removed_running_and_outdated_entries_are_shown_as_such(site: Site) {
    let [_worker] = site.workers().await;
    let hash = Digest32::of(&picture(1)).to_hex();
    site.publish(&task("one", json!({}), &[data(&picture(1))])).await;
    let one = site.ended("one").await;
    site.publish(&task("open", json!({"gate": "g"}), &[data(&picture(1))])).await;
    site.called(2).await;
    let gone = "cd".repeat(32);
    site.execute(&format!(
        "INSERT INTO image_edit_gone (edit_key, image_hash, reason, gone_at) VALUES (x'{gone}', '{hash}', 'evicted', '2026-11-25 10:00:00.000')"
    ))
    .await;
    site.execute("UPDATE image_edit_cache SET key_version = 9").await;
    let blob = site.env.folder().join("blobs").join(one.images[0]["result_url"].as_str().unwrap());
    std::fs::remove_file(blob).unwrap();

    let (code, shown) = show(&site, hash.clone()).await;
    assert_eq!((code, keys(&shown, "gone")), (0, vec![gone.clone()]));
    assert_eq!(
        (&shown["gone"][0]["reason"], &shown["gone"][0]["gone_at"]),
        (&json!("evicted"), &json!("2026-11-25T10:00:00.000Z"))
    );
    let [call] = shown["calls"].as_array().unwrap().as_slice() else { panic!("{shown}") };
    assert_eq!((&call["state"], &call["edit_type"]), (&json!("submitting"), &json!("double")).clone());
    assert_eq!(
        (&shown["entries"][0]["key_version"], &shown["entries"][0]["blob"]),
        (&json!(9), &json!("missing"))
    );
    assert_eq!(keys(&show(&site, gone).await.1, "gone").len(), 1);

    let text = site.program(&["cache", "show", &hash]).run().await.stdout;
    for line in [
        "9: never hit, this program's is 2",
        ", missing\n",
        "evicted since 2026-11-25 10:00:00",
        " by double-1: call ",
    ] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
    site.open_gate("g");
    site.ended("open").await;
}
