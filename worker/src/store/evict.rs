//! Eviction: rows leave the cache by age, by last hit, or because all of them take too many bytes. What is worth keeping is
//! decided elsewhere; here is how rows are found cheaply, and how they go.
//!
//! What must stay true: the bytes of all rows are not counted in each round, but carried on in `cache_chores`: what came since is
//! added by the primary key, what an eviction takes is subtracted in its own transaction, and all is counted anew once rows went in
//! another way, and now and then. A row goes only in a transaction that holds the row of `cache_chores`, which is locked before
//! any call, so that two replicas never both make room for the same bytes; under its call's lock, no call of it being alive; and
//! only as it was when it was chosen: one that was served since stays.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use retouch_shared::key::{Digest32, EditKey};
use serde_json::json;

use super::calls::millis;
use super::db::{Row, Tx, json_rows, vals};
use super::intake::key_list;
use super::types::{digest, hex_digest};
use super::{CallState, Money, StepError, Store, StoreError, again};
use crate::failpoint::around;

/// Until the bytes of all rows are counted from nothing again, whatever else happens.
const RECOUNT: Duration = Duration::from_secs(6 * 60 * 60);

pub(super) struct EvictStatements {
    pub(super) lock_total: &'static str,
    pub(super) count_all: &'static str,
    pub(super) count_since: &'static str,
    pub(super) set_total: &'static str,
    pub(super) take_off: &'static str,
    pub(super) recount: &'static str,
    pub(super) ids: &'static str,
    pub(super) from_id: &'static str,
    pub(super) oldest: &'static str,
    pub(super) idlest: &'static str,
    pub(super) lock_entries: &'static str,
}

/// A row that may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its edit.
    pub edit_key: EditKey,
    /// Its size.
    pub bytes: u64,
    /// What its call cost.
    pub price: Money,
    /// Images that it answered.
    pub hits: u64,
    /// Since it was made.
    pub age: Duration,
    /// Since it answered last.
    pub idle: Duration,
    /// The time of that, as the database writes it: a row that has another one by then stays.
    last_hit_at: String,
}

impl Candidate {
    /// What it has saved, in millionths: every image but the one that it was made for.
    pub fn saved_micros(&self) -> i64 {
        let again = i64::try_from(self.hits.saturating_sub(1)).unwrap_or(i64::MAX);
        self.price.micros.saturating_mul(again)
    }
}

/// By which of its times a row is old.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aged {
    /// When it was made.
    Made,
    /// When it answered last.
    Hit,
}

/// What an eviction did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evicted {
    /// The rows that went.
    pub gone: Vec<Candidate>,
    /// Bytes of all rows after it.
    pub total: u64,
}

