//! The seam between the protocol (written once, in this folder) and a database: statements by name, values in,
//! rows out. A dialect is a file that fills in [`Statements`] and runs them; it decides nothing.

use async_trait::async_trait;
use serde_json::Value;
use sqlx::mysql::{MySqlDatabaseError, MySqlRow};
use sqlx::sqlite::SqliteRow;
use sqlx::{ColumnIndex, Decode, Row as _, Type};
use thiserror::Error;

use super::batch::BatchStatements;
use super::cache_view::CacheViewStatements;
use super::cancels::CancelStatements;
use super::commands::CommandStatements;
use super::dropped::DroppedStatements;
use super::evict::EvictStatements;
use super::forget::ForgetStatements;
use super::imports::ImportStatements;
use super::inspect::InspectStatements;
use super::installation::InstallationStatements;
use super::overview::OverviewStatements;
use super::readings::ReadingsStatements;
use super::replicas::ReplicaStatements;
use super::schema::SchemaState;
use super::spending::SpendingStatements;
use super::task_row::Inserts;
use super::verify::VerifyStatements;
use crate::metrics::count::database_error;

/// Every statement of a dialect. Texts are constant: rows travel as one JSON parameter (but for those of tasks, see `task_row`),
/// because a prepared statement that varies costs a round trip each time (and is not a `&'static str`).
pub(super) struct Statements {
    pub(super) lookup: &'static str,
    pub(super) insert_calls: &'static str,
    pub(super) lock_calls: &'static str,
    pub(super) queue_calls: &'static str,
    pub(super) insert_waits: &'static str,
    pub(super) insert_tasks: Inserts,
    pub(super) count_hits: &'static str,
    pub(super) find_task: &'static str,
    pub(super) read_back: &'static str,
    pub(super) read_call: &'static str,
    pub(super) lock_call: &'static str,
    pub(super) lock_lane: &'static str,
    pub(super) lane_in_flight: &'static str,
    pub(super) lane_unfetched: &'static str,
    pub(super) reopen_fetched: &'static str,
    pub(super) note_unfetched: &'static str,
    pub(super) wake_unfetched: &'static str,
    pub(super) lane_unresolved: &'static str,
    pub(super) declare_lane: &'static str,
    pub(super) take_place: &'static str,
    pub(super) refund: &'static str,
    pub(super) uncount_paid: &'static str,
    pub(super) throttle_lane: &'static str,
    pub(super) block_lane: &'static str,
    pub(super) probe_lane: &'static str,
    pub(super) postpone_probe: &'static str,
    pub(super) lane_probes: &'static str,
    pub(super) count_unanswered: &'static str,
    pub(super) lane_unanswered: &'static str,
    pub(super) reopen_lane: &'static str,
    pub(super) pause_lane: &'static str,
    pub(super) resume_lane: &'static str,
    pub(super) lanes: &'static str,
    pub(super) claim_call: &'static str,
    pub(super) renew_lease: &'static str,
    pub(super) begin_submit: &'static str,
    pub(super) retract_submit: &'static str,
    pub(super) record_submitted: &'static str,
    pub(super) record_stored: &'static str,
    pub(super) store_and_close: &'static str,
    pub(super) keep_answer: &'static str,
    pub(super) forget_answer: &'static str,
    pub(super) remember_tasks: &'static str,
    pub(super) known_tasks: &'static str,
    pub(super) forget_tasks: &'static str,
    pub(super) requeue_call: &'static str,
    pub(super) hand_over_call: &'static str,
    pub(super) count_ambiguous: &'static str,
    pub(super) note_stuck: &'static str,
    pub(super) upsert_cache: &'static str,
    pub(super) waits_of: &'static str,
    pub(super) price_and_waits: &'static str,
    pub(super) lock_tasks: &'static str,
    pub(super) tasks_by_id: &'static str,
    pub(super) update_tasks: &'static str,
    pub(super) delete_waits: &'static str,
    pub(super) close_call: &'static str,
    pub(super) redirect_reply: &'static str,
    pub(super) due_calls: &'static str,
    pub(super) snooze_calls: &'static str,
    pub(super) due_events: &'static str,
    pub(super) snooze_events: &'static str,
    pub(super) letters: &'static LetterStatements,
    pub(super) suspect_starts: &'static str,
    pub(super) start_suspect: &'static str,
    pub(super) end_suspect: &'static str,
    pub(super) clear_suspect: &'static str,
    pub(super) forget_suspects: &'static str,
    pub(super) our_tables: &'static str,
    pub(super) readings: &'static ReadingsStatements,
    pub(super) inspect: &'static InspectStatements,
    pub(super) cache_view: &'static CacheViewStatements,
    pub(super) cancels: &'static CancelStatements,
    pub(super) commands: &'static CommandStatements,
    pub(super) replicas: &'static ReplicaStatements,
    pub(super) installation: &'static InstallationStatements,
    pub(super) batch: &'static BatchStatements,
    pub(super) overview: &'static OverviewStatements,
    pub(super) dropped: &'static DroppedStatements,
    pub(super) evict: &'static EvictStatements,
    pub(super) forget: &'static ForgetStatements,
    pub(super) verify: &'static VerifyStatements,
    pub(super) imports: &'static ImportStatements,
    pub(super) spending: &'static SpendingStatements,
}

