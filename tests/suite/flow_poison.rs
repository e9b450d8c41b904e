//! Poison that kills every process that begins it reaches the dead letters after at most five kills; other
//! work beside it does not.

use std::time::Duration;

use retouch_tests::pictures::picture;
use retouch_tests::program::Running;
use retouch_tests::site::{Site, working};
use retouch_tests::tasks::{data, seed, task};
use retouch_tests::wait;
use retouch_worker::sources::DEADLY;
use serde_json::json;

on_both! {
    a_picture_that_kills_intake_is_dead_after_five_kills;
    a_killing_call_fails_after_five_kills_and_innocents_complete;
    a_paid_killing_call_is_sent_twice_and_then_held;
    chance_kills_make_no_poison_of_work_that_ends;
}

const INNOCENTS: u64 = 100;
const MOST_KILLS: usize = 5;
const COMPLETED: &str = "SELECT COUNT(*) FROM image_edit_tasks WHERE status = 'completed'";

/// A worker that takes in all it is sent at once, and whose leases end soon after it.
async fn start(site: &Site) -> Running {
    let worker = site
        .worker()
        .env("RETOUCH_LEASE_SECONDS", "2")
        .env("RETOUCH_PATIENCE_SECONDS", "1")
        .env("RETOUCH_INTAKE_CONCURRENCY", "128")
        .env("RETOUCH_CONFIG", config(site))
        .start();
    working(&worker).await;
    worker
}

fn config(site: &Site) -> String {
    let file = site.env.folder().join("retouch.toml");
    // Free, because a paid call is never sent a third time, whatever killed its worker.
    std::fs::write(&file, "[lanes.double]\nconcurrency = 128\n[routes.double]\nprice = \"0\"\n").unwrap();
    file.display().to_string()
}

/// Starts the worker again each time it dies, until `done`; returns how often it died, and the last one.
async fn supervised(site: &Site, done: impl AsyncFn() -> bool) -> (usize, Running) {
    let mut worker = start(site).await;
    let mut kills = 0;
    let ended = wait::poll(Duration::from_secs(120), async || {
        if worker.status().is_some() {
            kills += 1;
            assert!(kills <= MOST_KILLS, "killed {kills} times; the last said: {}", worker.stderr());
            site.notice_a_kill().await;
            worker = start(site).await;
        }
        done().await.then_some(())
    });
    assert!(ended.await.is_some(), "not at an end after {kills} kills");
    (kills, worker)
}

async fn with_innocents(site: &Site, poison: serde_json::Value) -> usize {
    // The queues exist, and no worker consumes them yet.
    let [first] = site.workers().await;
    first.terminate();
    first.exit().await;
    for n in 0..INNOCENTS {
        site.publish(&task(&format!("innocent-{n}"), json!({"delay_ms": 20}), &[seed(n)])).await;
        if n == INNOCENTS / 2 {
            site.publish(&poison).await;
        }
    }
    let innocents = i64::try_from(INNOCENTS).unwrap();
    let done = async || {
        site.number(COMPLETED).await == innocents
            && site.number("SELECT COUNT(*) FROM dead_letters").await > 0
    };
    let (kills, worker) = supervised(site, done).await;
    assert_eq!(site.dead_letters(1).await, ["poison poison"]);
    site.nothing_left().await;
    assert_eq!(worker.status(), None);
    for n in 0..INNOCENTS {
        let row = site.task(&format!("innocent-{n}")).await.unwrap();
        assert!(site.is_right(&row.images[0], &picture(n)), "innocent-{n}");
    }
    site.counts("SELECT COUNT(*) FROM suspects", 0).await;
    kills
}

async fn a_picture_that_kills_intake_is_dead_after_five_kills(site: Site) {
    let deadly = [picture(1000), DEADLY.to_vec()].concat();
    let kills = with_innocents(&site, task("poison", json!({}), &[data(&deadly)])).await;
    println!("intake: {kills} kills, {INNOCENTS} innocents completed");
    assert!(site.task("poison").await.is_none());
}

async fn a_killing_call_fails_after_five_kills_and_innocents_complete(site: Site) {
    let kills = with_innocents(&site, task("poison", json!({"abort": true}), &[seed(1000)])).await;
    println!("edit: {kills} kills, {INNOCENTS} innocents completed");
    let row = site.task("poison").await.unwrap();
    assert_eq!((row.status.as_str(), &row.images[0]["error"]["code"]), ("failed", &json!("poison")));
}

async fn a_paid_killing_call_is_sent_twice_and_then_held(site: Site) {
    let hurry = [("RETOUCH_LEASE_SECONDS", "2"), ("RETOUCH_PATIENCE_SECONDS", "1")];
    let mut worker = site.worker_with(&hurry).await;
    site.publish(&task("poison", json!({"abort": true}), &[seed(1000)])).await;
    let mut kills = 0;
    wait::until("the end of the call", async || {
        if worker.status().is_some() {
            kills += 1;
            site.notice_a_kill().await;
            worker = site.worker_with(&hurry).await;
        }
        (site.number("SELECT COUNT(*) FROM dead_letters").await > 0).then_some(())
    })
    .await;
    assert_eq!(site.dead_letters(1).await, ["ambiguous poison"]);
    assert_eq!((kills, site.calls().len()), (2, 2));
    site.publish(&task("another", json!({"abort": true}), &[seed(1000)])).await;
    assert_eq!(site.ended("another").await.images[0]["error"]["code"], "ambiguous");
    assert_eq!((worker.status(), site.calls().len()), (None, 2));
    site.nothing_left().await;
}

async fn chance_kills_make_no_poison_of_work_that_ends(site: Site) {
    let mut worker = start(&site).await;
    for n in 0..20 {
        site.publish(&task(&format!("task-{n}"), json!({"delay_ms": 50}), &[seed(n)])).await;
    }
    for kills in 1..=3 {
        site.called(kills * 4).await;
        worker.kill9();
        site.notice_a_kill().await;
        worker = start(&site).await;
    }
    site.counts(COMPLETED, 20).await;
    site.nothing_left().await;
    assert_eq!(site.number("SELECT COUNT(*) FROM dead_letters").await, 0);
}
