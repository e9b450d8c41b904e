//! A fresh database for one test, and helpers.

use std::path::PathBuf;
use std::time::Duration;

use retouch_shared::event::ImageError;
use retouch_shared::key::{Digest32, EditIdentity, EditKey};
use retouch_shared::task::Params;
use retouch_tests::env::Env;
use retouch_worker::store::{
    Admission, CachedResult, CallSpec, Claim, ClaimedCall, DatabaseLocation, DeadPayload, Finished, Lease,
    Money, NewTask, Planned, Registered, Store, StoredResult, TaskRecord,
};
use sqlx::mysql::MySqlPoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sqlx::{AssertSqlSafe, MySqlPool, Row as _, SqlitePool};
use tempfile::TempDir;

/// A lease that no test outlives.
pub(crate) const LONG: Duration = Duration::from_secs(600);
/// What a call of [`edit`] costs.
pub(crate) const PRICE: i64 = 140_000;
/// A time that has passed.
const PAST: &str = "'2020-01-01 00:00:00.000'";

/// Violations after any step, each as a query that counts it.
const UNSOUND: &[(&str, &str)] = &[
    (
        "waits behind a call that is over",
        "SELECT COUNT(*) FROM image_edit_waits w JOIN image_edit_calls c ON c.edit_key = w.edit_key \
         WHERE c.state IN ('done', 'failed')",
    ),
    (
        "waits without a call",
        "SELECT COUNT(*) FROM image_edit_waits w LEFT JOIN image_edit_calls c ON c.edit_key = w.edit_key \
         WHERE c.edit_key IS NULL",
    ),
    (
        "waits of a task that has ended",
        "SELECT COUNT(*) FROM image_edit_waits w LEFT JOIN image_edit_tasks t ON t.task_id = w.task_id \
         WHERE t.task_id IS NULL OR t.status <> 'processing'",
    ),
    (
        "tasks that nothing will end",
        "SELECT COUNT(*) FROM image_edit_tasks t LEFT JOIN image_edit_waits w ON w.task_id = t.task_id \
         WHERE t.status = 'processing' AND w.task_id IS NULL",
    ),
    (
        "tasks whose counts and status disagree",
        "SELECT COUNT(*) FROM image_edit_tasks WHERE (status = 'processing') <> \
         (hit_images + joined_images + paid_images + failed_images < total_images) \
         OR (status = 'processing') <> (completed_at IS NULL)",
    ),
    (
        "calls that the sweep will never find",
        "SELECT COUNT(*) FROM image_edit_calls WHERE (wake_at IS NULL) <> (state IN ('done', 'failed'))",
    ),
];

/// One test's database.
pub(crate) struct Fixture {
    location: DatabaseLocation,
    raw: Raw,
    // Last: a database is dropped after its last user.
    _home: Home,
}

enum Raw {
    MySql(MySqlPool),
    Sqlite(SqlitePool),
}

