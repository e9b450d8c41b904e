//! Steps of many tasks in one: what is asked while a statement or a commit is under way goes into the next one ([`Together`]), so
//! that a task that is answered from the cache costs a share of a transaction and not one of its own.
//!
//! What must stay true: each task is answered as if it had come alone. A task of the batch that was there already, was cancelled
//! before it came, or whose cached result has gone holds up none of the others, and what a batch has committed is answered for
//! only then. Locks are taken in the order of the store's head: tasks by id, then cache rows by edit key.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use retouch_shared::event::TaskStatus;
use retouch_shared::key::EditKey;
use serde_json::{Value, json};

use super::db::{Tx, vals};
use super::intake::{Draft, Hits};
use super::task_row::TaskRow;
use super::types::time;
use super::{CachedResult, NewTask, StepError, Store, StoreError, TaskRecord, again};
use crate::together::Together;

/// Tasks, edits or events of one statement.
const MOST: usize = 256;

/// The statements of batches, as [`super::db::Statements`].
pub(super) struct BatchStatements {
    pub(super) find_tasks: &'static str,
    pub(super) written: &'static str,
    pub(super) events_sent: &'static str,
}

/// What is asked together, by question.
pub(super) struct Batches {
    find: Arc<Together<String, Result<Option<TaskRecord>, StoreError>>>,
    lookup: Arc<Together<EditKey, Result<Option<CachedResult>, StoreError>>>,
    register: Arc<Together<HitTask, Result<Written, StoreError>>>,
    sent: Arc<Together<SentEvent, Result<(), StoreError>>>,
}

impl Default for Batches {
    fn default() -> Self {
        Self {
            find: Together::new(MOST),
            lookup: Together::new(MOST),
            register: Together::new(MOST),
            sent: Together::new(MOST),
        }
    }
}

/// A task all of whose images are hits, as it is to be written.
#[derive(Clone)]
pub(super) struct HitTask {
    row: TaskRow,
    hits: Hits,
}

/// What became of a [`HitTask`].
#[derive(Debug, Clone)]
pub(super) enum Written {
    /// It is in the store, by this id, since then.
    New { id: i64, received_at: DateTime<Utc>, completed_at: Option<DateTime<Utc>> },
    /// A task of this id was there.
    Taken,
    /// It was cancelled before it came; nothing is written.
    Cancelled,
    /// A result that it was to be answered from has gone; nothing is written.
    Gone,
}

/// The event of a task, as [`Store::event_sent`] has it.
struct SentEvent {
    task_id: String,
    status: TaskStatus,
    failed: u32,
}

/// How one transaction for many tasks went: what it wrote, or which tasks are in its way.
enum Tried {
    Written(HashMap<String, Written>),
    InTheWay(HashMap<String, Written>),
}

impl Store {
    /// As [`Store::find_task`], together with others.
    pub(super) async fn find_together(&self, task_id: &str) -> Result<Option<TaskRecord>, StoreError> {
        let kept = Kept::of(self);
        let find = move |ids: Vec<String>| {
            let kept = kept.clone();
            async move { kept.find_all(&ids).await }
        };
        self.batches.find.ask(task_id.to_owned(), find).await.unwrap_or_else(|| Err(no_answer()))
    }

    /// One cache row, together with others.
    ///
    /// # Errors
    /// See [`Store::lookup`].
    pub async fn look_up(&self, edit_key: EditKey) -> Result<Option<CachedResult>, StoreError> {
        let kept = Kept::of(self);
        let look = move |keys: Vec<EditKey>| {
            let kept = kept.clone();
            async move {
                let distinct: Vec<EditKey> =
                    keys.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
                match kept.lookup(&distinct).await {
                    Ok(found) => keys.iter().map(|key| Ok(found.get(key).cloned())).collect(),
                    Err(error) => vec![Err(error); keys.len()],
                }
            }
        };
        self.batches.lookup.ask(edit_key, look).await.unwrap_or_else(|| Err(no_answer()))
    }

    /// Writes a task that ends as it comes, together with others.
    pub(super) async fn write_together(&self, task: HitTask) -> Result<Written, StoreError> {
        let store = self.clone();
        let write = move |tasks: Vec<HitTask>| {
            let store = store.clone();
            async move { store.write_all(tasks).await }
        };
        self.batches.register.ask(task, write).await.unwrap_or_else(|| Err(no_answer()))
    }

