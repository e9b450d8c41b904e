//! A command whose lane has no place, or takes no calls: it carries on what costs nothing, says what it waits
//! for, and ends where waiting leads to nothing.

use std::time::Duration;

use nix::sys::signal::Signal;
use retouch_tests::laptop::Laptop;
use retouch_tests::paid::{LANE, picture};
use retouch_tests::program::{Finished, Program, Running};
use retouch_tests::stand_in::{Fault, Limits, OnCreate, OnTask, Refusal, StandIn};
use retouch_tests::wait;
use serde_json::Value;
use sqlx::AssertSqlSafe;

const HOUR: Duration = Duration::from_secs(3600);

/// A lane of two places, and a provider whose tasks take an hour.
async fn narrow() -> (Laptop, StandIn) {
    let (laptop, provider) = (Laptop::new(), StandIn::start().await);
    provider.set(|settings| {
        settings.limits = Limits::Off;
        settings.task_duration = HOUR;
    });
    laptop.write("retouch.toml", "[editors.dashscope]\npoll_seconds = 0.1\n");
    for seed in 0..2 {
        laptop.write(&format!("first/{seed}.png"), picture(seed));
        laptop.write(&format!("second/{seed}.png"), picture(10 + seed));
    }
    (laptop, provider)
}

fn edit(laptop: &Laptop, provider: &StandIn, folder: &str) -> Program {
    let out = format!("{folder}-out");
    program(laptop, provider, &["edit", folder, "--type", "remove_watermark", "--out", &out])
}

fn program(laptop: &Laptop, provider: &StandIn, arguments: &[&str]) -> Program {
    laptop
        .retouch(arguments)
        .env("DASHSCOPE_API_KEY", StandIn::KEY)
        .env("DASHSCOPE_BASE_URL", provider.dashscope_url())
        .env("RETOUCH_ALLOW_HOSTS", "127.0.0.1")
        .env("RETOUCH_LEASE_SECONDS", "2")
        .env("RETOUCH_PATIENCE_SECONDS", "3")
        .env("RETOUCH_SWEEP_SECONDS", "1")
}

/// Calls in this state.
async fn calls(laptop: &Laptop, state: &str) -> i64 {
    calls_that(laptop, &format!("state = '{state}'")).await
}

async fn calls_that(laptop: &Laptop, are: &str) -> i64 {
    let file = laptop.path(".local/share/retouch/retouch.sqlite");
    let options =
        sqlx::sqlite::SqliteConnectOptions::new().filename(file).busy_timeout(Duration::from_secs(20));
    let mut database = sqlx::ConnectOptions::connect(&options).await.unwrap();
    let count = AssertSqlSafe(format!("SELECT count(*) FROM image_edit_calls WHERE {are}"));
    let count = sqlx::query_scalar(count).fetch_one(&mut database).await.unwrap();
    sqlx::Connection::close(database).await.unwrap();
    count
}

async fn are(laptop: &Laptop, count: i64, state: &str) {
    let there = async || (calls(laptop, state).await == count).then_some(());
    wait::until(&format!("{count} calls that are {state}"), there).await;
}

/// A command that has taken both places, with both ids recorded.
async fn both_places_taken(laptop: &Laptop, provider: &StandIn) -> Running {
    let edit = edit(laptop, provider, "first").start();
    let created = async || (provider.ledger().creates() == 2).then_some(());
    wait::until("two tasks at the provider", created).await;
    are(laptop, 2, "submitted").await;
    edit
}

async fn interrupted(edit: &Running) {
    edit.signal(Signal::SIGINT);
    assert_eq!(edit.exit().await.code(), Some(130), "{}", edit.stderr());
}

/// From now on the provider is quick, and what it has begun is done.
fn hurry(provider: &StandIn) {
    provider.set(|settings| settings.task_duration = Duration::from_millis(20));
    provider.advance(HOUR);
}

async fn task_ids(laptop: &Laptop) -> Vec<String> {
    let tasks = laptop.report(&["task", "list"]).await;
    let tasks = tasks["tasks"].as_array().unwrap().iter();
    tasks.map(|task| task["task_id"].as_str().unwrap().to_owned()).collect()
}

