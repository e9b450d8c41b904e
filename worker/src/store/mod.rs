//! The store: the truth. The protocol of ARCHITECTURE.md ("A call's life") is written once, here; a dialect file only holds
//! statements. Every public function is one committed step, named by what it does to a task or a call.
//!
//! What must stay true:
//! - Lock order: calls (by edit key), then lanes, then tasks (by task id), then dead letters, then cache rows
//!   (by edit key),
//!   then spending.
//! - `register` holds the call row's lock before its last look at the cache; `finish_edit` takes the same lock first.
//!   So either finish sees the wait, or register sees the cache row.
//! - Every step of a call is guarded by its fence.
//! - Time is the database's clock, never this process's.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

mod admission;
mod batch;
mod cache_view;
mod calls;
mod cancels;
mod commands;
mod db;
mod dropped;
mod evict;
mod forget;
mod grouping;
mod imports;
mod inspect;
mod installation;
mod intake;
mod lanes;
mod letters;
mod mysql;
pub mod older;
mod overview;
mod readings;
mod reopen;
mod replicas;
mod retries;
mod schema;
mod spending;
mod sqlite;
mod suspects;
mod task_row;
mod tasks;
mod types;
mod unexplained;
mod verify;

pub use admission::{Admission, ClosedBy, Closure, LanePolicy, LaneView, Pass, Unfetched};
use batch::Batches;
pub use cache_view::{Answered, CacheEntry, CacheShare, CallView, GoneEntry, Known, MOST_ENTRIES};
pub use calls::HELD_REASONS;
pub use cancels::{CANCELLED, Cancelled};
pub use commands::{CallStanding, LeftOver, OpenWait, SentCall, Spent, TaskFilter};
use db::{Db, DbError};
pub use evict::{Aged, Candidate, Evicted};
pub use forget::{Entry, FORGOTTEN, Forgotten, Found, Mentions, Picking, Scrubbed};
pub use imports::{Change, ImportEntry, KnownEntry, Standing};
pub use inspect::Facts;
pub use lanes::{UNANSWERED, UNANSWERED_SUBMITS};
pub use letters::{
    IMAGES, Letter, LetterFilter, LetterGroup, LetterRef, LetterState, PastFailure, Properties, Since, TASKS,
};
pub use overview::{Clock, Failure, MOST_COUNTED, Tally};
pub use readings::{CallsReading, Readings};
pub use reopen::{Again, EditRetry, LetterCall, Reopened, Reopening};
pub use replicas::{DEAD_AFTER, ReplicaReport, ReplicaView};
pub use retries::ClaimedLetter;
pub use schema::SchemaState;
pub use spending::{AMBIGUOUS, InFlight, Priced, RESULT, Spending, UNWANTED};
pub(crate) use suspects::suspect_of_edit;
pub use types::{
    CachedResult, CallSpec, CallState, Claim, ClaimedCall, DeadLetter, DeadPayload, DueCall, Finished,
    KeptAnswer, Lease, Money, NewTask, Planned, Registered, StoredResult, TaskRecord, UNREADABLE_ANSWER,
};
pub use unexplained::Unexplained;
pub use verify::{ToVerify, Verified};

/// Why the store could not answer. Never a miss: the caller holds the work.
#[derive(Debug, Clone, Error)]
pub enum StoreError {
    /// It cannot be asked now: try again later.
    #[error("the database is unreachable: {0}")]
    Unavailable(String),
    /// It answered, but not to this: a person must look.
    #[error("the database refused a statement: {0}")]
    Failed(String),
    /// It holds something that this program never writes.
    #[error("the database holds what this program does not understand: {0}")]
    Corrupt(String),
}

impl StoreError {
    fn corrupt(error: impl std::fmt::Display) -> Self {
        Self::Corrupt(error.to_string())
    }
}

impl From<DbError> for StoreError {
    fn from(error: DbError) -> Self {
        match error {
            // A conflict that outlived its retries is load, not damage.
            DbError::Unavailable(text) | DbError::Conflict(text) => Self::Unavailable(text),
            DbError::Duplicate(text) | DbError::Failed(text) => Self::Failed(text),
        }
    }
}

/// How a protocol step went: like [`StoreError`], but a conflict is still worth another try of the whole transaction.
enum StepError {
    Again(String),
    Duplicate,
    Store(StoreError),
}

impl From<DbError> for StepError {
    fn from(error: DbError) -> Self {
        match error {
            DbError::Conflict(text) => Self::Again(text),
            DbError::Duplicate(_) => Self::Duplicate,
            other => Self::Store(other.into()),
        }
    }
}

