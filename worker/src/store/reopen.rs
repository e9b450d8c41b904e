//! What failed, begun again in a task that has ended: its images wait once more, or are answered from the cache, and the task
//! ends anew with its new outcome. As `register`, for a task that is there.
//!
//! What must stay true: as in `register`, the call row's lock is held before the last look at the cache, and the wait is in the
//! same transaction. A letter that is retried changes its state in the transaction that does what the retry is for: both
//! happen, once, or neither does. Only an image that is failed becomes anything else.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use retouch_shared::event::{AnswerSource, ImageResult, ImageStatus, TaskStatus};
use retouch_shared::key::{Digest32, EditKey, ImageHash};
use serde_json::{Value, json};

use super::calls::millis;
use super::db::{Row, Tx, json_rows, strip_nulls, vals};
use super::intake::{Draft, cached_result, dead_letters, draft, key_list};
use super::letters::id_rows;
use super::types::{clip, digest, hex_digest, image_result};
use super::{CachedResult, Letter, Money, NewTask, StepError, Store, StoreError, TaskRecord, again};
use crate::failpoint::around;
use crate::metrics::count;

/// A call, as far as a retry and whoever asks about a letter must know it.
#[derive(Debug, Clone)]
pub struct LetterCall {
    /// Which edit.
    pub edit_key: EditKey,
    /// The input blob.
    pub image_hash: ImageHash,
    /// The operation.
    pub edit_type: String,
    /// The provider's model id.
    pub model: String,
    /// Where it queued.
    pub lane: String,
    /// What it cost, or would have.
    pub price: Money,
    /// The provider kind.
    pub provider: String,
    /// Whether somebody is at it, or will be.
    pub alive: bool,
    /// Whether it was sent and no duplicate was counted for that.
    pub sent: bool,
    /// Normalised.
    pub prompt: String,
    /// Canonical.
    pub params: String,
    /// The provider's id of the task, if there was one.
    pub provider_task_id: Option<String>,
    /// How often it was paid for.
    pub paid_calls: u32,
    /// How often it may have been paid for besides.
    pub possible_duplicates: u32,
    /// Why only a person's decision sends it again: a reason code.
    pub held: Option<String>,
    /// Whether an answer to it was kept, which is read again before it is sent.
    pub answer: bool,
    /// Whether it was paid for, and the provider may still have what that bought: it is asked for that again
    /// before anything is sent.
    pub paid_result: bool,
}

impl LetterCall {
    /// Whether a submit of it may have been paid for that no possible duplicate stands for.
    pub fn may_be_paid(&self, retry: &EditRetry) -> bool {
        self.held.as_deref() == Some("ambiguous") || (retry.ambiguous && self.sent)
    }
}

/// The retry of one failed edit.
#[derive(Debug, Clone)]
pub struct EditRetry {
    /// The letter.
    pub letter: i64,
    /// The edit.
    pub edit_key: EditKey,
    /// It may have been paid for: sent once more, it counts as a possible duplicate.
    pub ambiguous: bool,
    /// The tasks whose images it failed.
    pub tasks: Vec<String>,
}

impl EditRetry {
    /// Of a letter that is an edit's.
    pub fn of(letter: &Letter) -> Option<Self> {
        Some(Self {
            letter: letter.id,
            edit_key: letter.edit_key?,
            ambiguous: letter.reason == "ambiguous",
            tasks: letter.tasks().into_iter().map(ToOwned::to_owned).collect(),
        })
    }
}

/// What the store cannot know about edits that are begun again.
#[derive(Debug, Clone, Default)]
pub struct Reopening {
    /// Cached results whose blob is gone: no hits.
    pub refused: HashMap<EditKey, Digest32>,
    /// Lane and price as they are now; what is not here is as it was.
    pub routes: HashMap<EditKey, (String, Money)>,
    /// The provider is not asked again for what was paid for: each call is sent, and paid, anew.
    pub anew: bool,
}

