//! Intake: one task message becomes one task in the store; a cancel ends one. It never calls an editor, so it is fast whatever the
//! provider does.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use retouch_shared::cancel::{Cancel, Request};
use retouch_shared::event::ImageStatus;
use retouch_shared::key::EditKey;
use retouch_shared::task::{Source, Task};
use retouch_shared::wire::TaskMessage;

use crate::app::App;
use crate::blobs::{BlobError, Blobs};
use crate::broker::{Delivery, Destination, Message, Queue};
use crate::outcome::{Outcome, attempt, delayed};
use crate::store::{Cancelled, DeadPayload, NewTask, Planned, Registered, StoreError, TaskRecord};
use crate::suspects::{self, Refused};
use crate::{events, trace, wake};

mod again;
mod plan;

pub(crate) use plan::{Foreseen, Preview};
use plan::{Plan, plan};

/// Pictures of one task that are loaded at a time.
const LOADS: usize = 8;
/// Results that leave the cache between the look at it and the commit make a task be looked at again; so often at once.
const LOOKS: u32 = 3;
/// A message larger than this goes into the blob store when it becomes a dead letter: databases limit a row.
pub(crate) const INLINE_PAYLOAD: usize = 256 * 1024;

/// Why a task cannot go on: what `?` carries out of the steps below.
type Stop = Outcome;

/// Works on one task message.
pub(crate) async fn handle(app: &Arc<App>, delivery: &Delivery) -> Outcome {
    let message = &delivery.message;
    if app.shutdown.is_cancelled() {
        return Outcome::HandBack;
    }
    // Before anything is built of it.
    let _room = tokio::select! {
        () = app.shutdown.cancelled() => return Outcome::HandBack,
        room = app.sources.room_for_message(message.payload.len()) => room,
    };
    if !delivery.redelivered {
        return decode_and_take_in(app, message).await;
    }
    // Whoever had it may have died of it.
    let suspect = suspects::message(&message.payload);
    match suspects::work_on(app, suspect, None, decode_and_take_in(app, message)).await {
        Ok(outcome) => outcome,
        Err(Refused::Poison(message)) => Outcome::Dead { reason: suspects::POISON, message },
        Err(Refused::Stopping) => Outcome::HandBack,
        Err(Refused::Store(error)) => hold(message, &error),
    }
}

async fn decode_and_take_in(app: &Arc<App>, message: &Message) -> Outcome {
    if let Some(queue) = message.reply_to.as_deref().filter(|queue| app.settings.topology.owns(queue)) {
        let message = format!("reply_to: {queue} is a queue of the workers; name one of your own");
        return Outcome::Dead { reason: "bad_message", message };
    }
    let request = match Request::decode(&message.payload) {
        Ok(request) => request,
        Err(invalid) => return Outcome::Dead { reason: invalid.reason(), message: invalid.to_string() },
    };
    let went = match request {
        Request::Task(task) => {
            tracing::Span::current().record("task_id", &task.task_id);
            take_in(app, message, &task).await
        }
        Request::Cancel(cancel) => {
            tracing::Span::current().record("task_id", &cancel.task_id);
            take_back(app, message, &cancel).await
        }
    };
    went.unwrap_or_else(|stop| stop)
}

/// A cancel. Whoever asks is told how the task ended, by it or before it.
async fn take_back(app: &Arc<App>, message: &Message, cancel: &Cancel) -> Result<Outcome, Stop> {
    let cancelled = app.store.cancel_task(&cancel.task_id, app.settings.rhythm.patience).await;
    match cancelled.map_err(|error| hold(message, &error))? {
        Cancelled::Now { task, sent: _ } => {
            tracing::info!(status = task.status.as_str(), failed = task.failed, "cancelled");
            answer_again(app, message, &task).await
        }
        Cancelled::AlreadyEnded(task) => {
            tracing::info!(status = task.status.as_str(), "a cancel of a task that has ended");
            answer_again(app, message, &task).await
        }
        Cancelled::Remembered => {
            tracing::info!("a cancel of a task that has not come; should it come, it ends cancelled");
            Ok(Outcome::Done)
        }
    }
}

