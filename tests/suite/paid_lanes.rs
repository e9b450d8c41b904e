//! Lanes as users see them: blocked and repaired, paused, out of budget, throttled; checked against the
//! provider's own books.

use std::time::Duration;

use retouch_tests::laptop::Laptop;
use retouch_tests::paid::{LANE, Paid, WANX, asked, picture, task};
use retouch_tests::services::Port;
use retouch_tests::stand_in::{Fault, Limits, OnCreate, OnRequest, Refusal, StandIn, Told};
use retouch_tests::wait;
use serde_json::Value;

const SAID: &str = "remove the text";
const COMPLETED: &str = "SELECT COUNT(*) FROM image_edit_tasks WHERE status = 'completed'";
const BLOCKED: &str = "SELECT COUNT(*) FROM lanes WHERE blocked_by IS NOT NULL";

/// `retouch lanes --json`, of the lane of the functions.
async fn shown(paid: &Paid) -> Value {
    let done = paid.program(&["lanes", "--json"], "").run().await;
    assert!(done.status.success(), "{}", done.stderr);
    let lanes: Vec<Value> = serde_json::from_str(&done.stdout).unwrap();
    lanes.into_iter().find(|lane| lane["name"] == LANE).expect("the lane")
}

/// A task a picture, each an edit of its own.
async fn publish(paid: &Paid, seeds: impl Iterator<Item = u64>) {
    for seed in seeds {
        paid.site.publish(&task(&format!("task-{seed}"), "remove_watermark", SAID, &[picture(seed)])).await;
    }
}

/// Each of them is paid exactly once, and shows what it should.
async fn each_paid_once(paid: &Paid, seeds: impl Iterator<Item = u64>) {
    let ledger = paid.provider.ledger();
    let asked = asked("remove_watermark", SAID);
    for seed in seeds {
        let edit = asked.identity(&picture(seed));
        assert_eq!((ledger.creates_of(&edit), ledger.billed_of(&edit)), (1, 1), "{seed}");
        let row = paid.site.task(&format!("task-{seed}")).await.unwrap();
        assert!(paid.is_right(&row.images[0], &picture(seed), &asked), "{seed}");
    }
    paid.site.nothing_left().await;
    assert_eq!(paid.site.number("SELECT COUNT(*) FROM dead_letters").await, 0);
}

#[tokio::test]
async fn a_revoked_key_blocks_its_lane_within_one_call() {
    let paid = Paid::on_servers().await;
    paid.takes(Duration::from_millis(300));
    let port = Port::free().unwrap();
    let http = format!("127.0.0.1:{}", port.number());
    let _worker = paid.worker_with("", &[("RETOUCH_HTTP", &http)]).await;
    publish(&paid, 0..8).await;
    paid.site.counts(COMPLETED, 1).await;
    paid.provider.disable_key();
    paid.site.counts(BLOCKED, 1).await;
    // Calls under way may have met it together; no further call was sent to find out.
    let refused = paid.provider.ledger().refused("InvalidApiKey");
    assert!(refused <= 2, "{refused} calls were sent into a blocked lane");
    let health = reqwest::get(format!("http://{http}/readyz")).await.unwrap();
    assert_eq!(health.status(), 200, "the worker can do everything else");
    let health: Value = serde_json::from_slice(&health.bytes().await.unwrap()).unwrap();
    let why = health[format!("lane {LANE}")].as_str().unwrap().to_owned();
    assert!(why.contains("takes no calls") && why.contains("InvalidApiKey"), "{why}");
    let lane = shown(&paid).await;
    assert_eq!((&lane["state"], &lane["code"]), (&"blocked".into(), &"InvalidApiKey".into()), "{lane}");
    assert!(lane["queued"].as_u64().unwrap() >= 4, "{lane}");
    // Other lanes go on.
    paid.site
        .publish(&retouch_tests::tasks::task(
            "other",
            serde_json::json!({}),
            &[retouch_tests::tasks::seed(1)],
        ))
        .await;
    assert_eq!(paid.site.ended("other").await.status, "completed");
    paid.provider.enable_key();
    paid.site.counts(COMPLETED, 9).await;
    each_paid_once(&paid, 0..8).await;
    assert_eq!(shown(&paid).await["state"], "open");
    assert_eq!(paid.site.number("SELECT MAX(attempts) FROM image_edit_calls").await, 0);
}

