//! Beside the lane's places: a call whose work has ended at the provider leaves its delivery, and its result
//! is fetched on.
//!
//! What must stay true: the database is the truth, so a call without a delivery keeps its lease, and the
//! sweep finds it when that runs out; and a worker that stops waits for these calls as it does for
//! deliveries.

use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use retouch_shared::key::EditKey;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Work, work};
use crate::app::App;
use crate::broker::{Destination, Message, Queue};
use crate::lanes::Gate;
use crate::outcome::Outcome;
use crate::store::ClaimedCall;
use crate::{trace, wake};

/// The calls of this process that have left their deliveries.
#[derive(Debug, Default)]
pub(crate) struct Beside {
    under_way: TaskTracker,
    abort: CancellationToken,
}

impl Beside {
    /// Until none is under way.
    pub(crate) async fn wait(&self) {
        self.under_way.close();
        self.under_way.wait().await;
    }

    /// What is still under way ends where it is; its leases run out.
    pub(crate) fn abort(&self) {
        self.abort.cancel();
    }

    fn go_on(&self, work: BoxFuture<'static, ()>) {
        let abort = self.abort.clone();
        self.under_way.spawn(async move {
            tokio::select! {
                () = abort.cancelled() => {}
                () = work => {}
            }
        });
    }
}

/// A call's way out of its delivery, with a place among the lane's fetches.
#[derive(Debug)]
pub(super) struct Exit(Mutex<Option<oneshot::Sender<OwnedSemaphorePermit>>>);

impl Exit {
    /// Leaves the delivery. `false`: no place is free.
    fn leave(&self, gate: &Gate) -> bool {
        let mut sender = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sender.is_none() {
            return true;
        }
        let Ok(place) = Arc::clone(&gate.fetches).try_acquire_owned() else { return false };
        // The receiver lives as long as the call is with its delivery.
        sender.take().is_none_or(|sender| sender.send(place).is_ok())
    }
}

/// Works on a claimed call, until it is done or goes on beside.
pub(super) async fn carry(app: &Arc<App>, call: ClaimedCall) -> Outcome {
    let (edit_key, lane) = (call.lease.edit_key, call.spec.lane.clone());
    let (leaves, mut left) = oneshot::channel();
    let mut work = Box::pin(work(Arc::clone(app), call, Exit(Mutex::new(Some(leaves)))));
    let place = tokio::select! {
        biased;
        outcome = &mut work => return outcome,
        Ok(place) = &mut left => place,
    };
    let for_later = Arc::clone(app);
    app.beside.go_on(trace::onward(async move {
        let outcome = work.await;
        drop(place);
        go_on_later(&for_later, edit_key, lane, outcome).await;
    }));
    // The lease is held, and nothing else is needed to go on.
    Outcome::Done
}

/// Sends a message for a call that has none, where it must go on later.
pub(crate) async fn go_on_later(app: &App, edit_key: EditKey, lane: String, outcome: Outcome) {
    match outcome {
        Outcome::Done => {}
        Outcome::Rest { after, error } => tracing::info!(?after, error, "delayed; the sweep will wake it"),
        Outcome::Delay { after, error } => {
            tracing::info!(?after, error, "delayed");
            let to = Destination::Delayed(Queue::Edits { lane }, after);
            if let Err(error) = app.broker.publish(to, Message::new(wake::payload(edit_key))).await {
                tracing::warn!(%error, "cannot wake a call later; the sweep will");
            }
        }
        Outcome::HandBack | Outcome::Dead { .. } => wake::calls(app, vec![(edit_key, lane)]).await,
    }
}

impl Work<'_> {
    /// The call goes on without its delivery, so that the process has room for another call of the lane.
    /// `false`: as many results are being fetched as may be.
    pub(super) fn leave_delivery(&self) -> bool {
        // A worker that stops waits for its deliveries.
        self.app.shutdown.is_cancelled() || self.exit.leave(self.gate)
    }
}
