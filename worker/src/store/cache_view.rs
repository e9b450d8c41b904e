//! What the cache holds, for people: sums, entries by picture or key, and what is known of edits that have none. Nothing here
//! changes a row.
//!
//! What must stay true: images and money are summed up from the tasks' rows alone, in one statement, so that they are right
//! whoever wrote them and whatever died meanwhile; and rows of another key version are shown as they are.

use chrono::{DateTime, Utc};
use retouch_shared::key::{Digest32, EditIdentity, EditKey, ImageHash, KEY_VERSION_NUMBER};
use retouch_shared::task::Params;

use super::db::{Row, vals};
use super::overview::{Tally, tally};
use super::types::{digest, hex_digest, time};
use super::{CachedResult, CallSpec, CallState, Money, Store, StoreError};

/// The statements of a dialect for it.
pub(super) struct CacheViewStatements {
    pub(super) shares: &'static str,
    pub(super) answered: &'static str,
    pub(super) answered_today: &'static str,
    pub(super) most_served: &'static str,
    pub(super) entry_of_edit: &'static str,
    pub(super) entries_of_image: &'static str,
    pub(super) entries_of_result: &'static str,
    pub(super) recent_of_edit: &'static str,
    pub(super) gone: &'static str,
    pub(super) calls: &'static str,
    pub(super) result_type: &'static str,
}

/// No more entries of one picture are read than this.
pub const MOST_ENTRIES: u32 = 1000;
/// So many of the newest rows are looked through for other pictures with the same edit.
const RECENT_ROWS: u32 = 2000;

/// The entries of one model under one key version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheShare {
    /// Of their edit keys.
    pub key_version: u16,
    /// The provider kind.
    pub provider: String,
    /// The provider's model id.
    pub model: String,
    /// So many rows.
    pub entries: u64,
    /// So many of them came from an older system.
    pub imported: u64,
    /// What their results take.
    pub bytes: u64,
    /// How often they were served.
    pub served: u64,
}

/// How images of one edit type were answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// The UTC day on which their tasks ended, as 2026-11-25; none for tasks that have not ended.
    pub day: Option<String>,
    /// The operation.
    pub edit_type: String,
    /// Their tasks.
    pub tasks: u64,
    /// Images of these tasks, answered or not.
    pub images: u64,
    /// What of them is answered, and the money.
    pub tally: Tally,
}

/// One row of the cache, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheEntry {
    /// The input.
    pub image_hash: ImageHash,
    /// The operation.
    pub edit_type: String,
    /// As it went to the provider.
    pub prompt: String,
    /// The provider kind.
    pub provider: String,
    /// The provider's model id.
    pub model: String,
    /// With the route's defaults.
    pub params: Params,
    /// The mask blob.
    pub mask_hash: Option<ImageHash>,
    /// Another take.
    pub variant: Option<String>,
    /// Of its edit key.
    pub key_version: u16,
    /// What is served.
    pub result: CachedResult,
    /// Images served.
    pub hit_count: u64,
    /// How often the older system had served it; none where it was made here.
    pub imported_hits: Option<u64>,
    /// When it was served last.
    pub last_hit_at: DateTime<Utc>,
    /// When it was made, or imported.
    pub created_at: DateTime<Utc>,
    /// When its blob was last compared with its digest.
    pub verified_at: Option<DateTime<Utc>>,
    /// Why its result could not be decoded; none: it was, or was not looked at.
    pub result_check: Option<String>,
}

impl CacheEntry {
    /// Its edit as a call would have it.
    pub fn identity(&self) -> EditIdentity<'_> {
        EditIdentity {
            image_hash: self.image_hash,
            edit_type: &self.edit_type,
            prompt: &self.prompt,
            provider: &self.provider,
            model: &self.model,
            params: &self.params,
            mask_hash: self.mask_hash,
            variant: self.variant.as_deref(),
        }
    }

    fn from_row(row: &Row) -> Result<Self, StoreError> {
        let count = |column| Ok::<_, StoreError>(u64::try_from(row.int(column)?).unwrap_or_default());
        let pixels = |column| Ok::<_, StoreError>(u32::try_from(row.int(column)?).unwrap_or_default());
        let result = CachedResult {
            edit_key: digest(row.bytes(0)?)?,
            result_url: row.text(9)?,
            result_hash: row.opt_text(10)?.as_deref().map(hex_digest).transpose()?,
            content_type: row.text(11)?,
            width: pixels(12)?,
            height: pixels(13)?,
            bytes: count(14)?,
            price: Money { micros: row.int(15)?, currency: row.text(16)? },
        };
        Ok(Self {
            image_hash: hex_digest(&row.text(1)?)?,
            edit_type: row.text(2)?,
            prompt: row.text(3)?,
            provider: row.text(4)?,
            model: row.text(5)?,
            params: row.text(6)?.parse().map_err(StoreError::corrupt)?,
            mask_hash: row.opt_text(7)?.as_deref().map(hex_digest).transpose()?,
            variant: row.opt_text(8)?,
            result,
            hit_count: count(17)?,
            last_hit_at: time(&row.text(18)?)?,
            created_at: time(&row.text(19)?)?,
            key_version: version(row, 20)?,
            imported_hits: row.opt_int(21)?.and_then(|hits| u64::try_from(hits).ok()),
            verified_at: row.opt_text(22)?.as_deref().map(time).transpose()?,
            result_check: row.opt_text(23)?,
        })
    }
}

