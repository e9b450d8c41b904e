//! Cancels, by message and by command: unsent calls stay unsent, paid results are kept, other tasks get
//! theirs.

use retouch_shared::client::{Producer, ProducerError, Timeouts};
use retouch_shared::topology::Topology;
use retouch_tests::pictures::picture;
use retouch_tests::program::Finished;
use retouch_tests::site::{Site, TaskRow};
use retouch_tests::tasks::{seed, task, task_async};
use serde_json::{Value, json};

on_both! {
    a_task_cancelled_before_it_arrives_sends_nothing;
    a_cancelled_tasks_waiting_calls_are_never_sent;
    a_sent_call_is_kept_and_the_next_task_hits_free;
    a_cancel_leaves_other_tasks_of_the_edit_their_picture;
    a_cancel_that_comes_too_late_says_so_and_changes_nothing;
    a_malformed_cancel_is_a_dead_letter_that_names_the_field;
}

const LANE: &str = "double";

fn cancel_of(task_id: &str) -> Value {
    json!({"v": 1, "cancel": task_id})
}

async fn cancel(site: &Site, task_id: &str) -> (Finished, Value) {
    let done = site.program(&["task", "cancel", task_id, "--json"]).run().await;
    let shown = serde_json::from_str(&done.stdout).unwrap_or(Value::Null);
    (done, shown)
}

fn is_cancelled(row: &TaskRow) -> bool {
    row.status == "failed" && row.images.iter().all(|image| image["error"]["code"] == "cancelled")
}

async fn switch(site: &Site, what: &str) {
    let done = site.program(&["lanes", what, LANE]).run().await;
    assert!(done.status.success(), "{}", done.stderr);
}

async fn a_task_cancelled_before_it_arrives_sends_nothing(site: Site) {
    // The queues are declared; no worker runs.
    let [first] = site.workers().await;
    drop(first);
    let (done, shown) = cancel(&site, "early").await;
    assert_eq!((done.status.code(), &shown["outcome"]), (Some(2), &json!("remembered")), "{}", done.stderr);
    assert!(done.stderr.contains("no task \"early\" yet"), "{}", done.stderr);
    site.publish(&cancel_of("earlier")).await;
    let [_worker] = site.workers().await;
    // Registered one after the other, or the cancel first: either order.
    site.publish(&task("early", json!({}), &[seed(1), seed(2)])).await;
    site.counts("SELECT COUNT(*) FROM cancels", 1).await;
    site.publish(&task("earlier", json!({}), &[seed(3)])).await;
    for id in ["early", "earlier"] {
        let row = site.ended(id).await;
        assert!(is_cancelled(&row), "{row:?}");
    }
    site.nothing_left().await;
    assert!(site.calls().is_empty());
    assert!(site.dead_letters(0).await.is_empty());
    let shown = site.program(&["task", "early"]).run().await;
    assert_eq!(shown.status.code(), Some(1));
    assert!(shown.stdout.starts_with("early: double, failed\n"), "{}", shown.stdout);
}

async fn a_cancelled_tasks_waiting_calls_are_never_sent(site: Site) {
    let [_worker] = site.workers().await;
    switch(&site, "pause").await;
    // More than one worker claims at a time: some of them stay queued.
    let images: Vec<_> = (0..24).map(seed).collect();
    site.publish(&task("waits", json!({}), &images)).await;
    site.taken_in("waits").await;
    site.counts("SELECT COUNT(*) FROM image_edit_calls WHERE state = 'claimed'", 16).await;
    site.publish(&cancel_of("waits")).await;
    let row = site.ended("waits").await;
    assert!(is_cancelled(&row) && row.counts == [0, 0, 0, 24], "{row:?}");
    site.counts("SELECT COUNT(*) FROM image_edit_calls WHERE state <> 'done' OR owner IS NOT NULL", 0).await;
    switch(&site, "resume").await;
    site.publish(&task("other", json!({}), &[seed(99)])).await;
    assert!(site.is_right(&site.ended("other").await.images[0], &picture(99)));
    site.nothing_left().await;
    assert_eq!(site.calls().len(), 1, "only calls with a waiting image are sent");
    assert!(site.dead_letters(0).await.is_empty());
}

async fn a_sent_call_is_kept_and_the_next_task_hits_free(site: Site) {
    let [_worker] = site.workers().await;
    let gate = json!({"gate": "go"});
    site.publish(&task_async("sent", gate.clone(), &[seed(1)])).await;
    site.called(1).await;
    site.counts("SELECT COUNT(*) FROM image_edit_calls WHERE state = 'submitted'", 1).await;
    let (done, shown) = cancel(&site, "sent").await;
    assert!(done.status.success(), "{}", done.stderr);
    assert_eq!((&shown["outcome"], &shown["status"]), (&json!("cancelled"), &json!("failed")));
    assert!(is_cancelled(&site.ended("sent").await));
    site.open_gate("go");
    site.counts("SELECT COUNT(*) FROM image_edit_cache", 1).await;
    site.publish(&task_async("next", gate, &[seed(1)])).await;
    let next = site.ended("next").await;
    assert_eq!(next.counts, [1, 0, 0, 0]);
    assert!(site.is_right(&next.images[0], &picture(1)));
    site.nothing_left_but(1).await;
    assert_eq!(site.calls().len(), 1);
    assert_eq!(site.number("SELECT CAST(SUM(paid_calls) AS SIGNED) FROM image_edit_calls").await, 1);
}

