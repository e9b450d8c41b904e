//! A person pays for what that person started: an edit performs its own calls, and what it leaves is its own
//! to go on with.

use std::time::Duration;

use nix::sys::signal::Signal;
use retouch_tests::laptop::{Laptop, counts, images};
use retouch_tests::paid::{LANE, WANX, asked, picture};
use retouch_tests::pictures::same_pixels;
use retouch_tests::program::{Program, Running};
use retouch_tests::stand_in::{Fault, Limits, OnCreate, StandIn, expected};
use retouch_tests::wait;
use serde_json::{Value, json};

const SAID: &str = "remove the text";
/// Pictures of the folder that is interrupted.
const PICTURES: u64 = 40;
/// Calls at a time.
const PLACES: usize = 4;
const HOUR: Duration = Duration::from_secs(3600);

/// A folder of 4 pictures whose edit waits at a gate, one at a time, until it is killed or interrupted.
async fn leave_unfinished(laptop: &Laptop, signal: Signal) {
    for seed in 0..4 {
        laptop.picture(&format!("in/{seed}.png"), seed);
    }
    laptop.write("retouch.toml", "[lanes.double]\nconcurrency = 1");
    let edit = laptop.retouch(&["edit", "in", "-t", "double", "--param", "gate=never"]);
    let mut edit = edit.env("RETOUCH_LEASE_SECONDS", "2").env("RETOUCH_PATIENCE_SECONDS", "1").start();
    laptop.called(1).await;
    // All are taken in.
    let four = async || (tasks(laptop).await.first()?["images"] == 4).then_some(());
    wait::until("the task", four).await;
    if signal == Signal::SIGKILL {
        return edit.kill9();
    }
    wait::until("the end", async || {
        edit.signal(signal);
        edit.status()
    })
    .await;
}

async fn tasks(laptop: &Laptop) -> Vec<Value> {
    laptop.report(&["task", "list"]).await["tasks"].as_array().unwrap().clone()
}

async fn nothing_of_others_is_bought(signal: Signal) {
    let laptop = Laptop::new();
    leave_unfinished(&laptop, signal).await;
    laptop.picture("dog.png", 9);
    let edit = ["edit", "dog.png", "-t", "double", "-o", "dogs"];
    let report = laptop.report(&edit).await;
    assert_eq!((counts(&report), laptop.calls().len()), ([0, 0, 1, 0], 2), "its own call, and no other");
    assert_eq!(report["cost"]["paid"], "0.14");
    let left = json!({
        "edits": 4, "costs": [{"amount": "0.56", "currency": "CNY"}],
        // One was being sent, and may be paid.
        "spent": [{"amount": "0.14", "currency": "CNY"}], "without_task": 0
    });
    assert_eq!(report["left_alone"], left);
    let done = laptop.retouch(&edit).run().await;
    let says = "4 unfinished edits of earlier commands, 0.14 CNY spent already, about 0.56 CNY to be paid, were left alone";
    assert!(done.stderr.contains(says) && done.stdout.contains(says), "{}{}", done.stdout, done.stderr);
    // Local edits of another lane say so as well, and cost nothing.
    assert!(laptop.retouch(&["edit", "dog.png", "-t", "invert"]).run().await.status.success());
    assert_eq!(laptop.calls().len(), 2);
}

#[tokio::test]
async fn what_a_killed_command_left_is_named_and_not_bought() {
    nothing_of_others_is_bought(Signal::SIGKILL).await;
}

#[tokio::test]
async fn what_an_interrupted_command_left_is_named_and_not_bought() {
    nothing_of_others_is_bought(Signal::SIGINT).await;
}

#[tokio::test]
async fn what_is_queued_for_workers_is_left_to_them() {
    let laptop = Laptop::new();
    laptop.picture("cat.png", 1);
    laptop.picture("dog.png", 2);
    assert!(laptop.retouch(&["submit", "cat.png", "-t", "double"]).run().await.status.success());
    let report = laptop.report(&["edit", "dog.png", "-t", "double"]).await;
    assert_eq!((counts(&report), laptop.calls().len()), ([0, 0, 1, 0], 1));
    let worker = laptop.retouch(&["worker"]).start();
    laptop.called(2).await;
    drop(worker);
}

#[tokio::test]
async fn a_worker_performs_what_a_killed_command_left() {
    let laptop = Laptop::new();
    leave_unfinished(&laptop, Signal::SIGKILL).await;
    laptop.open_gate("never");
    let hurry =
        [("RETOUCH_LEASE_SECONDS", "1"), ("RETOUCH_SWEEP_SECONDS", "1"), ("RETOUCH_PATIENCE_SECONDS", "1")];
    let worker = hurry
        .into_iter()
        .fold(laptop.retouch(&["worker"]), |program, (name, value)| program.env(name, value));
    let worker = worker.start();
    let ended = async || (tasks(&laptop).await[0]["status"] == "completed").then_some(());
    wait::until("the end of the task", ended).await;
    drop(worker);
}

