//! Queries of people's commands: the calls that their tasks wait for, calls left by others, the list of
//! tasks.

use retouch_shared::event::TaskStatus;
use retouch_worker::store::{CallState, Since, TaskFilter};

use super::fixture::{Fixture, LONG, PRICE, begin, claim, edit, finish, miss, price, register, task};

promises!(
    a_command_sees_the_calls_that_its_own_tasks_wait_for,
    calls_left_by_other_tasks_are_counted_with_their_cost,
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
    assert_eq!(store.left_over(&[]).await.unwrap()[0].calls, 3);
    assert!(store.left_over(&["mine".to_owned(), "theirs".to_owned()]).await.unwrap().is_empty());
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
