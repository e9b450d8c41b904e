//! A database, a broker's namespace, the provider stand-in and one worker of the built program, with default
//! settings except for the width of the lanes.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use lapin::ExchangeKind;
use serde_json::{Value, json};
use sqlx::Row as _;
use sqlx::mysql::MySqlPool;

use super::report::Cell;
use super::run::LONG;
use super::stats::millis;
use super::tables;
use crate::broker::{Amqp, Listener};
use crate::env::Env;
use crate::paid::{self, WANX, asked};
use crate::pictures::same_pixels;
use crate::program::Running;
use crate::services::Port;
use crate::stand_in::{Asked, Identity, Limits, StandIn, expected};
use crate::wait;

const SAID: &str = "the text";

/// How the provider answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// With an id that is polled.
    Async,
    /// With the result, after all the time that it takes.
    Sync,
}

impl Mode {
    /// Its name in the report.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Async => "async",
            Self::Sync => "sync",
        }
    }

    const fn edit_type(self) -> &'static str {
        match self {
            Self::Async => "remove_watermark",
            Self::Sync => "edit",
        }
    }

    const fn model(self) -> &'static str {
        match self {
            Self::Async => WANX,
            Self::Sync => "qwen-image-2.0",
        }
    }

    fn asked(self) -> Asked {
        match self {
            Self::Async => asked("remove_watermark", SAID),
            Self::Sync => Asked::new("qwen-image-2.0").prompt(SAID),
        }
    }

    /// A task of one picture that no task has sent before, if `seed` is new.
    #[must_use]
    pub fn task(self, seed: u64) -> Value {
        self.task_as(&format!("paid-{seed}"), seed)
    }

    /// As [`Mode::task`], with this id.
    #[must_use]
    pub fn task_as(self, id: &str, seed: u64) -> Value {
        paid::task(id, self.edit_type(), SAID, &[paid::picture(seed)])
    }

    /// The edit of [`Mode::task`], as the provider's books name it.
    fn identity(self, seed: u64) -> Identity {
        self.asked().identity(&paid::picture(seed))
    }

    /// Whether this is what the provider makes of the picture of [`Mode::task`].
    #[must_use]
    pub fn right(self, seed: u64, made: &[u8]) -> bool {
        same_pixels(made, &expected(&paid::picture(seed), &self.asked()))
    }
}

/// The installation.
pub struct PaidSite {
    /// Its provider.
    pub provider: StandIn,
    /// Its database.
    pub pool: MySqlPool,
    /// Its broker.
    pub amqp: Amqp,
    port: Port,
    /// Its share of the servers.
    pub env: Env,
}

impl PaidSite {
    /// Whose edits take this long.
    pub async fn new(takes: Duration) -> Self {
        let env = Env::new().await;
        let migrated = env.program(&["migrate"]).run().await;
        assert!(migrated.status.success(), "{}", migrated.stderr);
        let provider = StandIn::start().await;
        provider.set(|settings| {
            settings.limits = Limits::Off;
            settings.task_duration = takes;
        });
        let (pool, amqp) = (env.pool().await, env.amqp().await);
        Self { provider, pool, amqp, port: Port::free().unwrap(), env }
    }

    /// One worker that is working. Both lanes take `wide` calls at a time; the models' own limits where none is given.
    pub async fn worker(&self, wide: Option<u16>) -> Running {
        self.worker_with(wide, "").await
    }

