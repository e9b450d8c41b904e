//! Submits that the provider never answers: sent once more at most, over all restarts; then a person decides.
//! Checked against the provider's own books.

use std::time::Duration;

use retouch_tests::laptop::Laptop;
use retouch_tests::paid::{LANE, Paid, asked, picture, task};
use retouch_tests::program::Program;
use retouch_tests::stand_in::{Fault, OnCreate, OnRequest, Refusal, StandIn};
use serde_json::Value;

const SAID: &str = "remove the text";
const COMPLETED: &str = "SELECT COUNT(*) FROM image_edit_tasks WHERE status = 'completed'";
const HURRY: (&str, &str) = ("RETOUCH_LEASE_SECONDS", "1");
const HOLD: (&str, &str) = ("RETOUCH_ON_AMBIGUOUS", "hold");

/// A gateway gives up while the picture is still being made, and is billed.
fn never_answered() -> Fault {
    Fault::Create(OnCreate::Refuse { refusal: Refusal::new(524, "", "a timeout occurred"), created: true })
}

async fn publish(paid: &Paid, id: &str, seed: u64) {
    paid.site.publish(&task(id, "remove_watermark", SAID, &[picture(seed)])).await;
}

/// The task failed, and its message names the decision to make.
async fn refused(paid: &Paid, id: &str) {
    let row = paid.site.ended(id).await;
    let error = &row.images[0]["error"];
    assert_eq!((row.status.as_str(), &error["code"]), ("failed", &"ambiguous".into()), "{id}: {row:?}");
    assert!(error["message"].as_str().unwrap().contains("retouch dead retry"), "{id}: {error}");
}

/// How often the picture was sent.
fn sent(provider: &StandIn, seed: u64) -> usize {
    provider.ledger().received_of(&asked("remove_watermark", SAID).identity(&picture(seed)))
}

async fn run(program: Program) -> String {
    let done = program.run().await;
    assert!(done.status.success(), "{}{}", done.stdout, done.stderr);
    done.stdout
}

#[tokio::test]
async fn an_unanswered_edit_is_sent_twice_over_kills_restarts_and_tasks() {
    let paid = Paid::on_servers().await;
    let held = paid.provider.arm(Fault::Create(OnCreate::Hold { created: true }));
    let mut doomed = paid.worker_with("", &[HURRY]).await;
    publish(&paid, "first", 0).await;
    held.held(1).await;
    doomed.kill9();
    held.clear();
    paid.provider.arm(never_answered().always());
    let second = paid.worker_with("", &[HURRY]).await;
    refused(&paid, "first").await;
    assert_eq!(sent(&paid.provider, 0), 2);
    second.terminate();
    assert!(second.exit().await.success());
    let _third = paid.worker_with("", &[HURRY]).await;
    // The same task again, others, and a command.
    publish(&paid, "first", 0).await;
    for id in ["second", "third"] {
        publish(&paid, id, 0).await;
        refused(&paid, id).await;
    }
    assert_eq!(sent(&paid.provider, 0), 2);
    assert_eq!(paid.site.number("SELECT possible_duplicates FROM image_edit_calls").await, 1);
    // A person looks, and decides.
    let preview = run(paid.program(&["dead", "retry", "--reason", "ambiguous"], "")).await;
    let twice = "1 of them may have been paid already, so up to 0.14 CNY may be paid twice";
    assert!(preview.contains(twice), "{preview}");
    assert_eq!(sent(&paid.provider, 0), 2);
    paid.provider.clear_faults();
    run(paid.program(&["dead", "retry", "--reason", "ambiguous", "--yes"], "")).await;
    paid.site.counts(COMPLETED, 3).await;
    assert_eq!((sent(&paid.provider, 0), paid.billed()), (3, 3));
    assert_eq!(paid.site.number("SELECT possible_duplicates FROM image_edit_calls").await, 2);
    paid.site.nothing_left().await;
}

