//! Queries of `retouch top`: right, and limited to the rows that they need.

use std::time::Duration;

use retouch_worker::overview::Watcher;
use retouch_worker::store::{DeadLetter, DeadPayload, LanePolicy, Properties, Tally};

use super::fixture::{Fixture, PRICE, cached, edit, finish, hit, miss, register, task, unreadable};

promises!(
    images_and_money_are_summed_by_minute_hour_and_start,
    a_minute_that_is_read_again_is_counted_once,
    lanes_and_failures_are_shown_as_they_stand,
);

async fn images_and_money_are_summed_by_minute_hour_and_start(db: Fixture) {
    let store = db.store().await;
    let call = edit("picture");
    register(&store, &task("zero", vec![miss(&call), miss(&call)])).await;
    finish(&store, &call).await;
    let mut watcher = Watcher::new(store.clone(), None);
    let first = watcher.look().await.unwrap().images;
    assert_eq!((first.minute.joined, first.minute.paid, first.since), (1, 1, None));
    assert_eq!(first.hour, first.minute);
    assert_eq!((first.hour.money[0].paid.as_str(), first.hour.money[0].saved.as_str()), ("0.14", "0.14"));

    // After two hours it belongs to no span.
    let old = "UPDATE image_edit_tasks SET completed_at = '2020-01-01 00:00:00.000' WHERE task_id = 'zero'";
    db.execute(old).await;
    let result = cached(&store, call.edit_key).await.unwrap();
    register(&store, &task("one", vec![hit(&call, &result), hit(&call, &result), unreadable()])).await;
    let then = watcher.look().await.unwrap().images;
    assert_eq!((then.minute.hit, then.minute.failed, then.minute.hit_percent), (2, 1, Some(100)));
    assert_eq!((then.hour.hit, then.hour.paid), (2, 0));
    assert_eq!(then.since.unwrap().answers.hit, 2);

    let lately = store.ended_lately(Duration::from_secs(60)).await.unwrap();
    let tally =
        Tally { currency: "CNY".to_owned(), hit: 2, failed: 1, saved_micros: 2 * PRICE, ..Tally::default() };
    assert_eq!(lately, [tally]);
}

async fn a_minute_that_is_read_again_is_counted_once(db: Fixture) {
    let store = db.store().await;
    let clock = store.clock().await.unwrap();
    let mut watcher = Watcher::new(store.clone(), None);
    watcher.look().await.unwrap();
    register(&store, &task("t", vec![unreadable()])).await;
    assert_eq!(watcher.look().await.unwrap().images.since.unwrap().answers.failed, 1);
    let again = store.clock().await.unwrap();
    assert!((0..=1).contains(&(again.minute - clock.minute)) && again.now >= clock.now);
    // A look that reads the same minute again counts it once.
    for _ in 0..3 {
        let images = watcher.look().await.unwrap().images;
        assert_eq!((images.hour.failed, images.since.unwrap().answers.failed), (1, 1));
    }
}

async fn lanes_and_failures_are_shown_as_they_stand(db: Fixture) {
    let store = db.store().await;
    store
        .declare_lane("lane", &LanePolicy { max_in_flight: Some(3), ..LanePolicy::default() })
        .await
        .unwrap();
    register(&store, &task("t", vec![miss(&edit("a")), miss(&edit("b"))])).await;
    store.pause_lane("lane").await.unwrap();
    for n in 0..10u8 {
        let letter = DeadLetter {
            letter_key: retouch_shared::key::Digest32::of(&[n]),
            queue: "tasks".to_owned(),
            reason: format!("reason-{n}"),
            message: "first line\nsecond".to_owned(),
            payload: DeadPayload::Inline("{}".into()),
            kept: None,
            headers: std::collections::BTreeMap::new(),
            attempts: 1,
            task_id: None,
            edit_key: None,
            edit_type: None,
            properties: Properties::default(),
            again: None,
            settled: false,
        };
        store.archive(&letter).await.unwrap();
    }
    let seen = Watcher::new(store.clone(), None).look().await.unwrap();
    assert_eq!(
        (seen.lanes[0].state, seen.lanes[0].queued, seen.lanes[0].max_in_flight),
        ("paused", 2, Some(3))
    );
    let known = store.lanes().await.unwrap();
    assert_eq!(known[0].queued, seen.lanes[0].queued);
    assert_eq!((seen.failures.open, seen.failures.more, seen.failures.last.len()), (10, false, 8));
    let last = &seen.failures.last[0];
    assert_eq!(
        (last.reason.as_str(), last.message.as_str(), last.state.as_str()),
        ("reason-9", "first line", "open")
    );
    let queues: Vec<_> = seen.queues.iter().map(|queue| queue.name.as_str()).collect();
    assert_eq!(queues, ["tasks", "edits.lane", "dead"]);
    assert_eq!(seen.queues[0].error.as_deref(), Some("no broker"));
}
