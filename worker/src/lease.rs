//! Keeps a lease alive while a call is worked on, and reports its loss.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_util::sync::{CancellationToken, DropGuard};

use crate::store::{Lease, Store};

/// Renews a lease until it is dropped.
pub(crate) struct LeaseKeeper {
    lost: CancellationToken,
    stop: CancellationToken,
    ending: Arc<AtomicBool>,
    _stop_when_dropped: DropGuard,
}

impl LeaseKeeper {
    /// Starts renewing, three times per lease.
    pub(crate) fn start(store: &Store, lease: Lease, lease_for: Duration) -> Self {
        let (lost, stop) = (CancellationToken::new(), CancellationToken::new());
        let ending = Arc::default();
        let keeper = Self {
            lost: lost.clone(),
            stop: stop.clone(),
            ending: Arc::clone(&ending),
            _stop_when_dropped: stop.clone().drop_guard(),
        };
        let store = store.clone();
        tokio::spawn(async move {
            if let Ended::Lost = renew(&store, lease, lease_for, &stop).await
                && !ending.load(Ordering::Acquire)
            {
                lost.cancel();
            }
        });
        keeper
    }

    /// Goes on renewing until the step that gives the lease up is done; that step itself reports a lost
    /// lease.
    pub(crate) fn ending(&self) {
        self.ending.store(true, Ordering::Release);
    }

    /// Stops renewing: the next step gives the lease up, which must not look like its loss.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// Cancelled when the lease is lost.
    pub(crate) fn lost(&self) -> CancellationToken {
        self.lost.clone()
    }
}

/// Between two tries while the store is unavailable: once it answers, other owners look for expired leases.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// Why the renewal ended.
enum Ended {
    Lost,
    Stopped,
}

/// The lease is lost when the store says so, not when its time is up: while the store is unavailable no other
/// owner can claim the call either, and giving up would drop a result that may be paid for.
///
/// A statement under way is never cancelled, since its connection would be lost with it.
async fn renew(store: &Store, lease: Lease, lease_for: Duration, stop: &CancellationToken) -> Ended {
    let mut pause = lease_for / 3;
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ended::Stopped,
            () = tokio::time::sleep(pause) => {}
        }
        pause = match store.renew_lease(lease, lease_for).await {
            Ok(true) => lease_for / 3,
            Ok(false) if stop.is_cancelled() => return Ended::Stopped,
            Ok(false) => return Ended::Lost,
            Err(error) => {
                tracing::warn!(edit_key = %lease.edit_key, %error, "cannot renew a lease now");
                TRY_AGAIN.min(lease_for / 3)
            }
        };
    }
}
