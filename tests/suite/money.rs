//! Every amount of money is shown: the provider's bill, `cache stats`, `lanes`, `/metrics` and the events'
//! costs say the same, to the cent, whatever went wrong. What may or may not have been charged is a figure of
//! its own.

use std::collections::BTreeMap;
use std::time::Duration;

use retouch_shared::event::micros;
use retouch_tests::kills::agree::{Told, disagreements};
use retouch_tests::kills::feed::{Mode, nth};
use retouch_tests::paid::Paid;
use retouch_tests::stand_in::{
    Chaos, Create, Fault, Ledger, Limits, OnCreate, OnResult, OnTask, Refusal, Shape, Told as Heard,
    find_model,
};
use retouch_tests::watched::Watched;
use serde_json::Value;

const TASKS: u64 = 40;
const ENDED: &str = "SELECT COUNT(*) FROM image_edit_tasks WHERE status NOT IN ('pending', 'processing')";
const WITHIN: Duration = Duration::from_secs(110);
const HURRY: [(&str, &str); 2] = [("RETOUCH_LEASE_SECONDS", "2"), ("RETOUCH_PATIENCE_SECONDS", "2")];
/// Millionths in a hundredth.
const CENT: i64 = 10_000;
/// What [`Mode::toml`] says a picture of OpenAI's model costs.
const GPT_CENTS: i64 = 4;

/// All that a provider may charge for without a picture coming of it, and what it does not charge for.
fn faults() -> Chaos {
    let refuse = |created| OnCreate::Refuse { refusal: Refusal::internal_error(), created };
    let inspection =
        Refusal::new(400, "DataInspectionFailed", "Output data may contain inappropriate content.");
    Chaos::transient(0.03)
        .with(0.05, Fault::Create(OnCreate::Drop { created: true }))
        .with(0.03, Fault::Create(OnCreate::Drop { created: false }))
        .with(0.03, Fault::Create(refuse(true)))
        .with(0.03, Fault::Create(refuse(false)))
        .with(0.05, Fault::Task(OnTask::Fail(inspection)))
        .with(0.03, Fault::Task(OnTask::Cancel))
        .with(0.05, Fault::Result(OnResult::Html))
}

/// The bill in millionths: of creates that the worker was told of, and of those whose answer it never got.
fn bill(ledger: &Ledger) -> (i64, i64) {
    let told: BTreeMap<&str, &Create> =
        ledger.received.iter().filter_map(|create| Some((create.task_id.as_deref()?, create))).collect();
    let mut sums = (0, 0);
    for bill in &ledger.bills {
        let fen = find_model(&bill.model).map_or(0, |model| i64::try_from(model.price_fen).unwrap());
        let cents = if fen == 0 { GPT_CENTS } else { fen };
        let amount = cents * i64::try_from(bill.images).unwrap() * CENT;
        match told[bill.task_id.as_str()].told {
            Heard::Accepted => sums.0 += amount,
            Heard::Nothing | Heard::Dropped | Heard::Refused(..) => sums.1 += amount,
        }
    }
    sums
}

/// What the program says, in millionths.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    /// Bought a picture.
    bought: i64,
    /// Charged, and bought nothing.
    lost: i64,
    /// Perhaps charged.
    perhaps: i64,
}

impl Said {
    fn total(&self) -> i64 {
        self.bought + self.lost + self.perhaps
    }
}

async fn stats(paid: &Paid) -> Said {
    let stats = paid.program(&["cache", "stats", "--json", "--top", "0"], "").run().await;
    let stats: Value = serde_json::from_str(&stats.stdout).unwrap();
    let sum = |fits: fn(&str) -> bool| {
        let rows = stats["spending"].as_array().unwrap().iter();
        let rows = rows.filter(|row| fits(row["outcome"].as_str().unwrap()));
        rows.map(|row| micros(row["amount"].as_str().unwrap()).unwrap()).sum()
    };
    Said {
        bought: sum(|outcome| matches!(outcome, "result" | "unwanted")),
        lost: sum(|outcome| !matches!(outcome, "result" | "unwanted" | "ambiguous")),
        perhaps: sum(|outcome| outcome == "ambiguous"),
    }
}

