//! A call's life: leases, fences, and the state that the next owner finds.

use std::time::{Duration, Instant};

use futures::future::join_all;
use retouch_shared::key::EditKey;
use retouch_worker::store::{CallSpec, CallState, Claim, Finished, Lease, Store};

use super::fixture::{
    Fixture, LONG, begin, cached, claim, edit, ended, error, finish, make, miss, register, result_of, task,
    url_of,
};

promises!(
    only_one_of_many_concurrent_claims_wins,
    a_live_lease_is_held_and_an_expired_one_can_be_claimed,
    a_renewed_lease_keeps_others_out,
    a_call_that_is_over_or_unknown_has_nothing_left_to_do,
    a_step_with_an_old_fence_changes_nothing,
    an_owner_that_gave_a_call_back_can_change_nothing,
    an_owner_that_ended_a_call_cannot_end_its_next_life,
    a_step_is_taken_only_from_the_states_that_it_starts_from,
    after_a_death_before_sending_the_next_owner_starts_over,
    an_owner_that_died_while_sending_leaves_an_ambiguous_call,
    an_owner_that_died_after_submitting_is_followed_by_one_that_polls,
    an_owner_that_died_after_storing_is_followed_by_one_that_finishes,
    an_ambiguous_call_that_the_provider_knows_is_polled_on,
    a_possible_duplicate_is_counted_when_it_is_sent_again,
    going_back_to_the_queue_burns_an_attempt_only_when_told,
    a_handed_over_call_can_be_claimed_at_once_unchanged,
    a_result_that_came_with_the_answer_counts_as_paid_once,
    every_submit_is_counted_until_answered_over_all_owners,
    a_later_task_queues_a_held_call_without_sending_it,
);

/// A call that waits for its first owner.
async fn queued(store: &Store, name: &str) -> EditKey {
    let call = edit(name);
    register(store, &task(&format!("task-of-{name}"), vec![miss(&call)])).await;
    call.edit_key
}

async fn only_one_of_many_concurrent_claims_wins(db: Fixture) {
    let replicas = [db.store().await, db.store().await];
    for round in 0..10 {
        let key = queued(&replicas[0], &format!("picture {round}")).await;
        let before = db.of_call("fence", key).await;
        let claims = (0..16).map(|n| {
            let store = replicas[n % 2].clone();
            tokio::spawn(async move { store.claim_call(key, &format!("owner-{n}"), LONG).await.unwrap() })
        });
        let claims: Vec<_> =
            join_all(claims.collect::<Vec<_>>()).await.into_iter().map(Result::unwrap).collect();
        let won = claims.iter().filter(|claim| matches!(claim, Claim::Won(_))).count();
        let held = claims.iter().filter(|claim| matches!(claim, Claim::Held { .. })).count();
        assert_eq!((won, held), (1, 15));
        assert_eq!(db.of_call("fence", key).await, before + 1);
    }
}

async fn a_live_lease_is_held_and_an_expired_one_can_be_claimed(db: Fixture) {
    let store = db.store().await;
    let key = queued(&store, "picture").await;
    let first = claim(&store, key).await;
    let Claim::Held { remaining } = store.claim_call(key, "other", LONG).await.unwrap() else {
        panic!("not held")
    };
    assert!(remaining > LONG / 2 && remaining <= LONG, "{remaining:?}");
    db.expire(key).await;
    let second = claim(&store, key).await;
    assert!(second.lease.fence > first.lease.fence);
    assert_eq!(second.spec, edit("picture"));
    // By the database's own clock, to the millisecond.
    let third = queued(&store, "other picture").await;
    let Claim::Won(_) = store.claim_call(third, "brief", Duration::from_millis(1)).await.unwrap() else {
        panic!("not won")
    };
    retouch_tests::wait::until("the lease of a millisecond runs out", async || {
        matches!(store.claim_call(third, "next", LONG).await.unwrap(), Claim::Won(_)).then_some(())
    })
    .await;
}

