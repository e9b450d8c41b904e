//! Dead letters worked through with the program: what failed is done again, and what it was is told.

use std::time::Duration;

use lapin::BasicProperties;
use retouch_tests::picture_server::Answer;
use retouch_tests::pictures::picture;
use retouch_tests::program::Finished;
use retouch_tests::site::Site;
use retouch_tests::tasks::{seed, task, url};
use serde_json::{Value, json};

on_both! {
    an_edit_that_failed_is_done_again_and_its_task_ends_anew;
    what_fails_again_comes_back_with_its_retry_count_and_history;
    a_source_that_is_there_again_is_loaded_and_nothing_else_of_the_task_is_touched;
    a_message_that_is_discarded_stays_discarded_and_can_be_exported;
    letters_decided_about_long_ago_are_deleted_by_the_worker_and_open_ones_are_not;
}

pub(crate) async fn dead(site: &Site, arguments: &[&str]) -> Finished {
    let done = site.program(&[&["dead"], arguments].concat()).run().await;
    assert!(done.status.success(), "{arguments:?}: {}{}", done.stdout, done.stderr);
    done
}

pub(crate) async fn dead_json(site: &Site, arguments: &[&str]) -> Value {
    let done = dead(site, &[arguments, &["--json"]].concat()).await;
    serde_json::from_str(&done.stdout).unwrap_or_else(|error| panic!("{error}: {}", done.stdout))
}

async fn an_edit_that_failed_is_done_again_and_its_task_ends_anew(site: Site) {
    let [_worker] = site.workers().await;
    let once = json!({"fail": "rejected", "times": 1});
    site.publish(&task("t", once, &[seed(1), seed(2)])).await;
    let before = site.ended("t").await;
    assert_eq!((before.status.as_str(), before.counts), ("failed", [0, 0, 0, 2]));
    let groups = dead_json(&site, &["list"]).await;
    let groups = groups.as_array().unwrap();
    assert_eq!(groups.len(), 1, "{groups:?}");
    let fields: Vec<&String> = groups[0].as_object().unwrap().keys().collect();
    assert_eq!(fields, ["count", "first_at", "last_at", "message", "reason", "sample_id"]);
    assert_eq!(
        (groups[0]["reason"].as_str(), groups[0]["count"].as_u64()),
        (Some("scripted_rejection"), Some(2))
    );

    let preview = dead_json(&site, &["retry", "--all"]).await;
    assert_eq!((preview["letters"].as_u64(), preview["images"].as_u64()), (Some(2), Some(2)), "{preview}");
    assert_eq!(
        site.number("SELECT COUNT(*) FROM dead_letters WHERE state = 'open'").await,
        2,
        "nothing is changed"
    );
    let sent = dead_json(&site, &["retry", "--all", "--yes"]).await;
    assert_eq!((sent["retried"].as_u64(), sent["waiting"].as_u64()), (Some(2), Some(2)), "{sent}");
    site.counts("SELECT COUNT(*) FROM image_edit_tasks WHERE status = 'completed'", 1).await;
    let after = site.task("t").await.unwrap();
    assert_eq!(after.counts, [0, 0, 2, 0]);
    for (at, image) in after.images.iter().enumerate() {
        assert!(site.is_right(image, &picture(at as u64 + 1)), "{image}");
    }
    assert_eq!(site.calls().len(), 4, "each once more");
    assert_eq!(dead_json(&site, &["list"]).await, json!([]));
    let again = dead_json(&site, &["retry", "--all", "--yes"]).await;
    assert_eq!(again["retried"].as_u64(), Some(0));
    site.nothing_left().await;
}

async fn what_fails_again_comes_back_with_its_retry_count_and_history(site: Site) {
    let [_worker] = site.workers().await;
    site.publish(&task("t", json!({"fail": "rejected"}), &[seed(1)])).await;
    site.ended("t").await;
    let id = dead_json(&site, &["list"]).await[0]["sample_id"].as_i64().unwrap().to_string();
    for round in 1..=2 {
        dead(&site, &["retry", &id, "--yes"]).await;
        site.counts(
            &format!("SELECT COUNT(*) FROM dead_letters WHERE state = 'open' AND retries = {round}"),
            1,
        )
        .await;
    }
    assert_eq!(site.calls().len(), 3);
    let shown = dead_json(&site, &["show", &id]).await;
    let whats: Vec<&str> =
        shown["history"].as_array().unwrap().iter().map(|event| event["what"].as_str().unwrap()).collect();
    assert_eq!(whats, ["failed", "retried", "failed", "retried", "failed"]);
    assert_eq!(shown["retries"], 2);
    assert!(shown["fix"].as_str().unwrap().contains("the provider's own word"), "{shown}");
    let text = dead(&site, &["show", &id]).await.stdout;
    assert!(text.contains("sent again, for the 2. time") && text.contains("fix: "), "{text}");
    let table = dead(&site, &["list"]).await.stdout;
    assert!(table.contains("failed again"), "{table}");
    site.nothing_left().await;
}

