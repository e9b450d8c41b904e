//! Traces: a task's trace goes from its message to the provider and to its event, and to no other host.

use std::time::Duration;

use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable};
use retouch_tests::collector::{Collector, Span};
use retouch_tests::paid::{Paid, picture, task};
use retouch_tests::picture_server::Answer;
use retouch_tests::tasks::url;
use serde_json::{Value, json};

const SAID: &str = "remove the text";
const FIRST: &str = "0af7651916cd43dd8448eb211c80319c";
const SECOND: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

fn parent(trace_id: &str) -> String {
    format!("00-{trace_id}-{PARENT}-01")
}

/// As a producer that traces publishes it.
async fn publish(paid: &Paid, task: &Value, traceparent: &str, tracestate: &str) {
    let mut headers = FieldTable::default();
    for (name, value) in [("traceparent", traceparent), ("tracestate", tracestate)] {
        headers.insert(name.into(), AMQPValue::LongString(value.into()));
    }
    let properties =
        BasicProperties::default().with_content_type("application/json".into()).with_headers(headers);
    let body = serde_json::to_vec(task).unwrap();
    paid.site.amqp().publish_with(paid.site.env.namespace(), "tasks", body, properties).await;
}

/// A task of one picture at a URL.
fn of_url(id: &str, picture: &str) -> Value {
    let mut task = task(id, "remove_watermark", SAID, &[]);
    task["images"] = json!([url(picture)]);
    task
}

/// An event's task, trace id and state.
fn told(event: &Delivery) -> (String, String, Option<String>) {
    let headers = event.properties.headers().clone().unwrap();
    let header = |name: &str| match headers.inner().get(name) {
        Some(AMQPValue::LongString(value)) => Some(value.to_string()),
        _ => None,
    };
    let body: Value = serde_json::from_slice(&event.data).unwrap();
    let traceparent = header("traceparent").expect("an event without a trace");
    let fields: Vec<_> = traceparent.split('-').collect();
    assert_eq!(fields.len(), 4, "{traceparent}");
    assert_ne!(fields[2], PARENT, "the event is not the producer's own span");
    (body["task_id"].as_str().unwrap().to_owned(), fields[1].to_owned(), header("tracestate"))
}

#[tokio::test]
async fn a_trace_reaches_the_provider_and_the_events_only() {
    let paid = Paid::on_servers().await;
    paid.takes(Duration::from_secs(1));
    let _worker = paid.worker("").await;
    let mut events = paid.site.events().await;
    let source = paid.site.pictures.png("/1.png", picture(1));
    publish(&paid, &of_url("first", &source), &parent(FIRST), "vendor=a,other=b").await;
    paid.site.taken_in("first").await;
    // Joins the first one's call, or hits its result.
    publish(&paid, &of_url("second", &source), &parent(SECOND), "").await;
    let mut both = [told(&events.next().await), told(&events.next().await)];
    both.sort();
    let state = Some("vendor=a,other=b".to_owned());
    assert_eq!(both[0], ("first".to_owned(), FIRST.to_owned(), state));
    assert_eq!(both[1], ("second".to_owned(), SECOND.to_owned(), None));

    let requests = paid.provider.traces();
    let api: Vec<_> = requests.iter().filter(|(path, ..)| path.starts_with("/api/")).collect();
    assert!(api.len() >= 2, "{requests:?}");
    for (path, traceparent, tracestate) in api {
        let traceparent = traceparent.as_deref().unwrap_or_default();
        assert!(traceparent.contains(FIRST) && !traceparent.contains(PARENT), "{path}: {traceparent}");
        assert_eq!(tracestate.as_deref(), Some("vendor=a,other=b"), "{path}");
    }
    let downloads: Vec<_> = requests.iter().filter(|(path, ..)| path.starts_with("/results/")).collect();
    assert!(!downloads.is_empty() && downloads.iter().all(|(_, traceparent, _)| traceparent.is_none()));
    assert!(paid.site.pictures.total_requests() > 0);
    assert_eq!(paid.site.pictures.traced_requests(), 0, "a source's host was told of the trace");
}

#[tokio::test]
async fn an_invalid_trace_is_replaced_by_a_new_one() {
    let paid = Paid::on_servers().await;
    let _worker = paid.worker("").await;
    let mut events = paid.site.events().await;
    let zeros = parent(&"0".repeat(32));
    let mut seen = Vec::new();
    for (number, invalid) in ["nonsense", &zeros, &parent(&FIRST.to_uppercase()), "é"].into_iter().enumerate()
    {
        publish(&paid, &task(&format!("t{number}"), "remove_watermark", SAID, &[picture(1)]), invalid, "a=1")
            .await;
        let (_, trace_id, state) = told(&events.next().await);
        assert_eq!(state, None, "a state without its trace");
        assert!(!invalid.to_lowercase().contains(&trace_id) && !seen.contains(&trace_id), "{trace_id}");
        seen.push(trace_id);
    }
    paid.site.publish(&task("untraced", "remove_watermark", SAID, &[picture(1)])).await;
    assert!(!seen.contains(&told(&events.next().await).1));
}

#[tokio::test]
async fn a_trace_survives_the_wait_ladder() {
    let paid = Paid::on_servers().await;
    let worker = paid.worker("").await;
    let mut events = paid.site.events().await;
    let source = paid.site.pictures.answer("/busy.png", Answer::Status(503));
    publish(&paid, &of_url("t", &source), &parent(FIRST), "vendor=a").await;
    paid.site.pictures.requested("/busy.png", 1).await;
    worker.line("\"delayed\"").await;
    paid.site.pictures.png("/busy.png", picture(1));
    assert_eq!(told(&events.next().await), ("t".to_owned(), FIRST.to_owned(), Some("vendor=a".to_owned())));
    let submit = paid.provider.traces().into_iter().find(|(path, ..)| path.contains("image-synthesis"));
    assert!(submit.unwrap().1.unwrap().contains(FIRST));
}

#[tokio::test]
async fn spans_reach_the_collector_in_the_producers_trace() {
    let paid = Paid::on_servers().await;
    let collector = Collector::start().await;
    let url = collector.url();
    let set = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()),
        ("OTEL_SERVICE_NAME", "edits"),
        ("OTEL_BSP_SCHEDULE_DELAY", "100"),
    ];
    let worker = paid.worker_with("", &set).await;
    let mut events = paid.site.events().await;
    publish(&paid, &task("t", "remove_watermark", SAID, &[picture(1)]), &parent(FIRST), "vendor=a").await;
    assert_eq!(told(&events.next().await).1, FIRST);
    let intake = collector.span("intake").await;
    let edit = collector.span("edit").await;
    let belongs = |span: &Span, to: &str| {
        assert_eq!((span.service.as_str(), span.trace_id.as_str()), ("edits", FIRST), "{span:?}");
        assert_eq!(span.parent, to, "{span:?}");
    };
    belongs(&intake, PARENT);
    belongs(&edit, &intake.span_id);
    assert!(intake.attributes.to_string().contains("\"task_id\""), "{}", intake.attributes);
    assert!(edit.attributes.to_string().contains("\"edit_key\""), "{}", edit.attributes);
    for phase in ["lane_wait", "submit", "run", "fetch", "store", "finish"] {
        belongs(&collector.span(phase).await, &edit.span_id);
    }
    let submit = collector.span("submit").await;
    let request = paid.provider.traces().into_iter().find(|(path, ..)| path.contains("image-synthesis"));
    assert_eq!(request.unwrap().1, Some(format!("00-{FIRST}-{}-01", submit.span_id)));
    worker.terminate();
    assert!(worker.exit().await.success());
}
