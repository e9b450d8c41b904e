//! Lanes: limits on calls in flight, rate and cost, and closed lanes, over all replicas.

use std::time::{Duration, Instant};

use futures::future::join_all;
use retouch_shared::key::EditKey;
use retouch_worker::store::{
    Admission, CallState, ClosedBy, Closure, LanePolicy, LaneView, Lease, Money, Store,
};

use super::fixture::{
    Fixture, LONG, PRICE, begin, claim, edit, ended, error, make_as, miss, price, register, result_of, task,
};

promises!(
    a_lane_holds_no_more_calls_than_it_may,
    a_lane_without_a_limit_is_never_full,
    a_call_that_waits_for_its_lane_takes_no_place,
    a_place_is_freed_by_its_call_not_its_owners_death,
    polling_on_does_not_wait_for_a_full_lane,
    lanes_do_not_hold_each_other_up,
    submits_keep_their_distance_over_all_replicas,
    a_throttled_lane_waits_on_every_replica,
    a_budget_is_spent_exactly_over_all_replicas,
    uncharged_calls_return_to_the_budget,
    the_budget_renews_daily_without_yesterdays_refunds,
    a_higher_budget_lets_a_lane_go_on_at_once,
    a_blocked_lane_takes_no_calls_until_one_probe_works,
    a_probe_that_shows_nothing_is_followed_by_another_soon,
    only_a_lane_blocked_by_a_poll_is_opened_by_one,
    an_unfetched_call_frees_its_place_and_its_lane_says_why,
    a_lane_blocked_for_results_opens_after_a_fetch,
    results_that_could_not_be_fetched_are_due_when_a_worker_starts,
    a_paused_lane_takes_no_calls_until_it_is_resumed,
    the_price_of_the_moment_is_written_on_the_call,
    a_lane_shows_its_limits_its_work_and_why_it_is_closed,
    probes_are_counted_by_cause_and_a_spent_budget_adds_none,
    consecutive_unanswered_submits_are_counted_until_an_answer,
);

const LANE: &str = "narrow";

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

/// Calls of one lane that have an owner and wait for the lane.
async fn claimed(store: &Store, lane: &str, calls: usize) -> Vec<Lease> {
    let mut leases = Vec::new();
    for key in queued(store, lane, calls).await {
        leases.push(claim(store, key).await.lease);
    }
    leases
}

/// Begins all of them at the same time, on two replicas. Returns those that were admitted.
async fn begin_all(replicas: &[Store; 2], leases: &[Lease]) -> Vec<Lease> {
    let begun = leases.iter().enumerate().map(|(n, &lease)| {
        let store = replicas[n % 2].clone();
        tokio::spawn(async move { (lease, store.begin_submit(lease, &price()).await.unwrap()) })
    });
    let mut admitted = Vec::new();
    for answer in join_all(begun.collect::<Vec<_>>()).await {
        let (lease, admission) = answer.unwrap();
        match admission {
            Admission::Admitted(_) => admitted.push(lease),
            Admission::Full | Admission::NotBefore(_) | Admission::Closed(_) => {}
            Admission::LostLease | Admission::Unwanted => panic!("the lease was lost"),
        }
    }
    admitted
}

async fn ask(store: &Store, lease: Lease) -> Admission {
    store.begin_submit(lease, &price()).await.unwrap()
}

fn holds(calls: u32) -> LanePolicy {
    LanePolicy { max_in_flight: Some(calls), ..LanePolicy::default() }
}

fn budget(images: i64) -> LanePolicy {
    let money = Money { micros: images * PRICE, currency: "CNY".to_owned() };
    LanePolicy { daily_budget: Some(money), ..LanePolicy::default() }
}

fn bad_key(by: ClosedBy, probe_in: Duration) -> Closure {
    Closure {
        by,
        code: "InvalidApiKey".to_owned(),
        message: "no such key".to_owned(),
        probe_in: Some(probe_in),
    }
}

fn closed_by(admission: &Admission) -> ClosedBy {
    match admission {
        Admission::Closed(closure) => closure.by,
        other => panic!("not closed: {other:?}"),
    }
}

