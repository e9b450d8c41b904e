//! Keeps one queue consumed for ever: after any error or end of a consumer it tears down and rebuilds.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Broker, BrokerError, Consumer, Delivery, Queue};
use crate::delay::{Backoff, Pace};

/// Whether a queue is being consumed; `/readyz` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Liveness {
    /// Not yet.
    Starting,
    /// The broker has accepted the consumer.
    Consuming,
    /// Not at the moment; retrying.
    Lost {
        /// Since when.
        since: DateTime<Utc>,
        /// Why, at the last attempt.
        error: String,
    },
    /// Stopped on request.
    Stopped,
}

/// A consumer older than this was lost for a new reason.
const SETTLED: Duration = Duration::from_secs(30);

/// Consumes `queue` until `shutdown` is cancelled, then returns when the last handler has finished.
///
/// At most `prefetch` handlers run at once, also across a lost connection, whose deliveries come again while
/// their first handlers may still run. Dropping this future aborts the handlers and returns their deliveries.
pub async fn supervise<F, Fut>(
    broker: Arc<dyn Broker>,
    queue: Queue,
    prefetch: u16,
    shutdown: CancellationToken,
    status: watch::Sender<Liveness>,
    handle: F,
) where
    F: Fn(Delivery) -> Fut + Send + Sync,
    Fut: Future<Output = ()> + Send + 'static,
{
    let crew = Crew {
        tracker: TaskTracker::new(),
        permits: Arc::new(Semaphore::new(usize::from(prefetch.max(1)))),
        abort: CancellationToken::new(),
    };
    let _abort_when_dropped = crew.abort.clone().drop_guard();
    let mut backoff = Backoff::new(Pace::RECONNECT);
    while !shutdown.is_cancelled() {
        let started = Instant::now();
        let attempt = consume(&*broker, &queue, prefetch, &shutdown, &status, &crew, &handle);
        let Err(error) = attempt.await else { break };
        if started.elapsed() >= SETTLED {
            backoff.reset();
        }
        let delay = backoff.next_delay();
        report_loss(&status, &queue, &error, delay);
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(delay) => {}
        }
    }
    status.send_replace(Liveness::Stopped);
    crew.tracker.close();
    crew.tracker.wait().await;
}

/// The handlers of one queue.
struct Crew {
    tracker: TaskTracker,
    permits: Arc<Semaphore>,
    abort: CancellationToken,
}

/// One consumer's life. Ends with `Ok` at shutdown.
async fn consume<F, Fut>(
    broker: &dyn Broker,
    queue: &Queue,
    prefetch: u16,
    shutdown: &CancellationToken,
    status: &watch::Sender<Liveness>,
    crew: &Crew,
    handle: &F,
) -> Result<(), BrokerError>
where
    F: Fn(Delivery) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let mut consumer = tokio::select! {
        () = shutdown.cancelled() => return Ok(()),
        consumer = start(broker, queue, prefetch) => consumer?,
    };
    if let Liveness::Lost { since, .. } = status.send_replace(Liveness::Consuming) {
        tracing::info!(?queue, lost_since = %since, "consuming again");
    }
    loop {
        // The permit comes first: without one the message stays with the broker.
        let delivery = async {
            let permit = tokio::select! {
                biased;
                permit = Arc::clone(&crew.permits).acquire_owned() => permit,
                // Without a free permit it must still notice a lost consumer.
                error = consumer.lost() => return Err(error),
            };
            Ok::<_, BrokerError>((permit, consumer.next().await?))
        };
        let (permit, delivery) = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            delivery = delivery => delivery?,
        };
        // The semaphore is never closed.
        if let Ok(permit) = permit {
            crew.work(permit, handle(delivery));
        }
    }
}

/// Declares a missing queue again: the sweep finds the work whose messages were lost with it.
async fn start(broker: &dyn Broker, queue: &Queue, prefetch: u16) -> Result<Box<dyn Consumer>, BrokerError> {
    match broker.consume(queue.clone(), prefetch).await {
        Err(BrokerError::NoSuchQueue(name)) => {
            tracing::warn!(name, "the queue is gone, declaring it again");
            let lanes = match queue {
                Queue::Edits { lane } => vec![lane.clone()],
                Queue::Tasks | Queue::Dead => Vec::new(),
            };
            broker.declare(&lanes).await?;
            broker.consume(queue.clone(), prefetch).await
        }
        result => result,
    }
}

impl Crew {
    fn work(&self, permit: OwnedSemaphorePermit, handler: impl Future<Output = ()> + Send + 'static) {
        let abort = self.abort.clone();
        self.tracker.spawn(async move {
            let handler = AssertUnwindSafe(handler).catch_unwind();
            tokio::select! {
                () = abort.cancelled() => {}
                // The panic hook has reported the place; the delivery went back when it was dropped.
                done = handler => if done.is_err() {
                    tracing::error!("a handler panicked; its message goes back to the queue");
                },
            }
            drop(permit);
        });
    }
}

/// Logs a loss once as a warning, and further failed attempts at debug level.
fn report_loss(status: &watch::Sender<Liveness>, queue: &Queue, error: &BrokerError, delay: Duration) {
    let since = match &*status.borrow() {
        Liveness::Lost { since, .. } => Some(*since),
        Liveness::Starting | Liveness::Consuming | Liveness::Stopped => None,
    };
    if since.is_some() {
        tracing::debug!(?queue, %error, ?delay, "still not consuming");
    } else {
        tracing::warn!(?queue, %error, ?delay, "not consuming; trying again until it works");
    }
    status.send_replace(Liveness::Lost { since: since.unwrap_or_else(Utc::now), error: error.to_string() });
}
