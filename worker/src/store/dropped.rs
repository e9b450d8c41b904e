//! Blobs that are to go, and the guard that keeps one that is needed again from going.
//!
//! A blob store knows no transactions: who keeps a picture that is there already writes nothing, and might find it deleted a
//! moment later. So what deletes a blob first commits a mark for it, then asks whether any row names it, under locks that wait
//! for rows that are being written, and only then deletes; and whoever writes a row that names a blob (`register`,
//! `reopen_images`, `record_stored`, `store_and_finish`, `fail_edit_kept`) looks for a mark after that, in
//! the same transaction. Either the row is seen, and the blob stays; or the mark is seen, and the row is not
//! written: the work is held for a moment, and the picture kept anew.
//!
//! What must stay true: the mark is committed before the names are read; the names are read before the blob is deleted; calls
//! are asked before cache rows, because `finish_edit` moves a name from one to the other; and the mark says that the blob is gone
//! only when it is. Who was stalled for [`CLAIM`] between reading the names and deleting is not guarded against.

use std::collections::BTreeSet;
use std::time::Duration;

use retouch_shared::key::Digest32;
use serde_json::{Value, json};

use super::calls::millis;
use super::db::{Tx, json_rows, vals};
use super::types::hex_digest;
use super::{StepError, Store, StoreError, again};

/// How long who deletes a blob has for it: longer than a blob store is tried for.
const CLAIM: Duration = Duration::from_secs(600);
/// How long it is remembered that a blob was deleted: longer than a task is looked at by intake, or a result is being kept.
const REMEMBERED: Duration = Duration::from_secs(24 * 60 * 60);
/// Clocks of two machines are not compared, but a time that was measured by one is subtracted from the other's now.
const SLACK: Duration = Duration::from_secs(2);

pub(super) struct DroppedStatements {
    pub(super) drop: &'static str,
    pub(super) pending: &'static str,
    pub(super) claim: &'static str,
    pub(super) still: &'static str,
    /// Each says which of a list of digests some row names: calls first, then what they turn into.
    pub(super) named: [&'static str; 7],
    pub(super) keep: &'static str,
    pub(super) deleted: &'static str,
    pub(super) give_back: &'static str,
    pub(super) was_dropped: &'static str,
    pub(super) forget: &'static str,
    pub(super) take_chore: &'static str,
    pub(super) end_chore: &'static str,
}

/// What stands for a blob after it is gone: it can be looked for, and does not tell what it was.
fn mark(hash: Digest32) -> Digest32 {
    Digest32::of(format!("dropped\n{hash}").as_bytes())
}

fn marks<'a>(hashes: impl IntoIterator<Item = &'a Digest32>) -> String {
    let marks: BTreeSet<Digest32> = hashes.into_iter().map(|hash| mark(*hash)).collect();
    json!(marks).to_string()
}

/// What `was_dropped` is asked with about blobs that somebody began, `ago`, to keep.
pub(super) fn marks_of(hashes: &BTreeSet<Digest32>, ago: Duration) -> (String, i64) {
    (marks(hashes), millis(ago + SLACK))
}

/// What `was_dropped` says, as an error.
pub(super) fn unless_dropped(dropped: bool) -> Result<(), StepError> {
    if !dropped {
        return Ok(());
    }
    let why = "a blob that is needed was deleted this moment; it is kept anew";
    Err(StepError::Store(StoreError::Unavailable(why.to_owned())))
}