/// Lets a day pass: everything that the lanes remember happened a day earlier.
async fn a_day_passes(db: &Fixture) {
    let sql = if db.is_sqlite() {
        "UPDATE lanes SET spent_on = date(spent_on, '-1 day'), probe_at = strftime('%Y-%m-%d %H:%M:%f', probe_at, '-1 day')"
    } else {
        "UPDATE lanes SET spent_on = spent_on - INTERVAL 1 DAY, probe_at = probe_at - INTERVAL 1 DAY"
    };
    db.execute(sql).await;
    let calls = if db.is_sqlite() {
        "UPDATE image_edit_calls SET submitted_at = strftime('%Y-%m-%d %H:%M:%f', submitted_at, '-1 day')"
    } else {
        "UPDATE image_edit_calls SET submitted_at = submitted_at - INTERVAL 1 DAY"
    };
    db.execute(calls).await;
}

async fn the_lane(store: &Store) -> LaneView {
    store.lanes().await.unwrap().into_iter().find(|lane| lane.name == LANE).unwrap()
}

async fn a_lane_holds_no_more_calls_than_it_may(db: Fixture) {
    let replicas = [db.store().await, db.store().await];
    replicas[0].declare_lane(LANE, &holds(5)).await.unwrap();
    replicas[1].declare_lane(LANE, &holds(3)).await.unwrap();
    let leases = claimed(&replicas[0], LANE, 24).await;
    let admitted = begin_all(&replicas, &leases).await;
    assert_eq!(admitted.len(), 3, "the last word counts");
    // A refused call is unchanged.
    assert_eq!(db.number("SELECT COUNT(*) FROM image_edit_calls WHERE state = 'claimed'").await, 21);
    replicas[0].declare_lane(LANE, &holds(0)).await.unwrap();
    let waiting: Vec<_> = leases.iter().copied().filter(|lease| !admitted.contains(lease)).collect();
    assert!(begin_all(&replicas, &waiting).await.is_empty());
}

async fn a_lane_without_a_limit_is_never_full(db: Fixture) {
    let replicas = [db.store().await, db.store().await];
    replicas[0].declare_lane("declared", &holds(1)).await.unwrap();
    replicas[0].declare_lane("declared", &LanePolicy::default()).await.unwrap();
    for lane in ["declared", "undeclared"] {
        let leases = claimed(&replicas[0], lane, 16).await;
        assert_eq!(begin_all(&replicas, &leases).await.len(), 16, "{lane}");
    }
}

async fn a_call_that_waits_for_its_lane_takes_no_place(db: Fixture) {
    let store = db.store().await;
    store.declare_lane(LANE, &holds(1)).await.unwrap();
    let leases = claimed(&store, LANE, 5).await;
    assert!(begin(&store, leases[4]).await);
}

async fn a_place_is_freed_by_its_call_not_its_owners_death(db: Fixture) {
    let store = db.store().await;
    store.declare_lane(LANE, &holds(1)).await.unwrap();
    let leases = claimed(&store, LANE, 4).await;
    let full = async || ask(&store, leases[3]).await == Admission::Full;
    assert!(begin(&store, leases[0]).await);
    assert!(full().await);
    assert!(store.record_submitted(leases[0], "provider-1").await.unwrap());
    assert!(full().await);
    // The provider goes on with it, regardless of our owners.
    db.expire(leases[0].edit_key).await;
    assert!(full().await);
    let again = claim(&store, leases[0].edit_key).await.lease;
    assert!(store.record_stored(again, &result_of(&edit("narrow 0")), Duration::ZERO).await.unwrap());
    assert!(begin(&store, leases[1]).await, "what is stored has left the lane");
    assert!(full().await);
    ended_or_not(store.fail_edit(leases[1], &error("refused", "no"), false).await.unwrap());
    assert!(begin(&store, leases[2]).await);
    assert!(full().await);
    assert!(store.retract_submit(leases[2]).await.unwrap());
    assert!(begin(&store, leases[3]).await);
}

fn ended_or_not(finished: retouch_worker::store::Finished) {
    // Its task has other images.
    assert!(ended(finished).is_empty());
}

