//! The intake's steps: look up, register.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use retouch_shared::event::{AnswerSource, ImageError, ImageResult, ImageStatus};
use retouch_shared::key::{Digest32, EditKey, ImageHash};
use serde_json::{Value, json};

use super::batch::{HitTask, Written};
use super::calls::millis;
use super::cancels::cancelled;
use super::db::{DbError, Row, Tx, json_rows, strip_nulls, vals};
use super::dropped::{marks_of, unless_dropped};
use super::letters::IMAGES;
use super::task_row::TaskRow;
use super::types::{digest, hex_digest, image_result};
use super::{
    CachedResult, CallSpec, DeadLetter, Money, NewTask, Planned, Properties, Registered, StepError, Store,
    StoreError, TaskRecord, again,
};
use crate::failpoint::around;
use crate::metrics::count;

/// How often each result is served: a row that meanwhile names another result, or is gone, is not the one that was looked at.
pub(super) type Hits = BTreeMap<(EditKey, Option<Digest32>), i64>;

/// What there is already of a task's edits, its rows locked.
#[derive(Default)]
pub(super) struct There {
    /// Their calls, and whether each is alive.
    pub(super) calls: BTreeMap<EditKey, bool>,
    /// Results that came since the cache was asked.
    pub(super) late: HashMap<EditKey, CachedResult>,
}

/// A task's row, as it was written.
struct ReadBack {
    /// With what the database put there.
    record: TaskRecord,
    /// It was cancelled before it came.
    cancelled: bool,
    /// A picture that its calls need was deleted while it was kept.
    dropped: bool,
}

/// A registered task that is being put together.
#[derive(Default)]
pub(super) struct Draft {
    pub(super) images: Vec<ImageResult>,
    pub(super) hits: Hits,
    pub(super) saved_micros: i64,
    pub(super) waits: Vec<Value>,
    pub(super) queue: BTreeMap<EditKey, (String, Money)>,
    /// It was cancelled before it came.
    cancelled: bool,
}

impl Store {
    /// Cache rows by edit key.
    ///
    /// # Errors
    /// A store that cannot answer is an error, never a miss.
    pub async fn lookup(&self, keys: &[EditKey]) -> Result<HashMap<EditKey, CachedResult>, StoreError> {
        if keys.is_empty() {
            return Ok(HashMap::new());
        }
        let mut connection = self.db.plain().await?;
        self.lookup_on(&mut *connection, keys).await
    }

    pub(super) async fn lookup_on(
        &self,
        connection: &mut dyn Tx,
        keys: &[EditKey],
    ) -> Result<HashMap<EditKey, CachedResult>, StoreError> {
        let rows = connection.rows(self.db.sql().lookup, vals![&key_list(keys)]).await?;
        rows.iter().map(|row| cached_result(row).map(|result| (result.edit_key, result))).collect()
    }

