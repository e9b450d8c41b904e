//! Cancels: images stop waiting, unwanted calls are not sent, sent ones are kept.

use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use retouch_shared::event::{ImageStatus, TaskStatus};
use retouch_worker::store::{
    Admission, CANCELLED, Cancelled, Claim, Finished, Registered, Store, TaskRecord,
};

use super::fixture::{
    Fixture, LONG, begin, cached, claim, counts, edit, ended, finish, found, hit, make, miss, price,
    register, result_of, task, unreadable, url_of,
};
use super::races::at_once;

promises!(
    a_cancelled_queued_task_ends_without_sending_its_call,
    the_owner_of_an_unwanted_call_changes_nothing,
    a_sent_call_of_a_cancelled_task_becomes_a_hit,
    a_returned_call_without_a_waiting_image_is_not_sent_again,
    a_shared_edit_is_made_and_paid_by_the_remaining_task,
    images_answered_before_a_cancel_keep_their_results,
    a_task_that_has_ended_stays_as_it_is,
    a_cancel_that_comes_first_is_remembered_and_leaves_no_dead_letter,
    a_cancel_whose_task_never_comes_is_forgotten_after_a_day,
    a_cancelled_edit_is_made_on_a_later_request,
    a_cancel_racing_a_finish_ends_the_task_once,
    a_cancel_that_races_a_register_is_never_lost,
    concurrent_cancels_and_submits_send_no_unwanted_call,
    tasks_that_share_edits_are_cancelled_at_once_without_a_deadlock,
);

const EVENT_IN: Duration = Duration::from_secs(30);

async fn cancel(store: &Store, task_id: &str) -> TaskRecord {
    match store.cancel_task(task_id, EVENT_IN).await.unwrap() {
        Cancelled::Now { task, .. } => *task,
        other => panic!("{task_id}: {other:?}"),
    }
}

fn codes(task: &TaskRecord) -> Vec<&str> {
    let code =
        |image: &retouch_shared::event::ImageResult| image.error.as_ref().map(|error| error.code.clone());
    let codes: Vec<_> = task.images.iter().filter_map(code).collect();
    codes.into_iter().map(|code| if code == CANCELLED { CANCELLED } else { "another" }).collect()
}

const LETTERS: &str = "SELECT COUNT(*) FROM dead_letters";

async fn a_cancelled_queued_task_ends_without_sending_its_call(db: Fixture) {
    let store = db.store().await;
    let call = edit("picture");
    register(&store, &task("t", vec![miss(&call), miss(&call)])).await;
    let task = cancel(&store, "t").await;
    assert_eq!((task.status, counts(&task)), (TaskStatus::Failed, [0, 0, 0, 2]));
    assert_eq!(codes(&task), [CANCELLED, CANCELLED]);
    assert!(task.completed_at.is_some() && task.error.is_some());
    assert_eq!(db.state(call.edit_key).await, "done");
    assert!(matches!(store.claim_call(call.edit_key, "tester", LONG).await.unwrap(), Claim::Done));
    assert!(cached(&store, call.edit_key).await.is_none());
    assert_eq!(db.number(LETTERS).await, 0);
    db.is_settled().await;
    // Its event is due like any other.
    assert!(store.take_due_events(9).await.unwrap().is_empty());
    db.let_events_be_due().await;
    assert_eq!(store.take_due_events(9).await.unwrap()[0].task_id, "t");
}

async fn the_owner_of_an_unwanted_call_changes_nothing(db: Fixture) {
    let store = db.store().await;
    let call = edit("picture");
    register(&store, &task("t", vec![miss(&call)])).await;
    let lease = claim(&store, call.edit_key).await.lease;
    cancel(&store, "t").await;
    assert!(!store.renew_lease(lease, LONG).await.unwrap());
    assert_eq!(store.begin_submit(lease, &price()).await.unwrap(), Admission::LostLease);
    assert!(!store.requeue_call(lease, true, "x", Duration::ZERO).await.unwrap());
    assert!(matches!(
        store.fail_edit(lease, &super::fixture::error("x", "x"), true).await.unwrap(),
        Finished::LostLease
    ));
    db.is_settled().await;
}

