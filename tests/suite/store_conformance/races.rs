//! Races: concurrent steps on two replicas, started by a barrier.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, join_all};
use retouch_shared::event::TaskStatus;
use retouch_worker::store::{CallSpec, Claim, Finished, Registered, Store};
use tokio::sync::Barrier;

use super::fixture::{
    Fixture, LONG, begin, cached, claim, counts, edit, finish, found, hit, make, miss, register, result_of,
    task, url_of,
};

promises!(
    a_register_that_races_a_finish_is_answered_and_pays_nothing,
    a_register_racing_a_failure_is_answered_or_starts_a_call,
    the_same_task_registered_at_once_is_new_once_and_counted_once,
    hits_counted_at_once_are_all_counted,
    tasks_that_want_overlapping_edits_at_once_all_end,
    a_step_cancelled_at_any_moment_leaves_no_transaction_open,
    a_step_cancelled_on_a_new_connection_returns_its_place,
);

/// Runs these at the same moment.
pub(super) async fn at_once<T: Send + 'static>(works: Vec<BoxFuture<'static, T>>) -> Vec<T> {
    let barrier = Arc::new(Barrier::new(works.len()));
    let works = works.into_iter().map(|work| {
        let barrier = barrier.clone();
        tokio::spawn(async move {
            barrier.wait().await;
            work.await
        })
    });
    join_all(works.collect::<Vec<_>>()).await.into_iter().map(Result::unwrap).collect()
}

async fn a_register_that_races_a_finish_is_answered_and_pays_nothing(db: Fixture) {
    const ROUNDS: usize = 60;
    const LATE: usize = 4;
    let replicas = [db.store().await, db.store().await];
    let (mut joined, mut hits) = (0, 0);
    for round in 0..ROUNDS {
        let call = edit(&format!("picture {round}"));
        register(&replicas[0], &task(&format!("first-{round}"), vec![miss(&call)])).await;
        let lease = make(&replicas[0], &call).await;
        let finisher = replicas[0].clone();
        let url = url_of(&result_of(&call));
        let mut works: Vec<BoxFuture<'static, usize>> = vec![
            async move {
                assert!(matches!(finisher.finish_edit(lease, &url).await.unwrap(), Finished::Ended(_)));
                0
            }
            .boxed(),
        ];
        for late in 0..LATE {
            let store = replicas[1].clone();
            let task = task(&format!("late-{round}-{late}"), vec![miss(&call)]);
            works.push(async move { register(&store, &task).await.1.len() }.boxed());
        }
        assert_eq!(at_once(works).await.into_iter().sum::<usize>(), 0, "no task starts another call");
        for late in 0..LATE {
            let late = found(&replicas[0], &format!("late-{round}-{late}")).await;
            assert_eq!(late.status, TaskStatus::Completed, "a lost wake-up in round {round}");
            joined += late.joined;
            hits += late.hit;
        }
        assert_eq!(db.of_call("paid_calls", call.edit_key).await, 1);
        assert_eq!(db.hit_count(call.edit_key).await, 1 + i64::try_from(LATE).unwrap());
    }
    assert!(joined > 0 && hits > 0, "{joined} came before the finish and {hits} after it: this was no race");
    db.is_settled().await;
}

async fn a_register_racing_a_failure_is_answered_or_starts_a_call(db: Fixture) {
    let replicas = [db.store().await, db.store().await];
    for round in 0..30 {
        let call = edit(&format!("picture {round}"));
        register(&replicas[0], &task(&format!("first-{round}"), vec![miss(&call)])).await;
        let lease = super::fixture::claim(&replicas[0], call.edit_key).await.lease;
        let failer = replicas[0].clone();
        let late = task(&format!("late-{round}"), vec![miss(&call)]);
        let registrar = replicas[1].clone();
        let works: Vec<BoxFuture<'static, usize>> = vec![
            async move {
                failer.fail_edit(lease, &super::fixture::error("refused", "no"), true).await.unwrap();
                0
            }
            .boxed(),
            async move { register(&registrar, &late).await.1.len() }.boxed(),
        ];
        let woken: usize = at_once(works).await.into_iter().sum();
        db.is_sound().await;
        let late = found(&replicas[0], &format!("late-{round}")).await;
        match woken {
            0 => assert_eq!(late.status, TaskStatus::Failed),
            _ => assert_eq!(counts(&finish(&replicas[0], &call).await[0]), [0, 0, 1, 0]),
        }
    }
    db.is_settled().await;
}

async fn the_same_task_registered_at_once_is_new_once_and_counted_once(db: Fixture) {
    let replicas = [db.store().await, db.store().await];
    let known = edit("known");
    register(&replicas[0], &task("zero", vec![miss(&known)])).await;
    finish(&replicas[0], &known).await;
    let result = cached(&replicas[0], known.edit_key).await.unwrap();
    for round in 0..20i64 {
        let images = vec![hit(&known, &result), miss(&edit(&format!("picture {round}")))];
        // Every other round has nothing to lock but the task itself.
        let images = if round % 2 == 0 { images } else { images[..1].to_vec() };
        let new = task(&format!("task-{round}"), images);
        let works = (0..6).map(|n| {
            let (store, new) = (replicas[n % 2].clone(), new.clone());
            async move {
                match store.register(&new).await.unwrap() {
                    Registered::New { .. } => true,
                    Registered::Same(_) => false,
                    other @ (Registered::Conflict | Registered::Gone) => panic!("{other:?}"),
                }
            }
            .boxed()
        });
        let new = at_once(works.collect()).await;
        assert_eq!(new.iter().filter(|new| **new).count(), 1);
        assert_eq!(db.hit_count(known.edit_key).await, 1 + 1 + round);
    }
    db.is_sound().await;
}