    /// Records a task: its hits, its failed images, its waits and the calls it needs, in one transaction. A call that
    /// is alive already is joined; an edit that was finished meanwhile is a hit.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn register(&self, task: &NewTask) -> Result<Registered, StoreError> {
        let registered = match all_hits(task) {
            Some((draft, hits)) => around("register", self.register_hits(task, draft, hits)).await?,
            None => around("register", self.register_alone(task)).await?,
        };
        if let Some(registered) = registered {
            return Ok(registered);
        }
        match self.find_task(&task.task_id).await? {
            Some(found) if found.request_hash == task.request_hash => Ok(Registered::Same(Box::new(found))),
            Some(_) => Ok(Registered::Conflict),
            None => Err(StoreError::Unavailable("the task's row was there and is gone".to_owned())),
        }
    }

    /// `None`: there is a task of this id.
    async fn register_hits(
        &self,
        task: &NewTask,
        draft: Draft,
        hits: HitTask,
    ) -> Result<Option<Registered>, StoreError> {
        Ok(match self.write_together(hits).await? {
            Written::New { id, received_at, completed_at } => {
                let record = TaskRecord::all_hits(id, task, draft.images, draft.saved_micros);
                let record = TaskRecord { received_at, completed_at, ..record };
                count::registered(&task.model, &record);
                Some(Registered::New { task: Box::new(record), wake: Vec::new() })
            }
            Written::Taken => None,
            Written::Cancelled => self.register_alone(task).await?,
            Written::Gone => Some(Registered::Gone),
        })
    }

    /// `None`: there is a task of this id.
    async fn register_alone(&self, task: &NewTask) -> Result<Option<Registered>, StoreError> {
        again!(async {
            match self.try_register(task).await {
                Ok(registered) => Ok(Some(registered)),
                Err(StepError::Duplicate) => Ok(None),
                Err(other) => Err(other),
            }
        })
    }

    async fn try_register(&self, task: &NewTask) -> Result<Registered, StepError> {
        let mut tx = self.db.begin().await?;
        let there = self.lock_and_look(&mut *tx, &task.images).await?;
        let draft = draft((0..).zip(&task.images), &there);
        self.queue_and_wait(&mut *tx, task, &draft, &there).await?;
        self.insert_task(&mut *tx, task, &draft).await?;
        let written = self.read_back(&mut *tx, task).await?;
        if written.cancelled {
            drop(tx);
            return self.try_register_cancelled(task).await;
        }
        unless_dropped(written.dropped)?;
        if !self.count_hits(&mut *tx, &draft.hits).await?.is_empty() {
            return Ok(Registered::Gone);
        }
        tx.commit().await?;
        count::registered(&task.model, &written.record);
        let wake = draft.queue.into_iter().map(|(key, (lane, _))| (key, lane)).collect();
        Ok(Registered::New { task: Box::new(written.record), wake })
    }

    /// A task that was cancelled before it came: nothing of it is looked for, nobody waits.
    async fn try_register_cancelled(&self, task: &NewTask) -> Result<Registered, StepError> {
        let mut tx = self.db.begin().await?;
        let draft = cancelled_draft(task);
        self.insert_task(&mut *tx, task, &draft).await?;
        self.use_up_cancel(&mut *tx, &task.task_id).await?;
        let written = self.read_back(&mut *tx, task).await?;
        tx.commit().await?;
        Ok(Registered::New { task: Box::new(written.record), wake: Vec::new() })
    }

    /// A task whose row and calls this transaction has just written, and what else there is to know of it.
    async fn read_back(&self, tx: &mut dyn Tx, task: &NewTask) -> Result<ReadBack, StepError> {
        let (marks, lately) = marks_of(&inputs(task), task.began.elapsed());
        let rows = tx.rows(self.db.sql().read_back, vals![&marks, lately, &task.task_id]).await?;
        let row = rows.first().ok_or_else(|| StoreError::Corrupt("the task's row is missing".to_owned()))?;
        Ok(ReadBack {
            record: TaskRecord::from_row(row)?,
            cancelled: row.int(24)? != 0,
            dropped: row.int(25)? != 0,
        })
    }

    /// Locks the call rows of all misses, as far as there are any, then looks at the cache a last time.
    pub(super) async fn lock_and_look(
        &self,
        tx: &mut dyn Tx,
        images: &[Planned],
    ) -> Result<There, StepError> {
        let sql = self.db.sql();
        let mut there = There::default();
        // In the order of their keys, here and in every list below: that is the order of the locks.
        let keys: BTreeSet<EditKey> = misses(images).map(|(call, _)| call.edit_key).collect();
        if keys.is_empty() {
            return Ok(there);
        }
        let keys = key_list(&keys.into_iter().collect::<Vec<_>>());
        for row in tx.rows(sql.lock_calls, vals![&keys]).await? {
            let alive = !matches!(row.text(1)?.as_str(), "done" | "failed");
            there.calls.insert(digest(row.bytes(0)?)?, alive);
        }
        for row in tx.rows(sql.lookup, vals![&keys]).await? {
            let result = cached_result(&row)?;
            // A row whose blob intake found missing is still a miss, unless somebody has mended it since.
            let refused = misses(images).any(|(call, refused)| {
                call.edit_key == result.edit_key && refused.is_some() && refused == result.result_hash
            });
            if !refused {
                there.late.insert(result.edit_key, result);
            }
        }
        Ok(there)
    }

    /// Held where a picture that the calls need was deleted while it was kept, see `dropped`. After the call rows are written.
    pub(super) async fn inputs_are_kept(&self, tx: &mut dyn Tx, task: &NewTask) -> Result<(), StepError> {
        self.none_was_dropped(tx, &inputs(task), task.began.elapsed()).await
    }

    /// The calls that nobody has begun, and the waits.
    pub(super) async fn queue_and_wait(
        &self,
        tx: &mut dyn Tx,
        task: &NewTask,
        draft: &Draft,
        there: &There,
    ) -> Result<(), StepError> {
        let sql = self.db.sql();
        let is_new = |key: &EditKey| draft.queue.contains_key(key) && !there.calls.contains_key(key);
        let new = misses(&task.images).filter(|(call, _)| is_new(&call.edit_key));
        let new: BTreeMap<EditKey, &CallSpec> = new.map(|(call, _)| (call.edit_key, call)).collect();
        for rows in json_rows(new.values().map(|call| call_row(call))) {
            match tx.run(sql.insert_calls, vals![millis(self.patience), &rows]).await {
                Err(DbError::Duplicate(_)) => {
                    return Err(StepError::Again("the same edit was asked for this moment".to_owned()));
                }
                inserted => inserted?,
            };
        }
        let ended = draft.queue.iter().filter(|(key, _)| !new.contains_key(*key));
        self.queue_calls(tx, ended).await?;
        if !draft.waits.is_empty() {
            let waits = Value::Array(draft.waits.clone()).to_string();
            tx.run(sql.insert_waits, vals![&task.task_id, &waits]).await?;
        }
        Ok(())
    }

    /// Calls that have ended, and are asked for once more.
    pub(super) async fn queue_calls<'a>(
        &self,
        tx: &mut dyn Tx,
        queue: impl Iterator<Item = (&'a EditKey, &'a (String, Money))>,
    ) -> Result<(), StepError> {
        let rows: Vec<Value> = queue
            .map(|(key, (lane, price))| {
                json!({"edit_key": key, "lane": lane, "price_micros": price.micros, "currency": price.currency})
            })
            .collect();
        if rows.is_empty() {
            return Ok(());
        }
        let rows = Value::Array(rows).to_string();
        tx.run(self.db.sql().queue_calls, vals![&rows, millis(self.patience)]).await?;
        Ok(())
    }

    /// Counts hits on the rows that were looked at. Returns those that are not there any more: nothing may be answered from them, and
    /// the transaction is not to be committed.
    pub(super) async fn count_hits(
        &self,
        tx: &mut dyn Tx,
        hits: &Hits,
    ) -> Result<BTreeSet<(EditKey, Option<Digest32>)>, StepError> {
        let sql = self.db.sql();
        let rows = hits.iter().map(|((key, result), count)| {
            let mut row = json!({"edit_key": key, "result": result, "count": count});
            strip_nulls(&mut row);
            row
        });
        let mut counted = 0;
        for rows in json_rows(rows) {
            counted += tx.run(sql.count_hits, vals![&rows]).await?;
        }
        if counted == hits.len() as u64 {
            return Ok(BTreeSet::new());
        }
        let mut gone: BTreeSet<_> = hits.keys().copied().collect();
        let keys = key_list(&hits.keys().map(|(key, _)| *key).collect::<Vec<_>>());
        for row in tx.rows(sql.lookup, vals![&keys]).await? {
            let there = cached_result(&row)?;
            gone.remove(&(there.edit_key, there.result_hash));
        }
        if gone.is_empty() {
            return Err(StepError::Again("a cached result was changed this moment".to_owned()));
        }
        Ok(gone)
    }

    /// As [`Store::count_hits`], on rows that this transaction has looked at itself: it is run again where one of them is gone.
    pub(super) async fn count_late_hits(&self, tx: &mut dyn Tx, hits: &Hits) -> Result<(), StepError> {
        if self.count_hits(tx, hits).await?.is_empty() {
            return Ok(());
        }
        Err(StepError::Again("a cached result was forgotten this moment".to_owned()))
    }

    async fn insert_task(&self, tx: &mut dyn Tx, task: &NewTask, draft: &Draft) -> Result<(), StepError> {
        let row = TaskRow::new(task, draft);
        self.insert_tasks(tx, &[&row]).await?;
        // A cancel is nobody's failure.
        if row.failed > 0 && !draft.cancelled && !task.told {
            for letter in dead_letters(task, &draft.images) {
                self.insert_dead_in(tx, &letter).await?;
            }
        }
        Ok(())
    }
}