async fn a_sent_call_of_a_cancelled_task_becomes_a_hit(db: Fixture) {
    let store = db.store().await;
    for (picture, steps) in [("submitting", 1), ("submitted", 2), ("stored", 3)] {
        let call = edit(picture);
        register(&store, &task(picture, vec![miss(&call)])).await;
        let lease = claim(&store, call.edit_key).await.lease;
        assert!(begin(&store, lease).await);
        if steps > 1 {
            assert!(store.record_submitted(lease, "provider-1").await.unwrap());
        }
        if steps > 2 {
            assert!(store.record_stored(lease, &result_of(&call), Duration::ZERO).await.unwrap());
        }
        assert_eq!(cancel(&store, picture).await.status, TaskStatus::Failed);
        db.is_sound().await;
        if steps < 3 {
            assert!(store.record_stored(lease, &result_of(&call), Duration::ZERO).await.unwrap());
        }
        let url = url_of(&result_of(&call));
        assert!(ended(store.finish_edit(lease, &url).await.unwrap()).is_empty());
        let result = cached(&store, call.edit_key).await.unwrap();
        let (next, _) = register(&store, &task(&format!("next {picture}"), vec![hit(&call, &result)])).await;
        assert_eq!(counts(&next), [1, 0, 0, 0]);
        assert_eq!(db.of_call("paid_calls", call.edit_key).await, 1);
    }
    db.is_settled().await;
}

async fn a_returned_call_without_a_waiting_image_is_not_sent_again(db: Fixture) {
    let store = db.store().await;
    let (refused, retracted) = (edit("refused"), edit("retracted"));
    for call in [&refused, &retracted] {
        let id = call.edit_key.to_hex();
        register(&store, &task(&id, vec![miss(call)])).await;
        let lease = claim(&store, call.edit_key).await.lease;
        assert!(begin(&store, lease).await);
        cancel(&store, &id).await;
        let lease = if call.edit_key == refused.edit_key {
            assert!(store.requeue_call(lease, true, "not sent", Duration::ZERO).await.unwrap());
            claim(&store, call.edit_key).await.lease
        } else {
            assert!(store.retract_submit(lease).await.unwrap());
            lease
        };
        assert_eq!(store.begin_submit(lease, &price()).await.unwrap(), Admission::Unwanted);
        assert_eq!(db.state(call.edit_key).await, "done");
    }
    db.is_settled().await;
}

async fn a_shared_edit_is_made_and_paid_by_the_remaining_task(db: Fixture) {
    let store = db.store().await;
    let call = edit("picture");
    register(&store, &task("first", vec![miss(&call)])).await;
    register(&store, &task("second", vec![miss(&call), miss(&call)])).await;
    cancel(&store, "first").await;
    assert_eq!(db.state(call.edit_key).await, "queued");
    let done = finish(&store, &call).await;
    assert_eq!(
        (done[0].task_id.as_str(), counts(&done[0])),
        ("second", [0, 1, 1, 0]),
        "one of its images pays"
    );
    assert_eq!(counts(&found(&store, "first").await), [0, 0, 0, 1]);
    assert_eq!(db.of_call("paid_calls", call.edit_key).await, 1);
    db.is_settled().await;
}

async fn images_answered_before_a_cancel_keep_their_results(db: Fixture) {
    let store = db.store().await;
    let (known, made, open) = (edit("known"), edit("made"), edit("open"));
    register(&store, &task("zero", vec![miss(&known)])).await;
    finish(&store, &known).await;
    let result = cached(&store, known.edit_key).await.unwrap();
    let images = vec![hit(&known, &result), miss(&made), miss(&open), unreadable()];
    register(&store, &task("t", images)).await;
    finish(&store, &made).await;
    let task = cancel(&store, "t").await;
    assert_eq!((task.status, counts(&task)), (TaskStatus::Partial, [1, 0, 1, 2]));
    let status: Vec<_> = task.images.iter().map(|image| image.status).collect();
    use ImageStatus::{Done, Failed};
    assert_eq!(status, [Done, Done, Failed, Failed]);
    assert_eq!(codes(&task), [CANCELLED, "another"]);
    assert_eq!(db.number(LETTERS).await, 1, "of the image that could not be read");
    db.is_settled().await;
}