async fn take_in(app: &Arc<App>, message: &Message, task: &Task) -> Result<Outcome, Stop> {
    let held = |error: StoreError| hold(message, &error);
    if let Some(known) = app.store.find_task(&task.task_id).await.map_err(held)? {
        if known.request_hash != task.request_hash {
            return Ok(conflict(task));
        }
        return match again::asked(message) {
            Some(asked) => again::take_in(app, message, task, &known, &asked).await,
            None => same_again(app, message, &known).await,
        };
    }
    let (new, registered) = register(app, message, task, false).await?;
    match registered {
        Registered::New { task, wake } => {
            tell_taken_in(&new, &task, &wake);
            // The store has it all: a message that is lost from here on is found by the sweep.
            wake::calls(app, wake).await;
            events::publish(app, &task).await;
            Ok(Outcome::Done)
        }
        Registered::Same(known) => same_again(app, message, &known).await,
        Registered::Conflict => Ok(conflict(task)),
        Registered::Gone => Err(hold(message, &"cached results of it keep changing")),
    }
}

/// Looks at the pictures and records what came of it; looks again where a result has left the cache meanwhile.
/// `told` is that of [`NewTask`].
async fn register(
    app: &Arc<App>,
    message: &Message,
    task: &Task,
    told: bool,
) -> Result<(NewTask, Registered), Stop> {
    let mut looks = 0;
    loop {
        let planned = plan(app, message, task).await?;
        let new = NewTask { told, ..new_task(app, message, task, planned).await? };
        let registered = app.store.register(&new).await.map_err(|error| hold(message, &error))?;
        looks += 1;
        if matches!(registered, Registered::Gone) && looks < LOOKS {
            tracing::info!("a cached result was forgotten this moment; looking again");
            continue;
        }
        return Ok((new, registered));
    }
}

/// Takes in the task of a command that performs its calls itself: no edit message is published for them. What
/// cannot be asked now is asked again, as long as the command waits.
///
/// # Errors
/// The task is refused.
pub(crate) async fn take_in_own(app: &Arc<App>, task: &TaskMessage) -> anyhow::Result<TaskRecord> {
    let mut message = Message::new(serde_json::to_vec(task)?);
    let task = Task::from_message(task.clone())?;
    loop {
        let stop = match register(app, &message, &task, true).await {
            Ok((new, Registered::New { task, wake })) => {
                tell_taken_in(&new, &task, &wake);
                events::publish(app, &task).await;
                return Ok(*task);
            }
            Ok((_, Registered::Same(known))) => return Ok(*known),
            Ok((_, Registered::Conflict)) => conflict(&task),
            Ok((_, Registered::Gone)) => hold(&message, &"cached results of it keep changing"),
            Err(stop) => stop,
        };
        match stop {
            Outcome::Delay { after, error } | Outcome::Rest { after, error } => {
                tracing::info!(?after, error, "delayed");
                message = delayed(message, error);
                tokio::time::sleep(after).await;
            }
            Outcome::Dead { message, .. } => anyhow::bail!(message),
            Outcome::Done | Outcome::HandBack => anyhow::bail!("the task was not taken in"),
        }
    }
}

fn tell_taken_in(new: &NewTask, task: &TaskRecord, started: &[(EditKey, String)]) {
    tracing::info!(
        status = task.status.as_str(),
        hit = task.hit,
        failed = task.failed,
        calls = started.len(),
        "task taken in"
    );
    tell_waits(new, task, started);
}

/// From a task to the edits that it waits for: their own lines name no task until they end.
fn tell_waits(new: &NewTask, task: &TaskRecord, started: &[(EditKey, String)]) {
    let mut told = BTreeSet::new();
    for (planned, image) in new.images.iter().zip(&task.images) {
        let Planned::Miss { call, .. } = planned else { continue };
        if image.status == ImageStatus::Waiting && told.insert(call.edit_key) {
            let joined = !started.iter().any(|(edit_key, _)| *edit_key == call.edit_key);
            tracing::info!(edit_key = %call.edit_key, lane = call.lane, joined, "waiting for an edit");
        }
    }
}

