//! Blobs deleted, truncated or overwritten outside the program: no dead link and no wrong picture is
//! answered, each is made again at most once, and `retouch cache verify` finds them all.
//! `RETOUCH_TEST_ENTRIES=1200` runs it with a thousand deleted and a hundred truncated.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use retouch_tests::pictures::picture;
use retouch_tests::site::{Site, TaskRow};
use retouch_tests::tasks::{seed, task};
use serde_json::{Value, json};

/// Images of a task.
const IMAGES: usize = 20;

fn entries() -> usize {
    std::env::var("RETOUCH_TEST_ENTRIES").ok().and_then(|text| text.parse().ok()).unwrap_or(120)
}

fn blob(site: &Site, image: &Value) -> PathBuf {
    site.env.folder().join("blobs").join(image["result_url"].as_str().unwrap())
}

/// Sends tasks for these pictures; returns their images as they were answered.
async fn send(site: &Site, name: &str, seeds: std::ops::Range<usize>) -> Vec<Value> {
    let ids: Vec<(String, Vec<usize>)> = seeds
        .collect::<Vec<_>>()
        .chunks(IMAGES)
        .enumerate()
        .map(|(n, seeds)| (format!("{name}-{n}"), seeds.to_vec()))
        .collect();
    for (id, seeds) in &ids {
        let images: Vec<Value> = seeds.iter().map(|n| seed(*n as u64)).collect();
        site.publish(&task(id, json!({}), &images)).await;
    }
    let mut images = Vec::new();
    for (id, seeds) in &ids {
        let within = Duration::from_secs(240);
        let row =
            retouch_tests::wait::poll(within, async || site.task(id).await.filter(TaskRow::has_ended)).await;
        let row = row.unwrap_or_else(|| panic!("{id} has not ended"));
        assert_eq!(row.status, "completed", "{row:?}");
        for (image, seed) in row.images.iter().zip(seeds) {
            assert!(site.is_right(image, &picture(*seed as u64)), "{id}: {image}");
        }
        images.extend(row.images);
    }
    images
}

async fn verify(site: &Site, code: i32) -> Value {
    let done = site.program(&["cache", "verify", "--fresh", "0", "--json"]).run().await;
    assert_eq!(done.status.code(), Some(code), "{}{}", done.stdout, done.stderr);
    serde_json::from_str(&done.stdout).unwrap_or_default()
}

#[tokio::test]
async fn lost_and_damaged_blobs_are_found_and_made_again_once() {
    let site = Site::in_one_file().await;
    let _worker = site.worker_with(&[]).await;
    let count = entries();
    let (deleted, cut) = (count * 10 / 12, count / 12);
    let images = send(&site, "first", 0..count).await;
    assert_eq!(verify(&site, 0).await["good"], count);
    for (n, image) in images.iter().enumerate() {
        let path = blob(&site, image);
        let bytes = fs::read(&path).unwrap();
        if n < deleted {
            fs::remove_file(path).unwrap();
        } else if n < deleted + cut {
            fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
        } else if n == count - 1 {
            // The same size: no hit notices it.
            let mut bytes = bytes;
            *bytes.last_mut().unwrap() ^= 1;
            fs::write(path, bytes).unwrap();
        }
    }
    // Half of the lost ones are requested before verification.
    let asked = deleted / 2;
    send(&site, "second", 0..asked).await;
    assert_eq!(site.calls().len(), count + asked);
    let found = verify(&site, 1).await;
    assert_eq!(found["missing"], deleted - asked, "{found}");
    assert_eq!(found["damaged"], cut + 1, "{found}");
    assert_eq!(found["verified"], count, "{found}");
    let lost = "SELECT COUNT(*) FROM image_edit_gone WHERE reason = 'blob_missing'";
    assert_eq!(site.number(lost).await, i64::try_from(deleted - asked + cut + 1).unwrap());
    assert_eq!(verify(&site, 0).await["verified"], count - (deleted - asked) - cut - 1);
    send(&site, "third", 0..count).await;
    assert_eq!(site.calls().len(), count + deleted + cut + 1, "each was made again once");
    let all = verify(&site, 0).await;
    assert_eq!(all["good"], count, "{all}");
    println!(
        "verify | {count} entries | {deleted} deleted, {cut} cut, 1 overwritten | found by verify: {} missing, {} damaged | made again: {} | twice: 0",
        found["missing"],
        found["damaged"],
        deleted + cut + 1
    );
}

#[tokio::test]
async fn a_store_without_any_of_the_blobs_counts_as_wrong() {
    let site = Site::in_one_file().await;
    let worker = site.worker_with(&[]).await;
    send(&site, "first", 0..40).await;
    drop(worker);
    let blobs = site.env.folder().join("blobs");
    fs::rename(&blobs, site.env.folder().join("away")).unwrap();
    // Not mounted: the state of the blobs is unknown.
    assert_eq!(verify(&site, 3).await, Value::Null);
    fs::create_dir_all(blobs.join("sha256")).unwrap();
    assert_eq!(verify(&site, 3).await, Value::Null);
    assert_eq!(site.number("SELECT COUNT(*) FROM image_edit_cache").await, 40);
    let done = site.program(&["cache", "verify", "--fresh", "0", "--all-missing"]).run().await;
    assert_eq!(done.status.code(), Some(1));
    assert!(done.stdout.contains("40 had no blob"), "{}", done.stdout);
    assert_eq!(site.number("SELECT COUNT(*) FROM image_edit_cache").await, 0);
}

#[tokio::test]
async fn workers_keep_the_cache_limit_and_sweep_unreferenced_blobs() {
    let site = Site::in_one_file().await;
    let first = site.worker_with(&[]).await;
    let images = send(&site, "first", 0..40).await;
    drop(first);
    let total = site.number("SELECT CAST(SUM(bytes) AS INTEGER) FROM image_edit_cache").await;
    let most = (total / 2).to_string();
    let dry =
        site.program(&["cache", "evict", "--max-bytes", &most, "--keep-hours", "0", "--dry-run", "--json"]);
    let dry = dry.run().await;
    let told: Value =
        serde_json::from_str(&dry.stdout).unwrap_or_else(|_| panic!("{}{}", dry.stdout, dry.stderr));
    assert_eq!(told["bytes"], total);
    assert!(told["for_room"]["entries"].as_i64().unwrap() > 10, "{told}");
    assert_eq!(site.number("SELECT COUNT(*) FROM image_edit_cache").await, 40);
    // Recently served entries stay, whatever the limit.
    let _held = site.worker_with(&[("RETOUCH_CACHE_MAX_BYTES", &most)]).await;
    send(&site, "second", 0..20).await;
    assert_eq!(site.number("SELECT COUNT(*) FROM image_edit_cache").await, 40);
    let _worker =
        site.worker_with(&[("RETOUCH_CACHE_MAX_BYTES", &most), ("RETOUCH_CACHE_KEEP_HOURS", "0")]).await;
    let within = format!("SELECT CAST(SUM(bytes) <= {most} AS INTEGER) FROM image_edit_cache");
    site.counts(&within, 1).await;
    let left = site.number("SELECT COUNT(*) FROM image_edit_cache").await;
    assert!(left >= 15, "no more went than had to: {left} of 40 are left");
    let blobs = async || {
        let there = images.iter().filter(|image| blob(&site, image).exists()).count();
        (i64::try_from(there).unwrap() == left).then_some(())
    };
    retouch_tests::wait::until("the blobs of what was evicted to be deleted", blobs).await;
}