async fn hits_counted_at_once_are_all_counted(db: Fixture) {
    let replicas = [db.store().await, db.store().await];
    let edits: Vec<_> = (0..6).map(|n| edit(&format!("picture {n}"))).collect();
    register(&replicas[0], &task("zero", edits.iter().map(miss).collect())).await;
    let mut results = Vec::new();
    for call in &edits {
        finish(&replicas[0], call).await;
        results.push(cached(&replicas[0], call.edit_key).await.unwrap());
    }
    let works = (0..40).map(|n| {
        let mut images: Vec<_> = edits.iter().zip(&results).map(|(call, result)| hit(call, result)).collect();
        // Each task has them in another order.
        images.rotate_left(n % 6);
        if n % 2 == 0 {
            images.reverse();
        }
        let (store, task) = (replicas[n % 2].clone(), task(&format!("task-{n}"), images));
        async move { counts(&register(&store, &task).await.0) }.boxed()
    });
    for answered in at_once(works.collect()).await {
        assert_eq!(answered, [6, 0, 0, 0]);
    }
    for call in &edits {
        assert_eq!(db.hit_count(call.edit_key).await, 1 + 40);
    }
    db.is_settled().await;
}

async fn tasks_that_want_overlapping_edits_at_once_all_end(db: Fixture) {
    const TASKS: usize = 8;
    let replicas = [db.store().await, db.store().await];
    for round in 0..10 {
        let edits: Vec<_> = (0..12).map(|n| edit(&format!("picture {round} {n}"))).collect();
        let works = (0..TASKS).map(|n| {
            // Half of the edits each, from another place on and in another direction.
            let mut mine: Vec<_> = edits.iter().cycle().skip(n * 5).take(6).cloned().collect();
            if n % 2 == 0 {
                mine.reverse();
            }
            let store = replicas[n % 2].clone();
            let new = task(&format!("task-{round}-{n}"), mine.iter().map(miss).collect());
            async move {
                let (_, wake) = register(&store, &new).await;
                let mine = mine.into_iter().filter(|call| wake.contains(&call.edit_key));
                join_all(mine.map(|call| perform(store.clone(), call))).await;
                wake.len()
            }
            .boxed()
        });
        let calls: usize = at_once(works.collect()).await.into_iter().sum();
        let wanted = db.number("SELECT COUNT(*) FROM image_edit_cache").await;
        assert_eq!(db.number("SELECT COUNT(*) FROM image_edit_calls WHERE paid_calls = 1").await, wanted);
        assert!(calls <= edits.len(), "an edit was called twice");
        db.is_settled().await;
        for n in 0..TASKS {
            let task = found(&replicas[0], &format!("task-{round}-{n}")).await;
            assert_eq!((task.status, task.failed), (TaskStatus::Completed, 0), "{}", task.task_id);
        }
    }
}

async fn perform(store: Store, call: CallSpec) {
    let Claim::Won(claimed) = store.claim_call(call.edit_key, "tester", LONG).await.unwrap() else {
        panic!("another task owns a call that this task woke")
    };
    let result = result_of(&call);
    assert!(begin(&store, claimed.lease).await);
    assert!(store.record_stored(claimed.lease, &result, Duration::ZERO).await.unwrap());
    let finished = store.finish_edit(claimed.lease, &url_of(&result)).await.unwrap();
    assert!(matches!(finished, Finished::Ended(_)));
}

/// A caller may be dropped while it waits for a step: at shutdown, or when its lease is lost. Other steps on
/// the same connections are committed all the same.
async fn a_step_cancelled_at_any_moment_leaves_no_transaction_open(db: Fixture) {
    let store = db.store().await;
    let call = edit("picture");
    register(&store, &task("t", vec![miss(&call)])).await;
    let lease = claim(&store, call.edit_key).await.lease;
    for round in 0..400 {
        // Dropped after so many steps of its own, wherever that is in its transaction.
        let mut step = Box::pin(store.begin_submit(lease, &call.price));
        for _ in 0..round % 40 {
            if futures::poll!(&mut step).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(step);
        let lane = format!("lane-{round}");
        store.declare_lane(&lane, &retouch_worker::store::LanePolicy::default()).await.unwrap();
        let seen = db.number(&format!("SELECT COUNT(*) FROM lanes WHERE name = '{lane}'")).await;
        assert_eq!(seen, 1, "round {round}: a step that was answered is not there");
    }
}

/// A connection prepares each statement once, at its first use: broken off in the middle of that, it must not keep its place of
/// the pool for ever.
async fn a_step_cancelled_on_a_new_connection_returns_its_place(db: Fixture) {
    let call = edit("picture");
    let store = db.store().await;
    register(&store, &task("t", vec![miss(&call)])).await;
    let lease = claim(&store, call.edit_key).await.lease;
    for answers in 0..40 {
        let store = db.open_with(1);
        // Connected, and nothing of the step prepared.
        store.schema_state().await.unwrap();
        let mut step = Box::pin(store.begin_submit(lease, &call.price));
        // Dropped when it has been woken so many times, each time by something that the database sent.
        let mut left = answers;
        poll_fn(|context| match step.poll_unpin(context) {
            Poll::Pending if left > 0 => {
                left -= 1;
                Poll::Pending
            }
            Poll::Pending | Poll::Ready(_) => Poll::Ready(()),
        })
        .await;
        drop(step);
        store.lanes().await.unwrap_or_else(|error| panic!("dropped after {answers} answers: {error}"));
        store.close().await;
    }
}
