//! Tasks: registration, and their end.

use std::time::{Duration, Instant};

use retouch_shared::event::{AnswerSource, ImageStatus, TaskStatus};
use retouch_shared::key::Digest32;
use retouch_worker::store::{Planned, Registered};

use super::fixture::{
    Fixture, PRICE, cached, counts, edit, ended, error, finish, found, hit, keyed, make, make_as, miss,
    register, result_of, task, unreadable, url_of,
};

promises!(
    a_task_of_hits_completes_at_once_and_counts_each_hit_once,
    a_miss_makes_one_call_and_a_second_task_joins_it,
    a_repeat_of_an_image_within_a_task_joins_it,
    finishing_answers_every_image_that_waits_and_ends_their_tasks,
    a_task_ends_with_its_last_edit,
    images_that_fail_make_a_task_partial_or_failed,
    the_same_task_again_is_the_same_and_counts_nothing,
    a_task_id_with_other_content_is_a_conflict,
    a_result_that_came_since_the_look_up_is_a_hit,
    a_result_without_its_blob_is_made_again_with_its_count,
    a_result_that_was_mended_since_the_look_up_is_a_hit,
    a_finished_edit_whose_result_is_forgotten_is_called_again,
    a_result_without_a_waiting_image_is_kept,
    a_thousand_waiters_are_answered_by_one_call,
    a_task_of_many_images_with_the_longest_prompt_is_taken_in,
    a_task_answers_to_its_last_asker,
    looking_up_nothing_finds_nothing,
);

async fn a_task_of_hits_completes_at_once_and_counts_each_hit_once(db: Fixture) {
    let store = db.store().await;
    let (one, two) = (edit("one"), edit("two"));
    register(&store, &task("first", vec![miss(&one), miss(&two)])).await;
    finish(&store, &one).await;
    finish(&store, &two).await;
    let (result_one, result_two) =
        (cached(&store, one.edit_key).await.unwrap(), cached(&store, two.edit_key).await.unwrap());
    assert_eq!(result_one.result_url, url_of(&result_of(&one)));
    assert_eq!((result_one.width, result_one.height, result_one.bytes), (640, 480, 12_345));

    let images = vec![hit(&one, &result_one), hit(&two, &result_two), hit(&one, &result_one)];
    let (answered, wake) = register(&store, &task("second", images)).await;
    assert_eq!((answered.status, counts(&answered)), (TaskStatus::Completed, [3, 0, 0, 0]));
    assert_eq!((answered.paid_micros, answered.saved_micros), (0, 3 * PRICE));
    assert!(wake.is_empty());
    assert_eq!(db.hit_count(one.edit_key).await, 1 + 2);
    assert_eq!(db.hit_count(two.edit_key).await, 1 + 1);
    let event = answered.event(|reference| format!("https://us.example/{reference}")).unwrap();
    let urls: Vec<_> = event.images.iter().map(|image| image.result_url.clone().unwrap()).collect();
    let expected = [&one, &two, &one].map(|call| format!("https://us.example/{}", url_of(&result_of(call))));
    assert_eq!(urls, expected);
    assert_eq!(event.metadata, Some(serde_json::json!({"user_id": "42"})));
    assert!(event.completed_at >= event.received_at);
    db.is_settled().await;
}

async fn a_miss_makes_one_call_and_a_second_task_joins_it(db: Fixture) {
    let store = db.store().await;
    let call = edit("picture");
    let (first, wake) = register(&store, &task("first", vec![miss(&call)])).await;
    assert_eq!((first.status, counts(&first)), (TaskStatus::Processing, [0; 4]));
    assert_eq!(first.images[0].status, ImageStatus::Waiting);
    assert!(first.event(str::to_owned).is_none());
    assert_eq!(wake, [call.edit_key]);
    let (_, wake) = register(&store, &task("second", vec![miss(&call)])).await;
    assert!(wake.is_empty(), "a call that is on its way is not woken again");
    assert_eq!(db.number("SELECT COUNT(*) FROM image_edit_calls").await, 1);

    let ended = finish(&store, &call).await;
    let sources: Vec<_> = ended.iter().map(|task| (&task.task_id[..], task.images[0].source)).collect();
    assert_eq!(sources, [("first", Some(AnswerSource::Paid)), ("second", Some(AnswerSource::Joined))]);
    db.is_settled().await;
}

async fn a_repeat_of_an_image_within_a_task_joins_it(db: Fixture) {
    let store = db.store().await;
    let call = edit("picture");
    let (_, wake) = register(&store, &task("t", vec![miss(&call), miss(&call), miss(&call)])).await;
    assert_eq!(wake, [call.edit_key]);
    let ended = finish(&store, &call).await;
    assert_eq!(counts(&ended[0]), [0, 2, 1, 0]);
    assert_eq!((ended[0].paid_micros, ended[0].saved_micros), (PRICE, 2 * PRICE));
    assert_eq!(db.hit_count(call.edit_key).await, 3);
    db.is_settled().await;
}