async fn polling_on_does_not_wait_for_a_full_lane(db: Fixture) {
    let store = db.store().await;
    store.declare_lane(LANE, &holds(1)).await.unwrap();
    let leases = claimed(&store, LANE, 2).await;
    assert!(begin(&store, leases[0]).await);
    assert!(store.record_submitted(leases[0], "provider-1").await.unwrap());
    db.expire(leases[0].edit_key).await;
    assert_eq!(claim(&store, leases[0].edit_key).await.state, CallState::Submitted);
}

async fn lanes_do_not_hold_each_other_up(db: Fixture) {
    let replicas = [db.store().await, db.store().await];
    let mut leases = Vec::new();
    for lane in ["one", "two", "three"] {
        replicas[0].declare_lane(lane, &holds(2)).await.unwrap();
        leases.extend(claimed(&replicas[0], lane, 8).await);
    }
    assert_eq!(begin_all(&replicas, &leases).await.len(), 6);
}

async fn submits_keep_their_distance_over_all_replicas(db: Fixture) {
    let replicas = [db.store().await, db.store().await];
    let interval = Duration::from_millis(200);
    let policy = LanePolicy { submit_interval: Some(interval), ..LanePolicy::default() };
    replicas[0].declare_lane(LANE, &policy).await.unwrap();
    let leases = claimed(&replicas[0], LANE, 6).await;
    let began = Instant::now();
    let submits = leases.iter().enumerate().map(|(n, &lease)| {
        let store = replicas[n % 2].clone();
        tokio::spawn(async move {
            loop {
                match store.begin_submit(lease, &price()).await.unwrap() {
                    Admission::Admitted(_) => return,
                    Admission::NotBefore(after) => tokio::time::sleep(after).await,
                    other => panic!("{other:?}"),
                }
            }
        })
    });
    for submit in join_all(submits.collect::<Vec<_>>()).await {
        submit.unwrap();
    }
    // By the database's clock, which is the one that keeps the distance.
    assert!(began.elapsed() >= 5 * interval, "{:?}", began.elapsed());
    let times = "SELECT MIN(gap) FROM (SELECT (julianday(submitted_at) - julianday(LAG(submitted_at) OVER (ORDER BY submitted_at))) \
                 * 86400000 AS gap FROM image_edit_calls) gaps";
    let times = if db.is_sqlite() {
        format!("SELECT CAST(({times}) AS INTEGER)")
    } else {
        "SELECT CAST(MIN(gap) AS SIGNED) FROM (SELECT TIMESTAMPDIFF(MICROSECOND, LAG(submitted_at) OVER (ORDER BY submitted_at), submitted_at) \
         DIV 1000 AS gap FROM image_edit_calls) gaps"
            .to_owned()
    };
    let smallest = db.number(&times).await;
    assert!(smallest >= 199, "two submits were {smallest} ms apart");
}

async fn a_throttled_lane_waits_on_every_replica(db: Fixture) {
    let replicas = [db.store().await, db.store().await];
    replicas[0].declare_lane(LANE, &LanePolicy::default()).await.unwrap();
    let leases = claimed(&replicas[0], LANE, 2).await;
    assert!(begin(&replicas[0], leases[0]).await);
    assert!(replicas[0].retract_submit(leases[0]).await.unwrap());
    for (pause, most) in [(60, 60), (5, 60), (120, 120)] {
        replicas[0].throttle_lane(LANE, Duration::from_secs(pause)).await.unwrap();
        let Admission::NotBefore(after) = ask(&replicas[1], leases[1]).await else { panic!("not throttled") };
        let expected = Duration::from_secs(most - 10)..=Duration::from_secs(most);
        assert!(expected.contains(&after), "a shorter wish shortens nothing: {after:?}");
    }
    assert!(the_lane(&replicas[1]).await.throttled_for.is_some());
    db.execute("UPDATE lanes SET next_submit_at = NULL").await;
    let Admission::Admitted(pass) = ask(&replicas[1], leases[1]).await else { panic!("not admitted") };
    assert_eq!(pass.throttles, 3);
    assert!(replicas[1].reopen_lane(LANE, false).await.unwrap());
    let Admission::Admitted(pass) = ask(&replicas[1], leases[0]).await else { panic!("not admitted") };
    assert_eq!(pass.throttles, 0, "it starts over once the provider took a call");
}