/// A task that needs no call and has no failed image: it may share its transaction with others.
fn all_hits(task: &NewTask) -> Option<(Draft, HitTask)> {
    if !task.images.iter().all(|image| matches!(image, Planned::Hit { .. })) {
        return None;
    }
    let draft = draft((0..).zip(&task.images), &There::default());
    let hits = HitTask::new(task, &draft);
    Some((draft, hits))
}

fn misses(images: &[Planned]) -> impl Iterator<Item = (&CallSpec, Option<Digest32>)> {
    images.iter().filter_map(|image| match image {
        Planned::Miss { call, refused } => Some((&**call, *refused)),
        Planned::Hit { .. } | Planned::Failed { .. } => None,
    })
}

/// The pictures that a task's calls need.
fn inputs(task: &NewTask) -> BTreeSet<Digest32> {
    let inputs = misses(&task.images).flat_map(|(call, _)| [Some(call.image_hash), call.mask_hash]);
    inputs.flatten().collect()
}

/// Decides, under the locks, what each image is: hit, waiting (first comer pays, the others join) or failed.
pub(super) fn draft<'a>(images: impl Iterator<Item = (u32, &'a Planned)>, there: &There) -> Draft {
    let mut draft = Draft::default();
    for (position, planned) in images {
        let image = match planned {
            Planned::Hit { image_hash, result } => draft.hit(position, *image_hash, result),
            Planned::Failed { image_hash, error } => failed(position, *image_hash, error.clone()),
            Planned::Miss { call, .. } => match there.late.get(&call.edit_key) {
                Some(result) => draft.hit(position, call.image_hash, result),
                None => draft.wait(position, call, there.calls.get(&call.edit_key) == Some(&true)),
            },
        };
        draft.images.push(image);
    }
    draft
}