async fn finishing_answers_every_image_that_waits_and_ends_their_tasks(db: Fixture) {
    let store = db.store().await;
    let call = edit("picture");
    register(&store, &task("a", vec![miss(&call), miss(&call)])).await;
    register(&store, &task("b", vec![miss(&call)])).await;
    register(&store, &task("c", vec![miss(&call), miss(&call)])).await;
    let ended = finish(&store, &call).await;
    assert_eq!(ended.iter().map(|task| &task.task_id[..]).collect::<Vec<_>>(), ["a", "b", "c"]);
    for (task, expected) in ended.iter().zip([[0, 1, 1, 0], [0, 1, 0, 0], [0, 2, 0, 0]]) {
        assert_eq!((task.status, counts(task)), (TaskStatus::Completed, expected), "{}", task.task_id);
        assert_eq!(task.paid_micros, i64::from(task.paid) * PRICE);
        assert_eq!(task.saved_micros, i64::from(task.joined) * PRICE);
        for image in &task.images {
            assert_eq!(image.result_url.as_deref(), Some(&url_of(&result_of(&call))[..]));
            assert_eq!((image.status, image.width, image.height), (ImageStatus::Done, Some(640), Some(480)));
            assert_eq!(image.image_hash, Some(call.image_hash));
        }
        let read = found(&store, &task.task_id).await;
        assert_eq!((read.images, read.completed_at), (task.images.clone(), task.completed_at));
    }
    assert_eq!(db.hit_count(call.edit_key).await, 5, "images that waited");
    assert_eq!(db.of_call("paid_calls", call.edit_key).await, 1);
    let result = cached(&store, call.edit_key).await.unwrap();
    assert_eq!((result.price, result.result_hash), (call.price.clone(), Some(result_of(&call).hash)));
    db.is_settled().await;
}

async fn a_task_ends_with_its_last_edit(db: Fixture) {
    let store = db.store().await;
    let (one, two) = (edit("one"), edit("two"));
    register(&store, &task("t", vec![miss(&one), miss(&two)])).await;
    assert!(finish(&store, &two).await.is_empty());
    let half = found(&store, "t").await;
    assert_eq!((half.status, counts(&half)), (TaskStatus::Processing, [0, 0, 1, 0]));
    assert_eq!(half.images[0].status, ImageStatus::Waiting);
    assert_eq!(half.images[1].status, ImageStatus::Done);
    db.is_sound().await;
    let ended = finish(&store, &one).await;
    assert_eq!((ended[0].status, counts(&ended[0])), (TaskStatus::Completed, [0, 0, 2, 0]));
    db.is_settled().await;
}

async fn images_that_fail_make_a_task_partial_or_failed(db: Fixture) {
    let store = db.store().await;
    let (bad, good) = (edit("bad"), edit("good"));
    let (failed, _) = register(&store, &task("failed", vec![unreadable(), unreadable()])).await;
    assert_eq!((failed.status, counts(&failed)), (TaskStatus::Failed, [0, 0, 0, 2]));
    assert_eq!(failed.error.as_deref(), Some("404 Not Found"));
    register(&store, &task("partial", vec![miss(&bad), unreadable(), miss(&good)])).await;
    finish(&store, &good).await;
    let lease = super::fixture::claim(&store, bad.edit_key).await.lease;
    let ended =
        ended(store.fail_edit(lease, &error("content_refused", "not this picture"), true).await.unwrap());
    assert_eq!((ended[0].status, counts(&ended[0])), (TaskStatus::Partial, [0, 0, 1, 2]));
    let codes: Vec<_> =
        ended[0].images.iter().map(|image| image.error.as_ref().map(|e| &e.code[..])).collect();
    assert_eq!(codes, [Some("content_refused"), Some("source_not_found"), None]);
    assert_eq!(db.number("SELECT COUNT(*) FROM dead_letters WHERE task_id = 'failed'").await, 1);
    db.is_settled().await;
}

async fn the_same_task_again_is_the_same_and_counts_nothing(db: Fixture) {
    let store = db.store().await;
    let (call, known) = (edit("picture"), edit("known"));
    register(&store, &task("zero", vec![miss(&known)])).await;
    finish(&store, &known).await;
    let result = cached(&store, known.edit_key).await.unwrap();
    let new = task("t", vec![miss(&call), hit(&known, &result), unreadable()]);
    register(&store, &new).await;
    for _ in 0..2 {
        let Registered::Same(same) = store.register(&new).await.unwrap() else { panic!("not the same") };
        assert_eq!((same.total, counts(&same)), (3, [1, 0, 0, 1]));
    }
    assert_eq!(db.hit_count(known.edit_key).await, 2);
    assert_eq!(db.number("SELECT COUNT(*) FROM dead_letters").await, 1);
    finish(&store, &call).await;
    let Registered::Same(same) = store.register(&new).await.unwrap() else { panic!("not the same") };
    assert_eq!((same.status, counts(&same)), (TaskStatus::Partial, [1, 0, 1, 1]));
    assert_eq!(db.state(call.edit_key).await, "done", "the same task starts nothing");
    db.is_settled().await;
}

