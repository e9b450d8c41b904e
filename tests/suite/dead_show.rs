//! Ten thousand dead letters of six causes: seen in groups at once, and one group sent again at full speed, each letter exactly
//! once, also by two people at the same moment and with a kill in the middle.
//!
//! `tests/run -E 'test(dead_show)' --success-output immediate | grep 'letters |'` prints the figures.

use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt};
use retouch_shared::key::Digest32;
use retouch_tests::program::Running;
use retouch_tests::site::Site;
use retouch_tests::tasks::{seed, task, url};
use retouch_worker::store::{DatabaseLocation, DeadLetter, DeadPayload, Properties, Store};
use serde_json::{Value, json};

use crate::dead_retry::{dead, dead_json};

on_both! {
    ten_thousand_letters_are_six_groups_and_each_is_sent_again_exactly_once;
}

/// Real failures of each cause, through the program.
const REAL: u64 = 3;
/// Images of the tasks whose edits really fail: one letter each.
const EDITS: u64 = 60;

fn store(site: &Site) -> Store {
    let location = if is_file(site) {
        DatabaseLocation::Sqlite(site.env.sqlite_url().trim_start_matches("sqlite://").into())
    } else {
        DatabaseLocation::MySql(site.env.mysql_url())
    };
    Store::open(&location, 16).unwrap()
}

fn is_file(site: &Site) -> bool {
    site.env.folder().join("retouch.db").exists()
}

fn letter(n: u64, reason: &str, message: String, payload: &Value) -> DeadLetter {
    DeadLetter {
        letter_key: Digest32::of(format!("{reason} {n}").as_bytes()),
        queue: "tasks".to_owned(),
        reason: reason.to_owned(),
        message,
        payload: DeadPayload::Inline(payload.to_string().into()),
        kept: None,
        headers: [].into(),
        attempts: 1,
        task_id: payload["task_id"].as_str().map(ToOwned::to_owned),
        edit_key: None,
        edit_type: Some("double".to_owned()),
        properties: Properties::default(),
        again: None,
        settled: false,
    }
}

/// Some of each cause as they really come; returns how many letters there are.
async fn really_fail(site: &Site) -> u64 {
    site.publish(&task("known", json!({}), &[seed(1)])).await;
    site.ended("known").await;
    for n in 0..REAL {
        let mut bad = task(&format!("bad-{n}"), json!({}), &[seed(1)]);
        bad["colour"] = json!("red");
        site.publish(&bad).await;
        site.publish(&task("known", json!({"other": n}), &[seed(1)])).await;
        let gone = site.pictures.url(&format!("/gone-{n}.png"));
        site.publish(&task(&format!("gone-{n}"), json!({}), &[url(&gone)])).await;
        site.publish(&task(
            &format!("flat-{n}"),
            json!({}),
            &[json!({"data": "data:image/png;base64,AAAA"})],
        ))
        .await;
    }
    let images: Vec<Value> = (0..EDITS).map(|n| seed(100 + n)).collect();
    site.publish(&task("edits", json!({"fail": "rejected", "times": 1}), &images)).await;
    let letters = 4 * REAL + EDITS;
    site.counts("SELECT COUNT(*) FROM dead_letters", i64::try_from(letters).unwrap()).await;
    letters
}

/// The rest, as the archive writes them: of the causes there are, and tasks that expired, each a hit by now.
async fn fill(site: &Site, total: u64, expired: u64) {
    let there = really_fail(site).await;
    let message = async |reason: &str| {
        site.texts(&format!("SELECT message FROM dead_letters WHERE reason = '{reason}'"))
            .await
            .pop()
            .unwrap()
    };
    let others = [
        ("bad_message", message("bad_message").await),
        ("task_conflict", message("task_conflict").await),
        ("source_not_found", message("source_not_found").await),
        ("not_an_image", message("not_an_image").await),
    ];
    let letters = (0..total - there).map(|n| {
        if n < expired {
            return letter(
                n,
                "expired",
                "it expired in its queue".to_owned(),
                &task(&format!("late-{n}"), json!({}), &[seed(1)]),
            );
        }
        let (reason, message) = &others[usize::try_from(n).unwrap() % others.len()];
        letter(
            n,
            reason,
            message.replace("task_id: known", &format!("task_id: task-{n}")),
            &json!({"task_id": format!("x-{n}")}),
        )
    });
    let store = store(site);
    stream::iter(letters).for_each_concurrent(16, async |letter| store.archive(&letter).await.unwrap()).await;
    store.close().await;
}

async fn finished(running: &Running) -> Value {
    running.ended().await;
    let status = running.exit().await;
    assert!(status.success(), "{}", running.stderr());
    serde_json::from_str(&running.stdout()).unwrap()
}

fn figure(site: &Site, what: &str, took: Duration, letters: u64) {
    let on = if is_file(site) { "one file" } else { "servers" };
    #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
    let rate = letters as f64 / took.as_secs_f64();
    println!("letters | {on} | {what} | {letters} | {:.2} s | {rate:.0}/s |", took.as_secs_f64());
}

