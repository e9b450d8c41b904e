//! The broker port on RabbitMQ 3.10 to 4.x.
//!
//! Publishers and consumers have a connection each, because a broker short of memory or disk stops reading
//! from connections that publish, and acknowledgements must still get through. Nothing recovers by itself: an
//! error ends its channel or connection, and the next call opens a new one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use lapin::options::QueueDeclareOptions;
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Connection};
use retouch_shared::amqp::{AmqpError, Link, Slot};
use retouch_shared::publisher::Publisher;
use retouch_shared::topology::Topology;
use tokio::sync::Mutex;

use super::{Broker, BrokerError, Consumer, Destination, Message, Queue};

mod acks;
mod binding;
mod consumer;
mod convert;
mod greeting;
mod prefetch;
mod restore;
mod rights;
pub mod topology;

pub use binding::Belongs;
pub use greeting::Greeting;
use prefetch::Prefetch;
use restore::Declared;
pub use rights::Rights;

/// For a connection to come up, and for the broker to answer one request.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// For the broker to confirm one message: a quorum queue writes it to disk on a majority of its members.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(15);
/// A busy broker that cannot assemble the members of a quorum queue within 5 s answers INTERNAL_ERROR and
/// closes the connection; earlier declarations stay.
const DECLARE_ATTEMPTS: u32 = 5;

/// RabbitMQ.
pub struct RabbitMq {
    topology: Topology,
    link: Link,
    publisher: Publisher,
    consuming: Slot<Arc<Connection>>,
    declared: Mutex<Declared>,
    /// The installation that this process works for.
    installation: OnceLock<String>,
    /// Set once the namespace is found bound to another installation.
    is_elsewhere: AtomicBool,
    closed: AtomicBool,
    /// Bound for prefetched tasks, and likewise for dead messages.
    max_bytes_ahead: usize,
}

impl RabbitMq {
    /// Connects to `amqp://…` or `amqps://…`.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`] if the broker does not answer, [`BrokerError::Misconfigured`] if the URL
    /// or the login is wrong.
    pub async fn connect(url: &str, topology: Topology) -> Result<Self, BrokerError> {
        let this = Self::lazy(url, topology)?;
        this.connection().await.map_err(convert::error)?;
        Ok(this)
    }

    /// Connects when it is first needed.
    ///
    /// # Errors
    /// [`BrokerError::Misconfigured`] where the URL cannot be used.
    pub fn lazy(url: &str, topology: Topology) -> Result<Self, BrokerError> {
        let link = Link::new(url, CONNECT_TIMEOUT).map_err(convert::error)?;
        let publisher = Publisher::new(link.clone(), "retouch publisher", CONFIRM_TIMEOUT);
        Ok(Self {
            topology,
            link,
            publisher,
            consuming: Slot::default(),
            declared: Mutex::default(),
            installation: OnceLock::new(),
            is_elsewhere: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            max_bytes_ahead: usize::MAX,
        })
    }

    /// Limits prefetched tasks, and likewise dead messages, to about this many bytes.
    #[must_use]
    pub fn with_bytes_ahead(self, max_bytes_ahead: usize) -> Self {
        Self { max_bytes_ahead, ..self }
    }

    /// Compares existing declarations with the needed ones, and changes nothing.
    ///
    /// # Errors
    /// See [`BrokerError`]; a difference is not an error but a finding.
    pub async fn check(
        &self,
        lanes: &[String],
        installation: Option<&str>,
    ) -> Result<Vec<topology::Finding>, BrokerError> {
        let connection = self.connection().await.map_err(convert::error)?;
        let plan = topology::Plan::new(&self.topology, lanes).bound_to(&self.topology, installation);
        topology::check(&connection, &plan).await
    }

    /// The owner of the namespace, without changing anything. `installation`: `None` if the database has no
    /// id yet.
    ///
    /// # Errors
    /// See [`BrokerError`].
    pub async fn belongs(&self, installation: Option<&str>) -> Result<Belongs, BrokerError> {
        let connection = self.connection().await.map_err(convert::error)?;
        binding::look(&connection, &self.topology, installation).await
    }

    /// Binds the namespace to this installation, even if it belongs to another one.
    ///
    /// # Errors
    /// See [`BrokerError`].
    pub async fn rebind(&self, installation: &str) -> Result<(), BrokerError> {
        let connection = self.connection().await.map_err(convert::error)?;
        binding::rebind(&connection, &self.topology, installation).await
    }

    /// Host, port and virtual host, for people.
    pub fn place(&self) -> String {
        format!("{}, virtual host {}", self.link.address(), self.link.vhost())
    }

    /// Whether the broker can be reached.
    ///
    /// # Errors
    /// See [`BrokerError`].
    pub async fn reach(&self) -> Result<(), BrokerError> {
        self.connection().await.map(drop).map_err(convert::error)
    }

    /// Product and version of the broker; `None` if the peer does not greet like one.
    ///
    /// # Errors
    /// See [`BrokerError`].
    pub async fn greeting(&self) -> Result<Option<Greeting>, BrokerError> {
        greeting::greeting(&self.link).await.map_err(convert::error)
    }

    /// Rights of this login, tried on a connection of their own.
    ///
    /// # Errors
    /// See [`BrokerError`]; a missing right is not an error but an answer.
    pub async fn rights(&self) -> Result<Rights, BrokerError> {
        let connection = self.link.connect("retouch doctor").await.map_err(convert::error)?;
        rights::rights(&connection, &self.topology).await
    }

    async fn connection(&self) -> Result<Arc<Connection>, AmqpError> {
        self.ensure_open()?;
        let usable = |connection: &Arc<Connection>| connection.status().connected();
        let open = async { Ok(Arc::new(self.link.connect("retouch consumer").await?)) };
        self.consuming.get(usable, open).await
    }

