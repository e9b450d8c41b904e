//! The broker port: consume, publish, settle. Queues only wake work up; the database is the truth.
//!
//! Every adapter keeps these promises (one conformance suite checks them):
//! a published message is durable when `publish` returns; a message is delivered again until it is
//! acknowledged; no delivery is lost when a consumer dies; a delayed message comes back not before its delay;
//! a message returned more than [`retouch_shared::topology::DELIVERY_LIMIT`] times is dead.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use thiserror::Error;

pub mod embedded;
pub mod rabbitmq;
pub mod supervise;

/// A work queue, by meaning; the adapter knows its name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Queue {
    /// Tasks from producers.
    Tasks,
    /// The edits of one lane.
    Edits {
        /// The lane's name.
        lane: String,
    },
    /// Messages that cannot be worked on, on their way into the `dead_letters` table.
    Dead,
}

/// Where a published message goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// A work queue, at once. It must exist: an unroutable message is an error.
    Queue(Queue),
    /// A work queue, after a delay (rounded up to a rung of the wait ladder).
    Delayed(Queue, Duration),
    /// The events exchange, with this routing key. An event without listeners is not an error.
    Event(String),
    /// A producer's reply queue, by name. A missing queue is [`BrokerError::NoSuchQueue`].
    Reply(String),
}

/// Our own headers, carried from publish to delivery. Names are lower case and start with `x-retouch-`,
/// except [`TRACEPARENT`] and [`TRACESTATE`]. The broker's headers (`x-death`, …) are read by the adapter and
/// never published again.
pub type Headers = BTreeMap<String, String>;

/// How often this message has been tried and delayed, in decimal.
pub const ATTEMPT: &str = "x-retouch-attempt";
/// The last error, for people.
pub const ERROR: &str = "x-retouch-error";
/// Why a message is dead: a reason code.
pub const REASON: &str = "x-retouch-reason";
/// The queue that a dead message comes from.
pub const ORIGIN: &str = "x-retouch-origin";
/// The trace that a message belongs to, and the span that sent it (W3C Trace Context).
pub const TRACEPARENT: &str = "traceparent";
/// Additions of tracing systems to it.
pub const TRACESTATE: &str = "tracestate";
/// The dead letter that this message retries, as [`crate::store::LetterRef`] writes it.
pub const LETTER: &str = "x-retouch-letter";

/// A message to publish.
#[derive(Debug, Clone)]
pub struct Message {
    /// The body.
    pub payload: Bytes,
    /// Our own headers.
    pub headers: Headers,
    /// Queue for the reply with the outcome.
    pub reply_to: Option<String>,
    /// Returned with the reply.
    pub correlation_id: Option<String>,
    /// Set on events (the event id) so that consumers can drop repeats.
    pub message_id: Option<String>,
}

impl Message {
    /// A JSON message without headers.
    pub fn new(payload: impl Into<Bytes>) -> Self {
        Self {
            payload: payload.into(),
            headers: Headers::new(),
            reply_to: None,
            correlation_id: None,
            message_id: None,
        }
    }
}

/// A delivered message. Dropped unsettled (a handler panicked or was aborted) it returns to the queue at
/// once, which counts as a return. It outlives its consumer: it can be settled while the connection holds.
pub struct Delivery {
    /// The message.
    pub message: Message,
    /// Whether it may have been delivered before.
    pub redelivered: bool,
    /// Reason and queue of a dead-lettering by the broker itself (`delivery_limit`, `expired`, `rejected`,
    /// `maxlen`); only on [`Queue::Dead`].
    pub broker_death: Option<(String, String)>,
    /// Only `outcome::settle` may call it.
    pub settler: Box<dyn Settle>,
}

/// Settles one delivery.
#[async_trait]
pub trait Settle: Send + Sync {
    /// Acknowledges it. `false` means that the broker did not receive that (the channel is gone): the message
    /// will be delivered again.
    async fn ack(self: Box<Self>) -> bool;
    /// Returns it unworked at shutdown, for another consumer.
    async fn hand_back(self: Box<Self>) -> bool;
}

/// Deliveries of one consumer. Dropping it stops the consumer and returns prefetched deliveries.
#[async_trait]
pub trait Consumer: Send {
    /// The next delivery.
    ///
    /// # Errors
    /// After any error this consumer is finished: its deliveries come again unless their acknowledgement
    /// still succeeds, and `consume` must be called anew. There is no other end.
    async fn next(&mut self) -> Result<Delivery, BrokerError>;
    /// Returns when this consumer is lost, with the error that `next` would give; for use while all permits
    /// are taken.
    async fn lost(&mut self) -> BrokerError;
}

/// Why a broker operation failed.
#[derive(Debug, Error)]
pub enum BrokerError {
    /// Unreachable, or the broker ended the connection: try again later.
    #[error("the broker is unreachable: {0}")]
    Unavailable(String),
    /// The destination does not exist.
    #[error("no such queue: {0}")]
    NoSuchQueue(String),
    /// It exists with other arguments, or access is refused: a person must act; trying again does not help.
    #[error("{0}")]
    Misconfigured(String),
    /// The namespace belongs to another database. This process must not work on it until a person decides.
    #[error("the namespace {namespace} belongs to {}, and this database is installation {ours}", other(.theirs))]
    OtherInstallation {
        /// The namespace.
        namespace: String,
        /// The id of our database.
        ours: String,
        /// The id that the namespace is bound to; `None` if the broker does not report it.
        theirs: Option<String>,
    },
}

fn other(theirs: &Option<String>) -> String {
    theirs.as_ref().map_or_else(|| "another database".to_owned(), |id| format!("installation {id}"))
}

/// A broker.
#[async_trait]
pub trait Broker: Send + Sync {
    /// Binds the namespace to this installation (a database's id) unless it is bound already: the first wins.
    /// After another installation has taken it over, consumers and publishes of this process fail until it is
    /// bound to ours again.
    ///
    /// # Errors
    /// [`BrokerError::OtherInstallation`] where it belongs to another one.
    async fn bind(&self, installation: &str) -> Result<(), BrokerError>;

    /// Declares what is missing: exchanges, the task and dead queues, the wait ladder and one edits queue a lane.
    ///
    /// # Errors
    /// [`BrokerError::Misconfigured`] names, in one sentence, what exists with other arguments.
    async fn declare(&self, lanes: &[String]) -> Result<(), BrokerError>;

    /// Declares again a queue or an exchange that this process declared and that was deleted since. The
    /// events exchange is left alone: its listeners have to bind again, and events stay due until then.
    ///
    /// # Errors
    /// See [`Broker::declare`].
    async fn restore(&self) -> Result<(), BrokerError>;

    /// Publishes durably and returns when the broker has confirmed it.
    ///
    /// # Errors
    /// On any error the message may or may not have been published.
    async fn publish(&self, to: Destination, message: Message) -> Result<(), BrokerError>;

    /// Starts a consumer that holds at most `prefetch` unsettled deliveries.
    ///
    /// # Errors
    /// See [`BrokerError`].
    async fn consume(&self, queue: Queue, prefetch: u16) -> Result<Box<dyn Consumer>, BrokerError>;

    /// How many messages are ready in a queue.
    ///
    /// # Errors
    /// See [`BrokerError`].
    async fn depth(&self, queue: Queue) -> Result<u64, BrokerError>;

    /// Closes connections in order; unsettled deliveries go back.
    async fn close(&self);
}