/// The same task again: counted once, answered again.
async fn same_again(app: &Arc<App>, message: &Message, known: &TaskRecord) -> Result<Outcome, Stop> {
    tracing::info!(status = known.status.as_str(), "the same task again");
    answer_again(app, message, known).await
}

/// Tells how a task stands, if it has ended, to whoever asks now.
async fn answer_again(app: &Arc<App>, message: &Message, known: &TaskRecord) -> Result<Outcome, Stop> {
    let mut known = known.clone();
    // A producer may use one reply queue for all it asks, and tell answers apart by their correlation id.
    let asker = (&message.reply_to, &message.correlation_id);
    if message.reply_to.is_some() && asker != (&known.reply_to, &known.correlation_id) {
        let redirect = app.store.redirect_reply(
            &known.task_id,
            message.reply_to.as_deref(),
            message.correlation_id.as_deref(),
        );
        // Read back: the task may have ended, and told its first asker, before the redirect.
        match redirect.await.map_err(|error| hold(message, &error))? {
            Some(redirected) => known = redirected,
            None => return Err(hold(message, &StoreError::Unavailable("the task's row is gone".to_owned()))),
        }
    }
    events::publish(app, &known).await;
    Ok(Outcome::Done)
}

fn conflict(task: &Task) -> Outcome {
    Outcome::Dead {
        reason: "task_conflict",
        message: format!("task_id: {} is already another task; choose a new id", task.task_id),
    }
}

/// A store failure is never a miss: the work is held.
fn hold(message: &Message, error: &dyn std::fmt::Display) -> Stop {
    Outcome::hold(attempt(message), error)
}

async fn new_task(app: &App, message: &Message, task: &Task, plan: Plan) -> Result<NewTask, Stop> {
    let any_failed = plan.images.iter().any(|image| matches!(image, Planned::Failed { .. }));
    let payload = if any_failed {
        dead_payload(&app.blobs, &message.payload).await.map_err(|error| hold(message, &error))?
    } else {
        DeadPayload::Inline(Bytes::new())
    };
    let (model, currency) = match plan.route {
        Some(route) => (route.model, route.price.currency),
        None => (task.model.clone().unwrap_or_default(), crate::models::NO_CURRENCY.to_owned()),
    };
    Ok(NewTask {
        task_id: task.task_id.clone(),
        request_hash: task.request_hash,
        edit_type: task.edit_type.clone(),
        prompt: task.prompt.clone(),
        model,
        params: plan.params,
        inputs: task.images.iter().map(described).collect(),
        images: plan.images,
        metadata: task.metadata.clone(),
        reply_to: message.reply_to.clone(),
        correlation_id: message.correlation_id.clone(),
        currency,
        payload,
        trace: trace::current(),
        again: again::retry(message),
        told: false,
        began: plan.began,
    })
}

/// A message as a dead letter keeps it.
///
/// # Errors
/// The blob store cannot be asked.
pub(crate) async fn dead_payload(blobs: &Blobs, payload: &Bytes) -> Result<DeadPayload, BlobError> {
    if payload.len() <= INLINE_PAYLOAD {
        return Ok(DeadPayload::Inline(payload.clone()));
    }
    Ok(DeadPayload::Blob(blobs.put(payload.clone(), "application/octet-stream").await?.hash))
}

/// Where a picture came from, without its bytes.
fn described(source: &Source) -> String {
    match source {
        Source::Url { url, image_hash: _ } => url.clone(),
        Source::Data(uri) => {
            let head: String = uri.chars().take_while(|char| *char != ',').take(80).collect();
            format!("{head},… ({} bytes)", uri.len())
        }
        Source::Blob(hash) => format!("sha256:{hash}"),
    }
}

/// The queue that this stage consumes.
pub(crate) const QUEUE: Queue = Queue::Tasks;

/// Where producers' messages go, for our own commands.
pub(crate) fn destination() -> Destination {
    Destination::Queue(QUEUE)
}
