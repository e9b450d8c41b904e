//! From claimed to submitted: wait for the lane, send once, and sort what comes of it.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::future::{FutureExt, TryFutureExt};

use super::held::Sends;
use super::resolve::Sending;
use super::{Age, Stop, Work, clipped, lost};
use crate::activity;
use crate::blobs::BlobError;
use crate::delay::Backoff;
use crate::editor::{EditError, EditRequest, EditSpec, Picture, Submitted};
use crate::failpoint::around;
use crate::lanes::{FULL, probe_after, slow_down};
use crate::media;
use crate::metrics::count::Phase;
use crate::outcome::{Outcome, rung};
use crate::store::{Admission, ClosedBy, Closure, Money, Pass, StoreError, UNANSWERED, UNANSWERED_SUBMITS};

/// Tries that fail without having been sent, before the call fails for good; the waits between them climb the ladder.
pub(super) const MAX_ATTEMPTS: u32 = 8;
/// How long a delivery is held for its lane; then another one takes its place. With the longest call it stays well below
/// the broker's half hour.
const LANE_HOLD: Duration = Duration::from_secs(5 * 60);

/// How long a lane that does not answer may take to answer a free question.
const ASK: Duration = Duration::from_secs(15);

/// What becomes of a call that was not accepted.
enum Next {
    /// It waits for its lane and is sent again, under the same lease.
    SendAgain,
    /// This delivery is done with it.
    End(Outcome),
}

