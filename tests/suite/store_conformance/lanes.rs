//! Lanes: how many calls are in flight, over all replicas.

use futures::future::join_all;
use retouch_shared::key::EditKey;
use retouch_worker::store::{Claim, Store};

use super::fixture::{Fixture, LONG, claim, edit, ended, error, miss, register, task};

promises!(
    a_lane_holds_no_more_calls_than_it_may,
    a_lane_without_a_limit_is_never_full,
    a_lane_has_room_again_when_a_call_leaves_it_or_its_owner_dies,
    polling_on_does_not_wait_for_a_full_lane,
    lanes_do_not_hold_each_other_up,
);

/// Calls of one lane that wait for an owner.
async fn queued(store: &Store, lane: &str, calls: usize) -> Vec<EditKey> {
    let calls = (0..calls).map(|n| {
        let mut call = edit(&format!("{lane} {n}"));
        call.lane = lane.to_owned();
        call
    });
    let calls: Vec<_> = calls.collect();
    register(store, &task(&format!("task-of-{lane}"), calls.iter().map(miss).collect())).await;
    calls.iter().map(|call| call.edit_key).collect()
}

/// Claims all of them at the same time, on two replicas. Returns the winners.
async fn claim_all(replicas: &[Store; 2], keys: &[EditKey]) -> Vec<EditKey> {
    let claims = keys.iter().enumerate().map(|(n, &key)| {
        let store = replicas[n % 2].clone();
        tokio::spawn(async move { (key, store.claim_call(key, "tester", LONG).await.unwrap()) })
    });
    let mut won = Vec::new();
    for claim in join_all(claims.collect::<Vec<_>>()).await {
        match claim.unwrap() {
            (key, Claim::Won(_)) => won.push(key),
            (_, Claim::LaneFull) => {}
            other => panic!("{other:?}"),
        }
    }
    won
}

async fn a_lane_holds_no_more_calls_than_it_may(db: Fixture) {
    let replicas = [db.store().await, db.store().await];
    replicas[0].declare_lane("narrow", Some(5)).await.unwrap();
    replicas[1].declare_lane("narrow", Some(3)).await.unwrap();
    let keys = queued(&replicas[0], "narrow", 24).await;
    assert_eq!(claim_all(&replicas, &keys).await.len(), 3, "the last word counts");
    // What was turned away is as it was.
    assert_eq!(db.number("SELECT COUNT(*) FROM image_edit_calls WHERE state = 'queued'").await, 21);
    replicas[0].declare_lane("narrow", Some(0)).await.unwrap();
    assert!(matches!(
        replicas[0].claim_call(keys[23], "x", LONG).await.unwrap(),
        Claim::LaneFull | Claim::Held { .. }
    ));
}

async fn a_lane_without_a_limit_is_never_full(db: Fixture) {
    let replicas = [db.store().await, db.store().await];
    replicas[0].declare_lane("declared", Some(1)).await.unwrap();
    replicas[0].declare_lane("declared", None).await.unwrap();
    for lane in ["declared", "undeclared"] {
        let keys = queued(&replicas[0], lane, 16).await;
        assert_eq!(claim_all(&replicas, &keys).await.len(), 16, "{lane}");
    }
}

async fn a_lane_has_room_again_when_a_call_leaves_it_or_its_owner_dies(db: Fixture) {
    let store = db.store().await;
    store.declare_lane("narrow", Some(1)).await.unwrap();
    let keys = queued(&store, "narrow", 3).await;
    let full = async |key| matches!(store.claim_call(key, "x", LONG).await.unwrap(), Claim::LaneFull);
    let first = claim(&store, keys[0]).await.lease;
    assert!(full(keys[1]).await);
    assert!(store.begin_submit(first).await.unwrap());
    assert!(full(keys[1]).await);
    assert!(store.record_submitted(first, "provider-1").await.unwrap());
    assert!(full(keys[1]).await);
    ended(store.fail_edit(first, &error("refused", "no")).await.unwrap());
    claim(&store, keys[1]).await;
    assert!(full(keys[2]).await);
    db.expire(keys[1]).await;
    claim(&store, keys[2]).await;
    assert!(full(keys[1]).await);
}

async fn polling_on_does_not_wait_for_a_full_lane(db: Fixture) {
    let store = db.store().await;
    store.declare_lane("narrow", Some(1)).await.unwrap();
    let keys = queued(&store, "narrow", 2).await;
    let first = claim(&store, keys[0]).await.lease;
    assert!(store.begin_submit(first).await.unwrap());
    assert!(store.record_submitted(first, "provider-1").await.unwrap());
    db.expire(keys[0]).await;
    claim(&store, keys[1]).await;
    // It is in flight at the provider whether somebody asks after it or not.
    claim(&store, keys[0]).await;
}

async fn lanes_do_not_hold_each_other_up(db: Fixture) {
    let replicas = [db.store().await, db.store().await];
    let mut keys = Vec::new();
    for lane in ["one", "two", "three"] {
        replicas[0].declare_lane(lane, Some(2)).await.unwrap();
        keys.extend(queued(&replicas[0], lane, 8).await);
    }
    assert_eq!(claim_all(&replicas, &keys).await.len(), 6);
}
