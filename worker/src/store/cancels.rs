//! Cancels: a task's images stop waiting, and what nobody waits for any more is not submitted.
//!
//! What must stay true: under the call's lock a call that is not sent and has no wait is closed, with a new fence, so that
//! whoever owned it changes nothing; `begin_submit` asks the same question under the same lock, and is the only way to
//! `submitting`. What was sent is carried on: it may be paid for. What the calls have lost so far is charged to
//! the task. And a cancel that overtakes its task is remembered before it looks for the task a second time,
//! while `register` writes the task before it looks for the cancel: one of them sees the other.

use std::collections::BTreeSet;
use std::time::Duration;

use retouch_shared::event::{ImageError, ImageStatus};
use retouch_shared::key::EditKey;
use serde_json::json;

use super::calls::{millis, task_row};
use super::db::{Tx, vals};
use super::types::{clip, digest};
use super::{CallState, Money, Priced, StepError, Store, StoreError, TaskRecord, again};
use crate::failpoint::around;
use crate::metrics::count;

/// The error code of an image that was not answered before its task was cancelled.
pub const CANCELLED: &str = "cancelled";
/// How long a cancel that came before its task is remembered.
const REMEMBERED: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) struct CancelStatements {
    pub(super) edits_of: &'static str,
    pub(super) stop_waiting: &'static str,
    pub(super) still_waiting: &'static str,
    pub(super) is_waited_for: &'static str,
    pub(super) pass_on_payment: &'static str,
    pub(super) close_unwanted: &'static str,
    pub(super) take_loss: &'static str,
    pub(super) remember: &'static str,
    pub(super) forget_one: &'static str,
    pub(super) forget: &'static str,
}

/// What a cancel did.
#[derive(Debug)]
pub enum Cancelled {
    /// The task has ended by it: what was answered before keeps its result.
    Now {
        /// As it has ended.
        task: Box<TaskRecord>,
        /// Of its calls, those that were sent, cost money, and that no other task waits for: they are carried
        /// on, and their results kept.
        sent: Priced,
    },
    /// It had ended before; nothing was changed.
    AlreadyEnded(Box<TaskRecord>),
    /// There is no such task. Should it be taken in within a day, it ends cancelled.
    Remembered,
}

