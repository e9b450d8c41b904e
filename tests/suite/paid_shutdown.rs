//! A worker stops while its calls wait, are sent, or are fetched: no attempt is charged, and another worker
//! carries on.

use std::time::Duration;

use nix::sys::signal::Signal;
use retouch_tests::paid::{LANE, Paid, asked, picture, task};
use retouch_tests::program::Running;
use retouch_tests::stand_in::{Fault, OnCreate, OnResult};

const SAID: &str = "remove the text";

async fn publish(paid: &Paid, seeds: impl Iterator<Item = u64>) {
    for seed in seeds {
        paid.site.publish(&task(&format!("task-{seed}"), "remove_watermark", SAID, &[picture(seed)])).await;
    }
}

/// It ends by itself, successfully, and within its grace period.
async fn stops(worker: &Running) {
    worker.terminate();
    assert_eq!(worker.exit().await.code(), Some(0), "{}", worker.stderr());
}

/// Another worker finishes all of them; each was sent once, paid once, and charged no attempt.
async fn another_finishes(paid: &Paid, edits: u64) {
    let _other = paid.worker("").await;
    for seed in 0..edits {
        let row = paid.site.ended(&format!("task-{seed}")).await;
        let asked = asked("remove_watermark", SAID);
        assert!(paid.is_right(&row.images[0], &picture(seed), &asked), "{row:?}");
        let ledger = paid.provider.ledger();
        let edit = asked.identity(&picture(seed));
        assert_eq!((ledger.creates_of(&edit), ledger.billed_of(&edit)), (1, 1), "{seed}");
    }
    paid.site.nothing_left().await;
    let harmed = "SELECT CAST(SUM(attempts + possible_duplicates) AS SIGNED) FROM image_edit_calls";
    assert_eq!(paid.site.number(harmed).await, 0);
    assert_eq!(paid.site.number("SELECT COUNT(*) FROM dead_letters").await, 0);
}

#[tokio::test]
async fn calls_that_wait_for_their_lane_go_back_unharmed() {
    let paid = Paid::on_servers().await;
    // Two are at the provider for ever, the others wait for their places.
    paid.takes(Duration::from_secs(3600));
    let worker = paid.worker("[lanes.\"dashscope.wanx2.1-imageedit\"]\nconcurrency = 6\n").await;
    publish(&paid, 0..6).await;
    paid.site.counts("SELECT COUNT(*) FROM image_edit_calls WHERE state = 'submitted'", 2).await;
    paid.site.counts("SELECT COUNT(*) FROM image_edit_calls WHERE state = 'claimed'", 4).await;
    stops(&worker).await;
    let owned = "SELECT COUNT(*) FROM image_edit_calls WHERE owner IS NOT NULL OR state NOT IN ('queued', 'submitted')";
    assert_eq!(paid.site.number(owned).await, 0, "all were handed back");
    paid.takes(Duration::from_millis(20));
    paid.provider.advance(Duration::from_secs(3600));
    another_finishes(&paid, 6).await;
}

#[tokio::test]
async fn calls_of_a_paused_lane_go_back_unharmed() {
    let paid = Paid::on_servers().await;
    let worker = paid.worker("").await;
    let paused = paid.program(&["lanes", "pause", LANE], "").run().await;
    assert!(paused.status.success(), "{}", paused.stderr);
    publish(&paid, 0..2).await;
    paid.site.counts("SELECT COUNT(*) FROM image_edit_calls WHERE state = 'claimed'", 2).await;
    stops(&worker).await;
    assert_eq!(paid.site.number("SELECT COUNT(*) FROM image_edit_calls WHERE state = 'queued'").await, 2);
    let resumed = paid.program(&["lanes", "resume", LANE], "").run().await;
    assert!(resumed.status.success(), "{}", resumed.stderr);
    another_finishes(&paid, 2).await;
}

#[tokio::test]
async fn a_result_that_cannot_be_had_yet_is_fetched_by_another() {
    let paid = Paid::on_servers().await;
    let down = paid.provider.arm(Fault::Result(OnResult::Status(500)).always());
    let worker = paid.worker("").await;
    publish(&paid, 0..1).await;
    // Beyond the retries of one fetch.
    down.struck(4).await;
    stops(&worker).await;
    down.clear();
    another_finishes(&paid, 1).await;
}

#[tokio::test]
async fn a_second_signal_ends_a_worker_at_once() {
    let paid = Paid::on_servers().await;
    let held = paid.provider.arm(Fault::Create(OnCreate::Hold { created: true }));
    let worker = paid.worker("").await;
    publish(&paid, 0..1).await;
    held.held(1).await;
    worker.terminate();
    worker.line("stopping: finishing what is under way").await;
    assert_eq!(worker.status(), None, "the call is waited for");
    worker.signal(Signal::SIGTERM);
    assert_eq!(worker.exit().await.code(), Some(130), "what is broken off is no orderly end");
    assert!(worker.stderr().contains("stopping at once"), "{}", worker.stderr());
}
