//! The producer client: publishes tasks with confirms, waits for their events, cancels tasks.
//!
//! `publish` returns once the task is durable, or fails. After an error the task may be published again under
//! the same `task_id`: the worker answers every copy and pays once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use lapin::options::{BasicConsumeOptions, QueueDeclareOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Connection, Consumer};
use serde::Serialize;
use tokio::sync::oneshot;

use crate::amqp::{AmqpError, Link, Slot};
use crate::cancel::Cancel;
use crate::event::Event;
use crate::publisher::{Outgoing, Publisher};
use crate::task::{Invalid, Task};
use crate::topology::{TASKS_KEY, Topology};
use crate::wire::{CancelMessage, TaskMessage, VERSION};

/// How long to wait for the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection to come up; 10 s by default.
    pub connect: Duration,
    /// For the broker to confirm that it has a message on disk; 15 s by default.
    pub confirm: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(10), confirm: Duration::from_secs(15) }
    }
}

/// Why a task was not published, or not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProducerError {
    /// Correct the message: it names the field and the fix. Nothing was sent.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// Publish again later, under the same `task_id`: the broker is not reachable or did not confirm.
    #[error("the broker is unreachable: {0}")]
    Unavailable(String),
    /// Start a worker, or check the namespace: no worker has declared the task queue.
    #[error("there is no queue {0}: no worker has run in this namespace yet")]
    NoSuchQueue(String),
    /// Correct URL, login or rights.
    #[error("{0}")]
    Refused(String),
    /// Wait longer, or publish again under the same `task_id` to be answered again: the task was accepted, and its event has not
    /// come within this time.
    #[error("the task was published; its event has not come within {0:?}")]
    NoAnswer(Duration),
    /// Use a newer version of this library: the event cannot be read.
    #[error("the event cannot be read: {0}")]
    Unreadable(String),
}

/// Publishes tasks over a connection that it keeps and reopens after an error. Share one instance between
/// concurrent callers.
pub struct Producer {
    topology: Topology,
    link: Link,
    publisher: Publisher,
    replies: Slot<Arc<Replies>>,
}

impl Producer {
    /// A producer for the workers that use this broker and these names. `amqp_url` is `amqp://…` or `amqps://…`;
    /// it connects with the first message.
    ///
    /// # Errors
    /// [`ProducerError::Refused`] where the URL cannot be used.
    pub fn new(amqp_url: &str, topology: Topology, timeouts: Timeouts) -> Result<Self, ProducerError> {
        let link = Link::new(amqp_url, timeouts.connect).map_err(failure)?;
        let publisher = Publisher::new(link.clone(), "retouch producer", timeouts.confirm);
        Ok(Self { topology, link, publisher, replies: Slot::default() })
    }

    /// As [`Producer::new`], and connects now, so that a wrong URL or login shows at once.
    ///
    /// # Errors
    /// [`ProducerError::Refused`] and [`ProducerError::Unavailable`].
    pub async fn connect(
        amqp_url: &str,
        topology: Topology,
        timeouts: Timeouts,
    ) -> Result<Self, ProducerError> {
        let this = Self::new(amqp_url, topology, timeouts)?;
        this.publisher.connect().await.map_err(failure)?;
        Ok(this)
    }

    /// Validates and publishes a task, and returns when the broker has it on disk.
    ///
    /// # Errors
    /// See [`ProducerError`].
    pub async fn publish(&self, task: &TaskMessage) -> Result<(), ProducerError> {
        self.send(task, BasicProperties::default()).await
    }

    /// Cancels a task, and returns when the broker has the cancel on disk. The task's event says the outcome:
    /// images answered before the cancel keep their results, and a task that had already ended has its event
    /// published again.
    ///
    /// # Errors
    /// See [`ProducerError`].
    pub async fn cancel(&self, task_id: &str) -> Result<(), ProducerError> {
        let payload = encode(&CancelMessage { v: VERSION, cancel: task_id.to_owned() })?;
        Cancel::decode(&payload)?;
        self.send_bytes(payload, BasicProperties::default()).await
    }

    /// As [`Producer::publish`], then waits for the task's event for at most `timeout` from then on.
    ///
    /// # Errors
    /// See [`ProducerError`]. A failed task is an event, not an error.
    pub async fn publish_and_wait(
        &self,
        task: &TaskMessage,
        timeout: Duration,
    ) -> Result<Event, ProducerError> {
        // Before anything is opened: a bad message needs no broker.
        Task::decode(&encode(task)?)?;
        let usable = |replies: &Arc<Replies>| !replies.waiting().ended;
        let replies = self.replies.get(usable, Replies::open(&self.link)).await.map_err(failure)?;
        let mut answer = replies.expect(&task.task_id);
        // The id was validated: it is short.
        let properties = BasicProperties::default()
            .with_reply_to(replies.queue.clone())
            .with_correlation_id(task.task_id.as_str().into());
        self.send(task, properties).await?;
        match tokio::time::timeout(timeout, &mut answer.event).await {
            Ok(Ok(payload)) => {
                serde_json::from_slice(&payload).map_err(|error| ProducerError::Unreadable(error.to_string()))
            }
            Ok(Err(_dropped)) => Err(ProducerError::Unavailable(
                "the connection was lost while the task was under way".to_owned(),
            )),
            Err(_elapsed) => Err(ProducerError::NoAnswer(timeout)),
        }
    }