/// The second folder is edited, what the first command had sent is kept, and each is paid for once.
async fn the_second_command_gets_on(laptop: &Laptop, provider: &StandIn) {
    hurry(provider);
    let done = edit(laptop, provider, "second").run().await;
    assert!(done.status.success(), "{}{}", done.stdout, done.stderr);
    let says = format!("2 edits of earlier commands hold places of the lane {LANE}: carried on first");
    assert_eq!(done.stderr.matches(&says).count(), 1, "{}", done.stderr);
    assert!(done.stderr.contains("which costs nothing more"), "{}", done.stderr);
    let all = done.stdout + &done.stderr;
    assert!(!all.contains("left alone"), "{all}");
    assert_eq!(laptop.list("second-out").len(), 2);
    assert_eq!((provider.ledger().creates(), provider.ledger().billed()), (4, 4));
    // A hit now: what the first command paid for is not lost.
    let again = edit(laptop, provider, "first").run().await;
    assert!(again.status.success(), "{}", again.stderr);
    assert_eq!((laptop.list("first-out").len(), provider.ledger().creates()), (2, 4));
}

#[tokio::test]
async fn places_of_an_interrupted_command_come_free() {
    let (laptop, provider) = narrow().await;
    interrupted(&both_places_taken(&laptop, &provider).await).await;
    the_second_command_gets_on(&laptop, &provider).await;
}

#[tokio::test]
async fn places_of_a_killed_command_come_free() {
    let (laptop, provider) = narrow().await;
    both_places_taken(&laptop, &provider).await.kill9();
    the_second_command_gets_on(&laptop, &provider).await;
}

#[tokio::test]
async fn places_of_cancelled_tasks_come_free() {
    let (laptop, provider) = narrow().await;
    interrupted(&both_places_taken(&laptop, &provider).await).await;
    for id in task_ids(&laptop).await {
        assert!(laptop.retouch(&["task", "cancel", &id]).run().await.status.success());
    }
    the_second_command_gets_on(&laptop, &provider).await;
}

#[tokio::test]
async fn what_the_provider_has_lost_is_queued_again_and_not_sent() {
    let (laptop, provider) = narrow().await;
    let lost = Refusal::new(500, "InternalError", "An internal error has occurred.");
    provider.arm(Fault::Task(OnTask::Fail(lost)).times(2));
    interrupted(&both_places_taken(&laptop, &provider).await).await;
    hurry(&provider);
    let done = edit(&laptop, &provider, "second").arg("--json").run().await;
    assert!(done.status.success(), "{}{}", done.stdout, done.stderr);
    assert_eq!((provider.ledger().creates(), calls(&laptop, "queued").await), (4, 2), "its own two");
    let report: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(report["left_alone"]["edits"], 2, "{report}");
    assert_eq!(report["cost"]["paid"], "0.28", "{report}");
}

#[tokio::test]
async fn a_command_that_ends_hands_on_what_it_carried_on_for_others() {
    let (laptop, provider) = narrow().await;
    provider.arm(Fault::Task(OnTask::Never));
    interrupted(&both_places_taken(&laptop, &provider).await).await;
    hurry(&provider);
    let done = edit(&laptop, &provider, "second").run().await;
    assert!(done.status.success(), "{}", done.stderr);
    assert_eq!(
        (calls_that(&laptop, "state = 'submitted' AND owner IS NULL").await, provider.ledger().creates()),
        (1, 4)
    );
}

