//! Cache entries from an older system: put beside our own, never over a better one.
//!
//! What must stay true: an entry that was made here is not touched; one whose picture is in our blobs keeps it; what was
//! forgotten or evicted here does not come back; and the same import again changes nothing.

use std::collections::HashMap;
use std::time::Instant;

use retouch_shared::key::{EditKey, ImageHash, KEY_VERSION_NUMBER};
use retouch_shared::task::Params;
use serde_json::json;

use super::db::{Row, Tx, json_rows, strip_nulls, vals};
use super::intake::key_list;
use super::types::digest;
use super::{Money, StepError, Store, StoreError, StoredResult, again};

/// The statements of a dialect for this.
pub(super) struct ImportStatements {
    /// By edit key: what the cache has.
    pub(super) standing: &'static str,
    /// The same, locked.
    pub(super) lock_standing: &'static str,
    /// By edit key: what the cache has no more, and is not to have again.
    pub(super) gone: &'static str,
    pub(super) import: &'static str,
    pub(super) drop_links: &'static str,
}

/// An entry as an older system's row makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportEntry {
    /// What a task with that edit has today.
    pub edit_key: EditKey,
    /// The input.
    pub image_hash: ImageHash,
    /// The operation.
    pub edit_type: String,
    /// Normalised, with the route's.
    pub prompt: String,
    /// The provider kind.
    pub provider: String,
    /// The provider's model id.
    pub model: String,
    /// With the route's defaults.
    pub params: Params,
    /// What its call had cost.
    pub price: Money,
    /// How often the older system has served it so far.
    pub hits: u64,
    /// Absolute where it is a link, otherwise a reference to our blob.
    pub result_url: String,
    /// Its picture in our blobs; none where a link is all there is.
    pub result: Option<StoredResult>,
}

/// What the cache has of an edit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// The entry, if there is one.
    pub entry: Option<KnownEntry>,
    /// Why there is none, where it is not to come back: `forgotten` or `evicted`.
    pub gone: Option<String>,
}

/// An entry that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownEntry {
    /// Whether its picture is in our blobs.
    pub is_kept: bool,
    /// As the row has it.
    pub result_url: String,
    /// As of the last import; none where it was made here.
    pub imported_hits: Option<u64>,
}

/// What importing an entry does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Change {
    /// It is new.
    New,
    /// A link's picture is in our blobs now.
    Upgraded,
    /// The link leads elsewhere now.
    Relinked,
    /// Nothing but that the older system has served it more often.
    Counted,
    /// Nothing.
    Same,
    /// Nothing: the entry was made here.
    MadeHere,
    /// Nothing: the entry was forgotten here.
    Forgotten,
    /// Nothing: the entry was evicted here.
    Evicted,
}

impl Standing {
    /// What importing this entry does to it, and by how much its hits grow.
    pub fn change(&self, entry: &ImportEntry) -> (Change, u64) {
        let Some(known) = &self.entry else {
            return match self.gone.as_deref() {
                None => (Change::New, entry.hits),
                Some("evicted") => (Change::Evicted, 0),
                Some(_) => (Change::Forgotten, 0),
            };
        };
        let Some(before) = known.imported_hits else { return (Change::MadeHere, 0) };
        let more = entry.hits.saturating_sub(before);
        let change = match (known.is_kept, &entry.result) {
            (false, Some(_)) => Change::Upgraded,
            (false, None) if known.result_url != entry.result_url => Change::Relinked,
            (true, _) | (false, None) if more > 0 => Change::Counted,
            (true, _) | (false, None) => Change::Same,
        };
        (change, more)
    }
}

impl Store {
    /// What the cache has of these edits.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn import_standing(&self, keys: &[EditKey]) -> Result<HashMap<EditKey, Standing>, StoreError> {
        let mut connection = self.db.plain().await?;
        let sql = self.db.sql().imports;
        standing(&mut *connection, sql.standing, sql.gone, keys).await
    }

    /// Takes these entries in, in one transaction; says what that did to each, and by how much its hits grew. `began` is from before
    /// the first of their pictures was kept.
    ///
    /// # Errors
    /// See [`StoreError`]; [`StoreError::Unavailable`] also where one of the pictures was deleted meanwhile (`dropped`): nothing is
    /// written then, and another run takes them in.
    pub async fn import_entries(
        &self,
        entries: &[ImportEntry],
        began: Instant,
    ) -> Result<Vec<(Change, u64)>, StoreError> {
        let changes = again!(self.try_import_entries(entries, began))?;
        if changes.iter().any(|(change, _)| *change == Change::Upgraded) {
            self.recount_later().await?;
        }
        Ok(changes)
    }

    async fn try_import_entries(
        &self,
        entries: &[ImportEntry],
        began: Instant,
    ) -> Result<Vec<(Change, u64)>, StepError> {
        let sql = self.db.sql().imports;
        // In the order in which every program locks them.
        let mut keys: Vec<EditKey> = entries.iter().map(|entry| entry.edit_key).collect();
        keys.sort_unstable();
        let mut tx = self.db.begin().await?;
        let standing = standing(&mut *tx, sql.lock_standing, sql.gone, &keys).await?;
        let mut sorted: Vec<&ImportEntry> = entries.iter().collect();
        sorted.sort_unstable_by_key(|entry| entry.edit_key);
        let none = Standing::default();
        let changes = |entry: &ImportEntry| standing.get(&entry.edit_key).unwrap_or(&none).change(entry);
        let rows = sorted.into_iter().filter(|entry| changes(entry).0.writes()).map(row);
        for rows in json_rows(rows) {
            tx.run(sql.import, vals![&rows]).await?;
        }
        let written = entries.iter().filter(|entry| changes(entry).0.writes());
        let kept = written.filter_map(|entry| entry.result.as_ref()).map(|kept| kept.hash).collect();
        self.none_was_dropped(&mut *tx, &kept, began.elapsed()).await?;
        tx.commit().await?;
        Ok(entries.iter().map(changes).collect())
    }

    /// Takes entries out that are nothing but a link, as long as it is this one: it leads nowhere. Says how many went.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn drop_dead_links(&self, links: &[(EditKey, String)]) -> Result<u64, StoreError> {
        let mut links: Vec<_> = links.to_vec();
        links.sort_unstable();
        again!(async {
            let mut dropped = 0;
            let mut connection = self.db.plain().await?;
            let rows = links.iter().map(|(key, url)| json!({"edit_key": key, "result_url": url}));
            for rows in json_rows(rows) {
                dropped += connection.run(self.db.sql().imports.drop_links, vals![&rows]).await?;
            }
            Ok(dropped)
        })
    }
}

