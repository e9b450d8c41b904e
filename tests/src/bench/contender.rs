//! One turn of a contender: its queue is filled while it is not running; then it works until every task's row is committed.

use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::mysql::MySqlPool;

use super::costs::Moment;
use super::gallery::Gallery;
use super::stats::{millis, rate};
use super::tables;
use crate::program::Running;
use crate::wait;

/// Enough for the slowest contender on the busiest machine.
const LONGEST_TURN: Duration = Duration::from_secs(300);
/// Interval of reading its table: seldom enough to cost nothing.
const LOOK: Duration = Duration::from_millis(100);

/// A way to work off tasks.
#[async_trait(?Send)]
pub trait Contender {
    /// Its name in the report.
    fn name(&self) -> String;
    /// Its own database.
    fn pool(&self) -> &MySqlPool;
    /// The table of its tasks, with `id`, `status` and `completed_at`.
    fn table(&self) -> &'static str;
    /// Puts these tasks into its queue.
    async fn feed(&self, gallery: &Gallery, tasks: Range<u64>);
    /// Starts its processes.
    async fn start(&self) -> Vec<Running>;
    /// Panics unless exactly these tasks are in its table, in rows after `from`, each with the right answer,
    /// and no work is left. Its processes still run.
    async fn check(&self, gallery: &Gallery, from: i64, tasks: Range<u64>);
}

/// Processor time for a thousand tasks, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Costs {
    /// The contender's processes.
    pub worker: f64,
    /// The database server; none where it is not the run's own.
    pub database: Option<f64>,
    /// The broker.
    pub broker: Option<f64>,
    /// This process, which serves the pictures.
    pub pictures: f64,
}

/// The result of a turn.
#[derive(Debug, Clone, Copy)]
pub struct Turn {
    /// Tasks a second, from the first delivery to the last commit.
    pub rate: f64,
    /// Tasks.
    pub tasks: u64,
    /// Its cost.
    pub costs: Costs,
}

/// Has a contender work off these tasks.
pub async fn turn(contender: &dyn Contender, gallery: &Gallery, tasks: Range<u64>) -> Turn {
    let (pool, table, count) = (contender.pool(), contender.table(), tasks.end - tasks.start);
    contender.feed(gallery, tasks.clone()).await;
    let from = tables::last_row(pool, table).await;
    gallery.reset();
    let processes = contender.start().await;
    let begun = wait::poll(LONGEST_TURN, async || {
        healthy(contender, &processes);
        gallery.first()
    });
    let Some(begun) = begun.await else { panic!("{} does not begin", contender.name()) };
    let before = Moment::now();
    let mut ended = 0;
    let done = wait::poll(LONGEST_TURN, async || {
        tokio::time::sleep(LOOK).await;
        healthy(contender, &processes);
        ended = tables::ended(pool, table, from).await;
        (ended >= count).then_some(())
    });
    if done.await.is_none() {
        panic!("{} has done {ended} of {count} tasks in {LONGEST_TURN:?}", contender.name());
    }
    let after = Moment::now();
    let costs = Costs::between(&before, &after, count, &processes);
    let took = tables::last_end(pool, table, from).await.duration_since(begun).unwrap();
    assert!(gallery.served() >= count, "{} fetched {} pictures", contender.name(), gallery.served());
    contender.check(gallery, from, tasks).await;
    stop(contender, processes).await;
    Turn { rate: rate(count, took), tasks: count, costs }
}

impl Costs {
    fn between(before: &Moment, after: &Moment, tasks: u64, processes: &[Running]) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
        let each =
            |before: Duration, after: Duration| millis(after.saturating_sub(before)) * 1000.0 / tasks as f64;
        let server = |name| Some(each(before.server(name)?, after.server(name)?));
        let worker = |moment: &Moment| processes.iter().map(|process| moment.tree(process.pid())).sum();
        let me = std::process::id().cast_signed();
        Self {
            worker: each(worker(before), worker(after)),
            database: server("mariadbd"),
            broker: server("beam.smp"),
            pictures: each(before.alone(me), after.alone(me)),
        }
    }
}

/// A contender that has died is a broken run, not a slow one.
fn healthy(contender: &dyn Contender, processes: &[Running]) {
    for process in processes {
        if let Some(status) = process.status() {
            panic!("{} ended ({status}):\n{}{}", contender.name(), process.stdout(), process.stderr());
        }
    }
}

/// Asks all of them to end, and waits.
async fn stop(contender: &dyn Contender, processes: Vec<Running>) {
    for process in &processes {
        process.terminate();
    }
    for process in processes {
        let status = process.exit().await;
        assert!(status.success(), "{} ended badly ({status}):\n{}", contender.name(), process.stderr());
    }
}
