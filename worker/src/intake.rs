//! Intake: one task message becomes one task in the store; a cancel ends one. It never calls an editor, so it is fast whatever the
//! provider does.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures::future::{self, FutureExt};
use futures::stream::{self, StreamExt, TryStreamExt};
use retouch_shared::cancel::{Cancel, Request};
use retouch_shared::event::{ImageError, ImageStatus};
use retouch_shared::key::{Digest32, EditIdentity, EditKey};
use retouch_shared::task::{Params, Source, Task};

use crate::app::App;
use crate::blobs::{BlobError, Blobs};
use crate::broker::{Delivery, Destination, Message, Queue};
use crate::editor::{EditError, EditSpec, Editor};
use crate::failpoint::around;
use crate::metrics::count::blob_error;
use crate::outcome::{Outcome, attempt};
use crate::routes::Route;
use crate::sources::{LoadError, Loaded};
use crate::store::{
    CachedResult, CallSpec, Cancelled, DeadPayload, NewTask, Planned, Registered, StoreError, TaskRecord,
};
use crate::suspects::{self, Refused};
use crate::{events, trace, wake};

mod again;

/// Pictures of one task that are loaded at a time.
const LOADS: usize = 8;
/// A source that cannot be reached now is asked again this often, a rung further each time, before its image fails.
const SOURCE_ATTEMPTS: u32 = 3;
/// A message larger than this goes into the blob store when it becomes a dead letter: databases limit a row.
pub(crate) const INLINE_PAYLOAD: usize = 256 * 1024;

/// Why a task cannot go on: what `?` carries out of the steps below.
type Stop = Outcome;

/// An image that could be read, or why not.
type Picture = Result<Loaded, ImageError>;