fn cancelled_draft(task: &NewTask) -> Draft {
    let images = (0u32..).zip(&task.images).map(|(position, planned)| {
        let image_hash = match planned {
            Planned::Hit { image_hash, .. } => Some(*image_hash),
            Planned::Miss { call, .. } => Some(call.image_hash),
            Planned::Failed { image_hash, .. } => *image_hash,
        };
        failed(position, image_hash, cancelled())
    });
    Draft { images: images.collect(), cancelled: true, ..Draft::default() }
}

impl Draft {
    fn hit(&mut self, position: u32, image_hash: ImageHash, result: &CachedResult) -> ImageResult {
        *self.hits.entry((result.edit_key, result.result_hash)).or_default() += 1;
        self.saved_micros += result.price.micros;
        image_result(position, AnswerSource::Hit, image_hash, result)
    }

    fn wait(&mut self, position: u32, call: &CallSpec, alive: bool) -> ImageResult {
        let joined = alive || self.queue.contains_key(&call.edit_key);
        if !joined {
            self.queue.insert(call.edit_key, (call.lane.clone(), call.price.clone()));
        }
        let source = if joined { AnswerSource::Joined } else { AnswerSource::Paid };
        self.waits.push(json!({"edit_key": call.edit_key, "position": position, "source": source}));
        ImageResult { status: ImageStatus::Waiting, ..blank(position, Some(call.image_hash)) }
    }
}