/// The statements of dead letters, as [`Statements`].
pub(super) struct LetterStatements {
    pub(super) insert: &'static str,
    pub(super) fail_again: &'static str,
    pub(super) exists: &'static str,
    pub(super) open_of_edit: &'static str,
    pub(super) join_open: &'static str,
    pub(super) ungrouped: &'static str,
    pub(super) set_groups: &'static str,
    pub(super) groups: &'static str,
    pub(super) ids: &'static str,
    pub(super) by_ids: &'static str,
    pub(super) payloads: &'static str,
    pub(super) history: &'static str,
    pub(super) claimable: &'static str,
    pub(super) lock_free: &'static str,
    pub(super) note_retries: &'static str,
    pub(super) count_retries: &'static str,
    pub(super) claim: &'static str,
    pub(super) sent: &'static str,
    pub(super) give_back: &'static str,
    pub(super) retried: &'static str,
    pub(super) discard: &'static str,
    pub(super) of_retry: &'static str,
    pub(super) over: &'static str,
    pub(super) forget_retries: &'static str,
    pub(super) forget: &'static str,
    pub(super) calls_of: &'static str,
    pub(super) forget_paid: &'static str,
    pub(super) tasks_of: &'static str,
    pub(super) mark_calls: &'static str,
    pub(super) insert_waits: &'static str,
    pub(super) update_tasks: &'static str,
    pub(super) route_task: &'static str,
}

/// A value that goes into a statement.
#[derive(Debug, Clone, Copy)]
pub(super) enum Val<'a> {
    Int(i64),
    Text(&'a str),
    Bytes(&'a [u8]),
    OptInt(Option<i64>),
    OptText(Option<&'a str>),
    OptBytes(Option<&'a [u8]>),
}

macro_rules! val_from {
    ($($from:ty, $value:ident => $val:expr;)*) => { $(
        impl<'a> From<$from> for Val<'a> {
            fn from($value: $from) -> Self {
                $val
            }
        }
    )* };
}
val_from! {
    i64, int => Self::Int(int);
    u32, int => Self::Int(int.into());
    &'a str, text => Self::Text(text);
    &'a String, text => Self::Text(text);
    &'a [u8; 32], bytes => Self::Bytes(bytes);
    Option<i64>, int => Self::OptInt(int);
    Option<&'a str>, text => Self::OptText(text);
    Option<&'a [u8]>, bytes => Self::OptBytes(bytes);
}

/// The values of one statement, in the order of its placeholders.
macro_rules! vals {
    ($($value:expr),* $(,)?) => { &[$($crate::store::db::Val::from($value)),*][..] };
}
pub(super) use vals;

/// Bytes of rows in one statement: far below the largest packet that a server takes (16 MiB on MariaDB).
pub(super) const FULL: usize = 1024 * 1024;

/// Rows for a statement as JSON lists, each not much longer than [`FULL`].
pub(super) fn json_rows(rows: impl Iterator<Item = impl ToString>) -> Vec<String> {
    let mut lists: Vec<String> = Vec::new();
    for row in rows {
        match lists.last_mut().filter(|list| list.len() < FULL) {
            Some(list) => list.push(','),
            None => lists.push("[".to_owned()),
        }
        if let Some(list) = lists.last_mut() {
            list.push_str(&row.to_string());
        }
    }
    lists.iter_mut().for_each(|list| list.push(']'));
    lists
}

/// Drops the members of an object that are null: not every database reads a JSON null as NULL.
pub(super) fn strip_nulls(row: &mut Value) {
    if let Some(row) = row.as_object_mut() {
        row.retain(|_, value| !value.is_null());
    }
}

/// One result row.
pub(super) enum Row {
    MySql(MySqlRow),
    Sqlite(SqliteRow),
}

impl Row {
    fn get<'r, T>(&'r self, column: usize) -> Result<T, DbError>
    where
        T: Decode<'r, sqlx::MySql> + Type<sqlx::MySql> + Decode<'r, sqlx::Sqlite> + Type<sqlx::Sqlite>,
        usize: ColumnIndex<MySqlRow> + ColumnIndex<SqliteRow>,
    {
        match self {
            Self::MySql(row) => row.try_get(column),
            Self::Sqlite(row) => row.try_get(column),
        }
        .map_err(|error| DbError::Failed(error.to_string()))
    }

    pub(super) fn int(&self, column: usize) -> Result<i64, DbError> {
        self.get(column)
    }

    pub(super) fn opt_int(&self, column: usize) -> Result<Option<i64>, DbError> {
        self.get(column)
    }

    pub(super) fn text(&self, column: usize) -> Result<String, DbError> {
        self.get(column)
    }

    pub(super) fn opt_text(&self, column: usize) -> Result<Option<String>, DbError> {
        self.get(column)
    }

    pub(super) fn bytes(&self, column: usize) -> Result<Vec<u8>, DbError> {
        self.get(column)
    }

    pub(super) fn opt_bytes(&self, column: usize) -> Result<Option<Vec<u8>>, DbError> {
        self.get(column)
    }
}

/// Why a statement did not work, named by what the protocol does next.
#[derive(Debug, Error)]
pub(super) enum DbError {
    /// Somebody else was first (deadlock, lock wait, busy): run the whole transaction again.
    #[error("conflict: {0}")]
    Conflict(String),
    /// A row with this unique key is there already.
    #[error("duplicate: {0}")]
    Duplicate(String),
    /// The database cannot be asked now.
    #[error("unreachable: {0}")]
    Unavailable(String),
    /// The statement itself failed.
    #[error("{0}")]
    Failed(String),
}

/// One transaction, or one statement outside of any. Dropped without commit: rolled back.
#[async_trait]
pub(super) trait Tx: Send {
    /// Runs a statement; says how many rows it changed (for an update: matched).
    async fn run(&mut self, sql: &'static str, values: &[Val<'_>]) -> Result<u64, DbError>;
    /// Runs a query.
    async fn rows(&mut self, sql: &'static str, values: &[Val<'_>]) -> Result<Vec<Row>, DbError>;
    /// Commits.
    async fn commit(self: Box<Self>) -> Result<(), DbError>;
}

