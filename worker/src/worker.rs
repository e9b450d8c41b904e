//! The running worker: consumers, sweep and HTTP, from start to an orderly stop.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::app::App;
use crate::broker::supervise::{Liveness, supervise};
use crate::broker::{Delivery, Queue};
use crate::failpoint::around;
use crate::metrics::{count, recorder};
use crate::outcome::{Outcome, origin, settle};
use crate::replica::Reporter;
use crate::{archive, edit, http, intake, sweep, trace};

/// Concurrent archiving of dead messages.
const ARCHIVE: u16 = 4;

/// Time limit for closing connections after the work is done.
const CLOSE: Duration = Duration::from_secs(5);

/// One consumed queue, for `/readyz` and `/metrics`.
pub struct Consumed {
    /// The queue's name without the namespace.
    pub queue: String,
    /// The queue.
    pub(crate) source: Queue,
    /// State of its consumer.
    pub liveness: watch::Receiver<Liveness>,
}

/// A worker that is consuming.
pub struct Worker {
    app: Arc<App>,
    consumers: JoinSet<()>,
    others: JoinSet<()>,
    consumed: Vec<Consumed>,
    reporter: Option<Reporter>,
}

impl Worker {
    /// Declares queues and exchanges and starts consuming: tasks, and the edits of every lane.
    ///
    /// # Errors
    /// The broker or the store cannot be used in its present state.
    pub async fn start(app: &Arc<App>) -> Result<Self> {
        app.declare().await?;
        let mut worker = Self {
            app: Arc::clone(app),
            consumers: JoinSet::new(),
            others: JoinSet::new(),
            consumed: Vec::new(),
            reporter: None,
        };
        worker.consume(Queue::Tasks, app.settings.rhythm.intake, Stage::Intake);
        for lane in app.lanes() {
            let concurrency = app.lane_concurrency(&lane);
            worker.consume(Queue::Edits { lane }, concurrency, Stage::Edit);
        }
        worker.consume(Queue::Dead, ARCHIVE, Stage::Archive);
        let sweeper = Arc::clone(app);
        // The stop waits for it, too: it carries calls on.
        worker.consumers.spawn(async move { sweep::run(&sweeper).await });
        let consumed = worker.consumed.iter().map(|of| (of.queue.clone(), of.liveness.clone()));
        worker.reporter = Some(Reporter::start(app, consumed.collect()));
        Ok(worker)
    }

    /// Serves HTTP beside the work, if it is switched on.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub async fn serve(&mut self) -> Result<()> {
        let Some(address) = self.app.settings.http else { return Ok(()) };
        let queues: Vec<_> = self.consumed.iter().map(|consumed| consumed.queue.clone()).collect();
        count::begin(&queues, &self.app.lanes());
        self.others.spawn(recorder::upkeep());
        let server = http::bind(address, Arc::clone(&self.app), std::mem::take(&mut self.consumed)).await?;
        self.others.spawn(server);
        Ok(())
    }

    fn consume(&mut self, queue: Queue, prefetch: u16, stage: Stage) {
        let (status, liveness) = watch::channel(Liveness::Starting);
        self.consumed.push(Consumed { queue: origin(&queue), source: queue.clone(), liveness });
        let app = Arc::clone(&self.app);
        self.consumers.spawn(async move {
            let (broker, shutdown) = (Arc::clone(&app.broker), app.shutdown.clone());
            let handled = queue.clone();
            let handle = move |delivery| work(Arc::clone(&app), handled.clone(), stage, delivery);
            supervise(broker, queue, prefetch, shutdown, status, handle).await;
        });
    }

    /// Stops consuming and waits for the work under way, at most the grace period; the rest goes back to the
    /// queue.
    pub async fn stop(mut self) {
        self.app.shutdown.cancel();
        let grace = self.app.settings.rhythm.grace;
        let finished = async { while self.consumers.join_next().await.is_some() {} };
        if tokio::time::timeout(grace, finished).await.is_err() {
            tracing::warn!(?grace, "the grace period is over; what is under way goes back");
        }
        self.consumers.shutdown().await;
        self.app.beside.abort();
        self.others.shutdown().await;
        if let Some(reporter) = self.reporter.take()
            && tokio::time::timeout(CLOSE, reporter.end()).await.is_err()
        {
            tracing::warn!("could not deregister from the list of replicas in time");
        }
        // Their work is over, and a server that does not answer must not keep the process from ending.
        if tokio::time::timeout(CLOSE, self.app.broker.close()).await.is_err() {
            tracing::warn!("the broker's connections did not close in time");
        }
        if tokio::time::timeout(CLOSE, self.app.store.close()).await.is_err() {
            tracing::warn!("the database's connections did not close in time");
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    Intake,
    Edit,
    Archive,
}

/// Runs one delivery through its stage and settles it.
fn work(app: Arc<App>, queue: Queue, stage: Stage, delivery: Delivery) -> impl Future<Output = ()> + Send {
    let span = match stage {
        Stage::Intake => trace::intake_span(),
        Stage::Edit => trace::edit_span(),
        Stage::Archive => trace::archive_span(),
    };
    let headers = delivery.message.headers.clone();
    let worked = async move {
        let (name, began) = (origin(&queue), Instant::now());
        count::delivered(&name, delivery.redelivered);
        let outcome: Outcome = match stage {
            Stage::Intake => {
                let _doing = app.activity.intake();
                // Boxed on their own: the wrappers around them move this future several times.
                Box::pin(intake::handle(&app, &delivery)).await
            }
            Stage::Edit => Box::pin(edit::handle(&app, &delivery.message)).await,
            Stage::Archive => archive::handle(&app, &delivery).await,
        };
        count::handled(&name, outcome.as_str());
        if let Stage::Intake = stage {
            count::intake(outcome.as_str(), began.elapsed());
        }
        let settled = settle(&*app.broker, &queue, delivery, outcome);
        match stage {
            Stage::Intake => around("settle_task", settled).await,
            Stage::Edit => around("settle_edit", settled).await,
            Stage::Archive => settled.await,
        }
    };
    trace::within(span, &headers, worked)
}