impl Change {
    const fn writes(self) -> bool {
        match self {
            Self::New | Self::Upgraded | Self::Relinked | Self::Counted => true,
            Self::Same | Self::MadeHere | Self::Forgotten | Self::Evicted => false,
        }
    }
}

async fn standing(
    tx: &mut dyn Tx,
    entries: &'static str,
    gone: &'static str,
    keys: &[EditKey],
) -> Result<HashMap<EditKey, Standing>, StoreError> {
    let mut found: HashMap<EditKey, Standing> = HashMap::new();
    if keys.is_empty() {
        return Ok(found);
    }
    let keys = key_list(keys);
    let known = |row: &Row| {
        Ok::<_, StoreError>(KnownEntry {
            is_kept: row.int(1)? != 0,
            result_url: row.text(2)?,
            imported_hits: row.opt_int(3)?.map(|hits| u64::try_from(hits).unwrap_or_default()),
        })
    };
    for row in &tx.rows(entries, vals![&keys]).await? {
        found.entry(digest(row.bytes(0)?)?).or_default().entry = Some(known(row)?);
    }
    for row in &tx.rows(gone, vals![&keys]).await? {
        found.entry(digest(row.bytes(0)?)?).or_default().gone = Some(row.text(1)?);
    }
    Ok(found)
}

/// What a link's picture is like is not known: 0 and an empty text stand for that in the row.
fn row(entry: &ImportEntry) -> serde_json::Value {
    let ImportEntry {
        edit_key,
        image_hash,
        edit_type,
        prompt,
        provider,
        model,
        params,
        price,
        hits,
        result_url,
        result,
    } = entry;
    let kept = result.as_ref();
    let mut row = json!({
        "edit_key": edit_key, "image_hash": image_hash, "edit_type": edit_type, "prompt": prompt, "provider": provider,
        "model": model, "params": params.canonical(), "result_url": result_url,
        "result_hash": kept.map(|kept| kept.hash),
        "content_type": kept.map_or("", |kept| &kept.content_type),
        "width": kept.map_or(0, |kept| kept.width), "height": kept.map_or(0, |kept| kept.height),
        "bytes": kept.map_or(0, |kept| kept.bytes),
        "price_micros": price.micros, "currency": price.currency,
        "hits": i64::try_from(*hits).unwrap_or(i64::MAX), "key_version": KEY_VERSION_NUMBER,
    });
    strip_nulls(&mut row);
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(hits: u64, url: &str, kept: bool) -> ImportEntry {
        let hash = EditKey::of(b"x");
        let result = StoredResult {
            hash,
            content_type: "image/png".to_owned(),
            width: 1,
            height: 1,
            bytes: 9,
            check: None,
        };
        ImportEntry {
            edit_key: hash,
            image_hash: hash,
            edit_type: "blur".to_owned(),
            prompt: String::new(),
            provider: "local".to_owned(),
            model: "local".to_owned(),
            params: Params::default(),
            price: Money { micros: 0, currency: "CNY".to_owned() },
            hits,
            result_url: url.to_owned(),
            result: kept.then_some(result),
        }
    }

    #[test]
    fn a_better_entry_is_never_overwritten() {
        let there = |is_kept, imported_hits| Standing {
            entry: Some(KnownEntry { is_kept, result_url: "a".to_owned(), imported_hits }),
            gone: None,
        };
        let gone = |reason: &str| Standing { entry: None, gone: Some(reason.to_owned()) };
        for (standing, entry, change) in [
            (Standing::default(), entry(3, "a", false), (Change::New, 3)),
            (there(true, None), entry(3, "b", true), (Change::MadeHere, 0)),
            (there(true, Some(3)), entry(5, "b", true), (Change::Counted, 2)),
            (there(true, Some(3)), entry(3, "b", false), (Change::Same, 0)),
            (there(true, Some(3)), entry(2, "b", false), (Change::Same, 0)),
            (there(false, Some(3)), entry(3, "a", false), (Change::Same, 0)),
            (there(false, Some(3)), entry(4, "b", false), (Change::Relinked, 1)),
            (there(false, Some(3)), entry(4, "b", true), (Change::Upgraded, 1)),
            (gone("forgotten"), entry(4, "b", true), (Change::Forgotten, 0)),
            (gone("evicted"), entry(4, "b", true), (Change::Evicted, 0)),
        ] {
            assert_eq!(standing.change(&entry), change, "{standing:?} {entry:?}");
        }
    }
}
