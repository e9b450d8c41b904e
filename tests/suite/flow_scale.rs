//! Many tasks over several processes: nothing is paid twice, nothing is lost, and hits do not wait behind misses.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use retouch_tests::pictures::picture;
use retouch_tests::python;
use retouch_tests::site::{Site, TaskRow};
use retouch_tests::tasks::{data, seed, task, url};
use serde_json::{Value, json};

const TASKS: usize = 1000;
const PICTURES: usize = 50;
/// For a thousand tasks on a machine that is busy with other tests.
const LONG: Duration = Duration::from_secs(120);
const COMPLETED: &str = "SELECT COUNT(*) FROM image_edit_tasks WHERE status = 'completed'";
const COUNTED: [&str; 4] = ["hit_images", "joined_images", "paid_images", "failed_images"];

/// The pictures of task `n`.
fn drawn(n: usize) -> [usize; 3] {
    [n % PICTURES, (n * 7 + 3) % PICTURES, (n * 31 + n / PICTURES) % PICTURES]
}

fn by_any_way(site: &Site, n: usize) -> Value {
    let seed = n as u64;
    if n.is_multiple_of(2) { url(&site.pictures.picture(seed)) } else { data(&picture(seed)) }
}

#[tokio::test]
async fn a_thousand_tasks_of_fifty_pictures_make_fifty_calls() {
    let site = Site::on_servers().await;
    let _workers: [_; 4] = site.workers().await;
    let sources: Vec<Value> = (0..PICTURES).map(|n| by_any_way(&site, n)).collect();
    let mut lines = String::new();
    for n in 0..TASKS {
        let images = drawn(n).map(|n| sources[n].clone());
        writeln!(lines, "{}", task(&format!("task-{n}"), json!({}), &images)).unwrap();
    }
    let file = site.env.folder().join("tasks.jsonl");
    std::fs::write(&file, lines).unwrap();
    let bulk = python::producer("bulk.py", &["--file"]).await.arg(&file);
    let bulk = bulk.env("AMQP_URL", site.env.amqp_url()).env("RETOUCH_NAMESPACE", site.env.namespace());

    let start = Instant::now();
    let published = bulk.run().await;
    assert!(published.status.success(), "{}", published.stderr);
    let confirmed = start.elapsed();
    site.counts_within(LONG, COMPLETED, TASKS as i64).await;
    println!("{TASKS} tasks: confirmed after {confirmed:?}, completed after {:?}", start.elapsed());

    assert_eq!(site.calls().len(), PICTURES);
    let mut right = HashSet::new();
    for n in 0..TASKS {
        let row = site.task(&format!("task-{n}")).await.unwrap();
        assert_eq!(row.images.len(), 3);
        for (image, picture_of) in row.images.iter().zip(drawn(n)) {
            // The same blob need not be compared with the same picture a second time.
            let pair = (image["result_url"].to_string(), picture_of);
            if !right.contains(&pair) {
                assert!(site.is_right(image, &picture(picture_of as u64)), "task-{n}: {image}");
                right.insert(pair);
            }
        }
    }
    assert_eq!(right.len(), PICTURES);
    let served = 3 * TASKS as i64;
    let [hit, joined, paid, failed] = sums(&site).await;
    println!("hit {hit}, joined {joined}, paid {paid}, failed {failed}");
    assert_eq!((hit + joined + paid, paid, failed), (served, PICTURES as i64, 0));
    assert_eq!(site.number("SELECT CAST(SUM(hit_count) AS SIGNED) FROM image_edit_cache").await, served);
    site.nothing_left().await;
}

async fn sums(site: &Site) -> [i64; 4] {
    let mut sums = [0; 4];
    for (sum, column) in sums.iter_mut().zip(COUNTED) {
        *sum = site.number(&format!("SELECT CAST(SUM({column}) AS SIGNED) FROM image_edit_tasks")).await;
    }
    sums
}

async fn two_hundred_tasks_for_the_same_edit(params: Value, gate: Option<&str>) -> (Site, Vec<TaskRow>) {
    let site = Site::on_servers().await;
    let workers: [_; 4] = site.workers().await;
    let ids: Vec<String> = (0..200).map(|n| format!("task-{n}")).collect();
    let tasks: Vec<Value> = ids.iter().map(|id| task(id, params.clone(), &[seed(7)])).collect();
    futures::future::join_all(tasks.iter().map(|task| site.publish(task))).await;
    if let Some(gate) = gate {
        site.counts("SELECT COUNT(*) FROM image_edit_waits", 200).await;
        site.open_gate(gate);
    }
    site.counts_within(LONG, COMPLETED, 200).await;
    assert_eq!(site.calls().len(), 1);
    site.nothing_left().await;
    drop(workers);
    let mut rows = Vec::new();
    for id in &ids {
        rows.push(site.task(id).await.unwrap());
    }
    for row in &rows {
        assert!(site.is_right(&row.images[0], &picture(7)));
    }
    (site, rows)
}

fn with(rows: &[TaskRow], counts: [i64; 4]) -> usize {
    rows.iter().filter(|row| row.counts == counts).count()
}

