//! Confirmed publishing: many messages in flight on one channel, each answered with its own outcome.
//!
//! The client library attaches a returned message to the confirm that completes next, which may belong to
//! another message (RabbitMQ may confirm an earlier message between a return and its acknowledgement, and
//! confirms many at once). Each mandatory message therefore carries a number in a header, and one task per
//! channel owns all confirms and matches returns by that number.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::stream::{FuturesUnordered, StreamExt};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, Connection};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::amqp::{AmqpError, Link, Slot};

/// Numbers each mandatory message on its channel. Consumers ignore it.
pub const NUMBER_HEADER: &str = "x-retouch-publish";
/// Messages awaiting their confirm at once; further callers wait.
const IN_FLIGHT: usize = 1024;

/// One message to publish.
#[derive(Clone)]
pub struct Outgoing {
    /// The exchange; empty is the default exchange.
    pub exchange: ShortString,
    /// The routing key.
    pub routing_key: ShortString,
    /// Whether an unroutable message is an error.
    pub mandatory: bool,
    /// The body.
    pub payload: Arc<dyn AsRef<[u8]> + Send + Sync>,
    /// Message properties; a durable message has `delivery_mode` 2.
    pub properties: BasicProperties,
}

/// Publishes with confirms over a connection of its own, which it opens when needed.
pub struct Publisher {
    link: Link,
    name: String,
    confirm_timeout: Duration,
    slot: Slot<Arc<Line>>,
}

/// One connection, its channel and the task that owns its confirms.
struct Line {
    jobs: mpsc::Sender<Job>,
    connection: Arc<Connection>,
    channel: Channel,
    window: Semaphore,
    /// Closed when the task has ended.
    ended: watch::Receiver<()>,
}

struct Job {
    outgoing: Outgoing,
    answer: oneshot::Sender<Result<(), Failed>>,
}

/// Why one attempt failed.
enum Failed {
    /// The broker answered, or the timeout passed.
    Told(AmqpError),
    /// The connection ended first.
    Lost(AmqpError),
}

impl Publisher {
    /// A publisher that is not connected yet. `name` is shown in the broker's list of connections.
    pub fn new(link: Link, name: &str, confirm_timeout: Duration) -> Self {
        Self { link, name: name.to_owned(), confirm_timeout, slot: Slot::default() }
    }

    /// Connects now instead of with the first message.
    ///
    /// # Errors
    /// See [`AmqpError`].
    pub async fn connect(&self) -> Result<(), AmqpError> {
        self.line().await.map(|_line| ())
    }

    /// Publishes and returns when the broker has confirmed the message.
    ///
    /// A message in flight on a connection that ends is published once more over a new one, and may then be
    /// queued twice.
    ///
    /// # Errors
    /// [`AmqpError::NotFound`] if the message was mandatory and unroutable, or the exchange does not exist.
    /// After any other error it may or may not have been published.
    pub async fn publish(&self, outgoing: &Outgoing) -> Result<(), AmqpError> {
        match self.attempt(outgoing.clone()).await {
            Err(Failed::Lost(_)) => self.attempt(outgoing.clone()).await,
            done => done,
        }
        .map_err(|(Failed::Told(error) | Failed::Lost(error))| error)
    }

    async fn attempt(&self, outgoing: Outgoing) -> Result<(), Failed> {
        let line = self.line().await.map_err(Failed::Told)?;
        if line.connection.status().blocked() {
            let why = "the broker takes no messages: it is short of memory or disk".to_owned();
            return Err(Failed::Told(AmqpError::Unavailable(why)));
        }
        let (answer, answered) = oneshot::channel();
        let result = tokio::time::timeout(self.confirm_timeout, async {
            let _permit = line.window.acquire().await.map_err(|_closed| ended())?;
            let job = Job { outgoing, answer };
            // Both fail only when the task has ended, and it ends with its channel.
            line.jobs.send(job).await.map_err(|_closed| ended())?;
            answered.await.map_err(|_dropped| ended())?
        });
        let result = match result.await {
            // A connection without an answer is abandoned; messages in flight on it may still be confirmed.
            // It is kept if the broker reports that it is blocked: new connections would block too, and pile
            // up.
            Err(_elapsed) if line.connection.status().blocked() => return Err(self.unconfirmed()),
            Err(_elapsed) => Err(self.unconfirmed()),
            Ok(Err(Failed::Lost(error))) => Err(Failed::Lost(error)),
            Ok(told) => return told,
        };
        self.slot.take_if(|open| Arc::ptr_eq(open, &line)).await;
        result
    }

    /// Waits for what is in flight, then closes the connection.
    pub async fn close(&self) {
        let Some(line) = self.slot.take_if(|_| true).await else {
            return;
        };
        let connection = Arc::clone(&line.connection);
        let mut ended = line.ended.clone();
        drop(line);
        // The task ends when the last caller has its answer, and each has a timeout.
        while ended.changed().await.is_ok() {}
        let _closed = connection.close(200, "OK".into()).await;
    }

    fn unconfirmed(&self) -> Failed {
        let why = format!("no confirm from the broker within {:?}", self.confirm_timeout);
        Failed::Told(AmqpError::Unavailable(why))
    }

    async fn line(&self) -> Result<Arc<Line>, AmqpError> {
        self.slot.get(|line| line.is_up(), self.open()).await
    }

