//! This process among the replicas: it reports every few seconds that it lives and what it does, and
//! deregisters at an orderly end. A failed report disturbs nothing: the list misses this replica for a while.

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

/// Interval of reports: five may fail before the replica counts as dead.
const EVERY: Duration = Duration::from_secs(3);
/// Delay after a failed report.
const RETRY: Duration = Duration::from_secs(1);
/// Limit for one report. A slower one has lost its connection: the next takes another, so that the list is
/// right soon after an outage.
const WITHIN: Duration = Duration::from_secs(5);

/// Current work of a replica. Fields that another version does not report are 0 or empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Doing {
    /// Told to stop; finishing the work under way.
    pub draining: bool,
    /// Tasks in intake.
    pub intake: u32,
    /// Calls by phase.
    pub calls: Calls,
    /// The queues that it consumes now, without the namespace.
    pub queues: Vec<String>,
}

/// Reports until it is ended.
pub(crate) struct Reporter {
    end: CancellationToken,
    reporting: JoinHandle<()>,
}

impl Reporter {
    /// Starts reporting. `consumed`: each queue with the state of its consumer.
    pub(crate) fn start(app: &Arc<App>, consumed: Vec<(String, watch::Receiver<Liveness>)>) -> Self {
        let end = CancellationToken::new();
        let reporting = tokio::spawn(report(Arc::clone(app), consumed, end.clone()));
        Self { end, reporting }
    }

    /// Removes this replica from the list. Call before the store is closed.
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
        // Report at once when a consumer comes or goes, and at the end.
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
        // Its consumer has ended: there will be no further change.
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
