//! The lane's limits over four processes: never exceeded, and used to the full.

use std::time::{Duration, Instant};

use retouch_tests::paid::{Paid, asked, picture, task};

const EDITS: u64 = 60;
const TASKS: u64 = 200;
const WORKERS: usize = 4;
/// Of one edit at the provider: short enough that the pace of submits decides, long enough that two are under way.
const TAKES: Duration = Duration::from_millis(700);
/// Pairs of calls that were admitted less than half a second after each other, beyond the time between two
/// statements of one admission on a busy machine.
const TOO_SOON: &str = "SELECT COUNT(*) FROM image_edit_calls a JOIN image_edit_calls b ON b.edit_key <> a.edit_key \
     AND b.submitted_at >= a.submitted_at AND TIMESTAMPDIFF(MICROSECOND, a.submitted_at, b.submitted_at) < 400000";

#[tokio::test]
async fn four_workers_keep_the_lanes_limits_and_use_them_fully() {
    let paid = Paid::on_servers().await;
    paid.takes(TAKES);
    let mut workers = Vec::new();
    for _ in 0..WORKERS {
        workers.push(paid.worker("").await);
    }
    let begun = Instant::now();
    for n in 0..TASKS {
        let pictures: Vec<_> = [n, n * 7 + 3].iter().map(|n| picture(n % EDITS)).collect();
        paid.site.publish(&task(&format!("task-{n}"), "remove_watermark", "text", &pictures)).await;
    }
    let completed = "SELECT COUNT(*) FROM image_edit_tasks WHERE status = 'completed'";
    paid.site.counts_within(Duration::from_secs(120), completed, 200).await;

    let ledger = paid.provider.ledger();
    let (first, last) = (&ledger.received[0], ledger.bills.last().unwrap());
    let took = (last.at - first.at).to_std().unwrap();
    // Sixty submits half a second apart, and the last one's own time.
    let best = Duration::from_millis(500) * (u32::try_from(EDITS).unwrap() - 1) + TAKES;
    let ratio = took.as_secs_f64() / best.as_secs_f64();
    println!(
        "{EDITS} edits in {TASKS} tasks over {WORKERS} workers: {:.1} s at the provider, at best {:.1} s, ratio {ratio:.3}; \
         from the first message to the last task {:.1} s; at most {} in flight, {} submits in any second, {} throttled",
        took.as_secs_f64(),
        best.as_secs_f64(),
        begun.elapsed().as_secs_f64(),
        ledger.most_open(),
        ledger.most_submits_in_a_second(),
        ledger.refused("Throttling.RateQuota"),
    );
    assert_eq!((ledger.creates(), ledger.billed()), (60, 60));
    // The store's admissions keep their distance; on the way to the provider a stall of this machine may
    // shorten it a little, and the provider then refuses the call, unpaid.
    assert_eq!(paid.site.number(TOO_SOON).await, 0, "two were admitted within half a second");
    let refused = ledger.received.len() - 60;
    assert_eq!(refused, ledger.refused("Throttling.RateQuota"), "what else did the provider not take?");
    assert!(refused <= 2, "{refused} were sent that the provider would not take");
    assert!(ledger.most_open() <= 2, "{} were in flight at once", ledger.most_open());
    let most = ledger.most_submits_within(Duration::from_millis(900));
    assert!(most <= 2 + refused, "{most} submits within a second");
    assert!(ratio <= 1.15, "it took {ratio:.3} times as long as the limits allow");
    let asked = asked("remove_watermark", "text");
    for n in 0..TASKS {
        let row = paid.site.task(&format!("task-{n}")).await.unwrap();
        assert!(paid.is_right(&row.images[0], &picture(n % EDITS), &asked), "task-{n}");
    }
    paid.site.nothing_left().await;
    assert_eq!(paid.site.number("SELECT CAST(SUM(paid_images) AS SIGNED) FROM image_edit_tasks").await, 60);
}