async fn a_source_that_is_there_again_is_loaded_and_nothing_else_of_the_task_is_touched(site: Site) {
    let [_worker] = site.workers().await;
    let gone = site.pictures.answer("/late.png", Answer::Status(404));
    site.publish(&task("t", json!({}), &[seed(1), url(&gone)])).await;
    assert_eq!(site.ended("t").await.counts, [0, 0, 1, 1]);
    // Still gone: the same letter again.
    dead(&site, &["retry", "--reason", "source_not_found", "--yes"]).await;
    site.counts("SELECT COUNT(*) FROM dead_letters WHERE state = 'open' AND retries = 1", 1).await;
    site.pictures.png("/late.png", picture(2));
    let preview = dead_json(&site, &["retry", "--all"]).await;
    assert_eq!((preview["images"].as_u64(), preview["unknown"].as_u64()), (Some(1), Some(1)), "{preview}");
    dead(&site, &["retry", "--all", "--yes"]).await;
    site.counts("SELECT COUNT(*) FROM image_edit_tasks WHERE status = 'completed'", 1).await;
    let row = site.task("t").await.unwrap();
    assert_eq!(row.counts, [0, 0, 2, 0]);
    assert!(site.is_right(&row.images[1], &picture(2)));
    assert_eq!(site.calls().len(), 2);
    assert_eq!(site.number("SELECT COUNT(*) FROM dead_letters").await, 1);
    site.nothing_left().await;
}

async fn a_message_that_is_discarded_stays_discarded_and_can_be_exported(site: Site) {
    let [_worker] = site.workers().await;
    site.publish_bytes(b"\xff not json").await;
    site.publish_bytes(b"not json either").await;
    site.dead_letters(2).await;
    let preview = dead_json(&site, &["discard", "--reason", "bad_message"]).await;
    assert_eq!(preview["letters"], 2);
    let done = dead_json(&site, &["discard", "--reason", "bad_message", "--yes"]).await;
    assert_eq!((done["discarded"].as_u64(), done["skipped"].as_u64()), (Some(2), Some(0)));
    assert_eq!(dead_json(&site, &["list"]).await, json!([]));
    let lines = dead(&site, &["export", "--state", "all"]).await.stdout;
    let mut letters: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    letters.sort_by_key(|letter: &Value| letter["payload_base64"].is_null());
    assert_eq!(letters.len(), 2);
    assert_eq!(letters[0]["payload_base64"], "/yBub3QganNvbg==");
    assert_eq!(
        (letters[1]["payload"].as_str(), letters[1]["state"].as_str()),
        (Some("not json either"), Some("discarded"))
    );
    let nothing = site.program(&["dead", "retry"]).run().await;
    assert_eq!(nothing.status.code(), Some(2));
    assert!(nothing.stderr.contains("--all"), "{}", nothing.stderr);
}

async fn letters_decided_about_long_ago_are_deleted_by_the_worker_and_open_ones_are_not(site: Site) {
    let [worker] = site.workers().await;
    for body in ["one", "other"] {
        site.publish_bytes(body.as_bytes()).await;
    }
    site.dead_letters(2).await;
    let first = site.number("SELECT MIN(id) FROM dead_letters").await.to_string();
    dead(&site, &["discard", &first, "--yes"]).await;
    drop(worker);
    let old = "'2020-01-01 00:00:00.000'";
    site.execute(&format!("UPDATE dead_letters SET first_at = {old}, last_at = {old}")).await;
    site.execute(&format!("UPDATE dead_letters SET decided_at = {old} WHERE decided_at IS NOT NULL")).await;
    let kept = site.worker_with(&[("RETOUCH_DEAD_RETENTION_DAYS", "0")]).await;
    site.publish(&task("t", json!({}), &[seed(1)])).await;
    site.ended("t").await;
    assert_eq!(site.number("SELECT COUNT(*) FROM dead_letters").await, 2, "0 keeps them for ever");
    drop(kept);
    let _worker = site.worker_with(&[("RETOUCH_DEAD_RETENTION_DAYS", "90")]).await;
    site.counts("SELECT COUNT(*) FROM dead_letters", 1).await;
    assert_eq!(site.number("SELECT COUNT(*) FROM dead_letters WHERE state = 'open'").await, 1);
}

/// The broker itself gives these up; nobody of ours ever saw them.
#[tokio::test]
async fn a_message_that_the_broker_gave_up_is_archived_with_its_reason_and_sent_again_for_its_asker() {
    let site = Site::on_servers().await;
    let [worker] = site.workers().await;
    worker.terminate();
    worker.exit().await;
    let (queue, mut answers) = site.reply_queue().await;
    let properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_reply_to(queue.as_str().into())
        .with_correlation_id("42".into())
        .with_expiration("1".into());
    let body = serde_json::to_vec(&task("t", json!({}), &[seed(1)])).unwrap();
    site.amqp().publish_with(site.env.namespace(), "tasks", body, properties).await;
    let dead_queue = format!("{}.dead", site.env.namespace());
    retouch_tests::wait::until("the broker to give it up", async || {
        site.env.queues().await.iter().any(|queue| queue.name == dead_queue && queue.ready == 1).then_some(())
    })
    .await;
    let [_worker] = site.workers().await;
    assert_eq!(site.dead_letters(1).await, ["expired t"]);
    assert_eq!(site.texts("SELECT queue FROM dead_letters").await, ["tasks"]);
    assert!(site.task("t").await.is_none());
    dead(&site, &["retry", "--reason", "expired", "--yes"]).await;
    let answer = tokio::time::timeout(Duration::from_secs(30), answers.next()).await.unwrap();
    assert_eq!(answer.properties.correlation_id().as_ref().unwrap().as_str(), "42");
    assert_eq!(site.ended("t").await.counts, [0, 0, 1, 0]);
    site.nothing_left().await;
    assert_eq!(site.number("SELECT COUNT(*) FROM dead_letters WHERE state = 'open'").await, 0);
}