async fn ten_thousand_letters_are_six_groups_and_each_is_sent_again_exactly_once(site: Site) {
    let (total, expired) = if is_file(&site) { (1_500, 600) } else { (10_000, 2_000) };
    let [_worker] = site.workers().await;
    let began = Instant::now();
    fill(&site, total, expired).await;
    figure(&site, "written", began.elapsed(), total);

    let mut fastest = Duration::MAX;
    for _ in 0..3 {
        let began = Instant::now();
        let groups = dead_json(&site, &["list"]).await;
        fastest = fastest.min(began.elapsed());
        let reasons: Vec<_> =
            groups.as_array().unwrap().iter().map(|group| group["reason"].as_str().unwrap()).collect();
        assert_eq!(reasons.len(), 6, "{groups}");
        assert_eq!(
            groups.as_array().unwrap().iter().map(|group| group["count"].as_u64().unwrap()).sum::<u64>(),
            total
        );
    }
    figure(&site, "`dead list`", fastest, total);
    assert!(fastest < Duration::from_secs(1), "{fastest:?}");

    let began = Instant::now();
    let preview = dead_json(&site, &["retry", "--reason", "expired"]).await;
    figure(&site, "preview", began.elapsed(), expired);
    let counts = ["letters", "images", "free_hits", "unknown"].map(|name| preview[name].as_u64().unwrap());
    assert_eq!((counts, &preview["paid"]), ([expired, expired, expired, 0], &json!([])), "{preview}");
    let preview = dead_json(&site, &["retry", "--reason", "scripted_rejection"]).await;
    // 60 times what a picture costs, and none of them in the cache.
    let paid = json!([{
        "model": "double-1", "calls": EDITS, "cost": "8.4", "currency": "CNY", "at_most": 0,
        "possible_duplicates": 0, "possibly_twice": "0",
    }]);
    assert_eq!((preview["images"].as_u64(), &preview["paid"]), (Some(EDITS), &paid), "{preview}");

    messages_once(&site, expired).await;
    edits_once(&site).await;
    let left = dead(&site, &["list", "--each", "--json"]).await;
    let left: Value = serde_json::from_str(&left.stdout).unwrap();
    assert_eq!(left.as_array().unwrap().len() as u64, total - expired - EDITS);
    site.nothing_left().await;
}

/// One is killed in the middle, with messages published and not noted; then two at the same moment.
async fn messages_once(site: &Site, expired: u64) {
    let retry = || site.program(&["dead", "retry", "--reason", "expired", "--yes", "--json"]);
    let killed = retry().env("RETOUCH_TEST_FAILPOINTS", "send_letter:after=kill@120").start();
    killed.ended().await;
    assert!(!killed.exit().await.success());
    let retrying = site.number("SELECT COUNT(*) FROM dead_letters WHERE state = 'retrying'").await;
    assert!(retrying > 0, "killed between publishing and noting");
    let began = Instant::now();
    let (one, other) = (retry().start(), retry().start());
    let (one, other) = futures::join!(finished(&one), finished(&other));
    let retried = one["retried"].as_u64().unwrap() + other["retried"].as_u64().unwrap();
    figure(site, "sent again by two at once, after a kill", began.elapsed(), retried);
    let expired = i64::try_from(expired).unwrap();
    let completed = "SELECT COUNT(*) FROM image_edit_tasks WHERE task_id LIKE 'late-%' AND status = 'completed' AND hit_images = 1";
    site.counts_within(Duration::from_secs(300), completed, expired).await;
    figure(site, "and worked on", began.elapsed(), retried);
    let once =
        "SELECT COUNT(*) FROM dead_letters WHERE reason = 'expired' AND state = 'retried' AND retries = 1";
    assert_eq!(site.number(once).await, expired);
    // The picture was made once, and each task was served once: that of `known` besides.
    assert_eq!(site.number("SELECT MAX(hit_count) FROM image_edit_cache").await, expired + 1);
}

async fn edits_once(site: &Site) {
    let before = site.calls().len() as u64;
    let retry = || site.program(&["dead", "retry", "--reason", "scripted_rejection", "--yes", "--json"]);
    let killed = retry().env("RETOUCH_TEST_FAILPOINTS", "reopen_edits:after=kill@1").start();
    killed.ended().await;
    let began = Instant::now();
    let (one, other) = (retry().start(), retry().start());
    futures::join!(finished(&one), finished(&other));
    figure(site, "edits sent again by two at once, after a kill", began.elapsed(), EDITS);
    site.counts_within(
        Duration::from_secs(120),
        "SELECT COUNT(*) FROM image_edit_tasks WHERE task_id = 'edits' AND status = 'completed'",
        1,
    )
    .await;
    figure(site, "and done", began.elapsed(), EDITS);
    assert_eq!(site.calls().len() as u64 - before, EDITS, "each edit was asked for once more");
    let once = "SELECT COUNT(*) FROM dead_letters WHERE reason = 'scripted_rejection' AND state = 'retried' AND retries = 1";
    assert_eq!(site.number(once).await, i64::try_from(EDITS).unwrap());
}
