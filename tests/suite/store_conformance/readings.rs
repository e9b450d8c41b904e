//! Readings: `/metrics` equals the tables; and a task keeps its trace.

use std::time::Duration;

use retouch_worker::store::{CallsReading, NewTask};
use retouch_worker::trace::TraceContext;

use super::fixture::{Fixture, claim, edit, error, finish, miss, register, task, unreadable};

promises!(
    readings_follow_calls_leases_events_and_dead_letters,
    the_age_of_a_wait_survives_retries_of_its_call,
    a_task_keeps_its_trace_until_its_event,
);

fn in_state(state: &str, calls: u64, leased: u64) -> CallsReading {
    CallsReading { lane: "lane".to_owned(), state: state.to_owned(), calls, leased }
}

async fn readings_follow_calls_leases_events_and_dead_letters(db: Fixture) {
    let store = db.store().await;
    let [first, second] = ["a", "b"].map(edit);
    let empty = store.readings().await.unwrap();
    assert!(empty.calls.is_empty() && empty.oldest.is_empty() && empty.dead.is_empty());
    assert_eq!(empty.events_due, 0);

    register(&store, &task("t", vec![miss(&first), miss(&second), unreadable()])).await;
    let queued = store.readings().await.unwrap();
    assert_eq!(queued.calls, [in_state("queued", 2, 0)]);
    assert_eq!(queued.dead, [("source_not_found".to_owned(), 1)]);

    let lease = claim(&store, first.edit_key).await.lease;
    let mut claimed = store.readings().await.unwrap().calls;
    claimed.sort_by(|a, b| a.state.cmp(&b.state));
    assert_eq!(claimed, [in_state("claimed", 1, 1), in_state("queued", 1, 0)]);
    db.expire(first.edit_key).await;
    assert!(
        store.readings().await.unwrap().calls.iter().all(|calls| calls.leased == 0),
        "a lease that ran out"
    );

    store.fail_edit(lease, &error("Refused", "no"), false).await.unwrap();
    finish(&store, &second).await;
    let over = store.readings().await.unwrap();
    assert!(over.calls.is_empty() && over.oldest.is_empty(), "{over:?}");
    assert_eq!(over.events_due, 1);
    assert_eq!(over.dead.iter().map(|(_, letters)| letters).sum::<u64>(), 2);
}

async fn the_age_of_a_wait_survives_retries_of_its_call(db: Fixture) {
    let store = db.store().await;
    let call = edit("a");
    register(&store, &task("t", vec![miss(&call)])).await;
    db.execute("UPDATE image_edit_waits SET created_at = '2020-01-01 00:00:00.000'").await;
    let lease = claim(&store, call.edit_key).await.lease;
    assert!(store.requeue_call(lease, false, "waiting for the lane", Duration::ZERO).await.unwrap());
    let oldest = store.readings().await.unwrap().oldest;
    assert_eq!(oldest.len(), 1);
    assert!(oldest[0].0 == "lane" && oldest[0].1 > Duration::from_secs(86_400), "{oldest:?}");
}

async fn a_task_keeps_its_trace_until_its_event(db: Fixture) {
    let store = db.store().await;
    let call = edit("a");
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let trace = TraceContext::read(Some(parent), Some("vendor=a"));
    assert!(trace.is_some());
    register(&store, &NewTask { trace: trace.clone(), ..task("traced", vec![miss(&call)]) }).await;
    register(&store, &task("untraced", vec![miss(&call)])).await;
    let ended = finish(&store, &call).await;
    let traces: Vec<_> = ended.iter().map(|task| (task.task_id.as_str(), task.trace.clone())).collect();
    assert_eq!(traces, [("traced", trace), ("untraced", None)]);
}
