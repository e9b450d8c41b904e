//! Eviction and verification in the store: the permitted entries, and their amount.

use std::time::Duration;

use retouch_worker::store::{Aged, Candidate, Store, ToVerify, Verified};

use super::fixture::{Fixture, cached, claim, edit, finish, hit, make, miss, register, result_of, task};

promises!(
    two_replicas_make_room_once,
    an_entry_served_since_its_selection_stays,
    an_entry_with_a_call_under_way_stays,
    the_total_follows_additions_and_removals,
    an_entry_without_its_blob_is_removed_unless_in_use,
    one_replica_at_a_time_takes_up_a_chore,
);

/// The size of every result of the fixture.
const BYTES: u64 = 12_345;

async fn filled(store: &Store, entries: usize) {
    for n in 0..entries {
        let call = edit(&format!("picture {n}"));
        register(store, &task(&format!("task {n}"), vec![miss(&call)])).await;
        finish(store, &call).await;
    }
}

async fn all(store: &Store) -> Vec<Candidate> {
    store.aged_entries(Aged::Hit, Duration::ZERO, Duration::ZERO, 1000).await.unwrap()
}

/// Makes every entry a moment old.
async fn a_moment_later(db: &Fixture) {
    db.execute("UPDATE image_edit_cache SET last_hit_at = '2024-01-01 00:00:00.000', created_at = '2023-01-01 00:00:00.000'").await;
}

async fn two_replicas_make_room_once(db: Fixture) {
    let (store, other) = (db.store().await, db.open());
    filled(&store, 12).await;
    a_moment_later(&db).await;
    let candidates = all(&store).await;
    assert_eq!(candidates.len(), 12);
    let most = Some(8 * BYTES);
    let reversed: Vec<Candidate> = candidates.iter().rev().cloned().collect();
    let (one, two) = tokio::join!(store.evict(&candidates, most), other.evict(&reversed, most));
    let gone = one.unwrap().gone.len() + two.unwrap().gone.len();
    assert_eq!(gone, 4, "as much as had to go, by both together");
    assert_eq!(db.number("SELECT COUNT(*) FROM image_edit_cache").await, 8);
    assert_eq!(db.number("SELECT COUNT(*) FROM image_edit_gone WHERE reason = 'evicted'").await, 4);
    assert_eq!(store.cache_bytes().await.unwrap(), 8 * BYTES);
    assert_eq!(store.claim_dropped(100).await.unwrap().1.len(), 4, "their blobs are to go");
}

async fn an_entry_served_since_its_selection_stays(db: Fixture) {
    let store = db.store().await;
    filled(&store, 2).await;
    a_moment_later(&db).await;
    let candidates = all(&store).await;
    let call = edit("picture 0");
    let result = cached(&store, call.edit_key).await.unwrap();
    register(&store, &task("again", vec![hit(&call, &result)])).await;
    let gone = store.evict(&candidates, None).await.unwrap().gone;
    assert_eq!(gone.len(), 1);
    assert!(cached(&store, call.edit_key).await.is_some());
}

async fn an_entry_with_a_call_under_way_stays(db: Fixture) {
    let store = db.store().await;
    filled(&store, 1).await;
    a_moment_later(&db).await;
    let call = edit("picture 0");
    let refused = Some(result_of(&call).hash);
    let lost = retouch_worker::store::Planned::Miss { call: Box::new(call.clone()), refused };
    register(&store, &task("blob lost", vec![lost])).await;
    assert!(store.evict(&all(&store).await, None).await.unwrap().gone.is_empty());
    claim(&store, call.edit_key).await;
    assert!(store.evict(&all(&store).await, None).await.unwrap().gone.is_empty());
    assert!(cached(&store, call.edit_key).await.is_some());
}