/// What beginning failed edits again did.
#[derive(Debug, Default)]
pub struct Reopened {
    /// The letters whose retry this was.
    pub retried: Vec<i64>,
    /// The letters whose call is not in the store any more; nothing was done about them.
    pub lost: Vec<i64>,
    /// The tasks that ended by it.
    pub ended: Vec<TaskRecord>,
    /// Calls to wake.
    pub wake: Vec<(EditKey, String)>,
    /// Images that were answered from the cache.
    pub hit: u64,
    /// Images that wait.
    pub waiting: u64,
}

/// What taking failed images in again did.
#[derive(Debug)]
pub struct Again {
    /// The task as it stands.
    pub task: TaskRecord,
    /// Calls to wake.
    pub wake: Vec<(EditKey, String)>,
}

/// Everything that is locked, and looked at under the locks.
struct Locked {
    calls: HashMap<EditKey, LetterCall>,
    late: HashMap<EditKey, CachedResult>,
    tasks: BTreeMap<String, TaskRecord>,
    free: BTreeSet<i64>,
}

/// What is to be written.
#[derive(Default)]
struct Plan {
    draft: Draft,
    touched: BTreeSet<String>,
    /// The letter and the duplicates of each call that somebody waits for.
    marks: BTreeMap<EditKey, (i64, u32)>,
    done: Reopened,
}

