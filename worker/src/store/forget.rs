//! Forgetting pictures: their cache rows, their calls, and every mention of them in tasks and dead letters.
//!
//! What must stay true: calls, cache rows and waits of an edit go in one transaction, in the order of the locks. From its commit
//! on nobody can be answered with the picture: a task that was about to be counts its hits in the same transaction, finds the row
//! gone and is looked at anew. A call's row goes whatever state it is in: whoever owned it finds its lease lost at its next step,
//! and a row that is made anew begins with a fence that nobody holds (it begins at the clock). Tasks that mention a picture are
//! looked for after that and up to the last one of that moment: what comes later was sent again.

use std::collections::{BTreeMap, BTreeSet};

use retouch_shared::event::{ImageError, ImageResult, ImageStatus};
use retouch_shared::key::{Digest32, EditKey, ImageHash};
use serde::Serialize;
use serde_json::json;

use super::calls::{Wait, replace};
use super::db::{Row, Tx, json_rows, vals};
use super::intake::key_list;
use super::types::{clip, digest, hex_digest};
use super::{CallState, Money, StepError, Store, StoreError, TaskRecord, again};
use crate::failpoint::around;

/// The error code of an image whose picture was forgotten.
pub const FORGOTTEN: &str = "forgotten";
/// Task rows that are looked through together.
const WINDOW: i64 = 2000;

pub(super) struct ForgetStatements {
    pub(super) entries_of_edits: &'static str,
    pub(super) calls_of_edits: &'static str,
    /// Edit keys by the digest of the picture, or of the mask, in the cache and among the calls.
    pub(super) edits_of_pictures: [&'static str; 4],
    pub(super) hold_lane: &'static str,
    pub(super) lock_entries: &'static str,
    pub(super) delete_entries: &'static str,
    pub(super) delete_calls: &'static str,
    pub(super) discard_letters: &'static str,
    pub(super) insert_gone: &'static str,
    pub(super) delete_gone: &'static str,
    pub(super) prune_gone: &'static str,
    pub(super) last_task: &'static str,
    pub(super) mentioning: &'static str,
    pub(super) update_tasks: &'static str,
    pub(super) kept_of_edits: &'static str,
    pub(super) unkeep: &'static str,
    pub(super) letters_of_tasks: &'static str,
    pub(super) empty_letters: &'static str,
}

/// Which edits.
#[derive(Debug, Clone)]
pub enum Picking {
    /// These.
    Edits(BTreeSet<EditKey>),
    /// All of these pictures, be they the picture or the mask.
    Pictures(BTreeSet<ImageHash>),
}

/// An edit that is in the cache, among the calls, or both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Which.
    pub edit_key: EditKey,
    /// The picture.
    pub image_hash: ImageHash,
    /// The mask.
    pub mask_hash: Option<ImageHash>,
    /// The operation.
    pub edit_type: String,
    /// Its entry in the cache.
    pub entry: Option<Entry>,
    /// Its call.
    pub call: Option<(CallState, Option<Digest32>)>,
    /// What its call cost, or would have.
    pub price: Money,
    /// A whole answer to it that could not be read.
    pub answer: Option<Digest32>,
    lane: Option<String>,
}

/// A result, as the cache has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// A reference.
    pub result_url: String,
    /// Where it is in our blobs.
    pub result_hash: Option<Digest32>,
    /// Its size.
    pub bytes: u64,
    /// Images that it answered.
    pub hits: u64,
}

impl Found {
    /// Whether its call is under way or will be.
    pub fn alive(&self) -> bool {
        self.call.is_some_and(|(state, _)| CallState::ALIVE.contains(&state))
    }

    /// Whether its call was sent and has not ended: it is paid for, most likely.
    pub fn sent(&self) -> bool {
        self.alive() && !matches!(self.call, Some((CallState::Queued | CallState::Claimed, _)))
    }

    /// The blobs that its rows name.
    pub fn blobs(&self) -> impl Iterator<Item = Digest32> {
        let entry = self.entry.as_ref().and_then(|entry| entry.result_hash);
        let call = self.call.and_then(|(_, result)| result);
        [Some(self.image_hash), self.mask_hash, entry, call, self.answer].into_iter().flatten()
    }
}