    /// Each task's answer, in their order.
    async fn write_all(&self, tasks: Vec<HitTask>) -> Vec<Result<Written, StoreError>> {
        let mut answers: Vec<Option<Result<Written, StoreError>>> = tasks.iter().map(|_| None).collect();
        loop {
            // In the order of their ids, which is the order of the locks; of two with the same id one waits for the other.
            let mut batch: BTreeMap<&str, (usize, &HitTask)> = BTreeMap::new();
            for (at, task) in tasks.iter().enumerate().filter(|(at, _)| answers[*at].is_none()) {
                batch.entry(&task.row.task_id).or_insert((at, task));
            }
            if batch.is_empty() {
                break;
            }
            let together: Vec<&HitTask> = batch.values().map(|(_, task)| *task).collect();
            let (decided, all) = match again!(self.try_write_all(&together)) {
                Ok(Tried::Written(written)) => (Ok(written), true),
                Ok(Tried::InTheWay(tasks)) => (Ok(tasks), false),
                Err(error) => (Err(error), true),
            };
            for (id, (at, _)) in batch {
                match &decided {
                    Ok(decided) => match decided.get(id) {
                        Some(written) => answers[at] = Some(Ok(written.clone())),
                        None if all => answers[at] = Some(Err(no_answer())),
                        None => {}
                    },
                    Err(error) => answers[at] = Some(Err(error.clone())),
                }
            }
        }
        answers.into_iter().map(|answer| answer.unwrap_or_else(|| Err(no_answer()))).collect()
    }

    /// One transaction for all, or none of it and the tasks that are in its way.
    async fn try_write_all(&self, tasks: &[&HitTask]) -> Result<Tried, StepError> {
        let sql = &self.db.sql().batch;
        let ids: Vec<&str> = tasks.iter().map(|task| task.row.task_id.as_str()).collect();
        let ids = json!(ids).to_string();
        let mut tx = self.db.begin().await?;
        let rows: Vec<&TaskRow> = tasks.iter().map(|task| &task.row).collect();
        match self.insert_tasks(&mut *tx, &rows).await {
            Err(StepError::Duplicate) => {
                drop(tx);
                return self.taken(&ids).await;
            }
            done => done?,
        }
        // After the tasks are written: a cancel is remembered before it looks for its task.
        let mut written = written(&mut *tx, sql.written, &ids).await?;
        if written.values().any(|written| matches!(written, Written::Cancelled)) {
            written.retain(|_, written| matches!(written, Written::Cancelled));
            return Ok(Tried::InTheWay(written));
        }
        let mut hits = Hits::new();
        for (hit, count) in tasks.iter().flat_map(|task| &task.hits) {
            *hits.entry(*hit).or_default() += count;
        }
        // Last: the rows that everybody wants are locked from here to the commit.
        let gone = self.count_hits(&mut *tx, &hits).await?;
        if !gone.is_empty() {
            let lost = tasks.iter().filter(|task| task.hits.keys().any(|hit| gone.contains(hit)));
            let lost = lost.map(|task| (task.row.task_id.clone(), Written::Gone));
            return Ok(Tried::InTheWay(lost.collect()));
        }
        tx.commit().await?;
        Ok(Tried::Written(written))
    }

    /// Which of these tasks are there already.
    async fn taken(&self, ids: &str) -> Result<Tried, StepError> {
        let mut connection = self.db.plain().await?;
        let rows = connection.rows(self.db.sql().batch.written, vals![ids]).await?;
        if rows.is_empty() {
            return Err(StepError::Again("a task was registered and taken back this moment".to_owned()));
        }
        let taken = rows.iter().map(|row| Ok((row.text(0)?, Written::Taken)));
        Ok(Tried::InTheWay(taken.collect::<Result<_, StepError>>()?))
    }

