//! The log of one task tells its whole course.

use retouch_tests::paid::{Paid, picture, task};
use serde_json::Value;

/// What happened to the task, in this order.
const STORY: &[&str] = &[
    "task taken in",
    "waiting for an edit",
    "calling",
    "accepted",
    "the picture is there",
    "finished",
    "event sent",
];

#[tokio::test]
async fn the_log_tells_a_tasks_story_by_its_id() {
    let paid = Paid::on_servers().await;
    let worker = paid.worker("").await;
    paid.site.publish(&task("order-4711", "remove_watermark", "remove the text", &[picture(1)])).await;
    assert_eq!(paid.site.ended("order-4711").await.status, "completed");
    worker.line("event sent").await;
    let log = worker.stderr();
    let waiting =
        log.lines().find(|line| line.contains("order-4711") && line.contains("waiting for an edit"));
    let waiting: Value =
        serde_json::from_str(waiting.expect("no line leads from the task to its edit")).unwrap();
    let edit_key = waiting["edit_key"].as_str().unwrap();
    let trace_id = waiting["span"]["trace_id"].as_str().unwrap();
    let lines: Vec<&str> =
        log.lines().filter(|line| line.contains("order-4711") || line.contains(edit_key)).collect();
    println!("{}", lines.join("\n"));
    let parsed: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let messages: Vec<_> = parsed.iter().map(|line| line["message"].as_str().unwrap()).collect();
    assert_eq!(messages, STORY);
    for line in &lines {
        assert!(line.contains(trace_id), "not of the task's trace: {line}");
    }
    let others = log.lines().filter(|line| !lines.contains(line) && line.contains(trace_id));
    assert_eq!(others.count(), 0, "a line of the trace names neither the task nor its edit");
}