/// An edit that the cache no longer has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoneEntry {
    /// The edit.
    pub edit_key: EditKey,
    /// The input; none where it was forgotten.
    pub image_hash: Option<ImageHash>,
    /// `evicted`, `forgotten` or `blob_missing`.
    pub reason: String,
    /// Since when.
    pub gone_at: DateTime<Utc>,
}

/// A call, as far as it says why an edit has no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallView {
    /// The edit.
    pub edit_key: EditKey,
    /// The input.
    pub image_hash: ImageHash,
    /// The operation.
    pub edit_type: String,
    /// The provider's model id.
    pub model: String,
    /// Where it queues.
    pub lane: String,
    /// Where it is in its life.
    pub state: CallState,
    /// Its last error, for people.
    pub last_error: Option<String>,
    /// Since when it is so.
    pub updated_at: DateTime<Utc>,
}

/// What is known of some edits, by their keys or their picture.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// Rows of the cache, the newest first.
    pub entries: Vec<CacheEntry>,
    /// What became of rows that it no longer has, the newest first.
    pub gone: Vec<GoneEntry>,
    /// Their calls, the newest first; most of them are over.
    pub calls: Vec<CallView>,
}

impl Store {
    /// The content type of a blob that some entry or call names as its result; none for any other blob.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn result_type(&self, hash: Digest32) -> Result<Option<String>, StoreError> {
        let mut connection = self.db.plain().await?;
        let hex = hash.to_hex();
        let rows = connection.rows(self.db.sql().cache_view.result_type, vals![&hex, &hex]).await?;
        rows.first().map(|row| Ok(row.opt_text(0)?.unwrap_or_default())).transpose()
    }

    /// What the cache holds, by key version and model. Reads every row.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn cache_shares(&self) -> Result<Vec<CacheShare>, StoreError> {
        let share = |row: &Row| {
            let count = |column| Ok::<_, StoreError>(u64::try_from(row.int(column)?).unwrap_or_default());
            Ok(CacheShare {
                key_version: version(row, 0)?,
                provider: row.text(1)?,
                model: row.text(2)?,
                entries: count(3)?,
                imported: count(4)?,
                bytes: count(5)?,
                served: count(6)?,
            })
        };
        let mut connection = self.db.plain().await?;
        connection.rows(self.db.sql().cache_view.shares, vals![]).await?.iter().map(share).collect()
    }

    /// How images were answered: of tasks that ended on one of the last `days` UTC days, today included, by day, edit type
    /// and currency; and of all that have not ended. One look: a task that ends meanwhile is in it once.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn answered(&self, days: u32) -> Result<Vec<Answered>, StoreError> {
        let answered = |row: &Row| {
            let count = |column| Ok::<_, StoreError>(u64::try_from(row.int(column)?).unwrap_or_default());
            let (tasks, images) = (count(8)?, count(9)?);
            Ok(Answered {
                day: row.opt_text(10)?,
                edit_type: row.text(11)?,
                tasks,
                images,
                tally: tally(row)?,
            })
        };
        let mut connection = self.db.plain().await?;
        let before = days.saturating_sub(1);
        let rows = connection.rows(self.db.sql().cache_view.answered, vals![before]).await?;
        rows.iter().map(answered).collect()
    }

    /// How images were answered whose tasks ended on this UTC day, by currency.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn answered_today(&self) -> Result<Vec<Tally>, StoreError> {
        let mut connection = self.db.plain().await?;
        let rows = connection.rows(self.db.sql().cache_view.answered_today, vals![]).await?;
        rows.iter().map(tally).collect()
    }

    /// The entries that were served most. Reads every row.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn most_served(&self, most: u32) -> Result<Vec<CacheEntry>, StoreError> {
        let mut connection = self.db.plain().await?;
        entries(&connection.rows(self.db.sql().cache_view.most_served, vals![most]).await?)
    }

    /// What is known of this edit.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn known_of_edit(&self, key: EditKey) -> Result<Known, StoreError> {
        let sql = &self.db.sql().cache_view;
        let mut connection = self.db.plain().await?;
        let found = connection.rows(sql.entry_of_edit, vals![key.as_bytes()]).await?;
        // No picture has an empty hash: only the key is asked for.
        let values = vals![key.as_bytes(), ""];
        let gone = connection.rows(sql.gone, values).await?;
        let calls = connection.rows(sql.calls, values).await?;
        known(&found, &gone, &calls)
    }

    /// What is known of the edits of this picture, [`MOST_ENTRIES`] of each kind at most.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn known_of_image(&self, image: ImageHash) -> Result<Known, StoreError> {
        let sql = &self.db.sql().cache_view;
        let hex = image.to_hex();
        let mut connection = self.db.plain().await?;
        let found = connection.rows(sql.entries_of_image, vals![&hex, MOST_ENTRIES]).await?;
        // Nor is there an edit whose key is empty.
        let values = vals![Some(&[][..]), &hex];
        let gone = connection.rows(sql.gone, values).await?;
        let calls = connection.rows(sql.calls, values).await?;
        known(&found, &gone, &calls)
    }

    /// The entries whose result is this picture, [`MOST_ENTRIES`] at most.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn entries_of_result(&self, result: Digest32) -> Result<Vec<CacheEntry>, StoreError> {
        let mut connection = self.db.plain().await?;
        let hex = result.to_hex();
        let values = vals![&hex, MOST_ENTRIES];
        entries(&connection.rows(self.db.sql().cache_view.entries_of_result, values).await?)
    }

    /// Entries of other pictures with the very same edit, `most` at most, from among the newest rows of the cache.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn recent_of_edit(
        &self,
        wanted: &EditIdentity<'_>,
        most: u32,
    ) -> Result<Vec<CacheEntry>, StoreError> {
        let mut connection = self.db.plain().await?;
        let params = wanted.params.canonical();
        let EditIdentity { image_hash: _, edit_type, prompt, provider, model, params: _, mask_hash, variant } =
            *wanted;
        let values = vals![RECENT_ROWS, edit_type, provider, model, prompt, &params, most];
        let rows = connection.rows(self.db.sql().cache_view.recent_of_edit, values).await?;
        let mut found = entries(&rows)?;
        found.retain(|entry| entry.mask_hash == mask_hash && entry.variant.as_deref() == variant);
        Ok(found)
    }
}