/// What forgetting edits did.
#[derive(Debug, Default)]
pub struct Forgotten {
    /// The edits, as they were.
    pub edits: Vec<Found>,
    /// The images that waited for them, by task and position; they failed.
    pub waited: BTreeSet<(String, u32)>,
    /// The tasks that ended by it.
    pub ended: Vec<TaskRecord>,
    /// Dead letters that were discarded.
    pub letters: u64,
    /// The last task that may mention them.
    pub last_task: i64,
}

/// What is to be taken out of tasks.
#[derive(Debug, Clone, Default)]
pub struct Mentions {
    /// Pictures, whatever was made of them.
    pub pictures: BTreeSet<ImageHash>,
    /// Single edits: picture, operation and result.
    pub edits: BTreeSet<(ImageHash, String, String)>,
    /// Images that waited.
    pub waited: BTreeSet<(String, u32)>,
    /// Tasks of which no source is kept.
    pub tasks: BTreeSet<String>,
}

/// What was taken out of tasks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Scrubbed {
    /// Tasks that mentioned a picture.
    pub tasks: u64,
    /// Images of them.
    pub images: u64,
    /// Dead letters whose message was emptied.
    pub letters: u64,
}

impl Store {
    /// The edits that are meant, as they stand.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn find_edits(&self, picking: &Picking) -> Result<Vec<Found>, StoreError> {
        let sql = self.db.sql().forget;
        let mut connection = self.db.plain().await?;
        let keys = match picking {
            Picking::Edits(keys) => keys.clone(),
            Picking::Pictures(pictures) => {
                let list = json!(pictures).to_string();
                let mut keys = BTreeSet::new();
                for of_pictures in sql.edits_of_pictures {
                    for row in connection.rows(of_pictures, vals![&list]).await? {
                        keys.insert(digest(row.bytes(0)?)?);
                    }
                }
                keys
            }
        };
        let list = key_list(&keys.into_iter().collect::<Vec<_>>());
        let entries = connection.rows(sql.entries_of_edits, vals![&list]).await?;
        let calls = connection.rows(sql.calls_of_edits, vals![&list]).await?;
        together(&entries, &calls)
    }

    /// Forgets these edits: cache rows, calls and waits. The images that waited fail as [`FORGOTTEN`]; what was sent is
    /// nobody's any more, and its result is dropped when it comes. The blobs are marked to be deleted.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn forget_edits(&self, keys: &[EditKey]) -> Result<Forgotten, StoreError> {
        let forgotten = around("forget_edits", async { again!(self.try_forget_edits(keys)) }).await?;
        self.recount_later().await?;
        Ok(forgotten)
    }

    async fn try_forget_edits(&self, keys: &[EditKey]) -> Result<Forgotten, StepError> {
        let sql = self.db.sql();
        let list = key_list(&keys.iter().copied().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>());
        let mut tx = self.db.begin().await?;
        tx.rows(sql.lock_calls, vals![&list]).await?;
        let calls = tx.rows(sql.forget.calls_of_edits, vals![&list]).await?;
        for call in together(&[], &calls)? {
            self.hold_lane(&mut *tx, &call).await?;
        }
        let (waited, ended) = self.end_waits(&mut *tx, keys).await?;
        let letters = tx.run(sql.forget.discard_letters, vals![&list]).await?;
        let entries = tx.rows(sql.forget.lock_entries, vals![&list]).await?;
        let edits = together(&entries, &calls)?;
        let gone = edits.iter().map(|edit| json!({"edit_key": edit.edit_key, "reason": FORGOTTEN}));
        for rows in json_rows(gone) {
            tx.run(sql.forget.insert_gone, vals![&rows]).await?;
        }
        tx.run(sql.forget.delete_entries, vals![&list]).await?;
        self.spend_forgotten(&mut *tx, keys).await?;
        tx.run(sql.forget.delete_calls, vals![&list]).await?;
        let mut blobs: BTreeSet<Digest32> = edits.iter().flat_map(Found::blobs).collect();
        // What was kept of them may be the picture.
        for row in tx.rows(sql.forget.kept_of_edits, vals![&list]).await? {
            blobs.insert(hex_digest(&row.text(0)?)?);
        }
        tx.run(sql.forget.unkeep, vals![&list]).await?;
        self.drop_in(&mut *tx, &blobs).await?;
        let rows = tx.rows(sql.forget.last_task, vals![]).await?;
        let last_task = rows.first().map_or(Ok(0), |row| row.int(0))?;
        tx.commit().await?;
        Ok(Forgotten { edits, waited, ended, letters, last_task })
    }

    /// A call that was sent, and of which nobody knows what became, leaves no trace here. Where the provider's list is asked,
    /// its task would be taken for that of a call that is sent right after it: none is, for longer than times there may be off.
    async fn hold_lane(&self, tx: &mut dyn Tx, call: &Found) -> Result<(), StepError> {
        let unresolved = matches!(call.call, Some((CallState::Submitting | CallState::Ambiguous, _)));
        if let Some(lane) = call.lane.as_deref().filter(|_| unresolved) {
            tx.run(self.db.sql().forget.hold_lane, vals![lane]).await?;
        }
        Ok(())
    }

    async fn end_waits(
        &self,
        tx: &mut dyn Tx,
        keys: &[EditKey],
    ) -> Result<(BTreeSet<(String, u32)>, Vec<TaskRecord>), StepError> {
        let mut waits: Vec<Wait> = Vec::new();
        for key in keys {
            waits.extend(self.waits_of(tx, *key).await?);
        }
        let Some(first) = keys.first() else { return Ok((BTreeSet::new(), Vec::new())) };
        let fail = |task: &mut TaskRecord, wait: &Wait| {
            let image = forgotten_image(wait.position);
            if replace(task, image) {
                task.failed += 1;
                task.error.get_or_insert_with(|| clip(&forgotten().message).to_owned());
            }
        };
        // All of them at once: the tasks are locked in their order.
        let (ended, _) = self.settle_waits(tx, *first, &waits, fail).await?;
        for key in keys {
            tx.run(self.db.sql().delete_waits, vals![key.as_bytes()]).await?;
        }
        Ok((waits.into_iter().map(|wait| (wait.task_id, wait.position)).collect(), ended))
    }

    /// The tasks after the row `after` and up to the row `last` that mention what is to be forgotten, and the row that was looked
    /// at last; none when that was all of them. Reads the texts of all rows, some at a time: there is no index of what a task mentions.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn tasks_that_mention(
        &self,
        mentions: &Mentions,
        after: i64,
        last: i64,
    ) -> Result<(BTreeSet<String>, Option<i64>), StoreError> {
        let words: BTreeSet<String> = mentions
            .pictures
            .iter()
            .chain(mentions.edits.iter().map(|(image_hash, ..)| image_hash))
            .map(Digest32::to_hex)
            .collect();
        if after >= last || words.is_empty() {
            return Ok((BTreeSet::new(), None));
        }
        let upto = last.min(after.saturating_add(WINDOW));
        let mut connection = self.db.plain().await?;
        let words = json!(words).to_string();
        let values = vals![after, upto, &words];
        let rows = connection.rows(self.db.sql().forget.mentioning, values).await?;
        let ids = rows.iter().map(|row| row.text(0)).collect::<Result<_, _>>()?;
        Ok((ids, (upto < last).then_some(upto)))
    }

    /// Takes the mentions out of these tasks, and the messages out of their dead letters. What the tasks counted and cost stays as it
    /// was: it happened.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn scrub_tasks(
        &self,
        task_ids: &BTreeSet<String>,
        mentions: &Mentions,
    ) -> Result<Scrubbed, StoreError> {
        if task_ids.is_empty() {
            return Ok(Scrubbed::default());
        }
        around("scrub_tasks", async { again!(self.try_scrub(task_ids, mentions)) }).await
    }

    async fn try_scrub(
        &self,
        task_ids: &BTreeSet<String>,
        mentions: &Mentions,
    ) -> Result<Scrubbed, StepError> {
        let sql = self.db.sql();
        let ids = json!(task_ids).to_string();
        let mut tx = self.db.begin().await?;
        let mut scrubbed = Scrubbed::default();
        let mut changed = Vec::new();
        let mut with_letters = BTreeSet::new();
        for row in tx.rows(sql.lock_tasks, vals![&ids]).await? {
            let mut task = TaskRecord::from_row(&row)?;
            let images = mentions.take_out_of(&mut task);
            if images == 0 && !mentions.tasks.contains(&task.task_id) {
                continue;
            }
            scrubbed.tasks += 1;
            scrubbed.images += images;
            let (results, inputs) = (json!(task.images).to_string(), json!(task.inputs).to_string());
            changed.push(json!({"id": task.id, "results": results, "inputs": inputs}));
            with_letters.insert(task.task_id);
        }
        for rows in json_rows(changed.into_iter()) {
            tx.run(sql.forget.update_tasks, vals![&rows]).await?;
        }
        let ids = json!(with_letters).to_string();
        let mut payloads = BTreeSet::new();
        for row in tx.rows(sql.forget.letters_of_tasks, vals![&ids]).await? {
            payloads.extend(super::letters::blob(row.opt_text(1)?.as_deref())?);
        }
        scrubbed.letters = tx.run(sql.forget.empty_letters, vals![&ids]).await?;
        self.drop_in(&mut *tx, &payloads).await?;
        tx.commit().await?;
        Ok(scrubbed)
    }

    /// The number of the newest task's row.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn last_task(&self) -> Result<i64, StoreError> {
        let mut connection = self.db.plain().await?;
        let rows = connection.rows(self.db.sql().forget.last_task, vals![]).await?;
        Ok(rows.first().map_or(Ok(0), |row| row.int(0))?)
    }

    /// Deletes what is known of rows that left the cache so many days ago; says how many.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn prune_gone(&self, days: u32) -> Result<u64, StoreError> {
        again!(async {
            let mut connection = self.db.plain().await?;
            Ok(connection.run(self.db.sql().forget.prune_gone, vals![days]).await?)
        })
    }
}