impl Store {
    /// The calls of these edits.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn calls_of_letters(&self, keys: &[EditKey]) -> Result<Vec<LetterCall>, StoreError> {
        let mut connection = self.db.plain().await?;
        let rows = connection.rows(self.db.sql().letters.calls_of, vals![&key_list(keys)]).await?;
        rows.iter().map(letter_call).collect()
    }

    /// These tasks, those that are there.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn tasks_of_letters(&self, ids: &BTreeSet<&str>) -> Result<Vec<TaskRecord>, StoreError> {
        let mut connection = self.db.plain().await?;
        let rows = connection.rows(self.db.sql().letters.tasks_of, vals![&json!(ids).to_string()]).await?;
        rows.iter().map(TaskRecord::from_row).collect()
    }

    /// failed → queued, or submitted where the provider may still have what was paid for, or answered from
    /// the cache: the images of these letters, their tasks and the letters, in one transaction.
    /// A letter that somebody else has decided about meanwhile is left alone.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn reopen_edits(
        &self,
        retries: &[EditRetry],
        reopening: &Reopening,
    ) -> Result<Reopened, StoreError> {
        around("reopen_edits", async { again!(self.try_reopen_edits(retries, reopening)) }).await
    }

    async fn try_reopen_edits(
        &self,
        retries: &[EditRetry],
        reopening: &Reopening,
    ) -> Result<Reopened, StepError> {
        let mut tx = self.db.begin().await?;
        let mut locked = self.lock_for_reopening(&mut *tx, retries, &reopening.refused).await?;
        let mut plan = Plan::default();
        let free = std::mem::take(&mut locked.free);
        for retry in retries.iter().filter(|retry| free.contains(&retry.letter)) {
            plan.add(retry, &mut locked, reopening);
        }
        if plan.done.retried.is_empty() {
            return Ok(plan.done);
        }
        let sql = self.db.sql();
        if reopening.anew {
            let keys: Vec<EditKey> = plan.draft.queue.keys().copied().collect();
            tx.run(sql.letters.forget_paid, vals![&key_list(&keys)]).await?;
        }
        self.queue_calls(&mut *tx, plan.draft.queue.iter()).await?;
        let marks = plan.marks.iter().map(|(key, (letter, duplicates))| {
            json!({"edit_key": key, "letter": letter, "duplicates": duplicates})
        });
        for rows in json_rows(marks) {
            tx.run(sql.letters.mark_calls, vals![&rows]).await?;
        }
        for rows in json_rows(plan.draft.waits.iter().cloned()) {
            tx.run(sql.letters.insert_waits, vals![&rows]).await?;
        }
        let ended = self.write_tasks(&mut *tx, &mut locked.tasks, &plan.touched).await?;
        let ids = id_rows(&plan.done.retried);
        tx.run(sql.letters.note_retries, vals![&ids]).await?;
        tx.run(sql.letters.count_retries, vals![&ids]).await?;
        tx.run(sql.letters.retried, vals![&ids]).await?;
        self.count_late_hits(&mut *tx, &plan.draft.hits).await?;
        tx.commit().await?;
        let wake = plan.draft.queue.into_iter().map(|(key, (lane, _))| (key, lane)).collect();
        Ok(Reopened { ended, wake, ..plan.done })
    }

    async fn lock_for_reopening(
        &self,
        tx: &mut dyn Tx,
        retries: &[EditRetry],
        refused: &HashMap<EditKey, Digest32>,
    ) -> Result<Locked, StepError> {
        let sql = self.db.sql();
        let keys: BTreeSet<EditKey> = retries.iter().map(|retry| retry.edit_key).collect();
        let keys = key_list(&keys.into_iter().collect::<Vec<_>>());
        tx.rows(sql.lock_calls, vals![&keys]).await?;
        let mut calls = HashMap::new();
        for row in tx.rows(sql.letters.calls_of, vals![&keys]).await? {
            let call = letter_call(&row)?;
            calls.insert(call.edit_key, call);
        }
        let mut late = HashMap::new();
        for row in tx.rows(sql.lookup, vals![&keys]).await? {
            let result = cached_result(&row)?;
            // A row whose blob was found missing is a miss, unless somebody has mended it since.
            let gone = refused.get(&result.edit_key);
            if gone.is_none() || gone.copied() != result.result_hash {
                late.insert(result.edit_key, result);
            }
        }
        let ids: BTreeSet<&str> = retries.iter().flat_map(|retry| &retry.tasks).map(String::as_str).collect();
        let mut tasks = BTreeMap::new();
        for row in tx.rows(sql.lock_tasks, vals![&json!(ids).to_string()]).await? {
            let task = TaskRecord::from_row(&row)?;
            tasks.insert(task.task_id.clone(), task);
        }
        let letters: Vec<i64> = retries.iter().map(|retry| retry.letter).collect();
        let rows = tx.rows(sql.letters.lock_free, vals![&id_rows(&letters)]).await?;
        let free = rows.iter().map(|row| row.int(0)).collect::<Result<_, _>>()?;
        Ok(Locked { calls, late, tasks, free })
    }

    /// Writes tasks some of whose images are no longer failed, or failed otherwise; returns those that have ended by it.
    async fn write_tasks(
        &self,
        tx: &mut dyn Tx,
        tasks: &mut BTreeMap<String, TaskRecord>,
        touched: &BTreeSet<String>,
    ) -> Result<Vec<TaskRecord>, StepError> {
        let sql = self.db.sql();
        let mut rows = Vec::new();
        let mut ended = Vec::new();
        for (id, task) in tasks.iter_mut().filter(|(id, _)| touched.contains(*id)) {
            debug_assert_eq!(*id, task.task_id);
            rows.push(task_row(task));
            if task.status.has_ended() {
                ended.push(task.id);
            }
        }
        for rows in json_rows(rows.into_iter()) {
            tx.run(sql.letters.update_tasks, vals![&rows, millis(self.patience)]).await?;
        }
        if ended.is_empty() {
            return Ok(Vec::new());
        }
        let rows = tx.rows(sql.tasks_by_id, vals![&json!(ended).to_string()]).await?;
        Ok(rows.iter().map(TaskRecord::from_row).collect::<Result<_, _>>()?)
    }

    /// Images of a task that had failed at intake, taken in again: `new.images` are what `positions` have become. What fails again
    /// opens the letter of `new.again`. `None`: there is no such task.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn reopen_images(&self, new: &NewTask, positions: &[u32]) -> Result<Option<Again>, StoreError> {
        around("reopen_images", async { again!(self.try_reopen_images(new, positions)) }).await
    }

    async fn try_reopen_images(&self, new: &NewTask, positions: &[u32]) -> Result<Option<Again>, StepError> {
        let sql = self.db.sql();
        let mut tx = self.db.begin().await?;
        let there = self.lock_and_look(&mut *tx, &new.images).await?;
        // Calls before the task, also those that are made here: that is the order of the locks.
        let Some(row) = tx.rows(sql.find_task, vals![&new.task_id]).await?.pop() else { return Ok(None) };
        let still_failed = |task: &TaskRecord| -> BTreeSet<u32> {
            let failed = |position: u32| {
                task.images.get(position as usize).is_some_and(|image| image.status == ImageStatus::Failed)
            };
            positions.iter().copied().filter(|position| failed(*position)).collect()
        };
        let failed = still_failed(&TaskRecord::from_row(&row)?);
        let again = positions.iter().copied().zip(&new.images);
        let draft = draft(again.filter(|(position, _)| failed.contains(position)), &there);
        self.queue_and_wait(&mut *tx, new, &draft, &there).await?;
        self.inputs_are_kept(&mut *tx, new).await?;
        let ids = json!([new.task_id]).to_string();
        let Some(row) = tx.rows(sql.lock_tasks, vals![&ids]).await?.pop() else { return Ok(None) };
        let mut task = TaskRecord::from_row(&row)?;
        if still_failed(&task) != failed {
            return Err(StepError::Again("the task was taken in again this moment".to_owned()));
        }
        for image in &draft.images {
            replace(&mut task, image.clone());
        }
        task.saved_micros += draft.saved_micros;
        let params = new.params.canonical();
        tx.run(sql.letters.route_task, vals![&new.model, &params, &new.currency, &new.task_id]).await?;
        let mut tasks = BTreeMap::from([(task.task_id.clone(), task)]);
        self.write_tasks(&mut *tx, &mut tasks, &[new.task_id.clone()].into()).await?;
        for letter in dead_letters(new, &draft.images) {
            self.insert_dead_in(&mut *tx, &letter).await?;
        }
        if !self.count_hits(&mut *tx, &draft.hits).await?.is_empty() {
            let why = "a cached result was forgotten since it was looked at";
            return Err(StoreError::Unavailable(why.to_owned()).into());
        }
        let rows = tx.rows(sql.find_task, vals![&new.task_id]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let task = TaskRecord::from_row(row)?;
        tx.commit().await?;
        count::taken_in_again(&new.model, &task, &draft.images, draft.saved_micros);
        let wake = draft.queue.into_iter().map(|(key, (lane, _))| (key, lane)).collect();
        Ok(Some(Again { task, wake }))
    }
}