/// 40 pictures and a provider without limits, four calls at a time.
async fn paid_folder() -> (Laptop, StandIn) {
    let (laptop, provider) = (Laptop::new(), StandIn::start().await);
    for seed in 0..PICTURES {
        laptop.write(&format!("in/{seed:02}.png"), picture(seed));
    }
    provider.set(|settings| {
        settings.limits = Limits::Off;
        settings.management_per_second = None;
        settings.task_duration = Duration::from_millis(100);
    });
    let lane = format!("[lanes.\"{LANE}\"]\nmax_in_flight = {PLACES}\nper_second = 100\n");
    laptop.write("retouch.toml", format!("[editors.dashscope]\npoll_seconds = 0.1\n{lane}"));
    (laptop, provider)
}

fn remove_text(laptop: &Laptop, provider: &StandIn, more: &[&str]) -> Program {
    let edit = ["edit", "in", "--type", "remove_watermark", "--prompt", SAID, "--out", "out"];
    laptop
        .retouch(&[&edit[..], more].concat())
        .env("DASHSCOPE_API_KEY", StandIn::KEY)
        .env("DASHSCOPE_BASE_URL", provider.dashscope_url())
        .env("RETOUCH_ALLOW_HOSTS", "127.0.0.1")
        .env("RETOUCH_LEASE_SECONDS", "2")
}

/// Lets half of the pictures be done, and the next four be accepted and take long.
async fn half_way(laptop: &Laptop, provider: &StandIn) -> Running {
    let edit = remove_text(laptop, provider, &[]).start();
    let half = async || (laptop.list("out").len() as u64 >= PICTURES / 2).then_some(());
    wait::until("half of the results on the disk", half).await;
    provider.set(|settings| settings.task_duration = HOUR);
    // Once the four places are taken by what takes long, nothing moves any more.
    let under_way = async || {
        let ledger = provider.ledger();
        let open = ledger.creates() - usize::try_from(ledger.billed()).unwrap();
        let written = laptop.list("out").iter().filter(|name| !name.starts_with('.')).count();
        (open == PLACES && written as u64 == ledger.billed()).then_some(())
    };
    wait::until("four under way and the others written", under_way).await;
    // Committed as well: a kill before that is the one window in which a call may be paid twice.
    let committed = async || (submitted(laptop).await == PLACES as i64).then_some(());
    wait::until("the ids of the four", committed).await;
    edit
}

async fn submitted(laptop: &Laptop) -> i64 {
    let file = laptop.path(".local/share/retouch/retouch.sqlite");
    let options =
        sqlx::sqlite::SqliteConnectOptions::new().filename(file).busy_timeout(Duration::from_secs(20));
    let mut database = sqlx::ConnectOptions::connect(&options).await.unwrap();
    let count = "SELECT count(*) FROM image_edit_calls WHERE state = 'submitted'";
    let count = sqlx::query_scalar(count).fetch_one(&mut database).await.unwrap();
    sqlx::Connection::close(database).await.unwrap();
    count
}

/// The same command again: the finished are there, the rest is paid for, and nothing twice.
async fn the_repeat_pays_for_the_rest_only(laptop: &Laptop, provider: &StandIn) {
    let before = provider.ledger();
    let written = laptop.list("out");
    assert!((20..40).contains(&(before.billed())), "{} were done", before.billed());
    provider.set(|settings| settings.task_duration = Duration::from_millis(20));
    provider.advance(HOUR);
    let done = remove_text(laptop, provider, &["--json"]).run().await;
    assert!(done.status.success(), "{}{}", done.stdout, done.stderr);
    let report: Value = serde_json::from_str(&done.stdout).unwrap();
    let rest = PICTURES - before.billed();
    assert_eq!(counts(&report), [before.billed(), rest, 0, 0], "hits, and what the first run had started");
    assert_eq!(report["resumed"]["edits"], PLACES, "{report}");
    assert_eq!(report["taken_over"]["edits"], rest - PLACES as u64, "{report}");
    let ledger = provider.ledger();
    assert_eq!((ledger.creates() as u64, ledger.billed()), (PICTURES, PICTURES), "each once");
    assert_eq!(laptop.list("out").len() as u64, PICTURES, "no second copy: {:?} before", written);
    for (seed, output) in (0..).zip(images(&report, "output")) {
        let expected = expected(&picture(seed), &asked("remove_watermark", SAID));
        assert!(same_pixels(&laptop.read(&output), &expected), "{output}");
    }
}