impl Mentions {
    /// Takes the mentions out of one task; says of how many images.
    fn take_out_of(&self, task: &mut TaskRecord) -> u64 {
        let whole = self.tasks.contains(&task.task_id);
        let mut images = 0;
        for at in 0..task.images.len() {
            let Some(image) = task.images.get_mut(at) else { break };
            let waited = self.waited.contains(&(task.task_id.clone(), image.position));
            let meant = image.status != ImageStatus::Waiting && self.means(image, &task.edit_type);
            if meant {
                let error = image.error.take().unwrap_or_else(forgotten);
                *image = ImageResult { error: Some(error), ..forgotten_image(image.position) };
            }
            images += u64::from(meant || waited);
            if let Some(input) = task.inputs.get_mut(at).filter(|_| meant || waited || whole) {
                FORGOTTEN.clone_into(input);
            }
        }
        images
    }

    fn means(&self, image: &ImageResult, edit_type: &str) -> bool {
        let Some(hash) = image.image_hash else { return false };
        let single = |url: &String| self.edits.contains(&(hash, edit_type.to_owned(), url.clone()));
        self.pictures.contains(&hash) || image.result_url.as_ref().is_some_and(single)
    }
}

fn forgotten() -> ImageError {
    let message = "this picture was forgotten because somebody asked for it; sent again it is a new edit";
    ImageError { code: FORGOTTEN.to_owned(), message: message.to_owned() }
}

