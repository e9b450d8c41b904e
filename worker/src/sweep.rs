//! Sweep: finds what no message will ever mention again: expired leases, calls whose message was lost, events that
//! were not confirmed. Every replica runs it, at jittered times; a call is taken by one of them.

use std::collections::HashMap;

use crate::app::App;
use crate::broker::{BrokerError, Queue};
use crate::store::DueCall;
use crate::{events, wake};

/// Rows of each kind that one round looks at.
const ROUND: u32 = 200;
/// Calls that wait in a queue which is not empty are left alone, except every so many looks: their message may have
/// been lost while others were not.
const WAKE_ANYWAY: u32 = 4;

/// Runs until shutdown.
pub(crate) async fn run(app: &App) {
    loop {
        let pause = app.settings.rhythm.sweep.mul_f64(rand::random_range(0.5..1.5));
        tokio::select! {
            () = app.shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        if let Err(error) = round(app).await {
            tracing::warn!(error = %format!("{error:#}"), "sweep");
        }
    }
}

/// One round.
///
/// # Errors
/// The store cannot be asked; nothing is lost, the next round looks again.
pub(crate) async fn round(app: &App) -> anyhow::Result<()> {
    let due = app.store.take_due_calls(ROUND).await?;
    let mut depths = HashMap::new();
    let mut lost = Vec::new();
    for call in due {
        if !waits_in_queue(app, &call, &mut depths).await {
            tracing::info!(edit_key = %call.edit_key, queued = call.queued, looks = call.wakes, "waking a call");
            lost.push((call.edit_key, call.lane));
        }
    }
    wake::calls(app, lost).await;
    for task in app.store.take_due_events(ROUND).await? {
        tracing::info!(task_id = task.task_id, "sending an event again");
        events::publish(app, &task).await;
    }
    Ok(())
}

/// Whether the call's message is most likely still in its queue. A queue that cannot be asked is asked by publishing.
async fn waits_in_queue(app: &App, call: &DueCall, depths: &mut HashMap<String, u64>) -> bool {
    if !call.queued || call.wakes % WAKE_ANYWAY == WAKE_ANYWAY - 1 {
        return false;
    }
    if let Some(depth) = depths.get(&call.lane) {
        return *depth > 0;
    }
    let depth: Result<u64, BrokerError> = app.broker.depth(Queue::Edits { lane: call.lane.clone() }).await;
    let depth = depth.unwrap_or(0);
    depths.insert(call.lane.clone(), depth);
    depth > 0
}