/// Causes a trouble, or ends it.
type Set<'a> = Box<dyn Fn(bool) + 'a>;

#[tokio::test]
async fn account_trouble_blocks_the_lane_until_a_probe_or_person() {
    let paid = Paid::on_servers().await;
    let never = [("RETOUCH_PROBE_SECONDS", "3600")];
    let _worker = paid.worker_with("", &never).await;
    let troubles: [(&str, Set); 3] = [
        ("Arrearage", Box::new(|on| paid.provider.arrears(on))),
        (
            "ModelNotFound",
            Box::new(|on| if on { paid.provider.retire(WANX) } else { paid.provider.revive(WANX) }),
        ),
        (
            "PostpaidBillOverdue",
            Box::new(|on| {
                let refusal = Refusal::overdue();
                if on {
                    paid.provider.arm(Fault::Create(OnCreate::Refuse { refusal, created: false }).always());
                } else {
                    paid.provider.clear_faults();
                }
            }),
        ),
    ];
    for (seed, (code, set)) in (0u64..).zip(&troubles) {
        set(true);
        publish(&paid, seed..=seed).await;
        paid.site.counts(BLOCKED, 1).await;
        assert_eq!(paid.lane("blocked_code").await, *code);
        let sent = paid.provider.ledger().received.len();
        set(false);
        let resumed = paid.program(&["lanes", "resume", LANE], "").run().await;
        assert!(resumed.status.success(), "{}", resumed.stderr);
        assert_eq!(paid.site.ended(&format!("task-{seed}")).await.status, "completed", "{code}");
        assert_eq!(paid.provider.ledger().received.len(), sent + 1, "{code}");
    }
    each_paid_once(&paid, 0..3).await;
}

#[tokio::test]
async fn a_budget_of_ten_images_queues_the_eleventh_until_tomorrow() {
    let paid = Paid::on_servers().await;
    paid.provider.set(|settings| settings.limits = Limits::Off);
    let toml = format!("[lanes.\"{LANE}\"]\ndaily_budget = \"1.40\"\nper_second = 50\nmax_in_flight = 8\n");
    let _workers = [paid.worker(&toml).await, paid.worker(&toml).await];
    publish(&paid, 0..11).await;
    paid.site.counts(COMPLETED, 10).await;
    paid.site.counts(BLOCKED, 1).await;
    let lane = shown(&paid).await;
    assert_eq!((&lane["state"], lane["queued"].as_u64()), (&"budget spent".into(), Some(1)), "{lane}");
    let told = lane["message"].as_str().unwrap();
    assert!(told.contains("1.4") && told.contains("midnight UTC"), "{told}");
    assert_eq!((paid.billed(), paid.provider.ledger().creates()), (10, 10));
    assert_eq!(paid.site.number("SELECT COUNT(*) FROM dead_letters").await, 0);
    // The next day: all of the lane's records are from yesterday.
    paid.site
        .execute(
            "UPDATE lanes SET spent_on = spent_on - INTERVAL 1 DAY, probe_at = probe_at - INTERVAL 1 DAY",
        )
        .await;
    paid.site.counts(COMPLETED, 11).await;
    each_paid_once(&paid, 0..11).await;
    assert_eq!(shown(&paid).await["spent_today"], "0.14");
}

#[tokio::test]
async fn a_429_slows_the_lane_for_every_replica_and_burns_no_attempt() {
    let paid = Paid::on_servers().await;
    let refusal = Refusal::throttled().retry_after(3);
    let throttled = paid.provider.arm(Fault::Create(OnCreate::Refuse { refusal, created: false }));
    let _workers = [paid.worker("").await, paid.worker("").await];
    publish(&paid, 0..4).await;
    paid.site.counts(COMPLETED, 4).await;
    assert_eq!(throttled.fired(), 1);
    let ledger = paid.provider.ledger();
    let at = |told: fn(&Told) -> bool| {
        ledger.received.iter().filter(move |create| told(&create.told)).map(|create| create.at)
    };
    let refused = at(|told| matches!(told, Told::Refused(429, _))).next().unwrap();
    let next = at(|told| *told == Told::Accepted).find(|at| *at > refused).unwrap();
    let pause = (next - refused).num_milliseconds();
    assert!(pause >= 2_900, "the next call on any replica came after {pause} ms");
    assert_eq!(paid.site.number("SELECT MAX(attempts) FROM image_edit_calls").await, 0);
    each_paid_once(&paid, 0..4).await;
}