impl Plan {
    /// Adds one letter's images, in whatever tasks they are failed.
    fn add(&mut self, retry: &EditRetry, locked: &mut Locked, reopening: &Reopening) {
        let key = retry.edit_key;
        let Some(call) = locked.calls.get(&key) else {
            self.done.lost.push(retry.letter);
            return;
        };
        self.done.retried.push(retry.letter);
        let late = locked.late.get(&key);
        for id in &retry.tasks {
            let Some(task) = locked.tasks.get_mut(id) else { continue };
            // All images of a task ask for the same edit: the picture tells which call was theirs.
            let failed = |image: &&ImageResult| {
                image.status == ImageStatus::Failed && image.image_hash == Some(call.image_hash)
            };
            let positions: Vec<u32> = task.images.iter().filter(failed).map(|image| image.position).collect();
            for position in positions {
                self.touched.insert(id.clone());
                match late {
                    Some(result) => self.hit(task, position, call, result),
                    None => self.wait(task, position, call, retry, reopening),
                }
            }
        }
    }

    fn hit(&mut self, task: &mut TaskRecord, position: u32, call: &LetterCall, result: &CachedResult) {
        *self.draft.hits.entry((call.edit_key, result.result_hash)).or_default() += 1;
        task.saved_micros += result.price.micros;
        replace(task, image_result(position, AnswerSource::Hit, call.image_hash, result));
        self.done.hit += 1;
    }

