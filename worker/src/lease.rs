//! Keeps a lease alive while a call is worked on, and says when it is lost.

use std::time::{Duration, Instant};

use tokio_util::sync::{CancellationToken, DropGuard};

use crate::store::{Lease, Store};

/// Renews a lease until it is dropped.
pub(crate) struct LeaseKeeper {
    lost: CancellationToken,
    stop: CancellationToken,
    _stop_when_dropped: DropGuard,
}

impl LeaseKeeper {
    /// Starts renewing, three times per lease.
    pub(crate) fn start(store: &Store, lease: Lease, lease_for: Duration) -> Self {
        let (lost, stop) = (CancellationToken::new(), CancellationToken::new());
        let keeper =
            Self { lost: lost.clone(), stop: stop.clone(), _stop_when_dropped: stop.clone().drop_guard() };
        let store = store.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = renew(&store, lease, lease_for) => lost.cancel(),
            }
        });
        keeper
    }

    /// Stops renewing: the step that comes next gives the lease up, which must not look like losing it.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// Cancelled when the lease is lost.
    pub(crate) fn lost(&self) -> CancellationToken {
        self.lost.clone()
    }
}

/// Returns when the lease is lost. A store that cannot be asked loses it only when its time is up, since nobody else
/// can claim it before.
async fn renew(store: &Store, lease: Lease, lease_for: Duration) {
    let mut good_until = Instant::now() + lease_for;
    while Instant::now() < good_until {
        tokio::time::sleep(lease_for / 3).await;
        let asked = Instant::now();
        match store.renew_lease(lease, lease_for).await {
            Ok(true) => good_until = asked + lease_for,
            Ok(false) => return,
            Err(error) => tracing::warn!(edit_key = %lease.edit_key, %error, "cannot renew a lease now"),
        }
    }
}