async fn a_task_that_has_ended_stays_as_it_is(db: Fixture) {
    let store = db.store().await;
    let call = edit("picture");
    register(&store, &task("done", vec![miss(&call)])).await;
    finish(&store, &call).await;
    register(&store, &task("cancelled", vec![miss(&edit("another"))])).await;
    let once = cancel(&store, "cancelled").await;
    for (task_id, status) in [("done", TaskStatus::Completed), ("cancelled", TaskStatus::Failed)] {
        match store.cancel_task(task_id, EVENT_IN).await.unwrap() {
            Cancelled::AlreadyEnded(task) => assert_eq!(task.status, status),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(found(&store, "cancelled").await.completed_at, once.completed_at);
    db.is_settled().await;
}

async fn a_cancel_that_comes_first_is_remembered_and_leaves_no_dead_letter(db: Fixture) {
    let store = db.store().await;
    for _ in 0..2 {
        let remembered = store.cancel_task("t", EVENT_IN).await.unwrap();
        assert!(matches!(remembered, Cancelled::Remembered), "{remembered:?}");
    }
    let call = edit("picture");
    let new = task("t", vec![miss(&call), unreadable()]);
    let (late, wake) = register(&store, &new).await;
    assert_eq!((late.status, counts(&late), wake.len()), (TaskStatus::Failed, [0, 0, 0, 2], 0));
    assert_eq!(codes(&late), [CANCELLED, CANCELLED]);
    assert!(late.completed_at.is_some());
    assert_eq!(db.number(LETTERS).await, 0);
    assert_eq!(db.number("SELECT COUNT(*) FROM image_edit_calls").await, 0, "nothing of it was begun");
    // It is used up, and the task is what it is.
    assert_eq!(db.number("SELECT COUNT(*) FROM cancels").await, 0);
    assert!(matches!(store.register(&new).await.unwrap(), Registered::Same(_)));
    let (other, _) = register(&store, &task("other", vec![miss(&call)])).await;
    assert_eq!(other.status, TaskStatus::Processing);
    finish(&store, &call).await;
    db.is_settled().await;
}

async fn a_cancel_whose_task_never_comes_is_forgotten_after_a_day(db: Fixture) {
    let store = db.store().await;
    store.cancel_task("old", EVENT_IN).await.unwrap();
    db.execute("UPDATE cancels SET created_at = '2020-01-01 00:00:00.000'").await;
    store.cancel_task("young", EVENT_IN).await.unwrap();
    let (task, _) = register(&store, &task("old", vec![miss(&edit("picture"))])).await;
    assert_eq!(task.status, TaskStatus::Processing, "a day later it is another task's id");
    assert_eq!(store.forget_cancels().await.unwrap(), 1);
    assert_eq!(db.text("SELECT task_id FROM cancels").await, "young");
}

async fn a_cancelled_edit_is_made_on_a_later_request(db: Fixture) {
    let store = db.store().await;
    let call = edit("picture");
    register(&store, &task("t", vec![miss(&call)])).await;
    let old = claim(&store, call.edit_key).await.lease;
    cancel(&store, "t").await;
    let (_, wake) = register(&store, &task("again", vec![miss(&call)])).await;
    assert_eq!(wake, [call.edit_key]);
    assert_eq!(store.begin_submit(old, &price()).await.unwrap(), Admission::LostLease);
    assert_eq!(counts(&finish(&store, &call).await[0]), [0, 0, 1, 0]);
    db.is_settled().await;
}

async fn a_cancel_racing_a_finish_ends_the_task_once(db: Fixture) {
    let replicas = [db.store().await, db.store().await];
    let (mut finished, mut cancelled) = (0, 0);
    for round in 0..60 {
        let (call, open) = (edit(&format!("picture {round}")), edit(&format!("open {round}")));
        let id = format!("t-{round}");
        // Every other task waits for one more edit.
        let images = if round % 2 == 0 { vec![miss(&call)] } else { vec![miss(&call), miss(&open)] };
        register(&replicas[0], &task(&id, images)).await;
        let lease = make(&replicas[0], &call).await;
        let (finisher, canceller) = (replicas[0].clone(), replicas[1].clone());
        let (url, of) = (url_of(&result_of(&call)), id.clone());
        let works: Vec<BoxFuture<'static, bool>> = vec![
                async move { !ended(finisher.finish_edit(lease, &url).await.unwrap()).is_empty() }.boxed(),
                async move {
                    matches!(canceller.cancel_task(&of, EVENT_IN).await.unwrap(), Cancelled::Now { .. })
                }
                .boxed(),
            ];
        let ends = at_once(works).await;
        assert_eq!(ends.iter().filter(|ended| **ended).count(), 1, "round {round}: ended once");
        let task = found(&replicas[0], &id).await;
        match counts(&task)[2] {
            1 => finished += 1,
            _ => cancelled += 1,
        }
        assert!(cached(&replicas[0], call.edit_key).await.is_some(), "it was paid for");
        assert_eq!(db.of_call("paid_calls", call.edit_key).await, 1);
    }
    println!("the finish came first {finished} times, the cancel {cancelled} times");
    assert!(finished > 0 && cancelled > 0, "this was no race");
    db.is_settled().await;
}

async fn a_cancel_that_races_a_register_is_never_lost(db: Fixture) {
    let replicas = [db.store().await, db.store().await];
    let (mut before, mut after) = (0, 0);
    for round in 0..60 {
        let call = edit(&format!("picture {round}"));
        let id = format!("t-{round}");
        let (new, of) = (task(&id, vec![miss(&call)]), id.clone());
        let (registrar, canceller) = (replicas[0].clone(), replicas[1].clone());
        // A register is many statements: so that the cancel meets each of them, and comes before and after them all.
        let stagger = Duration::from_millis(round % 12);
        let (head_start, late) =
            if round % 4 == 0 { (stagger, Duration::ZERO) } else { (Duration::ZERO, stagger) };
        let works: Vec<BoxFuture<'static, bool>> = vec![
            async move {
                tokio::time::sleep(head_start).await;
                register(&registrar, &new).await;
                false
            }
            .boxed(),
            async move {
                tokio::time::sleep(late).await;
                matches!(canceller.cancel_task(&of, EVENT_IN).await.unwrap(), Cancelled::Now { .. })
            }
            .boxed(),
        ];
        match at_once(works).await.contains(&true) {
            true => after += 1,
            false => before += 1,
        }
        assert_eq!(
            found(&replicas[0], &id).await.status,
            TaskStatus::Failed,
            "a lost cancel in round {round}"
        );
        db.is_settled().await;
    }
    println!("the cancel came before its task {before} times, after it {after} times");
    assert!(before > 0 && after > 0, "this was no race");
}

