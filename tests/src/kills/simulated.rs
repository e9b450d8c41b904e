//! Kills by the thousand, in one process: the real worker (intake, edit, sweep, events, the embedded broker
//! and a SQLite file), each with a runtime of one thread that is dropped at a fail-point, against a provider
//! that keeps its books in memory and loses answers.
//!
//! Invariant: a dead worker runs nothing any more, returns no lease and stops renewing. SQL hastens the
//! expiry of its leases and the redelivery of its messages.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use retouch_worker::app::App;
use retouch_worker::broker::{Broker, Destination, Message, Queue, embedded::Embedded};
use retouch_worker::config::{BrokerChoice, Settings};
use retouch_worker::editor::double;
use retouch_worker::failpoint::watch_thread;
use retouch_worker::store::{DatabaseLocation, Store};
use retouch_worker::worker::Worker;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use tokio::sync::Notify;

use self::provider::{Provider, ToProvider};
use super::agree;
use crate::pictures;
use crate::tasks::{seed as picture, task, task_async};

mod provider;

/// Workers at a time.
const WORKERS: usize = 3;
/// Tasks under way at a time: few, so that most deaths are in the middle of an edit's life and not among its
/// claims.
const OPEN: u64 = 5;
/// A worker dies at one of its first points, of which there are this many.
const POINTS: u64 = 60;
/// Limit for the remaining work after the last death.
const END: Duration = Duration::from_secs(60);
const ENDED: &str = "SELECT COUNT(*) FROM image_edit_tasks WHERE status NOT IN ('pending', 'processing')";

/// The result.
#[derive(Debug, Clone, Default)]
pub struct Simulated {
    seed: u64,
    /// Workers that died.
    pub kills: u64,
    points: BTreeMap<String, u64>,
    tasks: u64,
    by_status: BTreeMap<String, u64>,
    creates: u64,
    bills: u64,
    edits: u64,
    faults: u64,
    possible_duplicates: u64,
    extra: u64,
    unaccounted: u64,
    thrice: u64,
    wrong: u64,
    paid_lost: u64,
    unheard: u64,
    left: u64,
    disagree: u64,
    took: Duration,
}

impl Simulated {
    /// Violated promises; empty if all hold.
    #[must_use]
    pub fn broken(&self) -> Vec<String> {
        let lost = self.by_status.get("lost").copied().unwrap_or_default();
        [
            ("tasks lost", lost),
            ("wrong pictures", self.wrong),
            ("paid results lost", self.paid_lost),
            ("extra bills that no possible duplicate accounts for", self.unaccounted),
            ("edits billed more than twice", self.thrice),
            ("open calls, waits, leases or events at the end", self.left),
            ("sums of stats that are not those of the tables", self.disagree),
        ]
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(what, count)| format!("{count} {what}"))
        .collect()
    }
}

impl fmt::Display for Simulated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "== simulated: {} kills at {} points, seed {}",
            self.kills,
            self.points.len(),
            self.seed
        )?;
        for (name, text) in [
            ("tasks sent", self.tasks.to_string()),
            ("tasks by status", format!("{:?}", self.by_status)),
            ("edits, creates, bills", format!("{}, {}, {}", self.edits, self.creates, self.bills)),
            ("provider faults", self.faults.to_string()),
            ("possible duplicates (counted)", self.possible_duplicates.to_string()),
            ("paid again (extra bills)", format!("{}, {} unaccounted for", self.extra, self.unaccounted)),
            ("wrong pictures", self.wrong.to_string()),
            ("paid results lost", self.paid_lost.to_string()),
            ("failed after an unheard answer", self.unheard.to_string()),
            ("left behind", self.left.to_string()),
            ("sums of stats that disagree", self.disagree.to_string()),
            ("wall time", format!("{:.1} s", self.took.as_secs_f64())),
        ] {
            writeln!(f, "{name:>32}  {text}")?;
        }
        for line in self.broken() {
            writeln!(f, "BROKEN  {line}")?;
        }
        Ok(())
    }
}

/// What all threads share.
struct Shared {
    settings: Settings,
    provider: Arc<Mutex<Provider>>,
    kills: AtomicU64,
    most: AtomicU64,
    over: AtomicBool,
    points: Mutex<BTreeMap<String, u64>>,
}

impl Shared {
    fn is_dying(&self) -> bool {
        self.kills.load(Ordering::SeqCst) < self.most.load(Ordering::SeqCst)
    }
}

