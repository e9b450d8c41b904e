//! Four sources that must agree on images and money to the last one, whatever died meanwhile: the sums over
//! the tables, `retouch cache stats`, the day's figures in `/metrics`, and the events.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use retouch_shared::event::micros;
use retouch_worker::store::{Answered, Store, Tally};
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::broker::Listener;
use crate::paid::Paid;
use crate::wait;
use crate::watched::Watched;

/// Hit, joined, paid and failed images, money paid, saved and lost in millionths, all currencies together.
pub type Sums = [i64; 7];

/// The columns of [`Sums`].
pub const COLUMNS: [&str; 7] = [
    "hit_images",
    "joined_images",
    "paid_images",
    "failed_images",
    "paid_micros",
    "saved_micros",
    "lost_micros",
];

/// What the events said: the counts of each task's last event.
pub struct Told {
    tasks: Arc<Mutex<BTreeMap<String, Sums>>>,
    listening: JoinHandle<()>,
}

impl Told {
    /// Listens from here on.
    #[must_use]
    pub fn listen(mut events: Listener) -> Self {
        let tasks = Arc::new(Mutex::new(BTreeMap::new()));
        let heard = Arc::clone(&tasks);
        let listening = tokio::spawn(async move {
            loop {
                if let Some(event) = events.next_within(Duration::from_secs(60)).await {
                    let event: Value = serde_json::from_slice(&event.data).unwrap();
                    heard
                        .lock()
                        .unwrap()
                        .insert(event["task_id"].as_str().unwrap().to_owned(), of_event(&event));
                }
            }
        });
        Self { tasks, listening }
    }

    /// The sums, once so many tasks were heard of, or it takes too long.
    async fn sums(&self, tasks: usize) -> Sums {
        wait::poll(wait::SOON, async || (self.tasks.lock().unwrap().len() >= tasks).then_some(())).await;
        self.tasks.lock().unwrap().values().fold(Sums::default(), added)
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

fn added(sum: Sums, one: &Sums) -> Sums {
    std::array::from_fn(|at| sum[at] + one[at])
}

fn of_event(event: &Value) -> Sums {
    let count = |name: &str| event[name].as_i64().unwrap();
    let money = |name: &str| event["cost"][name].as_str().map_or(0, |text| micros(text).unwrap());
    [
        count("hit"),
        count("joined"),
        count("paid"),
        count("failed"),
        money("paid"),
        money("saved"),
        money("lost"),
    ]
}

/// The sums of `retouch cache stats --json`, over the lines of one list.
#[must_use]
pub fn of_stats(lines: &Value) -> Sums {
    let line = |line: &Value| -> Sums {
        let count = |name: &str| line[name].as_i64().unwrap();
        let money = |name: &str| micros(line[name].as_str().unwrap()).unwrap();
        [
            count("hit"),
            count("joined"),
            count("paid"),
            count("failed"),
            money("money_paid"),
            money("money_saved"),
            money("money_lost"),
        ]
    };
    lines.as_array().unwrap().iter().map(line).fold(Sums::default(), |sum, one| added(sum, &one))
}

/// The sums that `retouch cache stats` is made of, in this process.
pub async fn of_store(store: &Store) -> Sums {
    let one = |answered: &Answered| -> Sums {
        let Tally { hit, joined, paid, failed, paid_micros, saved_micros, lost_micros, .. } = answered.tally;
        let count = |images: u64| i64::try_from(images).unwrap();
        [count(hit), count(joined), count(paid), count(failed), paid_micros, saved_micros, lost_micros]
    };
    let answered = store.answered(36_500).await.unwrap();
    answered.iter().map(one).fold(Sums::default(), |sum, one| added(sum, &one))
}

/// The plain sums over the tasks of this condition.
pub async fn of_tables(paid: &Paid, which: &str) -> Sums {
    let mut sums = Sums::default();
    for (sum, column) in sums.iter_mut().zip(COLUMNS) {
        let sql =
            format!("SELECT CAST(COALESCE(SUM({column}), 0) AS SIGNED) FROM image_edit_tasks WHERE {which}");
        *sum = paid.site.number(&sql).await;
    }
    sums
}

async fn of_metrics(watched: &Watched) -> Sums {
    // Within its two seconds, unless the machine is very busy.
    let scraped = async || {
        let scrape = watched.scrape().await;
        scrape.families.contains_key("retouch_today_images").then_some(scrape)
    };
    let scrape = wait::until("the sums of today in /metrics", scraped).await;
    let images = |source| scrape.sum("retouch_today_images", &[("source", source)]);
    let money = |name| scrape.sum(name, &[]) * 1e6;
    let figures = [
        images("hit"),
        images("joined"),
        images("paid"),
        images("failed"),
        money("retouch_today_paid_money"),
        money("retouch_today_saved_money"),
        money("retouch_today_lost_money"),
    ];
    #[expect(clippy::cast_possible_truncation, reason = "far below 2^52")]
    figures.map(|figure| figure.round() as i64)
}

/// The disagreements, in words; empty if there are none. Call it when nothing is under way, and `watched` is
/// the only worker.
pub async fn disagreements(paid: &Paid, watched: &Watched, told: &Told, tasks: u64) -> Vec<String> {
    let stats = paid.program(&["cache", "stats", "--json", "--top", "0"], "").run().await;
    let stats: Value =
        serde_json::from_str(&stats.stdout).unwrap_or_else(|error| panic!("{error}: {}", stats.stderr));
    let today = paid.site.texts("SELECT CAST(UTC_DATE() AS CHAR)").await.remove(0);
    let is_today = |line: &&Value| line["day"] == today.as_str();
    let of_today = stats["days"].as_array().unwrap().iter().filter(is_today).cloned().collect();
    let tables = of_tables(paid, "TRUE").await;
    let tables_today = of_tables(paid, "completed_at >= UTC_DATE()").await;
    let mut disagree = Vec::new();
    let mut compare = |what: &str, said: Sums, right: Sums| {
        if said != right {
            disagree.push(format!("{what} {said:?}, the tables {right:?}"));
        }
    };
    compare("stats say", of_stats(&stats["total"]), tables);
    compare("stats say of today", of_stats(&Value::Array(of_today)), tables_today);
    compare("metrics say of today", of_metrics(watched).await, tables_today);
    compare("events said", told.sums(usize::try_from(tasks).unwrap()).await, tables);
    let spent = |which: &'static str| async move {
        let sql =
            format!("SELECT CAST(COALESCE(SUM(micros), 0) AS SIGNED) FROM spending WHERE outcome {which}");
        paid.site.number(&sql).await
    };
    // No task is cancelled and no picture forgotten in these runs, so that all money stands on a task.
    let of_tasks = (tables[4], tables[6]);
    let of_spending = (spent("= 'result'").await, spent("NOT IN ('result', 'unwanted')").await);
    if of_spending != of_tasks {
        disagree.push(format!("spending says {of_spending:?}, the tasks {of_tasks:?}"));
    }
    for (what, sql) in [
        ("entries", "SELECT COUNT(*) FROM image_edit_cache"),
        ("bytes", "SELECT CAST(COALESCE(SUM(bytes), 0) AS SIGNED) FROM image_edit_cache"),
        // The counts of served entries equal the answered images.
        (
            "served",
            "SELECT CAST(COALESCE(SUM(hit_images + joined_images + paid_images), 0) AS SIGNED) FROM image_edit_tasks",
        ),
    ] {
        let right = paid.site.number(sql).await;
        if stats[what].as_i64() != Some(right) {
            disagree.push(format!("stats say {} {what}, the tables {right}", stats[what]));
        }
    }
    disagree
}
