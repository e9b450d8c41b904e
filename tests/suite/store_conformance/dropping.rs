//! Deletion of blobs: no blob that a row names is deleted, and no row is written that names a blob being
//! deleted.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use retouch_shared::key::Digest32;
use retouch_worker::store::StoreError;

use super::fixture::{Fixture, begin, claim, edit, make, miss, register, result_of, task};

promises!(
    a_blob_named_by_a_row_is_kept_and_its_mark_removed,
    a_task_waits_until_its_deleted_picture_is_stored_again,
    a_result_being_deleted_is_recorded_after_it_is_stored_again,
    two_who_delete_never_take_the_same_blob,
);

async fn a_blob_named_by_a_row_is_kept_and_its_mark_removed(db: Fixture) {
    let store = db.store().await;
    let call = edit("picture");
    register(&store, &task("t", vec![miss(&call)])).await;
    let (input, result, unnamed_blob) =
        (call.image_hash, result_of(&call).hash, Digest32::of(b"unreferenced"));
    let all = BTreeSet::from([input, result, unnamed_blob]);
    store.drop_blobs(&all).await.unwrap();
    // Its input is named while the call is not over.
    let (looked_at, unnamed) = store.claim_dropped(10).await.unwrap();
    assert_eq!((looked_at, unnamed.contains(&input), unnamed.contains(&result)), (3, false, true));
    store.blobs_deleted(&unnamed).await.unwrap();
    db.execute("UPDATE dropped_blobs SET deleted_at = '2020-01-01 00:00:00.000'").await;
    let lease = make(&store, &call).await;
    store.finish_edit(lease, "url").await.unwrap();
    // Its result is named from then on, and its input no more.
    store.drop_blobs(&all).await.unwrap();
    let (_, unnamed) = store.claim_dropped(10).await.unwrap();
    assert_eq!(unnamed, BTreeSet::from([input, unnamed_blob]));
    assert_eq!(store.still_dropped(&all).await.unwrap(), 2);
    store.blobs_deleted(&unnamed).await.unwrap();
    assert_eq!(store.still_dropped(&all).await.unwrap(), 0);
    let told = "SELECT COUNT(*) FROM dropped_blobs WHERE hash IS NOT NULL";
    assert_eq!(db.number(told).await, 0, "a mark of what is gone does not tell what it was");
}

async fn a_task_waits_until_its_deleted_picture_is_stored_again(db: Fixture) {
    let store = db.store().await;
    let call = edit("picture");
    let held = task("t", vec![miss(&call)]);
    store.drop_blobs(&[call.image_hash].into()).await.unwrap();
    assert!(matches!(store.register(&held).await, Err(StoreError::Unavailable(_))));
    let (_, unnamed) = store.claim_dropped(10).await.unwrap();
    assert!(matches!(store.register(&held).await, Err(StoreError::Unavailable(_))));
    store.blobs_deleted(&unnamed).await.unwrap();
    // It was begun before the blob went.
    let began = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
    let before = retouch_worker::store::NewTask { began, ..held.clone() };
    assert!(matches!(store.register(&before).await, Err(StoreError::Unavailable(_))));
    db.execute("UPDATE dropped_blobs SET deleted_at = '2020-01-01 00:00:00.000'").await;
    register(&store, &held).await;
    assert_eq!(store.named_blobs(&[call.image_hash].into()).await.unwrap().len(), 1);
}

async fn a_result_being_deleted_is_recorded_after_it_is_stored_again(db: Fixture) {
    let store = db.store().await;
    let call = edit("picture");
    register(&store, &task("t", vec![miss(&call)])).await;
    let lease = claim(&store, call.edit_key).await.lease;
    assert!(begin(&store, lease).await);
    let result = result_of(&call);
    store.drop_blobs(&[result.hash].into()).await.unwrap();
    let refused = store.record_stored(lease, &result, Duration::ZERO).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))));
    let refused = store.store_and_finish(lease, &call, &result, Instant::now(), "url").await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))));
    assert_eq!(db.state(call.edit_key).await, "submitting");
    let (_, unnamed) = store.claim_dropped(10).await.unwrap();
    store.blobs_deleted(&unnamed).await.unwrap();
    let refused = store.record_stored(lease, &result, Duration::from_secs(5)).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))));
    let began = Instant::now().checked_sub(Duration::from_secs(5)).unwrap();
    let refused = store.store_and_finish(lease, &call, &result, began, "url").await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))));
    assert_eq!(db.number("SELECT COUNT(*) FROM image_edit_cache").await, 0);
    db.execute("UPDATE dropped_blobs SET deleted_at = '2020-01-01 00:00:00.000'").await;
    assert!(store.record_stored(lease, &result, Duration::ZERO).await.unwrap());
}

async fn two_who_delete_never_take_the_same_blob(db: Fixture) {
    let (store, other) = (db.store().await, db.open());
    let hashes: BTreeSet<Digest32> = (0..50).map(|n| Digest32::of(format!("{n}").as_bytes())).collect();
    store.drop_blobs(&hashes).await.unwrap();
    let (one, two) = tokio::join!(store.claim_dropped(30), other.claim_dropped(30));
    let (one, two) = (one.unwrap().1, two.unwrap().1);
    assert!(one.is_disjoint(&two));
    // A blob that one replica could not delete is taken by the other.
    store.blobs_not_deleted(&one).await.unwrap();
    other.blobs_deleted(&two).await.unwrap();
    let (_, rest) = other.claim_dropped(100).await.unwrap();
    assert_eq!(rest.len() + two.len(), 50);
    assert!(rest.is_superset(&one));
}
