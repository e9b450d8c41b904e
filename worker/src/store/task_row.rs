//! A task's row as it is inserted, alone or with others: the values of any number of rows in as few statements as there are
//! constant texts for. A list of rows as one JSON value would do with a single text, but costs the server more to take apart than
//! the rest of the insert.

use retouch_shared::event::{ImageStatus, TaskStatus};
use retouch_shared::key::Digest32;
use serde_json::{Value, json};

use super::calls::millis;
use super::db::{FULL, Tx, Val};
use super::intake::Draft;
use super::types::clip;
use super::{NewTask, StepError, Store, TaskRecord};
use crate::trace::TraceContext;

/// Inserts of so many rows each, the largest first and the last of one row.
pub(super) type Inserts = [(usize, &'static str); 7];

/// Twice the same text, with a comma.
macro_rules! twice {
    ($($text:tt)*) => { concat!($($text)*, ", ", $($text)*) };
}
pub(super) use twice;

/// [`Inserts`] out of the beginning of a statement and the values of one row.
macro_rules! inserts {
    ($into:literal, $row:literal) => {{
        use crate::store::task_row::twice;
        [
            (64, concat!($into, twice!(twice!(twice!(twice!(twice!(twice!($row)))))))),
            (32, concat!($into, twice!(twice!(twice!(twice!(twice!($row))))))),
            (16, concat!($into, twice!(twice!(twice!(twice!($row)))))),
            (8, concat!($into, twice!(twice!(twice!($row))))),
            (4, concat!($into, twice!(twice!($row)))),
            (2, concat!($into, twice!($row))),
            (1, concat!($into, $row)),
        ]
    }};
}
pub(super) use inserts;

/// One row.
#[derive(Debug, Clone)]
pub(super) struct TaskRow {
    pub(super) task_id: String,
    request_hash: Digest32,
    edit_type: String,
    prompt: String,
    model: String,
    params: String,
    inputs: String,
    status: TaskStatus,
    total: u32,
    hit: u32,
    pub(super) failed: u32,
    saved_micros: i64,
    currency: String,
    results: String,
    metadata: Option<String>,
    error: Option<String>,
    reply_to: Option<String>,
    correlation_id: Option<String>,
    traceparent: Option<String>,
    tracestate: Option<String>,
}

impl TaskRow {
    pub(super) fn new(task: &NewTask, draft: &Draft) -> Self {
        let count = |status| {
            let count = draft.images.iter().filter(|image| image.status == status).count();
            u32::try_from(count).unwrap_or(u32::MAX)
        };
        let total = u32::try_from(task.images.len()).unwrap_or(u32::MAX);
        let (failed, waiting) = (count(ImageStatus::Failed), count(ImageStatus::Waiting));
        let status =
            if waiting > 0 { TaskStatus::Processing } else { TaskRecord::ended_status(total, failed) };
        let error = draft.images.iter().find_map(|image| image.error.as_ref());
        let trace = task.trace.as_ref();
        Self {
            task_id: task.task_id.clone(),
            request_hash: task.request_hash,
            edit_type: task.edit_type.clone(),
            prompt: task.prompt.clone(),
            model: task.model.clone(),
            params: task.params.canonical(),
            inputs: json!(task.inputs).to_string(),
            status,
            total,
            hit: count(ImageStatus::Done),
            failed,
            saved_micros: draft.saved_micros,
            currency: task.currency.clone(),
            results: json!(draft.images).to_string(),
            metadata: task.metadata.as_ref().map(Value::to_string),
            error: error.map(|error| clip(&error.message).to_owned()),
            reply_to: task.reply_to.clone(),
            correlation_id: task.correlation_id.clone(),
            traceparent: trace.map(TraceContext::traceparent),
            tracestate: trace.and_then(TraceContext::state).map(str::to_owned),
        }
    }

    /// In the order of the statements. `patience`: in milliseconds, until an event that is not confirmed is sent again.
    fn values(&self, patience: i64) -> [Val<'_>; 23] {
        let ended = i64::from(self.status.has_ended());
        [
            Val::Text(&self.task_id),
            Val::Bytes(self.request_hash.as_bytes()),
            Val::Text(&self.edit_type),
            Val::Text(&self.prompt),
            Val::Text(&self.model),
            Val::Text(&self.params),
            Val::Text(&self.inputs),
            Val::Text(self.status.as_str()),
            Val::Int(self.total.into()),
            Val::Int(self.hit.into()),
            Val::Int(self.failed.into()),
            Val::Int(self.saved_micros),
            Val::Text(&self.currency),
            Val::Text(&self.results),
            Val::OptText(self.metadata.as_deref()),
            Val::OptText(self.error.as_deref()),
            Val::OptText(self.reply_to.as_deref()),
            Val::OptText(self.correlation_id.as_deref()),
            Val::OptText(self.traceparent.as_deref()),
            Val::OptText(self.tracestate.as_deref()),
            Val::Int(ended),
            Val::Int(patience),
            Val::Int(ended),
        ]
    }

    /// About as many as travel.
    fn bytes(&self) -> usize {
        let texts = [&self.prompt, &self.params, &self.inputs, &self.results];
        let options = [&self.metadata, &self.error, &self.reply_to, &self.correlation_id];
        let options = options.into_iter().flatten();
        texts.into_iter().chain(options).map(String::len).sum::<usize>() + 512
    }
}

impl Store {
    /// Inserts rows, in their order.
    pub(super) async fn insert_tasks(&self, tx: &mut dyn Tx, rows: &[&TaskRow]) -> Result<(), StepError> {
        let patience = millis(self.patience);
        let mut rest = rows;
        while !rest.is_empty() {
            let (together, sql) = first_insert(&self.db.sql().insert_tasks, rest);
            let (now, later) = rest.split_at(together);
            let values: Vec<Val<'_>> = now.iter().flat_map(|row| row.values(patience)).collect();
            tx.run(sql, &values).await?;
            rest = later;
        }
        Ok(())
    }
}

/// The largest statement whose rows are there and fit into it, and how many rows it has.
fn first_insert(inserts: &Inserts, rows: &[&TaskRow]) -> (usize, &'static str) {
    let fits = |count: usize| {
        count <= rows.len() && rows[..count].iter().map(|row| row.bytes()).sum::<usize>() <= FULL
    };
    let [larger @ .., one] = inserts;
    larger.iter().copied().find(|(count, _)| fits(*count)).unwrap_or(*one)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{mysql, sqlite};

    fn row(bytes: usize) -> TaskRow {
        TaskRow {
            task_id: "t".to_owned(),
            request_hash: Digest32::of(b""),
            edit_type: "flip".to_owned(),
            prompt: "x".repeat(bytes),
            model: "m".to_owned(),
            params: "{}".to_owned(),
            inputs: "[]".to_owned(),
            status: TaskStatus::Completed,
            total: 1,
            hit: 1,
            failed: 0,
            saved_micros: 0,
            currency: "CNY".to_owned(),
            results: "[]".to_owned(),
            metadata: None,
            error: None,
            reply_to: None,
            correlation_id: None,
            traceparent: None,
            tracestate: None,
        }
    }

    #[test]
    fn each_text_takes_as_many_values_as_its_rows_have() {
        for inserts in [&mysql::SQL.insert_tasks, &sqlite::SQL.insert_tasks] {
            for (count, sql) in inserts {
                let places = sql.matches('?').count();
                assert_eq!(places, count * row(1).values(1).len(), "{count} rows: {sql}");
            }
            assert!(inserts.is_sorted_by(|(more, _), (fewer, _)| more > fewer));
        }
    }

    #[test]
    fn rows_go_in_as_few_statements_as_can_be_and_large_ones_in_smaller_ones() {
        let split = |rows: &[TaskRow]| {
            let mut rest: &[&TaskRow] = &rows.iter().collect::<Vec<_>>();
            let mut counts = Vec::new();
            while !rest.is_empty() {
                let (count, _) = first_insert(&mysql::SQL.insert_tasks, rest);
                counts.push(count);
                rest = &rest[count..];
            }
            counts
        };
        assert_eq!(split(&vec![row(10); 256]), [64, 64, 64, 64]);
        assert_eq!(split(&vec![row(10); 59]), [32, 16, 8, 2, 1]);
        assert_eq!(split(&vec![row(100_000); 20]), [8, 8, 4]);
        assert_eq!(split(&[row(2 * FULL), row(1), row(1)]), [1, 2]);
    }
}
