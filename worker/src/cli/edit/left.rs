//! What is left unfinished: by earlier commands, and by this one when it is interrupted.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use super::super::account::{Amount, Edits, amounts, in_words as money};
use crate::app::App;
use crate::store::{Money, OpenWait, ReplicaView, StoreError};
use crate::words::counted;

/// Unfinished edits of earlier commands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(in crate::cli) struct LeftAlone {
    /// How many, and what those of them would cost that the provider has not accepted yet.
    #[serde(flatten)]
    unpaid: Edits,
    /// What was spent on them already, or perhaps was.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    spent: Vec<Amount>,
    /// How many of them belong to tasks that have ended.
    without_task: u64,
}

impl LeftAlone {
    /// What they are, and what can be done about them.
    pub(in crate::cli) fn in_words(&self) -> String {
        let Self { unpaid, spent, without_task } = self;
        let (noun, verb) = if unpaid.edits == 1 { ("edit", "was") } else { ("edits", "were") };
        let mut costs = Vec::new();
        if !spent.is_empty() {
            costs.push(format!("{} spent already", money(spent)));
        }
        if !unpaid.costs.is_empty() {
            costs.push(format!("about {} to be paid", unpaid.money()));
        }
        let costs: String = costs.iter().map(|cost| format!(", {cost}")).collect();
        let tasks = if *without_task < unpaid.edits {
            "`retouch task list` names their tasks, "
        } else {
            "their tasks have ended, "
        };
        format!(
            "{} unfinished {noun} of earlier commands{costs}, {verb} left alone: {tasks}`retouch worker` carries them on",
            unpaid.edits
        )
    }
}

/// Unfinished edits that none of these tasks waits for, but for as many as are carried on here, which cost
/// nothing. None where another process lives that may be at them.
///
/// # Errors
/// The store cannot be asked.
pub(super) async fn by_others(
    app: &App,
    tasks: &[String],
    carried_on: usize,
) -> Result<Option<LeftAlone>, StoreError> {
    let left = app.store.left_over(tasks).await?;
    let edits: u64 = left.iter().map(|left| left.calls).sum();
    let edits = edits.saturating_sub(carried_on as u64);
    if edits == 0 || !other_processes(app).await?.is_empty() {
        return Ok(None);
    }
    let without_task = left.iter().map(|left| left.unwaited).sum();
    let spent =
        left.iter().map(|left| Money { micros: left.spent_micros, currency: left.cost.currency.clone() });
    let spent = amounts(spent);
    Ok(Some(LeftAlone {
        unpaid: Edits::new(edits, left.into_iter().map(|left| left.cost)),
        spent,
        without_task,
    }))
}

/// The other processes that live.
///
/// # Errors
/// The store cannot be asked.
pub(super) async fn other_processes(app: &App) -> Result<Vec<ReplicaView>, StoreError> {
    let replicas = app.store.replicas().await?.into_iter();
    Ok(replicas.filter(|replica| is_another(app, replica)).collect())
}

/// Whether this is another process that lives. One that was killed a moment ago on this machine is still in
/// the list.
fn is_another(app: &App, replica: &ReplicaView) -> bool {
    if replica.report.owner == app.owner {
        return false;
    }
    let here = replica.report.name == app.settings.name && Path::new("/proc/self").exists();
    let pid = replica.report.owner.split('-').next().unwrap_or_default();
    !here || Path::new("/proc").join(pid).exists()
}

/// What an interrupted command leaves, in words.
pub(super) fn in_words(waits: &[OpenWait], done: usize, total: usize) -> String {
    let calls: BTreeMap<_, &OpenWait> = waits.iter().map(|wait| (wait.edit_key, wait)).collect();
    let (sent, waiting): (Vec<&OpenWait>, Vec<&OpenWait>) =
        calls.into_values().partition(|wait| wait.is_sent());
    let price = |wait: &&OpenWait| Money::clone(&wait.price);
    let mut parts = vec![format!("{done} of {} done", counted(total as u64, "picture"))];
    if !sent.is_empty() {
        let under_way = Edits::new(sent.len() as u64, sent.iter().map(price));
        let are = if sent.len() == 1 { "is" } else { "are" };
        parts.push(format!(
            "{} {are} under way at the provider{}",
            counted(under_way.edits, "edit"),
            under_way.about()
        ));
    }
    if !waiting.is_empty() {
        parts.push(format!("{} not sent", counted(waiting.len() as u64, "edit")));
    }
    parts.join("; ")
}
