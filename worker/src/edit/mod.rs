//! Edit: one edit message carries one call on from wherever it is: claim, send, poll, keep the result, finish.
//!
//! What must stay true: `submitting` is committed before anything is sent; the provider's id is committed before the
//! first poll; a result is in our own blobs before anything else may fail; nothing is sent with a lost lease.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, FutureExt, TryFutureExt};
use retouch_shared::event::ImageError;
use retouch_shared::key::EditKey;
use retouch_shared::wire::EditMessage;
use tracing::Instrument;

use crate::activity::CallAt;
use crate::app::App;
use crate::broker::Message;
use crate::delay::{Backoff, Pace};
use crate::editor::Editor;
use crate::events;
use crate::lanes::Gate;
use crate::lease::LeaseKeeper;
use crate::metrics::count::{self, Phase};
use crate::outcome::{Outcome, attempt};
use crate::store::{CallState, Claim, ClaimedCall, Finished, KeptAnswer, StoreError, suspect_of_edit};
use crate::suspects::{self, Refused};
use crate::trace::phase_span;
use beside::Exit;
pub(crate) use beside::go_on_later;
pub(crate) use held::Sends;
pub(crate) use inputs::upright;
pub(crate) use kept::read_answer;

pub(crate) mod beside;
mod fetch;
mod held;
mod inputs;
mod keep;
mod kept;
mod poll;
mod resolve;
mod submit;

/// A delivery is never held near the broker's half hour: a longer call goes on under another delivery.
const HOLD: Duration = Duration::from_secs(10 * 60);
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
        Ok(Claim::Done) => {
            suspects::over(app, edit_key).await;
            Outcome::Done
        }
        // Its holder will finish it; should it die, the sweep wakes the call when the lease has run out.
        Ok(Claim::Held { remaining }) => {
            tracing::debug!(?remaining, "somebody else is at it");
            Outcome::Done
        }
        Ok(Claim::Won(call)) => {
            app.bill.found(&call);
            beside::carry(app, *call).await
        }
    }
}

/// Carries on a call that is submitted, and begins no other: should the provider have lost it, it is queued
/// again, and left there.
pub(crate) async fn carry_on_submitted(app: &Arc<App>, edit_key: EditKey) -> Outcome {
    if app.shutdown.is_cancelled() {
        return Outcome::HandBack;
    }
    tracing::Span::current().record("edit_key", tracing::field::display(edit_key));
    match app.store.claim_submitted(edit_key, &app.owner, app.settings.rhythm.lease).await {
        Err(error) => Outcome::hold(0, error),
        Ok(None) => Outcome::Done,
        Ok(Some(call)) => beside::carry(app, *call).await,
    }
}

async fn work(app: Arc<App>, call: ClaimedCall, exit: Exit) -> Outcome {
    let app = &app;
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
    let gate = app.gates.of(&call.spec.lane);
    let taken_over = matches!(call.state, CallState::Submitted | CallState::Ambiguous);
    let lost_before = call.lost_as.is_some();
    let at_work = Work {
        app,
        editor,
        keeper: &keeper,
        gate: &gate,
        doing: app.activity.call(),
        call,
        began: Instant::now(),
        noted: AtomicBool::new(false),
        exit,
        unfetched: AtomicBool::new(false),
        unheard: AtomicU32::new(0),
        stuck: AtomicBool::new(taken_over),
        lost_before: AtomicBool::new(lost_before),
    };
    let span = tracing::Span::current();
    let outcome = tokio::select! {
        // Somebody else owns the call now; every step of ours would change nothing.
        () = lost.cancelled() => self::lost(),
        outcome = at_work.carry_on_if_it_does_not_kill().instrument(span) => outcome,
    };
    gate.freed();
    outcome
}

/// One claimed call at work.
struct Work<'a> {
    app: &'a Arc<App>,
    editor: &'a Arc<dyn Editor>,
    keeper: &'a LeaseKeeper,
    gate: &'a Gate,
    doing: CallAt<'a>,
    call: ClaimedCall,
    began: Instant,
    /// Whether it was counted as ambiguous.
    noted: AtomicBool,
    /// How it leaves its delivery behind.
    exit: Exit,
    /// Whether it is noted that its result is not at hand.
    unfetched: AtomicBool,
    /// Questions about it in a row that the provider could not answer.
    unheard: AtomicU32,
    /// Whether its row may say so: an earlier owner may have written it.
    stuck: AtomicBool,
    /// Whether what it is asked for was paid for before, and counted as lost: where the provider has it no
    /// more, that is no reason to pay again by itself.
    lost_before: AtomicBool,
}

/// How long ago a call was submitted, by the database's clock and then by ours.
#[derive(Debug, Clone, Copy)]
struct Age {
    at: Duration,
    since: Instant,
}

impl Age {
    fn new(at: Duration) -> Self {
        Self { at, since: Instant::now() }
    }