fn version(row: &Row, column: usize) -> Result<u16, StoreError> {
    Ok(u16::try_from(row.int(column)?).unwrap_or_default())
}

fn entries(rows: &[Row]) -> Result<Vec<CacheEntry>, StoreError> {
    rows.iter().map(CacheEntry::from_row).collect()
}

fn known(found: &[Row], gone: &[Row], calls: &[Row]) -> Result<Known, StoreError> {
    let gone_entry = |row: &Row| {
        Ok::<_, StoreError>(GoneEntry {
            edit_key: digest(row.bytes(0)?)?,
            image_hash: row.opt_text(1)?.as_deref().map(hex_digest).transpose()?,
            reason: row.text(2)?,
            gone_at: time(&row.text(3)?)?,
        })
    };
    let call = |row: &Row| {
        Ok::<_, StoreError>(CallView {
            edit_key: digest(row.bytes(0)?)?,
            image_hash: hex_digest(&row.text(1)?)?,
            edit_type: row.text(2)?,
            model: row.text(3)?,
            lane: row.text(4)?,
            state: CallState::parse(&row.text(5)?)?,
            last_error: row.opt_text(6)?,
            updated_at: time(&row.text(7)?)?,
        })
    };
    Ok(Known {
        entries: entries(found)?,
        gone: gone.iter().map(gone_entry).collect::<Result<_, _>>()?,
        calls: calls.iter().map(call).collect::<Result<_, _>>()?,
    })
}

/// The version that a call's key has: this program's, or 0 where another one made it. While programs of two versions
/// run side by side, one may finish what the other took in.
pub(super) fn key_version(call: &CallSpec) -> u32 {
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
    if identity.key() == call.edit_key { KEY_VERSION_NUMBER.into() } else { 0 }
}