async fn a_budget_is_spent_exactly_over_all_replicas(db: Fixture) {
    let replicas = [db.store().await, db.store().await];
    replicas[0].declare_lane(LANE, &budget(10)).await.unwrap();
    let leases = claimed(&replicas[0], LANE, 16).await;
    assert_eq!(begin_all(&replicas, &leases).await.len(), 10);
    let lane = the_lane(&replicas[1]).await;
    assert_eq!(lane.spent_micros, 10 * PRICE);
    let closure = lane.closed.unwrap();
    assert_eq!((closure.by, closure.code.as_str()), (ClosedBy::Budget, "budget_spent"));
    assert!(closure.probe_in.unwrap() <= Duration::from_secs(86_400));
    assert_eq!((lane.queued, lane.in_flight), (6, 10));
}

async fn uncharged_calls_return_to_the_budget(db: Fixture) {
    let store = db.store().await;
    store.declare_lane(LANE, &budget(100)).await.unwrap();
    let leases = claimed(&store, LANE, 8).await;
    let spent = async || the_lane(&store).await.spent_micros / PRICE;
    for &lease in &leases {
        assert!(begin(&store, lease).await);
    }
    assert_eq!(spent().await, 8);
    assert!(store.retract_submit(leases[0]).await.unwrap());
    assert_eq!(spent().await, 7, "slowed down");
    assert!(store.requeue_call(leases[1], true, "refused", Duration::ZERO).await.unwrap());
    assert_eq!(spent().await, 6, "not sent");
    ended_or_not(store.fail_edit(leases[2], &error("refused", "no"), false).await.unwrap());
    assert_eq!(spent().await, 5, "refused");
    for &lease in &leases[3..6] {
        assert!(store.record_submitted(lease, "provider-1").await.unwrap());
    }
    assert!(store.requeue_call(leases[3], true, "given up", Duration::ZERO).await.unwrap());
    assert_eq!(spent().await, 4, "given up by the provider");
    assert_eq!(db.of_call("paid_calls", leases[3].edit_key).await, 0);
    ended_or_not(store.fail_edit(leases[4], &error("refused", "no"), false).await.unwrap());
    assert_eq!(spent().await, 3, "refused by the provider later");
    assert_eq!(db.of_call("paid_calls", leases[4].edit_key).await, 0);
    // Money that may have been charged stays spent.
    ended_or_not(store.fail_edit(leases[5], &error("result_lost", "no"), true).await.unwrap());
    assert!(store.count_ambiguous(leases[6], true, "no answer").await.unwrap().is_some());
    assert!(store.requeue_call(leases[6], true, "no answer", Duration::ZERO).await.unwrap());
    assert_eq!(spent().await, 3);
    assert_eq!(db.of_call("paid_calls", leases[5].edit_key).await, 1);
}

async fn the_budget_renews_daily_without_yesterdays_refunds(db: Fixture) {
    let store = db.store().await;
    store.declare_lane(LANE, &budget(2)).await.unwrap();
    let leases = claimed(&store, LANE, 5).await;
    assert!(begin(&store, leases[0]).await && begin(&store, leases[1]).await);
    assert_eq!(closed_by(&ask(&store, leases[2]).await), ClosedBy::Budget);
    a_day_passes(&db).await;
    assert_eq!(the_lane(&store).await.spent_micros, 0);
    assert!(the_lane(&store).await.closed.is_none());
    assert!(begin(&store, leases[2]).await);
    assert!(store.retract_submit(leases[0]).await.unwrap());
    assert_eq!(the_lane(&store).await.spent_micros, PRICE);
    assert!(begin(&store, leases[3]).await);
    assert_eq!(closed_by(&ask(&store, leases[4]).await), ClosedBy::Budget);
}

async fn a_higher_budget_lets_a_lane_go_on_at_once(db: Fixture) {
    let store = db.store().await;
    store.declare_lane(LANE, &budget(1)).await.unwrap();
    let leases = claimed(&store, LANE, 3).await;
    assert!(begin(&store, leases[0]).await);
    assert_eq!(closed_by(&ask(&store, leases[1]).await), ClosedBy::Budget);
    store.declare_lane(LANE, &budget(2)).await.unwrap();
    assert!(begin(&store, leases[1]).await);
    assert!(the_lane(&store).await.closed.is_none());
    store.declare_lane(LANE, &LanePolicy::default()).await.unwrap();
    assert!(begin(&store, leases[2]).await);
}

