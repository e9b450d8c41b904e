//! Replicas: every worker says now and then that it lives and what it does. For people only: nothing is decided by it, and
//! a lease never looks here.
//!
//! What must stay true: who is alive is decided by the database's clock alone, so that no worker's clock hides a worker.

use std::time::Duration;

use serde_json::Value;

use super::calls::millis;
use super::db::vals;
use super::types::{ascii, clip};
use super::{Store, StoreError, again};

/// Whoever has not reported for so long is dead: five reports that did not come.
pub const DEAD_AFTER: Duration = Duration::from_secs(15);
/// The rows of the dead are kept so long.
const REMEMBERED: Duration = Duration::from_secs(60 * 60);

pub(super) struct ReplicaStatements {
    pub(super) report: &'static str,
    pub(super) remove: &'static str,
    pub(super) alive: &'static str,
    pub(super) forget: &'static str,
}

/// What a worker says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplicaReport {
    /// The owner of its leases.
    pub owner: String,
    /// For people.
    pub name: String,
    /// Of the program.
    pub version: String,
    /// Small, as JSON.
    pub doing: Value,
}

/// A worker that lives.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplicaView {
    /// What it said last.
    pub report: ReplicaReport,
    /// How long it has been running.
    pub up: Duration,
    /// How long ago it said it.
    pub seen: Duration,
}

impl Store {
    /// Notes that a worker lives.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn report_replica(&self, report: &ReplicaReport) -> Result<(), StoreError> {
        let ReplicaReport { owner, name, version, doing } = report;
        let (owner, version, doing) = (ascii(owner, 64), ascii(version, 32), doing.to_string());
        let name: String = name.chars().take(128).collect();
        let mut connection = self.db.plain().await?;
        let values = vals![&owner, &name, &version, clip(&doing)];
        connection.run(self.db.sql().replicas.report, values).await?;
        Ok(())
    }

    /// A worker ends in an orderly way.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn remove_replica(&self, owner: &str) -> Result<(), StoreError> {
        again!(async {
            let mut connection = self.db.plain().await?;
            connection.run(self.db.sql().replicas.remove, vals![&ascii(owner, 64)]).await?;
            Ok(())
        })
    }

    /// The workers that live, the oldest first.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn replicas(&self) -> Result<Vec<ReplicaView>, StoreError> {
        let mut connection = self.db.plain().await?;
        let rows = connection.rows(self.db.sql().replicas.alive, vals![millis(DEAD_AFTER)]).await?;
        let view = |row: &super::db::Row| {
            let span = |column| {
                let millis = u64::try_from(row.int(column)?).unwrap_or_default();
                Ok::<_, StoreError>(Duration::from_millis(millis))
            };
            Ok(ReplicaView {
                report: ReplicaReport {
                    owner: row.text(0)?,
                    name: row.text(1)?,
                    version: row.text(2)?,
                    doing: serde_json::from_str(&row.text(3)?).map_err(StoreError::corrupt)?,
                },
                up: span(4)?,
                seen: span(5)?,
            })
        };
        rows.iter().map(view).collect()
    }

    /// Drops the rows of those that died long ago; says how many.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn forget_replicas(&self) -> Result<u64, StoreError> {
        again!(async {
            let mut connection = self.db.plain().await?;
            Ok(connection.run(self.db.sql().replicas.forget, vals![millis(REMEMBERED)]).await?)
        })
    }
}