async fn a_renewed_lease_keeps_others_out(db: Fixture) {
    let store = db.store().await;
    let key = queued(&store, "picture").await;
    let lease = claim(&store, key).await.lease;
    db.expire(key).await;
    assert!(store.renew_lease(lease, LONG).await.unwrap());
    assert!(matches!(store.claim_call(key, "other", LONG).await.unwrap(), Claim::Held { .. }));
    assert!(store.take_due_calls(10).await.unwrap().is_empty(), "nor does the sweep look after it");
    // An owner that renews goes on through every step.
    assert!(begin(&store, lease).await);
    assert!(store.renew_lease(lease, LONG).await.unwrap());
}

async fn a_call_that_is_over_or_unknown_has_nothing_left_to_do(db: Fixture) {
    let store = db.store().await;
    let (good, bad) = (edit("good"), edit("bad"));
    assert!(matches!(store.claim_call(good.edit_key, "x", LONG).await.unwrap(), Claim::Done));
    register(&store, &task("t", vec![miss(&good), miss(&bad)])).await;
    finish(&store, &good).await;
    let lease = claim(&store, bad.edit_key).await.lease;
    ended(store.fail_edit(lease, &error("refused", "no"), true).await.unwrap());
    for key in [good.edit_key, bad.edit_key] {
        assert!(matches!(store.claim_call(key, "x", LONG).await.unwrap(), Claim::Done));
    }
    // A second finish of the same owner finds nothing to do either.
    assert!(matches!(
        store.fail_edit(lease, &error("refused", "no"), true).await.unwrap(),
        Finished::LostLease
    ));
    db.is_settled().await;
}

/// Every step.
const STEPS: &[&str] = &[
    "renew_lease",
    "begin_submit",
    "retract_submit",
    "record_submitted",
    "record_stored",
    "requeue_call",
    "hand_over_call",
    "count_ambiguous",
    "finish_edit",
    "store_and_finish",
    "fail_edit",
];

/// Takes a step; says whether it was done.
async fn step(store: &Store, name: &str, lease: Lease) -> bool {
    let done = match name {
        "renew_lease" => store.renew_lease(lease, LONG).await,
        "begin_submit" => return begin(store, lease).await,
        "retract_submit" => store.retract_submit(lease).await,
        "record_submitted" => store.record_submitted(lease, "provider-2").await,
        "record_stored" => store.record_stored(lease, &result_of(&edit("another")), Duration::ZERO).await,
        "requeue_call" => store.requeue_call(lease, true, "why", Duration::ZERO).await,
        "hand_over_call" => store.hand_over_call(lease, Some("why"), Duration::ZERO).await,
        "count_ambiguous" => return store.count_ambiguous(lease, true, "why").await.unwrap().is_some(),
        "finish_edit" => {
            return matches!(store.finish_edit(lease, "url").await.unwrap(), Finished::Ended(_));
        }
        "store_and_finish" => {
            let result = result_of(&edit("another"));
            let spec = CallSpec { edit_key: lease.edit_key, ..edit("another") };
            let finished =
                store.store_and_finish(lease, &spec, &result, Instant::now(), "url").await.unwrap();
            return matches!(finished, Finished::Ended(_));
        }
        "fail_edit" => {
            let finished = store.fail_edit(lease, &error("refused", "no"), true).await.unwrap();
            return matches!(finished, Finished::Ended(_));
        }
        other => panic!("{other}"),
    };
    done.unwrap()
}