async fn a_cancel_leaves_other_tasks_of_the_edit_their_picture(site: Site) {
    let [_worker] = site.workers().await;
    switch(&site, "pause").await;
    site.publish(&task("first", json!({}), &[seed(1), seed(2)])).await;
    site.taken_in("first").await;
    site.publish(&task("second", json!({}), &[seed(2)])).await;
    site.taken_in("second").await;
    let (done, _) = cancel(&site, "first").await;
    assert!(done.status.success(), "{}", done.stderr);
    switch(&site, "resume").await;
    let second = site.ended("second").await;
    assert_eq!(second.counts, [0, 0, 1, 0], "it pays for what the other had begun");
    assert!(site.is_right(&second.images[0], &picture(2)));
    assert!(is_cancelled(&site.ended("first").await));
    site.nothing_left().await;
    assert_eq!(site.calls().len(), 1);
}

async fn a_cancel_that_comes_too_late_says_so_and_changes_nothing(site: Site) {
    let [_worker] = site.workers().await;
    site.publish(&task("done", json!({}), &[seed(1)])).await;
    let row = site.ended("done").await;
    for _ in 0..2 {
        let (done, shown) = cancel(&site, "done").await;
        assert_eq!((done.status.code(), &shown["outcome"]), (Some(1), &json!("already_ended")));
        assert_eq!(shown["status"], "completed");
        site.publish(&cancel_of("done")).await;
    }
    let said = site.program(&["task", "cancel", "done"]).run().await;
    assert_eq!(said.stdout, "done had already ended as completed; nothing was changed\n");
    let wrong = site.program(&["task", "cancel", "a b"]).run().await;
    assert_eq!(wrong.status.code(), Some(2));
    assert!(wrong.stderr.contains("must be 1-64 of"), "{}", wrong.stderr);
    site.nothing_left().await;
    assert_eq!(site.task("done").await.unwrap(), row);
}

async fn a_malformed_cancel_is_a_dead_letter_that_names_the_field(site: Site) {
    let [_worker] = site.workers().await;
    site.publish(&json!({"v": 1, "cancel": "t", "why": "x"})).await;
    assert_eq!(site.dead_letters(1).await, ["bad_message -"]);
    let message = site.texts("SELECT message FROM dead_letters").await;
    assert!(message[0].contains("why: unknown field `why`, expected `v` or `cancel`"), "{message:?}");
}

#[tokio::test]
async fn a_producer_that_cancels_hears_how_its_task_ended() {
    let site = Site::on_servers().await;
    let [_worker] = site.workers().await;
    let topology = Topology::new(site.env.namespace()).unwrap();
    let connected = Producer::connect(site.env.amqp_url(), topology, Timeouts::default()).await;
    let producer = connected.unwrap();
    let mut events = site.events().await;
    let message = task("mine", json!({"gate": "go"}), &[seed(1), seed(2)]);
    site.publish(&message).await;
    site.called(1).await;
    producer.cancel("mine").await.unwrap();
    let event = events.next().await;
    assert_eq!(event.routing_key.as_str(), "task.failed");
    let told: Value = serde_json::from_slice(&event.data).unwrap();
    assert_eq!((&told["task_id"], &told["failed"]), (&json!("mine"), &json!(2)));
    assert_eq!(told["images"][0]["error"]["code"], "cancelled");
    // Too late: answered again, under the same id.
    producer.cancel("mine").await.unwrap();
    let again: Value = serde_json::from_slice(&events.next().await.data).unwrap();
    assert_eq!(again["event_id"], told["event_id"]);
    let wrong = producer.cancel("a b").await;
    assert!(matches!(wrong, Err(ProducerError::Invalid(_))), "{wrong:?}");
    site.open_gate("go");
    site.counts("SELECT COUNT(*) FROM image_edit_calls WHERE state <> 'done'", 0).await;
    producer.close().await;
}

#[tokio::test]
async fn a_producer_gets_the_event_of_an_operators_cancel() {
    let site = Site::on_servers().await;
    let [_worker] = site.workers().await;
    switch(&site, "pause").await;
    let (reply_to, mut replies) = site.reply_queue().await;
    site.publish_for(&task("asked", json!({}), &[seed(1)]), &reply_to, "question").await;
    site.taken_in("asked").await;
    let (done, _) = cancel(&site, "asked").await;
    assert!(done.status.success(), "{}", done.stderr);
    let told: Value = serde_json::from_slice(&replies.next().await.data).unwrap();
    assert_eq!((&told["task_id"], &told["status"]), (&json!("asked"), &json!("failed")));
    switch(&site, "resume").await;
    site.nothing_left().await;
}