async fn a_task_id_with_other_content_is_a_conflict(db: Fixture) {
    let store = db.store().await;
    let (call, other) = (edit("picture"), edit("other"));
    register(&store, &task("t", vec![miss(&call)])).await;
    let mut another = task("t", vec![miss(&other)]);
    another.request_hash = Digest32::of(b"another");
    assert!(matches!(store.register(&another).await.unwrap(), Registered::Conflict));
    assert_eq!(db.number("SELECT COUNT(*) FROM image_edit_calls").await, 1, "a conflict leaves nothing");
    assert_eq!(found(&store, "t").await.images[0].image_hash, Some(call.image_hash));
    finish(&store, &call).await;
    db.is_settled().await;
}

async fn a_result_that_came_since_the_look_up_is_a_hit(db: Fixture) {
    let store = db.store().await;
    let call = edit("picture");
    // Looked up before `first` was finished.
    let late = task("late", vec![miss(&call), miss(&call)]);
    register(&store, &task("first", vec![miss(&call)])).await;
    finish(&store, &call).await;
    let (late, wake) = register(&store, &late).await;
    assert_eq!((late.status, counts(&late)), (TaskStatus::Completed, [2, 0, 0, 0]));
    assert!(wake.is_empty());
    assert_eq!(db.hit_count(call.edit_key).await, 3);
    assert_eq!(db.of_call("paid_calls", call.edit_key).await, 1);
    db.is_settled().await;
}

async fn a_result_without_its_blob_is_made_again_with_its_count(db: Fixture) {
    let store = db.store().await;
    let call = edit("picture");
    register(&store, &task("first", vec![miss(&call), miss(&call)])).await;
    finish(&store, &call).await;
    let refused = cached(&store, call.edit_key).await.unwrap().result_hash;
    let again = Planned::Miss { call: Box::new(call.clone()), refused };
    let (_, wake) = register(&store, &task("again", vec![again.clone()])).await;
    assert_eq!(wake, [call.edit_key]);
    // Another one that found the blob missing joins.
    let (_, wake) = register(&store, &task("other", vec![again])).await;
    assert!(wake.is_empty());
    let mut remade = result_of(&call);
    remade.hash = Digest32::of(b"made again");
    remade.width = 999;
    let lease = make_as(&store, &call, &remade).await;
    let ended = ended(store.finish_edit(lease, "remade.png").await.unwrap());
    assert_eq!(ended.iter().map(counts).collect::<Vec<_>>(), [[0, 0, 1, 0], [0, 1, 0, 0]]);
    let result = cached(&store, call.edit_key).await.unwrap();
    assert_eq!((result.result_hash, result.width), (Some(remade.hash), 999));
    assert_eq!(result.result_url, "remade.png");
    assert_eq!(db.hit_count(call.edit_key).await, 2 + 2);
    assert_eq!(db.number("SELECT COUNT(*) FROM image_edit_cache").await, 1);
    assert_eq!(db.of_call("paid_calls", call.edit_key).await, 2);
    db.is_settled().await;
}

async fn a_result_that_was_mended_since_the_look_up_is_a_hit(db: Fixture) {
    let store = db.store().await;
    let call = edit("picture");
    register(&store, &task("first", vec![miss(&call)])).await;
    finish(&store, &call).await;
    // What this one refused is no longer what the row names.
    let refused = Some(Digest32::of(b"what was there before"));
    let image = Planned::Miss { call: Box::new(call.clone()), refused };
    let (late, wake) = register(&store, &task("late", vec![image])).await;
    assert_eq!(counts(&late), [1, 0, 0, 0]);
    assert!(wake.is_empty());
    db.is_settled().await;
}

async fn a_finished_edit_whose_result_is_forgotten_is_called_again(db: Fixture) {
    let store = db.store().await;
    let mut call = edit("picture");
    register(&store, &task("first", vec![miss(&call)])).await;
    finish(&store, &call).await;
    db.execute("DELETE FROM image_edit_cache").await;
    // The price has changed, and the edit goes another way, since.
    call.lane = "another".to_owned();
    call.price.micros = 99;
    let (_, wake) = register(&store, &task("second", vec![miss(&call)])).await;
    assert_eq!(wake, [call.edit_key]);
    let claimed = super::fixture::claim(&store, call.edit_key).await;
    assert_eq!((claimed.spec, claimed.attempts, claimed.result), (call.clone(), 0, None));
    assert_eq!(claimed.provider_task_id, None, "nothing is left of the call before");
    db.expire(call.edit_key).await;
    let ended = finish(&store, &call).await;
    assert_eq!(ended[0].paid_micros, 99);
    db.is_settled().await;
}

