//! A MariaDB of the run's own whose tables are filled by the server itself, up to ten million rows.

use std::time::Instant;

use retouch_shared::key::Digest32;
use retouch_worker::store::{CachedResult, DatabaseLocation, Money, Store};
use sqlx::mysql::{MySqlConnection, MySqlPool, MySqlPoolOptions};
use sqlx::{AssertSqlSafe, Connection as _};

use super::plan::Plan;
use super::run::say;
use crate::env::MYSQL_URL;
use crate::services::MariaDb;

/// Rows in one transaction.
const STEP: u64 = 200_000;

/// A server large enough to answer from memory, as an installation of this size would be.
pub struct Filled {
    /// `None` if it is the server of the whole run.
    _server: Option<MariaDb>,
    url: String,
    /// Prefix of its databases: the run's server may have other users.
    prefix: String,
    /// Its buffer pool in MiB.
    pub memory: u64,
}

impl Filled {
    /// For tables of as many images as the plan says; for a few the run's own server will do.
    pub async fn start(plan: &Plan) -> Self {
        let prefix = format!("bench_{}_", std::process::id());
        if plan.quick {
            let url = std::env::var(MYSQL_URL).unwrap();
            return Self { _server: None, url, prefix, memory: 128 };
        }
        let memory = if plan.sizes().last().is_some_and(|rows| *rows > 1_000_000) { 7168 } else { 2048 };
        let pool = format!("--innodb-buffer-pool-size={memory}M");
        let server = MariaDb::start_with(&[&pool, "--innodb-log-file-size=1G"]).await.unwrap();
        Self { url: server.url(""), _server: Some(server), prefix, memory }
    }

    /// An empty database.
    pub async fn database(&self, name: &str) -> String {
        let mut connection = MySqlConnection::connect(&self.url).await.unwrap();
        let create = AssertSqlSafe(format!("CREATE DATABASE {}{name}", self.prefix));
        sqlx::query(create).execute(&mut connection).await.unwrap();
        format!("{}{}{name}", self.url, self.prefix)
    }

    /// Removes the database and frees its disk space.
    pub async fn drop_database(&self, name: &str) {
        let mut connection = MySqlConnection::connect(&self.url).await.unwrap();
        let drop = AssertSqlSafe(format!("DROP DATABASE {}{name}", self.prefix));
        sqlx::query(drop).execute(&mut connection).await.unwrap();
    }

    /// A database with the tables of Retouch, and so many rows in its cache; a call that is done for each (a million at most),
    /// and a task for every ten.
    pub async fn retouch(&self, name: &str, rows: u64) -> Store {
        let url = self.database(name).await;
        let store = Store::open(&DatabaseLocation::MySql(url.clone()), 8).unwrap();
        store.migrate().await.unwrap();
        let pool = pool(&url).await;
        fill(&pool, "cache rows", rows, CACHE).await;
        fill(&pool, "calls", rows.min(1_000_000), CALLS).await;
        fill(&pool, "tasks", rows / 10, TASKS).await;
        // Reads both indexes, so that every size is looked up in memory.
        for table in ["image_edit_cache FORCE INDEX (PRIMARY)", "image_edit_cache FORCE INDEX (edit_key)"] {
            let read = format!(
                "SELECT CAST(COUNT(DISTINCT LEFT(edit_key, 1)) + MAX(hit_count) AS SIGNED) FROM {table}"
            );
            super::tables::number(&pool, read).await;
        }
        pool.close().await;
        store
    }
}

/// A few connections.
pub async fn pool(url: &str) -> MySqlPool {
    MySqlPoolOptions::new().max_connections(4).connect(url).await.unwrap()
}

/// Runs `insert`, which reads `{rows}` as a table of numbers, until `rows` are there.
pub async fn fill(pool: &MySqlPool, what: &str, rows: u64, insert: &str) {
    let began = Instant::now();
    let mut from = 1;
    while from <= rows {
        let to = rows.min(from + STEP - 1);
        let statement = insert.replace("{rows}", &format!("seq_{from}_to_{to}"));
        sqlx::query(AssertSqlSafe(statement)).execute(pool).await.unwrap();
        from = to + 1;
    }
    if began.elapsed().as_secs() > 5 {
        say(&format!("{rows} {what} in {:.0} s", began.elapsed().as_secs_f64()));
    }
}

/// The key of cache row `number`, as `CACHE` makes it.
#[must_use]
pub fn key(number: u64) -> Digest32 {
    Digest32::of(format!("key{number}").as_bytes())
}

/// The hash of picture `number`, as `CACHE` makes it.
#[must_use]
pub fn image(number: u64) -> Digest32 {
    Digest32::of(format!("image{number}").as_bytes())
}

/// Panics unless cache row `number` was found as it was written.
pub fn is_row(found: &CachedResult, number: u64) {
    let result = Digest32::of(format!("result{number}").as_bytes());
    assert_eq!((found.edit_key, found.result_hash), (key(number), Some(result)), "another row than {number}");
    assert_eq!(found.price, Money { micros: 140_000, currency: "CNY".to_owned() });
}

const CACHE: &str = "INSERT INTO image_edit_cache (edit_key, image_hash, edit_type, prompt, provider, model, params, result_url, \
        result_hash, content_type, width, height, bytes, price_micros, currency, hit_count, last_hit_at, created_at, updated_at) \
    SELECT UNHEX(SHA2(CONCAT('key', seq), 256)), SHA2(CONCAT('image', seq), 256), 'remove_watermark', '', 'dashscope', \
        'wanx2.1-imageedit', '{}', CONCAT('sha256/', SHA2(CONCAT('result', seq), 256)), SHA2(CONCAT('result', seq), 256), \
        'image/png', 1024, 1024, 50000, 140000, 'CNY', 1, UTC_TIMESTAMP(3) - INTERVAL seq % 8000000 SECOND, \
        UTC_TIMESTAMP(3), UTC_TIMESTAMP(3) FROM {rows}";
const CALLS: &str = "INSERT INTO image_edit_calls (edit_key, image_hash, edit_type, prompt, provider, model, params, lane, price_micros, \
        currency, state, attempts, fence, wakes, paid_calls, possible_duplicates, created_at, updated_at) \
    SELECT UNHEX(SHA2(CONCAT('key', seq), 256)), SHA2(CONCAT('image', seq), 256), 'remove_watermark', '', 'dashscope', \
        'wanx2.1-imageedit', '{}', 'dashscope.wanx2.1-imageedit', 140000, 'CNY', 'done', 0, 1, 0, 1, 0, UTC_TIMESTAMP(3), \
        UTC_TIMESTAMP(3) FROM {rows}";
const TASKS: &str = "INSERT INTO image_edit_tasks (task_id, request_hash, edit_type, prompt, model, params, inputs, status, total_images, \
        hit_images, joined_images, paid_images, failed_images, paid_micros, saved_micros, currency, results, created_at, updated_at, \
        completed_at) \
    SELECT CONCAT('old-', seq), UNHEX(SHA2(seq, 256)), 'remove_watermark', '', 'wanx2.1-imageedit', '{}', '[]', 'completed', 1, 1, 0, 0, \
        0, 0, 140000, 'CNY', '[]', UTC_TIMESTAMP(3), UTC_TIMESTAMP(3), UTC_TIMESTAMP(3) - INTERVAL seq SECOND FROM {rows}";
