//! What the commands of a person ask: which calls their own tasks wait for, which calls hold the places of a
//! lane, what other commands left unfinished, which tasks there are, and what is spent on those that are open.
//! Nothing is changed.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use retouch_shared::event::{AnswerSource, TaskStatus};
use retouch_shared::key::EditKey;
use serde_json::json;

use super::calls::millis;
use super::db::{Row, vals};
use super::types::{digest, hex_digest};
use super::{CallState, KeptAnswer, Money, Since, Store, StoreError, TaskRecord, again};

pub(super) struct CommandStatements {
    pub(super) open_waits: &'static str,
    pub(super) left_over: &'static str,
    pub(super) sent_calls: &'static str,
    pub(super) spent_by_open: &'static str,
    pub(super) tasks: &'static str,
    pub(super) call: &'static str,
}

/// An image that waits for a call, and how that call stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenWait {
    /// The task.
    pub task_id: String,
    /// The image's place in it.
    pub position: u32,
    /// Its image joined a call that another image had started.
    pub joined: bool,
    /// The call.
    pub edit_key: EditKey,
    /// Where it queues.
    pub lane: String,
    /// Where it is in its life.
    pub state: CallState,
    /// A process works on it at the moment.
    pub leased: bool,
    /// That process, if there is one.
    pub owner: Option<String>,
    /// Until its lease runs out.
    pub lease_left: Duration,
    /// What it costs.
    pub price: Money,
    /// Host of its result and why it cannot be fetched now.
    pub unfetched: Option<(String, String)>,
}

impl OpenWait {
    /// The request left, and is not known to be refused: a charge for it is known or possible.
    pub fn is_sent(&self) -> bool {
        self.state.is_sent()
    }
}

/// A call of a lane that was sent, or was about to be, and is not over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentCall {
    /// The call.
    pub edit_key: EditKey,
    /// Where it is in its life.
    pub state: CallState,
    /// The kind of its editor.
    pub provider: String,
    /// The provider's id of it is recorded.
    pub has_id: bool,
    /// The provider's work has ended: it takes no place of the lane.
    pub ended: bool,
    /// Who works on it, where a lease has not run out.
    pub owner: Option<String>,
    /// Until that lease runs out.
    pub lease_left: Duration,
    /// The tasks that wait for it; none where they were cancelled.
    pub tasks: BTreeSet<String>,
}

/// A call as it stands, for a look ahead: nothing is claimed or locked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallStanding {
    /// Where it is in its life.
    pub state: CallState,
    /// A process works on it at the moment.
    pub leased: bool,
    /// What it cost when it was queued or sent last, in millionths.
    pub price_micros: i64,
    /// Submits without an answer.
    pub unanswered: u32,
    /// Why it is not sent again without a decision of a person: a reason code.
    pub held: Option<String>,
    /// A whole answer that could not be read.
    pub answer: Option<KeptAnswer>,
    /// It was paid for and has lost its result, and the provider is asked for that first.
    pub may_still_come: bool,
}

/// Unfinished calls, by the currency of their prices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOver {
    /// How many.
    pub calls: u64,
    /// What those of them cost that the provider has not accepted yet.
    pub cost: Money,
    /// In millionths: what was spent on them already, or perhaps was.
    pub spent_micros: i64,
    /// How many of them no task waits for.
    pub unwaited: u64,
}

/// What was spent on the calls that an open task waits for and pays, in millionths and the task's currency.
/// None of it is in the task's own figures yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    /// Perhaps charged for nothing: submits without an answer.
    pub lost_micros: i64,
    /// Sent, and not ended.
    pub under_way_micros: i64,
}

/// Which tasks. What is none does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskFilter {
    /// How they stand.
    pub status: Option<TaskStatus>,
    /// The operation.
    pub edit_type: Option<String>,
    /// Only those that were taken in since.
    pub since: Option<Since>,
    /// Only those that were taken in before this one.
    pub before: Option<String>,
}

