//! Tasks, events and the sweep.

use retouch_shared::event::TaskStatus;
use serde_json::json;

use super::calls::millis;
use super::db::vals;
use super::types::digest;
use super::{CallState, DueCall, StepError, Store, StoreError, TaskRecord, again};
use crate::failpoint::around;

impl Store {
    /// One task.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn find_task(&self, task_id: &str) -> Result<Option<TaskRecord>, StoreError> {
        self.find_together(task_id).await
    }

    pub(super) async fn find_alone(&self, task_id: &str) -> Result<Option<TaskRecord>, StoreError> {
        let mut connection = self.db.plain().await?;
        let rows = connection.rows(self.db.sql().find_task, vals![task_id]).await?;
        rows.first().map(TaskRecord::from_row).transpose()
    }

    /// The event that says `status` with so many failed images was confirmed by the broker: the sweep need not send it again. A
    /// task whose failed images were retried may have ended otherwise meanwhile; that event is still to be sent.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn event_sent(&self, task_id: &str, status: TaskStatus, failed: u32) -> Result<(), StoreError> {
        around("event_sent", self.sent_together(task_id, status, failed)).await
    }

    /// Answers to `reply_to` from now on. Returns the task as it stands afterwards: if it has ended, its event may have
    /// gone to the one before.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn redirect_reply(
        &self,
        task_id: &str,
        reply_to: Option<&str>,
        correlation_id: Option<&str>,
    ) -> Result<Option<TaskRecord>, StoreError> {
        again!(async {
            let mut connection = self.db.plain().await?;
            connection.run(self.db.sql().redirect_reply, vals![reply_to, correlation_id, task_id]).await?;
            Ok(())
        })?;
        self.find_task(task_id).await
    }

    /// Calls that nobody has looked after in time: a lease ran out, or the message was lost. Each is put off, so that
    /// one replica at a time wakes it; `first` doubles with every look.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn take_due_calls(&self, limit: u32) -> Result<Vec<DueCall>, StoreError> {
        around("take_due_calls", async { again!(self.try_take_calls(limit)) }).await
    }

    async fn try_take_calls(&self, limit: u32) -> Result<Vec<DueCall>, StepError> {
        let sql = self.db.sql();
        let mut tx = self.db.begin().await?;
        let mut due = Vec::new();
        for row in tx.rows(sql.due_calls, vals![limit]).await? {
            let state = CallState::parse(&row.text(2)?)?;
            due.push(DueCall {
                edit_key: digest(row.bytes(0)?)?,
                lane: row.text(1)?,
                queued: state == CallState::Queued,
                sent: matches!(
                    state,
                    CallState::Submitting | CallState::Submitted | CallState::Ambiguous | CallState::Stored
                ),
                wakes: u32::try_from(row.int(3)?).unwrap_or_default(),
            });
        }
        if !due.is_empty() {
            let keys: Vec<_> = due.iter().map(|call| call.edit_key).collect();
            tx.run(sql.snooze_calls, vals![&json!(keys).to_string(), millis(self.patience / 2)]).await?;
        }
        tx.commit().await?;
        Ok(due)
    }

    /// Ended tasks whose event was not confirmed in time; each is put off for the store's patience.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn take_due_events(&self, limit: u32) -> Result<Vec<TaskRecord>, StoreError> {
        around("take_due_events", async { again!(self.try_take_events(limit)) }).await
    }

    async fn try_take_events(&self, limit: u32) -> Result<Vec<TaskRecord>, StepError> {
        let sql = self.db.sql();
        let mut tx = self.db.begin().await?;
        let rows = tx.rows(sql.due_events, vals![limit]).await?;
        let due = rows.iter().map(TaskRecord::from_row).collect::<Result<Vec<_>, _>>()?;
        if !due.is_empty() {
            let ids: Vec<_> = due.iter().map(|task| task.id).collect();
            tx.run(sql.snooze_events, vals![&json!(ids).to_string(), millis(self.patience)]).await?;
        }
        tx.commit().await?;
        Ok(due)
    }
}