#[tokio::test]
async fn a_paused_lane_sends_nothing_and_goes_on_when_it_is_resumed() {
    let paid = Paid::on_servers().await;
    let _worker = paid.worker("").await;
    let paused = paid.program(&["lanes", "pause", LANE], "").run().await;
    assert!(paused.status.success() && paused.stdout.contains("paused"), "{}", paused.stdout);
    publish(&paid, 0..2).await;
    paid.site.counts("SELECT COUNT(*) FROM image_edit_calls WHERE state = 'claimed'", 2).await;
    assert_eq!(shown(&paid).await["state"], "paused");
    assert!(paid.provider.ledger().received.is_empty());
    let resumed = paid.program(&["lanes", "resume", LANE], "").run().await;
    assert!(resumed.status.success(), "{}", resumed.stderr);
    paid.site.counts(COMPLETED, 2).await;
    each_paid_once(&paid, 0..2).await;
    let unknown = paid.program(&["lanes", "pause", "nowhere"], "").run().await;
    assert_eq!(unknown.status.code(), Some(2));
    assert!(unknown.stderr.contains(LANE), "names those that there are: {}", unknown.stderr);
}

#[tokio::test]
async fn on_a_laptop_a_bad_key_ends_the_command_with_its_reason() {
    let provider = StandIn::start().await;
    let laptop = Laptop::new();
    laptop.write("photo.png", picture(1));
    let edit = |key: &'static str| {
        let arguments = ["edit", "photo.png", "--type", "remove_watermark", "--prompt", SAID, "--out", "out"];
        let program = laptop.retouch(&arguments).env("DASHSCOPE_API_KEY", key);
        program.env("DASHSCOPE_BASE_URL", provider.dashscope_url()).env("RETOUCH_ALLOW_HOSTS", "127.0.0.1")
    };
    let refused = edit("sk-wrong").run().await;
    assert_eq!(refused.status.code(), Some(3), "{}", refused.stderr);
    assert!(refused.stderr.contains("InvalidApiKey") && refused.stderr.contains(LANE), "{}", refused.stderr);
    assert!(!refused.stderr.contains("sk-wrong"), "{}", refused.stderr);
    let done = edit(StandIn::KEY).run().await;
    assert!(done.status.success(), "{}", done.stderr);
    assert!(done.stdout.contains("0.14 CNY"), "what it cost: {}", done.stdout);
    let result = laptop.read("out/photo-remove_watermark.png");
    let expected = retouch_tests::stand_in::expected(&picture(1), &asked("remove_watermark", SAID));
    assert!(retouch_tests::pictures::same_pixels(&result, &expected));
    assert_eq!(provider.ledger().billed(), 1);
}

#[tokio::test]
async fn on_a_laptop_paid_results_are_delivered_without_further_purchases() {
    let provider = StandIn::start().await;
    let laptop = Laptop::new();
    for seed in 1..=3 {
        laptop.write(&format!("photos/{seed}.png"), picture(seed));
    }
    laptop.write("retouch.toml", format!("[lanes.\"{LANE}\"]\ndaily_budget = \"0.28\"\n"));
    let edit = |edit_type: &'static str| {
        let program = laptop.retouch(&["edit", "photos", "--type", edit_type, "--out", edit_type]);
        let program = program.env("DASHSCOPE_API_KEY", StandIn::KEY);
        program.env("DASHSCOPE_BASE_URL", provider.dashscope_url()).env("RETOUCH_ALLOW_HOSTS", "127.0.0.1")
    };
    let stopped = edit("remove_watermark").run().await;
    assert_eq!(stopped.status.code(), Some(3), "{}", stopped.stderr);
    assert!(stopped.stderr.contains("budget_spent"), "{}", stopped.stderr);
    assert_eq!(laptop.list("remove_watermark").len(), 2, "both that were paid: {}", stopped.stdout);
    // Free, and on another lane: the third picture is not part of this request.
    let free = edit("grayscale").run().await;
    assert!(free.status.success() && !free.stderr.contains(LANE), "{}", free.stderr);
    laptop.write("retouch.toml", "");
    let other = edit("grayscale").run().await;
    assert!(other.status.success(), "{}", other.stderr);
    assert_eq!(provider.ledger().creates(), 2);
    let done = edit("remove_watermark").run().await;
    assert!(done.status.success(), "{}", done.stderr);
    assert_eq!((provider.ledger().creates(), provider.ledger().billed()), (3, 3));
}