async fn a_blocked_lane_takes_no_calls_until_one_probe_works(db: Fixture) {
    let replicas = [db.store().await, db.store().await];
    let store = &replicas[0];
    store.declare_lane(LANE, &holds(1)).await.unwrap();
    let leases = claimed(store, LANE, 12).await;
    // One hangs in it: that must not keep it from finding out.
    assert!(begin(store, leases[11]).await);
    store.block_lane(LANE, &bad_key(ClosedBy::Submit, LONG)).await.unwrap();
    let closed = ask(&replicas[1], leases[0]).await;
    assert_eq!(closed_by(&closed), ClosedBy::Submit);
    assert_eq!(the_lane(store).await.closed.unwrap().message, "no such key");
    store.block_lane(LANE, &bad_key(ClosedBy::Submit, Duration::ZERO)).await.unwrap();
    let probes = begin_all(&replicas, &leases[..10]).await;
    assert_eq!(probes.len(), 1, "one call finds out, the others wait for it");
    // It was still blocked: the next probe knows how often.
    assert!(store.retract_submit(probes[0]).await.unwrap());
    store.block_lane(LANE, &bad_key(ClosedBy::Submit, Duration::ZERO)).await.unwrap();
    let Admission::Admitted(pass) = ask(store, probes[0]).await else { panic!("not admitted") };
    assert!(pass.probe && pass.probes == 2, "{pass:?}");
    assert!(store.reopen_lane(LANE, false).await.unwrap());
    assert!(the_lane(store).await.closed.is_none());
    store.declare_lane(LANE, &LanePolicy::default()).await.unwrap();
    let waiting: Vec<_> = leases[..11].iter().copied().filter(|lease| *lease != probes[0]).collect();
    assert_eq!(begin_all(&replicas, &waiting).await.len(), 10);
}

async fn a_probe_that_shows_nothing_is_followed_by_another_soon(db: Fixture) {
    let store = db.store().await;
    store.declare_lane(LANE, &LanePolicy::default()).await.unwrap();
    let leases = claimed(&store, LANE, 3).await;
    store.block_lane(LANE, &bad_key(ClosedBy::Submit, Duration::ZERO)).await.unwrap();
    assert!(begin(&store, leases[0]).await, "the probe");
    assert!(store.retract_submit(leases[0]).await.unwrap());
    assert_eq!(closed_by(&ask(&store, leases[1]).await), ClosedBy::Submit);
    store.probe_lane(LANE, LONG).await.unwrap();
    assert_eq!(closed_by(&ask(&store, leases[1]).await), ClosedBy::Submit);
    store.probe_lane(LANE, Duration::ZERO).await.unwrap();
    let Admission::Admitted(pass) = ask(&store, leases[1]).await else { panic!("not admitted") };
    assert!(pass.probe && pass.probes == 2, "{pass:?}");
    // Never later than was said before, and nothing of a lane that is open.
    assert!(store.reopen_lane(LANE, false).await.unwrap());
    store.probe_lane(LANE, LONG).await.unwrap();
    assert!(begin(&store, leases[2]).await);
}

async fn only_a_lane_blocked_by_a_poll_is_opened_by_one(db: Fixture) {
    let store = db.store().await;
    store.declare_lane(LANE, &LanePolicy::default()).await.unwrap();
    store.block_lane(LANE, &bad_key(ClosedBy::Poll, LONG)).await.unwrap();
    assert!(store.reopen_lane(LANE, true).await.unwrap());
    assert!(the_lane(&store).await.closed.is_none());
    store.block_lane(LANE, &bad_key(ClosedBy::Submit, LONG)).await.unwrap();
    assert!(!store.reopen_lane(LANE, true).await.unwrap(), "an account in arrears may still be asked");
    assert!(the_lane(&store).await.closed.is_some());
}

