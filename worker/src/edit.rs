//! Edit: one edit message carries one call on from wherever it is: claim, send, poll, keep the result, finish.
//!
//! What must stay true: `submitting` is committed before anything is sent; the provider's id is committed before the
//! first poll; a result is in our own blobs before anything else may fail; nothing is sent with a lost lease.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt, TryFutureExt};
use retouch_shared::event::ImageError;
use retouch_shared::wire::EditMessage;
use tracing::Instrument;

use crate::app::App;
use crate::blobs::{BlobError, reference};
use crate::broker::Message;
use crate::config::OnAmbiguous;
use crate::delay::{Backoff, Pace};
use crate::editor::{EditError, EditRequest, EditSpec, Editor, Output, Picture, Polled, Submitted};
use crate::events;
use crate::lease::LeaseKeeper;
use crate::media;
use crate::outcome::{Outcome, attempt, rung};
use crate::sources::fetch::Purpose;
use crate::store::{CallState, Claim, ClaimedCall, Finished, StoreError, StoredResult};

/// Tries that fail without having been sent, before the call fails for good; the waits between them climb the ladder.
const MAX_ATTEMPTS: u32 = 8;
/// A delivery is never held near the broker's half hour: a longer call goes on under another delivery.
const HOLD: Duration = Duration::from_secs(10 * 60);
/// The shortest and the longest that a provider can make a lane wait; "after 0 s" would be asked without a pause.
const RETRY_AFTER: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(10 * 60)];
/// The longest error text that is kept.
const MAX_TEXT_BYTES: usize = 4096;
/// For polls and for keeping a result.
const RETRY: Pace = Pace { first: Duration::from_millis(500), most: Duration::from_secs(15) };

/// What `?` carries out of the steps below.
type Stop = Outcome;

/// Works on one edit message.
pub(crate) async fn handle(app: &Arc<App>, message: &Message) -> Outcome {
    if app.shutdown.is_cancelled() {
        return Outcome::HandBack;
    }
    let edit_key = match serde_json::from_slice::<EditMessage>(&message.payload) {
        Ok(message) => message.edit_key,
        Err(error) => {
            return Outcome::Dead { reason: "bad_message", message: format!("not an edit message: {error}") };
        }
    };
    tracing::Span::current().record("edit_key", tracing::field::display(edit_key));
    let lease_for = app.settings.rhythm.lease;
    match app.store.claim_call(edit_key, &app.owner, lease_for).await {
        Err(error) => Outcome::hold(attempt(message), error),
        Ok(Claim::Done) => Outcome::Done,
        // Its holder will finish it; should it die, the sweep wakes the call when the lease has run out.
        Ok(Claim::Held { remaining }) => {
            tracing::debug!(?remaining, "somebody else is at it");
            Outcome::Done
        }
        // Waiting for the lane is nobody's failure.
        Ok(Claim::LaneFull) => {
            Outcome::Delay { after: Duration::from_secs(1), error: "the lane is full".to_owned() }
        }
        Ok(Claim::Won(call)) => work(app, *call).await,
    }
}

async fn work(app: &Arc<App>, call: ClaimedCall) -> Outcome {
    let Some(editor) = app.editors.get(call.spec.provider.as_str()) else {
        let text = format!("the editor {} is not configured on this worker", call.spec.provider);
        let keep = app.store.requeue_call(call.lease, false, &text, Duration::from_secs(30)).await;
        if let Err(error) = keep {
            tracing::warn!(%error, "the lease runs out instead");
        }
        return Outcome::Delay { after: Duration::from_secs(30), error: text };
    };
    let keeper = LeaseKeeper::start(&app.store, call.lease, app.settings.rhythm.lease);
    let lost = keeper.lost();
    let at_work = Work { app, editor, keeper: &keeper, call, began: Instant::now() };
    let span = tracing::Span::current();
    tokio::select! {
        // Somebody else owns the call now; every step of ours would change nothing.
        () = lost.cancelled() => self::lost(),
        outcome = at_work.carry_on().instrument(span) => outcome,
    }
}

/// One claimed call at work.
struct Work<'a> {
    app: &'a Arc<App>,
    editor: &'a Arc<dyn Editor>,
    keeper: &'a LeaseKeeper,
    call: ClaimedCall,
    began: Instant,
}

