//! `retouch task list`: which tasks there are, the newest first.

use anyhow::anyhow;
use chrono::{DateTime, SecondsFormat, Utc};
use clap::Args;
use retouch_shared::event::{Cost, TaskStatus, decimal};
use serde::Serialize;

use super::account::Amount;
use super::dead::since;
use super::report::spent;
use super::say::say;
use super::{Ending, Failure};
use crate::store::{Since, Spent, Store, TaskFilter, TaskRecord};
use crate::words::{age, counted};

/// Columns of a terminal that everything fits into.
const WIDTH: usize = 80;

/// List the tasks that were taken in, the newest first
///
/// A page at a time: --before with the last id of a page shows the next one.
///
/// Example: retouch task list --status processing --since 2h
#[derive(Debug, Args)]
pub(super) struct TaskList {
    /// Only tasks that stand so: processing, completed, partial or failed
    #[arg(long, value_name = "STATUS")]
    status: Option<TaskStatus>,
    /// Only of this edit type
    #[arg(long, short = 't', visible_alias = "type", value_name = "TYPE")]
    edit_type: Option<String>,
    /// Only what was taken in since then: 30m, 2h, 3d, or a time such as 2026-11-23T08:00:00Z
    #[arg(long, visible_alias = "age", value_name = "WHEN", value_parser = since)]
    since: Option<Since>,
    /// Only what was taken in before this task
    #[arg(long, value_name = "TASK_ID")]
    before: Option<String>,
    /// Tasks on a page
    #[arg(long, default_value_t = 20, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
}

/// A page in `--json`.
#[derive(Debug, Serialize)]
struct Page {
    tasks: Vec<Shown>,
    /// `--before` of the next page; none on the last one.
    next: Option<String>,
}

#[derive(Debug, Serialize)]
struct Shown {
    task_id: String,
    status: TaskStatus,
    edit_type: String,
    images: u32,
    hit: u32,
    joined: u32,
    paid: u32,
    failed: u32,
    cost: Option<Cost>,
    /// Spent on edits that are sent and not ended, beside the cost.
    under_way: Option<Amount>,
    error: Option<String>,
    received_at: String,
    completed_at: Option<String>,
    age_seconds: i64,
}

impl TaskList {
    pub(super) async fn run(self, store: &Store, json: bool) -> Result<Ending, Failure> {
        if let Some(before) = &self.before
            && store.find_task(before).await.map_err(Failure::unreachable)?.is_none()
        {
            return Err(Failure::Usage(anyhow!("--before {before}: there is no such task")));
        }
        let Self { status, edit_type, since, before, limit } = self;
        let filter = TaskFilter { status, edit_type, since, before };
        // One more tells whether there is another page.
        let mut tasks = store.tasks(&filter, limit + 1).await.map_err(Failure::unreachable)?;
        let more = tasks.len() > limit as usize;
        tasks.truncate(limit as usize);
        let next = tasks.last().filter(|_| more).map(|task| task.task_id.clone());
        let now = store.clock().await.map_err(Failure::unreachable)?.now;
        let open =
            store.spent_by_open(&tasks.iter().collect::<Vec<_>>()).await.map_err(Failure::unreachable)?;
        let shown =
            |task: &TaskRecord| Shown::of(task, open.get(&task.task_id).copied().unwrap_or_default(), now);
        let page = Page { tasks: tasks.iter().map(shown).collect(), next };
        if json {
            // Plain data always serialises.
            say(serde_json::to_string_pretty(&page).unwrap_or_default());
        } else {
            page.print();
        }
        Ok(Ending::Done)
    }
}

impl Shown {
    fn of(task: &TaskRecord, open: Spent, now: DateTime<Utc>) -> Self {
        let time = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Millis, true);
        Self {
            task_id: task.task_id.clone(),
            status: task.status,
            edit_type: task.edit_type.clone(),
            images: task.total,
            hit: task.hit,
            joined: task.joined,
            paid: task.paid,
            failed: task.failed,
            cost: task.cost_and(open),
            under_way: (open.under_way_micros > 0)
                .then(|| Amount::new(open.under_way_micros, &task.currency)),
            error: task.error.clone(),
            received_at: time(task.received_at),
            completed_at: task.completed_at.map(time),
            age_seconds: (now - task.received_at).num_seconds().max(0),
        }
    }

    /// At most three lines: what it is, how it stands, its first error.
    fn lines(&self) -> Vec<String> {
        let Self { task_id, status, edit_type, images, hit, joined, paid, failed, .. } = self;
        let mut lines = vec![
            task_id.clone(),
            format!(
                "  {}, {edit_type}, {} ago",
                status.as_str(),
                age(u64::try_from(self.age_seconds).unwrap_or_default())
            ),
        ];
        let mut counts = vec![counted(u64::from(*images), "image")];
        let open = images.saturating_sub(hit + joined + paid + failed);
        for (count, what) in
            [(*hit, "hit"), (*joined, "joined"), (*paid, "paid"), (*failed, "failed"), (open, "open")]
        {
            if count > 0 {
                counts.push(format!("{count} {what}"));
            }
        }
        lines.push(format!("  {}{}", counts.join(", "), self.money()));
        if let Some(error) = self.error.as_ref().and_then(|error| error.lines().next()) {
            lines.push(format!("  {error}"));
        }
        lines.iter().map(|line| cut(line)).collect()
    }
}

impl Shown {
    /// What it cost so far, and what of that bought nothing; and what is under way.
    fn money(&self) -> String {
        let cost = self.cost.as_ref().map(|cost| {
            let lost =
                if cost.lost == decimal(0) { String::new() } else { format!(" ({} for nothing)", cost.lost) };
            format!("{} {}{lost}", spent(cost), cost.currency)
        });
        let under_way = self.under_way.as_ref().map(|amount| format!("{} under way", amount.in_words()));
        let money: Vec<String> = cost.into_iter().chain(under_way).collect();
        if money.is_empty() { String::new() } else { format!("; {}", money.join(", ")) }
    }
}

impl Page {
    fn print(&self) {
        if self.tasks.is_empty() {
            say("no tasks");
        }
        for task in &self.tasks {
            say(task.lines().join("\n"));
        }
        if let Some(next) = &self.next {
            say(format!("more: --before {next}"));
        }
    }
}

fn cut(line: &str) -> String {
    match line.char_indices().nth(WIDTH) {
        None => line.to_owned(),
        Some(_) => {
            let mut short: String = line.chars().take(WIDTH - 1).collect();
            short.push('…');
            short
        }
    }
}