/// Submitted, with a result that cannot be fetched.
async fn unfetched(store: &Store, lease: Lease, provider_id: &str) {
    assert!(begin(store, lease).await);
    assert!(!store.note_unfetched(lease, "host", "early").await.unwrap(), "its work has not ended");
    assert!(store.record_submitted(lease, provider_id).await.unwrap());
    assert!(store.note_unfetched(lease, "host:81", "it refused; see RETOUCH_ALLOW_HOSTS").await.unwrap());
}

async fn an_unfetched_call_frees_its_place_and_its_lane_says_why(db: Fixture) {
    let store = db.store().await;
    store.declare_lane(LANE, &holds(2)).await.unwrap();
    let leases = claimed(&store, LANE, 4).await;
    unfetched(&store, leases[0], "one").await;
    unfetched(&store, leases[1], "two").await;
    assert!(begin(&store, leases[2]).await && begin(&store, leases[3]).await, "both places are free");
    let lane = the_lane(&store).await;
    assert_eq!(lane.in_flight, 2);
    let shown = lane.unfetched.unwrap();
    assert_eq!(
        (shown.calls, shown.host.as_str(), shown.setting()),
        (2, "host:81", Some("RETOUCH_ALLOW_HOSTS"))
    );
    // The next owner knows; a call that is sent again begins without it.
    assert!(store.hand_over_call(leases[0], None, Duration::ZERO).await.unwrap());
    let next = claim(&store, leases[0].edit_key).await;
    assert!(next.ended && next.state == CallState::Submitted);
    assert!(!store.note_unfetched(leases[0], "host", "late").await.unwrap(), "its old owner says nothing");
    assert!(store.requeue_call(next.lease, false, "anew", Duration::ZERO).await.unwrap());
    assert!(!claim(&store, leases[0].edit_key).await.ended);
    assert_eq!(the_lane(&store).await.unfetched.unwrap().calls, 1);
}

async fn a_lane_blocked_for_results_opens_after_a_fetch(db: Fixture) {
    let store = db.store().await;
    store.declare_lane(LANE, &holds(9)).await.unwrap();
    let leases = claimed(&store, LANE, 5).await;
    let blocked = Closure { probe_in: None, ..bad_key(ClosedBy::Fetch, LONG) };
    unfetched(&store, leases[0], "one").await;
    store.block_lane(LANE, &blocked).await.unwrap();
    assert_eq!(closed_by(&ask(&store, leases[1]).await), ClosedBy::Fetch);
    // Neither a submit nor a poll that works shows that results can be fetched, and no probe is paid for.
    assert!(!store.reopen_lane(LANE, false).await.unwrap() && !store.reopen_lane(LANE, true).await.unwrap());
    assert_eq!(closed_by(&ask(&store, leases[1]).await), ClosedBy::Fetch);
    assert!(store.reopen_fetched(LANE).await.unwrap());
    assert!(begin(&store, leases[1]).await);
    // A person may decide otherwise.
    store.block_lane(LANE, &blocked).await.unwrap();
    assert!(store.resume_lane(LANE).await.unwrap());
    assert!(begin(&store, leases[2]).await);
    // What it was blocked for has ended otherwise.
    store.block_lane(LANE, &blocked).await.unwrap();
    assert_eq!(closed_by(&ask(&store, leases[3]).await), ClosedBy::Fetch);
    ended_or_not(store.fail_edit(leases[0], &error("result_lost", "no"), true).await.unwrap());
    assert!(begin(&store, leases[3]).await);
    assert!(the_lane(&store).await.closed.is_none());
}

async fn results_that_could_not_be_fetched_are_due_when_a_worker_starts(db: Fixture) {
    let store = db.store().await;
    store.declare_lane(LANE, &holds(9)).await.unwrap();
    let leases = claimed(&store, LANE, 2).await;
    unfetched(&store, leases[0], "one").await;
    unfetched(&store, leases[1], "two").await;
    assert!(store.hand_over_call(leases[0], None, LONG).await.unwrap());
    assert!(store.take_due_calls(9).await.unwrap().is_empty());
    store.declare_lane(LANE, &holds(9)).await.unwrap();
    let due: Vec<_> = store.take_due_calls(9).await.unwrap().into_iter().map(|call| call.edit_key).collect();
    assert_eq!(due, [leases[0].edit_key], "the other one is being fetched");
}