#[tokio::test]
async fn places_that_no_process_works_at_end_the_command_with_their_tasks() {
    let (laptop, provider) = narrow().await;
    let held = provider.arm(Fault::Create(OnCreate::Hold { created: true }).times(2));
    let mut doomed = edit(&laptop, &provider, "first").start();
    held.held(2).await;
    doomed.kill9();
    let tasks = task_ids(&laptop).await;
    let refused = edit(&laptop, &provider, "second").arg("--json").run().await;
    assert_eq!(refused.status.code(), Some(3), "{}", refused.stderr);
    let says = format!(
        "the lane {LANE} takes no calls: 2 of 2 places are held by edits that may have been sent, and that no process works on (task {})",
        tasks[0]
    );
    assert!(
        refused.stderr.contains(&format!("retouch: {says}. Nothing is lost: `retouch worker`")),
        "{}",
        refused.stderr
    );
    let report: Value = serde_json::from_str(&refused.stdout).unwrap();
    let stopped = &report["stopped"];
    assert_eq!((&stopped["lane"], &stopped["code"]), (&LANE.into(), &"places_taken".into()), "{report}");
    assert!(stopped["message"].as_str().unwrap().starts_with(&says), "{report}");
    assert_eq!(provider.ledger().creates(), 2);
    // A cancel frees none of them; what the sentence names does.
    assert!(laptop.retouch(&["task", "cancel", &tasks[0]]).run().await.status.success());
    assert_eq!(calls(&laptop, "submitting").await, 2);
    held.clear();
    hurry(&provider);
    let _worker = program(&laptop, &provider, &["worker"]).start();
    are(&laptop, 0, "submitting").await;
    let done = edit(&laptop, &provider, "second").run().await;
    assert!(done.status.success(), "{}", done.stderr);
    assert_eq!(laptop.list("second-out").len(), 2);
}

#[tokio::test]
async fn one_unresolved_submit_ends_the_command_where_nothing_is_sent_beside_it() {
    let (laptop, provider) = narrow().await;
    laptop.write("retouch.toml", "[editors.dashscope]\npoll_seconds = 0.1\nask_list = true\n");
    let edit = |picture: &str| {
        let edit = ["edit", picture, "--type", "edit", "--prompt", "winter", "--model", "wan2.7-image"];
        program(&laptop, &provider, &edit)
    };
    let held = provider.arm(Fault::Create(OnCreate::Hold { created: true }));
    let mut doomed = edit("first/0.png").start();
    held.held(1).await;
    doomed.kill9();
    let refused = edit("second/0.png").run().await;
    assert_eq!(refused.status.code(), Some(3), "{}", refused.stderr);
    let says = "the lane dashscope.wan2.7-image takes no calls: 1 of 5 places is held by edits";
    assert!(refused.stderr.contains(says), "{}", refused.stderr);
    assert_eq!(provider.ledger().creates(), 1);
}

#[tokio::test]
async fn a_command_says_which_process_has_its_edits_or_its_places() {
    let (laptop, provider) = narrow().await;
    let first = both_places_taken(&laptop, &provider).await;
    let same = edit(&laptop, &provider, "first").start();
    let line = same.line("another process").await;
    let says = format!("2 remaining edits are held by another process ({})", first.pid());
    assert!(line.starts_with(&says) && line.contains("the leases run out, in "), "{line}");
    assert!(line.contains("in 2 s at most") || line.contains("in 1 s at most"), "{line}");
    let other = edit(&laptop, &provider, "second").start();
    let says = format!("the places of the lane {LANE} are all in use by another process ({})", first.pid());
    other.line(&says).await;
    hurry(&provider);
    for running in [first, same, other] {
        assert!(running.exit().await.success(), "{}", running.stderr());
        assert!(!running.stderr().contains("carried on"), "{}", running.stderr());
    }
    assert_eq!(provider.ledger().creates(), 4);
}

/// Three submits without an answer block the lane for so many seconds at most; then the provider is well again.
async fn blocked(laptop: &Laptop, provider: &StandIn, seconds: &str) {
    hurry(provider);
    laptop.write("first/2.png", picture(2));
    let dropped = provider.arm(Fault::Create(OnCreate::Drop { created: false }).times(3));
    let unanswered = edit(laptop, provider, "first").env("RETOUCH_PROBE_SECONDS", seconds);
    let unanswered = unanswered.env("RETOUCH_ON_AMBIGUOUS", "hold").run().await;
    assert_eq!((unanswered.status.code(), dropped.fired()), (Some(1), 3), "{}", unanswered.stderr);
}