fn blank(position: u32, image_hash: Option<ImageHash>) -> ImageResult {
    ImageResult {
        position,
        status: ImageStatus::Failed,
        source: None,
        image_hash,
        result_url: None,
        content_type: None,
        width: None,
        height: None,
        error: None,
    }
}

fn failed(position: u32, image_hash: Option<ImageHash>, error: ImageError) -> ImageResult {
    ImageResult { error: Some(error), ..blank(position, image_hash) }
}

/// The dead letters of a task some of whose images could not be read, one for each cause: its own message, to be sent again for
/// those images. Where it was sent again already, the first of them opens the letter that it was sent for.
pub(super) fn dead_letters(task: &NewTask, images: &[ImageResult]) -> Vec<DeadLetter> {
    let mut causes: Vec<(&str, Vec<&ImageResult>)> = Vec::new();
    for image in images {
        let Some(error) = &image.error else { continue };
        match causes.iter_mut().find(|(code, _)| *code == error.code) {
            Some((_, alike)) => alike.push(image),
            None => causes.push((&error.code, vec![image])),
        }
    }
    let letters = causes.into_iter().enumerate();
    letters.map(|(nth, (code, images))| dead_letter(task, code, &images, nth == 0)).collect()
}

fn dead_letter(task: &NewTask, code: &str, images: &[&ImageResult], first: bool) -> DeadLetter {
    let message = |image: &&ImageResult| image.error.as_ref().map(|error| error.message.clone());
    let lines: Vec<String> = images
        .iter()
        .filter_map(|image| message(image).map(|message| format!("image {}: {message}", image.position)))
        .collect();
    let positions: Vec<String> = images.iter().map(|image| image.position.to_string()).collect();
    let positions = positions.join(",");
    DeadLetter {
        letter_key: Digest32::of(format!("task\n{}\n{code}\n{positions}", task.task_id).as_bytes()),
        queue: "tasks".to_owned(),
        reason: code.to_owned(),
        message: lines.join("\n"),
        payload: task.payload.clone(),
        kept: None,
        headers: [(IMAGES.to_owned(), positions)].into(),
        attempts: 1,
        task_id: Some(task.task_id.clone()),
        edit_key: None,
        edit_type: Some(task.edit_type.clone()),
        properties: Properties {
            reply_to: task.reply_to.clone(),
            correlation_id: task.correlation_id.clone(),
        },
        again: task.again.filter(|_| first),
        settled: false,
    }
}

pub(super) fn key_list(keys: &[EditKey]) -> String {
    json!(keys).to_string()
}

/// A call as a row for `insert_calls`. What is absent is left out: not every database reads a JSON null as NULL.
fn call_row(call: &CallSpec) -> Value {
    let CallSpec {
        edit_key,
        image_hash,
        edit_type,
        prompt,
        provider,
        model,
        params,
        mask_hash,
        variant,
        lane,
        price,
    } = call;
    let mut row = json!({
        "edit_key": edit_key, "image_hash": image_hash, "edit_type": edit_type, "prompt": prompt, "provider": provider,
        "model": model, "params": params.canonical(), "mask_hash": mask_hash, "variant": variant, "lane": lane,
        "price_micros": price.micros, "currency": price.currency,
    });
    strip_nulls(&mut row);
    row
}

pub(super) fn cached_result(row: &Row) -> Result<CachedResult, StoreError> {
    let pixels = |column| Ok::<_, StoreError>(u32::try_from(row.int(column)?).unwrap_or_default());
    Ok(CachedResult {
        edit_key: digest(row.bytes(0)?)?,
        result_url: row.text(2)?,
        result_hash: row.opt_text(3)?.as_deref().map(hex_digest).transpose()?,
        content_type: row.text(4)?,
        width: pixels(5)?,
        height: pixels(6)?,
        bytes: u64::try_from(row.int(7)?).unwrap_or_default(),
        price: Money { micros: row.int(8)?, currency: row.text(9)? },
    })
}
