//! Queries of people's commands: the calls that their tasks wait for, calls left by others, the list of
//! tasks.

use retouch_shared::event::TaskStatus;
use retouch_worker::store::{CallState, Since, TaskFilter};

use super::fixture::{Fixture, LONG, PRICE, begin, claim, edit, finish, miss, price, register, task};

promises!(
    a_command_sees_the_calls_that_its_own_tasks_wait_for,
    calls_left_by_other_tasks_are_counted_with_their_cost,
    the_sent_calls_of_a_lane_say_who_has_them_and_which_tasks_wait,
    only_a_submitted_call_can_be_claimed_as_one,
    tasks_are_found_by_status_type_age_and_page,
);

async fn a_command_sees_the_calls_that_its_own_tasks_wait_for(db: Fixture) {
    let store = db.store().await;
    let (mine, theirs) = (edit("mine"), edit("theirs"));
    register(&store, &task("theirs", vec![miss(&theirs)])).await;
    register(&store, &task("mine", vec![miss(&mine), miss(&theirs)])).await;
    let waits = store.open_waits(&["mine".to_owned(), "unknown".to_owned()]).await.unwrap();
    let seen: Vec<_> =
        waits.iter().map(|wait| (wait.position, wait.edit_key, wait.joined, wait.leased)).collect();
    assert_eq!(seen, [(0, mine.edit_key, false, false), (1, theirs.edit_key, true, false)]);
    assert_eq!((waits[0].price.micros, waits[0].lane.as_str()), (PRICE, "lane"));
    assert!(waits.iter().all(|wait| wait.state == CallState::Queued && !wait.is_sent()));
    let lease = claim(&store, mine.edit_key).await.lease;
    assert!(begin(&store, lease).await);
    let waits = store.open_waits(&["mine".to_owned()]).await.unwrap();
    assert!(waits[0].leased && waits[0].is_sent() && !waits[1].leased);
    db.expire(mine.edit_key).await;
    assert!(!store.open_waits(&["mine".to_owned()]).await.unwrap()[0].leased);
    assert!(store.open_waits(&[]).await.unwrap().is_empty());
}

async fn calls_left_by_other_tasks_are_counted_with_their_cost(db: Fixture) {
    let store = db.store().await;
    let calls = ["mine", "queued", "accepted"].map(edit);
    register(&store, &task("mine", vec![miss(&calls[0])])).await;
    register(&store, &task("theirs", vec![miss(&calls[0]), miss(&calls[1]), miss(&calls[2])])).await;
    let lease = claim(&store, calls[2].edit_key).await.lease;
    assert!(begin(&store, lease).await);
    assert!(store.record_submitted(lease, "id").await.unwrap());
    let left = store.left_over(&["mine".to_owned()]).await.unwrap();
    assert_eq!(left.len(), 1);
    // An accepted call is paid for.
    assert_eq!((left[0].calls, &left[0].cost), (2, &price()));
    assert_eq!((left[0].spent_micros, left[0].unwaited), (PRICE, 0));
    let theirs = store.find_task("theirs").await.unwrap().unwrap();
    let spent = store.spent_by_open(&[&theirs]).await.unwrap()["theirs"];
    assert_eq!((spent.lost_micros, spent.under_way_micros), (0, PRICE));
    let in_flight = store.in_flight().await.unwrap();
    assert_eq!(
        in_flight.iter().map(|of| (of.accepted, of.calls, of.micros)).collect::<Vec<_>>(),
        [(true, 1, PRICE)]
    );
    assert_eq!(store.left_over(&[]).await.unwrap()[0].calls, 3);
    assert!(store.left_over(&["mine".to_owned(), "theirs".to_owned()]).await.unwrap().is_empty());
}

