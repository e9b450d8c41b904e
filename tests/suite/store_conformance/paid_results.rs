//! Results that were paid for and lost: asked for again before anything is sent, and counted once, whatever
//! comes of it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use retouch_shared::event::ImageError;
use retouch_worker::store::{
    CallSpec, CallState, ClaimedCall, EditRetry, LetterFilter, LetterState, Money, RESULT, Reopening, Store,
};

use super::fixture::{
    Fixture, begin, claim, edit, ended, error, finish, found, miss, price, register, result_of, task, url_of,
};

promises!(
    a_lost_result_is_asked_for_again_and_paid_for_once,
    a_result_that_is_still_lost_is_counted_once,
    a_result_that_is_gone_is_paid_for_again_only_by_decision,
    a_later_task_asks_for_a_lost_result_too,
    a_decision_to_pay_anew_asks_for_nothing,
    what_the_provider_does_not_charge_after_all_is_taken_back,
    a_lost_result_whose_edit_is_forgotten_is_not_counted_again,
    a_result_that_came_within_its_answer_is_not_asked_for,
);

const NO_PICTURE: &str = "bad_result";

fn no_picture() -> ImageError {
    error(NO_PICTURE, "an HTML page")
}

/// Paid for, and its result is no picture.
async fn lost(store: &Store, call: &CallSpec) {
    register(store, &task("t", vec![miss(call)])).await;
    let lease = claim(store, call.edit_key).await.lease;
    assert!(begin(store, lease).await);
    assert!(store.record_submitted(lease, "id").await.unwrap());
    ended(store.fail_edit(lease, &no_picture(), true).await.unwrap());
    assert!(store.calls_of_letters(&[call.edit_key]).await.unwrap()[0].paid_result);
}

/// A person has it sent again, and a worker takes it up.
async fn retried(store: &Store, call: &CallSpec, reopening: &Reopening) -> ClaimedCall {
    let open = LetterFilter::of(&[LetterState::Open]);
    let letters = store.letters(&store.letter_ids(&open).await.unwrap()).await.unwrap();
    let retries: Vec<EditRetry> = letters.iter().filter_map(EditRetry::of).collect();
    let reopened = store.reopen_edits(&retries, reopening).await.unwrap();
    assert_eq!(reopened.retried.len(), retries.len());
    assert_eq!(reopened.wake, [(call.edit_key, call.lane.clone())]);
    claim(store, call.edit_key).await
}

/// Outcome and calls of every row that has some.
async fn spent(store: &Store) -> Vec<(String, i64)> {
    let rows = store.spending(1).await.unwrap().into_iter().filter(|row| row.calls != 0);
    rows.inspect(|row| assert_eq!(row.micros, row.calls * price().micros))
        .map(|row| (row.outcome, row.calls))
        .collect()
}

fn row(outcome: &str, calls: i64) -> (String, i64) {
    (outcome.to_owned(), calls)
}

fn is_asked_for(call: &ClaimedCall) {
    assert_eq!((call.state, call.provider_task_id.as_deref()), (CallState::Submitted, Some("id")));
    assert_eq!((call.ended, call.lost_as.as_deref()), (true, Some(NO_PICTURE)));
    assert!(!call.since_submit.is_zero(), "it is as old as it was");
}

async fn a_lost_result_is_asked_for_again_and_paid_for_once(db: Fixture) {
    let store = db.store().await;
    let call = edit("picture");
    lost(&store, &call).await;
    let dearer = (call.lane.clone(), Money { micros: 7 * price().micros, currency: "CNY".to_owned() });
    let routes = HashMap::from([(call.edit_key, dearer)]);
    let again = retried(&store, &call, &Reopening { routes, ..Reopening::default() }).await;
    is_asked_for(&again);
    assert_eq!((again.held.as_deref(), &again.spec.price), (None, &price()), "at what it cost");
    let in_flight = "SELECT COUNT(*) FROM image_edit_calls WHERE state = 'submitted' AND ended_at IS NULL";
    assert_eq!(db.number(in_flight).await, 0, "it takes no place on its lane");
    let result = result_of(&call);
    let finished =
        store.store_and_finish(again.lease, &again.spec, &result, Instant::now(), &url_of(&result)).await;
    let tasks = ended(finished.unwrap());
    assert_eq!((tasks[0].paid_micros, tasks[0].lost_micros, tasks[0].paid), (price().micros, 0, 1));
    assert_eq!(spent(&store).await, [row(RESULT, 1)]);
    assert_eq!(db.of_call("paid_calls", call.edit_key).await, 1);
    assert_eq!(db.number("SELECT COUNT(*) FROM image_edit_calls WHERE lost_as IS NOT NULL").await, 0);
    db.is_settled().await;
}