#[tokio::test]
async fn with_hold_an_unanswered_edit_is_sent_once_for_each_decision() {
    let paid = Paid::on_servers().await;
    paid.provider.arm(never_answered().always());
    let mut worker = paid.worker_with("", &[HURRY, HOLD]).await;
    for id in ["first", "first", "second"] {
        publish(&paid, id, 0).await;
        refused(&paid, id).await;
    }
    worker.kill9();
    let _worker = paid.worker_with("", &[HURRY, HOLD]).await;
    publish(&paid, "third", 0).await;
    refused(&paid, "third").await;
    assert_eq!(sent(&paid.provider, 0), 1);
    let preview = run(paid.program(&["dead", "retry", "--all", "--json"], "")).await;
    let preview: Value = serde_json::from_str(&preview).unwrap();
    let model = &preview["paid"][0];
    let shown = (&model["calls"], &model["possible_duplicates"], &model["possibly_twice"]);
    assert_eq!(shown, (&1.into(), &1.into(), &"0.14".into()), "{preview}");
    run(paid.program(&["dead", "retry", "--all", "--yes"], "")).await;
    paid.site.counts("SELECT COUNT(*) FROM dead_letters WHERE state = 'open' AND retries = 1", 1).await;
    publish(&paid, "fourth", 0).await;
    refused(&paid, "fourth").await;
    assert_eq!(sent(&paid.provider, 0), 2, "once more, for the decision");
    paid.site.nothing_left().await;
}

#[tokio::test]
async fn a_command_run_again_sends_an_unanswered_edit_no_third_time() {
    let provider = StandIn::start().await;
    provider.arm(never_answered().always());
    let laptop = Laptop::new();
    laptop.write("photo.png", picture(1));
    for (policy, seed, most) in [("retry", 1, 2), ("hold", 2, 1)] {
        laptop.write("photo.png", picture(seed));
        for nth in 1..=3 {
            let edit = ["edit", "photo.png", "--type", "remove_watermark", "--prompt", SAID, "--out", "out"];
            let edit = laptop.retouch(&edit).env("DASHSCOPE_API_KEY", StandIn::KEY);
            let edit = edit.env("DASHSCOPE_BASE_URL", provider.dashscope_url());
            let edit = edit.env("RETOUCH_ON_AMBIGUOUS", policy).env("RETOUCH_PROBE_SECONDS", "1");
            let done = edit.run().await;
            assert!(!done.status.success(), "{policy} {nth}: {}", done.stdout);
            assert_eq!(sent(&provider, seed), most, "{policy} {nth}: {}{}", done.stdout, done.stderr);
        }
    }
}

#[tokio::test]
async fn a_lane_whose_submits_stay_unanswered_stops_and_a_probe_opens_it() {
    let paid = Paid::on_servers().await;
    paid.provider.arm(never_answered().always());
    let _worker = paid.worker_with("", &[("RETOUCH_PROBE_SECONDS", "3600")]).await;
    for seed in 0..8 {
        publish(&paid, &format!("task-{seed}"), seed).await;
    }
    paid.site.counts("SELECT COUNT(*) FROM lanes WHERE blocked_code = 'unanswered'", 1).await;
    // Two may be under way at once.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let sends = paid.provider.ledger().received.len();
    assert!((3..=4).contains(&sends), "{sends} were sent into a lane that does not answer");
    let lanes = run(paid.program(&["lanes", "--json"], "")).await;
    let lanes: Vec<Value> = serde_json::from_str(&lanes).unwrap();
    let lane = lanes.iter().find(|lane| lane["name"] == LANE).unwrap();
    assert_eq!((&lane["state"], &lane["code"]), (&"blocked".into(), &"unanswered".into()), "{lane}");
    let why = lane["message"].as_str().unwrap();
    assert!(why.contains("submits in a row were not answered, since 20"), "{why}");
    paid.provider.clear_faults();
    run(paid.program(&["lanes", "resume", LANE], "")).await;
    paid.site.counts(COMPLETED, 8).await;
    for seed in 0..8 {
        assert!(sent(&paid.provider, seed) <= 2, "{seed}");
    }
    assert_eq!((paid.lane("unanswered").await, paid.lane("blocked_by").await), ("0".into(), "-".into()));
    paid.site.nothing_left().await;
}

#[tokio::test]
async fn a_silent_lane_is_asked_for_free_before_a_call_probes_it() {
    let paid = Paid::on_servers().await;
    paid.provider.arm(never_answered().always());
    let silent = paid.provider.arm(Fault::List(OnRequest::Drop).always());
    let _worker = paid.worker("").await;
    for seed in 0..6 {
        publish(&paid, &format!("task-{seed}"), seed).await;
    }
    paid.site.counts("SELECT COUNT(*) FROM lanes WHERE blocked_code = 'unanswered'", 1).await;
    silent.struck(3).await;
    let sends = paid.provider.ledger().received.len();
    assert!((3..=4).contains(&sends), "{sends} were sent though no free question was answered");
    paid.provider.clear_faults();
    paid.site.counts("SELECT COUNT(*) FROM image_edit_waits", 0).await;
    for seed in 0..6 {
        assert!(sent(&paid.provider, seed) <= 2, "{seed}");
    }
}