async fn the_sent_calls_of_a_lane_say_who_has_them_and_which_tasks_wait(db: Fixture) {
    let store = db.store().await;
    let [queued, first, second] = ["queued", "first", "second"].map(edit);
    register(&store, &task("a", vec![miss(&queued), miss(&first), miss(&second)])).await;
    register(&store, &task("b", vec![miss(&first)])).await;
    let leases = [claim(&store, first.edit_key).await.lease, claim(&store, second.edit_key).await.lease];
    assert!(store.sent_calls("lane").await.unwrap().is_empty(), "claimed is not sent");
    assert!(begin(&store, leases[0]).await && begin(&store, leases[1]).await);
    assert!(store.record_submitted(leases[0], "id").await.unwrap());
    let mut sent = store.sent_calls("lane").await.unwrap();
    sent.sort_by_key(|call| call.tasks.len());
    let seen: Vec<_> = sent.iter().map(|call| (call.edit_key, call.state, call.has_id, call.ended)).collect();
    let expected = [
        (second.edit_key, CallState::Submitting, false, false),
        (first.edit_key, CallState::Submitted, true, false),
    ];
    assert_eq!(seen, expected);
    assert_eq!(sent[1].tasks.iter().map(String::as_str).collect::<Vec<_>>(), ["a", "b"]);
    assert!(sent.iter().all(|call| call.owner.is_some() && !call.lease_left.is_zero()), "{sent:?}");
    db.expire(first.edit_key).await;
    assert!(store.note_unfetched(leases[0], "host", "why").await.unwrap());
    let sent = store.sent_calls("lane").await.unwrap();
    let first = sent.iter().find(|call| call.edit_key == first.edit_key).unwrap();
    assert_eq!((&first.owner, first.lease_left.is_zero(), first.ended), (&None, true, true));
    assert!(store.sent_calls("another").await.unwrap().is_empty());
}

async fn only_a_submitted_call_can_be_claimed_as_one(db: Fixture) {
    let store = db.store().await;
    let call = edit("call");
    register(&store, &task("a", vec![miss(&call)])).await;
    let try_claim = async || store.claim_submitted(call.edit_key, "other", LONG).await.unwrap();
    assert!(try_claim().await.is_none(), "queued: it would be sent");
    let lease = claim(&store, call.edit_key).await.lease;
    db.expire(call.edit_key).await;
    assert!(try_claim().await.is_none(), "claimed: the same");
    assert!(begin(&store, lease).await);
    assert!(try_claim().await.is_none(), "submitting: it could be sent again");
    assert!(store.record_submitted(lease, "id").await.unwrap());
    let claimed = try_claim().await.unwrap();
    assert_eq!((claimed.state, claimed.provider_task_id.as_deref()), (CallState::Submitted, Some("id")));
    assert!(try_claim().await.is_none(), "leased");
    assert!(store.count_ambiguous(claimed.lease, false, "unknown").await.unwrap().is_some());
    db.expire(call.edit_key).await;
    assert!(try_claim().await.is_none(), "ambiguous: it could be sent again");
}

async fn tasks_are_found_by_status_type_age_and_page(db: Fixture) {
    let store = db.store().await;
    let call = edit("picture");
    register(&store, &task("done", vec![miss(&call)])).await;
    finish(&store, &call).await;
    for id in ["open-1", "open-2"] {
        register(&store, &task(id, vec![miss(&edit("another"))])).await;
    }
    let listed = async |filter: TaskFilter, limit: u32| -> Vec<String> {
        store.tasks(&filter, limit).await.unwrap().into_iter().map(|task| task.task_id).collect()
    };
    let all = TaskFilter::default();
    assert_eq!(listed(all.clone(), 9).await, ["open-2", "open-1", "done"]);
    assert_eq!(listed(all.clone(), 2).await, ["open-2", "open-1"]);
    let next = TaskFilter { before: Some("open-1".to_owned()), ..all.clone() };
    assert_eq!(listed(next, 9).await, ["done"]);
    let open = TaskFilter { status: Some(TaskStatus::Processing), ..all.clone() };
    assert_eq!(listed(open, 9).await, ["open-2", "open-1"]);
    let typed = TaskFilter { edit_type: Some("Remove_watermark".to_owned()), ..all.clone() };
    assert!(listed(typed, 9).await.is_empty(), "byte for byte");
    db.execute("UPDATE image_edit_tasks SET created_at = '2020-01-01 00:00:00.000' WHERE task_id = 'open-1'")
        .await;
    let young = TaskFilter { since: Some(Since::Ago(LONG)), ..all.clone() };
    assert_eq!(listed(young, 9).await, ["open-2", "done"]);
    let since = TaskFilter { since: Some(Since::At("2019-12-31T23:00:00Z".parse().unwrap())), ..all };
    assert_eq!(listed(since, 9).await.len(), 3);
}
