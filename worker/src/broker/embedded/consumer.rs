//! Deliveries from the SQLite file. One task a consumer claims as many messages at a time as the prefetch allows.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::sql::{self, Claimed};
use super::writer::Write;
use super::{Inner, closed, failure};
use crate::broker::{BrokerError, Consumer, Delivery, Settle};

/// Nothing is due: new messages wake the consumer.
const IDLE: Duration = Duration::from_secs(3600);

struct EmbeddedConsumer {
    deliveries: mpsc::Receiver<Result<Delivery, BrokerError>>,
    stop: CancellationToken,
}

pub(super) fn start(
    inner: &Arc<Inner>,
    queue: String,
    prefetch: u16,
    max_bytes: usize,
) -> impl Consumer + 'static {
    let prefetch = usize::from(prefetch.max(1));
    let (send, deliveries) = mpsc::channel(prefetch);
    let ahead = Arc::new(Ahead { max_bytes, bytes: AtomicUsize::new(0), less: Notify::new() });
    inner.tasks.spawn(feed(Arc::clone(inner), queue, prefetch, ahead, send));
    EmbeddedConsumer { deliveries, stop: inner.stop.clone() }
}

#[async_trait]
impl Consumer for EmbeddedConsumer {
    async fn next(&mut self) -> Result<Delivery, BrokerError> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(closed()),
            delivery = self.deliveries.recv() => delivery.unwrap_or_else(|| Err(closed())),
        }
    }

    async fn lost(&mut self) -> BrokerError {
        self.stop.cancelled().await;
        closed()
    }
}

/// Feeds one consumer until it is dropped or the broker closes. Only the wait can be cancelled: an
/// interrupted claim would hold its messages until it expires.
async fn feed(
    inner: Arc<Inner>,
    queue: String,
    prefetch: usize,
    ahead: Arc<Ahead>,
    send: mpsc::Sender<Result<Delivery, BrokerError>>,
) {
    let permits = Arc::new(Semaphore::new(prefetch));
    let mut changed = inner.changed.subscribe();
    loop {
        let due = async {
            let permit = Arc::clone(&permits).acquire_owned().await;
            let room = ahead.room().await;
            wait_until_due(&inner, &queue, &mut changed).await.map(|()| (permit, room))
        };
        let due = tokio::select! {
            () = inner.stop.cancelled() => return,
            () = send.closed() => return,
            due = due => due,
        };
        let claimed = match due {
            // The semaphore is never closed.
            Ok((permit, room)) => {
                let permits = permit.into_iter().chain(rest(&permits)).collect();
                claim(&inner, &queue, permits, room, &ahead).await
            }
            Err(error) => Err(error),
        };
        match claimed {
            Ok(deliveries) => {
                for delivery in deliveries {
                    // An unsent delivery is dropped, which gives its message back.
                    let _gone = send.send(Ok(delivery)).await;
                }
            }
            Err(error) => {
                let _gone = send.send(Err(error)).await;
                return;
            }
        }
    }
}

/// The other permits that are free now.
fn rest(permits: &Arc<Semaphore>) -> impl Iterator<Item = OwnedSemaphorePermit> {
    std::iter::from_fn(|| Arc::clone(permits).try_acquire_owned().ok())
}

async fn wait_until_due(
    inner: &Inner,
    queue: &str,
    changed: &mut watch::Receiver<()>,
) -> Result<(), BrokerError> {
    loop {
        changed.borrow_and_update();
        // Reading takes no lock on the file; claiming does.
        let due = sql::next_due(&mut *inner.reader.lock().await, queue).await;
        let due = due.map_err(|error| failure(&error))?.unwrap_or(IDLE);
        if due.is_zero() {
            return Ok(());
        }
        tokio::select! {
            _ = changed.changed() => {}
            () = tokio::time::sleep(due) => {}
        }
    }
}

/// Bytes of one consumer's unsettled deliveries.
struct Ahead {
    max_bytes: usize,
    bytes: AtomicUsize,
    /// Wakes the one feed.
    less: Notify,
}

impl Ahead {
    /// Waits until there is room, and returns its size.
    async fn room(&self) -> usize {
        loop {
            let room = self.max_bytes.saturating_sub(self.bytes.load(Ordering::Acquire));
            if room > 0 {
                return room;
            }
            self.less.notified().await;
        }
    }

    fn hold(self: &Arc<Self>, bytes: usize) -> HeldBytes {
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
        HeldBytes { ahead: Arc::clone(self), bytes }
    }
}

/// One delivery's share of the bytes ahead.
struct HeldBytes {
    ahead: Arc<Ahead>,
    bytes: usize,
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        self.ahead.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        self.ahead.less.notify_one();
    }
}

/// Claims at most one message a permit, within the free room.
async fn claim(
    inner: &Arc<Inner>,
    queue: &str,
    permits: Vec<OwnedSemaphorePermit>,
    room: usize,
    ahead: &Arc<Ahead>,
) -> Result<Vec<Delivery>, BrokerError> {
    let owner = Uuid::now_v7().to_string();
    let (queue, most) = (queue.to_owned(), i64::try_from(permits.len()).unwrap_or(i64::MAX));
    let most_bytes = i64::try_from(room).unwrap_or(i64::MAX);
    let claim = inner.write(|answer| Write::Claim { queue, owner: owner.clone(), most, most_bytes, answer });
    let claimed = claim.await?;
    let deliver = |(claimed, permit): (Claimed, OwnedSemaphorePermit)| {
        let Claimed { id, message, redelivered, broker_death } = claimed;
        inner.held.add(id, &owner);
        let settler = Settler {
            inner: Arc::clone(inner),
            id,
            owner: owner.clone(),
            settled: false,
            _permit: permit,
            _bytes: ahead.hold(message.payload.len()),
        };
        Delivery { message, redelivered, broker_death, settler: Box::new(settler) }
    };
    Ok(claimed.into_iter().zip(permits).map(deliver).collect())
}

/// Dropped unsettled (its handler panicked or was aborted), it gives the message back.
struct Settler {
    inner: Arc<Inner>,
    id: i64,
    owner: String,
    settled: bool,
    /// One place within the prefetch.
    _permit: OwnedSemaphorePermit,
    _bytes: HeldBytes,
}

impl Settler {
    async fn settle(&mut self, write: impl FnOnce(i64, String, super::Answer<bool>) -> Write) -> bool {
        self.settled = true;
        self.inner.held.remove(self.id, &self.owner);
        let (id, owner) = (self.id, self.owner.clone());
        let done = self.inner.write(|answer| write(id, owner, answer)).await;
        done.unwrap_or(false)
    }
}

#[async_trait]
impl Settle for Settler {
    async fn ack(mut self: Box<Self>) -> bool {
        self.settle(|id, owner, answer| Write::Acknowledge { id, owner, answer }).await
    }

    async fn hand_back(mut self: Box<Self>) -> bool {
        self.settle(|id, owner, answer| Write::GiveBack { id, owner, answer }).await
    }
}

impl Drop for Settler {
    fn drop(&mut self) {
        if !self.settled {
            self.inner.held.remove(self.id, &self.owner);
            let (answer, _nobody_waits) = oneshot::channel();
            let (id, owner) = (self.id, self.owner.clone());
            // A closed broker has already given it back.
            let _closed = self.inner.send(Write::GiveBack { id, owner, answer });
        }
    }
}