impl Store {
    /// Ends a task: what it still waits for fails as [`CANCELLED`], without a dead letter. The sweep sends its event after
    /// `event_in` unless it is confirmed before.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn cancel_task(&self, task_id: &str, event_in: Duration) -> Result<Cancelled, StoreError> {
        around("cancel_task", self.cancel_or_remember(task_id, event_in)).await
    }

    async fn cancel_or_remember(&self, task_id: &str, event_in: Duration) -> Result<Cancelled, StoreError> {
        let found = again!(self.try_cancel(task_id, event_in))?;
        if let Some(cancelled) = found {
            return Ok(cancelled);
        }
        again!(async {
            let mut connection = self.db.plain().await?;
            connection.run(self.db.sql().cancels.remember, vals![task_id]).await?;
            Ok(())
        })?;
        let found = again!(self.try_cancel(task_id, event_in))?;
        Ok(found.unwrap_or(Cancelled::Remembered))
    }

    async fn try_cancel(&self, task_id: &str, event_in: Duration) -> Result<Option<Cancelled>, StepError> {
        let sql = self.db.sql();
        let mut tx = self.db.begin().await?;
        // Calls before the task: that is the order of the locks.
        let edits = self.edits_of(&mut *tx, task_id).await?;
        let states = tx.rows(sql.lock_calls, vals![&json!(edits).to_string()]).await?;
        let Some(row) = tx.rows(sql.lock_tasks, vals![&json!([task_id]).to_string()]).await?.pop() else {
            return Ok(None);
        };
        let mut task = TaskRecord::from_row(&row)?;
        if task.status.has_ended() {
            return Ok(Some(Cancelled::AlreadyEnded(Box::new(task))));
        }
        // Registered between the look at its waits and the lock on its row.
        if !self.edits_of(&mut *tx, task_id).await?.is_subset(&edits) {
            return Err(StepError::Again("the task was registered this moment".to_owned()));
        }
        let mut sent = Priced::default();
        for call in states {
            let (edit_key, state) = (digest(call.bytes(0)?)?, CallState::parse(&call.text(1)?)?);
            if !self.stop_waiting(&mut *tx, task_id, edit_key, state).await? {
                continue;
            }
            if state.is_sent() {
                sent.add(&Money { micros: call.int(2)?, currency: call.text(3)? });
            }
            let lost_micros = call.int(4)?;
            if lost_micros > 0 {
                tx.run(sql.cancels.take_loss, vals![edit_key.as_bytes()]).await?;
                task.lost_micros += lost_micros;
            }
        }
        let failed_before = task.failed;
        end_cancelled(&mut task);
        let rows = json!([task_row(&mut task, &row.text(24)?)?]).to_string();
        tx.run(sql.update_tasks, vals![&rows, millis(event_in)]).await?;
        tx.commit().await?;
        count::cancelled(&task, task.failed.saturating_sub(failed_before));
        Ok(Some(Cancelled::Now { task: Box::new(task), sent }))
    }

    async fn edits_of(&self, tx: &mut dyn Tx, task_id: &str) -> Result<BTreeSet<EditKey>, StepError> {
        let rows = tx.rows(self.db.sql().cancels.edits_of, vals![task_id]).await?;
        Ok(rows.iter().map(|row| digest(row.bytes(0)?)).collect::<Result<_, StoreError>>()?)
    }

    /// Takes a task's waits from a call that is locked; closes the call if that was the last of them and nothing was sent.
    /// Returns whether it was the last of them.
    async fn stop_waiting(
        &self,
        tx: &mut dyn Tx,
        task_id: &str,
        edit_key: EditKey,
        state: CallState,
    ) -> Result<bool, StepError> {
        let sql = &self.db.sql().cancels;
        tx.run(sql.stop_waiting, vals![edit_key.as_bytes(), task_id]).await?;
        let rows = tx.rows(sql.still_waiting, vals![edit_key.as_bytes()]).await?;
        let (left, paying) = match rows.first() {
            Some(row) => (row.int(0)?, row.int(1)?),
            None => (0, 0),
        };
        let sent = !matches!(state, CallState::Queued | CallState::Claimed);
        if left == 0 && !sent {
            self.close_unwanted(tx, edit_key).await?;
        } else if left > 0 && paying == 0 {
            // The next one pays, so that what the tasks say adds up to what was paid.
            tx.run(sql.pass_on_payment, vals![edit_key.as_bytes()]).await?;
        }
        Ok(left == 0)
    }

    /// Whether an image waits for a call that is locked.
    pub(super) async fn is_waited_for(&self, tx: &mut dyn Tx, edit_key: EditKey) -> Result<bool, StepError> {
        let rows = tx.rows(self.db.sql().cancels.is_waited_for, vals![edit_key.as_bytes()]).await?;
        Ok(!rows.is_empty())
    }

    /// queued or claimed → done, without a result: as if nobody had asked. Its fence is a new one.
    pub(super) async fn close_unwanted(&self, tx: &mut dyn Tx, edit_key: EditKey) -> Result<(), StepError> {
        tx.run(self.db.sql().cancels.close_unwanted, vals![edit_key.as_bytes()]).await?;
        Ok(())
    }

    /// A cancel that came before its task has done what it was for.
    pub(super) async fn use_up_cancel(&self, tx: &mut dyn Tx, task_id: &str) -> Result<(), StepError> {
        tx.run(self.db.sql().cancels.forget_one, vals![task_id]).await?;
        Ok(())
    }

    /// Drops cancels whose task never came; says how many.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn forget_cancels(&self) -> Result<u64, StoreError> {
        again!(async {
            let mut connection = self.db.plain().await?;
            Ok(connection.run(self.db.sql().cancels.forget, vals![millis(REMEMBERED)]).await?)
        })
    }
}

/// The error of an image that is not answered because its task was cancelled.
pub(super) fn cancelled() -> ImageError {
    let message = "the task was cancelled before this image was answered";
    ImageError { code: CANCELLED.to_owned(), message: message.to_owned() }
}

fn end_cancelled(task: &mut TaskRecord) {
    let error = cancelled();
    for image in task.images.iter_mut().filter(|image| image.status == ImageStatus::Waiting) {
        image.status = ImageStatus::Failed;
        image.source = None;
        image.error = Some(error.clone());
        task.failed += 1;
    }
    task.error.get_or_insert_with(|| clip(&error.message).to_owned());
}
