//! What a provider lists and no call accounts for: the ground on which a submit without an answer is resolved.

use std::time::Duration;

use retouch_shared::key::EditKey;
use retouch_worker::store::{Admission, LanePolicy, Lease, Store, Unexplained};

use super::fixture::{Fixture, begin, claim, edit, error, miss, price, register, task};

promises!(
    no_call_is_sent_while_the_lanes_submit_is_unresolved,
    accepted_tasks_are_accounted_for_in_every_outcome,
    while_another_submit_is_unresolved_a_list_says_nothing,
    an_examined_foreign_task_is_accounted_for_afterwards,
    tasks_beyond_every_providers_list_are_forgotten,
    an_ambiguous_call_that_was_not_accepted_costs_nothing_and_starts_over,
);

const LANE: &str = "asked";

fn one() -> LanePolicy {
    LanePolicy { one_unresolved: true, ..LanePolicy::default() }
}

/// Calls of the lane that have an owner, one unresolved at most.
async fn claimed<const N: usize>(store: &Store) -> [(EditKey, Lease); N] {
    store.declare_lane(LANE, &one()).await.unwrap();
    let calls: Vec<_> = (0..N)
        .map(|n| {
            let mut call = edit(&format!("picture {n}"));
            call.lane = LANE.to_owned();
            call
        })
        .collect();
    register(store, &task("t", calls.iter().map(miss).collect())).await;
    let mut claimed = Vec::new();
    for call in calls {
        claimed.push((call.edit_key, claim(store, call.edit_key).await.lease));
    }
    claimed.try_into().unwrap()
}

async fn ask(store: &Store, lease: Lease) -> Admission {
    store.begin_submit(lease, &price()).await.unwrap()
}

async fn unexplained(store: &Store, lease: Lease, listed: &[&str]) -> Unexplained {
    let listed: Vec<_> = listed.iter().map(|id| (*id).to_owned()).collect();
    store.unexplained(lease, LANE, &listed).await.unwrap()
}

fn these(ids: &[&str]) -> Unexplained {
    Unexplained::These(ids.iter().map(|id| (*id).to_owned()).collect())
}

async fn no_call_is_sent_while_the_lanes_submit_is_unresolved(db: Fixture) {
    let store = db.store().await;
    let [(first, lease), (_, second), (_, third)] = claimed(&store).await;
    assert!(begin(&store, lease).await);
    assert_eq!(ask(&store, second).await, Admission::Full);
    // Its owner dies: it is as unresolved as before, and stays so under the next one.
    db.expire(first).await;
    assert_eq!(ask(&store, second).await, Admission::Full);
    let lease = claim(&store, first).await.lease;
    assert_eq!(ask(&store, second).await, Admission::Full);
    assert!(store.record_submitted(lease, "provider-1").await.unwrap());
    assert!(begin(&store, second).await);
    assert_eq!(ask(&store, third).await, Admission::Full);
    // Certainly not taken.
    assert!(store.retract_submit(second).await.unwrap());
    assert!(begin(&store, third).await);
    store.declare_lane(LANE, &LanePolicy::default()).await.unwrap();
    assert!(begin(&store, second).await, "a lane that is not asked is not held up");
}

async fn accepted_tasks_are_accounted_for_in_every_outcome(db: Fixture) {
    let store = db.store().await;
    let [(key, lease), (_, other)] = claimed(&store).await;
    assert_eq!(unexplained(&store, other, &["A"]).await, these(&["A"]));
    assert!(begin(&store, lease).await);
    assert!(store.record_submitted(lease, "A").await.unwrap());
    assert_eq!(unexplained(&store, other, &["A", "a", "B"]).await, these(&["a", "B"]), "byte for byte");
    // Queued anew the call forgets its id; sent again it has another one.
    store.requeue_call(lease, true, "the provider gave up", Duration::ZERO).await.unwrap();
    let lease = claim(&store, key).await.lease;
    assert!(begin(&store, lease).await);
    assert!(store.record_submitted(lease, "C").await.unwrap());
    store.fail_edit(lease, &error("refused", "no"), false).await.unwrap();
    assert_eq!(unexplained(&store, other, &["A", "B", "C"]).await, these(&["B"]));
    // A worker whose lease is lost accounts for nothing: the call's next owner must find it.
    assert!(!store.record_submitted(lease, "D").await.unwrap());
    assert_eq!(unexplained(&store, other, &["D"]).await, these(&["D"]));
    assert_eq!(unexplained(&store, other, &[]).await, these(&[]));
}

async fn while_another_submit_is_unresolved_a_list_says_nothing(db: Fixture) {
    let store = db.store().await;
    let [(_, first), (_, second)] = claimed(&store).await;
    assert!(begin(&store, first).await);
    assert_eq!(unexplained(&store, first, &["A"]).await, these(&["A"]), "its own submit is no other one");
    // As a worker with other settings would have it.
    store.declare_lane(LANE, &LanePolicy::default()).await.unwrap();
    assert!(begin(&store, second).await);
    assert_eq!(unexplained(&store, first, &["A"]).await, Unexplained::NotAlone);
    assert!(store.count_ambiguous(second, false, "no answer").await.unwrap().is_some());
    assert_eq!(unexplained(&store, first, &["A"]).await, Unexplained::NotAlone);
    assert!(store.record_submitted(second, "A").await.unwrap());
    assert_eq!(unexplained(&store, first, &["A"]).await, these(&[]));
}

async fn an_examined_foreign_task_is_accounted_for_afterwards(db: Fixture) {
    let store = db.store().await;
    let [(_, lease)] = claimed(&store).await;
    let ids: std::collections::BTreeSet<String> = ["A".to_owned(), "B".to_owned()].into();
    store.explain(&ids).await.unwrap();
    store.explain(&ids).await.unwrap();
    assert_eq!(unexplained(&store, lease, &["A", "B", "C"]).await, these(&["C"]));
}

async fn tasks_beyond_every_providers_list_are_forgotten(db: Fixture) {
    let store = db.store().await;
    store.explain(&["old".to_owned()].into()).await.unwrap();
    let long_ago = if db.is_sqlite() {
        "strftime('%Y-%m-%d %H:%M:%f', 'now', '-49 hours')"
    } else {
        "UTC_TIMESTAMP(3) - INTERVAL 49 HOUR"
    };
    db.execute(&format!("UPDATE provider_tasks SET seen_at = {long_ago}")).await;
    store.explain(&["new".to_owned()].into()).await.unwrap();
    assert_eq!(store.forget_explained().await.unwrap(), 1);
    assert_eq!(db.number("SELECT COUNT(*) FROM provider_tasks").await, 1);
}

async fn an_ambiguous_call_that_was_not_accepted_costs_nothing_and_starts_over(db: Fixture) {
    let store = db.store().await;
    let [(key, lease)] = claimed(&store).await;
    assert!(begin(&store, lease).await);
    assert!(store.count_ambiguous(lease, false, "no answer").await.unwrap().is_some());
    assert!(store.retract_submit(lease).await.unwrap());
    assert_eq!(db.state(key).await, "claimed");
    assert_eq!(db.number("SELECT spent_micros FROM lanes").await, 0);
    assert!(begin(&store, lease).await);
    assert_eq!(db.of_call("paid_calls + possible_duplicates", key).await, 0);
}
