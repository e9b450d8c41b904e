//! An older system's database, as such systems have it: for `retouch cache import`.

use retouch_shared::key::Digest32;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, MySqlPool, Row as _, SqlitePool, sqlite::SqliteConnectOptions};

use crate::env::Env;
use crate::pictures;

/// The classic cache table with its three-column unique key.
pub const CACHE: &str = "CREATE TABLE image_edit_cache (
    id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    image_hash CHAR(64) NOT NULL,
    edit_type VARCHAR(50) NOT NULL,
    prompt TEXT NOT NULL,
    result_url VARCHAR(1024) NULL,
    hit_count INT NOT NULL DEFAULT 0,
    created_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    UNIQUE KEY uk_edit (image_hash, edit_type, prompt(191))
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci";

/// Tasks whose results are a JSON list.
pub const TASKS_JSON: &str = "CREATE TABLE image_edit_tasks (
    id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    task_id VARCHAR(64) NOT NULL UNIQUE,
    edit_type VARCHAR(50) NOT NULL,
    prompt TEXT,
    status VARCHAR(20) NOT NULL,
    results JSON NULL,
    created_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci";

/// Tasks with columns for each image.
pub const TASKS_COLUMNS: &str = "CREATE TABLE image_edit_tasks (
    task_id VARCHAR(64) NOT NULL PRIMARY KEY,
    edit_type VARCHAR(50) NOT NULL,
    prompt TEXT,
    image_1_url VARCHAR(1024), image_1_hash VARCHAR(64), image_1_result_url VARCHAR(1024),
    image_2_url VARCHAR(1024), image_2_hash VARCHAR(64), image_2_result_url VARCHAR(1024),
    image_3_url VARCHAR(1024), image_3_hash VARCHAR(64), image_3_result_url VARCHAR(1024)
) DEFAULT CHARSET=utf8mb4";

/// Rows that are inserted together.
const ROWS: usize = 500;

/// The database.
pub struct Older {
    pool: Pool,
    url: String,
    // Last: a database is dropped after its last user.
    _home: Home,
}

enum Pool {
    MySql(MySqlPool),
    Sqlite(SqlitePool),
}

enum Home {
    Server(#[expect(dead_code, reason = "held for its drop")] Env),
    Folder(#[expect(dead_code, reason = "held for its drop")] tempfile::TempDir),
}

impl Older {
    /// On the shared MariaDB, with this table.
    pub async fn on_mariadb(table: &str) -> Self {
        let env = Env::new().await;
        let older =
            Self { pool: Pool::MySql(env.pool().await), url: env.mysql_url(), _home: Home::Server(env) };
        older.execute(table).await;
        older
    }

    /// In a SQLite file, with this table.
    pub async fn in_a_file(table: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("retouch-older-").tempdir().unwrap();
        let path = folder.path().join("old.db");
        let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
        let pool = Pool::Sqlite(SqlitePool::connect_with(options).await.unwrap());
        let url = format!("sqlite://{}", path.display());
        let older = Self { pool, url, _home: Home::Folder(folder) };
        older.execute(table).await;
        older
    }

    /// For `--from`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Runs any statement.
    pub async fn execute(&self, sql: &str) {
        let sql = AssertSqlSafe(sql.to_owned());
        match &self.pool {
            Pool::MySql(pool) => sqlx::query(sql).execute(pool).await.map(drop),
            Pool::Sqlite(pool) => sqlx::query(sql).execute(pool).await.map(drop),
        }
        .unwrap();
    }

    /// The one number that a query finds.
    pub async fn number(&self, sql: &str) -> i64 {
        let sql = AssertSqlSafe(sql.to_owned());
        match &self.pool {
            Pool::MySql(pool) => sqlx::query(sql).fetch_one(pool).await.unwrap().get(0),
            Pool::Sqlite(pool) => sqlx::query(sql).fetch_one(pool).await.unwrap().get(0),
        }
    }

    /// Inserts rows, each a list of values for these columns.
    pub async fn insert(&self, table: &str, columns: &str, rows: &[Vec<Value>]) {
        for rows in rows.chunks(ROWS) {
            let row = |row: &Vec<Value>| format!("({})", vec!["?"; row.len()].join(", "));
            let places: Vec<_> = rows.iter().map(row).collect();
            let sql = format!("INSERT INTO {table} ({columns}) VALUES {}", places.join(", "));
            macro_rules! run {
                ($pool:expr) => {{
                    let mut query = sqlx::query(AssertSqlSafe(sql));
                    for value in rows.iter().flatten() {
                        query = match value {
                            Value::Null => query.bind(None::<String>),
                            Value::String(text) => query.bind(text.clone()),
                            Value::Number(number) => query.bind(number.as_i64()),
                            other => query.bind(other.to_string()),
                        };
                    }
                    query.execute($pool).await.map(drop).unwrap();
                }};
            }
            match &self.pool {
                Pool::MySql(pool) => run!(pool),
                Pool::Sqlite(pool) => run!(pool),
            }
        }
    }

    /// A row of the cache for each of these pictures: prompt, link and hits are made of its number.
    pub async fn cache(&self, pictures: std::ops::Range<u64>) {
        let row = |n: u64| {
            let [hash, link] = [hash(n), link(n)];
            vec![json!(hash), json!("double"), json!(prompt(n)), json!(link), json!(hits(n))]
        };
        let rows: Vec<_> = pictures.map(row).collect();
        self.insert("image_edit_cache", "image_hash, edit_type, prompt, result_url, hit_count", &rows).await;
    }

    /// A task of 1 to 9 pictures for each number; returns the pictures of each.
    pub async fn tasks(&self, tasks: std::ops::Range<u64>) -> Vec<Vec<u64>> {
        let pictures: Vec<Vec<u64>> = tasks.clone().map(pictures_of).collect();
        let row = |(n, pictures): (u64, &Vec<u64>)| {
            let results: Vec<_> = pictures
                .iter()
                .enumerate()
                .map(|(at, n)| json!({"position": at, "hash": hash(*n), "url": link(*n)}))
                .collect();
            let task = format!("old-{n}");
            vec![json!(task), json!("double"), json!(TASK_PROMPT), json!("completed"), json!(results)]
        };
        let rows: Vec<_> = tasks.zip(&pictures).map(row).collect();
        self.insert("image_edit_tasks", "task_id, edit_type, prompt, status, results", &rows).await;
        pictures
    }
}

/// The prompt of every task of [`Older::tasks`].
pub const TASK_PROMPT: &str = "remove the date stamp";

/// The pictures of a task of [`Older::tasks`]: 1 to 9, some of them in several tasks.
fn pictures_of(task: u64) -> Vec<u64> {
    (0..1 + task % 9).map(|at| if at == 8 { task / 100 } else { task * 9 + at }).collect()
}

/// A very small PNG of its own for every number.
#[must_use]
pub fn picture(n: u64) -> Vec<u8> {
    pictures::picture_as(n, 8, 1, image::ImageFormat::Png)
}

/// Its digest.
#[must_use]
pub fn hash(n: u64) -> String {
    Digest32::of(&picture(n)).to_hex()
}

/// Where the older system has kept its result.
#[must_use]
pub fn link(n: u64) -> String {
    format!("https://cdn.old.example/results/{n}.png")
}

/// The edit that was requested.
#[must_use]
pub fn prompt(n: u64) -> String {
    ["remove the date stamp", "Make it brighter 🌞", "", "sharpen  "]
        [usize::try_from(n % 4).unwrap_or_default()]
    .to_owned()
}

/// How often the older system has served it.
#[must_use]
pub const fn hits(n: u64) -> u64 {
    n % 5
}