#[tokio::test]
async fn two_hundred_tasks_for_one_edit_join_one_call() {
    let (_site, rows) = two_hundred_tasks_for_the_same_edit(json!({"gate": "open"}), Some("open")).await;
    assert_eq!(with(&rows, [0, 0, 1, 0]), 1);
    assert_eq!(with(&rows, [0, 1, 0, 0]), 199);
}

#[tokio::test]
async fn two_hundred_tasks_racing_a_finish_join_or_hit() {
    let (_site, rows) = two_hundred_tasks_for_the_same_edit(json!({}), None).await;
    assert_eq!(with(&rows, [0, 0, 1, 0]), 1);
    assert_eq!(with(&rows, [0, 1, 0, 0]) + with(&rows, [1, 0, 0, 0]), 199);
}

#[tokio::test]
async fn a_thousand_waiting_misses_do_not_delay_hits() {
    let site = Site::on_servers().await;
    let _worker = site.worker_with(&[("RETOUCH_INTAKE_CONCURRENCY", "32")]).await;
    let known: Vec<Value> = (0..3).map(seed).collect();
    site.publish(&task("before", json!({}), &known)).await;
    assert_eq!(site.ended("before").await.counts, [0, 0, 3, 0]);

    let misses = (0..20).map(|n| {
        let images: Vec<Value> = (0..50).map(|m| seed(1000 + n * 50 + m)).collect();
        task(&format!("miss-{n}"), json!({"delay_ms": 5000}), &images)
    });
    for miss in misses.collect::<Vec<_>>() {
        site.publish(&miss).await;
    }
    site.counts("SELECT COUNT(*) FROM image_edit_calls WHERE state <> 'done'", 1000).await;

    let mut events = site.events().await;
    let mut took = Vec::new();
    // A busy machine may stall one of them; queueing behind the misses would hold up each of them for minutes.
    for id in ["hits-1", "hits-2", "hits-3"] {
        let start = Instant::now();
        site.publish(&task(id, json!({}), &known)).await;
        let event = loop {
            let event = events.next_json().await;
            if event["task_id"] == id {
                break event;
            }
        };
        took.push(start.elapsed());
        assert_eq!((event["status"].as_str(), event["hit"].as_i64()), (Some("completed"), Some(3)));
    }
    println!("tasks of three hits behind a thousand misses took {took:?}");
    assert!(took.iter().min().unwrap() < &Duration::from_secs(1), "{took:?}");
    let waiting = site.number("SELECT COUNT(*) FROM image_edit_calls WHERE state <> 'done'").await;
    assert!(waiting > 900, "the misses did not wait: {waiting}");
}

#[tokio::test]
async fn purging_every_queue_loses_no_accepted_task() {
    let site = Site::on_servers().await;
    let hurry = [("RETOUCH_PATIENCE_SECONDS", "1"), ("RETOUCH_LEASE_SECONDS", "2")];
    let _workers = [site.worker_with(&hurry).await, site.worker_with(&hurry).await];
    let params = json!({"gate": "open"});
    let tasks: Vec<Value> = (0..120)
        .map(|n| task(&format!("task-{n}"), params.clone(), &[seed(n % 40), seed(n / 3 + 40)]))
        .collect();
    let half = tasks.len() / 2;
    futures::future::join_all(tasks[..half].iter().map(|task| site.publish(task))).await;
    // More calls than both processes work on at a time: the rest is in the queue of edits.
    site.counts("SELECT COUNT(*) FROM image_edit_tasks", half as i64).await;
    site.called(32).await;
    let (rest, purged) = tokio::join!(
        futures::future::join_all(tasks[half..].iter().map(|task| site.publish(task))),
        site.purge_all()
    );
    assert_eq!(rest.len(), half);
    println!("{purged} messages were purged");
    assert!(purged > 0);
    site.open_gate("open");
    site.counts("SELECT COUNT(*) FROM image_edit_tasks WHERE status = 'processing'", 0).await;
    assert_eq!(site.number(COMPLETED).await, site.number("SELECT COUNT(*) FROM image_edit_tasks").await);

    // Producers without an event publish again: tasks lost before intake are done, the others are only
    // answered.
    futures::future::join_all(tasks.iter().map(|task| site.publish(task))).await;
    site.counts(COMPLETED, tasks.len() as i64).await;
    site.nothing_left().await;
    let [hit, joined, paid, failed] = sums(&site).await;
    assert_eq!((hit + joined + paid, failed), (240, 0));
    assert_eq!(site.calls().len() as i64, paid);
    assert_eq!(site.number("SELECT CAST(SUM(hit_count) AS SIGNED) FROM image_edit_cache").await, 240);
    for (n, task) in (0..120).zip(&tasks) {
        let row = site.task(task["task_id"].as_str().unwrap()).await.unwrap();
        assert!(site.is_right(&row.images[0], &picture(n % 40)), "{row:?}");
        assert!(site.is_right(&row.images[1], &picture(n / 3 + 40)), "{row:?}");
    }
}