    /// Notes that an event was confirmed, together with others.
    pub(super) async fn sent_together(
        &self,
        task_id: &str,
        status: TaskStatus,
        failed: u32,
    ) -> Result<(), StoreError> {
        let kept = Kept::of(self);
        let note = move |events: Vec<SentEvent>| {
            let kept = kept.clone();
            async move { vec![kept.note_sent(&events).await; events.len()] }
        };
        let event = SentEvent { task_id: task_id.to_owned(), status, failed };
        self.batches.sent.ask(event, note).await.unwrap_or_else(|| Err(no_answer()))
    }
}

/// A connection for one kind of question, from the first of a spell in which it is asked without a break to the last: while many want one,
/// the pool asks the server about each that it takes back.
#[derive(Clone)]
struct Kept {
    store: Store,
    connection: Arc<Mutex<Option<Box<dyn Tx>>>>,
}

impl Kept {
    fn of(store: &Store) -> Self {
        Self { store: store.clone(), connection: Arc::default() }
    }

    /// The connection, to be given [`Kept::back`] when it has answered: what fails is not used again.
    async fn connection(&self) -> Result<Box<dyn Tx>, StoreError> {
        let kept = self.kept().take();
        match kept {
            Some(connection) => Ok(connection),
            None => Ok(self.store.db.plain().await?),
        }
    }

    fn back(&self, connection: Box<dyn Tx>) {
        *self.kept() = Some(connection);
    }

    fn kept(&self) -> MutexGuard<'_, Option<Box<dyn Tx>>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn find_all(&self, ids: &[String]) -> Vec<Result<Option<TaskRecord>, StoreError>> {
        let found: Result<HashMap<String, TaskRecord>, StoreError> = async {
            let mut connection = self.connection().await?;
            let sql = self.store.db.sql().batch.find_tasks;
            let rows = connection.rows(sql, vals![&json!(ids).to_string()]).await?;
            self.back(connection);
            let tasks = rows.iter().map(TaskRecord::from_row);
            tasks.map(|task| task.map(|task| (task.task_id.clone(), task))).collect()
        }
        .await;
        match found {
            Ok(found) => ids.iter().map(|id| Ok(found.get(id).cloned())).collect(),
            // One row that cannot be read is not the others' fault.
            Err(StoreError::Corrupt(_)) if ids.len() > 1 => {
                let mut each = Vec::with_capacity(ids.len());
                for id in ids {
                    each.push(self.store.find_alone(id).await);
                }
                each
            }
            Err(error) => vec![Err(error); ids.len()],
        }
    }

    async fn lookup(&self, keys: &[EditKey]) -> Result<HashMap<EditKey, CachedResult>, StoreError> {
        let mut connection = self.connection().await?;
        let found = self.store.lookup_on(&mut *connection, keys).await?;
        self.back(connection);
        Ok(found)
    }

    async fn note_sent(&self, events: &[SentEvent]) -> Result<(), StoreError> {
        let mut sorted: Vec<&SentEvent> = events.iter().collect();
        sorted.sort_unstable_by_key(|event| &event.task_id);
        let rows = sorted.iter().map(|event| {
            json!({"task_id": event.task_id, "status": event.status.as_str(), "failed": event.failed})
        });
        let rows = Value::from_iter(rows).to_string();
        again!(async {
            let mut connection = self.connection().await?;
            connection.run(self.store.db.sql().batch.events_sent, vals![&rows]).await?;
            self.back(connection);
            Ok(())
        })
    }
}

fn no_answer() -> StoreError {
    StoreError::Unavailable("the statement was cut off".to_owned())
}

/// What was written, by task id, with the times that the database wrote; and which of it was cancelled before it came.
async fn written(
    tx: &mut dyn Tx,
    sql: &'static str,
    ids: &str,
) -> Result<HashMap<String, Written>, StepError> {
    let mut written = HashMap::new();
    for row in tx.rows(sql, vals![ids]).await? {
        let what = if row.int(4)? != 0 {
            Written::Cancelled
        } else {
            Written::New {
                id: row.int(1)?,
                received_at: time(&row.text(2)?)?,
                completed_at: row.opt_text(3)?.as_deref().map(time).transpose()?,
            }
        };
        written.insert(row.text(0)?, what);
    }
    Ok(written)
}

impl HitTask {
    pub(super) fn new(task: &NewTask, draft: &Draft) -> Self {
        Self { row: TaskRow::new(task, draft), hits: draft.hits.clone() }
    }
}
