//! Messages of real producers: malformed, too large, duplicate, repeated with another reply queue.

use std::time::{Duration, Instant};

use retouch_tests::site::Site;
use retouch_tests::tasks::{seed, task};
use serde_json::{Value, json};

on_both! {
    a_malformed_message_is_a_dead_letter_and_delays_nothing;
    the_same_task_again_is_answered_again_and_counted_once;
    a_task_that_comes_many_times_at_once_is_taken_in_once;
}

async fn a_malformed_message_is_a_dead_letter_and_delays_nothing(site: Site) {
    let [_worker] = site.workers().await;
    site.publish(&task("taken", json!({}), &[seed(1)])).await;
    site.ended("taken").await;
    let with = |id: &str, field: &str, value: Value| {
        let mut task = task(id, json!({}), &[seed(1)]);
        task[field] = value;
        serde_json::to_vec(&task).unwrap()
    };
    let too_large = task("large", json!({}), &[json!({"data": "x".repeat(17 * 1024 * 1024)})]);
    let bad = [
        (b"\xff not json".to_vec(), "bad_message -", "message"),
        (b"".to_vec(), "bad_message -", "message"),
        (with("version", "v", json!(2)), "bad_message version", "v: version 2"),
        (with("field", "colour", json!("red")), "bad_message field", "colour"),
        (with("images", "images", json!(vec![seed(1); 65])), "bad_message images", "images: "),
        (with("no-image", "images", json!([])), "bad_message no-image", "images: "),
        (with("prompt", "prompt", json!("x".repeat(32_001))), "bad_message prompt", "prompt: "),
        (with("taken", "prompt", json!("another")), "task_conflict taken", "task_id: taken"),
        (serde_json::to_vec(&too_large).unwrap(), "too_large large", "17"),
    ];
    for (body, _, _) in &bad {
        site.publish_bytes(body).await;
    }
    let start = Instant::now();
    site.publish(&task("good", json!({}), &[seed(1)])).await;
    assert_eq!(site.ended("good").await.counts, [1, 0, 0, 0]);
    let took = start.elapsed();
    println!("the good message behind {} bad ones took {took:?}", bad.len());
    // On an idle machine it is milliseconds. The bound leaves room for a busy one, and none for a retry in between.
    assert!(took < Duration::from_secs(5), "{took:?}");

    let mut expected: Vec<_> = bad.iter().map(|(_, letter, _)| (*letter).to_owned()).collect();
    expected.sort();
    assert_eq!(site.dead_letters(bad.len() as i64).await, expected);
    for (_, letter, told) in &bad {
        let (reason, id) = letter.split_once(' ').unwrap();
        let of = format!("reason = '{reason}' AND COALESCE(task_id, '-') = '{id}'");
        let messages = site.texts(&format!("SELECT message FROM dead_letters WHERE {of}")).await;
        assert!(messages.iter().all(|message| message.contains(told)), "{letter}: {messages:?}");
    }
    // Enough for a retry: the original message, the large one among the blobs.
    let kept = "SELECT COUNT(*) FROM dead_letters WHERE payload IS NOT NULL OR payload_blob IS NOT NULL";
    assert_eq!(site.number(kept).await, bad.len() as i64);
    assert_eq!(site.number("SELECT COUNT(*) FROM image_edit_tasks").await, 2);
    site.nothing_left().await;
}

async fn the_same_task_again_is_answered_again_and_counted_once(site: Site) {
    let [_worker] = site.workers().await;
    let same = task("same", json!({}), &[seed(1), seed(2), seed(1)]);
    site.publish(&same).await;
    let first = site.ended("same").await;
    // Behind the second message, so that its end shows that the second was handled.
    site.publish(&same).await;
    site.publish(&task("behind", json!({}), &[seed(1)])).await;
    site.ended("behind").await;
    site.nothing_left().await;
    assert_eq!(site.task("same").await.unwrap(), first);
    assert_eq!(site.calls().len(), 2);
    let served = site.number("SELECT CAST(SUM(hit_count) AS SIGNED) FROM image_edit_cache").await;
    assert_eq!(served, 4);
}

async fn a_task_that_comes_many_times_at_once_is_taken_in_once(site: Site) {
    let [_one, _other] = site.workers().await;
    let same = task("same", json!({"gate": "open"}), &[seed(1), seed(2)]);
    futures::future::join_all((0..20).map(|_| site.publish(&same))).await;
    site.called(2).await;
    futures::future::join_all((0..20).map(|_| site.publish(&same))).await;
    site.open_gate("open");
    assert_eq!(site.ended("same").await.counts, [0, 0, 2, 0]);
    site.nothing_left().await;
    assert_eq!(site.calls().len(), 2);
    assert_eq!(site.number("SELECT CAST(SUM(hit_count) AS SIGNED) FROM image_edit_cache").await, 2);
    assert_eq!(site.number("SELECT COUNT(*) FROM dead_letters").await, 0);
}

#[tokio::test]
async fn a_repeated_task_is_answered_at_its_latest_reply_queue() {
    let site = Site::on_servers().await;
    let [_worker] = site.workers().await;
    let (one, mut to_one) = site.reply_queue().await;
    let (other, mut to_other) = site.reply_queue().await;
    let same = task("same", json!({"gate": "open"}), &[seed(1)]);
    let correlation =
        |reply: &lapin::message::Delivery| reply.properties.correlation_id().as_ref().unwrap().to_string();
    // While it is under way, and when it has ended.
    site.publish_for(&same, &one, "first").await;
    site.called(1).await;
    site.publish_for(&same, &one, "second").await;
    site.counts("SELECT COUNT(*) FROM image_edit_tasks WHERE correlation_id = 'second'", 1).await;
    site.open_gate("open");
    let first = to_one.next().await;
    assert_eq!(correlation(&first), "second");
    site.publish_for(&same, &other, "third").await;
    let third = to_other.next().await;
    assert_eq!((correlation(&third).as_str(), &third.data), ("third", &first.data));
    site.publish_for(&same, &other, "fourth").await;
    assert_eq!(correlation(&to_other.next().await), "fourth");
    assert_eq!(site.calls().len(), 1);
    site.nothing_left().await;
}

#[tokio::test]
async fn a_missing_reply_queue_delays_no_task() {
    let site = Site::on_servers().await;
    let [_worker] = site.workers().await;
    let mut events = site.events().await;
    site.publish_for(&task("lonely", json!({}), &[seed(1)]), "a-queue-that-never-was", "x").await;
    assert_eq!(events.next_json().await["task_id"], "lonely");
    site.nothing_left().await;
}
