//! Unreadable whole answers: named by their call and its letter, read again before a submit, counted once.

use std::time::{Duration, Instant};

use retouch_shared::key::Digest32;
use retouch_worker::store::{
    CallSpec, ClaimedCall, EditRetry, KeptAnswer, Reopening, Store, StoreError, UNREADABLE_ANSWER,
};

use super::fixture::{Fixture, begin, claim, edit, ended, error, miss, register, result_of, task, url_of};

promises!(
    an_answer_that_was_kept_is_named_and_held_and_counted_once,
    the_outcome_of_a_kept_answer_is_recorded_from_claimed,
    an_answer_whose_blob_is_being_deleted_is_kept_anew,
    only_a_sent_call_is_recorded_without_a_kept_answer,
    the_kept_answer_of_a_forgotten_edit_is_deleted_with_it,
);

fn kept() -> KeptAnswer {
    KeptAnswer { hash: Digest32::of(b"an answer"), content_type: "text/html".to_owned() }
}

fn unreadable() -> retouch_shared::event::ImageError {
    error(UNREADABLE_ANSWER, "the provider answered 200")
}

/// Sent, and answered in a way that could not be read.
async fn unread(store: &Store, call: &CallSpec) {
    register(store, &task("t", vec![miss(call)])).await;
    let lease = claim(store, call.edit_key).await.lease;
    assert!(begin(store, lease).await);
    ended(store.fail_edit_kept(lease, &unreadable(), &kept(), Instant::now()).await.unwrap());
}

/// A person retries it, and a worker claims it.
async fn retried(db: &Fixture, store: &Store, call: &CallSpec) -> ClaimedCall {
    let id = db.number("SELECT id FROM dead_letters").await;
    let letter = store.letters(&[id]).await.unwrap().pop().unwrap();
    let retry = EditRetry::of(&letter).unwrap();
    let reopened = store.reopen_edits(&[retry], &Reopening::default()).await.unwrap();
    assert_eq!(reopened.retried, [id]);
    claim(store, call.edit_key).await
}

async fn an_answer_that_was_kept_is_named_and_held_and_counted_once(db: Fixture) {
    let store = db.store().await;
    let call = edit("picture");
    unread(&store, &call).await;
    let letter = db.number("SELECT id FROM dead_letters").await;
    let letter = store.letters(&[letter]).await.unwrap().pop().unwrap();
    assert_eq!((letter.reason.as_str(), letter.kept), (UNREADABLE_ANSWER, Some(kept())));
    assert_eq!(store.named_blobs(&[kept().hash].into()).await.unwrap().len(), 1);
    // Another task brings the edit again: it is held, and its answer is at hand.
    register(&store, &task("other", vec![miss(&call)])).await;
    let again = claim(&store, call.edit_key).await;
    assert_eq!((again.held.as_deref(), &again.answer), (Some(UNREADABLE_ANSWER), &Some(kept())));
    ended(store.fail_edit_kept(again.lease, &unreadable(), &kept(), Instant::now()).await.unwrap());
    assert_eq!(db.of_call("paid_calls", call.edit_key).await, 1);
    assert!(store.calls_of_letters(&[call.edit_key]).await.unwrap()[0].answer);
    db.is_settled().await;
}

async fn the_outcome_of_a_kept_answer_is_recorded_from_claimed(db: Fixture) {
    let store = db.store().await;
    let (bytes, polled) = (edit("bytes"), edit("polled"));
    for call in [&bytes, &polled] {
        unread(&store, call).await;
        let claimed = retried(&db, &store, call).await;
        assert_eq!((claimed.held, claimed.answer), (None, Some(kept())), "a person has decided");
        let (lease, result) = (claimed.lease, result_of(call));
        if call == &bytes {
            assert!(store.record_stored(lease, &result, Duration::ZERO).await.unwrap());
            ended(store.finish_edit(lease, &url_of(&result)).await.unwrap());
        } else {
            assert!(store.record_submitted(lease, "id").await.unwrap());
            let finished =
                store.store_and_finish(lease, call, &result, Instant::now(), &url_of(&result)).await;
            ended(finished.unwrap());
        }
        assert_eq!(db.state(call.edit_key).await, "done");
        assert_eq!(db.of_call("paid_calls", call.edit_key).await, 1, "counted when it was kept");
        let left = "SELECT COUNT(*) FROM image_edit_calls WHERE answer_hash IS NOT NULL OR held IS NOT NULL";
        assert_eq!(db.number(left).await, 0);
        db.execute("DELETE FROM dead_letters").await;
        db.execute("DELETE FROM image_edit_tasks").await;
    }
}

async fn an_answer_whose_blob_is_being_deleted_is_kept_anew(db: Fixture) {
    let store = db.store().await;
    let call = edit("picture");
    register(&store, &task("t", vec![miss(&call)])).await;
    let lease = claim(&store, call.edit_key).await.lease;
    assert!(begin(&store, lease).await);
    store.drop_blobs(&[kept().hash].into()).await.unwrap();
    let refused = store.fail_edit_kept(lease, &unreadable(), &kept(), Instant::now()).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    assert_eq!(db.state(call.edit_key).await, "submitting");
}

async fn only_a_sent_call_is_recorded_without_a_kept_answer(db: Fixture) {
    let store = db.store().await;
    let call = edit("picture");
    register(&store, &task("t", vec![miss(&call)])).await;
    let lease = claim(&store, call.edit_key).await.lease;
    assert!(!store.record_submitted(lease, "id").await.unwrap());
    assert!(!store.record_stored(lease, &result_of(&call), Duration::ZERO).await.unwrap());
    assert_eq!(db.state(call.edit_key).await, "claimed");
}

async fn the_kept_answer_of_a_forgotten_edit_is_deleted_with_it(db: Fixture) {
    let store = db.store().await;
    let call = edit("picture");
    unread(&store, &call).await;
    store.forget_edits(&[call.edit_key]).await.unwrap();
    assert_eq!(db.number("SELECT COUNT(*) FROM dead_letters WHERE kept_blob IS NOT NULL").await, 0);
    assert_eq!(store.still_dropped(&[kept().hash].into()).await.unwrap(), 1);
    assert!(store.claim_dropped(10).await.unwrap().1.contains(&kept().hash));
}
