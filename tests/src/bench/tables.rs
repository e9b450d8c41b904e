//! The tables of the contenders that are not Retouch, as the classic design has them: a cache row for each picture, edit type and
//! prompt under one unique key of the three, and a row for each task.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use sqlx::mysql::MySqlPool;
use sqlx::{AssertSqlSafe, Row as _};

use super::feed::{EDIT_TYPE, task_number};
use super::gallery::Gallery;

const CACHE: &str = "CREATE TABLE plain_cache (
  id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, image_hash CHAR(64) NOT NULL, edit_type VARCHAR(32) NOT NULL,
  prompt VARCHAR(500) NOT NULL, result_url VARCHAR(500) NOT NULL, hit_count BIGINT NOT NULL DEFAULT 0, last_hit_at DATETIME(3) NULL,
  UNIQUE KEY image_edit (image_hash, edit_type, prompt))";
const TASKS: &str = "CREATE TABLE plain_tasks (
  id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, task_id VARCHAR(64) NOT NULL, edit_type VARCHAR(32) NOT NULL,
  prompt VARCHAR(500) NOT NULL, status VARCHAR(16) NOT NULL, image_hashes JSON NOT NULL, results JSON NOT NULL,
  completed_at DATETIME(3) NULL, UNIQUE KEY task_id (task_id))";

/// Creates both tables, with every picture of the gallery in the cache.
pub async fn create(pool: &MySqlPool, gallery: &Gallery) {
    for table in [CACHE, TASKS] {
        sqlx::query(table).execute(pool).await.unwrap();
    }
    for picture in gallery.pictures() {
        sqlx::query(
            "INSERT INTO plain_cache (image_hash, edit_type, prompt, result_url) VALUES (?, ?, '', ?)",
        )
        .bind(picture.hash.to_hex())
        .bind(EDIT_TYPE)
        .bind(result_url(&picture.hash.to_hex()))
        .execute(pool)
        .await
        .unwrap();
    }
}

fn result_url(hash: &str) -> String {
    format!("results/{hash}.png")
}

/// Panics unless the tasks after row `from` are exactly `tasks`, each with the result of its own picture, and the cache has
/// counted them.
pub async fn check(pool: &MySqlPool, gallery: &Gallery, from: i64, tasks: std::ops::Range<u64>, who: &str) {
    let rows = sqlx::query("SELECT task_id, results FROM plain_tasks WHERE id > ?").bind(from);
    let rows = rows.fetch_all(pool).await.unwrap();
    let mut seen: Vec<u64> = Vec::with_capacity(rows.len());
    for row in &rows {
        let number = task_number(row.get(0));
        let hash = gallery.pictures()[gallery.of_task(number)].hash.to_hex();
        let results: Value = serde_json::from_str(row.get(1)).unwrap();
        assert_eq!(
            results,
            json!([{"image_hash": hash, "result_url": result_url(&hash)}]),
            "{who} answers task {number} wrongly"
        );
        seen.push(number);
    }
    seen.sort_unstable();
    assert!(seen.into_iter().eq(tasks), "{who} has other tasks in its table than it was sent");
    let sums =
        "SELECT (SELECT CAST(SUM(hit_count) AS SIGNED) FROM plain_cache), (SELECT COUNT(*) FROM plain_tasks)";
    let sums = sqlx::query(sums).fetch_one(pool).await.unwrap();
    assert_eq!(sums.get::<i64, _>(0), sums.get::<i64, _>(1), "{who} does not count its hits");
}

/// The last row's number; rows of the next turn are above it.
pub async fn last_row(pool: &MySqlPool, table: &str) -> i64 {
    number(pool, format!("SELECT CAST(COALESCE(MAX(id), 0) AS SIGNED) FROM {table}")).await
}

/// Ended tasks after row `from`.
pub async fn ended(pool: &MySqlPool, table: &str, from: i64) -> u64 {
    let sql = format!("SELECT COUNT(*) FROM {table} WHERE id > {from} AND status = 'completed'");
    u64::try_from(number(pool, sql).await).unwrap()
}

/// When the last task after row `from` ended, by the database's clock, which is this machine's.
pub async fn last_end(pool: &MySqlPool, table: &str, from: i64) -> SystemTime {
    let sql = format!(
        "SELECT CAST(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', MAX(completed_at)) AS SIGNED) FROM {table} WHERE id > {from}"
    );
    let micros = u64::try_from(number(pool, sql).await).unwrap();
    SystemTime::UNIX_EPOCH + Duration::from_micros(micros)
}

/// One number.
pub async fn number(pool: &MySqlPool, sql: String) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(pool).await.unwrap()
}