async fn a_paused_lane_takes_no_calls_until_it_is_resumed(db: Fixture) {
    let store = db.store().await;
    store.declare_lane(LANE, &LanePolicy::default()).await.unwrap();
    let leases = claimed(&store, LANE, 2).await;
    assert!(store.pause_lane(LANE).await.unwrap());
    assert!(store.pause_lane(LANE).await.unwrap(), "twice is as good as once");
    assert_eq!(closed_by(&ask(&store, leases[0]).await), ClosedBy::Pause);
    // A worker that starts does not undo what a person did.
    store.declare_lane(LANE, &LanePolicy::default()).await.unwrap();
    assert_eq!(closed_by(&ask(&store, leases[0]).await), ClosedBy::Pause);
    assert_eq!(the_lane(&store).await.closed.unwrap().by, ClosedBy::Pause);
    assert!(store.resume_lane(LANE).await.unwrap());
    assert!(begin(&store, leases[0]).await);
    // A person who has mended the key need not wait for the next probe.
    store.block_lane(LANE, &bad_key(ClosedBy::Submit, LONG)).await.unwrap();
    assert!(store.resume_lane(LANE).await.unwrap());
    let Admission::Admitted(pass) = ask(&store, leases[1]).await else { panic!("not admitted") };
    assert!(pass.probe);
    // Nor one who starts a worker with another key.
    assert!(store.retract_submit(leases[1]).await.unwrap());
    store.block_lane(LANE, &bad_key(ClosedBy::Submit, LONG)).await.unwrap();
    store.declare_lane(LANE, &LanePolicy::default()).await.unwrap();
    assert!(begin(&store, leases[1]).await);
    assert!(!store.pause_lane("nowhere").await.unwrap());
    assert!(!store.resume_lane("nowhere").await.unwrap());
}

async fn the_price_of_the_moment_is_written_on_the_call(db: Fixture) {
    let store = db.store().await;
    let call = edit("picture");
    register(&store, &task("t", vec![miss(&call)])).await;
    let lease = claim(&store, call.edit_key).await.lease;
    let dearer = Money { micros: 2 * PRICE, currency: "USD".to_owned() };
    assert!(matches!(store.begin_submit(lease, &dearer).await.unwrap(), Admission::Admitted(_)));
    assert_eq!(db.of_call("price_micros", call.edit_key).await, 2 * PRICE);
    assert!(store.record_stored(lease, &result_of(&call), Duration::ZERO).await.unwrap());
    let tasks = ended(store.finish_edit(lease, "url").await.unwrap());
    assert_eq!(tasks[0].paid_micros, 2 * PRICE);
    let cached = super::fixture::cached(&store, call.edit_key).await.unwrap();
    assert_eq!(cached.price, dearer, "what a later hit saves is what this entry cost");
}

async fn a_lane_shows_its_limits_its_work_and_why_it_is_closed(db: Fixture) {
    let store = db.store().await;
    let policy = LanePolicy { submit_interval: Some(Duration::from_millis(500)), ..budget(10) };
    store.declare_lane(LANE, &policy).await.unwrap();
    store.declare_lane("another", &holds(2)).await.unwrap();
    let leases = claimed(&store, LANE, 3).await;
    assert!(begin(&store, leases[0]).await);
    let call = edit("elsewhere");
    register(&store, &task("elsewhere", vec![miss(&call)])).await;
    make_as(&store, &call, &result_of(&call)).await;
    let lanes = store.lanes().await.unwrap();
    assert_eq!(lanes.iter().map(|lane| lane.name.as_str()).collect::<Vec<_>>(), ["another", LANE]);
    assert_eq!((&lanes[0].policy, lanes[0].queued, lanes[0].oldest), (&holds(2), 0, None));
    let lane = &lanes[1];
    assert_eq!((&lane.policy, lane.queued, lane.in_flight), (&policy, 2, 1));
    assert_eq!((lane.spent_micros, lane.currency.as_deref()), (PRICE, Some("CNY")));
    assert!(lane.oldest.unwrap() < LONG && lane.closed.is_none() && lane.throttled_for.is_none());
}

