//! An older system's cache and tasks, whole, through one import each and then through a running worker. Small in the suite;
//! `RETOUCH_TEST_IMPORT=100000,20000 tests/run -E 'test(cache_import::full)' --no-capture` is the size of docs/operations/cache-import.md.

use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt};
use retouch_tests::older::{self, CACHE, Older, TASKS_JSON};
use retouch_tests::site::Site;
use serde_json::Value;

use super::asks;

/// Rows of the cache and tasks.
fn sizes() -> (u64, u64) {
    let given = std::env::var("RETOUCH_TEST_IMPORT").unwrap_or_else(|_| "2000,400".to_owned());
    let (rows, tasks) = given.split_once(',').expect("RETOUCH_TEST_IMPORT=ROWS,TASKS");
    (rows.parse().unwrap(), tasks.parse().unwrap())
}

/// Images that are sent together.
const IMAGES: usize = 64;
/// For the whole size on a busy machine.
const LONG: Duration = Duration::from_secs(1800);

/// Imports, however long that takes.
async fn imported(site: &Site, older: &Older) -> Value {
    let running = site.program(&["cache", "import", "--yes", "--json", "--from", older.url()]).start();
    tokio::time::timeout(LONG, running.ended()).await.expect("the import ends");
    let status = running.exit().await;
    assert!(status.success(), "{}", running.stderr());
    serde_json::from_str(&running.stdout()).unwrap()
}

/// Imports twice, and says what that did.
async fn imported_twice(site: &Site, older: &Older, what: &str) -> Value {
    let first = imported(site, older).await;
    let again = imported(site, older).await;
    let count = |report: &Value, name: &str| report[name].as_u64().unwrap();
    println!(
        "{what}: {} rows with {} results: {} new entries, {} hits, {:?} skipped, {:.1} s; again: {} new, {} there already, {:.1} s",
        count(&first, "rows"),
        count(&first, "images"),
        count(&first, "new"),
        count(&first, "hits_added"),
        first["skipped"].as_object().unwrap().len(),
        seconds(count(&first, "milliseconds")),
        count(&again, "new"),
        count(&again, "same"),
        seconds(count(&again, "milliseconds")),
    );
    assert_eq!((count(&again, "new"), count(&again, "hits_added")), (0, 0), "{again}");
    assert_eq!(count(&again, "same"), count(&first, "new"));
    first
}

fn seconds(milliseconds: u64) -> f64 {
    Duration::from_millis(milliseconds).as_secs_f64()
}

/// Sends pictures with a prompt through a worker; each must be a hit.
async fn all_hit(site: &Site, what: &str, asked: &[(String, Vec<u64>)]) {
    let [_worker] = site.workers().await;
    let began = Instant::now();
    let (mut tasks, mut images) = (Vec::new(), 0);
    for (prompt, pictures) in asked {
        for pictures in pictures.chunks(IMAGES) {
            tasks.push((prompt.clone(), pictures.to_vec()));
            images += i64::try_from(pictures.len()).unwrap();
        }
    }
    let count = i64::try_from(tasks.len()).unwrap();
    let before = site.number("SELECT COUNT(*) FROM image_edit_tasks").await;
    let sent =
        stream::iter(tasks.iter().enumerate()).for_each_concurrent(8, async |(n, (prompt, pictures))| {
            site.publish(&asks(&format!("{what}-{n}").replace(' ', "-"), prompt, pictures)).await;
        });
    sent.await;
    let ended = "SELECT COUNT(*) FROM image_edit_tasks WHERE status NOT IN ('pending', 'processing')";
    site.counts_within(LONG, ended, before + count).await;
    let sum = |column: &str| format!("SELECT CAST(SUM({column}) AS SIGNED) FROM image_edit_tasks");
    let hit = site.number(&sum("hit_images")).await;
    println!(
        "{what}: {images} images in {count} tasks through one worker: all hits, {:.1} s",
        began.elapsed().as_secs_f64()
    );
    assert_eq!((hit, site.number(&sum("total_images")).await), (images, images));
    assert_eq!(site.calls().len(), 0, "something was paid for");
}

#[tokio::test]
async fn a_whole_older_cache_is_imported_once_and_always_hits() {
    let (rows, _) = sizes();
    let older = Older::on_mariadb(CACHE).await;
    older.cache(0..rows).await;
    let site = Site::on_servers().await;
    let first = imported_twice(&site, &older, "cache rows").await;
    assert_eq!(
        (first["new"].as_u64(), first["skipped"].as_object().unwrap().len()),
        (Some(rows), 0),
        "{first}"
    );
    let sums = "SELECT CAST(SUM(hit_count) AS SIGNED) FROM image_edit_cache";
    assert_eq!(site.number(sums).await, older.number(sums).await);
    let of = |rest: u64| (older::prompt(rest), (0..rows).filter(|n| n % 4 == rest).collect());
    all_hit(&site, "cache rows", &[0, 1, 2, 3].map(of)).await;
}

#[tokio::test]
async fn whole_older_tasks_are_imported_once_and_always_hit() {
    let (_, tasks) = sizes();
    let older = Older::on_mariadb(TASKS_JSON).await;
    let pictures = older.tasks(0..tasks).await;
    let site = Site::on_servers().await;
    let first = imported_twice(&site, &older, "tasks").await;
    let images = pictures.iter().map(Vec::len).sum::<usize>() as u64;
    assert_eq!(
        (first["images"].as_u64(), first["hits_added"].as_u64()),
        (Some(images), Some(images)),
        "{first}"
    );
    let asked: Vec<_> = vec![(older::TASK_PROMPT.to_owned(), pictures.concat())];
    all_hit(&site, "tasks", &asked).await;
}
