//! Spent money: counted once, with its result, on the image that started the call.

use std::time::{Duration, Instant};

use retouch_worker::store::{AMBIGUOUS, RESULT, Store, UNWANTED};

use super::fixture::{
    Fixture, begin, claim, edit, ended, error, finish, miss, price, register, result_of, task, url_of,
};

promises!(
    a_result_is_money_that_bought_a_picture,
    a_charged_failure_is_lost_money_of_the_starting_task,
    an_uncharged_call_leaves_no_money,
    a_submit_without_an_answer_is_perhaps_charged_and_counted_once,
    both_submits_without_an_answer_stand_on_the_task,
    a_result_that_no_image_waits_for_is_unwanted,
    a_call_that_is_forgotten_while_under_way_is_money_for_nothing,
    money_of_a_call_is_not_carried_into_its_next_life,
);

const EVENT_IN: Duration = Duration::from_secs(60);

/// Outcome, calls and millionths of every row.
async fn spent(store: &Store) -> Vec<(String, i64, i64)> {
    let rows = store.spending(1).await.unwrap();
    rows.into_iter().map(|spent| (spent.outcome, spent.calls, spent.micros)).collect()
}

fn row(outcome: &str, calls: i64) -> (String, i64, i64) {
    (outcome.to_owned(), calls, calls * price().micros)
}

async fn a_result_is_money_that_bought_a_picture(db: Fixture) {
    let store = db.store().await;
    for name in ["one", "two"] {
        let call = edit(name);
        register(&store, &task(name, vec![miss(&call), miss(&call)])).await;
        let done = finish(&store, &call).await;
        assert_eq!((done[0].paid_micros, done[0].lost_micros), (price().micros, 0));
    }
    // The other way to finish: stored and finished in one step.
    let call = edit("three");
    register(&store, &task("three", vec![miss(&call)])).await;
    let lease = claim(&store, call.edit_key).await.lease;
    assert!(begin(&store, lease).await);
    let (result, began) = (result_of(&call), Instant::now());
    let finished = store.store_and_finish(lease, &call, &result, began, &url_of(&result)).await;
    ended(finished.unwrap());
    assert_eq!(spent(&store).await, [row(RESULT, 3)]);
    let all = store.spending(30).await.unwrap();
    assert!(all[0].bought() && all[0].certain());
    assert_eq!((all[0].lane.as_str(), all[0].model.as_str()), (call.lane.as_str(), call.model.as_str()));
    db.is_settled().await;
}

async fn a_charged_failure_is_lost_money_of_the_starting_task(db: Fixture) {
    let store = db.store().await;
    let call = edit("picture");
    register(&store, &task("starter", vec![miss(&call), miss(&call)])).await;
    register(&store, &task("joiner", vec![miss(&call)])).await;
    let lease = claim(&store, call.edit_key).await.lease;
    assert!(begin(&store, lease).await);
    assert!(store.record_submitted(lease, "id").await.unwrap());
    let tasks = ended(store.fail_edit(lease, &error("bad_result", "no picture"), true).await.unwrap());
    let lost = |id: &str| tasks.iter().find(|task| task.task_id == id).unwrap().lost_micros;
    assert_eq!((lost("starter"), lost("joiner")), (price().micros, 0));
    let cost = tasks.iter().find(|task| task.task_id == "starter").unwrap().cost().unwrap();
    assert_eq!((cost.paid.as_str(), cost.saved.as_str(), cost.lost.as_str()), ("0", "0", "0.14"));
    assert_eq!(spent(&store).await, [row("bad_result", 1)]);
    db.is_settled().await;
}

async fn an_uncharged_call_leaves_no_money(db: Fixture) {
    let store = db.store().await;
    let call = edit("picture");
    register(&store, &task("t", vec![miss(&call)])).await;
    let lease = claim(&store, call.edit_key).await.lease;
    assert!(begin(&store, lease).await);
    let tasks = ended(store.fail_edit(lease, &error("refused", "no"), false).await.unwrap());
    assert_eq!((tasks[0].lost_micros, tasks[0].cost()), (0, None));
    assert_eq!(spent(&store).await, []);
    db.is_settled().await;
}