impl Store {
    /// Marks blobs as to be deleted, unless a row names them by then.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn drop_blobs(&self, hashes: &BTreeSet<Digest32>) -> Result<(), StoreError> {
        again!(async {
            let mut tx = self.db.begin().await?;
            self.drop_in(&mut *tx, hashes).await?;
            Ok(tx.commit().await?)
        })
    }

    /// As a step of the transaction that deletes the rows which named them.
    pub(super) async fn drop_in(
        &self,
        tx: &mut dyn Tx,
        hashes: &BTreeSet<Digest32>,
    ) -> Result<(), StepError> {
        let rows: std::collections::BTreeMap<Digest32, Value> =
            hashes.iter().map(|hash| (mark(*hash), json!({"mark": mark(*hash), "hash": hash}))).collect();
        for rows in json_rows(rows.into_values()) {
            tx.run(self.db.sql().dropped.drop, vals![&rows]).await?;
        }
        Ok(())
    }

    /// Takes some of the marked blobs to be deleted by this caller, who then says what came of it with
    /// [`Store::blobs_deleted`] or [`Store::blobs_not_deleted`]. Those that a row names again stay, and their marks go. Returns how
    /// many were looked at, and which are to be deleted.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn claim_dropped(&self, limit: u32) -> Result<(usize, BTreeSet<Digest32>), StoreError> {
        let claimed: BTreeSet<Digest32> = again!(async {
            let sql = self.db.sql().dropped;
            let mut tx = self.db.begin().await?;
            let rows = tx.rows(sql.pending, vals![limit]).await?;
            let claimed =
                rows.iter().map(|row| hex_digest(&row.text(0)?)).collect::<Result<_, StoreError>>()?;
            tx.run(sql.claim, vals![&marks(&claimed), millis(CLAIM)]).await?;
            tx.commit().await?;
            Ok(claimed)
        })?;
        if claimed.is_empty() {
            return Ok((0, claimed));
        }
        let looked_at = claimed.len();
        let unnamed = again!(async {
            let mut tx = self.db.begin().await?;
            let named = self.named_in(&mut *tx, &claimed).await?;
            tx.run(self.db.sql().dropped.keep, vals![&marks(&named)]).await?;
            tx.commit().await?;
            Ok(claimed.difference(&named).copied().collect())
        })?;
        Ok((looked_at, unnamed))
    }

    /// Those of these blobs that a row names.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn named_blobs(&self, hashes: &BTreeSet<Digest32>) -> Result<BTreeSet<Digest32>, StoreError> {
        again!(async {
            let mut tx = self.db.begin().await?;
            let named = self.named_in(&mut *tx, hashes).await?;
            tx.commit().await?;
            Ok(named)
        })
    }

    async fn named_in(
        &self,
        tx: &mut dyn Tx,
        hashes: &BTreeSet<Digest32>,
    ) -> Result<BTreeSet<Digest32>, StepError> {
        let list = json!(hashes).to_string();
        let mut named = BTreeSet::new();
        for sql in self.db.sql().dropped.named {
            for row in tx.rows(sql, vals![&list]).await? {
                named.insert(hex_digest(&row.text(0)?)?);
            }
        }
        Ok(named)
    }

    /// These are gone.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn blobs_deleted(&self, hashes: &BTreeSet<Digest32>) -> Result<(), StoreError> {
        self.mark_as(self.db.sql().dropped.deleted, hashes).await
    }

    /// These could not be deleted now: whoever comes next tries again.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn blobs_not_deleted(&self, hashes: &BTreeSet<Digest32>) -> Result<(), StoreError> {
        self.mark_as(self.db.sql().dropped.give_back, hashes).await
    }

    async fn mark_as(&self, sql: &'static str, hashes: &BTreeSet<Digest32>) -> Result<(), StoreError> {
        if hashes.is_empty() {
            return Ok(());
        }
        again!(async {
            let mut connection = self.db.plain().await?;
            connection.run(sql, vals![&marks(hashes)]).await?;
            Ok(())
        })
    }

    /// How many of these are marked and not deleted yet.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn still_dropped(&self, hashes: &BTreeSet<Digest32>) -> Result<u64, StoreError> {
        let mut connection = self.db.plain().await?;
        let rows = connection.rows(self.db.sql().dropped.still, vals![&marks(hashes)]).await?;
        let count = rows.first().map_or(Ok(0), |row| row.int(0))?;
        Ok(u64::try_from(count).unwrap_or_default())
    }

    /// Held where one of these is being deleted, or was after somebody began, `ago`, to keep them. Called after the row that
    /// names them is written, in the same transaction.
    pub(super) async fn none_was_dropped(
        &self,
        tx: &mut dyn Tx,
        hashes: &BTreeSet<Digest32>,
        ago: Duration,
    ) -> Result<(), StepError> {
        if hashes.is_empty() {
            return Ok(());
        }
        let (marks, lately) = marks_of(hashes, ago);
        let dropped = !tx.rows(self.db.sql().dropped.was_dropped, vals![&marks, lately]).await?.is_empty();
        unless_dropped(dropped)
    }

    /// Drops the marks of blobs that were deleted long ago; says how many.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn forget_dropped(&self) -> Result<u64, StoreError> {
        again!(async {
            let mut connection = self.db.plain().await?;
            Ok(connection.run(self.db.sql().dropped.forget, vals![millis(REMEMBERED)]).await?)
        })
    }

    /// Takes up work that one replica at a time does, if it is due; nobody else does until `lasts` has passed. Returns how far
    /// it has come.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn take_chore(&self, name: &str, lasts: Duration) -> Result<Option<String>, StoreError> {
        let sql = self.db.sql().dropped;
        again!(async {
            let mut tx = self.db.begin().await?;
            let rows = tx.rows(sql.take_chore, vals![name]).await?;
            let position = rows.first().map(|row| row.text(0)).transpose()?;
            if let Some(position) = &position {
                tx.run(sql.end_chore, vals![position, millis(lasts), name]).await?;
            }
            tx.commit().await?;
            Ok(position)
        })
    }

    /// It has come so far, and goes on after `next`.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn end_chore(&self, name: &str, position: &str, next: Duration) -> Result<(), StoreError> {
        again!(async {
            let mut connection = self.db.plain().await?;
            connection.run(self.db.sql().dropped.end_chore, vals![position, millis(next), name]).await?;
            Ok(())
        })
    }
}