/// Runs it in a temporary folder; no worker dies after `within`.
#[must_use]
pub fn run(kills: u64, within: Duration, seed: u64) -> Simulated {
    let folder = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    let provider = Arc::new(Mutex::new(Provider::new(seed)));
    let shared = Arc::new(Shared {
        settings: settings(folder.path()),
        provider,
        kills: AtomicU64::new(0),
        most: AtomicU64::new(kills),
        over: AtomicBool::new(false),
        points: Mutex::default(),
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut books = runtime.block_on(async {
        let file = folder.path().join("retouch.sqlite");
        // Migrates it before concurrent workers start.
        drop(App::open(shared.settings.clone()).await.unwrap());
        let threads: Vec<_> = (0..WORKERS as u64)
            .map(|nth| {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || live_and_die(&shared, seed * 1000 + nth))
            })
            .collect();
        let books = feed(&shared, &file, within).await;
        shared.over.store(true, Ordering::SeqCst);
        let joined = tokio::task::spawn_blocking(move || {
            threads.into_iter().for_each(|thread| thread.join().unwrap())
        });
        joined.await.unwrap();
        books
    });
    (books.seed, books.took, books.kills) = (seed, begun.elapsed(), shared.kills.load(Ordering::SeqCst));
    books.points = shared.points.lock().unwrap().clone();
    books
}

/// Settings of the program for one SQLite file, with short intervals.
fn settings(folder: &Path) -> Settings {
    let mut settings = Settings::load().unwrap();
    settings.database = DatabaseLocation::Sqlite(folder.join("retouch.sqlite"));
    settings.broker = BrokerChoice::Embedded;
    settings.blobs = format!("file://{}/blobs", folder.display()).parse().unwrap();
    std::fs::create_dir_all(folder.join("blobs")).unwrap();
    settings.http = None;
    settings.offer.editors.double = Some(folder.join("double"));
    settings.rhythm.lease = Duration::from_secs(1);
    // A crash here is never the fault of the work, however often it was under way.
    settings.rhythm.poison_kills = u32::MAX;
    settings.rhythm.sweep = Duration::from_millis(100);
    settings.rhythm.patience = Duration::from_millis(600);
    settings.rhythm.probe = Duration::from_millis(200);
    settings
}

/// One worker after another, until it is over.
fn live_and_die(shared: &Arc<Shared>, seed: u64) {
    let mut dice = StdRng::seed_from_u64(seed);
    while !shared.over.load(Ordering::SeqCst) {
        let dying = shared.is_dying();
        let fatal = if dying { dice.random_range(1..=POINTS) } else { u64::MAX };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let owner = runtime.block_on(live(shared, fatal));
        // All its work under way ends here, at any point.
        runtime.shutdown_timeout(Duration::from_millis(50));
        if let Some(owner) = owner {
            shared.kills.fetch_add(1, Ordering::SeqCst);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(time_passes(shared, &owner));
        }
    }
}

/// A worker's life; its owner name when it died.
async fn live(shared: &Arc<Shared>, fatal: u64) -> Option<String> {
    let (dead, mut hits) = (Arc::new(Notify::new()), 0);
    let (tell, watched) = (Arc::clone(&dead), Arc::clone(shared));
    watch_thread(move |point| {
        hits += 1;
        if hits == fatal {
            *watched.points.lock().unwrap().entry(point.to_owned()).or_default() += 1;
            tell.notify_one();
        }
        hits >= fatal
    });
    let mut app = App::open(shared.settings.clone()).await.unwrap();
    let editor = ToProvider(Arc::clone(&shared.provider));
    Arc::get_mut(&mut app).unwrap().editors.insert("double", Arc::new(editor));
    let owner = app.owner.clone();
    let over = async {
        while !shared.over.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let lived = async {
        let _worker = Worker::start(&app).await.unwrap();
        over.await;
    };
    tokio::select! {
        () = lived => None,
        () = dead.notified() => Some(owner),
    }
}

/// Hastens the effects of a death: its leases expire, and the broker redelivers.
async fn time_passes(shared: &Shared, owner: &str) {
    let pool = open(&shared.settings).await;
    let past = "UPDATE image_edit_calls SET lease_until = '2020-01-01 00:00:00.000', wake_at = '2020-01-01 00:00:00.000' \
                WHERE owner = ?";
    sqlx::query(past).bind(owner).execute(&pool).await.unwrap();
    // Includes messages that others hold: a duplicate delivery must do no harm.
    let again =
        "UPDATE broker_messages SET owner = NULL, returns = 0, visible_at = 0 WHERE owner IS NOT NULL";
    sqlx::query(again).execute(&pool).await.unwrap();
    pool.close().await;
}

async fn open(settings: &Settings) -> SqlitePool {
    let DatabaseLocation::Sqlite(file) = &settings.database else { panic!("no file") };
    let options = SqliteConnectOptions::new().filename(file).busy_timeout(Duration::from_secs(30));
    SqlitePool::connect_with(options).await.unwrap()
}

/// Task `n`: one to three pictures, most of them shared with other tasks.
fn nth(n: u64) -> (Value, Vec<u64>) {
    let seeds: Vec<u64> =
        [n, n / 2 + 1, n - n % 5].into_iter().take(1 + usize::try_from(n % 3).unwrap()).collect();
    let images: Vec<Value> = seeds.iter().map(|seed| picture(*seed)).collect();
    let id = format!("task-{n}");
    let message =
        if n.is_multiple_of(2) { task(&id, json!({}), &images) } else { task_async(&id, json!({}), &images) };
    (message, seeds)
}

/// Sends tasks until enough workers have died, waits for all ends, and reads the books.
async fn feed(shared: &Arc<Shared>, file: &Path, within: Duration) -> Simulated {
    let begun = Instant::now();
    let pool = open(&shared.settings).await;
    let broker = Embedded::open(file).await.unwrap();
    broker.declare(&[]).await.unwrap();
    let count = async |sql: &'static str| -> u64 {
        u64::try_from(sqlx::query_scalar::<_, i64>(sql).fetch_one(&pool).await.unwrap()).unwrap()
    };
    let mut sent = 0;
    while shared.is_dying() && begun.elapsed() < within {
        let ended = count(ENDED).await;
        while sent < ended + OPEN {
            let message = Message::new(serde_json::to_vec(&nth(sent).0).unwrap());
            broker.publish(Destination::Queue(Queue::Tasks), message).await.unwrap();
            sent += 1;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    shared.most.store(0, Ordering::SeqCst);
    let mut left = 1;
    let since = Instant::now();
    while left > 0 && since.elapsed() < END {
        left = sent - count(ENDED).await.min(sent);
        for (_, sql) in crate::env::LEFTOVERS {
            left += count(sql).await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut books = Simulated { tasks: sent, left, ..Simulated::default() };
    books.read(shared, &pool).await;
    let store = Store::open(&shared.settings.database, 2).unwrap();
    let stats = agree::of_store(&store).await;
    for (sum, column) in stats.into_iter().zip(agree::COLUMNS) {
        let sql = format!("SELECT coalesce(sum({column}), 0) FROM image_edit_tasks");
        let right: i64 = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&pool).await.unwrap();
        books.disagree += u64::from(sum != right);
    }
    books
}

impl Simulated {
    async fn read(&mut self, shared: &Shared, pool: &SqlitePool) {
        let blobs = match &shared.settings.database {
            DatabaseLocation::Sqlite(file) => file.with_file_name("blobs"),
            DatabaseLocation::MySql(_) => panic!("no file"),
        };
        for n in 0..self.tasks {
            let sql = "SELECT status, results FROM image_edit_tasks WHERE task_id = ?";
            let row: Option<(String, String)> =
                sqlx::query_as(sql).bind(format!("task-{n}")).fetch_optional(pool).await.unwrap();
            let (status, results) = row.unwrap_or_else(|| ("lost".to_owned(), "[]".to_owned()));
            let open = matches!(status.as_str(), "pending" | "processing");
            *self.by_status.entry(if open { "lost".to_owned() } else { status }).or_default() += 1;
            let images: Vec<Value> = serde_json::from_str(&results).unwrap();
            for (image, seed) in images.iter().zip(nth(n).1) {
                let Some(reference) = image["result_url"].as_str() else { continue };
                let right = double::expected(&pictures::picture(seed)).unwrap();
                let result = std::fs::read(blobs.join(reference)).unwrap();
                self.wrong += u64::from(!pictures::same_pixels(&result, &right));
            }
        }
        let bills = {
            let provider = shared.provider.lock().unwrap();
            (self.faults, self.creates) = (provider.faults, provider.creates);
            provider.bills.clone()
        };
        self.bills = bills.values().sum();
        let sql = "SELECT image_hash || ' ' || edit_type, possible_duplicates, state, paid_calls FROM image_edit_calls";
        let calls: Vec<(String, i64, String, i64)> = sqlx::query_as(sql).fetch_all(pool).await.unwrap();
        self.edits = calls.len() as u64;
        for (edit, counted, state, paid) in calls {
            let counted = u64::try_from(counted).unwrap();
            let billed = bills.get(&edit).copied().unwrap_or_default();
            self.possible_duplicates += counted;
            self.extra += billed.saturating_sub(1);
            self.unaccounted += billed.saturating_sub(1).saturating_sub(counted);
            self.thrice += u64::from(billed > 2);
            // A committed paid result must not fail; a call sent twice without an answer is held for a
            // person.
            let failed = state == "failed";
            self.paid_lost += u64::from(failed && paid > 0);
            self.unheard += u64::from(failed && paid == 0 && billed > 0);
        }
    }
}
