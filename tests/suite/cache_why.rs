//! `retouch cache why`: a hit is predicted under the key that a worker computes, and every kind of miss is
//! named.

use std::path::PathBuf;

use image::ImageFormat;
use retouch_shared::key::KEY_VERSION_NUMBER;
use retouch_tests::pictures::{picture, picture_as};
use retouch_tests::site::Site;
use retouch_tests::tasks::{data, task};
use serde_json::{Value, json};

on_both! {
    differences_from_the_nearest_entry_are_named_by_field;
    the_fate_of_a_removed_entry_is_named;
    bytes_that_differ_are_told_from_pixels_that_do;
    a_store_that_cannot_be_asked_is_no_answer;
}

/// A picture in a file.
fn file(site: &Site, name: &str, bytes: &[u8]) -> PathBuf {
    let path = site.env.folder().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

const EDIT: [&str; 6] = ["--type", "double", "--prompt", "make the sky blue", "--params", r#"{"seed": 7}"#];

/// The exit code and the answer.
async fn why(site: &Site, picture: &PathBuf, edit: &[&str]) -> (i32, Value) {
    let arguments = [&["cache", "why", "--json"], edit].concat();
    let done = site.program(&arguments).arg(picture).run().await;
    let answer = serde_json::from_str(&done.stdout);
    (done.status.code().unwrap(), answer.unwrap_or_else(|error| panic!("{error}: {}", done.stderr)))
}

/// The named reasons of an answer.
fn fields(answer: &Value) -> Vec<&str> {
    answer["reasons"].as_array().unwrap().iter().map(|reason| reason["field"].as_str().unwrap()).collect()
}

/// Has a picture edited as [`EDIT`] says.
async fn edited(site: &Site, id: &str, bytes: &[u8]) {
    let mut message = task(id, json!({"seed": 7}), &[data(bytes)]);
    message["prompt"] = json!("make the sky blue");
    site.publish(&message).await;
    assert_eq!(site.ended(id).await.status, "completed");
}

async fn differences_from_the_nearest_entry_are_named_by_field(site: Site) {
    let [_worker] = site.workers().await;
    let cat = file(&site, "cat.png", &picture(1));
    let mask = file(&site, "mask.png", &picture(9));
    edited(&site, "one", &picture(1)).await;
    let (code, hit) = why(&site, &cat, &EDIT).await;
    assert_eq!((code, &hit["outcome"], fields(&hit)), (0, &json!("hit"), vec![]));
    let key = site.texts("SELECT LOWER(HEX(edit_key)) FROM image_edit_cache").await.remove(0);
    assert_eq!((hit["edit_key"].as_str(), hit["nearest"]["edit_key"].as_str()), (Some(&*key), Some(&*key)));

    let [kind, double, prompt, blue, params, seed] = EDIT;
    let mask_path = mask.to_str().unwrap();
    let mask_hash = retouch_shared::key::Digest32::of(&picture(9)).to_hex();
    for (edit, field, wanted, cached) in [
        (
            vec![kind, "double_async", prompt, blue, params, seed],
            "edit_type",
            json!("double_async"),
            json!("double"),
        ),
        (
            vec![kind, double, prompt, "make the sea blue", params, seed],
            "prompt",
            json!("make the sea blue"),
            json!(blue),
        ),
        (vec![kind, double, prompt, blue, params, r#"{"seed": 8}"#], "params.seed", json!(8), json!(7)),
        (vec![kind, double, prompt, blue], "params.seed", json!(null), json!(7)),
        (
            vec![kind, double, prompt, blue, params, seed, "--param", "size=2"],
            "params.size",
            json!(2),
            json!(null),
        ),
        (
            vec![kind, double, prompt, blue, params, seed, "--model", "m-2"],
            "model",
            json!("m-2"),
            json!("double-1"),
        ),
        (
            vec![kind, double, prompt, blue, params, seed, "--variant", "b"],
            "variant",
            json!("b"),
            json!(null),
        ),
        (
            vec![kind, double, prompt, blue, params, seed, "--mask", mask_path],
            "mask",
            json!(mask_hash),
            json!(null),
        ),
    ] {
        let (code, miss) = why(&site, &cat, &edit).await;
        assert_eq!((code, &miss["outcome"], fields(&miss)), (1, &json!("miss"), vec![field]), "{miss}");
        let reason = &miss["reasons"][0];
        assert_eq!((&reason["wanted"], &reason["cached"]), (&wanted, &cached));
        assert_eq!(miss["nearest"]["edit_key"].as_str(), Some(&*key));
        if field == "prompt" {
            let marked = "prompt: wanted \"make the s[ea] blue\", cached \"make the s[ky] blue\"";
            assert_eq!(reason["message"].as_str(), Some(marked));
        }
    }
    let (_, local) = why(&site, &cat, &[kind, "invert"]).await;
    assert_eq!(fields(&local), ["edit_type", "provider", "model", "params.seed", "prompt"]);
    // The nearest entry differs in the fewest fields.
    let mut other = task("two", json!({}), &[data(&picture(1))]);
    other["prompt"] = json!("at night");
    site.publish(&other).await;
    site.ended("two").await;
    let (_, near) = why(&site, &cat, &[kind, double, prompt, "at night", "--variant", "b"]).await;
    assert_eq!((fields(&near), &near["nearest"]["prompt"]), (vec!["variant"], &json!("at night")));

    let calls = site.calls().len();
    assert_eq!(
        (calls, site.number("SELECT COUNT(*) FROM image_edit_calls").await),
        (2, 2),
        "looking changed something"
    );
    site.nothing_left().await;
}

async fn the_fate_of_a_removed_entry_is_named(site: Site) {
    let [_worker] = site.workers().await;
    let cat = file(&site, "cat.png", &picture(1));
    let hash = retouch_shared::key::Digest32::of(&picture(1)).to_hex();
    edited(&site, "one", &picture(1)).await;
    let one = site.task("one").await.unwrap();
    let blob = site.env.folder().join("blobs").join(one.images[0]["result_url"].as_str().unwrap());
    let whole = std::fs::read(&blob).unwrap();
    std::fs::write(&blob, &whole[..whole.len() - 1]).unwrap();
    let (code, short) = why(&site, &cat, &EDIT).await;
    assert_eq!(
        (code, fields(&short), &short["reasons"][0]["cached"]),
        (1, vec!["blob"], &json!("wrong_size"))
    );
    std::fs::remove_file(&blob).unwrap();
    let (code, lost) = why(&site, &cat, &EDIT).await;
    assert_eq!((code, fields(&lost), &lost["nearest"]["blob"]), (1, vec!["blob"], &json!("missing")));
    std::fs::write(&blob, &whole).unwrap();

    // A key of another version: its row is not found under ours, and is reported.
    let key = lost["edit_key"].as_str().unwrap().to_owned();
    for version in [0, 1] {
        let other = "ab".repeat(32);
        site.execute(&format!("UPDATE image_edit_cache SET key_version = {version}, edit_key = x'{other}'"))
            .await;
        let (code, old) = why(&site, &cat, &EDIT).await;
        assert_eq!((code, fields(&old)), (1, vec!["key_version"]), "{old}");
        assert_eq!(
            (&old["reasons"][0]["wanted"], &old["reasons"][0]["cached"]),
            (&json!(KEY_VERSION_NUMBER), &json!(version))
        );
    }
    site.execute("DELETE FROM image_edit_cache").await;
    for (reason, image) in [
        ("evicted", format!("'{hash}'")),
        ("forgotten", "NULL".to_owned()),
        ("blob_missing", format!("'{hash}'")),
    ] {
        site.execute("DELETE FROM image_edit_gone").await;
        site.execute(&format!(
            "INSERT INTO image_edit_gone (edit_key, image_hash, reason, gone_at) VALUES (x'{key}', {image}, '{reason}', '2026-11-25 10:00:00.000')"
        ))
        .await;
        let (code, gone) = why(&site, &cat, &EDIT).await;
        assert_eq!((code, &gone["outcome"], fields(&gone)), (1, &json!("miss"), vec![reason]), "{gone}");
    }

    // Under way, and failed.
    site.publish(&task("open", json!({"gate": "g"}), &[data(&picture(1))])).await;
    site.called(2).await;
    let (code, joined) = why(&site, &cat, &["--type", "double", "--param", "gate=g"]).await;
    assert_eq!((code, &joined["outcome"], fields(&joined)), (0, &json!("joined"), vec!["call"]), "{joined}");
    site.open_gate("g");
    site.ended("open").await;
    site.publish(&task("failed", json!({"fail": "rejected"}), &[data(&picture(1))])).await;
    site.ended("failed").await;
    let (code, failed) = why(&site, &cat, &["--type", "double", "--param", "fail=rejected"]).await;
    assert_eq!((code, &failed["outcome"], fields(&failed)), (1, &json!("miss"), vec!["call"]));
    assert_eq!(failed["reasons"][0]["cached"], json!("failed"));
    let (code, refused) = why(&site, &cat, &["--type", "blur", "--param", "sigma=-3"]).await;
    assert_eq!((code, &refused["outcome"], fields(&refused)), (1, &json!("refused"), vec!["refused"]));
}

async fn bytes_that_differ_are_told_from_pixels_that_do(site: Site) {
    let [_worker] = site.workers().await;
    let original = picture_as(1, 64, 48, ImageFormat::Png);
    let same = file(&site, "same.bmp", &picture_as(1, 64, 48, ImageFormat::Bmp));
    let other = file(&site, "other.png", &picture_as(2, 64, 48, ImageFormat::Png));
    edited(&site, "one", &original).await;
    let (code, twin) = why(&site, &same, &EDIT).await;
    assert_eq!((code, &twin["outcome"], fields(&twin)), (1, &json!("miss"), vec!["image"]));
    let hash = retouch_shared::key::Digest32::of(&original).to_hex();
    assert_eq!((&twin["reasons"][0]["cached"], &twin["nearest"]["image_hash"]), (&json!(hash), &json!(hash)));
    let (code, none) = why(&site, &other, &EDIT).await;
    assert_eq!((code, fields(&none), &none["nearest"]), (1, vec!["image"], &json!(null)));
    assert_eq!(
        none["reasons"][0]["message"],
        json!("image: nothing is cached for the bytes of this picture")
    );
    site.nothing_left().await;
}

async fn a_store_that_cannot_be_asked_is_no_answer(site: Site) {
    let [worker] = site.workers().await;
    let cat = file(&site, "cat.png", &picture(1));
    edited(&site, "one", &picture(1)).await;
    site.nothing_left().await;
    drop(worker);
    let asked = |site: &Site| site.program(&[&["cache", "why", "--json"], &EDIT[..]].concat()).arg(&cat);
    let away = asked(&site)
        .env("DATABASE_URL", "mysql://user:nothing@127.0.0.1:1/none")
        .env("AMQP_URL", "amqp://127.0.0.1:1")
        .run()
        .await;
    assert_eq!((away.status.code(), away.stdout.as_str()), (Some(3), ""), "{}", away.stderr);
    let blobs = site.env.folder().join("blobs");
    let elsewhere = site.env.folder().join("elsewhere");
    // Before the folder goes: to ask for the program makes it.
    let ready = asked(&site);
    std::fs::rename(&blobs, &elsewhere).unwrap();
    let away = ready.run().await;
    assert_eq!((away.status.code(), away.stdout.as_str()), (Some(3), ""), "{}", away.stderr);
    std::fs::rename(&elsewhere, &blobs).unwrap();
    assert_eq!(why(&site, &cat, &EDIT).await.0, 0);
}
