//! `retouch task`: how a task stands, from the database; and its end before its time.

use anyhow::anyhow;
use clap::{Args, Subcommand};
use retouch_shared::cancel::Cancel;
use retouch_shared::event::{Cost, TaskStatus, decimal};
use serde::Serialize;
use std::time::Duration;

use super::account::Edits;
use super::report::{Report, spent};
use super::say::say;
use super::task_list::TaskList;
use super::{Ending, Failure};
use crate::app::{open_store, resolve};
use crate::config::Settings;
use crate::store::{Cancelled, Store, TaskRecord};
use crate::words::counted;

/// Show how a task stands, list tasks, or cancel one
///
/// Example: retouch task 0193c0de-… --json
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct Task {
    /// The task's id
    #[arg(required = true)]
    task_id: Option<String>,
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, Subcommand)]
enum What {
    List(TaskList),
    /// End a task: its images stop waiting, and what nobody waits for any more is not sent
    ///
    /// What was answered keeps its result. What was sent is paid for: it is named with its cost, and the next
    /// `retouch worker`, or the next command that wants it, finishes it and keeps it in the cache. A task
    /// that has not been taken in yet ends cancelled if it is within a day.
    ///
    /// Exit codes: 0 cancelled, 1 it had ended already, 2 no such task yet.
    ///
    /// Example: retouch task cancel 0193c0de-…
    Cancel {
        /// The task's id
        task_id: String,
    },
}

/// What became of a cancel, in `--json`.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    task_id: &'a str,
    outcome: &'static str,
    status: Option<TaskStatus>,
    hit: u32,
    joined: u32,
    paid: u32,
    failed: u32,
    /// What it has cost; what was sent and has not ended is not in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    cost: Option<Cost>,
    /// Its edits that were sent, and that no other task waits for: they are finished and kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    sent: Option<Edits>,
}

impl Task {
    pub(super) async fn run(self, settings: &Settings, json: bool) -> Result<Ending, Failure> {
        let store = open_store(settings).await.map_err(Failure::Unreachable)?;
        let done = match (self.what, &self.task_id) {
            (Some(What::List(list)), _) => list.run(&store, json).await,
            (Some(What::Cancel { task_id }), _) => cancel(&store, &task_id, json).await,
            (None, Some(task_id)) => show(&store, settings, task_id, json).await,
            (None, None) => Err(Failure::Usage(anyhow!("give a task's id"))),
        };
        store.close().await;
        done
    }
}

async fn show(store: &Store, settings: &Settings, task_id: &str, json: bool) -> Result<Ending, Failure> {
    let found = store.find_task(task_id).await.map_err(Failure::unreachable)?;
    let Some(task) = found else {
        return Err(Failure::Usage(anyhow!(
            "no task {task_id:?}: not taken in yet, or refused (see the dead letters), or another database"
        )));
    };
    let resolve = |reference: &str| resolve(&settings.public_url, reference);
    let mut report = Report::of_record(&task, &task.inputs, resolve);
    let spent = store.spent_by_open(&[&task]).await.map_err(Failure::unreachable)?;
    if let Some(spent) = spent.get(&task.task_id) {
        report.add_spent(&task, *spent);
    }
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

async fn cancel(store: &Store, task_id: &str, json: bool) -> Result<Ending, Failure> {
    let cancel = Cancel::of(task_id).map_err(|error| Failure::Usage(error.into()))?;
    // Any worker's next sweep tells whoever asked for the task.
    let cancelled = store.cancel_task(&cancel.task_id, Duration::ZERO).await;
    let (outcome, task, sent) = match cancelled.map_err(Failure::unreachable)? {
        Cancelled::Now { task, sent } => ("cancelled", Some(task), Edits::of(&sent)),
        Cancelled::AlreadyEnded(task) => ("already_ended", Some(task), None),
        Cancelled::Remembered => ("remembered", None, None),
    };
    if json {
        // Plain data always serialises.
        let shown = Shown::of(task_id, outcome, task.as_deref(), sent.clone());
        say(serde_json::to_string_pretty(&shown).unwrap_or_default());
    }
    match task {
        None => Err(Failure::Usage(anyhow!(
            "no task {task_id:?} yet: should it be taken in within a day, it ends cancelled"
        ))),
        Some(task) => {
            let answered = task.total.saturating_sub(task.failed);
            let status = task.status.as_str();
            let already = outcome == "already_ended";
            if !json && already {
                say(format!("{task_id} had already ended as {status}; nothing was changed"));
            } else if !json {
                say(format!(
                    "{task_id} is cancelled: {status}, {answered} of {} images have a result{}",
                    task.total,
                    money(&task)
                ));
                if let Some(sent) = sent {
                    say(in_flight(&sent));
                }
            }
            Ok(if already { Ending::SomeFailed } else { Ending::Done })
        }
    }
}

/// What a cancelled task has cost.
fn money(task: &TaskRecord) -> String {
    let Some(cost) = task.cost().filter(|cost| spent(cost) != decimal(0)) else { return String::new() };
    let lost = if task.lost_micros == 0 { String::new() } else { format!(" ({} for nothing)", cost.lost) };
    format!("; {} {}{lost} spent", spent(&cost), cost.currency)
}

/// What a cancel cannot take back.
fn in_flight(sent: &Edits) -> String {
    let (was, them) = if sent.edits == 1 { ("was", "it") } else { ("were", "them") };
    format!(
        "{} {was} sent before, {}: `retouch worker`, or the next command that wants {them}, finishes {them}, and keeps \
         what comes of {them}",
        counted(sent.edits, "edit"),
        sent.money()
    )
}

impl<'a> Shown<'a> {
    fn of(task_id: &'a str, outcome: &'static str, task: Option<&TaskRecord>, sent: Option<Edits>) -> Self {
        let count = |of: fn(&TaskRecord) -> u32| task.map_or(0, of);
        Self {
            task_id,
            outcome,
            status: task.map(|task| task.status),
            hit: count(|task| task.hit),
            joined: count(|task| task.joined),
            paid: count(|task| task.paid),
            failed: count(|task| task.failed),
            cost: task.and_then(TaskRecord::cost),
            sent,
        }
    }
}
