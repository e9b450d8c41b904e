//! `retouch worker`: the background worker, until it is told to stop.

use anyhow::anyhow;
use clap::Args;

use super::signals::Signals;
use super::{Ending, Failure};
use crate::app::App;
use crate::config::{Settings, shares_a_database};
use crate::metrics::recorder;
use crate::worker::Worker;

/// Run a worker: any number of them, on any number of machines
///
/// SIGTERM or Ctrl-C stops it in an orderly way: calls under way are finished or handed over, exit code 0. A second signal ends it at
/// once, exit code 130, as if it had died: no task is lost, but a call that the provider has not answered may be paid again (counted).
///
/// Example: AMQP_URL=amqp://broker DATABASE_URL=mysql://… RETOUCH_BLOBS=file:///srv/blobs retouch worker
#[derive(Debug, Args)]
pub(super) struct RunWorker {}

impl RunWorker {
    pub(super) async fn run(self, settings: Settings) -> Result<Ending, Failure> {
        shares_a_database(&settings.broker, settings.database_given).map_err(Failure::Usage)?;
        if settings.http.is_some() {
            recorder::install().map_err(Failure::Unreachable)?;
        }
        let mut signals = Signals::new().map_err(Failure::unreachable)?;
        let app = App::open(settings).await.map_err(Failure::Unreachable)?;
        let mut worker = Worker::start(&app).await.map_err(Failure::Unreachable)?;
        worker.serve().await.map_err(Failure::Unreachable)?;
        tracing::info!(owner = app.owner, lanes = ?app.lanes(), "working");
        let name = signals.next().await;
        tracing::info!(signal = name, "stopping: finishing what is under way");
        tokio::select! {
            () = worker.stop() => {
                tracing::info!("stopped");
                Ok(Ending::Done)
            }
            name = signals.next() => {
                let why = anyhow!("{name} again: stopping at once, calls under way are broken off");
                Err(Failure::Interrupted(why))
            }
        }
    }
}
