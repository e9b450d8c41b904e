//! `retouch task`: how a task stands, from the database.

use clap::Args;

use super::report::Report;
use super::say::say;
use super::{Ending, Failure};
use crate::app::{open_store, resolve};
use crate::config::Settings;

/// Show how a task stands
///
/// Example: retouch task 0193c0de-… --json
#[derive(Debug, Args)]
pub(super) struct ShowTask {
    /// The task's id
    task_id: String,
}

impl ShowTask {
    pub(super) async fn run(self, settings: &Settings, json: bool) -> Result<Ending, Failure> {
        let store = open_store(settings).await.map_err(Failure::Unreachable)?;
        let found = store.find_task(&self.task_id).await.map_err(Failure::unreachable)?;
        store.close().await;
        let Some(task) = found else {
            let unknown = anyhow::anyhow!(
                "no task {:?}: not taken in yet, or refused (see the dead letters), or another database",
                self.task_id
            );
            return Err(Failure::Usage(unknown));
        };
        let resolve = |reference: &str| resolve(&settings.public_url, reference);
        let report = Report::of_record(&task, &task.inputs, resolve);
        if !json {
            let answered = task.hit + task.joined + task.paid + task.failed;
            let so_far = if task.status.has_ended() {
                String::new()
            } else {
                format!(", {answered} of {} images answered", task.total)
            };
            say(format!("{}: {}, {}{so_far}", task.task_id, task.edit_type, task.status.as_str()));
        }
        let took = task.completed_at.and_then(|end| (end - task.received_at).to_std().ok());
        report.print(json, took);
        Ok(report.ending())
    }
}