    /// Waits for publishes in flight, then closes the connections. Calls that still wait for events end.
    pub async fn close(&self) {
        self.publisher.close().await;
        if let Some(replies) = self.replies.take_if(|_| true).await {
            let _closed = replies.connection.close(200, "OK".into()).await;
        }
    }

    async fn send(&self, task: &TaskMessage, properties: BasicProperties) -> Result<(), ProducerError> {
        let payload = encode(task)?;
        Task::decode(&payload)?;
        self.send_bytes(payload, properties).await
    }

    async fn send_bytes(&self, payload: Vec<u8>, properties: BasicProperties) -> Result<(), ProducerError> {
        let outgoing = Outgoing {
            exchange: self.topology.exchange().into(),
            routing_key: TASKS_KEY.into(),
            mandatory: true,
            payload: Arc::new(payload),
            properties: properties.with_delivery_mode(2).with_content_type("application/json".into()),
        };
        self.publisher.publish(&outgoing).await.map_err(|error| match error {
            AmqpError::NotFound(_) => ProducerError::NoSuchQueue(self.topology.tasks_queue()),
            error => failure(error),
        })
    }
}

fn encode(message: &impl Serialize) -> Result<Vec<u8>, ProducerError> {
    serde_json::to_vec(message).map_err(|error| {
        ProducerError::Invalid(Invalid::Field { field: "message".to_owned(), message: error.to_string() })
    })
}

fn failure(error: AmqpError) -> ProducerError {
    match error {
        AmqpError::Unavailable(why) => ProducerError::Unavailable(why),
        AmqpError::NotFound(what) => ProducerError::NoSuchQueue(what),
        AmqpError::Refused(why) => ProducerError::Refused(why),
    }
}

/// A private queue for events, and the calls that wait for each task. It ends with its connection.
struct Replies {
    connection: Connection,
    queue: ShortString,
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Default)]
struct Waiting {
    ended: bool,
    next: u64,
    /// By task id; the same task may be waited for more than once.
    calls: HashMap<String, HashMap<u64, oneshot::Sender<Vec<u8>>>>,
}

impl Replies {
    async fn open(link: &Link) -> Result<Arc<Self>, AmqpError> {
        let connection = link.connect("retouch producer, events").await?;
        let (queue, consumer) = consume(&connection).await.map_err(|error| AmqpError::from_lapin(&error))?;
        let waiting = Arc::new(Mutex::new(Waiting::default()));
        tokio::spawn(receive(consumer, Arc::clone(&waiting)));
        Ok(Arc::new(Self { connection, queue, waiting }))
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        lock(&self.waiting)
    }

    fn expect(&self, task_id: &str) -> Answer {
        let (send, event) = oneshot::channel();
        let mut waiting = self.waiting();
        let number = waiting.next;
        waiting.next += 1;
        // The connection ended meanwhile: the sender is dropped here, and the call fails as lost.
        if !waiting.ended {
            waiting.calls.entry(task_id.to_owned()).or_default().insert(number, send);
        }
        Answer { waiting: Arc::clone(&self.waiting), task_id: task_id.to_owned(), number, event }
    }
}

/// Exclusive, so that the broker removes it with the connection.
async fn consume(connection: &Connection) -> lapin::Result<(ShortString, Consumer)> {
    let channel = connection.create_channel().await?;
    let own = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
    let queue = channel.queue_declare("".into(), own, FieldTable::default()).await?;
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let name = queue.name().clone();
    let consumer = channel.basic_consume(name.clone(), "".into(), options, FieldTable::default());
    Ok((name, consumer.await?))
}

async fn receive(mut consumer: Consumer, waiting: Arc<Mutex<Waiting>>) {
    while let Some(Ok(delivery)) = consumer.next().await {
        let Some(id) = delivery.properties.correlation_id() else { continue };
        let calls = lock(&waiting).calls.remove(id.as_str()).unwrap_or_default();
        for call in calls.into_values() {
            let _gave_up = call.send(delivery.data.clone());
        }
    }
    let mut waiting = lock(&waiting);
    waiting.ended = true;
    waiting.calls.clear();
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One waiting call; removes itself when dropped.
struct Answer {
    waiting: Arc<Mutex<Waiting>>,
    task_id: String,
    number: u64,
    event: oneshot::Receiver<Vec<u8>>,
}

impl Drop for Answer {
    fn drop(&mut self) {
        let mut waiting = lock(&self.waiting);
        if let Some(calls) = waiting.calls.get_mut(&self.task_id) {
            calls.remove(&self.number);
            if calls.is_empty() {
                waiting.calls.remove(&self.task_id);
            }
        }
    }
}
