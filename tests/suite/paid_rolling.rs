//! Workers are replaced one after another while calls are under way at the provider: no task fails, no call is added.

use std::time::Duration;

use retouch_tests::paid::{Paid, picture, task};
use retouch_tests::wait;

const TASKS: u64 = 40;

#[tokio::test]
async fn a_rolling_restart_under_load_fails_no_task() {
    let paid = Paid::on_servers().await;
    paid.takes(Duration::from_millis(500));
    let mut workers = Vec::new();
    for _ in 0..4 {
        workers.push(paid.worker("").await);
    }
    for (round, old) in (0u64..).zip(&mut workers) {
        // Each round brings its own load, however quickly the one before was done.
        let created = paid.provider.ledger().creates();
        for n in round * TASKS / 4..(round + 1) * TASKS / 4 {
            let pictures = [picture(n / 2), picture(n / 4)];
            paid.site.publish(&task(&format!("task-{n}"), "remove_watermark", "text", &pictures)).await;
        }
        wait::until("another call", async || (paid.provider.ledger().creates() > created).then_some(()))
            .await;
        old.terminate();
        assert_eq!(old.exit().await.code(), Some(0), "{}", old.stderr());
        *old = paid.worker("").await;
    }
    let completed = "SELECT COUNT(*) FROM image_edit_tasks WHERE status = 'completed'";
    paid.site.counts_within(Duration::from_secs(60), completed, 40).await;
    paid.site.nothing_left().await;
    let ledger = paid.provider.ledger();
    assert_eq!((ledger.creates(), ledger.billed()), (20, 20), "one call an edit");
    let harmed = "SELECT CAST(SUM(attempts + possible_duplicates) AS SIGNED) FROM image_edit_calls";
    assert_eq!(paid.site.number(harmed).await, 0);
}