/// What the lanes say is spent today, in millionths.
async fn lanes(paid: &Paid) -> i64 {
    let lanes = paid.program(&["lanes", "--json"], "").run().await;
    let lanes: Value = serde_json::from_str(&lanes.stdout).unwrap();
    lanes.as_array().unwrap().iter().map(|lane| micros(lane["spent_today"].as_str().unwrap()).unwrap()).sum()
}

/// The counters of this process and the day's figures, in millionths.
async fn metrics(watched: &Watched) -> [i64; 2] {
    let scrape = watched.scrape().await;
    #[expect(clippy::cast_possible_truncation, reason = "far below 2^52")]
    let sum =
        |names: &[&str]| names.iter().map(|name| (scrape.sum(name, &[]) * 1e6).round() as i64).sum::<i64>();
    [sum(&["retouch_paid_money_total", "retouch_lost_money_total"]), sum(&["retouch_spent_today_money"])]
}

/// A person has looked at the answer, and lets the lane go on.
async fn resume_after_an_unreadable_answer(paid: &Paid) {
    paid.site.counts("SELECT COUNT(*) FROM dead_letters WHERE reason = 'unreadable_answer'", 1).await;
    for lane in paid.site.texts("SELECT name FROM lanes WHERE blocked_code = 'unreadable_answer'").await {
        assert!(paid.program(&["lanes", "resume", &lane], "").run().await.status.success());
    }
}

async fn every_figure_agrees(mode: Mode, seed: u64) {
    let paid = Paid::on_servers().await;
    if mode != Mode::AsyncList {
        paid.provider.set(|settings| settings.limits = Limits::Off);
    }
    drop(paid.worker("").await);
    let told = Told::listen(paid.site.events().await);
    let struck = paid.provider.chaos(seed, faults());
    let toml = mode.toml().replacen("[editors.dashscope]\npoll_seconds = 0.1\n", "", 1);
    let watched = Watched::start(&paid, &toml, &HURRY).await;
    // One answer cannot be read. Where the list is asked, its task would be taken for another program's.
    let unreadable = mode != Mode::AsyncList;
    if unreadable {
        paid.provider.arm(Fault::Create(OnCreate::Shaped(Shape::Odd)));
    }
    for n in 0..TASKS {
        paid.site.publish(&nth(mode, n).2).await;
    }
    if unreadable {
        resume_after_an_unreadable_answer(&paid).await;
    }
    paid.site.counts_within(WITHIN, ENDED, i64::try_from(TASKS).unwrap()).await;
    paid.provider.clear_faults();
    paid.site.nothing_left().await;
    assert!(struck.fired() > 10, "{} faults", struck.fired());

    let (heard, unheard) = bill(&paid.provider.ledger());
    let said = stats(&paid).await;
    let of_tasks =
        paid.site.number("SELECT CAST(SUM(paid_micros + lost_micros) AS SIGNED) FROM image_edit_tasks").await;
    println!(
        "money | {} | billed {heard} + {unheard} of which nothing was heard | bought {} | for nothing {} | perhaps {}",
        mode.name(),
        said.bought,
        said.lost,
        said.perhaps
    );
    assert_eq!(said.lost > 0, unreadable, "{said:?}");
    if mode == Mode::AsyncList {
        // The provider's list tells what became of a submit without an answer, so that nothing is left
        // uncertain.
        assert_eq!((said.bought + said.lost, said.perhaps), (heard + unheard, 0), "{said:?}");
    } else {
        assert_eq!(said.bought + said.lost, heard, "{said:?}");
        assert!(said.perhaps >= unheard, "{said:?}, and {unheard} unheard");
    }
    assert_eq!(lanes(&paid).await, said.total(), "lanes");
    assert_eq!(metrics(&watched).await, [said.total(); 2], "metrics");
    assert_eq!(of_tasks, said.total(), "the events' costs");
    // Tables, stats, metrics of the day and events.
    assert_eq!(disagreements(&paid, &watched, &told, TASKS).await, Vec::<String>::new());
}

#[tokio::test]
async fn every_figure_agrees_with_the_bill_of_calls_answered_at_once() {
    every_figure_agrees(Mode::Sync, 31).await;
}

#[tokio::test]
async fn every_figure_agrees_with_the_bill_of_polled_calls() {
    every_figure_agrees(Mode::Async, 32).await;
}

#[tokio::test]
async fn every_figure_agrees_with_the_bill_where_the_list_is_asked() {
    every_figure_agrees(Mode::AsyncList, 33).await;
}