#[tokio::test]
async fn forty_pictures_interrupted_at_half_are_kept_and_the_rest_is_paid_once() {
    let (laptop, provider) = paid_folder().await;
    let edit = half_way(&laptop, &provider).await;
    edit.signal(Signal::SIGINT);
    assert_eq!(edit.exit().await.code(), Some(130), "{}", edit.stderr());
    let done = provider.ledger().billed();
    let says = format!(
        "interrupted: {done} of 40 pictures done; 4 edits are under way at the provider, about 0.56 CNY; "
    );
    assert!(edit.stderr().contains(&says), "{}", edit.stderr());
    assert_eq!(edit.stdout().matches("✓ in/").count() as u64, done, "each was said when it was written");
    the_repeat_pays_for_the_rest_only(&laptop, &provider).await;
}

#[tokio::test]
async fn forty_pictures_killed_at_half_are_kept_and_the_rest_is_paid_once() {
    let (laptop, provider) = paid_folder().await;
    half_way(&laptop, &provider).await.kill9();
    the_repeat_pays_for_the_rest_only(&laptop, &provider).await;
}

#[tokio::test]
async fn a_dry_run_says_what_it_would_cost_and_does_nothing() {
    let laptop = Laptop::new();
    for seed in 0..3 {
        laptop.picture(&format!("in/{seed}.png"), seed);
    }
    laptop.picture("in/again.png", 2);
    laptop.report(&["edit", "in/0.png", "-t", "double"]).await;
    let dry = ["edit", "in", "-t", "double", "-o", "out", "--dry-run"];
    let report = laptop.report(&dry).await;
    let of = |field: &str| report[field].clone();
    assert_eq!(
        [of("images"), of("hit"), of("joined"), of("calls")],
        [4, 1, 1, 2].map(Value::from),
        "{report}"
    );
    assert_eq!(of("cost"), json!({"amount": "0.28", "currency": "CNY"}));
    let text = laptop.retouch(&dry).run().await.stdout;
    assert_eq!(
        text,
        "4 images: 1 hit, 1 joined, 2 to be edited (about 0.28 CNY), 0 failed; nothing was done\n"
    );
    assert_eq!((laptop.calls().len(), laptop.list("out").len(), tasks(&laptop).await.len()), (1, 0, 1));
    let real = laptop.report(&["edit", "in", "-t", "double", "-o", "out"]).await;
    assert_eq!(counts(&real), [1, 1, 2, 0]);
}

#[tokio::test]
async fn a_command_that_would_cost_more_than_allowed_begins_nothing() {
    let laptop = Laptop::new();
    for seed in 0..3 {
        laptop.picture(&format!("in/{seed}.png"), seed);
    }
    let edit = |limit: &'static str| laptop.retouch(&["edit", "in", "-t", "double", "--max-cost", limit]);
    let refused = edit("0.41").run().await;
    assert_eq!(refused.status.code(), Some(2));
    let says =
        "retouch: --max-cost 0.41 CNY: 3 edits at 0.14 CNY each would cost 0.42 CNY; nothing was begun\n";
    assert_eq!(refused.stderr, says);
    assert_eq!((laptop.calls().len(), tasks(&laptop).await.len()), (0, 0));
    let wrong = edit("much").run().await;
    assert!(wrong.stderr.starts_with("retouch: --max-cost much: must be an amount"), "{}", wrong.stderr);
    assert!(edit("0.42").run().await.status.success());
    // What is in the cache costs nothing.
    assert!(edit("0").run().await.status.success());
    assert_eq!(laptop.calls().len(), 3);
}

#[tokio::test]
async fn a_call_that_may_be_paid_twice_is_not_sent_again_beyond_the_limit() {
    let (laptop, provider) = (Laptop::new(), StandIn::start().await);
    laptop.write("in/1.png", picture(1));
    let dropped = provider.arm(Fault::Create(OnCreate::Drop { created: true }));
    let edit = remove_text(&laptop, &provider, &["--max-cost", "0.2"]).run().await;
    assert_eq!(edit.status.code(), Some(1), "{}{}", edit.stdout, edit.stderr);
    assert!(edit.stderr.contains("--max-cost is used up"), "{}", edit.stderr);
    assert_eq!((dropped.fired(), provider.ledger().creates()), (1, 1), "model {WANX}");
    // Nothing is left that another process would buy.
    assert_eq!(tasks(&laptop).await[0]["status"], "failed");
}