/// Blocked by `closure`, of which so many probes knew.
async fn probes(store: &Store, db: &Fixture) -> i64 {
    let row = db.number("SELECT probes FROM lanes").await;
    assert_eq!(store.lanes().await.unwrap().len(), 1);
    row
}

async fn probes_are_counted_by_cause_and_a_spent_budget_adds_none(db: Fixture) {
    let store = db.store().await;
    store.declare_lane(LANE, &budget(2)).await.unwrap();
    let leases = claimed(&store, LANE, 4).await;
    assert!(begin(&store, leases[0]).await && begin(&store, leases[1]).await);
    for _ in 0..20 {
        assert_eq!(closed_by(&ask(&store, leases[2]).await), ClosedBy::Budget);
    }
    assert_eq!(probes(&store, &db).await, 0, "nothing was sent to find out");
    store.declare_lane(LANE, &budget(100)).await.unwrap();
    let due = |code: &str| Closure { code: code.to_owned(), ..bad_key(ClosedBy::Submit, Duration::ZERO) };
    // Many calls may meet the same trouble at the same time.
    for _ in 0..5 {
        store.block_lane(LANE, &due("InvalidApiKey")).await.unwrap();
    }
    assert_eq!(probes(&store, &db).await, 0);
    for nth in 1..=3 {
        let Admission::Admitted(pass) = ask(&store, leases[2]).await else { panic!("not admitted") };
        assert_eq!((pass.probe, pass.probes), (true, nth));
        assert!(store.retract_submit(leases[2]).await.unwrap());
        store.block_lane(LANE, &due("InvalidApiKey")).await.unwrap();
        assert_eq!(store.lane_probes(LANE, "InvalidApiKey").await.unwrap(), nth);
    }
    assert_eq!(store.lane_probes(LANE, "Arrearage").await.unwrap(), 0);
    store.block_lane(LANE, &due("Arrearage")).await.unwrap();
    assert_eq!(probes(&store, &db).await, 0, "another cause");
    assert!(begin(&store, leases[2]).await, "the probe");
    assert!(store.reopen_lane(LANE, false).await.unwrap());
    assert_eq!(probes(&store, &db).await, 0, "open again");
    let Admission::Admitted(pass) = ask(&store, leases[3]).await else { panic!("not admitted") };
    assert_eq!((pass.probe, pass.probes), (false, 0));
}

async fn consecutive_unanswered_submits_are_counted_until_an_answer(db: Fixture) {
    let store = db.store().await;
    store.declare_lane(LANE, &LanePolicy::default()).await.unwrap();
    let leases = claimed(&store, LANE, 2).await;
    let (one, since) = store.count_unanswered(LANE).await.unwrap();
    assert_eq!((one, since.starts_with("20")), (1, true), "{since}");
    assert_eq!(store.count_unanswered(LANE).await.unwrap(), (2, since), "since the first of them");
    let Admission::Admitted(pass) = ask(&store, leases[0]).await else { panic!("not admitted") };
    assert_eq!(pass.unanswered, 2);
    assert!(store.reset_unanswered(LANE).await.unwrap());
    assert!(!store.reset_unanswered(LANE).await.unwrap(), "nothing is left to reset");
    assert_eq!(store.count_unanswered(LANE).await.unwrap().0, 1, "from the beginning");
    // An answer opens a lane that is blocked for it, and no other.
    let unanswered = Closure { code: "unanswered".to_owned(), ..bad_key(ClosedBy::Submit, LONG) };
    store.block_lane(LANE, &bad_key(ClosedBy::Submit, LONG)).await.unwrap();
    assert!(!store.reset_unanswered(LANE).await.unwrap());
    store.block_lane(LANE, &unanswered).await.unwrap();
    // A worker that starts has mended nothing of this.
    store.declare_lane(LANE, &LanePolicy::default()).await.unwrap();
    assert_eq!(closed_by(&ask(&store, leases[1]).await), ClosedBy::Submit);
    assert!(store.reset_unanswered(LANE).await.unwrap());
    assert!(begin(&store, leases[1]).await);
    assert_eq!(store.count_unanswered("nowhere").await.unwrap().0, 0);
}