async fn a_result_without_a_waiting_image_is_kept(db: Fixture) {
    let store = db.store().await;
    let call = edit("picture");
    register(&store, &task("t", vec![miss(&call)])).await;
    // Sent before its waits were removed: a call without a wait is not sent.
    let lease = make(&store, &call).await;
    db.execute("DELETE FROM image_edit_waits").await;
    db.execute("DELETE FROM image_edit_tasks").await;
    assert!(ended(store.finish_edit(lease, &url_of(&result_of(&call))).await.unwrap()).is_empty());
    assert!(cached(&store, call.edit_key).await.is_some(), "it is paid for");
    assert_eq!(db.hit_count(call.edit_key).await, 1);
    db.is_settled().await;
}

async fn a_thousand_waiters_are_answered_by_one_call(db: Fixture) {
    const WAITERS: usize = 1000;
    let store = db.store().await;
    let (call, last) = (edit("picture"), edit("another picture"));
    let ids: Vec<String> = (0..WAITERS).map(|n| format!("task-{n:04}")).collect();
    for ids in ids.chunks(100) {
        let tasks: Vec<_> = ids.iter().map(|id| task(id, vec![miss(&call); 2])).collect();
        futures::future::join_all(tasks.iter().map(|task| register(&store, task))).await;
    }
    register(&store, &task("unfinished", vec![miss(&call), miss(&last)])).await;
    let lease = make(&store, &call).await;
    let began = Instant::now();
    let ended = ended(store.finish_edit(lease, "url").await.unwrap());
    let took = began.elapsed();
    assert_eq!(ended.iter().map(|task| &task.task_id).collect::<Vec<_>>(), ids.iter().collect::<Vec<_>>());
    assert_eq!(ended.iter().map(|task| task.paid).sum::<u32>(), 1);
    assert_eq!(ended.iter().map(|task| task.joined).sum::<u32>(), 2 * 1000 - 1);
    assert_eq!(db.hit_count(call.edit_key).await, 2 * 1000 + 1);
    assert_eq!(db.of_call("paid_calls", call.edit_key).await, 1);
    // A statement for every task would take its time even here, where no network is in between.
    assert!(took < Duration::from_secs(10), "{took:?}");
    finish(&store, &last).await;
    db.is_settled().await;
}

async fn a_task_of_many_images_with_the_longest_prompt_is_taken_in(db: Fixture) {
    let store = db.store().await;
    // In JSON within JSON a quote takes four bytes, and the picture four anyway.
    let prompt: String = "\"\u{1F642}".repeat(16_000);
    let calls = (0..64).map(|n| {
        let mut call = edit(&format!("picture {n}"));
        call.prompt.clone_from(&prompt);
        keyed(call)
    });
    let calls: Vec<_> = calls.collect();
    let mut new = task("t", calls.iter().map(miss).collect());
    new.prompt.clone_from(&prompt);
    let (_, wake) = register(&store, &new).await;
    assert_eq!(wake.len(), 64);
    let claimed = super::fixture::claim(&store, calls[63].edit_key).await;
    assert_eq!(claimed.spec, calls[63]);
    db.is_sound().await;
}

async fn a_task_answers_to_its_last_asker(db: Fixture) {
    let store = db.store().await;
    let mut new = task("t", vec![unreadable()]);
    new.reply_to = Some("amq.gen-one".to_owned());
    new.correlation_id = Some("1".to_owned());
    let (first, _) = register(&store, &new).await;
    assert_eq!(
        (first.reply_to.as_deref(), first.correlation_id.as_deref()),
        (Some("amq.gen-one"), Some("1"))
    );
    let redirected = store.redirect_reply("t", Some("amq.gen-two"), None).await.unwrap().unwrap();
    assert_eq!((redirected.reply_to.as_deref(), redirected.correlation_id), (Some("amq.gen-two"), None));
    assert!(store.redirect_reply("unknown", None, None).await.unwrap().is_none());
}

async fn looking_up_nothing_finds_nothing(db: Fixture) {
    let store = db.store().await;
    assert!(store.lookup(&[]).await.unwrap().is_empty());
    let call = edit("picture");
    assert!(store.lookup(&[call.edit_key, call.edit_key]).await.unwrap().is_empty());
    assert!(store.find_task("unknown").await.unwrap().is_none());
    register(&store, &task("t", vec![miss(&call)])).await;
    finish(&store, &call).await;
    assert_eq!(store.lookup(&[call.edit_key, call.edit_key]).await.unwrap().len(), 1);
}
