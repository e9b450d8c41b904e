//! The sweep: work without an owner is found by one replica at a time.

use std::time::Duration;

use futures::future::join_all;
use retouch_shared::event::TaskStatus;
use retouch_worker::store::{CallState, DueCall};

use super::fixture::{Fixture, LONG, claim, edit, finish, make, miss, register, task, unreadable};

promises!(
    a_due_call_is_taken_by_one_of_two_sweeps,
    a_call_that_is_looked_after_is_not_due,
    each_look_at_a_call_doubles_the_next_delay,
    a_call_whose_owner_died_is_due_as_it_stands,
    a_due_event_is_taken_by_one_of_two_sweeps,
    a_confirmed_event_is_never_due_again,
    the_sweep_takes_no_more_than_it_asked_for,
    suspects_that_no_message_came_again_for_are_forgotten_after_two_days,
);

async fn a_due_call_is_taken_by_one_of_two_sweeps(db: Fixture) {
    let replicas = [db.store().await, db.store().await];
    let calls: Vec<_> = (0..40).map(|n| edit(&format!("picture {n}"))).collect();
    register(&replicas[0], &task("t", calls.iter().map(miss).collect())).await;
    db.let_calls_be_due().await;
    let sweeps = replicas.iter().flat_map(|store| (0..4).map(|_| store.take_due_calls(100)));
    let mut taken = Vec::new();
    for due in join_all(sweeps).await {
        taken.extend(due.unwrap());
    }
    // SKIP LOCKED may leave a row that another connection is reading to the next round.
    for store in &replicas {
        taken.extend(store.take_due_calls(100).await.unwrap());
    }
    let mut keys: Vec<_> = taken.iter().map(|call| call.edit_key).collect();
    keys.sort();
    let mut expected: Vec<_> = calls.iter().map(|call| call.edit_key).collect();
    expected.sort();
    assert_eq!(keys, expected);
    assert!(taken.iter().all(|call| call.queued && call.lane == "lane" && call.wakes == 0));
}

async fn a_call_that_is_looked_after_is_not_due(db: Fixture) {
    let store = db.store().await;
    let [fresh, claimed, done] = ["fresh", "claimed", "done"].map(edit);
    register(&store, &task("t", vec![miss(&fresh), miss(&claimed), miss(&done)])).await;
    claim(&store, claimed.edit_key).await;
    finish(&store, &done).await;
    assert!(store.take_due_calls(10).await.unwrap().is_empty());
    assert_eq!(db.number("SELECT COUNT(*) FROM image_edit_calls WHERE wake_at IS NULL").await, 1);
    // Given back with a delay, it is due only after the message that comes with the delay.
    let lease = claim(&store, fresh.edit_key).await.lease;
    store.requeue_call(lease, false, "busy", Duration::from_secs(100)).await.unwrap();
    assert!(due_in(&db, fresh.edit_key).await > 100);
}

/// In how many seconds the sweep looks after a call.
async fn due_in(db: &Fixture, key: retouch_shared::key::EditKey) -> i64 {
    let seconds = if db.is_sqlite() {
        "CAST(round((julianday(wake_at) - julianday('now')) * 86400) AS INTEGER)"
    } else {
        "TIMESTAMPDIFF(SECOND, UTC_TIMESTAMP(3), wake_at)"
    };
    db.of_call(seconds, key).await
}

async fn each_look_at_a_call_doubles_the_next_delay(db: Fixture) {
    let store = db.store().await;
    let call = edit("picture");
    register(&store, &task("t", vec![miss(&call)])).await;
    for (look, seconds) in [15, 30, 60, 120, 240, 480, 600, 600, 600].into_iter().enumerate() {
        db.let_calls_be_due().await;
        let expected = DueCall {
            edit_key: call.edit_key,
            lane: "lane".to_owned(),
            queued: true,
            sent: false,
            wakes: u32::try_from(look).unwrap(),
        };
        assert_eq!(store.take_due_calls(10).await.unwrap(), [expected]);
        let due_in = due_in(&db, call.edit_key).await;
        assert!((seconds - 10..=seconds).contains(&due_in), "look {look}: {due_in} s");
    }
    // Going back to the queue begins anew.
    let lease = claim(&store, call.edit_key).await.lease;
    store.requeue_call(lease, true, "busy", Duration::ZERO).await.unwrap();
    db.let_calls_be_due().await;
    assert_eq!(store.take_due_calls(10).await.unwrap()[0].wakes, 0);
}