#[tokio::test]
async fn a_command_waits_for_the_next_try_of_a_lane_that_may_have_recovered() {
    let (laptop, provider) = narrow().await;
    blocked(&laptop, &provider, "4").await;
    let done = edit(&laptop, &provider, "second").run().await;
    assert!(done.status.success(), "{}{}", done.stdout, done.stderr);
    let says = format!("the lane {LANE} is blocked: unanswered: 3 submits in a row");
    assert_eq!(done.stderr.matches(&says).count(), 1, "{}", done.stderr);
    assert!(done.stderr.contains("; next try in "), "{}", done.stderr);
    assert_eq!(laptop.list("second-out").len(), 2);
}

#[tokio::test]
async fn a_lane_whose_next_try_is_far_names_it_and_is_resumed() {
    let (laptop, provider) = narrow().await;
    blocked(&laptop, &provider, "300").await;
    let refused = edit(&laptop, &provider, "second").arg("--json").run().await;
    assert_eq!(refused.status.code(), Some(3), "{}", refused.stderr);
    let resume = format!("`retouch lanes resume {LANE}`");
    assert!(
        refused.stderr.contains("; next try in ") && refused.stderr.contains(&resume),
        "{}",
        refused.stderr
    );
    let report: Value = serde_json::from_str(&refused.stdout).unwrap();
    assert_eq!(report["stopped"]["code"], "unanswered", "{report}");
    let resumed = laptop.retouch(&["lanes", "resume", LANE]).run().await.stdout;
    assert!(resumed.contains(&format!("{LANE} may try now")) && !resumed.contains("is blocked"), "{resumed}");
    let lanes = laptop.report(&["lanes"]).await;
    let lane = lanes.as_array().unwrap().iter().find(|lane| lane["name"] == LANE).unwrap();
    assert_eq!((&lane["state"], &lane["probe_in_ms"]), (&"blocked".into(), &0.into()), "{lane}");
    let done = edit(&laptop, &provider, "second").run().await;
    assert!(done.status.success(), "{}", done.stderr);
}

#[tokio::test]
async fn a_paused_lane_names_the_command_that_resumes_it() {
    let (laptop, provider) = narrow().await;
    hurry(&provider);
    assert!(edit(&laptop, &provider, "first").run().await.status.success());
    assert!(laptop.retouch(&["lanes", "pause", LANE]).run().await.status.success());
    let refused = edit(&laptop, &provider, "second").run().await;
    assert_eq!(refused.status.code(), Some(3), "{}", refused.stderr);
    let says =
        format!("the lane {LANE} is paused by a person. Nothing is lost: `retouch lanes resume {LANE}`");
    assert!(refused.stderr.contains(&says), "{}", refused.stderr);
}

/// Whether the end of a command names the setting once, and what to do.
fn names_the_setting_once(refused: &Finished) {
    assert_eq!(refused.status.code(), Some(3), "{}", refused.stderr);
    let says = "set RETOUCH_ALLOW_HOSTS=127.0.0.1 and run the same command again";
    assert!(refused.stderr.contains(says), "{}", refused.stderr);
    assert_eq!(refused.stderr.matches("RETOUCH_ALLOW_HOSTS").count(), 1, "{}", refused.stderr);
    for not in ["ERROR", "operator", "worker"] {
        assert!(!refused.stderr.contains(not), "{not}: {}", refused.stderr);
    }
}

#[tokio::test]
async fn a_refused_host_is_named_once_with_what_the_person_does() {
    let (laptop, provider) = narrow().await;
    hurry(&provider);
    laptop.write("one.png", picture(3));
    let refused =
        edit(&laptop, &provider, "one.png").without("RETOUCH_ALLOW_HOSTS").arg("--json").run().await;
    names_the_setting_once(&refused);
    let report: Value = serde_json::from_str(&refused.stdout).unwrap();
    assert_eq!(report["stopped"]["code"], "result_host", "{report}");
    // With the setting another command gets on too: it fetches what blocks the lane, which costs nothing.
    let done = edit(&laptop, &provider, "second").run().await;
    assert!(done.status.success(), "{}", done.stderr);
    let says =
        format!("1 edit of earlier commands has a result that blocks the lane {LANE}: carried on first");
    assert!(done.stderr.contains(&says), "{}", done.stderr);
    assert_eq!((provider.ledger().creates(), provider.ledger().billed()), (3, 3));
}