impl Store {
    /// What these tasks still wait for, in the order of the tasks' ids and of their images.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn open_waits(&self, tasks: &[String]) -> Result<Vec<OpenWait>, StoreError> {
        let mut connection = self.db.plain().await?;
        let rows =
            connection.rows(self.db.sql().commands.open_waits, vals![&json!(tasks).to_string()]).await?;
        rows.iter().map(open_wait).collect()
    }

    /// The calls of a lane that were sent, or were about to be, and are not over, those first that were sent
    /// first.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn sent_calls(&self, lane: &str) -> Result<Vec<SentCall>, StoreError> {
        let mut connection = self.db.plain().await?;
        let rows = connection.rows(self.db.sql().commands.sent_calls, vals![lane]).await?;
        let mut calls: Vec<SentCall> = Vec::new();
        // A row for each task that waits for a call.
        for row in &rows {
            let edit_key = digest(row.bytes(0)?)?;
            if calls.last().is_none_or(|last| last.edit_key != edit_key) {
                calls.push(sent_call(edit_key, row)?);
            }
            if let (Some(call), Some(task_id)) = (calls.last_mut(), row.opt_text(7)?) {
                call.tasks.insert(task_id);
            }
        }
        Ok(calls)
    }

    /// Calls that are not over and that none of these tasks waits for.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn left_over(&self, tasks: &[String]) -> Result<Vec<LeftOver>, StoreError> {
        let tasks = json!(tasks).to_string();
        again!(async {
            let mut connection = self.db.plain().await?;
            let left_over = |row: &Row| {
                Ok(LeftOver {
                    calls: u64::try_from(row.int(1)?).unwrap_or_default(),
                    cost: Money { currency: row.text(0)?, micros: row.int(2)? },
                    spent_micros: row.int(3)?,
                    unwaited: u64::try_from(row.int(4)?).unwrap_or_default(),
                })
            };
            let rows = connection.rows(self.db.sql().commands.left_over, vals![&tasks]).await?;
            rows.iter().map(left_over).collect()
        })
    }

    /// What was spent on the calls of these tasks that have not ended; nothing of a task whose calls have.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn spent_by_open(&self, tasks: &[&TaskRecord]) -> Result<HashMap<String, Spent>, StoreError> {
        let open = tasks.iter().filter(|task| !task.status.has_ended());
        let ids: Vec<&str> = open.map(|task| task.task_id.as_str()).collect();
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let mut connection = self.db.plain().await?;
        let sql = self.db.sql().commands.spent_by_open;
        let rows = connection.rows(sql, vals![&json!(ids).to_string()]).await?;
        let spent = |row: &Row| {
            let spent = Spent { lost_micros: row.int(1)?, under_way_micros: row.int(2)? };
            Ok((row.text(0)?, spent))
        };
        rows.iter().map(spent).collect()
    }

    /// The call of this edit, if it has one.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn call_standing(&self, key: EditKey) -> Result<Option<CallStanding>, StoreError> {
        let mut connection = self.db.plain().await?;
        let rows = connection.rows(self.db.sql().commands.call, vals![key.as_bytes()]).await?;
        rows.first().map(call_standing).transpose()
    }

    /// Tasks of this kind, the newest first.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn tasks(&self, filter: &TaskFilter, limit: u32) -> Result<Vec<TaskRecord>, StoreError> {
        let status = filter.status.map(TaskStatus::as_str);
        let (edit_type, before) = (filter.edit_type.as_deref(), filter.before.as_deref());
        let (ago, at) = match filter.since {
            None => (None, None),
            Some(Since::Ago(ago)) => (Some(millis(ago)), None),
            Some(Since::At(at)) => (None, Some(at.format("%Y-%m-%d %H:%M:%S%.3f").to_string())),
        };
        let at = at.as_deref();
        let values = vals![status, status, edit_type, edit_type, ago, ago, at, at, before, before, limit];
        let mut connection = self.db.plain().await?;
        let rows = connection.rows(self.db.sql().commands.tasks, values).await?;
        rows.iter().map(TaskRecord::from_row).collect()
    }
}

fn sent_call(edit_key: EditKey, row: &Row) -> Result<SentCall, StoreError> {
    let lease_left = lease_left(row, 5)?;
    Ok(SentCall {
        edit_key,
        state: CallState::parse(&row.text(1)?)?,
        provider: row.text(2)?,
        has_id: row.int(3)? != 0,
        ended: row.int(4)? != 0,
        owner: row.opt_text(6)?.filter(|_| !lease_left.is_zero()),
        lease_left,
        tasks: BTreeSet::new(),
    })
}

/// Nothing where there is no lease, or it has run out.
fn lease_left(row: &Row, column: usize) -> Result<Duration, StoreError> {
    Ok(Duration::from_millis(u64::try_from(row.int(column)?).unwrap_or_default()))
}

fn call_standing(row: &Row) -> Result<CallStanding, StoreError> {
    let kept = |hash: String| {
        Ok::<_, StoreError>(KeptAnswer {
            hash: hex_digest(&hash)?,
            content_type: row.opt_text(6)?.unwrap_or_default(),
        })
    };
    Ok(CallStanding {
        state: CallState::parse(&row.text(0)?)?,
        leased: row.int(1)? != 0,
        price_micros: row.int(2)?,
        unanswered: u32::try_from(row.int(3)?).unwrap_or_default(),
        held: row.opt_text(4)?,
        answer: row.opt_text(5)?.map(kept).transpose()?,
        may_still_come: row.int(7)? != 0,
    })
}

fn open_wait(row: &Row) -> Result<OpenWait, StoreError> {
    let lease_left = lease_left(row, 6)?;
    Ok(OpenWait {
        task_id: row.text(0)?,
        position: u32::try_from(row.int(1)?).map_err(StoreError::corrupt)?,
        joined: row.text(2)? == AnswerSource::Joined.as_str(),
        edit_key: digest(row.bytes(3)?)?,
        lane: row.text(4)?,
        state: CallState::parse(&row.text(5)?)?,
        leased: !lease_left.is_zero(),
        owner: row.opt_text(11)?.filter(|_| !lease_left.is_zero()),
        lease_left,
        price: Money { micros: row.int(7)?, currency: row.text(8)? },
        unfetched: row.opt_text(9)?.zip(row.opt_text(10)?),
    })
}