fn forgotten_image(position: u32) -> ImageResult {
    ImageResult {
        position,
        status: ImageStatus::Failed,
        source: None,
        image_hash: None,
        result_url: None,
        content_type: None,
        width: None,
        height: None,
        error: Some(forgotten()),
    }
}

/// Entries and calls of the same edits.
fn together(entries: &[Row], calls: &[Row]) -> Result<Vec<Found>, StoreError> {
    let mut found = BTreeMap::new();
    let count = |row: &Row, column| Ok::<_, StoreError>(u64::try_from(row.int(column)?).unwrap_or_default());
    for row in entries {
        let entry = Entry {
            result_url: row.text(6)?,
            result_hash: row.opt_text(7)?.as_deref().map(hex_digest).transpose()?,
            bytes: count(row, 8)?,
            hits: count(row, 9)?,
        };
        let edit = one(row)?;
        found.insert(edit.edit_key, Found { entry: Some(entry), ..edit });
    }
    for row in calls {
        let state = CallState::parse(&row.text(6)?)?;
        let result = row.opt_text(7)?.as_deref().map(hex_digest).transpose()?;
        let call = one(row)?;
        let edit = found.entry(call.edit_key).or_insert(call);
        edit.call = Some((state, result));
        edit.lane = Some(row.text(8)?);
        edit.answer = row.opt_text(9)?.as_deref().map(hex_digest).transpose()?;
    }
    Ok(found.into_values().collect())
}

fn one(row: &Row) -> Result<Found, StoreError> {
    Ok(Found {
        edit_key: digest(row.bytes(0)?)?,
        image_hash: hex_digest(&row.text(1)?)?,
        mask_hash: row.opt_text(2)?.as_deref().map(hex_digest).transpose()?,
        edit_type: row.text(3)?,
        price: Money { micros: row.int(4)?, currency: row.text(5)? },
        entry: None,
        call: None,
        answer: None,
        lane: None,
    })
}
