//! Shutdown: work under way is finished or handed back, nothing is lost, no attempt is spent, and the exit
//! code is 0.

use std::time::{Duration, Instant};

use retouch_tests::pictures::picture;
use retouch_tests::program::Running;
use retouch_tests::site::Site;
use retouch_tests::tasks::{seed, task, task_async, url};
use retouch_tests::wait;
use serde_json::json;

on_both! {
    a_stopping_worker_finishes_the_call_under_way;
    a_stopping_worker_hands_an_accepted_edit_to_another;
    a_second_signal_ends_a_worker_at_once;
    a_worker_without_grace_left_returns_its_work_and_ends;
    workers_that_come_and_go_lose_nothing;
}

const UNHARMED: &str = "SELECT CAST(SUM(attempts + possible_duplicates) AS SIGNED) FROM image_edit_calls";

async fn stopping(worker: &Running) {
    worker.terminate();
    worker.line("stopping: finishing what is under way").await;
}

async fn ends_well(worker: &Running) {
    assert_eq!(worker.exit().await.code(), Some(0), "{}", worker.stderr());
}

async fn a_stopping_worker_finishes_the_call_under_way(site: Site) {
    let [worker] = site.workers().await;
    site.publish(&task("task", json!({"gate": "open"}), &[seed(1)])).await;
    site.called(1).await;
    stopping(&worker).await;
    // Later tasks wait for another worker.
    site.publish(&task("next", json!({}), &[seed(2)])).await;
    assert_eq!(worker.status(), None);
    site.open_gate("open");
    ends_well(&worker).await;
    let row = site.task("task").await.unwrap();
    assert_eq!(row.counts, [0, 0, 1, 0]);
    assert!(site.is_right(&row.images[0], &picture(1)));
    assert!(site.task("next").await.is_none());
    let [_other] = site.workers().await;
    site.ended("next").await;
    assert_eq!((site.calls().len(), site.number(UNHARMED).await), (2, 0));
    site.nothing_left().await;
}

async fn a_stopping_worker_hands_an_accepted_edit_to_another(site: Site) {
    let [worker] = site.workers().await;
    site.publish(&task_async("task", json!({"gate": "open"}), &[seed(1)])).await;
    site.counts("SELECT COUNT(*) FROM image_edit_calls WHERE state = 'submitted'", 1).await;
    stopping(&worker).await;
    ends_well(&worker).await;
    let owned = "SELECT COUNT(*) FROM image_edit_calls WHERE owner IS NOT NULL";
    assert_eq!(site.number(owned).await, 0, "the call is free at once, not when its lease has run out");
    let [_other] = site.workers().await;
    let polls = site.polls().len();
    wait::until("polls by the other", async || (site.polls().len() > polls).then_some(())).await;
    site.open_gate("open");
    let row = site.ended("task").await;
    assert_eq!(row.counts, [0, 0, 1, 0]);
    assert!(site.is_right(&row.images[0], &picture(1)));
    assert_eq!((site.calls().len(), site.number(UNHARMED).await), (1, 0));
    site.nothing_left().await;
}

async fn a_second_signal_ends_a_worker_at_once(site: Site) {
    let worker = site.worker_with(&[("RETOUCH_GRACE_SECONDS", "600")]).await;
    site.publish(&task("task", json!({"gate": "never"}), &[seed(1)])).await;
    site.called(1).await;
    stopping(&worker).await;
    let start = Instant::now();
    worker.terminate();
    assert_eq!(worker.exit().await.code(), Some(130), "what is broken off is no orderly end");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

async fn a_worker_without_grace_left_returns_its_work_and_ends(site: Site) {
    let worker = site.worker_with(&[("RETOUCH_GRACE_SECONDS", "1"), ("RETOUCH_LEASE_SECONDS", "1")]).await;
    site.publish(&task("sent", json!({"gate": "never"}), &[seed(1)])).await;
    site.called(1).await;
    site.pictures.hold("/2.png");
    let slow = url(&site.pictures.picture(2));
    site.publish(&task("loading", json!({}), &[slow])).await;
    site.pictures.requested("/2.png", 1).await;
    stopping(&worker).await;
    ends_well(&worker).await;
    site.pictures.release("/2.png");
    let [_other] = site.workers().await;
    assert_eq!(site.ended("loading").await.counts, [0, 0, 1, 0]);
    // Its call was sent without an answer: it is not handed back but resolved after its lease has expired.
    wait::until("the second call", async || (site.calls().len() == 3).then_some(())).await;
    assert_eq!(site.number("SELECT MAX(possible_duplicates) FROM image_edit_calls").await, 1);
}

async fn workers_that_come_and_go_lose_nothing(site: Site) {
    let mut old = site.workers::<1>().await;
    let tasks =
        (0..60).map(|n| task(&format!("task-{n}"), json!({"delay_ms": 30}), &[seed(n), seed(n / 2 + 60)]));
    for task in tasks.collect::<Vec<_>>() {
        site.publish(&task).await;
    }
    for ended in [5, 20, 40] {
        let enough = "SELECT COUNT(*) FROM image_edit_tasks WHERE status = 'completed'";
        wait::until("some tasks", async || (site.number(enough).await >= ended).then_some(())).await;
        let new = site.workers::<1>().await;
        stopping(&old[0]).await;
        ends_well(&old[0]).await;
        old = new;
    }
    site.counts("SELECT COUNT(*) FROM image_edit_tasks WHERE status = 'completed'", 60).await;
    site.nothing_left().await;
    assert_eq!((site.calls().len(), site.number(UNHARMED).await), (90, 0));
    assert_eq!(site.number("SELECT CAST(SUM(hit_count) AS SIGNED) FROM image_edit_cache").await, 120);
}