impl Work<'_> {
    async fn carry_on(&self) -> Outcome {
        let went = match self.call.state {
            CallState::Claimed => self.submit().await,
            CallState::Submitted => self.poll_on().await,
            CallState::Stored => self.finish().await,
            CallState::Ambiguous => self.resolve("the worker died while it was sending").await,
            // `claim_call` never hands these out.
            CallState::Queued | CallState::Submitting | CallState::Done | CallState::Failed => {
                Ok(Outcome::Done)
            }
        };
        went.unwrap_or_else(|stop| stop)
    }

    /// claimed → submitting → submitted or stored.
    async fn submit(&self) -> Result<Outcome, Stop> {
        let request = self.request().await?;
        if !self.step(self.app.store.begin_submit(self.call.lease)).await? {
            return Ok(lost());
        }
        let sent = Instant::now();
        tracing::info!(attempt = self.call.attempts, lane = self.call.spec.lane, "calling");
        match self.editor.submit(request).await {
            Ok(Submitted::Done(output)) => {
                tracing::info!(took = ?sent.elapsed(), "answered");
                self.keep(output).await
            }
            Ok(Submitted::Accepted { provider_task_id }) => {
                tracing::info!(provider_task_id, "accepted");
                self.record_submitted(&provider_task_id).await?;
                self.poll(&provider_task_id).await
            }
            Err(error) => self.not_accepted(error).await,
        }
    }

    /// Commits the provider's id, for as long as it takes: it is all that stands between us and paying again.
    async fn record_submitted(&self, provider_task_id: &str) -> Result<(), Stop> {
        let (store, lease) = (&self.app.store, self.call.lease);
        let recorded = self.insist(|| {
            store.record_submitted(lease, provider_task_id).map_err(|error| error.to_string()).boxed()
        });
        if recorded.await? { Ok(()) } else { Err(lost()) }
    }

    /// The input and the mask, from our own blobs.
    async fn request(&self) -> Result<EditRequest, Stop> {
        let spec = &self.call.spec;
        let image = self.picture(spec.image_hash).await?;
        let mask = match spec.mask_hash {
            Some(hash) => Some(self.picture(hash).await?),
            None => None,
        };
        let spec = EditSpec {
            edit_type: spec.edit_type.clone(),
            prompt: spec.prompt.clone(),
            model: spec.model.clone(),
            params: spec.params.clone(),
            mask: mask.as_ref().map(Picture::measure),
        };
        Ok(EditRequest { spec, image, mask })
    }

    async fn picture(&self, hash: retouch_shared::key::Digest32) -> Result<Picture, Stop> {
        let bytes = match self.app.blobs.get(hash).await {
            Ok(bytes) => bytes,
            Err(BlobError::Unavailable(error)) => {
                return Err(self.again(false, &error, Duration::from_secs(5)).await);
            }
            Err(error @ (BlobError::Missing(_) | BlobError::Corrupt(_))) => {
                let message =
                    format!("the input {hash} is gone from the blob store ({error}); send the task again");
                return Err(self.fail("input_missing", &message).await);
            }
        };
        match media::inspect(&bytes) {
            Ok(media) => Ok(Picture { bytes, media }),
            Err(error) => Err(self.fail(error.code(), &error.to_string()).await),
        }
    }

    /// A submit that was not accepted, by class.
    async fn not_accepted(&self, error: EditError) -> Result<Outcome, Stop> {
        let text = error.to_string();
        match error {
            EditError::NotSent(_) | EditError::Unavailable(_) if self.call.attempts + 1 >= MAX_ATTEMPTS => {
                Ok(self.fail("unavailable", &format!("given up after {MAX_ATTEMPTS} attempts: {text}")).await)
            }
            EditError::NotSent(_) | EditError::Unavailable(_) => {
                Ok(self.again(true, &text, rung(self.call.attempts)).await)
            }
            EditError::RateLimited { retry_after, .. } => {
                let after = wished(retry_after.unwrap_or(Duration::from_secs(5)));
                Ok(self.again(false, &text, after).await)
            }
            EditError::Ambiguous(_) => self.resolve(&text).await,
            EditError::Unbilled { tries, .. } if self.call.attempts + 1 < tries => {
                Ok(self.again(true, &text, rung(self.call.attempts)).await)
            }
            EditError::Unbilled { code, message, .. } | EditError::Rejected { code, message } => {
                Ok(self.fail(&code, &message).await)
            }
            EditError::Blocked { .. } => {
                tracing::error!(lane = self.call.spec.lane, error = text, "the lane is blocked");
                Ok(self.again(false, &text, Duration::from_secs(120)).await)
            }
        }
    }

    /// Sent, and nobody knows whether it was accepted: never blindly again.
    async fn resolve(&self, why: &str) -> Result<Outcome, Stop> {
        let why = clipped(why);
        let (store, lease) = (&self.app.store, self.call.lease);
        let free = self.call.spec.price.micros == 0;
        let policy = self.app.settings.on_ambiguous;
        tracing::warn!(why, free, ?policy, "ambiguous");
        match policy {
            OnAmbiguous::Hold if !free => {
                self.step(store.count_ambiguous(lease, false, why)).await?;
                let message = format!(
                    "it may have been paid: {why}; look at the provider's account, then retry or discard it"
                );
                Ok(self.fail("ambiguous", &message).await)
            }
            OnAmbiguous::Hold | OnAmbiguous::Retry => {
                if self.call.attempts + 1 >= MAX_ATTEMPTS {
                    return Ok(self
                        .fail("ambiguous", &format!("given up after {MAX_ATTEMPTS} attempts: {why}"))
                        .await);
                }
                // What costs nothing cannot be paid twice.
                if !self.step(store.count_ambiguous(lease, !free, why)).await? {
                    return Ok(lost());
                }
                Ok(self.again(true, why, Duration::from_secs(1)).await)
            }
        }
    }

    async fn poll_on(&self) -> Result<Outcome, Stop> {
        match &self.call.provider_task_id {
            Some(id) => self.poll(id).await,
            None => Ok(self
                .fail("no_provider_task_id", "the call was submitted, and its id is not in the store")
                .await),
        }
    }

    /// Asks until there is an answer. Nothing here is paid for, so nothing here ends but by the provider's word.
    async fn poll(&self, id: &str) -> Result<Outcome, Stop> {
        let mut backoff = Backoff::new(RETRY);
        loop {
            let pause = match self.editor.poll(id, self.call.since_submit + self.began.elapsed()).await {
                Ok(Polled::Done(output)) => return self.keep(output).await,
                Ok(Polled::Pending { after }) => {
                    backoff.reset();
                    after
                }
                Err(EditError::Rejected { code, message }) => return Ok(self.fail(&code, &message).await),
                Err(EditError::RateLimited { retry_after: Some(after), .. }) => wished(after),
                Err(
                    error @ (EditError::RateLimited { retry_after: None, .. }
                    | EditError::Unbilled { .. }
                    | EditError::NotSent(_)
                    | EditError::Unavailable(_)
                    | EditError::Ambiguous(_)
                    | EditError::Blocked { .. }),
                ) => {
                    tracing::info!(%error, "a poll failed; asking again");
                    backoff.next_delay()
                }
            };
            if self.began.elapsed() + pause > HOLD {
                return Ok(self.hand_over(Duration::from_secs(1)).await);
            }
            tokio::select! {
                () = self.app.shutdown.cancelled() => return Ok(self.hand_over(Duration::ZERO).await),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// The result into our own blobs, then stored, then finished.
    async fn keep(&self, output: Output) -> Result<Outcome, Stop> {
        let bytes = match output {
            Output::Bytes(bytes) => bytes,
            Output::Url { url, .. } => self.fetch(&url).await?,
        };
        let media = match media::inspect(&bytes) {
            Ok(media) => media,
            Err(error) => {
                return Ok(self
                    .fail("bad_result", &format!("the provider's result is unusable: {error}"))
                    .await);
            }
        };
        let content_type = media.format.content_type();
        let (blobs, store, lease) = (&self.app.blobs, &self.app.store, self.call.lease);
        let kept =
            self.insist(|| blobs.put(bytes.clone(), content_type).map_err(|error| error.to_string()).boxed());
        let kept = kept.await?;
        let result = StoredResult {
            hash: kept.hash,
            content_type: content_type.to_owned(),
            width: media.width,
            height: media.height,
            bytes: kept.bytes,
        };
        let stored =
            self.insist(|| store.record_stored(lease, &result).map_err(|error| error.to_string()).boxed());
        if !stored.await? {
            return Ok(lost());
        }
        self.finish_as(&result).await
    }

    async fn fetch(&self, url: &str) -> Result<Bytes, Stop> {
        let hosts = self.editor.result_hosts();
        let purpose = Purpose::ProviderResult { hosts: &hosts };
        let fetcher = &self.app.fetcher;
        let fetched = self.insist(|| {
            let fetched = fetcher.fetch(url, purpose).map(|fetched| match fetched {
                Err(error) if error.is_temporary() => Err(error.to_string()),
                final_word => Ok(final_word),
            });
            fetched.boxed()
        });
        match fetched.await? {
            Ok(bytes) => Ok(bytes),
            Err(error) => Err(self
                .fail("result_lost", &format!("the provider's result cannot be fetched: {error}"))
                .await),
        }
    }

    async fn finish(&self) -> Result<Outcome, Stop> {
        match &self.call.result {
            Some(result) => self.finish_as(result).await,
            None => {
                Ok(self.fail("no_result", "the call is stored, and its result is not in the store").await)
            }
        }
    }

    /// stored → done, and every task that ends by it is told.
    async fn finish_as(&self, result: &StoredResult) -> Result<Outcome, Stop> {
        self.keeper.stop();
        let url = reference(result.hash);
        let (store, lease) = (&self.app.store, self.call.lease);
        let finished =
            self.insist(|| store.finish_edit(lease, &url).map_err(|error| error.to_string()).boxed());
        self.told(finished.await?).await
    }

    async fn told(&self, finished: Finished) -> Result<Outcome, Stop> {
        match finished {
            Finished::LostLease => Ok(lost()),
            Finished::Ended(tasks) => {
                tracing::info!(tasks = tasks.len(), took = ?self.began.elapsed(), "finished");
                for task in &tasks {
                    events::publish(self.app, task).await;
                }
                Ok(Outcome::Done)
            }
        }
    }

    /// The edit ends here, for every image that waits on it.
    async fn fail(&self, code: &str, message: &str) -> Outcome {
        let message = clipped(message);
        tracing::warn!(code, error = message, "the edit failed");
        self.keeper.stop();
        let error = ImageError { code: code.to_owned(), message: message.to_owned() };
        let (store, lease) = (&self.app.store, self.call.lease);
        let failed =
            self.insist(|| store.fail_edit(lease, &error).map_err(|error| error.to_string()).boxed());
        match failed.await {
            Ok(finished) => self.told(finished).await.unwrap_or_else(|stop| stop),
            Err(stop) => stop,
        }
    }

    /// Back to the queue, to be tried after `after`. `burns` says whether this try counts.
    async fn again(&self, burns: bool, why: &str, after: Duration) -> Outcome {
        let why = clipped(why);
        self.keeper.stop();
        // Left as `submitting`, a call that was certainly not accepted would be taken for an ambiguous one.
        let (store, lease) = (&self.app.store, self.call.lease);
        let requeued = self.insist(|| {
            store.requeue_call(lease, burns, why, after).map_err(|error| error.to_string()).boxed()
        });
        match requeued.await {
            Ok(true) => Outcome::Delay { after, error: why.to_owned() },
            Ok(false) => lost(),
            Err(stop) => stop,
        }
    }

    /// Whoever comes next polls on, or finishes.
    async fn hand_over(&self, after: Duration) -> Outcome {
        self.keeper.stop();
        if let Err(error) = self.app.store.hand_over_call(self.call.lease, None, after).await {
            tracing::warn!(%error, "cannot hand the call over; its lease will run out");
        }
        if after.is_zero() {
            return Outcome::HandBack;
        }
        Outcome::Delay { after, error: "still under way at the provider".to_owned() }
    }

    /// A step of the store that may be repeated by whoever comes next: not now means later.
    async fn step(&self, step: impl Future<Output = Result<bool, StoreError>>) -> Result<bool, Stop> {
        step.await.map_err(|error| Outcome::hold(self.call.attempts, error))
    }

    /// For what the provider has said, paid for or not: tries until it is kept, as long as this delivery may be held.
    async fn insist<'a, T>(
        &self,
        try_once: impl Fn() -> BoxFuture<'a, Result<T, String>> + Send,
    ) -> Result<T, Stop> {
        let mut backoff = Backoff::new(RETRY);
        loop {
            let error = match try_once().await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            tracing::warn!(error, "trying again; what the provider said is at stake");
            let pause = backoff.next_delay();
            if self.began.elapsed() + pause > HOLD {
                return Err(Outcome::Delay { after: Duration::from_secs(30), error });
            }
            tokio::time::sleep(pause).await;
        }
    }
}

/// The provider's wish, within reason.
fn wished(retry_after: Duration) -> Duration {
    let [least, most] = RETRY_AFTER;
    retry_after.clamp(least, most)
}

/// As much of what a provider says as is worth keeping: a column would refuse a page of HTML, and with it the end of the
/// edit.
fn clipped(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_TEXT_BYTES)]
}

/// Somebody else owns the call now.
fn lost() -> Outcome {
    tracing::warn!("the lease was lost; leaving the call to its new owner");
    Outcome::Done
}