impl Work<'_> {
    /// claimed → submitting → submitted or stored. An answer that was kept is read again before anything is
    /// sent.
    pub(super) async fn submit(&self) -> Result<Outcome, Stop> {
        if let Some(outcome) = self.read_kept().await? {
            return Ok(outcome);
        }
        let request = self.request().await?;
        self.refuse_held().await?;
        let request = self.upright(request).await?;
        loop {
            let price = self.price();
            let pass = self.phase(Phase::LaneWait, self.allowed(&price)).await?;
            self.lost_before.store(false, Ordering::Relaxed);
            let sent = Instant::now();
            let lane = &self.call.spec.lane;
            tracing::info!(attempt = self.call.attempts, lane, "calling");
            let submitted = self.phase(Phase::Submit, self.editor.submit(request.clone()));
            match around("send", submitted).await {
                Ok(Submitted::Done(bytes)) => {
                    tracing::info!(took = ?sent.elapsed(), "answered");
                    self.lane_works(pass).await;
                    return Box::pin(self.keep_bytes(bytes)).await;
                }
                Ok(Submitted::Accepted { provider_task_id, at_hand: None }) => {
                    tracing::info!(took = ?sent.elapsed(), "accepted");
                    self.record_submitted(&provider_task_id).await?;
                    self.lane_works(pass).await;
                    return Box::pin(self.poll(&provider_task_id, Age::new(sent.elapsed()))).await;
                }
                Ok(Submitted::Accepted { provider_task_id, at_hand: Some(result) }) => {
                    tracing::info!(took = ?sent.elapsed(), "answered with an address");
                    let recorded = async {
                        self.record_submitted(&provider_task_id).await?;
                        self.lane_works(pass).await;
                        Ok(())
                    };
                    return Box::pin(self.keep_at_hand(&result, Age::new(sent.elapsed()), recorded)).await;
                }
                Err(EditError::Ambiguous(why)) => {
                    self.unanswered(pass).await;
                    let began = Age::new(sent.elapsed());
                    let over = Some(Age::new(Duration::ZERO));
                    return Box::pin(self.resolve(&why, Sending { began, over })).await;
                }
                Err(error) => match self.not_accepted(error, pass).await? {
                    Next::SendAgain => {}
                    Next::End(outcome) => return Ok(outcome),
                },
            }
        }
    }

    /// As [`Self::admitted`], if what this process may spend is enough for it.
    async fn allowed(&self, price: &Money) -> Result<Pass, Stop> {
        let Some(reserved) = self.app.bill.reserve(price) else {
            let why = "it would cost more than this command may spend";
            return Err(self.again(false, why, Duration::from_secs(1)).await);
        };
        let pass = self.admitted().await?;
        reserved.sent(self.call.lease.edit_key, self.call.unanswered > 0);
        Ok(pass)
    }

    /// Waits until the lane lets the call be sent; then it is committed as `submitting`.
    async fn admitted(&self) -> Result<Pass, Stop> {
        let hold = LANE_HOLD.saturating_sub(self.began.elapsed());
        tokio::select! {
            pass = self.wait_for_lane() => pass,
            () = self.app.shutdown.cancelled() => {
                self.again(false, "the worker is stopping", Duration::from_secs(1)).await;
                Err(Outcome::HandBack)
            }
            // Waiting is nobody's failure.
            () = tokio::time::sleep(hold) => Err(self.again(false, "waiting for the lane", Duration::from_secs(1)).await),
        }
    }

    async fn wait_for_lane(&self) -> Result<Pass, Stop> {
        let (lane, lease, price) = (&self.call.spec.lane, self.call.lease, self.price());
        self.doing.at(activity::Phase::Waiting);
        let _turn = self.gate.turn.lock().await;
        let mut full = Backoff::new(FULL);
        loop {
            match self.step(self.app.store.begin_submit(lease, &price)).await? {
                Admission::Admitted(pass) => {
                    self.gate.open(lane);
                    self.doing.at(activity::Phase::Sending);
                    return Ok(pass);
                }
                Admission::LostLease => return Err(lost()),
                Admission::Unwanted => {
                    tracing::info!("nobody waits for it any more; it is not sent");
                    self.keeper.stop();
                    return Err(Outcome::Done);
                }
                Admission::Full => self.gate.place(full.next_delay()).await,
                Admission::NotBefore(after) => tokio::time::sleep(after).await,
                Admission::Closed(closure) => {
                    let look_again = self.gate.closed(lane, &closure);
                    tokio::time::sleep(look_again).await;
                    let due = closure.probe_in.is_some_and(|probe_in| probe_in <= look_again);
                    if due && closure.code == UNANSWERED {
                        self.ask_before_probe().await;
                    }
                }
            }
        }
    }

    /// Whether a lane answers again is asked for free, where that can be, before a call is spent on finding
    /// out.
    async fn ask_before_probe(&self) {
        let silent = match tokio::time::timeout(ASK, self.editor.ask()).await {
            Err(_) => true,
            Ok(Err(EditError::NotSent(_) | EditError::Unavailable(_) | EditError::Ambiguous(_))) => true,
            // An answer, whatever it says: what a submit would be told now, only a submit can show.
            Ok(
                Ok(_)
                | Err(
                    EditError::RateLimited { .. }
                    | EditError::Unbilled { .. }
                    | EditError::Rejected { .. }
                    | EditError::Unreadable(_)
                    | EditError::Blocked { .. },
                ),
            ) => false,
        };
        if !silent {
            return;
        }
        let (lane, after) = (&self.call.spec.lane, probe_after(self.app.settings.rhythm.probe, 0));
        tracing::info!(
            lane,
            ?after,
            "the provider answers no free question either; no call is sent to find out"
        );
        if let Err(error) = self.app.store.postpone_probe(lane, after).await {
            tracing::warn!(lane, %error, "cannot put the next probe off");
        }
    }

    /// What the call costs now, which may be more or less than when it was queued.
    fn price(&self) -> Money {
        let spec = &self.call.spec;
        let route = self.app.settings.offer.resolve(&spec.edit_type, Some(&spec.model));
        let route = route.ok().filter(|route| route.editor.name == spec.provider);
        route.map_or_else(|| spec.price.clone(), |route| route.price)
    }

    /// Whether the call costs nothing, by what it cost when it was queued or sent and by what it costs now.
    pub(super) fn is_free(&self) -> bool {
        self.call.spec.price.micros == 0 && self.price().micros == 0
    }

    /// Ends a call that only a person may send again. What the row said at the claim holds for as long as the
    /// lease does.
    async fn refuse_held(&self) -> Result<(), Stop> {
        let price = self.price();
        let sends = Sends {
            held: self.call.held.as_deref(),
            unanswered: self.call.unanswered,
            free: self.is_free(),
            price: &price,
        };
        match sends.refusal(self.app.settings.on_ambiguous) {
            Some(error) => Err(self.fail(&error.code, &error.message, true).await),
            None => Ok(()),
        }
    }

    /// The provider has judged a request: its account and model work.
    async fn lane_works(&self, pass: Pass) {
        let lane = &self.call.spec.lane;
        if pass.probe || pass.throttles > 0 {
            self.reopen(false).await;
        } else if pass.unanswered > 0 {
            self.reopened(self.app.store.reset_unanswered(lane).await);
        }
    }

    /// Submits that stay unanswered one after the other say that the lane does not work, whatever the next
    /// one costs.
    async fn unanswered(&self, pass: Pass) {
        let lane = &self.call.spec.lane;
        match self.app.store.count_unanswered(lane).await {
            Ok((submits, since)) if submits >= UNANSWERED_SUBMITS => {
                let message = format!(
                    "{submits} submits in a row were not answered, since {since} UTC: each may have been paid; look at the \
                     provider's status, the gateway in front of it and timeout_seconds"
                );
                self.block(ClosedBy::Submit, UNANSWERED, &message, pass.probes).await;
            }
            Ok(_) => self.shown_nothing(pass).await,
            Err(error) => tracing::warn!(lane, %error, "cannot count a submit without an answer"),
        }
    }

    /// A probe that was not judged says nothing of the lane: the next one need not wait as long as this one might have taken.
    async fn shown_nothing(&self, pass: Pass) {
        if !pass.probe {
            return;
        }
        let (lane, after) = (&self.call.spec.lane, probe_after(self.app.settings.rhythm.probe, pass.probes));
        if let Err(error) = self.app.store.probe_lane(lane, after).await {
            tracing::warn!(lane, %error, "cannot let the lane be tried again soon");
        }
    }

    /// Not worth failing a paid call for: the next one says so again.
    pub(super) async fn reopen(&self, by_poll: bool) {
        self.reopened(self.app.store.reopen_lane(&self.call.spec.lane, by_poll).await);
    }

    fn reopened(&self, reopened: Result<bool, StoreError>) {
        let lane = &self.call.spec.lane;
        match reopened {
            Ok(true) => self.gate.open(lane),
            // It was blocked by something that this proves nothing about, or is open already.
            Ok(false) => {}
            Err(error) => tracing::warn!(lane, %error, "cannot note that the lane works"),
        }
    }

    /// No replica sends on this lane until a probe works. `probes` found it blocked, for this cause or
    /// another.
    pub(super) async fn block(&self, by: ClosedBy, code: &str, message: &str, probes: u32) {
        let probes = self.probes_of(code, probes).await;
        self.block_for(by, code, message, probe_after(self.app.settings.rhythm.probe, probes)).await;
    }

    /// Of the probes that found the lane blocked, those of this cause: others say nothing about when it may
    /// have gone.
    pub(super) async fn probes_of(&self, code: &str, probes: u32) -> u32 {
        if probes == 0 {
            return 0;
        }
        let known = self.app.store.lane_probes(&self.call.spec.lane, code).await;
        known.map_or(probes, |known| known.min(probes))
    }

    /// As [`Work::block`], until a probe that comes after `probe_in`.
    pub(super) async fn block_for(&self, by: ClosedBy, code: &str, message: &str, probe_in: Duration) {
        let lane = &self.call.spec.lane;
        let closure = Closure {
            by,
            code: code.to_owned(),
            message: clipped(message).to_owned(),
            probe_in: Some(probe_in),
        };
        self.gate.closed(lane, &closure);
        if let Err(error) = self.app.store.block_lane(lane, &closure).await {
            tracing::warn!(lane, %error, "cannot block the lane; the next call will");
        }
    }

    /// Commits the provider's id, for as long as it takes: it is all that stands between us and paying again.
    pub(super) async fn record_submitted(&self, provider_task_id: &str) -> Result<(), Stop> {
        let (store, lease) = (&self.app.store, self.call.lease);
        let recorded = self.insist(|| {
            store.record_submitted(lease, provider_task_id).map_err(|error| error.to_string()).boxed()
        });
        if recorded.await? {
            return Ok(());
        }
        // The call may have been forgotten meanwhile: no other call may take this task for its own.
        if let Err(error) = store.explain(&[provider_task_id.to_owned()].into()).await {
            tracing::warn!(%error, provider_task_id, "a task at the provider is nobody's");
        }
        Err(lost())
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
                return Err(self.fail("input_missing", &message, false).await);
            }
        };
        match media::inspect(&bytes) {
            Ok(media) => Ok(Picture { bytes, media }),
            Err(error) => Err(self.fail(error.code(), &error.to_string(), false).await),
        }
    }

    /// A submit that was not accepted, by class.
    async fn not_accepted(&self, error: EditError, pass: Pass) -> Result<Next, Stop> {
        let text = error.to_string();
        let transient = matches!(
            error,
            EditError::NotSent(_) | EditError::Unavailable(_) | EditError::RateLimited { .. }
        );
        if transient {
            self.shown_nothing(pass).await;
        }
        match error {
            EditError::NotSent(_) | EditError::Unavailable(_) if self.call.attempts + 1 >= MAX_ATTEMPTS => {
                let text = format!("given up after {MAX_ATTEMPTS} attempts: {text}");
                Ok(Next::End(self.fail("unavailable", &text, false).await))
            }
            EditError::NotSent(_) | EditError::Unavailable(_) => {
                Ok(Next::End(self.again(true, &text, rung(self.call.attempts)).await))
            }
            EditError::RateLimited { retry_after, .. } => {
                let pause = slow_down(pass, retry_after);
                tracing::info!(lane = self.call.spec.lane, ?pause, error = text, "slowing the lane down");
                self.retract().await?;
                self.step(self.app.store.throttle_lane(&self.call.spec.lane, pause)).await?;
                Ok(Next::SendAgain)
            }
            EditError::Blocked { code, message } => {
                // The lane first: freed, the call would be sent by the next replica all the same.
                self.block(ClosedBy::Submit, &code, &message, pass.probes).await;
                self.retract().await?;
                Ok(Next::SendAgain)
            }
            EditError::Ambiguous(_) => self.by_policy(&text).await.map(Next::End),
            EditError::Unreadable(answer) => Ok(Next::End(self.unreadable(*answer, pass.probes).await)),
            EditError::Unbilled { tries, .. } if self.call.attempts + 1 < tries => {
                self.lane_works(pass).await;
                Ok(Next::End(self.again(true, &text, rung(self.call.attempts)).await))
            }
            EditError::Unbilled { code, message, .. } | EditError::Rejected { code, message } => {
                self.lane_works(pass).await;
                Ok(Next::End(self.fail(&code, &message, false).await))
            }
        }
    }

    /// submitting or ambiguous → claimed: it was certainly not accepted.
    pub(super) async fn retract(&self) -> Result<(), Stop> {
        let (store, lease) = (&self.app.store, self.call.lease);
        let retracted =
            self.insist(|| store.retract_submit(lease).map_err(|error| error.to_string()).boxed());
        if !retracted.await? {
            return Err(lost());
        }
        self.app.bill.not_accepted(lease.edit_key);
        Ok(())
    }
}