    async fn channel(&self) -> Result<Channel, AmqpError> {
        let connection = self.connection().await?;
        match tokio::time::timeout(CONNECT_TIMEOUT, connection.create_channel()).await {
            Ok(channel) => channel.map_err(|error| AmqpError::from_lapin(&error)),
            Err(_elapsed) => {
                // A connection without an answer may stay open for long: the next attempt takes a new one.
                if let Some(dead) = self.consuming.take_if(|open| Arc::ptr_eq(open, &connection)).await {
                    tokio::spawn(async move { dead.close(200, "OK".into()).await });
                }
                Err(AmqpError::Unavailable("the broker does not answer".to_owned()))
            }
        }
    }

    async fn end_consumers(&self) {
        if let Some(connection) = self.consuming.take_if(|_| true).await {
            let close = connection.close(200, "OK".into());
            // The process's end closes it anyway; the broker gives the deliveries back either way.
            let _late = tokio::time::timeout(CONNECT_TIMEOUT, close).await;
        }
    }

    fn ensure_open(&self) -> Result<(), AmqpError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(AmqpError::Unavailable("this broker was closed".to_owned()));
        }
        Ok(())
    }
}

#[async_trait]
impl Broker for RabbitMq {
    async fn declare(&self, lanes: &[String]) -> Result<(), BrokerError> {
        let plan = topology::Plan::new(&self.topology, lanes);
        let mut attempt = 1;
        loop {
            let connection = self.connection().await.map_err(convert::error)?;
            match topology::declare(&connection, &plan).await {
                Err(BrokerError::Unavailable(why)) if attempt < DECLARE_ATTEMPTS => {
                    tracing::info!(why, attempt, "declaring again");
                    attempt += 1;
                }
                done => {
                    done?;
                    self.declared.lock().await.note(lanes);
                    return Ok(());
                }
            }
        }
    }

    async fn restore(&self) -> Result<(), BrokerError> {
        self.restore_missing().await
    }

    async fn bind(&self, installation: &str) -> Result<(), BrokerError> {
        let ours = self.installation.get_or_init(|| installation.to_owned());
        let connection = self.connection().await.map_err(convert::error)?;
        let bound = tokio::time::timeout(CONNECT_TIMEOUT, binding::bind(&connection, &self.topology, ours));
        let bound = bound.await.unwrap_or_else(|_elapsed| {
            Err(BrokerError::Unavailable("the broker does not answer".to_owned()))
        });
        match &bound {
            Ok(()) => self.is_elsewhere.store(false, Ordering::Release),
            Err(BrokerError::OtherInstallation { .. }) => {
                // The queues belong to the other installation: our consumers end with their connection.
                if !self.is_elsewhere.swap(true, Ordering::AcqRel) {
                    self.end_consumers().await;
                }
            }
            Err(
                BrokerError::Unavailable(_) | BrokerError::NoSuchQueue(_) | BrokerError::Misconfigured(_),
            ) => {}
        }
        bound
    }

    async fn publish(&self, to: Destination, message: Message) -> Result<(), BrokerError> {
        self.ensure_open().map_err(convert::error)?;
        if self.is_elsewhere.load(Ordering::Acquire) {
            return Err(BrokerError::OtherInstallation {
                namespace: self.topology.exchange().to_owned(),
                ours: self.installation.get().cloned().unwrap_or_default(),
                theirs: None,
            });
        }
        let outgoing = convert::outgoing(&self.topology, &to, message)?;
        let began = Instant::now();
        let sent = match self.publisher.publish(&outgoing).await {
            Err(AmqpError::NotFound(_)) if self.restored(&to, began).await => {
                self.publisher.publish(&outgoing).await
            }
            sent => sent,
        };
        sent.map_err(|error| match error {
            AmqpError::NotFound(_) => BrokerError::NoSuchQueue(convert::target(&self.topology, &to)),
            error => convert::error(error),
        })
    }

    async fn consume(&self, queue: Queue, prefetch: u16) -> Result<Box<dyn Consumer>, BrokerError> {
        // At every restart of a consumer: the namespace may have been given to another database meanwhile,
        // and a broker that lost its data is bound again.
        if let Some(installation) = self.installation.get() {
            self.bind(installation).await?;
        }
        let name = convert::short(&convert::queue_name(&self.topology, &queue))?;
        let channel = self.channel().await.map_err(convert::error)?;
        let prefetch = match queue {
            Queue::Tasks | Queue::Dead => Prefetch::new(prefetch, self.max_bytes_ahead),
            // Edit messages: about a hundred bytes each.
            Queue::Edits { .. } => Prefetch::fixed(prefetch),
        };
        let consumer = consumer::RabbitConsumer::start(channel, name, &queue, prefetch).await?;
        Ok(Box::new(consumer))
    }

    async fn depth(&self, queue: Queue) -> Result<u64, BrokerError> {
        let name = convert::short(&convert::queue_name(&self.topology, &queue))?;
        let channel = self.channel().await.map_err(convert::error)?;
        let declared = passive(&channel, name).await.map_err(convert::error)?;
        Ok(u64::from(declared.message_count()))
    }

    async fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.publisher.close().await;
        self.end_consumers().await;
    }
}

/// Asks the broker about a queue. A missing queue ends the channel.
async fn passive(channel: &Channel, name: ShortString) -> Result<lapin::Queue, AmqpError> {
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let asked = channel.queue_declare(name, options, FieldTable::default());
    match tokio::time::timeout(CONNECT_TIMEOUT, asked).await {
        Ok(answer) => answer.map_err(|error| AmqpError::from_lapin(&error)),
        Err(_elapsed) => Err(AmqpError::Unavailable("the broker does not answer".to_owned())),
    }
}
