//! What `retouch edit` says it has spent is what the provider's ledger says, whatever was interrupted, killed,
//! lost or shared. Task lists, statistics and lanes add up to the same.

use std::time::Duration;

use nix::sys::signal::Signal;
use retouch_shared::event::{decimal, micros};
use retouch_tests::laptop::{Laptop, counts};
use retouch_tests::paid::{LANE, PRICE, picture};
use retouch_tests::program::{Finished, Program};
use retouch_tests::stand_in::{Fault, Limits, OnCreate, StandIn};
use retouch_tests::wait;
use serde_json::{Value, json};

const HOUR: Duration = Duration::from_secs(3600);
const EDIT: [&str; 8] = ["edit", "in", "-t", "remove_watermark", "--prompt", "remove the text", "-o", "out"];

/// A folder of pictures and a provider without limits.
struct Desk {
    laptop: Laptop,
    provider: StandIn,
}

impl Desk {
    async fn new(pictures: u64, places: usize) -> Self {
        let (laptop, provider) = (Laptop::new(), StandIn::start().await);
        for seed in 0..pictures {
            laptop.write(&format!("in/{seed:02}.png"), picture(seed));
        }
        provider.set(|settings| {
            settings.limits = Limits::Off;
            settings.management_per_second = None;
            settings.task_duration = Duration::from_millis(50);
        });
        let desk = Self { laptop, provider };
        desk.settings(places, "");
        desk
    }

    fn settings(&self, places: usize, editor: &str) {
        let lane = format!("[lanes.\"{LANE}\"]\nmax_in_flight = {places}\nper_second = 100\n");
        let editor = format!("[editors.dashscope]\npoll_seconds = 0.1\n{editor}\n");
        self.laptop.write("retouch.toml", format!("{editor}{lane}"));
    }

    fn retouch(&self, arguments: &[&str]) -> Program {
        self.laptop
            .retouch(arguments)
            .env("DASHSCOPE_API_KEY", StandIn::KEY)
            .env("DASHSCOPE_BASE_URL", self.provider.dashscope_url())
            .env("RETOUCH_ALLOW_HOSTS", "127.0.0.1")
            .env("RETOUCH_LEASE_SECONDS", "2")
            .env("RETOUCH_PROBE_SECONDS", "1")
    }

    fn edit(&self, more: &[&str]) -> Program {
        self.retouch(&[&EDIT[..], more].concat())
    }

    /// The ledger once all is done there, in millionths.
    fn ledger(&self) -> i64 {
        self.provider.advance(HOUR);
        i64::try_from(self.provider.ledger().fen()).unwrap() * 10_000
    }

    /// Runs the command, which must say that it spent what it adds to the ledger.
    async fn spends_what_it_says(&self, more: &[&str]) -> Value {
        let before = self.ledger();
        let done = self.edit(&[more, &["--json"]].concat()).run().await;
        let (report, billed) = (report(&done), self.ledger() - before);
        assert_eq!(spent(&report), billed, "{report}");
        report
    }

    async fn shown(&self, arguments: &[&str]) -> Value {
        report(&self.retouch(&[arguments, &["--json"]].concat()).run().await)
    }

    async fn tasks(&self) -> Vec<Value> {
        self.shown(&["task", "list"]).await["tasks"].as_array().unwrap().clone()
    }

    /// What `cache stats` and `lanes` say, which is the ledger at any moment.
    async fn figures_agree(&self) {
        let stats = self.shown(&["cache", "stats"]).await;
        let known = sum(&stats["spending"], "amount") + sum(&stats["in_flight"], "amount");
        let lanes = sum(&self.shown(&["lanes"]).await, "spent_today");
        assert_eq!([known, lanes], [self.ledger(); 2], "{stats}");
    }
}