    fn wait(
        &mut self,
        task: &mut TaskRecord,
        position: u32,
        call: &LetterCall,
        retry: &EditRetry,
        reopening: &Reopening,
    ) {
        let key = call.edit_key;
        let joined = call.alive || self.draft.queue.contains_key(&key);
        if !joined {
            let own = || (call.lane.clone(), call.price.clone());
            self.draft.queue.insert(key, reopening.routes.get(&key).cloned().unwrap_or_else(own));
        }
        let counts = !joined && call.may_be_paid(retry) && call.price.micros > 0;
        let mark = self.marks.entry(key).or_default();
        *mark = (retry.letter, mark.1 + u32::from(counts));
        let source = if joined { AnswerSource::Joined } else { AnswerSource::Paid };
        self.draft.waits.push(json!({
            "task_id": task.task_id, "edit_key": key, "position": position, "source": source,
        }));
        let waiting =
            |image: &ImageResult| ImageResult { status: ImageStatus::Waiting, error: None, ..image.clone() };
        if let Some(image) = task.images.get(position as usize).map(waiting) {
            replace(task, image);
        }
        self.done.waiting += 1;
    }
}

/// Puts what has become of it in the place of a failed image.
fn replace(task: &mut TaskRecord, image: ImageResult) {
    let Some(place) = task.images.get_mut(image.position as usize) else { return };
    if place.status != ImageStatus::Failed {
        return;
    }
    match image.status {
        ImageStatus::Failed => {}
        ImageStatus::Waiting => task.failed = task.failed.saturating_sub(1),
        ImageStatus::Done => {
            task.failed = task.failed.saturating_sub(1);
            task.hit += 1;
        }
    }
    *place = image;
}

/// The task's new state, as a row for `update_tasks`.
fn task_row(task: &mut TaskRecord) -> Value {
    let answered = task.hit + task.joined + task.paid + task.failed;
    task.status = if answered >= task.total {
        TaskRecord::ended_status(task.total, task.failed)
    } else {
        TaskStatus::Processing
    };
    let error = task.images.iter().find_map(|image| image.error.as_ref());
    task.error = error.map(|error| clip(&error.message).to_owned());
    let mut row = json!({
        "id": task.id, "status": task.status.as_str(), "hit": task.hit, "failed": task.failed, "saved_micros": task.saved_micros,
        "results": json!(task.images).to_string(), "error": task.error, "ended": i64::from(task.status.has_ended()),
    });
    strip_nulls(&mut row);
    row
}

fn letter_call(row: &Row) -> Result<LetterCall, StoreError> {
    let count = |column| Ok::<_, StoreError>(u32::try_from(row.int(column)?).unwrap_or_default());
    Ok(LetterCall {
        edit_key: digest(row.bytes(0)?)?,
        image_hash: hex_digest(&row.text(1)?)?,
        edit_type: row.text(2)?,
        model: row.text(3)?,
        lane: row.text(4)?,
        price: Money { micros: row.int(5)?, currency: row.text(6)? },
        provider: row.text(7)?,
        alive: !matches!(row.text(8)?.as_str(), "done" | "failed"),
        sent: row.int(9)? != 0,
        prompt: row.text(10)?,
        params: row.text(11)?,
        provider_task_id: row.opt_text(12)?,
        paid_calls: count(13)?,
        possible_duplicates: count(14)?,
        held: row.opt_text(15)?,
        answer: row.int(16)? != 0,
        paid_result: row.int(17)? != 0,
    })
}