impl From<StoreError> for StepError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// How often a transaction that lost a conflict is run again before the work is held.
const CONFLICT_RETRIES: u32 = 8;
/// No conflict is tried again after this: it was found by waiting, on a lock that its holder does not let go.
const CONFLICT_FOR: Duration = Duration::from_secs(15);

/// Runs a transaction again while it loses conflicts, with a little jitter between tries.
macro_rules! again {
    ($step:expr) => {{
        let (mut tries, began) = (0, std::time::Instant::now());
        loop {
            match $step.await {
                Ok(value) => break Ok(value),
                Err($crate::store::StepError::Again(text))
                    if tries >= $crate::store::CONFLICT_RETRIES
                        || began.elapsed() >= $crate::store::CONFLICT_FOR =>
                {
                    break Err($crate::store::StoreError::Unavailable(text));
                }
                Err($crate::store::StepError::Again(_)) => {
                    tries += 1;
                    $crate::store::pause(tries).await;
                }
                Err($crate::store::StepError::Duplicate) => {
                    break Err($crate::store::StoreError::Failed("a row is there twice".to_owned()));
                }
                Err($crate::store::StepError::Store(error)) => break Err(error),
            }
        }
    }};
}
use again;

async fn pause(tries: u32) {
    let most = 5u64 << tries.min(6);
    tokio::time::sleep(Duration::from_millis(rand::random_range(1..=most))).await;
}

/// Which database, and what it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseLocation {
    /// A SQLite file.
    Sqlite(std::path::PathBuf),
    /// `mysql://user:password@host/database`, also for MariaDB.
    MySql(String),
}

impl std::fmt::Display for DatabaseLocation {
    /// For people: never with a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "{}", path.display()),
            Self::MySql(url) => match url::Url::parse(url) {
                Ok(url) => write!(
                    f,
                    "{}:{}{}",
                    url.host_str().unwrap_or("localhost"),
                    url.port().unwrap_or(3306),
                    url.path()
                ),
                Err(_) => f.write_str("a MySQL server"),
            },
        }
    }
}

/// The store.
#[derive(Clone)]
pub struct Store {
    db: Arc<dyn Db>,
    sqlite: Option<sqlx::SqlitePool>,
    patience: Duration,
    batches: Arc<Batches>,
}

/// See [`Store::with_patience`].
pub const PATIENCE: Duration = Duration::from_secs(30);

impl Store {
    /// Opens a database; connects when first used.
    ///
    /// # Errors
    /// [`StoreError::Failed`] where the URL cannot be understood, [`StoreError::Unavailable`] where the file's folder
    /// cannot be made.
    pub fn open(location: &DatabaseLocation, connections: u32) -> Result<Self, StoreError> {
        match location {
            DatabaseLocation::Sqlite(path) => Self::open_sqlite(path),
            DatabaseLocation::MySql(url) => {
                let db = Arc::new(mysql::MySqlDb::open(url, connections)?);
                Ok(Self { db, sqlite: None, patience: PATIENCE, batches: Arc::default() })
            }
        }
    }

    /// As [`Store::open`], and connects once: a pool would try for long, and forget why it could not.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn connect(location: &DatabaseLocation, connections: u32) -> Result<Self, StoreError> {
        if let DatabaseLocation::MySql(url) = location {
            mysql::reach(url).await?;
        }
        Self::open(location, connections)
    }

    fn open_sqlite(path: &Path) -> Result<Self, StoreError> {
        let db = sqlite::SqliteDb::open(path)?;
        let pool = db.pool();
        Ok(Self { db: Arc::new(db), sqlite: Some(pool), patience: PATIENCE, batches: Arc::default() })
    }

    /// How long a wake-up or an event may be on its way before the sweep takes it for lost; [`PATIENCE`] unless set.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// The pool of the SQLite file, for the embedded broker that lives in it.
    pub fn sqlite_pool(&self) -> Option<sqlx::SqlitePool> {
        self.sqlite.clone()
    }

    /// What is in the database, compared with what this program needs.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn schema_state(&self) -> Result<SchemaState, StoreError> {
        Ok(self.db.schema_state().await?)
    }

    /// Applies the migrations that are missing. Touches nothing where [`SchemaState::Foreign`] or `Ahead`.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn migrate(&self) -> Result<SchemaState, StoreError> {
        again!(async { Ok(self.db.migrate().await?) })
    }

    /// Closes all connections.
    pub async fn close(&self) {
        self.db.close().await;
    }
}
