//! Readings: how much waits, and for how long, for `/metrics`. Read by every replica now and then, so nothing here may cost
//! more than what is not over.

use std::time::Duration;

use super::db::{Row, vals};
use super::{LaneView, Store, StoreError};

/// The statements of a dialect for this.
pub(super) struct ReadingsStatements {
    pub(super) calls: &'static str,
    pub(super) oldest: &'static str,
    pub(super) dead: &'static str,
    pub(super) events_due: &'static str,
}

/// How it stands.
#[derive(Debug, Clone, Default)]
pub struct Readings {
    /// Every lane.
    pub lanes: Vec<LaneView>,
    /// Calls that are not over.
    pub calls: Vec<CallsReading>,
    /// By lane: how long the longest waiting image has waited for a call that was not sent yet.
    pub oldest: Vec<(String, Duration)>,
    /// Open dead letters by reason.
    pub dead: Vec<(String, u64)>,
    /// Ended tasks whose event is not confirmed.
    pub events_due: u64,
}

/// The calls of one lane in one state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallsReading {
    /// The lane.
    pub lane: String,
    /// The word in the table.
    pub state: String,
    /// So many.
    pub calls: u64,
    /// So many of them are leased by somebody.
    pub leased: u64,
}

impl Store {
    /// Reads it all.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn readings(&self) -> Result<Readings, StoreError> {
        let lanes = self.lanes().await?;
        let sql = self.db.sql().readings;
        let mut connection = self.db.plain().await?;
        let call = |row: &Row| {
            let (lane, state) = (row.text(0)?, row.text(1)?);
            Ok::<_, StoreError>(CallsReading { lane, state, calls: count(row, 2)?, leased: count(row, 3)? })
        };
        let calls = connection.rows(sql.calls, vals![]).await?.iter().map(call).collect::<Result<_, _>>()?;
        let oldest = |row: &Row| {
            let waited = Duration::from_millis(count(row, 1)?);
            Ok::<_, StoreError>((row.text(0)?, waited))
        };
        let oldest =
            connection.rows(sql.oldest, vals![]).await?.iter().map(oldest).collect::<Result<_, _>>()?;
        let dead = |row: &Row| Ok::<_, StoreError>((row.text(0)?, count(row, 1)?));
        let dead = connection.rows(sql.dead, vals![]).await?.iter().map(dead).collect::<Result<_, _>>()?;
        let due = connection.rows(sql.events_due, vals![]).await?;
        let events_due = due.first().map_or(Ok(0), |row| count(row, 0))?;
        Ok(Readings { lanes, calls, oldest, dead, events_due })
    }
}

fn count(row: &Row, column: usize) -> Result<u64, StoreError> {
    Ok(u64::try_from(row.int(column)?).unwrap_or_default())
}