    fn now(self) -> Duration {
        self.at + self.since.elapsed()
    }
}

impl Work<'_> {
    /// A call whose owner died is begun with care, and so is every later try of it: what kills its process while it sends
    /// comes back as a call that waits to be sent again.
    async fn carry_on_if_it_does_not_kill(&self) -> Outcome {
        let known = self.call.starts;
        if known.is_none() && !self.call.deserted {
            return self.carry_on().await;
        }
        let suspect = suspect_of_edit(self.call.lease.edit_key);
        match suspects::work_on(self.app, suspect, known, self.carry_on()).await {
            Ok(outcome) => outcome,
            Err(Refused::Poison(message)) => self.fail(suspects::POISON, &message, true).await,
            Err(Refused::Stopping) => self.give_up("the worker is stopping".to_owned()).await,
            Err(Refused::Store(error)) => self.give_up(error.to_string()).await,
        }
    }

    /// Not begun: left as it was found, for whoever comes next.
    async fn give_up(&self, why: String) -> Outcome {
        if self.call.state == CallState::Claimed {
            return self.again(false, &why, Duration::from_secs(1)).await;
        }
        self.hand_over(Some(&why), Duration::from_secs(1)).await
    }

    async fn carry_on(&self) -> Outcome {
        let went = match self.call.state {
            // Boxed, here and at each stage that follows another: nested, their futures would not fit on a
            // thread's stack.
            CallState::Claimed => Box::pin(self.submit()).await,
            CallState::Submitted => Box::pin(self.poll_on()).await,
            CallState::Stored => Box::pin(self.finish()).await,
            CallState::Ambiguous => Box::pin(self.resolve_left()).await,
            // `claim_call` never hands these out.
            CallState::Queued | CallState::Submitting | CallState::Done | CallState::Failed => {
                Ok(Outcome::Done)
            }
        };
        went.unwrap_or_else(|stop| stop)
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

    /// The edit ends here, for every image that waits on it. `charged` says whether it may have been paid for.
    async fn fail(&self, code: &str, message: &str, charged: bool) -> Outcome {
        self.fail_with(code, message, charged, None).await
    }

    /// As [`Work::fail`], of what was paid for and cannot be used; `kept` is the blob that has it.
    async fn fail_kept(&self, code: &str, message: &str, kept: Option<KeptAnswer>) -> Outcome {
        self.fail_with(code, message, true, kept).await
    }

    async fn fail_with(&self, code: &str, message: &str, charged: bool, kept: Option<KeptAnswer>) -> Outcome {
        let message = clipped(message);
        tracing::warn!(code, error = message, "the edit failed");
        self.keeper.stop();
        let error = ImageError { code: code.to_owned(), message: message.to_owned() };
        let (store, lease, began) = (&self.app.store, self.call.lease, Instant::now());
        let failed = self.insist(|| match &kept {
            Some(kept) => {
                let failed = store.fail_edit_kept(lease, &error, kept, began);
                failed.map_err(|error| error.to_string()).boxed()
            }
            None => store.fail_edit(lease, &error, charged).map_err(|error| error.to_string()).boxed(),
        });
        match failed.await {
            Ok(finished) => {
                if let Finished::Ended(_) = finished {
                    self.app.bill.failed(lease.edit_key, code, charged);
                }
                self.told(finished).await.unwrap_or_else(|stop| stop)
            }
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
            Ok(true) => {
                self.app.bill.queued_again(lease.edit_key);
                Outcome::Delay { after, error: why.to_owned() }
            }
            Ok(false) => lost(),
            Err(stop) => stop,
        }
    }

    /// Whoever comes next polls on, or finishes.
    async fn hand_over(&self, why: Option<&str>, after: Duration) -> Outcome {
        self.keeper.stop();
        let why = why.map(clipped);
        if let Err(error) = self.app.store.hand_over_call(self.call.lease, why, after).await {
            tracing::warn!(%error, "cannot hand the call over; its lease will run out");
        }
        if after.is_zero() {
            return Outcome::HandBack;
        }
        Outcome::Delay { after, error: why.unwrap_or("still under way at the provider").to_owned() }
    }

    /// One phase of the call, timed.
    async fn phase<T>(&self, phase: Phase, work: impl Future<Output = T>) -> T {
        let began = Instant::now();
        let done = work.instrument(phase_span(phase)).await;
        count::phase(&self.call.spec.lane, phase, began.elapsed());
        done
    }

    /// A step of the store that may be repeated by whoever comes next: not now means later.
    async fn step<T>(&self, step: impl Future<Output = Result<T, StoreError>>) -> Result<T, Stop> {
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
            if self.began.elapsed() + pause > 2 * HOLD {
                return Err(Outcome::Delay { after: Duration::from_secs(30), error });
            }
            tokio::time::sleep(pause).await;
        }
    }
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
