//! Submits without an answer, looked up in the provider's list: nothing is paid twice, and no edit ever gets
//! another one's picture. Checked against the provider's own books.

use std::time::Duration;

use retouch_tests::paid::{Paid, WANX, asked, picture, task};
use retouch_tests::stand_in::{Fault, OnCreate, OnRequest, Refusal, StandIn};
use serde_json::json;

const SAID: &str = "remove the text";
/// The stand-in lists a task at once.
const LIST: &str = "ask_list = true\nlist_settles_seconds = 0.5\n";
const DUPLICATES: &str = "SELECT CAST(SUM(possible_duplicates) AS SIGNED) FROM image_edit_calls";
const COMPLETED: &str = "SELECT COUNT(*) FROM image_edit_tasks WHERE status = 'completed'";
/// A lane waits for one lease after a worker died while sending.
const BRISK: [(&str, &str); 1] = [("RETOUCH_LEASE_SECONDS", "2")];

async fn publish(paid: &Paid, seeds: impl Iterator<Item = u64>) {
    for seed in seeds {
        paid.site.publish(&task(&format!("task-{seed}"), "remove_watermark", SAID, &[picture(seed)])).await;
    }
}

/// Each of them is right, and was accepted and billed once.
async fn each_once(paid: &Paid, seeds: impl Iterator<Item = u64>) {
    let ledger = paid.provider.ledger();
    let asked = asked("remove_watermark", SAID);
    for seed in seeds {
        let edit = asked.identity(&picture(seed));
        assert_eq!((ledger.creates_of(&edit), ledger.billed_of(&edit)), (1, 1), "{seed}");
        is_right(paid, seed).await;
    }
    paid.site.nothing_left().await;
    assert_eq!(paid.site.number(DUPLICATES).await, 0);
    assert_eq!(paid.site.number("SELECT COUNT(*) FROM dead_letters").await, 0);
}

async fn is_right(paid: &Paid, seed: u64) {
    let row = paid.site.ended(&format!("task-{seed}")).await;
    assert_eq!(row.status, "completed", "{seed}: {row:?}");
    assert!(paid.is_right(&row.images[0], &picture(seed), &asked("remove_watermark", SAID)), "{seed}");
}

/// Another client submits with the same account and model: another picture.
async fn foreign(paid: &Paid, seed: u64) {
    use base64::Engine as _;
    let picture = base64::engine::general_purpose::STANDARD.encode(picture(seed));
    let body = json!({
        "model": WANX,
        "input": {
            "function": "remove_watermark", "prompt": SAID, "base_image_url": format!("data:image/png;base64,{picture}"),
        },
        "parameters": {},
    });
    retouch_worker::tls::init();
    let url = format!("{}/services/aigc/image2image/image-synthesis", paid.provider.dashscope_url());
    let post = reqwest::Client::new().post(url).bearer_auth(StandIn::SECOND_KEY);
    let post = post.header("x-dashscope-async", "enable").header("content-type", "application/json");
    let status = post.body(body.to_string()).send().await.unwrap().status();
    assert_eq!(status, 200);
}

#[tokio::test]
async fn an_unanswered_create_is_looked_up_and_paid_once() {
    let paid = Paid::on_servers().await;
    let refusal = Refusal::internal_error();
    let refused = |created| OnCreate::Refuse { refusal: refusal.clone(), created };
    let lost = [
        OnCreate::Drop { created: true },
        OnCreate::Drop { created: false },
        refused(true),
        refused(false),
        OnCreate::Drop { created: true },
    ]
    .map(|fault| paid.provider.arm(Fault::Create(fault)));
    let _workers = [paid.worker(LIST).await, paid.worker(LIST).await];
    publish(&paid, 0..8).await;
    paid.site.counts(COMPLETED, 8).await;
    assert!(lost.iter().all(|lost| lost.fired() == 1));
    each_once(&paid, 0..8).await;
    // One more was sent for each of the two that were certainly not accepted.
    assert_eq!(paid.provider.ledger().received.len(), 10);
}

#[tokio::test]
async fn a_kill_before_the_answer_holds_the_lane_for_a_lease() {
    let paid = Paid::on_servers().await;
    let held = paid.provider.arm(Fault::Create(OnCreate::Hold { created: true }));
    let mut doomed = paid.worker_with(LIST, &BRISK).await;
    publish(&paid, 0..1).await;
    held.held(1).await;
    doomed.kill9();
    drop(doomed);
    let _workers = [paid.worker_with(LIST, &BRISK).await, paid.worker_with(LIST, &BRISK).await];
    // They take every place while waiting for the lane, in front of the message that would wake the first.
    publish(&paid, 1..10).await;
    paid.site.counts(COMPLETED, 10).await;
    held.release();
    each_once(&paid, 0..10).await;
}