async fn a_call_whose_owner_died_is_due_as_it_stands(db: Fixture) {
    let store = db.store().await;
    let call = edit("picture");
    register(&store, &task("t", vec![miss(&call)])).await;
    make(&store, &call).await;
    let due_in = due_in(&db, call.edit_key).await;
    assert!(due_in >= i64::try_from(LONG.as_secs()).unwrap() - 10, "after its lease: {due_in} s");
    db.expire(call.edit_key).await;
    let due = store.take_due_calls(10).await.unwrap();
    assert_eq!((due.len(), due[0].edit_key, due[0].queued), (1, call.edit_key, false));
    assert_eq!(claim(&store, call.edit_key).await.state, CallState::Stored);
}

async fn a_due_event_is_taken_by_one_of_two_sweeps(db: Fixture) {
    let replicas = [db.store().await, db.store().await];
    let call = edit("picture");
    let ids: Vec<_> = (0..20).map(|n| format!("task-{n:02}")).collect();
    for id in &ids {
        register(&replicas[0], &task(id, vec![miss(&call)])).await;
    }
    register(&replicas[0], &task("waiting", vec![miss(&edit("other"))])).await;
    finish(&replicas[0], &call).await;
    assert!(replicas[0].take_due_events(100).await.unwrap().is_empty(), "not yet");
    db.let_events_be_due().await;
    let sweeps = replicas.iter().flat_map(|store| (0..4).map(|_| store.take_due_events(100)));
    let mut taken: Vec<_> = Vec::new();
    for due in join_all(sweeps).await {
        taken.extend(due.unwrap());
    }
    for store in &replicas {
        taken.extend(store.take_due_events(100).await.unwrap());
    }
    taken.sort_by(|a, b| a.task_id.cmp(&b.task_id));
    assert_eq!(taken.iter().map(|task| &task.task_id).collect::<Vec<_>>(), ids.iter().collect::<Vec<_>>());
    assert!(taken.iter().all(|task| task.event(str::to_owned).is_some()));
    // Put off, not forgotten: they are unconfirmed.
    db.let_events_be_due().await;
    assert_eq!(replicas[1].take_due_events(100).await.unwrap().len(), 20);
}

async fn a_confirmed_event_is_never_due_again(db: Fixture) {
    let store = db.store().await;
    let (ended, _) = register(&store, &task("t", vec![unreadable()])).await;
    register(&store, &task("other", vec![unreadable()])).await;
    // The confirmed event had another outcome.
    store.event_sent("t", TaskStatus::Completed, 0).await.unwrap();
    db.let_events_be_due().await;
    assert_eq!(store.take_due_events(10).await.unwrap().len(), 2);
    store.event_sent("t", ended.status, ended.failed).await.unwrap();
    store.event_sent("unknown", ended.status, 0).await.unwrap();
    db.let_events_be_due().await;
    let due = store.take_due_events(10).await.unwrap();
    assert_eq!((due.len(), &due[0].task_id[..]), (1, "other"));
}

async fn the_sweep_takes_no_more_than_it_asked_for(db: Fixture) {
    let store = db.store().await;
    let calls: Vec<_> = (0..5).map(|n| edit(&format!("picture {n}"))).collect();
    register(&store, &task("t", calls.iter().map(miss).collect())).await;
    for n in 0..5 {
        register(&store, &task(&format!("failed-{n}"), vec![unreadable()])).await;
    }
    db.let_calls_be_due().await;
    db.let_events_be_due().await;
    for expected in [2, 2, 1, 0] {
        assert_eq!(store.take_due_calls(2).await.unwrap().len(), expected);
        assert_eq!(store.take_due_events(2).await.unwrap().len(), expected);
    }
}

async fn suspects_that_no_message_came_again_for_are_forgotten_after_two_days(db: Fixture) {
    let store = db.store().await;
    let (old, new) = (edit("old").edit_key, edit("new").edit_key);
    for suspect in [old, new] {
        store.start_suspect(suspect).await.unwrap();
    }
    assert_eq!(store.forget_suspects().await.unwrap(), 0);
    db.execute(&format!(
        "UPDATE suspects SET updated_at = '2020-01-01 00:00:00.000' WHERE lower(hex(suspect_key)) = '{old}'"
    ))
    .await;
    assert_eq!(store.forget_suspects().await.unwrap(), 1);
    assert_eq!(store.suspect_starts(new).await.unwrap(), Some(1));
}