#[tokio::test]
async fn queued_edits_of_a_narrow_lane_do_not_delay_orphaned_calls() {
    let paid = Paid::on_servers().await;
    paid.takes(Duration::from_secs(3600));
    let hurry = [("RETOUCH_LEASE_SECONDS", "1")];
    let mut first = paid.worker_with("", &hurry).await;
    publish(&paid, 0..8).await;
    paid.site.counts("SELECT COUNT(*) FROM image_edit_calls WHERE state = 'submitted'", 2).await;
    first.kill9();
    paid.takes(Duration::from_millis(20));
    paid.provider.advance(Duration::from_secs(3600));
    let _second = paid.worker_with("", &hurry).await;
    paid.site.counts(COMPLETED, 8).await;
    each_paid_once(&paid, 0..8).await;
}

#[tokio::test]
async fn a_key_in_a_file_is_mended_without_a_restart() {
    let paid = Paid::on_servers().await;
    let file = paid.site.env.folder().join("key");
    std::fs::write(&file, "sk-old").unwrap();
    let worker = paid.program(&["worker"], "").without("DASHSCOPE_API_KEY");
    let worker = worker.env("DASHSCOPE_API_KEY_FILE", &file).start();
    retouch_tests::site::working(&worker).await;
    publish(&paid, 0..1).await;
    paid.site.counts(BLOCKED, 1).await;
    std::fs::write(&file, format!("{}\n", StandIn::KEY)).unwrap();
    wait::until("the end of the task", async || {
        paid.site.task("task-0").await.filter(retouch_tests::site::TaskRow::has_ended)
    })
    .await;
    each_paid_once(&paid, 0..1).await;
}

#[tokio::test]
async fn a_lane_says_at_once_that_its_places_hold_unknown_tasks() {
    let paid = Paid::on_servers().await;
    let port = Port::free().unwrap();
    let http = format!("127.0.0.1:{}", port.number());
    let worker = paid.worker_with("", &[("RETOUCH_HTTP", &http)]).await;
    let unknown = Refusal::new(404, "", "no such task");
    let unknown = paid.provider.arm(Fault::Poll(OnRequest::Refuse(unknown)).always());
    publish(&paid, 0..4).await;
    let says = async || {
        let lane = shown(&paid).await;
        lane["message"].as_str().filter(|why| why.starts_with("2 of 2 places hold")).map(ToOwned::to_owned)
    };
    // Within seconds, not when an id is given up after ten minutes.
    let why = wait::poll(Duration::from_secs(10), says).await.expect("a reason in `retouch lanes`");
    assert!(why.contains("does not know the task"), "{why}");
    let health = reqwest::get(format!("http://{http}/readyz")).await.unwrap();
    assert_eq!(health.status(), 200, "the worker can do everything else");
    let health: Value = serde_json::from_slice(&health.bytes().await.unwrap()).unwrap();
    let part = health[format!("lane {LANE}")].as_str().unwrap().to_owned();
    assert!(part.contains("of 2 places hold") && part.contains("does not know the task"), "{part}");
    assert!(worker.stderr().contains("it holds its place on the lane"), "{}", worker.stderr());
    unknown.clear();
    paid.site.counts(COMPLETED, 4).await;
    each_paid_once(&paid, 0..4).await;
    assert_eq!((&shown(&paid).await["message"], &shown(&paid).await["stuck"]), (&Value::Null, &0.into()));
}