fn report(done: &Finished) -> Value {
    serde_json::from_str(&done.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", done.stdout, done.stderr))
}

fn sum(rows: &Value, field: &str) -> i64 {
    rows.as_array().unwrap().iter().map(|row| amount(&row[field])).sum()
}

fn amount(text: &Value) -> i64 {
    text.as_str().map_or(0, |text| micros(text).unwrap())
}

/// What a report says was spent.
fn spent(report: &Value) -> i64 {
    let cost = amount(&report["cost"]["paid"]) + amount(&report["cost"]["lost"]);
    let bill = report["bill"].as_array().map_or(0, |_| sum(&report["bill"], "spent"));
    assert_eq!(cost, bill, "{report}");
    cost
}

fn one_edit() -> Value {
    json!({"edits": 1, "costs": [{"amount": "0.14", "currency": "CNY"}]})
}

#[tokio::test]
async fn a_command_after_a_kill_says_what_it_spends_and_saves() {
    let desk = Desk::new(14, 1).await;
    let interrupted = desk.edit(&["--json"]).start();
    let some = async || (desk.laptop.list("out").len() >= 4).then_some(());
    wait::until("four results", some).await;
    interrupted.signal(Signal::SIGINT);
    assert_eq!(interrupted.exit().await.code(), Some(130), "{}", interrupted.stderr());
    let first: Value = serde_json::from_str(&interrupted.stdout()).unwrap();
    assert_eq!(spent(&first), desk.ledger(), "{first}");
    let held = desk.provider.arm(Fault::Create(OnCreate::Hold { created: true }));
    let mut killed = desk.edit(&[]).start();
    held.held(1).await;
    killed.kill9();
    held.clear();
    desk.figures_agree().await;
    let last = desk.spends_what_it_says(&[]).await;
    assert_eq!(last["sent_again"], one_edit(), "{last}");
    assert_eq!(last["taken_over"]["edits"], spent(&last) / PRICE, "{last}");
    let [hit, joined, paid, failed] = counts(&last);
    assert_eq!((hit + joined, paid, failed), (14, 0, 0), "{last}");
    assert_eq!(amount(&last["cost"]["saved"]), i64::try_from(hit).unwrap() * PRICE, "{last}");
    desk.figures_agree().await;
    assert_eq!(desk.ledger(), 15 * PRICE, "one of fourteen twice");
}

#[tokio::test]
async fn lost_answers_are_in_the_cost_of_the_command_that_sent_them() {
    let desk = Desk::new(3, 3).await;
    let dropped = desk.provider.arm(Fault::Create(OnCreate::Drop { created: true }).always());
    let before = desk.ledger();
    let done = desk.edit(&[]).run().await;
    let lost = desk.ledger() - before;
    assert!(lost >= 3 * PRICE, "{lost}");
    let cost = format!("{} CNY", decimal(lost));
    assert!(done.stdout.contains("of which for nothing"), "{}", done.stdout);
    let line = format!(
        "{} submits were not answered: {cost} of the cost above is perhaps charged, for nothing",
        lost / PRICE
    );
    assert!(done.stdout.contains(&line), "{}", done.stdout);
    assert_eq!(done.stdout.matches(&cost).count(), 3, "in the table as well: {}", done.stdout);
    for _ in 0..3 {
        let report = desk.spends_what_it_says(&[]).await;
        assert!(report.get("resumed").is_none(), "{report}");
    }
    desk.figures_agree().await;
    // What its calls have lost stands on the tasks also while they wait.
    let tasks = desk.tasks().await;
    let of_tasks: i64 = tasks.iter().map(|task| amount(&task["cost"]["lost"])).sum();
    assert_eq!(of_tasks, desk.ledger(), "{tasks:?}");
    dropped.clear();
}

#[tokio::test]
async fn a_limit_that_a_lost_answer_has_used_up_says_so() {
    let desk = Desk::new(1, 1).await;
    desk.provider.arm(Fault::Create(OnCreate::Drop { created: true }));
    let report = desk.spends_what_it_says(&["--max-cost", "0.14"]).await;
    assert_eq!((spent(&report), amount(&report["bill"][0]["unanswered"])), (PRICE, PRICE), "{report}");
    desk.figures_agree().await;
    let tasks = desk.tasks().await;
    assert_eq!((tasks.len(), &tasks[0]["cost"]["lost"]), (1, &json!("0.14")), "{tasks:?}");
}

#[tokio::test]
async fn results_that_cannot_be_fetched_are_paid_once_and_said() {
    let desk = Desk::new(4, 2).await;
    let port = desk.provider.address().port();
    desk.provider.set(|settings| settings.result_base = Some(format!("http://localhost:{port}")));
    let first = desk.spends_what_it_says(&[]).await;
    let paid = desk.ledger();
    assert!(paid > 0, "{first}");
    assert_eq!(amount(&first["bill"][0]["under_way"]), paid, "{first}");
    desk.figures_agree().await;
    let stats = desk.retouch(&["cache", "stats"]).run().await.stdout;
    assert!(stats.contains("CNY  accepted, charged: "), "{stats}");
    assert_eq!(amount(&desk.tasks().await[0]["under_way"]["amount"]), paid);
    let again = desk.spends_what_it_says(&[]).await;
    assert!(sum_of(&again["resumed"]) <= paid, "{again}");
    let paid = desk.ledger();
    desk.settings(2, "result_hosts = [\"localhost\"]");
    let last = desk.spends_what_it_says(&[]).await;
    assert_eq!(sum_of(&last["resumed"]), paid, "{last}");
    assert_eq!(amount(&last["cost"]["saved"]), 0, "{last}");
    desk.figures_agree().await;
}

#[tokio::test]
async fn a_cancel_names_what_is_paid_and_in_flight() {
    let desk = Desk::new(10, 2).await;
    desk.provider.set(|settings| settings.task_duration = HOUR);
    let mut killed = desk.edit(&[]).start();
    let sent = async || {
        let tasks = desk.tasks().await;
        (amount(&tasks.first()?["under_way"]["amount"]) == 2 * PRICE).then_some(())
    };
    wait::until("two calls under way", sent).await;
    let committed = async || (sum(&accepted(&desk).await, "amount") == 2 * PRICE).then_some(());
    wait::until("their ids", committed).await;
    killed.kill9();
    let id = desk.tasks().await[0]["task_id"].as_str().unwrap().to_owned();
    desk.laptop.write("dog.png", picture(99));
    let invert = ["edit", "dog.png", "-t", "invert"];
    let left = desk.shown(&invert).await["left_alone"].clone();
    let spent = json!([{"amount": "0.28", "currency": "CNY"}]);
    assert_eq!((&left["edits"], &left["spent"]), (&json!(10), &spent), "{left}");
    assert_eq!(left["costs"][0]["amount"], "1.12", "{left}");
    let cancelled = desk.retouch(&["task", "cancel", &id]).run().await.stdout;
    assert!(cancelled.contains("is cancelled: failed, 0 of 10 images have a result"), "{cancelled}");
    assert!(cancelled.contains("2 edits were sent before, 0.28 CNY: `retouch worker`"), "{cancelled}");
    desk.figures_agree().await;
    let left = desk.retouch(&invert).run().await.stdout;
    let says = "2 unfinished edits of earlier commands, 0.28 CNY spent already, were left alone: \
                their tasks have ended, `retouch worker` carries them on";
    assert!(left.contains(says), "{left}");
    // The worker keeps what was paid for, and what was not sent is not bought.
    let _worker = desk.retouch(&["worker"]).env("RETOUCH_SWEEP_SECONDS", "1").start();
    let kept = async || (desk.shown(&["cache", "stats"]).await["entries"].as_i64()? == 3).then_some(());
    wait::until("both in the cache, beside the dog", kept).await;
    desk.figures_agree().await;
    assert_eq!(desk.ledger(), 2 * PRICE);
}

/// What is in flight and accepted.
async fn accepted(desk: &Desk) -> Value {
    let stats = desk.shown(&["cache", "stats"]).await;
    let rows = stats["in_flight"].as_array().unwrap().iter();
    rows.filter(|row| row["accepted"] == true).cloned().collect()
}

#[tokio::test]
async fn two_commands_at_once_say_together_what_both_have_spent() {
    let desk = Desk::new(10, 2).await;
    desk.provider.set(|settings| settings.task_duration = Duration::from_millis(300));
    let first = desk.edit(&["--json"]).start();
    let taken_in = async || (desk.tasks().await.first()?["images"] == 10).then_some(());
    wait::until("the first task", taken_in).await;
    let second = report(&desk.edit(&["--json"]).run().await);
    assert_eq!(first.exit().await.code(), Some(0), "{}", first.stderr());
    let first: Value = serde_json::from_str(&first.stdout()).unwrap();
    assert_eq!(desk.ledger(), 10 * PRICE);
    assert_eq!(spent(&first) + spent(&second), 10 * PRICE, "{first} {second}");
    // Twenty images for ten calls: what one has not paid for is saved.
    let saved = amount(&first["cost"]["saved"]) + amount(&second["cost"]["saved"]);
    assert_eq!(saved, 10 * PRICE, "{first} {second}");
    for report in [&first, &second] {
        assert!(report.get("resumed").is_none(), "{report}");
    }
    assert_eq!(sum_of(&second["taken_over"]), spent(&second), "{second}");
    assert_eq!(sum_of(&first["paid_by_others"]), spent(&second), "{first}");
    desk.figures_agree().await;
}

fn sum_of(edits: &Value) -> i64 {
    edits["costs"].as_array().map_or(0, |_| sum(&edits["costs"], "amount"))
}
