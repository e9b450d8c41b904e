//! This process among the replicas: it says every few seconds that it lives and what it does, and at an orderly end that it
//! goes. A report that fails disturbs nothing: whoever reads the list misses this one for a while.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::activity::Calls;
use crate::app::App;
use crate::broker::supervise::Liveness;
use crate::store::{ReplicaReport, StoreError};

/// Between two reports: five may fail before it is taken for dead.
const EVERY: Duration = Duration::from_secs(3);
/// After one that failed.
const RETRY: Duration = Duration::from_secs(1);
/// A report that takes longer has lost its connection: the next one takes another, so that the list is right
/// soon after an outage.
const WITHIN: Duration = Duration::from_secs(5);

/// What a replica is doing. What an older or newer one does not say is taken for nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Doing {
    /// It was told to stop, and finishes what is under way.
    pub draining: bool,
    /// Tasks that are being taken in.
    pub intake: u32,
    /// Calls by phase.
    pub calls: Calls,
    /// The queues that it consumes at the moment, without the namespace.
    pub queues: Vec<String>,
}

/// Reports until it is ended.
pub(crate) struct Reporter {
    end: CancellationToken,
    reporting: JoinHandle<()>,
}

impl Reporter {
    /// Starts reporting. `consumed`: each queue and how its consumer is.
    pub(crate) fn start(app: &Arc<App>, consumed: Vec<(String, watch::Receiver<Liveness>)>) -> Self {
        let end = CancellationToken::new();
        let reporting = tokio::spawn(report(Arc::clone(app), consumed, end.clone()));
        Self { end, reporting }
    }

    /// Takes it off the list. Before the store is closed.
    pub(crate) async fn end(self) {
        self.end.cancel();
        if let Err(error) = self.reporting.await {
            tracing::warn!(%error, "reporting ended by itself");
        }
    }
}

async fn report(
    app: Arc<App>,
    mut consumed: Vec<(String, watch::Receiver<Liveness>)>,
    end: CancellationToken,
) {
    let (mut draining, mut failing) = (false, false);
    loop {
        let queues = consumed.iter_mut().filter_map(|(queue, liveness)| {
            matches!(*liveness.borrow_and_update(), Liveness::Consuming).then(|| queue.clone())
        });
        let doing = Doing {
            draining,
            intake: app.activity.tasks(),
            calls: app.activity.calls(),
            queues: queues.collect(),
        };
        let report = of(&app, &doing);
        let reported = tokio::time::timeout(WITHIN, app.store.report_replica(&report)).await;
        let failed = reported.unwrap_or_else(|_late| Err(late())).err();
        if let Some(error) = failed.as_ref().filter(|_| !failing) {
            tracing::warn!(%error, "cannot report; the list of replicas misses this one meanwhile");
        }
        failing = failed.is_some();
        // A consumer that has come or gone is news, and so is the end.
        let changed = changed_any(&mut consumed);
        tokio::select! {
            () = end.cancelled() => break,
            () = app.shutdown.cancelled(), if !draining => draining = true,
            () = changed, if !draining && !failing => {}
            () = tokio::time::sleep(if failing { RETRY } else { EVERY }) => {}
        }
    }
    if let Err(error) = app.store.remove_replica(&app.owner).await {
        tracing::warn!(%error, "cannot take this worker off the list of replicas; it will be taken for dead");
    }
}

fn late() -> StoreError {
    StoreError::Unavailable(format!("no answer within {WITHIN:?}"))
}

async fn changed_any(consumed: &mut [(String, watch::Receiver<Liveness>)]) {
    if consumed.is_empty() {
        // A command consumes no queue.
        std::future::pending::<()>().await;
    }
    futures::future::select_all(consumed.iter_mut().map(|(_, liveness)| Box::pin(changed(liveness)))).await;
}

async fn changed(liveness: &mut watch::Receiver<Liveness>) {
    if liveness.changed().await.is_err() {
        // Its consumer has ended: nothing will change any more.
        std::future::pending::<()>().await;
    }
}

fn of(app: &App, doing: &Doing) -> ReplicaReport {
    ReplicaReport {
        owner: app.owner.clone(),
        name: app.settings.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        // Plain data always serialises.
        doing: serde_json::to_value(doing).unwrap_or_default(),
    }
}