impl Store {
    /// Bytes of all results that the cache names.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn cache_bytes(&self) -> Result<u64, StoreError> {
        again!(async {
            let mut tx = self.db.begin().await?;
            let total = self.total_in(&mut *tx).await?;
            tx.commit().await?;
            Ok(unsigned(total))
        })
    }

    /// Rows went, or changed their size, beside an eviction: the bytes of all are counted anew before the next one. A statement of its
    /// own: an eviction locks the total before any row, and who removes rows holds them already.
    pub(super) async fn recount_later(&self) -> Result<(), StoreError> {
        again!(async {
            let mut connection = self.db.plain().await?;
            connection.run(self.db.sql().evict.recount, vals![]).await?;
            Ok(())
        })
    }

    /// The total, brought up to date, its row locked.
    async fn total_in(&self, tx: &mut dyn Tx) -> Result<i64, StepError> {
        let sql = self.db.sql().evict;
        let rows = tx.rows(sql.lock_total, vals![millis(RECOUNT)]).await?;
        let row =
            rows.first().ok_or_else(|| StoreError::Corrupt("cache_chores has no row evict".to_owned()))?;
        let (upto, total, counted) = (row.text(0)?.parse::<i64>(), row.int(1)?, row.int(2)? != 0);
        let (rows, before, anew) = match upto {
            Ok(upto) if counted => (tx.rows(sql.count_since, vals![upto]).await?, total, false),
            _ => (tx.rows(sql.count_all, vals![]).await?, 0, true),
        };
        let Some(row) = rows.first() else { return Ok(before) };
        let (more, last) = (row.int(0)?, row.opt_int(1)?);
        let total = before.saturating_add(more);
        if anew || last.is_some() {
            let last = last.unwrap_or_default().to_string();
            tx.run(sql.set_total, vals![&last, total, i64::from(anew)]).await?;
        }
        Ok(total)
    }

    /// Some rows from here and there, with those among them left out that were served within `keep`: `points` between 0 and 1 say
    /// where in the table to look, `each` how many rows to look at there.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn sample_entries(
        &self,
        points: &[f64],
        each: u32,
        keep: Duration,
    ) -> Result<Vec<Candidate>, StoreError> {
        let sql = self.db.sql().evict;
        let mut connection = self.db.plain().await?;
        let rows = connection.rows(sql.ids, vals![]).await?;
        let Some(row) = rows.first() else { return Ok(Vec::new()) };
        let (Some(first), Some(last)) = (row.opt_int(0)?, row.opt_int(1)?) else { return Ok(Vec::new()) };
        let mut sampled = BTreeMap::new();
        for point in points {
            // Where exactly does not matter.
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_precision_loss,
                reason = "any id will do"
            )]
            let from = first + (point * (last - first + 1) as f64) as i64;
            for row in connection.rows(sql.from_id, vals![from, each, millis(keep)]).await? {
                let candidate = candidate(&row)?;
                sampled.insert(candidate.edit_key, candidate);
            }
        }
        Ok(sampled.into_values().collect())
    }

    /// The rows that are older than this, the oldest first, without those that were served within `keep`.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn aged_entries(
        &self,
        by: Aged,
        age: Duration,
        keep: Duration,
        limit: u32,
    ) -> Result<Vec<Candidate>, StoreError> {
        let sql = self.db.sql().evict;
        let mut connection = self.db.plain().await?;
        let rows = match by {
            Aged::Made => connection.rows(sql.oldest, vals![millis(age), millis(keep), limit]).await?,
            Aged::Hit => connection.rows(sql.idlest, vals![millis(age.max(keep)), limit]).await?,
        };
        rows.iter().map(candidate).collect()
    }

    /// Evicts rows, the first ones first, until all of them together take no more than `most` bytes (with none: all of these).
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn evict(&self, candidates: &[Candidate], most: Option<u64>) -> Result<Evicted, StoreError> {
        around("evict", async { again!(self.try_evict(candidates, most)) }).await
    }

    async fn try_evict(&self, candidates: &[Candidate], most: Option<u64>) -> Result<Evicted, StepError> {
        let sql = self.db.sql();
        let mut tx = self.db.begin().await?;
        // Before the calls, and by nobody else.
        let mut total = self.total_in(&mut *tx).await?;
        let wanted = enough(candidates, total, most);
        if wanted.is_empty() {
            return Ok(Evicted { gone: Vec::new(), total: unsigned(total) });
        }
        let keys: BTreeSet<EditKey> = wanted.iter().map(|candidate| candidate.edit_key).collect();
        let keys = key_list(&keys.into_iter().collect::<Vec<_>>());
        let mut alive = BTreeSet::new();
        for row in tx.rows(sql.lock_calls, vals![&keys]).await? {
            if CallState::ALIVE.contains(&CallState::parse(&row.text(1)?)?) {
                alive.insert(digest(row.bytes(0)?)?);
            }
        }
        let mut as_now = BTreeMap::new();
        for row in tx.rows(sql.evict.lock_entries, vals![&keys]).await? {
            let image_hash: Digest32 = hex_digest(&row.text(8)?)?;
            let result_hash = row.opt_text(9)?.as_deref().map(hex_digest).transpose()?;
            let now = candidate(&row)?;
            as_now.insert(now.edit_key, (now, image_hash, result_hash));
        }
        let mut evicted = Evicted::default();
        let (mut rows, mut blobs) = (Vec::new(), BTreeSet::new());
        for candidate in wanted {
            let Some((now, image_hash, result_hash)) = as_now.remove(&candidate.edit_key) else { continue };
            if alive.contains(&now.edit_key) || now.last_hit_at != candidate.last_hit_at {
                continue;
            }
            total = total.saturating_sub_unsigned(now.bytes);
            rows.push(json!({"edit_key": now.edit_key, "image_hash": image_hash, "reason": "evicted"}));
            blobs.extend(result_hash);
            evicted.gone.push(now);
        }
        evicted.total = unsigned(total);
        let gone: Vec<EditKey> = evicted.gone.iter().map(|candidate| candidate.edit_key).collect();
        for rows in json_rows(rows.into_iter()) {
            tx.run(sql.forget.insert_gone, vals![&rows]).await?;
        }
        tx.run(sql.forget.delete_entries, vals![&key_list(&gone)]).await?;
        tx.run(sql.evict.take_off, vals![total]).await?;
        self.drop_in(&mut *tx, &blobs).await?;
        tx.commit().await?;
        Ok(evicted)
    }
}

/// As many of the first ones as have to go.
fn enough(candidates: &[Candidate], total: i64, most: Option<u64>) -> Vec<&Candidate> {
    let Some(most) = most else { return candidates.iter().collect() };
    let mut over = total.saturating_sub_unsigned(most);
    let needed = |candidate: &&Candidate| {
        let needed = over > 0;
        over = over.saturating_sub_unsigned(candidate.bytes);
        needed
    };
    candidates.iter().take_while(needed).collect()
}

fn unsigned(total: i64) -> u64 {
    u64::try_from(total).unwrap_or_default()
}

fn candidate(row: &Row) -> Result<Candidate, StoreError> {
    let time = |column| Ok::<_, StoreError>(Duration::from_millis(unsigned(row.int(column)?)));
    Ok(Candidate {
        edit_key: digest(row.bytes(0)?)?,
        bytes: unsigned(row.int(1)?),
        price: Money { micros: row.int(2)?, currency: row.text(3)? },
        hits: unsigned(row.int(4)?),
        age: time(5)?,
        idle: time(6)?,
        last_hit_at: row.text(7)?,
    })
}
