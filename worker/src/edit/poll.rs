//! From submitted to a result: ask until there is an answer. Nothing here is paid for, so nothing here ends but by the
//! provider's word.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Age, HOLD, RETRY, Stop, Work, clipped};
use crate::activity;
use crate::delay::Backoff;
use crate::editor::{EditError, Output, Polled};
use crate::failpoint::around;
use crate::lanes::wished;
use crate::metrics::count::Phase;
use crate::outcome::{Outcome, rung};
use crate::store::ClosedBy;

/// A provider that refuses to be asked (a key that was revoked) is asked again after this, by whoever comes next.
const REFUSED: Duration = Duration::from_secs(5);
/// Questions in a row without an answer after which people are told.
const UNHEARD_ASKS: u32 = 2;

impl Work<'_> {
    /// A call that somebody else submitted.
    pub(super) async fn poll_on(&self) -> Result<Outcome, Stop> {
        // Only its result is to be fetched, which takes no place of the lane.
        if self.call.ended && !self.leave_delivery() {
            let why = "as many results of the lane are being fetched as may be";
            return Ok(self.hand_over(Some(why), REFUSED).await);
        }
        match &self.call.provider_task_id {
            Some(id) => Box::pin(self.poll(id, Age::new(self.call.since_submit))).await,
            None => {
                let message = "the call was submitted, and its id is not in the store";
                Ok(self.fail("no_provider_task_id", message, true).await)
            }
        }
    }

    pub(super) async fn poll(&self, id: &str, age: Age) -> Result<Outcome, Stop> {
        self.doing.at(activity::Phase::Polling);
        match self.phase(Phase::Run, self.ask_until_done(id, age)).await? {
            Ok(output) => Box::pin(self.keep(output, age)).await,
            Err(outcome) => Ok(outcome),
        }
    }

    /// What the provider made, or how this delivery ends.
    async fn ask_until_done(&self, id: &str, age: Age) -> Result<Result<Output, Outcome>, Stop> {
        let mut backoff = Backoff::new(RETRY);
        loop {
            let polled = tokio::select! {
                // An answer that is at hand is kept, also at the end of the worker.
                biased;
                polled = around("poll", self.editor.poll(id, age.now())) => polled,
                // It may have to wait its turn among many; what it would say, the next owner is told too.
                () = self.app.shutdown.cancelled() => return Ok(Err(self.hand_over(None, Duration::ZERO).await)),
            };
            let pause = match polled {
                Ok(polled) => {
                    self.heard().await;
                    if self.gate.was_closed() {
                        self.reopen(true).await;
                    }
                    match polled {
                        Polled::Done(output) => return Ok(Ok(output)),
                        Polled::Pending { after } => {
                            backoff.reset();
                            after
                        }
                    }
                }
                Err(error) => match self.poll_failed(error, &mut backoff).await? {
                    Ok(pause) => pause,
                    Err(outcome) => return Ok(Err(outcome)),
                },
            };
            if self.began.elapsed() + pause > HOLD {
                return Ok(Err(self.hand_over(None, Duration::from_secs(1)).await));
            }
            tokio::select! {
                () = self.app.shutdown.cancelled() => return Ok(Err(self.hand_over(None, Duration::ZERO).await)),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Whether what is asked for was counted as lost before: a retry of its letter, or a later task, asks.
    pub(super) fn was_lost(&self) -> bool {
        self.lost_before.load(Ordering::Relaxed)
    }

    /// The provider has no more what was paid for, and counted as lost. What a person has decided about is
    /// sent again; what is held ends again as it did.
    pub(super) async fn paid_result_is_gone(&self, why: &str) -> Outcome {
        tracing::warn!(why, "the provider no longer has what was paid for");
        self.again(false, &format!("the paid result is gone: {why}"), Duration::from_secs(1)).await
    }

    /// How long to wait before the next poll, or how this delivery ends.
    async fn poll_failed(
        &self,
        error: EditError,
        backoff: &mut Backoff,
    ) -> Result<Result<Duration, Outcome>, Stop> {
        let text = error.to_string();
        let attempts = self.call.attempts;
        match error {
            EditError::Unbilled { tries, .. } if attempts + 1 < tries && !self.was_lost() => {
                tracing::info!(error = text, "the provider gave up and charges nothing; submitting anew");
                Ok(Err(self.again(true, &text, rung(attempts)).await))
            }
            EditError::Unbilled { code, message, .. } | EditError::Rejected { code, message } => {
                Ok(Err(self.fail(&code, &message, false).await))
            }
            EditError::Unreadable(answer) => Ok(Err(self.unreadable(*answer, 0).await)),
            EditError::Ambiguous(_) if self.was_lost() => Ok(Err(self.paid_result_is_gone(&text).await)),
            // It was accepted; no list says more.
            EditError::Ambiguous(_) => self.by_policy(&text).await.map(Err),
            EditError::Blocked { code, message } => {
                self.block(ClosedBy::Poll, &code, &message, 0).await;
                Ok(Err(self.hand_over(Some(&text), REFUSED).await))
            }
            EditError::RateLimited { retry_after: Some(after), .. } => Ok(Ok(wished(after))),
            EditError::RateLimited { retry_after: None, .. }
            | EditError::NotSent(_)
            | EditError::Unavailable(_) => {
                tracing::info!(error = text, "a poll failed; asking again");
                self.unheard(&text).await;
                Ok(Ok(backoff.next_delay()))
            }
        }
    }

    /// The provider could not say what became of the call, which holds its place on the lane meanwhile. Once
    /// may be chance; the second time in a row people are told, in the log and by the lane.
    pub(super) async fn unheard(&self, why: &str) {
        if self.unheard.fetch_add(1, Ordering::Relaxed) + 1 != UNHEARD_ASKS {
            return;
        }
        let (lane, why) = (&self.call.spec.lane, clipped(why));
        tracing::warn!(
            lane,
            why,
            "the provider cannot say what became of a call; it holds its place on the lane"
        );
        self.stuck.store(true, Ordering::Relaxed);
        if let Err(error) = self.app.store.note_stuck(self.call.lease, Some(why)).await {
            tracing::warn!(lane, %error, "cannot note what holds a place of the lane");
        }
    }

    /// It could.
    pub(super) async fn heard(&self) {
        self.unheard.store(0, Ordering::Relaxed);
        if !self.stuck.swap(false, Ordering::Relaxed) {
            return;
        }
        if let Err(error) = self.app.store.note_stuck(self.call.lease, None).await {
            tracing::warn!(%error, "the lane goes on saying that a call holds its place");
        }
    }
}