/// Every column of a call that a step could change.
async fn row(db: &Fixture, key: EditKey) -> String {
    let columns = [
        "state",
        "attempts",
        "owner",
        "lease_until",
        "fence",
        "wake_at",
        "wakes",
        "provider_task_id",
        "submitted_at",
        "result_hash",
        "paid_calls",
        "possible_duplicates",
        "unanswered",
        "held",
        "last_error",
        "updated_at",
    ];
    let of_call = columns.map(|column| {
        format!(
            "(SELECT COALESCE(CAST({column} AS CHAR), '-') FROM image_edit_calls WHERE edit_key = x'{key}')"
        )
    });
    let counts = ["image_edit_waits", "image_edit_cache", "dead_letters"];
    let counts = counts.map(|table| format!("(SELECT CAST(COUNT(*) AS CHAR) FROM {table})"));
    let values: Vec<String> = of_call.into_iter().chain(counts).collect();
    // Of the two ways to put texts together each database knows one.
    let query = if db.is_sqlite() {
        format!("SELECT {}", values.join(" || ' | ' || "))
    } else {
        format!("SELECT CONCAT_WS(' | ', {})", values.join(", "))
    };
    db.text(&query).await
}

/// Every state that an owner can have a call in.
const OWNED: &[CallState] = &[
    CallState::Claimed,
    CallState::Submitting,
    CallState::Submitted,
    CallState::Ambiguous,
    CallState::Stored,
];

/// Claims a call and takes it to a state.
async fn bring_to(store: &Store, key: EditKey, state: CallState) -> Lease {
    let lease = claim(store, key).await.lease;
    let path: &[&str] = match state {
        CallState::Claimed => &[],
        CallState::Submitting => &["begin_submit"],
        CallState::Submitted => &["begin_submit", "record_submitted"],
        CallState::Ambiguous => &["begin_submit", "count_ambiguous"],
        CallState::Stored => &["begin_submit", "record_submitted", "record_stored"],
        CallState::Queued | CallState::Done | CallState::Failed => panic!("a {state:?} call has no owner"),
    };
    for name in path {
        assert!(step(store, name, lease).await, "{name}");
    }
    lease
}