async fn concurrent_cancels_and_submits_send_no_unwanted_call(db: Fixture) {
    let replicas = [db.store().await, db.store().await];
    let (mut sent, mut unsent) = (0, 0);
    for round in 0..60 {
        let call = edit(&format!("picture {round}"));
        let id = format!("t-{round}");
        register(&replicas[0], &task(&id, vec![miss(&call)])).await;
        let lease = claim(&replicas[0], call.edit_key).await.lease;
        let (submitter, canceller) = (replicas[0].clone(), replicas[1].clone());
        let works: Vec<BoxFuture<'static, bool>> = vec![
            async move { begin(&submitter, lease).await }.boxed(),
            async move {
                canceller.cancel_task(&id, EVENT_IN).await.unwrap();
                false
            }
            .boxed(),
        ];
        let began = at_once(works).await.contains(&true);
        let state = db.state(call.edit_key).await;
        match began {
            true => {
                sent += 1;
                assert_eq!(state, "submitting", "round {round}: what is sent is carried on");
            }
            false => {
                unsent += 1;
                assert_eq!(state, "done", "round {round}: what is not sent is closed");
            }
        }
    }
    println!("sent before the cancel {sent} times, not sent {unsent} times");
    assert!(sent > 0 && unsent > 0, "this was no race");
    db.is_sound().await;
}

async fn tasks_that_share_edits_are_cancelled_at_once_without_a_deadlock(db: Fixture) {
    let replicas = [db.store().await, db.store().await];
    for round in 0..10 {
        let edits: Vec<_> = (0..12).map(|n| edit(&format!("picture {round} {n}"))).collect();
        for n in 0..8 {
            let mut mine: Vec<_> = edits.iter().cycle().skip(n * 5).take(6).map(miss).collect();
            if n % 2 == 0 {
                mine.reverse();
            }
            register(&replicas[0], &task(&format!("t-{round}-{n}"), mine)).await;
        }
        let cancels = (0..8).map(|n| {
            let (store, id) = (replicas[n % 2].clone(), format!("t-{round}-{n}"));
            async move { cancel(&store, &id).await }.boxed()
        });
        for task in at_once(cancels.collect()).await {
            assert_eq!(counts(&task), [0, 0, 0, 6]);
        }
        db.is_settled().await;
    }
}