/// One database.
#[async_trait]
pub(super) trait Db: Send + Sync {
    /// Its statements.
    fn sql(&self) -> &'static Statements;
    /// Begins a writing transaction.
    async fn begin(&self) -> Result<Box<dyn Tx>, DbError>;
    /// A connection for single statements, each its own transaction.
    async fn plain(&self) -> Result<Box<dyn Tx>, DbError>;
    /// What is in the database now, compared with what this program needs.
    async fn schema_state(&self) -> Result<SchemaState, DbError>;
    /// Applies the migrations that are missing, one program at a time; says what is in the database then.
    async fn migrate(&self) -> Result<SchemaState, DbError>;
    /// Closes all connections.
    async fn close(&self);
}

/// Sorts an sqlx error into what the protocol does next, and counts it. `sort` knows the dialect's codes: MySQL's error number,
/// SQLite's extended result code.
pub(super) fn classify(error: sqlx::Error, sort: fn(u32) -> fn(String) -> DbError) -> DbError {
    let sorted = sorted(error, sort);
    match &sorted {
        DbError::Conflict(_) => database_error("conflict"),
        DbError::Unavailable(_) => database_error("unavailable"),
        DbError::Failed(_) => database_error("failed"),
        // How the same task again is noticed.
        DbError::Duplicate(_) => {}
    }
    sorted
}

fn sorted(error: sqlx::Error, sort: fn(u32) -> fn(String) -> DbError) -> DbError {
    let text = error.to_string();
    match error {
        sqlx::Error::Database(error) => {
            let code = match error.try_downcast_ref::<MySqlDatabaseError>() {
                Some(error) => error.number().into(),
                None => error.code().and_then(|code| code.parse().ok()).unwrap_or_default(),
            };
            sort(code)(text)
        }
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => DbError::Unavailable(text),
        // The enum is not exhaustive; what is left is about decoding, configuration and our own mistakes.
        _ => DbError::Failed(text),
    }
}

/// Makes `bound` for one sqlx database: a statement with its values.
macro_rules! impl_bound {
    ($db:ty, $arguments:ty) => {
        fn bound<'q>(sql: &'static str, values: &[Val<'q>]) -> sqlx::query::Query<'q, $db, $arguments> {
            let mut query = sqlx::query(sql);
            for value in values {
                query = match *value {
                    Val::Int(int) => query.bind(int),
                    Val::Text(text) => query.bind(text),
                    Val::Bytes(bytes) => query.bind(bytes),
                    Val::OptInt(int) => query.bind(int),
                    Val::OptText(text) => query.bind(text),
                    Val::OptBytes(bytes) => query.bind(bytes),
                };
            }
            query
        }
    };
}
pub(super) use impl_bound;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_travel_in_lists_far_below_the_largest_packet_and_in_order() {
        let rows: Vec<Value> =
            (0..40).map(|n| serde_json::json!({"n": n, "text": "x".repeat(100_000)})).collect();
        let lists = json_rows(rows.iter().cloned());
        assert!(lists.len() > 1 && lists.iter().all(|list| list.len() < 2 * 1024 * 1024));
        let read = lists.iter().flat_map(|list| serde_json::from_str::<Vec<Value>>(list).unwrap());
        assert!(read.eq(rows));
        assert!(json_rows(std::iter::empty::<Value>()).is_empty());
    }
}