    async fn open(&self) -> Result<Arc<Line>, AmqpError> {
        let connection = self.link.connect(&self.name).await?;
        let channel = connection.create_channel().await;
        let channel = channel.map_err(|error| AmqpError::from_lapin(&error))?;
        let confirm = channel.confirm_select(ConfirmSelectOptions::default());
        confirm.await.map_err(|error| AmqpError::from_lapin(&error))?;
        let (jobs, queue) = mpsc::channel(16);
        let (running, ended) = watch::channel(());
        let confirms = run(channel.clone(), queue);
        tokio::spawn(async move {
            confirms.await;
            drop(running);
        });
        Ok(Arc::new(Line {
            jobs,
            connection: Arc::new(connection),
            channel,
            window: Semaphore::new(IN_FLIGHT),
            ended,
        }))
    }
}

impl Line {
    fn is_up(&self) -> bool {
        self.connection.status().connected() && self.channel.status().connected()
    }
}

fn ended() -> Failed {
    Failed::Lost(AmqpError::Unavailable("the broker ended the connection".to_owned()))
}

/// A publish whose confirm has arrived.
struct Landed {
    number: u64,
    exchange: ShortString,
    result: Result<Confirmation, lapin::Error>,
    answer: oneshot::Sender<Result<(), Failed>>,
}

/// Owns one channel's confirms until the last caller is gone. Confirms that are open then have no waiting
/// caller.
async fn run(channel: Channel, mut jobs: mpsc::Receiver<Job>) {
    let numbers = AtomicU64::new(0);
    let mut returned = HashSet::new();
    let mut flying = FuturesUnordered::new();
    loop {
        tokio::select! {
            job = jobs.recv() => match job {
                Some(job) => flying.push(fly(&channel, &numbers, job)),
                None => return,
            },
            Some(first) = flying.next(), if !flying.is_empty() => {
                // A return arrives with a confirm that completed no later than its own: collect all completed
                // confirms before deciding on any.
                let mut batch = vec![first];
                while let Some(Some(next)) = flying.next().now_or_never() {
                    batch.push(next);
                }
                decide(batch, &mut returned);
            }
        }
    }
}

/// Publishes one message and waits for its confirm. There is no await before the publish, so numbers follow
/// the order of the messages on the channel.
async fn fly(channel: &Channel, numbers: &AtomicU64, job: Job) -> Landed {
    let Job { outgoing, answer } = job;
    let number = numbers.fetch_add(1, Ordering::Relaxed);
    let mut properties = outgoing.properties;
    if outgoing.mandatory {
        let mut headers = properties.headers().clone().unwrap_or_default();
        // Numbers stay far below the 63 bits of the type.
        let value = AMQPValue::LongLongInt(number.cast_signed());
        headers.insert(NUMBER_HEADER.into(), value);
        properties = properties.with_headers(headers);
    }
    let options = BasicPublishOptions { mandatory: outgoing.mandatory, immediate: false };
    let sent = channel.basic_publish(
        outgoing.exchange.clone(),
        outgoing.routing_key,
        options,
        (*outgoing.payload).as_ref(),
        properties,
    );
    let result = match sent.await {
        Ok(confirm) => confirm.await,
        Err(error) => Err(error),
    };
    Landed { number, exchange: outgoing.exchange, result, answer }
}

fn decide(batch: Vec<Landed>, returned: &mut HashSet<u64>) {
    let carried: Vec<_> = batch.iter().map(|landed| carried_return(&landed.result)).collect();
    returned.extend(carried.iter().flatten());
    for (landed, carried) in batch.into_iter().zip(carried) {
        let outcome = if returned.remove(&landed.number) {
            Err(Failed::Told(AmqpError::NotFound("no queue took the message".to_owned())))
        } else {
            outcome(&landed, carried)
        };
        // The caller may have given up.
        let _gone = landed.answer.send(outcome);
    }
}

fn outcome(landed: &Landed, carried: Option<u64>) -> Result<(), Failed> {
    let unavailable = |why: &str| Err(Failed::Told(AmqpError::Unavailable(why.to_owned())));
    match &landed.result {
        // Returns are handed out in message order. An older return may stand before this message's own, which
        // is then still to come.
        Ok(Confirmation::Ack(_)) if carried.is_some_and(|other| other < landed.number) => {
            unavailable("the broker's confirm was not clear")
        }
        Ok(Confirmation::Ack(_)) => Ok(()),
        Ok(Confirmation::Nack(_)) => {
            unavailable("the broker did not take the message: its queue is full or has no leader")
        }
        Ok(Confirmation::NotRequested) => unavailable("the channel gives no confirms"),
        Err(error) => Err(match AmqpError::from_lapin(error) {
            AmqpError::Unavailable(why) => Failed::Lost(AmqpError::Unavailable(why)),
            // A channel error ends all messages in flight on it, but only the message that it names caused
            // it.
            AmqpError::NotFound(why) | AmqpError::Refused(why)
                if !why.contains(&format!("'{}'", landed.exchange)) =>
            {
                Failed::Lost(AmqpError::Unavailable(why))
            }
            error => Failed::Told(error),
        }),
    }
}

/// The number of the message that came back with this confirm.
fn carried_return(result: &Result<Confirmation, lapin::Error>) -> Option<u64> {
    let Ok(Confirmation::Ack(Some(message)) | Confirmation::Nack(Some(message))) = result else {
        return None;
    };
    let headers = message.delivery.properties.headers().as_ref()?;
    number(headers)
}

fn number(headers: &FieldTable) -> Option<u64> {
    match headers.inner().get(NUMBER_HEADER)? {
        AMQPValue::LongLongInt(number) => Some(number.cast_unsigned()),
        _ => None,
    }
}
