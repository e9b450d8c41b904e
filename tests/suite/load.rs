//! Fifteen seconds of load with workers that are stopped and killed. `tests/run-load` does the same at length; docs/performance.md
//! has its figures.

use std::time::Duration;

use retouch_tests::load::run::{Plan, run};

#[tokio::test]
async fn under_load_with_replaced_workers_every_task_ends_without_growth() {
    let plan = Plan {
        length: Duration::from_secs(15),
        workers: 3,
        rate: 6.0,
        seed: 1,
        replace: Duration::from_secs(3),
        sample: Duration::from_millis(500),
    };
    let report = run(plan).await;
    println!("{report}");
    assert_eq!(report.broken(), Vec::<String>::new());
    // The three that were there at the end besides.
    assert!(report.ends.stopped > 3 && report.ends.killed >= 1, "{:?}", report.ends);
    for source in ["hit", "paid", "failed"] {
        assert!(report.by_source[source] > 0, "no image was answered so: {source}");
    }
    assert!(report.dead.len() > 1, "{:?}", report.dead);
}