async fn a_result_that_is_still_lost_is_counted_once(db: Fixture) {
    let store = db.store().await;
    let call = edit("picture");
    lost(&store, &call).await;
    for _ in 0..2 {
        let again = retried(&store, &call, &Reopening::default()).await;
        is_asked_for(&again);
        ended(store.fail_edit(again.lease, &no_picture(), true).await.unwrap());
    }
    assert_eq!(spent(&store).await, [row(NO_PICTURE, 1)]);
    assert_eq!(found(&store, "t").await.lost_micros, price().micros);
    assert_eq!(db.of_call("paid_calls", call.edit_key).await, 1);
    // Another one may look again, and held it is.
    register(&store, &task("other", vec![miss(&call)])).await;
    assert_eq!(claim(&store, call.edit_key).await.held.as_deref(), Some(NO_PICTURE));
    db.is_sound().await;
}

async fn a_result_that_is_gone_is_paid_for_again_only_by_decision(db: Fixture) {
    let store = db.store().await;
    let call = edit("picture");
    lost(&store, &call).await;
    let again = retried(&store, &call, &Reopening::default()).await;
    assert!(store.requeue_call(again.lease, false, "gone", Duration::ZERO).await.unwrap());
    assert_eq!(spent(&store).await, [row(NO_PICTURE, 1)], "it stays counted");
    assert!(!store.calls_of_letters(&[call.edit_key]).await.unwrap()[0].paid_result);
    let tasks = finish(&store, &call).await;
    assert_eq!((tasks[0].paid_micros, tasks[0].lost_micros), (price().micros, price().micros));
    assert_eq!(spent(&store).await, [row(NO_PICTURE, 1), row(RESULT, 1)]);
    assert_eq!(db.of_call("paid_calls", call.edit_key).await, 2);
    db.is_settled().await;
}

async fn a_later_task_asks_for_a_lost_result_too(db: Fixture) {
    let store = db.store().await;
    let call = edit("picture");
    lost(&store, &call).await;
    register(&store, &task("later", vec![miss(&call)])).await;
    let again = claim(&store, call.edit_key).await;
    is_asked_for(&again);
    assert!(store.requeue_call(again.lease, false, "gone", Duration::ZERO).await.unwrap());
    let held = claim(&store, call.edit_key).await;
    assert_eq!((held.state, held.held.as_deref()), (CallState::Claimed, Some(NO_PICTURE)));
    assert!(!begin(&store, held.lease).await, "no person has decided that it is paid again");
    assert_eq!(spent(&store).await, [row(NO_PICTURE, 1)]);
}

async fn a_decision_to_pay_anew_asks_for_nothing(db: Fixture) {
    let store = db.store().await;
    let call = edit("picture");
    lost(&store, &call).await;
    let anew = retried(&store, &call, &Reopening { anew: true, ..Reopening::default() }).await;
    assert_eq!((anew.state, anew.provider_task_id, anew.lost_as), (CallState::Claimed, None, None));
    assert!(begin(&store, anew.lease).await);
}

async fn what_the_provider_does_not_charge_after_all_is_taken_back(db: Fixture) {
    let store = db.store().await;
    let call = edit("picture");
    lost(&store, &call).await;
    let again = retried(&store, &call, &Reopening::default()).await;
    ended(store.fail_edit(again.lease, &error("task_failed", "no"), false).await.unwrap());
    assert_eq!(spent(&store).await, []);
    assert_eq!(found(&store, "t").await.lost_micros, 0);
    assert_eq!(db.of_call("paid_calls", call.edit_key).await, 0);
    assert!(!store.calls_of_letters(&[call.edit_key]).await.unwrap()[0].paid_result);
    db.is_settled().await;
}

async fn a_lost_result_whose_edit_is_forgotten_is_not_counted_again(db: Fixture) {
    let store = db.store().await;
    let call = edit("picture");
    lost(&store, &call).await;
    is_asked_for(&retried(&store, &call, &Reopening::default()).await);
    store.forget_edits(&[call.edit_key]).await.unwrap();
    assert_eq!(spent(&store).await, [row(NO_PICTURE, 1)]);
}

async fn a_result_that_came_within_its_answer_is_not_asked_for(db: Fixture) {
    let store = db.store().await;
    let call = edit("picture");
    register(&store, &task("t", vec![miss(&call)])).await;
    let lease = claim(&store, call.edit_key).await.lease;
    assert!(begin(&store, lease).await);
    ended(store.fail_edit(lease, &no_picture(), true).await.unwrap());
    assert!(!store.calls_of_letters(&[call.edit_key]).await.unwrap()[0].paid_result);
    let again = retried(&store, &call, &Reopening::default()).await;
    assert_eq!((again.state, again.lost_as), (CallState::Claimed, None));
}
