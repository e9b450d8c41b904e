//! What `retouch doctor` asks of a database: how it is set up, not what it holds. Nothing is changed.

use std::collections::BTreeMap;

use retouch_shared::key::Digest32;

use super::db::{DbError, Row, Tx, vals};
use super::types::hex_digest;
use super::{Store, StoreError, again};

/// The statements of a dialect for it.
pub(super) struct InspectStatements {
    /// Name and value of what holds on a connection of ours.
    pub(super) session: &'static str,
    /// The same for other programs' connections.
    pub(super) global: &'static str,
    /// Milliseconds since 1970 by the database's clock.
    pub(super) now: &'static str,
    /// The cipher of this connection, as name and value.
    pub(super) cipher: &'static str,
    /// Columns of ours in which texts are not compared byte for byte.
    pub(super) inexact_columns: &'static str,
    /// The digests of the newest results.
    pub(super) newest_results: &'static str,
}

/// How a database is set up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Variables by lower-case name, as they are on a connection of ours.
    pub session: BTreeMap<String, String>,
    /// As they are for others.
    pub global: BTreeMap<String, String>,
    /// Milliseconds since 1970 by its clock.
    pub now_ms: i64,
    /// None where the connection is not encrypted.
    pub cipher: Option<String>,
    /// Columns of ours in which texts are not compared byte for byte, with their collations.
    pub inexact_columns: Vec<String>,
}

impl Store {
    /// How the database is set up.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn facts(&self) -> Result<Facts, StoreError> {
        let sql = self.db.sql().inspect;
        again!(async {
            let mut connection = self.db.plain().await?;
            let mut facts = Facts {
                session: variables(&mut *connection, sql.session).await?,
                global: variables(&mut *connection, sql.global).await?,
                ..Facts::default()
            };
            let cipher = variables(&mut *connection, sql.cipher).await?.into_values().next();
            facts.cipher = cipher.filter(|cipher| !cipher.is_empty());
            for row in connection.rows(sql.inexact_columns, vals![]).await? {
                facts.inexact_columns.push(row.text(0)?);
            }
            let now = connection.rows(sql.now, vals![]).await?;
            facts.now_ms = now.first().map_or(Ok(0), |row| row.int(0))?;
            Ok(facts)
        })
    }

    /// The digests of the newest results, `most` of them.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn newest_results(&self, most: u32) -> Result<Vec<Digest32>, StoreError> {
        again!(async {
            let mut connection = self.db.plain().await?;
            let mut digests = Vec::new();
            for row in connection.rows(self.db.sql().inspect.newest_results, vals![most]).await? {
                digests.push(hex_digest(&row.text(0)?)?);
            }
            Ok(digests)
        })
    }

    /// Whether rows can be written: one is, and rolled back.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn try_write(&self) -> Result<(), StoreError> {
        again!(async {
            let mut tx = self.db.begin().await?;
            let probe = *Digest32::of(b"retouch doctor").as_bytes();
            tx.run(self.db.sql().start_suspect, vals![&probe]).await?;
            drop(tx);
            Ok(())
        })
    }
}

async fn variables(tx: &mut dyn Tx, sql: &'static str) -> Result<BTreeMap<String, String>, DbError> {
    let rows = tx.rows(sql, vals![]).await?;
    rows.iter().map(|row| Ok((word(row, 0)?.to_ascii_lowercase(), word(row, 1)?))).collect()
}

/// Some servers call these texts, others bytes.
fn word(row: &Row, column: usize) -> Result<String, DbError> {
    let bytes = || row.bytes(column).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    row.text(column).or_else(|_| bytes())
}