    /// As [`PaidSite::worker`], with further settings before those of its lanes.
    pub async fn worker_with(&self, wide: Option<u16>, settings: &str) -> Running {
        let mut toml = settings.to_owned();
        for lane in [Mode::Async, Mode::Sync].map(Mode::model) {
            if let Some(wide) = wide {
                toml += &format!(
                    "[lanes.\"dashscope.{lane}\"]\nconcurrency = {wide}\nmax_in_flight = {wide}\nper_second = 1000\n"
                );
            }
        }
        let file = self.env.folder().join("retouch.toml");
        std::fs::write(&file, toml).unwrap();
        let worker = self
            .env
            .program(&["worker"])
            .env("RETOUCH_CONFIG", file)
            .env("RETOUCH_HTTP", format!("127.0.0.1:{}", self.port.number()))
            .env("DASHSCOPE_API_KEY", StandIn::KEY)
            .env("DASHSCOPE_BASE_URL", self.provider.dashscope_url())
            .start();
        worker.line(r#""message":"working""#).await;
        worker
    }

    /// Every event from here on.
    pub async fn events(&self) -> Listener {
        let exchange = format!("{}.events", self.env.namespace());
        self.amqp.listen(&exchange, ExchangeKind::Topic, "task.*").await
    }

    /// Publishes as a producer does.
    pub async fn publish(&self, task: &Value) {
        self.amqp.publish(self.env.namespace(), "tasks", serde_json::to_vec(task).unwrap()).await;
    }

    /// Waits for a number in the database.
    pub async fn counts(&self, sql: &str, least: i64) {
        let mut last = 0;
        let counted = wait::poll(LONG, async || {
            last = tables::number(&self.pool, sql.to_owned()).await;
            (last >= least).then_some(())
        });
        assert!(counted.await.is_some(), "waited in vain for {least}, it is {last}: {sql}");
    }

    /// Panics unless each of these tasks is completed with the picture that the provider makes of its own.
    pub async fn right(&self, mode: Mode, seeds: impl Iterator<Item = u64>) {
        for seed in seeds {
            let row = sqlx::query("SELECT status, results FROM image_edit_tasks WHERE task_id = ?");
            let row = row.bind(format!("paid-{seed}")).fetch_one(&self.pool).await.unwrap();
            assert_eq!(row.get::<String, _>(0), "completed", "task {seed}");
            let results: Vec<Value> = serde_json::from_str(row.get(1)).unwrap();
            let reference = results[0]["result_url"].as_str().unwrap();
            let made = std::fs::read(self.env.folder().join("blobs").join(reference)).unwrap();
            assert!(mode.right(seed, &made), "task {seed} shows something else");
        }
    }

    /// The overhead of this call, from publishing to event, beyond the provider's own time: the configured
    /// duration, and the stand-in's time to make the picture.
    #[must_use]
    pub fn overhead(&self, mode: Mode, seed: u64, took: Duration, takes: Duration) -> Duration {
        let (ledger, edit) = (self.provider.ledger(), mode.identity(seed));
        assert_eq!(ledger.creates_of(&edit), 1, "task {seed} was not asked for once");
        took.saturating_sub(takes + ledger.prepared(&edit))
    }

    /// The most edits that were in flight at once at the provider.
    #[must_use]
    pub fn most_in_flight(&self, mode: Mode) -> u64 {
        self.provider.ledger().most_open.get(mode.model()).copied().unwrap_or_default() as u64
    }
}

/// When the events of so many tasks came, by task id; panics for one that is not completed.
pub async fn arrivals(events: &mut Listener, count: usize) -> HashMap<String, Instant> {
    let mut arrived = HashMap::new();
    while arrived.len() < count {
        let event = events.next_json().await;
        assert_eq!(event["status"], json!("completed"), "{event}");
        arrived.insert(event["task_id"].as_str().unwrap().to_owned(), Instant::now());
    }
    arrived
}

/// Waits for the event of this task, past those of others; panics where one is not completed.
pub async fn arrival(events: &mut Listener, task_id: &str) {
    while !arrivals(events, 1).await.contains_key(task_id) {}
}

/// Median and 99th percentile of times, in milliseconds.
#[must_use]
pub fn percentiles(times: &[Duration]) -> (f64, f64) {
    let times: Vec<f64> = times.iter().copied().map(millis).collect();
    (super::stats::percentile(&times, 0.5), super::stats::percentile(&times, 0.99))
}

/// The same as cells of a row.
#[must_use]
pub fn percentile_cells(times: &[Duration]) -> [(&'static str, Cell); 2] {
    let (median, p99) = percentiles(times);
    [("median_ms", Cell::Number(median)), ("p99_ms", Cell::Number(p99))]
}