async fn a_submit_without_an_answer_is_perhaps_charged_and_counted_once(db: Fixture) {
    let store = db.store().await;
    let call = edit("picture");
    register(&store, &task("t", vec![miss(&call)])).await;
    let lease = claim(&store, call.edit_key).await.lease;
    assert!(begin(&store, lease).await);
    // Its owner says so, and again as the next one would that finds it before it is queued.
    for _ in 0..2 {
        assert!(store.count_ambiguous(lease, true, "no answer").await.unwrap().is_some());
    }
    assert!(store.requeue_call(lease, true, "no answer", Duration::ZERO).await.unwrap());
    assert_eq!(spent(&store).await, [row(AMBIGUOUS, 1)]);
    let done = finish(&store, &call).await;
    assert_eq!((done[0].paid_micros, done[0].lost_micros), (price().micros, price().micros));
    assert_eq!(spent(&store).await, [row(AMBIGUOUS, 1), row(RESULT, 1)]);
    db.is_settled().await;
}

async fn both_submits_without_an_answer_stand_on_the_task(db: Fixture) {
    let store = db.store().await;
    let call = edit("picture");
    register(&store, &task("t", vec![miss(&call)])).await;
    let lease = claim(&store, call.edit_key).await.lease;
    assert!(begin(&store, lease).await);
    assert!(store.count_ambiguous(lease, true, "no answer").await.unwrap().is_some());
    assert!(store.requeue_call(lease, true, "no answer", Duration::ZERO).await.unwrap());
    let lease = claim(&store, call.edit_key).await.lease;
    assert!(begin(&store, lease).await);
    assert!(store.count_ambiguous(lease, false, "no answer").await.unwrap().is_some());
    let tasks = ended(store.fail_edit(lease, &error("ambiguous", "no answer"), true).await.unwrap());
    assert_eq!(tasks[0].lost_micros, 2 * price().micros);
    assert_eq!(spent(&store).await, [row(AMBIGUOUS, 2)]);
    db.is_settled().await;
}

async fn a_result_that_no_image_waits_for_is_unwanted(db: Fixture) {
    let store = db.store().await;
    let call = edit("picture");
    register(&store, &task("t", vec![miss(&call)])).await;
    let lease = claim(&store, call.edit_key).await.lease;
    assert!(begin(&store, lease).await);
    store.cancel_task("t", EVENT_IN).await.unwrap();
    assert!(store.record_stored(lease, &result_of(&call), Duration::ZERO).await.unwrap());
    assert_eq!(ended(store.finish_edit(lease, &url_of(&result_of(&call))).await.unwrap()).len(), 0);
    assert_eq!(spent(&store).await, [row(UNWANTED, 1)]);
    db.is_settled().await;
}

async fn a_call_that_is_forgotten_while_under_way_is_money_for_nothing(db: Fixture) {
    let store = db.store().await;
    let (sent, queued) = (edit("sent"), edit("queued"));
    register(&store, &task("t", vec![miss(&sent), miss(&queued)])).await;
    let lease = claim(&store, sent.edit_key).await.lease;
    assert!(begin(&store, lease).await);
    store.forget_edits(&[sent.edit_key, queued.edit_key]).await.unwrap();
    assert_eq!(spent(&store).await, [row("forgotten", 1)]);
    db.is_settled().await;
}

async fn money_of_a_call_is_not_carried_into_its_next_life(db: Fixture) {
    let store = db.store().await;
    let call = edit("picture");
    register(&store, &task("first", vec![miss(&call)])).await;
    let lease = claim(&store, call.edit_key).await.lease;
    assert!(begin(&store, lease).await);
    assert!(store.count_ambiguous(lease, true, "no answer").await.unwrap().is_some());
    assert!(store.requeue_call(lease, true, "no answer", Duration::ZERO).await.unwrap());
    let lease = claim(&store, call.edit_key).await.lease;
    assert!(begin(&store, lease).await);
    ended(store.fail_edit(lease, &error("refused", "no"), false).await.unwrap());
    register(&store, &task("second", vec![miss(&call)])).await;
    let done = finish(&store, &call).await;
    let second = done.iter().find(|task| task.task_id == "second").unwrap();
    assert_eq!((second.paid_micros, second.lost_micros), (price().micros, 0));
    assert_eq!(spent(&store).await, [row(AMBIGUOUS, 1), row(RESULT, 1)]);
    db.is_settled().await;
}