async fn a_step_with_an_old_fence_changes_nothing(db: Fixture) {
    let store = db.store().await;
    let mut wrong = Vec::new();
    for &state in OWNED {
        for name in STEPS {
            let key = queued(&store, &format!("{name} {state:?}")).await;
            let old = bring_to(&store, key, state).await;
            db.expire(key).await;
            let new = claim(&store, key).await.lease;
            let future = Lease { fence: new.fence + 1, ..new };
            let nowhere = Lease { edit_key: edit("nowhere").edit_key, ..new };
            let before = row(&db, key).await;
            for (lease, whose) in [(old, "an old"), (future, "a future"), (nowhere, "another call's")] {
                if step(&store, name, lease).await || row(&db, key).await != before {
                    wrong.push(format!("{name} from {state:?} with {whose} fence"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

async fn an_owner_that_gave_a_call_back_can_change_nothing(db: Fixture) {
    let store = db.store().await;
    let mut wrong = Vec::new();
    for (give_back, state) in [
        ("requeue_call", CallState::Claimed),
        ("requeue_call", CallState::Ambiguous),
        ("hand_over_call", CallState::Submitted),
        ("hand_over_call", CallState::Stored),
    ] {
        for name in STEPS {
            let key = queued(&store, &format!("{name} after {give_back} {state:?}")).await;
            let lease = bring_to(&store, key, state).await;
            assert!(step(&store, give_back, lease).await);
            let before = row(&db, key).await;
            if step(&store, name, lease).await || row(&db, key).await != before {
                wrong.push(format!("{name} after {give_back} from {state:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A worker whose `fail_edit` was committed, but whose connection broke before the answer, repeats it.
async fn an_owner_that_ended_a_call_cannot_end_its_next_life(db: Fixture) {
    let store = db.store().await;
    let call = edit("picture");
    register(&store, &task("first", vec![miss(&call)])).await;
    let lease = claim(&store, call.edit_key).await.lease;
    let refused = error("refused", "no");
    ended(store.fail_edit(lease, &refused, false).await.unwrap());
    register(&store, &task("second", vec![miss(&call)])).await;
    let again = store.fail_edit(lease, &refused, false).await.unwrap();
    assert!(matches!(again, Finished::LostLease), "{again:?}");
    assert_eq!(db.state(call.edit_key).await, "queued");
    db.is_sound().await;
}

async fn a_step_is_taken_only_from_the_states_that_it_starts_from(db: Fixture) {
    use CallState::{Ambiguous, Claimed, Stored, Submitted, Submitting};
    let store = db.store().await;
    let from: &[(&str, &[CallState])] = &[
        ("renew_lease", OWNED),
        ("begin_submit", &[Claimed]),
        ("retract_submit", &[Submitting, Ambiguous]),
        ("record_submitted", &[Submitting, Ambiguous]),
        ("record_stored", &[Submitting, Submitted]),
        ("requeue_call", OWNED),
        ("hand_over_call", &[Submitted, Ambiguous, Stored]),
        ("count_ambiguous", &[Submitting, Submitted, Ambiguous]),
        ("finish_edit", &[Stored]),
        ("store_and_finish", &[Submitting, Submitted]),
        ("fail_edit", OWNED),
    ];
    assert_eq!(from.iter().map(|(name, _)| *name).collect::<Vec<_>>(), STEPS);
    for (name, starts) in from {
        for &state in OWNED {
            let key = queued(&store, &format!("{name} {state:?}")).await;
            let lease = bring_to(&store, key, state).await;
            let before = row(&db, key).await;
            let done = step(&store, name, lease).await;
            assert_eq!(done, starts.contains(&state), "{name} from {state:?}");
            if !done {
                assert_eq!(row(&db, key).await, before, "{name} from {state:?}");
            }
        }
    }
    db.is_sound().await;
}

async fn after_a_death_before_sending_the_next_owner_starts_over(db: Fixture) {
    let store = db.store().await;
    let key = queued(&store, "picture").await;
    bring_to(&store, key, CallState::Claimed).await;
    db.expire(key).await;
    let next = claim(&store, key).await;
    assert_eq!((next.state, next.attempts), (CallState::Claimed, 0));
    assert!(begin(&store, next.lease).await);
}

async fn an_owner_that_died_while_sending_leaves_an_ambiguous_call(db: Fixture) {
    let store = db.store().await;
    let key = queued(&store, "picture").await;
    bring_to(&store, key, CallState::Submitting).await;
    let an_hour_ago = if db.is_sqlite() {
        "strftime('%Y-%m-%d %H:%M:%f', 'now', '-3600 seconds')"
    } else {
        "UTC_TIMESTAMP(3) - INTERVAL 3600 SECOND"
    };
    db.execute(&format!("UPDATE image_edit_calls SET submitted_at = {an_hour_ago}")).await;
    db.expire(key).await;
    let next = claim(&store, key).await;
    assert_eq!((next.state, next.attempts), (CallState::Ambiguous, 0));
    let since = next.since_submit.as_secs();
    assert!((3600..3700).contains(&since), "{since}");
    assert!(!begin(&store, next.lease).await, "never sent again blindly");
    // Every later owner finds it so.
    db.expire(key).await;
    assert_eq!(claim(&store, key).await.state, CallState::Ambiguous);
}

async fn an_owner_that_died_after_submitting_is_followed_by_one_that_polls(db: Fixture) {
    let store = db.store().await;
    let key = queued(&store, "picture").await;
    let long_id = "x".repeat(500);
    let lease = bring_to(&store, key, CallState::Submitting).await;
    assert!(store.record_submitted(lease, &long_id).await.unwrap());
    db.expire(key).await;
    let next = claim(&store, key).await;
    assert_eq!((next.state, next.provider_task_id), (CallState::Submitted, Some(long_id)));
    assert!(!begin(&store, next.lease).await, "nothing is paid again");
    assert!(store.record_stored(next.lease, &result_of(&edit("picture")), Duration::ZERO).await.unwrap());
    assert_eq!(db.of_call("paid_calls", key).await, 1);
}

async fn an_owner_that_died_after_storing_is_followed_by_one_that_finishes(db: Fixture) {
    let store = db.store().await;
    let call = edit("picture");
    register(&store, &task("t", vec![miss(&call)])).await;
    make(&store, &call).await;
    db.expire(call.edit_key).await;
    let next = claim(&store, call.edit_key).await;
    assert_eq!((next.state, next.result), (CallState::Stored, Some(result_of(&call))));
    let ended = ended(store.finish_edit(next.lease, &url_of(&result_of(&call))).await.unwrap());
    assert_eq!(ended.len(), 1);
    assert!(cached(&store, call.edit_key).await.is_some());
    db.is_settled().await;
}

async fn an_ambiguous_call_that_the_provider_knows_is_polled_on(db: Fixture) {
    let store = db.store().await;
    let key = queued(&store, "picture").await;
    bring_to(&store, key, CallState::Submitting).await;
    db.expire(key).await;
    let next = claim(&store, key).await;
    assert!(store.record_submitted(next.lease, "found in the provider's list").await.unwrap());
    assert_eq!(db.state(key).await, "submitted");
    assert_eq!(db.of_call("paid_calls", key).await, 1);
    assert_eq!(db.of_call("possible_duplicates", key).await, 0);
}

async fn a_possible_duplicate_is_counted_when_it_is_sent_again(db: Fixture) {
    let store = db.store().await;
    let key = queued(&store, "picture").await;
    let lease = bring_to(&store, key, CallState::Submitting).await;
    assert!(store.count_ambiguous(lease, false, "no answer").await.unwrap().is_some());
    assert_eq!(db.of_call("possible_duplicates", key).await, 0);
    assert!(store.count_ambiguous(lease, true, "no answer, sent again").await.unwrap().is_some());
    assert_eq!(db.of_call("possible_duplicates", key).await, 1);
    // The worker that counted it died before it was queued again: that sent no further submit.
    db.expire(key).await;
    let lease = claim(&store, key).await.lease;
    assert!(store.count_ambiguous(lease, true, "no answer, sent again").await.unwrap().is_some());
    assert_eq!(db.of_call("possible_duplicates", key).await, 1);
    assert!(store.requeue_call(lease, true, "no answer", Duration::ZERO).await.unwrap());
    let next = claim(&store, key).await;
    assert_eq!((next.state, next.attempts), (CallState::Claimed, 1));
    assert_eq!(next.since_submit, Duration::ZERO, "nothing of the new attempt is sent yet");
}

async fn going_back_to_the_queue_burns_an_attempt_only_when_told(db: Fixture) {
    let store = db.store().await;
    let key = queued(&store, "picture").await;
    for (burns, attempts) in [(false, 0), (true, 1), (false, 1), (true, 2)] {
        let lease = claim(&store, key).await.lease;
        let why = "\u{1F642}".repeat(40_000);
        assert!(store.requeue_call(lease, burns, &why, Duration::ZERO).await.unwrap());
        assert_eq!(db.of_call("attempts", key).await, attempts);
        assert_eq!(db.state(key).await, "queued");
    }
}

async fn a_handed_over_call_can_be_claimed_at_once_unchanged(db: Fixture) {
    let store = db.store().await;
    for state in [CallState::Submitted, CallState::Ambiguous, CallState::Stored] {
        let key = queued(&store, state.as_str()).await;
        let lease = bring_to(&store, key, state).await;
        assert!(store.hand_over_call(lease, None, Duration::ZERO).await.unwrap());
        let next = claim(&store, key).await;
        assert_eq!(next.state, state);
        assert_eq!(next.provider_task_id.is_some(), state != CallState::Ambiguous);
        assert_eq!(next.result.is_some(), state == CallState::Stored);
    }
}

async fn a_result_that_came_with_the_answer_counts_as_paid_once(db: Fixture) {
    let store = db.store().await;
    let key = queued(&store, "picture").await;
    let lease = bring_to(&store, key, CallState::Submitting).await;
    assert!(store.record_stored(lease, &result_of(&edit("picture")), Duration::ZERO).await.unwrap());
    assert_eq!(db.of_call("paid_calls", key).await, 1);
    assert_eq!(db.state(key).await, "stored");
}

async fn every_submit_is_counted_until_answered_over_all_owners(db: Fixture) {
    let store = db.store().await;
    // Each transition from `submitting` and its effect on the count of one submit.
    let ways: &[(&[&str], i64)] = &[
        (&[], 1),
        (&["retract_submit"], 0),
        (&["record_submitted"], 0),
        (&["record_stored"], 0),
        (&["requeue_call"], 0),
        (&["fail_edit"], 0),
        (&["store_and_finish"], 0),
        (&["record_submitted", "record_stored"], 0),
        (&["record_submitted", "requeue_call"], 0),
        (&["count_ambiguous"], 1),
        (&["count_ambiguous", "count_ambiguous"], 1),
        (&["count_ambiguous", "requeue_call"], 1),
        (&["count_ambiguous", "hand_over_call"], 1),
        (&["count_ambiguous", "retract_submit"], 0),
        (&["count_ambiguous", "record_submitted"], 0),
        (&["count_ambiguous", "fail_edit"], 1),
        // The provider no longer knows its id.
        (&["record_submitted", "count_ambiguous"], 1),
        (&["record_submitted", "count_ambiguous", "count_ambiguous"], 1),
    ];
    for (nth, (way, left)) in ways.iter().enumerate() {
        let key = queued(&store, &format!("way {nth}")).await;
        let lease = bring_to(&store, key, CallState::Submitting).await;
        for name in *way {
            assert!(step(&store, name, lease).await, "{name} of {way:?}");
        }
        assert_eq!(db.of_call("unanswered", key).await, *left, "{way:?}");
    }
    let key = queued(&store, "over owners").await;
    for sends in 1..=3 {
        let lease = bring_to(&store, key, CallState::Submitting).await;
        db.expire(key).await;
        let next = claim(&store, key).await;
        assert_eq!((next.state, next.unanswered), (CallState::Ambiguous, sends));
        assert!(!step(&store, "retract_submit", lease).await, "its first owner takes nothing back");
        assert_eq!(store.count_ambiguous(next.lease, true, "no answer").await.unwrap(), Some(sends));
        assert!(store.requeue_call(next.lease, true, "no answer", Duration::ZERO).await.unwrap());
    }
}

async fn a_later_task_queues_a_held_call_without_sending_it(db: Fixture) {
    let store = db.store().await;
    for (code, charged, held) in [
        ("ambiguous", true, true),
        ("unreadable_answer", true, true),
        ("bad_result", true, true),
        ("ambiguous", false, false),
        ("refused", true, false),
    ] {
        let call = edit(&format!("{code} {charged}"));
        register(&store, &task(&format!("first {code} {charged}"), vec![miss(&call)])).await;
        let lease = bring_to(&store, call.edit_key, CallState::Ambiguous).await;
        ended(store.fail_edit(lease, &error(code, "no"), charged).await.unwrap());
        for nth in 0..2 {
            register(&store, &task(&format!("{nth} {code} {charged}"), vec![miss(&call)])).await;
            let next = claim(&store, call.edit_key).await;
            assert_eq!(next.held.as_deref(), held.then_some(code), "{code} {charged}");
            assert_eq!(next.unanswered, 1, "{code} {charged}");
            assert_eq!(begin(&store, next.lease).await, !held, "{code} {charged}");
            if !held {
                assert!(store.retract_submit(next.lease).await.unwrap());
            }
            // Likewise if it fails for another reason before its submit.
            ended(store.fail_edit(next.lease, &error("input_missing", "no"), false).await.unwrap());
        }
    }
    // A done call was answered.
    let call = edit("done");
    register(&store, &task("done", vec![miss(&call)])).await;
    db.execute("UPDATE image_edit_calls SET unanswered = 1 WHERE state = 'queued'").await;
    finish(&store, &call).await;
    assert_eq!(db.of_call("unanswered", call.edit_key).await, 0);
}