/// Works on one task message.
pub(crate) async fn handle(app: &Arc<App>, delivery: &Delivery) -> Outcome {
    let message = &delivery.message;
    if app.shutdown.is_cancelled() {
        return Outcome::HandBack;
    }
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
        Cancelled::Now(task) => {
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
    let planned = plan(app, message, task).await?;
    let new = new_task(app, message, task, planned).await?;
    match app.store.register(&new).await.map_err(held)? {
        Registered::New { task, wake } => {
            tracing::info!(
                status = task.status.as_str(),
                hit = task.hit,
                failed = task.failed,
                calls = wake.len(),
                "task taken in"
            );
            tell_waits(&new, &task, &wake);
            // The store has it all: a message that is lost from here on is found by the sweep.
            wake::calls(app, wake).await;
            events::publish(app, &task).await;
            Ok(Outcome::Done)
        }
        Registered::Same(known) => same_again(app, message, &known).await,
        Registered::Conflict => Ok(conflict(task)),
    }
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

/// A task with its route, editor and pictures.
struct Ready<'a> {
    task: &'a Task,
    route: Route,
    editor: &'a Arc<dyn Editor>,
    /// The task's with the route's: what the provider is told, and the edit key holds.
    prompt: String,
    params: Params,
    mask: Option<Loaded>,
}

/// What is to be done with every image of a task, and the route it takes.
struct Plan {
    route: Option<Route>,
    params: Params,
    images: Vec<Planned>,
    /// Before any picture was kept.
    began: Instant,
}

async fn plan(app: &App, message: &Message, task: &Task) -> Result<Plan, Stop> {
    let began = Instant::now();
    let route = match app.settings.offer.resolve(&task.edit_type, task.model.as_deref()) {
        Ok(route) => route,
        Err(error) => return Ok(all_failed(task, None, task.params.clone(), &error)),
    };
    let params = task.params.clone().with_defaults(&route.params);
    let prompt = match route.effective_prompt(&task.prompt) {
        Ok(prompt) => prompt,
        Err(error) => return Ok(all_failed(task, Some(route), params, &error)),
    };
    let Some(editor) = app.editors.get(route.editor.name) else {
        let message = format!("there is no editor {} on this worker", route.editor.name);
        let error = ImageError { code: "no_editor".to_owned(), message };
        return Ok(all_failed(task, Some(route), params, &error));
    };
    let mask = match &task.mask {
        None => None,
        Some(mask) => match load(app, message, mask).await? {
            Ok(mask) => Some(mask),
            Err(error) => {
                let error = ImageError { code: error.code, message: format!("mask: {}", error.message) };
                return Ok(all_failed(task, Some(route), params, &error));
            }
        },
    };
    let loads: Vec<_> = task.images.iter().map(|source| load(app, message, source).boxed()).collect();
    let pictures: Vec<Picture> = stream::iter(loads).buffered(LOADS).try_collect().await?;
    let ready = Ready { task, route, editor, prompt, params, mask };
    let images = ready.look_up(app, message, pictures).await?;
    Ok(Plan { route: Some(ready.route), params: ready.params, images, began })
}

fn all_failed(task: &Task, route: Option<Route>, params: Params, error: &ImageError) -> Plan {
    let failed = Planned::Failed { image_hash: None, error: error.clone() };
    Plan { route, params, images: vec![failed; task.images.len()], began: Instant::now() }
}

/// Loads one picture. A bad one is an answer; a store or a source that cannot be asked now stops the task for a while.
async fn load(app: &App, message: &Message, source: &Source) -> Result<Picture, Stop> {
    match app.sources.load(source).await {
        Ok(loaded) => Ok(Ok(loaded)),
        Err(LoadError::BadInput { code, message }) => Ok(Err(ImageError { code: code.to_owned(), message })),
        Err(LoadError::Temporary { code, message: text }) => {
            if attempt(message) < SOURCE_ATTEMPTS {
                return Err(hold(message, &text));
            }
            Ok(Err(ImageError { code: code.to_owned(), message: text }))
        }
        Err(LoadError::StoreUnavailable(error)) => Err(hold(message, &error)),
    }
}

impl Ready<'_> {
    /// Looks all pictures up in one query, and keeps the input bytes of what has to be made.
    async fn look_up(
        &self,
        app: &App,
        message: &Message,
        pictures: Vec<Picture>,
    ) -> Result<Vec<Planned>, Stop> {
        let checked: Vec<Result<(Loaded, CallSpec), Box<Planned>>> =
            pictures.into_iter().map(|picture| self.check(picture)).collect();
        let keys: Vec<EditKey> = checked.iter().flatten().map(|(_, call)| call.edit_key).collect();
        let found = app.store.lookup(&keys).await.map_err(|error| hold(message, &error))?;
        let gone = gone_blobs(&app.blobs, found.values()).await.map_err(|error| hold(message, &error))?;
        let mut inputs: BTreeMap<_, Loaded> = BTreeMap::new();
        let mut images = Vec::with_capacity(checked.len());
        for image in checked {
            images.push(match image {
                Err(planned) => *planned,
                Ok((loaded, call)) => match found.get(&call.edit_key) {
                    Some(result) if !gone.contains_key(&call.edit_key) => {
                        Planned::Hit { image_hash: loaded.hash, result: result.clone() }
                    }
                    _ => {
                        inputs.insert(loaded.hash, loaded);
                        let refused = gone.get(&call.edit_key).copied();
                        Planned::Miss { call: Box::new(call), refused }
                    }
                },
            });
        }
        if !inputs.is_empty() {
            inputs.extend(self.mask.iter().map(|mask| (mask.hash, mask.clone())));
        }
        let kept = around("keep_inputs", keep_inputs(&app.blobs, inputs.into_values())).await;
        kept.map_err(|error| hold(message, &error))?;
        Ok(images)
    }

    /// What the editor is known to refuse is refused now, before anything is kept or paid.
    fn check(&self, picture: Picture) -> Result<(Loaded, CallSpec), Box<Planned>> {
        let loaded = picture.map_err(|error| Box::new(Planned::Failed { image_hash: None, error }))?;
        let spec = EditSpec {
            edit_type: self.task.edit_type.clone(),
            prompt: self.prompt.clone(),
            model: self.route.model.clone(),
            params: self.params.clone(),
            mask: self.mask.as_ref().map(Loaded::measure),
        };
        if let Err(error) = self.editor.check(&spec, loaded.measure()) {
            let error = match error {
                EditError::Rejected { code, message } => ImageError { code, message },
                other => ImageError { code: "rejected".to_owned(), message: other.to_string() },
            };
            return Err(Box::new(Planned::Failed { image_hash: Some(loaded.hash), error }));
        }
        let call = self.call(&loaded);
        Ok((loaded, call))
    }

    fn call(&self, loaded: &Loaded) -> CallSpec {
        let Self { task, route, prompt, params, mask, editor } = self;
        let mask_hash = mask.as_ref().map(|mask| mask.hash);
        let identity = EditIdentity {
            image_hash: loaded.hash,
            edit_type: &task.edit_type,
            prompt,
            provider: editor.kind(),
            model: &route.model,
            params,
            mask_hash,
            variant: task.variant.as_deref(),
        };
        CallSpec {
            edit_key: identity.key(),
            image_hash: loaded.hash,
            edit_type: task.edit_type.clone(),
            prompt: prompt.clone(),
            provider: editor.kind().to_owned(),
            model: route.model.clone(),
            params: params.clone(),
            mask_hash,
            variant: task.variant.clone(),
            lane: route.lane.clone(),
            price: route.price.clone(),
        }
    }
}

/// A hit's bytes exist. Those of these results that do not are misses, and the log says why.
pub(crate) async fn gone_blobs<'a>(
    blobs: &Blobs,
    results: impl Iterator<Item = &'a CachedResult>,
) -> Result<HashMap<EditKey, Digest32>, BlobError> {
    let check = |result: &'a CachedResult| {
        let hash = result.result_hash?;
        let exists =
            async move { Ok((result.edit_key, hash, blobs.exists(hash, Some(result.bytes)).await?)) };
        Some(exists.boxed())
    };
    let checks: Vec<_> = results.filter_map(check).collect();
    let checks: Vec<_> = stream::iter(checks).buffer_unordered(LOADS).try_collect().await?;
    let mut gone = HashMap::new();
    for (edit_key, hash, exists) in checks {
        if !exists {
            blob_error("missing");
            tracing::warn!(%edit_key, blob = %hash, "a cached result has lost its blob: a miss");
            gone.insert(edit_key, hash);
        }
    }
    Ok(gone)
}

async fn keep_inputs(blobs: &Blobs, inputs: impl Iterator<Item = Loaded>) -> Result<(), BlobError> {
    let put = |input: Loaded| blobs.put(input.bytes, input.media.format.content_type()).boxed();
    let puts: Vec<_> = inputs.map(put).collect();
    stream::iter(puts).buffer_unordered(LOADS).try_for_each(|_| future::ready(Ok(()))).await
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
        Source::Url(url) => url.clone(),
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