async fn the_total_follows_additions_and_removals(db: Fixture) {
    let store = db.store().await;
    assert_eq!(store.cache_bytes().await.unwrap(), 0);
    filled(&store, 3).await;
    assert_eq!(store.cache_bytes().await.unwrap(), 3 * BYTES);
    a_moment_later(&db).await;
    let evicted = store.evict(&all(&store).await[..1], None).await.unwrap();
    assert_eq!(evicted.total, 2 * BYTES);
    // Deletions beside an eviction show at once: otherwise the next one would evict too much.
    store.forget_edits(&[all(&store).await[0].edit_key]).await.unwrap();
    assert_eq!(store.cache_bytes().await.unwrap(), BYTES);
    // And now and then all is counted anew, whatever changed it.
    db.execute("UPDATE image_edit_cache SET bytes = bytes + 1").await;
    assert_eq!(store.cache_bytes().await.unwrap(), BYTES);
    db.execute("UPDATE cache_chores SET counted_at = '2020-01-01 00:00:00.000'").await;
    assert_eq!(store.cache_bytes().await.unwrap(), BYTES + 1);
    let sampled = store.sample_entries(&[0.0, 0.5, 0.99], 10, Duration::ZERO).await.unwrap();
    assert_eq!(sampled.len(), 1);
    assert!(store.sample_entries(&[0.0], 10, Duration::from_secs(1 << 31)).await.unwrap().is_empty());
    let made = store.aged_entries(Aged::Made, Duration::from_secs(60), Duration::ZERO, 10).await.unwrap();
    assert_eq!(made.len(), 1);
}

async fn an_entry_without_its_blob_is_removed_unless_in_use(db: Fixture) {
    let store = db.store().await;
    filled(&store, 2).await;
    let before = store.verify_before(Duration::from_secs(60)).await.unwrap();
    assert_eq!(store.count_to_verify(&before).await.unwrap(), 2);
    let entries = store.next_to_verify(&before, 10).await.unwrap();
    store.mark_verified(&[entries[0].edit_key]).await.unwrap();
    store.correct_bytes(&entries[0], 7).await.unwrap();
    assert_eq!(store.count_to_verify(&before).await.unwrap(), 1);
    let verified = store.next_to_verify("2999-01-01 00:00:00.000", 10).await.unwrap();
    assert_eq!(
        verified.iter().map(|entry| entry.bytes).collect::<Vec<_>>(),
        [BYTES, 7],
        "the fresh one last"
    );
    let another = ToVerify { hash: verified[1].hash, ..verified[0].clone() };
    assert_eq!(store.remove_unusable(&another).await.unwrap(), Verified::Changed);
    assert_eq!(store.remove_unusable(&verified[0]).await.unwrap(), Verified::Removed);
    assert_eq!(store.remove_unusable(&verified[0]).await.unwrap(), Verified::Changed);
    let gone =
        "SELECT COUNT(*) FROM image_edit_gone WHERE reason = 'blob_missing' AND image_hash IS NOT NULL";
    assert_eq!(db.number(gone).await, 1);
    let call =
        [edit("picture 0"), edit("picture 1")].into_iter().find(|call| call.edit_key == verified[0].edit_key);
    let call = call.unwrap();
    register(&store, &task("again", vec![miss(&call)])).await;
    store.blobs_deleted(&store.claim_dropped(10).await.unwrap().1).await.unwrap();
    db.execute("UPDATE dropped_blobs SET deleted_at = '2020-01-01 00:00:00.000'").await;
    let lease = make(&store, &call).await;
    store.finish_edit(lease, "url").await.unwrap();
    assert_eq!(db.number("SELECT COUNT(*) FROM image_edit_gone").await, 0);
}

async fn one_replica_at_a_time_takes_up_a_chore(db: Fixture) {
    let (store, other) = (db.store().await, db.open());
    let minute = Duration::from_secs(60);
    let taken =
        tokio::join!(store.take_chore("sweep_blobs", minute), other.take_chore("sweep_blobs", minute));
    assert_eq!(u8::from(taken.0.unwrap().is_some()) + u8::from(taken.1.unwrap().is_some()), 1);
    store.end_chore("sweep_blobs", "7f", Duration::ZERO).await.unwrap();
    assert_eq!(other.take_chore("sweep_blobs", minute).await.unwrap().as_deref(), Some("7f"));
    assert_eq!(store.take_chore("sweep_blobs", minute).await.unwrap(), None);
}