enum Home {
    Server(#[expect(dead_code, reason = "held for its drop")] Env),
    Folder(#[expect(dead_code, reason = "held for its drop")] TempDir),
}

impl Fixture {
    /// An empty database on the shared server.
    pub(crate) async fn mariadb() -> Self {
        let env = Env::new().await;
        let options = MySqlPoolOptions::new().max_connections(2);
        let raw = Raw::MySql(options.connect(&env.mysql_url()).await.unwrap());
        Self { location: DatabaseLocation::MySql(env.mysql_url()), raw, _home: Home::Server(env) }
    }

    /// A file that does not exist yet, in a folder that does not either.
    #[expect(clippy::unused_async, reason = "called as the other one is")]
    pub(crate) async fn sqlite() -> Self {
        let folder = tempfile::Builder::new().prefix("retouch-store-").tempdir().unwrap();
        let path: PathBuf = folder.path().join("data/retouch.db");
        let options = SqliteConnectOptions::new().filename(&path).busy_timeout(Duration::from_secs(20));
        let raw = Raw::Sqlite(SqlitePoolOptions::new().max_connections(2).connect_lazy_with(options));
        Self { location: DatabaseLocation::Sqlite(path), raw, _home: Home::Folder(folder) }
    }

    /// A store on this database as one more replica opens it, nothing done to the schema.
    pub(crate) fn open(&self) -> Store {
        self.open_with(10)
    }

    /// As [`Fixture::open`], with so many connections.
    pub(crate) fn open_with(&self, connections: u32) -> Store {
        Store::open(&self.location, connections).unwrap()
    }

    /// A store on this database, migrated.
    pub(crate) async fn store(&self) -> Store {
        let store = self.open();
        store.migrate().await.unwrap();
        store
    }

    /// Whether this is the file.
    pub(crate) fn is_sqlite(&self) -> bool {
        matches!(self.raw, Raw::Sqlite(_))
    }

    /// Runs a statement that both databases understand.
    pub(crate) async fn execute(&self, sql: &str) -> u64 {
        let sql = AssertSqlSafe(sql.to_owned());
        match &self.raw {
            Raw::MySql(pool) => sqlx::raw_sql(sql).execute(pool).await.unwrap().rows_affected(),
            Raw::Sqlite(pool) => sqlx::raw_sql(sql).execute(pool).await.unwrap().rows_affected(),
        }
    }

    /// The one number that a query finds.
    pub(crate) async fn number(&self, sql: &str) -> i64 {
        let sql = AssertSqlSafe(sql.to_owned());
        match &self.raw {
            Raw::MySql(pool) => sqlx::raw_sql(sql).fetch_one(pool).await.unwrap().get(0),
            Raw::Sqlite(pool) => sqlx::raw_sql(sql).fetch_one(pool).await.unwrap().get(0),
        }
    }

    /// The one text that a query finds.
    pub(crate) async fn text(&self, sql: &str) -> String {
        let sql = AssertSqlSafe(sql.to_owned());
        match &self.raw {
            Raw::MySql(pool) => sqlx::raw_sql(sql).fetch_one(pool).await.unwrap().get(0),
            Raw::Sqlite(pool) => sqlx::raw_sql(sql).fetch_one(pool).await.unwrap().get(0),
        }
    }

    /// The bytes that a query finds.
    pub(crate) async fn bytes(&self, sql: &str) -> Vec<u8> {
        let sql = AssertSqlSafe(sql.to_owned());
        match &self.raw {
            Raw::MySql(pool) => sqlx::raw_sql(sql).fetch_one(pool).await.unwrap().get(0),
            Raw::Sqlite(pool) => sqlx::raw_sql(sql).fetch_one(pool).await.unwrap().get(0),
        }
    }

    /// A number of one call's row.
    pub(crate) async fn of_call(&self, column: &str, key: EditKey) -> i64 {
        self.number(&format!("SELECT {column} FROM image_edit_calls WHERE edit_key = x'{key}'")).await
    }

    /// The state of one call.
    pub(crate) async fn state(&self, key: EditKey) -> String {
        self.text(&format!("SELECT state FROM image_edit_calls WHERE edit_key = x'{key}'")).await
    }

    /// How often one cached result was served.
    pub(crate) async fn hit_count(&self, key: EditKey) -> i64 {
        self.number(&format!("SELECT hit_count FROM image_edit_cache WHERE edit_key = x'{key}'")).await
    }

    /// Lets the lease of a call run out, as if its owner had died.
    pub(crate) async fn expire(&self, key: EditKey) {
        let expire = format!(
            "UPDATE image_edit_calls SET lease_until = {PAST}, wake_at = {PAST} WHERE edit_key = x'{key}'"
        );
        assert_eq!(self.execute(&expire).await, 1);
    }

    /// Lets the time come at which the sweep looks after every call.
    pub(crate) async fn let_calls_be_due(&self) {
        self.execute(&format!("UPDATE image_edit_calls SET wake_at = {PAST} WHERE wake_at IS NOT NULL"))
            .await;
    }

    /// Lets the time come at which every unconfirmed event is sent again.
    pub(crate) async fn let_events_be_due(&self) {
        self.execute(&format!("UPDATE image_edit_tasks SET event_due = {PAST} WHERE event_due IS NOT NULL"))
            .await;
    }

    /// What holds at every moment between two steps.
    pub(crate) async fn is_sound(&self) {
        for (what, query) in UNSOUND {
            assert_eq!(self.number(query).await, 0, "{what}");
        }
    }

    /// Sound, and no work is left either.
    pub(crate) async fn is_settled(&self) {
        self.is_sound().await;
        let open = self.number("SELECT COUNT(*) FROM image_edit_calls WHERE wake_at IS NOT NULL").await;
        assert_eq!(open, 0, "open calls");
        assert_eq!(self.number("SELECT COUNT(*) FROM image_edit_waits").await, 0, "open waits");
    }
}

/// A paid edit of a picture of its own.
pub(crate) fn edit(picture: &str) -> CallSpec {
    keyed(CallSpec {
        edit_key: Digest32::of(b""),
        image_hash: Digest32::of(picture.as_bytes()),
        edit_type: "remove_watermark".to_owned(),
        prompt: "make it plain".to_owned(),
        provider: "double".to_owned(),
        model: "m-1".to_owned(),
        params: r#"{"seed":7}"#.parse::<Params>().unwrap(),
        mask_hash: None,
        variant: None,
        lane: "lane".to_owned(),
        price: price(),
    })
}

/// The same edit under the name that it really has.
pub(crate) fn keyed(call: CallSpec) -> CallSpec {
    let identity = EditIdentity {
        image_hash: call.image_hash,
        edit_type: &call.edit_type,
        prompt: &call.prompt,
        provider: &call.provider,
        model: &call.model,
        params: &call.params,
        mask_hash: call.mask_hash,
        variant: call.variant.as_deref(),
    };
    CallSpec { edit_key: identity.key(), ..call }
}

/// An image that is not in the cache.
pub(crate) fn miss(call: &CallSpec) -> Planned {
    Planned::Miss { call: Box::new(call.clone()), refused: None }
}

/// An image that is in the cache.
pub(crate) fn hit(call: &CallSpec, result: &CachedResult) -> Planned {
    Planned::Hit { image_hash: call.image_hash, result: result.clone() }
}

/// An image that could not be read.
pub(crate) fn unreadable() -> Planned {
    Planned::Failed { image_hash: None, error: error("source_not_found", "404 Not Found") }
}

/// An error.
pub(crate) fn error(code: &str, message: &str) -> ImageError {
    ImageError { code: code.to_owned(), message: message.to_owned() }
}

/// A task of these images.
pub(crate) fn task(task_id: &str, images: Vec<Planned>) -> NewTask {
    NewTask {
        task_id: task_id.to_owned(),
        request_hash: Digest32::of(task_id.as_bytes()),
        edit_type: "remove_watermark".to_owned(),
        prompt: "make it plain".to_owned(),
        model: "m-1".to_owned(),
        params: Params::default(),
        inputs: images.iter().map(|_| "https://pictures.example/1.png".to_owned()).collect(),
        images,
        metadata: Some(serde_json::json!({"user_id": "42"})),
        reply_to: None,
        correlation_id: None,
        currency: "CNY".to_owned(),
        payload: DeadPayload::Inline("{}".into()),
        trace: None,
        again: None,
        told: false,
        began: std::time::Instant::now(),
    }
}

/// What the provider made of a call.
pub(crate) fn result_of(call: &CallSpec) -> StoredResult {
    StoredResult {
        hash: Digest32::of(format!("result of {}", call.edit_key).as_bytes()),
        content_type: "image/png".to_owned(),
        width: 640,
        height: 480,
        bytes: 12_345,
        check: None,
    }
}

/// Where it is kept.
pub(crate) fn url_of(result: &StoredResult) -> String {
    format!("{}.png", result.hash)
}

/// Registers a task that must be new. Returns it and the keys of the calls that it woke.
pub(crate) async fn register(store: &Store, task: &NewTask) -> (TaskRecord, Vec<EditKey>) {
    match store.register(task).await.unwrap() {
        Registered::New { task, wake } => (*task, wake.into_iter().map(|(key, _)| key).collect()),
        other => panic!("{} is {other:?}", task.task_id),
    }
}

/// Claims a call that must be free.
pub(crate) async fn claim(store: &Store, key: EditKey) -> ClaimedCall {
    match store.claim_call(key, "tester", LONG).await.unwrap() {
        Claim::Won(call) => *call,
        other => panic!("{other:?}"),
    }
}

/// Begins to send a call; says whether its lane and its lease let it.
pub(crate) async fn begin(store: &Store, lease: Lease) -> bool {
    matches!(store.begin_submit(lease, &price()).await.unwrap(), Admission::Admitted(_))
}

/// What a call of [`edit`] costs.
pub(crate) fn price() -> Money {
    Money { micros: PRICE, currency: "CNY".to_owned() }
}

/// Takes a call as far as its result.
pub(crate) async fn make(store: &Store, call: &CallSpec) -> Lease {
    make_as(store, call, &result_of(call)).await
}

/// Takes a call as far as this result.
pub(crate) async fn make_as(store: &Store, call: &CallSpec, result: &StoredResult) -> Lease {
    let lease = claim(store, call.edit_key).await.lease;
    let admission = store.begin_submit(lease, &call.price).await.unwrap();
    assert!(matches!(admission, Admission::Admitted(_)), "{admission:?}");
    assert!(store.record_submitted(lease, "provider-1").await.unwrap());
    assert!(store.record_stored(lease, result, Duration::ZERO).await.unwrap());
    lease
}

/// Takes a call to its end; returns the tasks that ended by it.
pub(crate) async fn finish(store: &Store, call: &CallSpec) -> Vec<TaskRecord> {
    let lease = make(store, call).await;
    ended(store.finish_edit(lease, &url_of(&result_of(call))).await.unwrap())
}

/// The tasks that a finish ended.
pub(crate) fn ended(finished: Finished) -> Vec<TaskRecord> {
    match finished {
        Finished::Ended(tasks) => tasks,
        Finished::LostLease => panic!("the lease was lost"),
    }
}

/// What the cache knows of one edit.
pub(crate) async fn cached(store: &Store, key: EditKey) -> Option<CachedResult> {
    store.lookup(&[key]).await.unwrap().remove(&key)
}

/// One task as it stands.
pub(crate) async fn found(store: &Store, task_id: &str) -> TaskRecord {
    store.find_task(task_id).await.unwrap().unwrap()
}

/// Images answered, by source: hit, joined, paid, failed.
pub(crate) fn counts(task: &TaskRecord) -> [u32; 4] {
    [task.hit, task.joined, task.paid, task.failed]
}
