//! Memory of a worker for a producer's messages.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use image::ImageFormat;
use retouch_tests::memory::{current_mib, peak_mib};
use retouch_tests::pictures::picture_as;
use retouch_tests::site::Site;
use retouch_tests::tasks::{seed, task};
use retouch_tests::wait;
use serde_json::json;

on_both! {
    messages_of_millions_of_values_are_dead_letters_at_once;
    pictures_in_messages_stay_near_the_bound_on_memory;
}

const MIB: usize = 1 << 20;

/// A task whose field `field` is this JSON, so many bytes in all.
fn stuffed(id: &str, field: &str, begin: &str, item: &str, end: &str, bytes: usize) -> Vec<u8> {
    let items = vec![item; bytes / (item.len() + 1)].join(",");
    let rest = if field == "images" { "" } else { r#","images":[{"url":"http://127.0.0.1/a"}]"# };
    format!(r#"{{"v":1,"task_id":"{id}","edit_type":"double"{rest},"{field}":{begin}{items}{end}}}"#).into()
}

async fn messages_of_millions_of_values_are_dead_letters_at_once(site: Site) {
    let [worker] = site.workers().await;
    let before = current_mib(worker.pid());
    let hostile = [
        stuffed("params", "params", r#"{"a":["#, r#"{"":0}"#, "]}", 15 * MIB),
        stuffed("images", "images", "[", "{}", "]", 12 * MIB),
        stuffed("metadata", "metadata", r#"{"a":["#, "[]", "]}", 12 * MIB),
        stuffed("deep", "params", r#"{"a":"#, &"[".repeat(MIB), "}", MIB + 2),
        stuffed("name", "params", r#"{"a":{}},""#, &"n".repeat(12 * MIB), r#"":1,"p":{}"#, 12 * MIB + 1),
    ];
    for message in &hostile {
        site.publish_bytes(message).await;
    }
    site.publish(&task("good", json!({}), &[seed(1)])).await;
    let good = "SELECT COUNT(*) FROM image_edit_tasks WHERE task_id = 'good' AND status = 'completed'";
    site.counts_within(wait::SOON * 3, good, 1).await;
    let refused = "SELECT COUNT(*) FROM dead_letters WHERE reason = 'bad_message'";
    site.counts_within(wait::SOON * 2, refused, hostile.len() as i64).await;
    assert_eq!(site.number("SELECT COUNT(*) FROM dead_letters").await, hostile.len() as i64);
    let peak = peak_mib(worker.pid());
    let sent = hostile.iter().map(Vec::len).sum::<usize>() / MIB;
    println!("{before} MiB before, {peak} MiB at most, for {sent} MiB of messages");
    // They come together.
    assert!(peak < before + 4 * sent as u64, "{before} MiB before, {peak} MiB at most, for {sent} MiB");
    site.nothing_left().await;
}

async fn pictures_in_messages_stay_near_the_bound_on_memory(site: Site) {
    let count: usize =
        std::env::var("RETOUCH_TEST_LARGE_MESSAGES").map_or(12, |count| count.parse().unwrap());
    // What a worker declares, without the worker.
    let [first] = site.workers().await;
    first.terminate();
    first.exit().await;
    let picture = picture_as(1, 2000, 1840, ImageFormat::Bmp);
    let uri = format!("data:image/bmp;base64,{}", BASE64.encode(&picture));
    assert!(uri.len() > 14 * MIB);
    for number in 0..count {
        site.publish(&task(&format!("large-{number}"), json!({}), &[json!({"data": uri})])).await;
    }
    let worker = site.worker_with(&[("RETOUCH_INTAKE_MEMORY_MIB", "32")]).await;
    let ended = "SELECT COUNT(*) FROM image_edit_tasks WHERE status = 'completed'";
    site.counts_within(wait::SOON * 3, ended, count as i64).await;
    let peak = peak_mib(worker.pid());
    println!("{count} messages of {} MiB: {peak} MiB at most", uri.len() / MIB);
    assert!(peak < 400, "{peak} MiB");
    assert_eq!(site.calls().len(), 1);
    site.nothing_left().await;
}

#[tokio::test]
async fn a_message_that_asks_for_answers_into_the_workers_queues_is_refused() {
    let site = Site::on_servers().await;
    let [_worker] = site.workers().await;
    let queues = ["tasks", "dead", "edits.double", "wait.1s"];
    for queue in queues {
        let message = task(&format!("to-{queue}"), json!({}), &[seed(1)]);
        site.publish_for(&message, &format!("{}.{queue}", site.env.namespace()), "c").await;
    }
    let refused =
        "SELECT COUNT(*) FROM dead_letters WHERE reason = 'bad_message' AND message LIKE 'reply_to: %'";
    site.counts(refused, queues.len() as i64).await;
    assert_eq!(site.number("SELECT COUNT(*) FROM image_edit_tasks").await, 0);
    site.nothing_left().await;
}
