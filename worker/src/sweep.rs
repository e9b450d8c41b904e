//! Sweep: finds work that no message will mention again (expired leases, calls whose message was lost,
//! unconfirmed events), and declares again what was deleted at the broker. Every replica runs it, at jittered
//! times; each call is taken by one of them.
//!
//! A sent call without an owner is carried on here: its message would stand behind the calls that wait for
//! the place that it holds in the lane.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use retouch_shared::key::EditKey;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::app::App;
use crate::broker::{BrokerError, Headers, Message, Queue};
use crate::store::DueCall;
use crate::{cache, edit, events, trace, wake};

/// Rows of each kind in one round.
const ROUND: u32 = 200;
/// A queued call in a queue that is not empty is left alone, except at every fourth look: its message may
/// have been lost while others were not.
const WAKE_ANYWAY: u32 = 4;
/// Calls carried on here at a time; the others are woken by messages.
const ORPHANS: usize = 16;
/// Rounds between two deletions of settled rows, cancels without a task, dead replicas and old suspects.
const FORGET_EVERY: u64 = 512;
/// Dead letters deleted in one transaction, and transactions in one round.
const FORGET: u32 = 500;
const FORGETS: u32 = 20;

/// Calls without an owner that this process carries on.
#[derive(Debug, Clone)]
struct Orphans {
    places: Arc<Semaphore>,
    under_way: TaskTracker,
}

impl Orphans {
    fn new() -> Self {
        Self { places: Arc::new(Semaphore::new(ORPHANS)), under_way: TaskTracker::new() }
    }

    /// Carries a call on if it was sent and a permit is free.
    fn take(&self, app: &Arc<App>, call: &DueCall) -> bool {
        let served = || app.lanes().contains(&call.lane);
        if !call.sent || !served() {
            return false;
        }
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else { return false };
        let (app, edit_key, lane) = (Arc::clone(app), call.edit_key, call.lane.clone());
        let work = async move {
            carry_on(&app, edit_key, lane).await;
            drop(place);
        };
        self.under_way.spawn(trace::within(trace::edit_span(), &Headers::new(), work));
        true
    }
}

/// Handles the call as if its message had arrived; publishes one if it must continue later.
async fn carry_on(app: &Arc<App>, edit_key: EditKey, lane: String) {
    let message = Message::new(wake::payload(edit_key));
    let outcome = edit::handle(app, &message).await;
    edit::go_on_later(app, edit_key, lane, outcome).await;
}

/// Runs until shutdown, then waits for the calls under way here.
pub(crate) async fn run(app: &Arc<App>) {
    let orphans = Orphans::new();
    let mut restored = Instant::now();
    let mut is_elsewhere = false;
    for number in 1u64.. {
        let pause = app.settings.rhythm.sweep.mul_f64(rand::random_range(0.5..1.5));
        tokio::select! {
            () = app.shutdown.cancelled() => break,
            () = tokio::time::sleep(pause) => {}
        }
        if let Err(error) = round(app, &orphans, number % FORGET_EVERY == 1).await {
            tracing::warn!(error = %format!("{error:#}"), "sweep");
        }
        tokio::select! {
            () = app.shutdown.cancelled() => break,
            () = check_namespace(app, &mut is_elsewhere) => {}
        }
        if restored.elapsed() >= app.settings.rhythm.patience * 2 {
            restored = Instant::now();
            tokio::select! {
                () = app.shutdown.cancelled() => break,
                () = restore(app) => {}
            }
        }
    }
    orphans.under_way.close();
    orphans.under_way.wait().await;
    app.beside.wait().await;
}

/// A namespace that was given to another database belongs to that one's workers: ours stop consuming until it
/// is given back.
async fn check_namespace(app: &App, is_elsewhere: &mut bool) {
    let bound = match app.bind().await {
        Ok(bound) => bound,
        // The round has logged that the database is unavailable.
        Err(_unavailable) => return,
    };
    match bound {
        Ok(()) if std::mem::take(is_elsewhere) => {
            tracing::info!("the namespace belongs to this database again")
        }
        Ok(()) => {}
        Err(error @ BrokerError::OtherInstallation { .. }) => {
            if !std::mem::replace(is_elsewhere, true) {
                tracing::error!(%error, "this worker consumes no more messages from the namespace");
            }
        }
        Err(error) => tracing::debug!(%error, "cannot read the binding of the namespace"),
    }
}

/// Declares again what was deleted at the broker: without its exchange no producer can publish, and no worker
/// would notice.
async fn restore(app: &App) {
    if let Err(error) = app.broker.restore().await {
        tracing::warn!(%error, "cannot check queues and exchanges");
    }
}

/// One round.
///
/// # Errors
/// The store is unavailable; the next round looks again.
async fn round(app: &Arc<App>, orphans: &Orphans, forget: bool) -> anyhow::Result<()> {
    if forget {
        app.store.forget_explained().await?;
        app.store.forget_cancels().await?;
        app.store.forget_replicas().await?;
        app.store.forget_suspects().await?;
        app.store.forget_dropped().await?;
        app.store.prune_gone(cache::GONE_DAYS).await?;
        forget_letters(app).await?;
    }
    let due = app.store.take_due_calls(ROUND).await?;
    let mut depths = HashMap::new();
    let mut lost = Vec::new();
    for call in due {
        if orphans.take(app, &call) {
            tracing::info!(edit_key = %call.edit_key, looks = call.wakes, "carrying on a call that lost its owner");
        } else if !waits_in_queue(app, &call, &mut depths).await {
            tracing::info!(edit_key = %call.edit_key, queued = call.queued, looks = call.wakes, "waking a call");
            lost.push((call.edit_key, call.lane));
        }
    }
    wake::calls(app, lost).await;
    for task in app.store.take_due_events(ROUND).await? {
        tracing::info!(task_id = task.task_id, "sending an event again");
        events::publish(app, &task).await;
    }
    // Last: its failure must not hold back the other steps.
    cache::clean(app).await
}

/// In small steps: there may be years of letters when the setting is introduced.
async fn forget_letters(app: &App) -> anyhow::Result<()> {
    let Some(days) = app.settings.rhythm.dead_retention_days else { return Ok(()) };
    let mut forgotten = 0;
    for _ in 0..FORGETS {
        let some = app.store.forget_letters(days, FORGET).await?;
        forgotten += some;
        if some < u64::from(FORGET) {
            break;
        }
    }
    if forgotten > 0 {
        tracing::info!(letters = forgotten, days, "deleted dead letters that were decided about long ago");
    }
    Ok(())
}

/// Whether the call's message is most likely still in its queue. If the depth is unknown, a message is
/// published.
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
