//! Verifying: which entries' blobs were not looked at for the longest time, and what becomes of one whose blob is not what its
//! row says.
//!
//! What must stay true: a row goes only under its call's lock, no call of it being alive, and only while it still names the blob
//! that was found wrong; then the edit is made again once, by whoever asks for it next.

use std::collections::BTreeSet;
use std::time::Duration;

use retouch_shared::key::{Digest32, EditKey};
use serde_json::json;

use super::calls::millis;
use super::db::vals;
use super::intake::key_list;
use super::types::{digest, hex_digest};
use super::{CallState, StepError, Store, StoreError, again};
use crate::failpoint::around;

pub(super) struct VerifyStatements {
    pub(super) before: &'static str,
    pub(super) count: &'static str,
    pub(super) next: &'static str,
    pub(super) verified: &'static str,
    pub(super) set_bytes: &'static str,
}

/// An entry whose blob is to be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToVerify {
    /// Its edit.
    pub edit_key: EditKey,
    /// Its blob.
    pub hash: Digest32,
    /// How large that is, as the row says.
    pub bytes: u64,
}

/// What was made of an entry whose blob is missing or damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verified {
    /// Its row is gone: a miss from now on.
    Removed,
    /// Somebody else has changed it, or is at it.
    Changed,
}

impl Store {
    /// The moment so long ago, as the database writes it: what was verified after it is fresh.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn verify_before(&self, fresh: Duration) -> Result<String, StoreError> {
        let mut connection = self.db.plain().await?;
        let rows = connection.rows(self.db.sql().verify.before, vals![millis(fresh)]).await?;
        let row = rows.first().ok_or_else(|| StoreError::Corrupt("the database has no time".to_owned()))?;
        Ok(row.text(0)?)
    }

    /// How many entries have a blob that was not looked at since that moment.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn count_to_verify(&self, before: &str) -> Result<u64, StoreError> {
        let mut connection = self.db.plain().await?;
        let rows = connection.rows(self.db.sql().verify.count, vals![before]).await?;
        let count = rows.first().map_or(Ok(0), |row| row.int(0))?;
        Ok(u64::try_from(count).unwrap_or_default())
    }

    /// Some of them: those first that were never looked at, or not for the longest time.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn next_to_verify(&self, before: &str, limit: u32) -> Result<Vec<ToVerify>, StoreError> {
        let mut connection = self.db.plain().await?;
        let rows = connection.rows(self.db.sql().verify.next, vals![before, limit]).await?;
        let entry = |row: &super::db::Row| {
            Ok(ToVerify {
                edit_key: digest(row.bytes(0)?)?,
                hash: hex_digest(&row.text(1)?)?,
                bytes: u64::try_from(row.int(2)?).unwrap_or_default(),
            })
        };
        rows.iter().map(entry).collect()
    }

    /// These are as their rows say, or cannot be made so now.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn mark_verified(&self, keys: &[EditKey]) -> Result<(), StoreError> {
        again!(async {
            let mut connection = self.db.plain().await?;
            connection.run(self.db.sql().verify.verified, vals![&key_list(keys)]).await?;
            Ok(())
        })
    }

    /// Corrects the size of an entry whose blob has the right digest.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn correct_bytes(&self, entry: &ToVerify, bytes: u64) -> Result<(), StoreError> {
        let (bytes, hash) = (i64::try_from(bytes).unwrap_or(i64::MAX), entry.hash.to_hex());
        again!(async {
            let mut connection = self.db.plain().await?;
            let values = vals![bytes, entry.edit_key.as_bytes(), &hash];
            connection.run(self.db.sql().verify.set_bytes, values).await?;
            Ok(())
        })?;
        self.recount_later().await
    }

    /// Removes an entry whose blob is missing or damaged. What is kept under the blob's name, if anything, is marked to be deleted.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn remove_unusable(&self, entry: &ToVerify) -> Result<Verified, StoreError> {
        let removed = around("remove_unusable", async { again!(self.try_remove(entry)) }).await?;
        self.recount_later().await?;
        Ok(removed)
    }

    async fn try_remove(&self, entry: &ToVerify) -> Result<Verified, StepError> {
        let sql = self.db.sql();
        let keys = key_list(&[entry.edit_key]);
        let mut tx = self.db.begin().await?;
        for row in tx.rows(sql.lock_calls, vals![&keys]).await? {
            if CallState::ALIVE.contains(&CallState::parse(&row.text(1)?)?) {
                return Ok(Verified::Changed);
            }
        }
        let rows = tx.rows(sql.evict.lock_entries, vals![&keys]).await?;
        let Some(row) = rows.first() else { return Ok(Verified::Changed) };
        let (image_hash, result_hash) = (row.text(8)?, row.opt_text(9)?);
        if result_hash.as_deref().map(hex_digest).transpose()? != Some(entry.hash) {
            return Ok(Verified::Changed);
        }
        let gone = json!([{"edit_key": entry.edit_key, "image_hash": image_hash, "reason": "blob_missing"}]);
        tx.run(sql.forget.insert_gone, vals![&gone.to_string()]).await?;
        tx.run(sql.forget.delete_entries, vals![&keys]).await?;
        self.drop_in(&mut *tx, &BTreeSet::from([entry.hash])).await?;
        tx.commit().await?;
        Ok(Verified::Removed)
    }
}
