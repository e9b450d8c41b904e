//! What `retouch top` reads, again and again, all day: ranges of indexes, a minute or two long, and nothing that grows with
//! what was done before.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::admission::LaneView;
use super::calls::millis;
use super::db::{Row, vals};
use super::lanes::lane_view;
use super::types::time;
use super::{Store, StoreError};

/// Open dead letters are counted up to here.
pub const MOST_COUNTED: u64 = 10_000;

pub(super) struct OverviewStatements {
    pub(super) clock: &'static str,
    pub(super) ended_by_minute: &'static str,
    pub(super) ended_lately: &'static str,
    pub(super) lanes_at_a_glance: &'static str,
    pub(super) last_failures: &'static str,
    pub(super) open_failures: &'static str,
}

/// How the images of tasks that ended were answered, and for how much.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Of the money.
    pub currency: String,
    /// Images from the cache.
    pub hit: u64,
    /// Images answered by another image's call.
    pub joined: u64,
    /// Images answered by their own call.
    pub paid: u64,
    /// Images without an answer.
    pub failed: u64,
    /// In millionths.
    pub paid_micros: i64,
    /// In millionths.
    pub saved_micros: i64,
    /// Spent, or perhaps spent, and bought nothing; in millionths.
    pub lost_micros: i64,
}

/// The database's clock: its minute, counted from some day in the past, and the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// As [`Store::ended_by_minute`] counts them.
    pub minute: i64,
    /// UTC.
    pub now: DateTime<Utc>,
}

/// A dead letter, in short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// For `retouch dead show`.
    pub id: i64,
    /// Its reason code.
    pub reason: String,
    /// The beginning of its message.
    pub message: String,
    /// The queue that it comes from.
    pub queue: String,
    /// Where known.
    pub task_id: Option<String>,
    /// `open`, `retried` or `discarded`.
    pub state: String,
    /// How long ago it was written last.
    pub ago: Duration,
}

impl Store {
    /// What time it is in the database.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn clock(&self) -> Result<Clock, StoreError> {
        let mut connection = self.db.plain().await?;
        let rows = connection.rows(self.db.sql().overview.clock, vals![]).await?;
        let row = rows.first().ok_or_else(|| StoreError::Corrupt("no time".to_owned()))?;
        Ok(Clock { minute: row.int(0)?, now: time(&row.text(1)?)? })
    }

    /// What ended within these last minutes, by minute and currency; the oldest minute only in part.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn ended_by_minute(&self, minutes: u32) -> Result<Vec<(i64, Tally)>, StoreError> {
        let mut connection = self.db.plain().await?;
        let rows = connection.rows(self.db.sql().overview.ended_by_minute, vals![minutes]).await?;
        rows.iter().map(|row| Ok((row.int(8)?, tally(row)?))).collect()
    }

    /// What ended within this last while, by currency.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn ended_lately(&self, within: Duration) -> Result<Vec<Tally>, StoreError> {
        let mut connection = self.db.plain().await?;
        let rows = connection.rows(self.db.sql().overview.ended_lately, vals![millis(within)]).await?;
        rows.iter().map(tally).collect()
    }

    /// As [`Store::lanes`], without how long the oldest call has waited, for which every queued row would be read.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn lanes_at_a_glance(&self) -> Result<Vec<LaneView>, StoreError> {
        let mut connection = self.db.plain().await?;
        let rows = connection.rows(self.db.sql().overview.lanes_at_a_glance, vals![]).await?;
        rows.iter().map(lane_view).collect()
    }

    /// The dead letters that were written last, the newest first, and how many are open, [`MOST_COUNTED`] + 1 at most.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn last_failures(&self, limit: u32) -> Result<(Vec<Failure>, u64), StoreError> {
        let sql = &self.db.sql().overview;
        let mut connection = self.db.plain().await?;
        let failure = |row: &Row| {
            Ok::<_, StoreError>(Failure {
                id: row.int(0)?,
                reason: row.text(1)?,
                message: row.text(2)?,
                queue: row.text(3)?,
                task_id: row.opt_text(4)?,
                state: row.text(5)?,
                ago: Duration::from_millis(u64::try_from(row.int(6)?).unwrap_or_default()),
            })
        };
        let rows = connection.rows(sql.last_failures, vals![limit]).await?;
        let failures = rows.iter().map(failure).collect::<Result<_, _>>()?;
        let most = i64::try_from(MOST_COUNTED).unwrap_or(i64::MAX).saturating_add(1);
        let rows = connection.rows(sql.open_failures, vals![most]).await?;
        let open = rows.first().map_or(Ok(0), |row| row.int(0))?;
        Ok((failures, u64::try_from(open).unwrap_or_default()))
    }
}

pub(super) fn tally(row: &Row) -> Result<Tally, StoreError> {
    let count = |column| Ok::<_, StoreError>(u64::try_from(row.int(column)?).unwrap_or_default());
    Ok(Tally {
        currency: row.text(0)?,
        hit: count(1)?,
        joined: count(2)?,
        paid: count(3)?,
        failed: count(4)?,
        paid_micros: row.int(5)?,
        saved_micros: row.int(6)?,
        lost_micros: row.int(7)?,
    })
}