#[tokio::test]
async fn a_call_killed_before_it_was_accepted_is_sent_again_uncounted() {
    let paid = Paid::on_servers().await;
    let held = paid.provider.arm(Fault::Create(OnCreate::Hold { created: false }));
    let mut doomed = paid.worker_with(LIST, &BRISK).await;
    publish(&paid, 0..1).await;
    held.held(1).await;
    doomed.kill9();
    let _worker = paid.worker_with(LIST, &BRISK).await;
    is_right(&paid, 0).await;
    each_once(&paid, 0..1).await;
}

#[tokio::test]
async fn an_unavailable_list_is_retried_and_handed_over_at_shutdown() {
    let paid = Paid::on_servers().await;
    paid.provider.arm(Fault::Create(OnCreate::Drop { created: true }));
    let refused = Fault::List(OnRequest::Refuse(Refusal::internal_error()));
    let broken = paid.provider.arm(refused.always());
    let worker = paid.worker(LIST).await;
    publish(&paid, 0..1).await;
    broken.struck(3).await;
    let lanes = paid.program(&["lanes"], LIST).run().await.stdout;
    assert!(lanes.contains("places hold calls of which the provider cannot say"), "{lanes}");
    assert!(worker.stderr().contains("WARN"), "{}", worker.stderr());
    worker.terminate();
    assert!(worker.exit().await.success());
    let left =
        "SELECT COUNT(*) FROM image_edit_calls WHERE state = 'ambiguous' AND owner IS NULL AND attempts = 0";
    assert_eq!(paid.site.number(left).await, 1);
    broken.clear();
    paid.provider.arm(Fault::List(OnRequest::Refuse(Refusal::throttled())));
    paid.provider.arm(Fault::List(OnRequest::Drop));
    let _worker = paid.worker(LIST).await;
    is_right(&paid, 0).await;
    each_once(&paid, 0..1).await;
}

/// Our call was accepted or not, their task came before or after it: no edit gets the wrong picture.
#[tokio::test]
async fn foreign_tasks_in_the_list_raise_doubt() {
    let paid = Paid::on_servers().await;
    let _worker = paid.worker(LIST).await;
    let far = Duration::from_secs(20);
    for (seed, created) in [(0, true), (1, false)] {
        foreign(&paid, 100 + seed).await;
        paid.provider.advance(far);
        let lost = paid.provider.arm(Fault::Create(OnCreate::Drop { created }));
        publish(&paid, seed..=seed).await;
        is_right(&paid, seed).await;
        assert_eq!(lost.fired(), 1);
        let edit = asked("remove_watermark", SAID).identity(&picture(seed));
        assert_eq!(paid.provider.ledger().received_of(&edit), 2, "the policy is to send it once more");
        paid.provider.advance(Duration::from_secs(300));
    }
    assert_eq!(paid.site.number(DUPLICATES).await, 2, "each may have been paid twice, and is counted");
    paid.site.nothing_left().await;
}

#[tokio::test]
async fn a_foreign_task_after_a_lost_answer_is_not_claimed() {
    let paid = Paid::on_servers().await;
    paid.provider.arm(Fault::Create(OnCreate::Drop { created: false }));
    let refused = Fault::List(OnRequest::Refuse(Refusal::internal_error()));
    let broken = paid.provider.arm(refused.always());
    let _worker = paid.worker_with(LIST, &[("RETOUCH_ON_AMBIGUOUS", "hold")]).await;
    publish(&paid, 0..1).await;
    // The pauses between six queries are 7.75 s at least: their task comes later than any that could be ours.
    broken.struck(6).await;
    foreign(&paid, 100).await;
    broken.clear();
    let row = paid.site.ended("task-0").await;
    assert_eq!(row.images[0]["error"]["code"], "ambiguous", "a person decides");
    assert_eq!(paid.site.dead_letters(1).await, ["ambiguous task-0"]);
    // An examined task is accounted for: the next lost submit is certain again.
    paid.provider.arm(Fault::Create(OnCreate::Drop { created: true }));
    publish(&paid, 1..2).await;
    is_right(&paid, 1).await;
    let edit = asked("remove_watermark", SAID).identity(&picture(1));
    assert_eq!(paid.provider.ledger().received_of(&edit), 1);
    paid.site.nothing_left().await;
}

#[tokio::test]
async fn without_the_setting_the_list_is_not_read() {
    let paid = Paid::on_servers().await;
    paid.provider.arm(Fault::Create(OnCreate::Drop { created: true }));
    let _worker = paid.worker("").await;
    publish(&paid, 0..1).await;
    is_right(&paid, 0).await;
    assert_eq!((paid.provider.ledger().lists, paid.site.number(DUPLICATES).await), (0, 1));
}
