//! A worker with a clock an hour ahead or behind, beside one whose clock is right: leases, sweeps, lanes,
//! budgets and events use the database's clock, so their work is indistinguishable, and nothing is paid
//! twice.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use retouch_tests::faketime::off_by;
use retouch_tests::paid::{self, LANE, Paid, picture};
use retouch_tests::program::Running;
use retouch_tests::site::{Site, working};
use retouch_tests::tasks::{seed, task, task_async};
use retouch_tests::wait;
use serde_json::{Value, json};

const HURRY: [(&str, &str); 2] = [("RETOUCH_LEASE_SECONDS", "2"), ("RETOUCH_PATIENCE_SECONDS", "1")];
const COMPLETED: &str = "SELECT COUNT(*) FROM image_edit_tasks WHERE status = 'completed'";

/// How far from now, in minutes.
fn minutes_off(time: &str) -> i64 {
    (time.parse::<DateTime<Utc>>().unwrap() - Utc::now()).num_minutes()
}

/// Its clock is off, by its own log; its timers are right, or it would not be seen as alive.
async fn wrong(site: &Site, offset: &str) -> Running {
    let worker = HURRY.iter().fold(site.worker(), |program, (name, value)| program.env(name, value));
    let worker = off_by(worker, offset).start();
    working(&worker).await;
    let line: Value = serde_json::from_str(&worker.line(r#""message":"working""#).await).unwrap();
    let hours = i64::from(offset.starts_with('+')) * 2 - 1;
    let off = minutes_off(line["timestamp"].as_str().unwrap());
    assert!((hours * 60 - off).abs() <= 1, "its clock is {off} minutes off: {line}");
    worker
}

/// Longer than three leases, by a worker's own polls (10 a second), the call stays where it is.
async fn stays(site: &Site, id: &str) {
    let owner = "SELECT CONCAT(owner, ' ', fence) FROM image_edit_calls WHERE state = 'submitted'";
    let (before, since) = (site.texts(owner).await, Instant::now());
    let polled = site.polls().len();
    let long =
        async || (since.elapsed() > Duration::from_secs(7) && site.polls().len() > polled + 5).then_some(());
    wait::until("polls over three leases", long).await;
    assert_eq!(site.texts(owner).await, before, "{id}: a lease that is renewed was taken");
}

async fn beside_a_worker_that_is_off_by(offset: &str) {
    let site = Site::on_servers().await;
    let off = wrong(&site, offset).await;
    let right = site.worker_with(&HURRY).await;
    let mut events = site.events().await;
    for n in 0..24 {
        let id = format!("task-{n}");
        let images = [seed(n), seed(n / 2)];
        site.publish(&if n % 2 == 0 {
            task(&id, json!({}), &images)
        } else {
            task_async(&id, json!({}), &images)
        })
        .await;
    }
    site.counts(COMPLETED, 24).await;
    for _ in 0..24 {
        let event = events.next_json().await;
        for field in ["received_at", "completed_at"] {
            let minutes = minutes_off(event[field].as_str().unwrap());
            assert!(minutes.abs() <= 2, "{field} is {minutes} minutes off: {event}");
        }
    }
    site.nothing_left().await;
    let calls = site.calls().len();

    site.publish(&task_async("held", json!({ "gate": "held" }), &[seed(100)])).await;
    site.counts("SELECT COUNT(*) FROM image_edit_calls WHERE state = 'submitted'", 1).await;
    stays(&site, "held").await;
    site.open_gate("held");
    site.ended("held").await;
    drop((off, right));
    let mut slowest = Duration::ZERO;
    for first_is_off in [true, false] {
        slowest = slowest.max(takes_over(&site, offset, first_is_off).await);
    }
    assert_eq!(site.calls().len(), calls + 3, "something was paid twice");
    let harmed = "SELECT CAST(SUM(possible_duplicates) AS SIGNED) FROM image_edit_calls";
    assert_eq!((site.number(harmed).await, site.number("SELECT COUNT(*) FROM dead_letters").await), (0, 0));
    println!(
        "fault | clock{offset} | a worker whose clock is an hour off beside one whose clock is right; each killed in turn, the \
         other takes its call over | {:.1} s | 0 lost | 0 paid twice",
        slowest.as_secs_f64()
    );
}

/// One of them dies with a call under way: when its lease has expired, and not an hour before or after, the
/// other polls on.
async fn takes_over(site: &Site, offset: &str, first_is_off: bool) -> Duration {
    let start =
        async |is_off: bool| if is_off { wrong(site, offset).await } else { site.worker_with(&HURRY).await };
    let id = format!("taken-over-{first_is_off}");
    let mut first = start(first_is_off).await;
    site.publish(&task_async(&id, json!({ "gate": id }), &[seed(200)])).await;
    site.counts("SELECT COUNT(*) FROM image_edit_calls WHERE state = 'submitted'", 1).await;
    let _second = start(!first_is_off).await;
    stays(site, &id).await;
    first.kill9();
    let killed = Instant::now();
    site.open_gate(&id);
    assert_eq!(site.ended(&id).await.status, "completed");
    let took = killed.elapsed();
    site.nothing_left().await;
    took
}

#[tokio::test]
async fn a_worker_an_hour_ahead_behaves_like_the_others() {
    beside_a_worker_that_is_off_by("+1h").await;
}

#[tokio::test]
async fn a_worker_an_hour_behind_behaves_like_the_others() {
    beside_a_worker_that_is_off_by("-1h").await;
}

/// A day ahead: the budget's day is the database's, and no lane is paused or sped up.
#[tokio::test]
async fn a_workers_clock_moves_no_budget_and_no_pace() {
    let paid = Paid::on_servers().await;
    let toml = format!("[lanes.\"{LANE}\"]\ndaily_budget = \"0.70\"\n");
    let off = ["+24h", "-24h"].map(|offset| off_by(paid.program(&["worker"], &toml), offset).start());
    for worker in &off {
        working(worker).await;
    }
    for n in 0..7 {
        paid.site.publish(&paid::task(&format!("task-{n}"), "remove_watermark", "", &[picture(n)])).await;
    }
    paid.site.counts(COMPLETED, 5).await;
    paid.site.counts("SELECT COUNT(*) FROM lanes WHERE blocked_by IS NOT NULL", 1).await;
    let today = format!("SELECT COUNT(*) FROM lanes WHERE name = '{LANE}' AND spent_on = UTC_DATE()");
    assert_eq!(paid.site.number(&today).await, 1, "it is spent today");
    assert_eq!((paid.billed(), paid.provider.ledger().creates()), (5, 5));
    assert!(paid.provider.ledger().most_submits_in_a_second() <= 2);
    let tomorrow =
        "UPDATE lanes SET spent_on = spent_on - INTERVAL 1 DAY, probe_at = probe_at - INTERVAL 1 DAY";
    paid.site.execute(tomorrow).await;
    paid.site.counts(COMPLETED, 7).await;
    assert_eq!((paid.billed(), paid.provider.ledger().creates()), (7, 7));
    paid.site.nothing_left().await;
}
