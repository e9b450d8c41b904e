//! Answers of an editor and their handling: an unsent call is sent again, a call that may have been paid is
//! not sent blindly, and waiting costs no attempt.

use retouch_tests::pictures::picture;
use retouch_tests::site::Site;
use retouch_tests::tasks::{seed, task, task_async};
use retouch_tests::wait;
use serde_json::{Value, json};

on_both! {
    an_unsent_call_is_sent_again;
    a_rate_limit_burns_no_attempt;
    an_accepted_edit_is_polled_and_never_submitted_again;
    an_accepted_edit_that_fails_fails_its_images;
    an_ambiguous_call_is_sent_once_more_and_counted;
    a_held_ambiguous_call_becomes_a_dead_letter;
}

const ATTEMPTS: &str = "SELECT attempts FROM image_edit_calls";
const DUPLICATES: &str = "SELECT possible_duplicates FROM image_edit_calls";
const PAID: &str = "SELECT paid_calls FROM image_edit_calls";

async fn is_completed(site: &Site, params: Value) {
    site.publish(&task("task", params, &[seed(1), seed(1)])).await;
    let row = site.ended("task").await;
    assert_eq!(row.counts, [0, 1, 1, 0], "{row:?}");
    assert!(row.images.iter().all(|image| site.is_right(image, &picture(1))));
    assert_eq!(site.number(PAID).await, 1);
    site.nothing_left().await;
}

async fn an_unsent_call_is_sent_again(site: Site) {
    let [_worker] = site.workers().await;
    is_completed(&site, json!({"fail": "not_sent", "times": 2})).await;
    assert_eq!((site.calls().len(), site.number(ATTEMPTS).await), (3, 2));
}

async fn a_rate_limit_burns_no_attempt(site: Site) {
    let [_worker] = site.workers().await;
    is_completed(&site, json!({"fail": "rate_limited", "times": 3, "retry_after_ms": 10})).await;
    assert_eq!((site.calls().len(), site.number(ATTEMPTS).await), (4, 0));
}

async fn an_accepted_edit_is_polled_and_never_submitted_again(site: Site) {
    let [_worker] = site.workers().await;
    let params = json!({"gate": "open", "poll_fail": "unavailable", "poll_times": 2});
    let later = task_async("task", params, &[seed(1)]);
    site.publish(&later).await;
    wait::until("six polls", async || (site.polls().len() >= 6).then_some(())).await;
    site.open_gate("open");
    let row = site.ended("task").await;
    assert_eq!((row.counts, site.calls().len()), ([0, 0, 1, 0], 1));
    assert!(site.is_right(&row.images[0], &picture(1)));
    assert_eq!(site.number(PAID).await, 1);
    site.nothing_left().await;
}

async fn an_accepted_edit_that_fails_fails_its_images(site: Site) {
    let [_worker] = site.workers().await;
    let refused = task_async("task", json!({"poll_fail": "rejected"}), &[seed(1), seed(1)]);
    site.publish(&refused).await;
    let row = site.ended("task").await;
    assert_eq!((row.status.as_str(), row.counts), ("failed", [0, 0, 0, 2]));
    assert_eq!(site.calls().len(), 1);
    assert_eq!(site.dead_letters(1).await.len(), 1);
    site.nothing_left().await;
}

async fn an_ambiguous_call_is_sent_once_more_and_counted(site: Site) {
    let [_worker] = site.workers().await;
    is_completed(&site, json!({"fail": "ambiguous", "times": 1})).await;
    assert_eq!((site.calls().len(), site.number(DUPLICATES).await), (2, 1));
}

async fn a_held_ambiguous_call_becomes_a_dead_letter(site: Site) {
    let _worker = site.worker_with(&[("RETOUCH_ON_AMBIGUOUS", "hold")]).await;
    site.publish(&task("task", json!({"fail": "ambiguous", "times": 1}), &[seed(1)])).await;
    let row = site.ended("task").await;
    assert_eq!((row.status.as_str(), row.counts), ("failed", [0, 0, 0, 1]));
    assert_eq!(row.images[0]["error"]["code"], "ambiguous");
    assert_eq!(site.dead_letters(1).await, ["ambiguous task"]);
    assert_eq!((site.calls().len(), site.number(DUPLICATES).await), (1, 0));
    site.nothing_left().await;
}

#[tokio::test]
async fn a_lanes_calls_in_flight_are_limited_over_all_processes() {
    let site = Site::on_servers().await;
    let settings = site.env.folder().join("retouch.toml");
    std::fs::write(&settings, "[lanes.double]\nconcurrency = 8\nmax_in_flight = 3\n").unwrap();
    let settings = [("RETOUCH_CONFIG", settings.to_str().unwrap())];
    let _workers = [site.worker_with(&settings).await, site.worker_with(&settings).await];
    let images: Vec<Value> = (0..8).map(seed).collect();
    site.publish(&task("task", json!({"gate": "open"}), &images)).await;
    site.called(3).await;
    // The others are claimed, by either process, and wait for their lane.
    site.counts("SELECT COUNT(*) FROM image_edit_calls WHERE state = 'claimed'", 5).await;
    site.counts("SELECT COUNT(DISTINCT owner) FROM image_edit_calls WHERE state = 'claimed'", 2).await;
    site.counts("SELECT COUNT(*) FROM image_edit_calls WHERE state = 'submitting'", 3).await;
    assert_eq!(site.calls().len(), 3);
    site.open_gate("open");
    assert_eq!(site.ended("task").await.counts, [0, 0, 8, 0]);
    assert_eq!((site.calls().len(), site.number("SELECT MAX(attempts) FROM image_edit_calls").await), (8, 0));
    site.nothing_left().await;
}

#[tokio::test]
async fn a_worker_that_died_while_it_was_sending_leaves_an_ambiguous_call() {
    let site = Site::on_servers().await;
    let hurry = [("RETOUCH_LEASE_SECONDS", "1"), ("RETOUCH_ON_AMBIGUOUS", "hold")];
    let mut worker = site.worker_with(&hurry).await;
    // Accepted at the provider, without an answer before the end.
    let sent = task_async("task", json!({"submit_gate": "never"}), &[seed(1)]);
    site.publish(&sent).await;
    site.called(1).await;
    worker.kill9();
    let _other = site.worker_with(&hurry).await;
    let row = site.ended("task").await;
    assert_eq!(row.images[0]["error"]["code"], "ambiguous");
    assert_eq!(site.dead_letters(1).await, ["ambiguous task"]);
    assert_eq!(site.calls().len(), 1);
    site.nothing_left().await;
}
