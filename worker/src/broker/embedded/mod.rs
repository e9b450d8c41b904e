//! The broker port in the SQLite file: for a laptop, a demo and tests, not for many machines.
//!
//! It keeps the same promises as RabbitMQ. A claim holds a message and expires unless it is renewed, so
//! messages of a killed process come back; several processes may share the file. A message from this process
//! wakes its consumer at once, one from another process when the change of the file is noticed.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use retouch_shared::topology::Topology;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqliteSynchronous};
use sqlx::{ConnectOptions, SqliteConnection};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::writer::{Answer, Held, Write};
use super::{Broker, BrokerError, Consumer, Destination, Message, Queue};

mod consumer;
mod sql;
mod writer;

/// How often to check the file for changes by other processes.
const LOOK: Duration = Duration::from_millis(200);
/// How long to wait for other writers of the file, the store's among them.
const BUSY: Duration = Duration::from_secs(15);

/// The embedded broker. Its tables come with the migrations.
pub struct Embedded {
    inner: Arc<Inner>,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// Bound for claimed tasks, and likewise for dead messages.
    max_bytes_ahead: usize,
}

struct Inner {
    names: Topology,
    /// None once the broker is closed.
    writes: Mutex<Option<mpsc::UnboundedSender<Write>>>,
    reader: tokio::sync::Mutex<SqliteConnection>,
    held: Arc<Held>,
    changed: Arc<watch::Sender<()>>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Embedded {
    /// Opens the file at `path`, which must exist.
    ///
    /// # Errors
    /// See [`BrokerError`].
    pub async fn open(path: &Path) -> Result<Self, BrokerError> {
        Self::connect(SqliteConnectOptions::new().filename(path)).await
    }

    /// Opens the file of `pool` with connections of its own. (Not for databases in memory: each connection
    /// has its own.)
    ///
    /// # Errors
    /// See [`BrokerError`].
    pub async fn beside(pool: &SqlitePool) -> Result<Self, BrokerError> {
        Self::connect(pool.connect_options().as_ref().clone()).await
    }

    async fn connect(options: SqliteConnectOptions) -> Result<Self, BrokerError> {
        let options = options
            .journal_mode(SqliteJournalMode::Wal)
            // A published message is on disk: in WAL mode NORMAL could lose the last transactions.
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY);
        let connection = options.connect().await.map_err(|error| failure(&error))?;
        let reader = options.connect().await.map_err(|error| failure(&error))?;
        let names = Topology::default();
        let (writes, queue) = mpsc::unbounded_channel();
        let held = Arc::new(Held::default());
        let changed = Arc::new(watch::Sender::new(()));
        let run = writer::run(connection, queue, Arc::clone(&held), Arc::clone(&changed), names.dead_queue());
        let inner = Arc::new(Inner {
            names,
            writes: Mutex::new(Some(writes)),
            reader: tokio::sync::Mutex::new(reader),
            held,
            changed,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        inner.tasks.spawn(look(Arc::clone(&inner)));
        Ok(Self { inner, writer: Mutex::new(Some(tokio::spawn(run))), max_bytes_ahead: usize::MAX })
    }

    /// Claims no further task while unsettled tasks have this many bytes, and likewise dead messages.
    #[must_use]
    pub fn with_bytes_ahead(mut self, max_bytes_ahead: usize) -> Self {
        self.max_bytes_ahead = max_bytes_ahead;
        self
    }
}

/// Wakes the consumers when another process has written to the file.
async fn look(inner: Arc<Inner>) {
    let mut last = None;
    let watch = async {
        loop {
            // The consumers read the file too and report the error.
            if let Ok(version) = sql::data_version(&mut *inner.reader.lock().await).await
                && last.replace(version) != Some(version)
            {
                inner.changed.send_replace(());
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::select! {
        () = inner.stop.cancelled() => {}
        () = watch => {}
    }
}

impl Inner {
    /// Sends a write and waits for its answer.
    async fn write<T>(&self, write: impl FnOnce(Answer<T>) -> Write) -> Result<T, BrokerError> {
        let (answer, answered) = oneshot::channel();
        self.send(write(answer))?;
        answered.await.map_err(|_dropped| closed())?.map_err(|error| failure(&error))
    }

    fn send(&self, write: Write) -> Result<(), BrokerError> {
        let writes = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        let writes = writes.as_ref().ok_or_else(closed)?;
        writes.send(write).map_err(|_unsent| closed())
    }

    fn queue_name(&self, queue: &Queue) -> String {
        match queue {
            Queue::Tasks => self.names.tasks_queue(),
            Queue::Edits { lane } => self.names.edits_queue(lane),
            Queue::Dead => self.names.dead_queue(),
        }
    }

    async fn depth(&self, queue: &str) -> Result<u64, BrokerError> {
        if self.stop.is_cancelled() {
            return Err(closed());
        }
        let depth = sql::depth(&mut *self.reader.lock().await, queue).await;
        match depth.map_err(|error| failure(&error))? {
            Some(depth) => Ok(u64::try_from(depth).unwrap_or(0)),
            None => Err(BrokerError::NoSuchQueue(queue.to_owned())),
        }
    }
}

#[async_trait]
impl Broker for Embedded {
    /// Its queues are in the database file itself.
    async fn bind(&self, _installation: &str) -> Result<(), BrokerError> {
        Ok(())
    }

    async fn declare(&self, lanes: &[String]) -> Result<(), BrokerError> {
        let edits = lanes.iter().map(|lane| Queue::Edits { lane: lane.clone() });
        let queues = [Queue::Tasks, Queue::Dead].into_iter().chain(edits);
        let queues = queues.map(|queue| self.inner.queue_name(&queue)).collect();
        self.inner.write(|answer| Write::Declare { queues, answer }).await
    }

    /// Queues are rows, which only a migration removes.
    async fn restore(&self) -> Result<(), BrokerError> {
        Ok(())
    }

    async fn publish(&self, to: Destination, message: Message) -> Result<(), BrokerError> {
        let (queue, delay, required) = match to {
            Destination::Queue(queue) => (self.inner.queue_name(&queue), Duration::ZERO, true),
            Destination::Delayed(queue, delay) => (self.inner.queue_name(&queue), delay, true),
            // Events and replies have a queue here only if one of that name was created.
            Destination::Event(key) => (key, Duration::ZERO, false),
            Destination::Reply(name) => (name, Duration::ZERO, true),
        };
        let name = queue.clone();
        let published = self.inner.write(|answer| Write::Publish { queue, message, delay, answer }).await?;
        if published || !required { Ok(()) } else { Err(BrokerError::NoSuchQueue(name)) }
    }

    async fn consume(&self, queue: Queue, prefetch: u16) -> Result<Box<dyn Consumer>, BrokerError> {
        let name = self.inner.queue_name(&queue);
        self.inner.depth(&name).await?;
        let max_bytes = match queue {
            Queue::Tasks | Queue::Dead => self.max_bytes_ahead,
            // Edit messages: about a hundred bytes each.
            Queue::Edits { .. } => usize::MAX,
        };
        Ok(Box::new(consumer::start(&self.inner, name, prefetch, max_bytes)))
    }

    async fn depth(&self, queue: Queue) -> Result<u64, BrokerError> {
        self.inner.depth(&self.inner.queue_name(&queue)).await
    }

    async fn close(&self) {
        self.inner.stop.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
        for (id, owner) in self.inner.held.take_all() {
            let (answer, _nobody_waits) = oneshot::channel();
            let _closed_before = self.inner.send(Write::GiveBack { id, owner, answer });
        }
        self.inner.writes.lock().unwrap_or_else(PoisonError::into_inner).take();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            let _done = writer.await;
        }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.inner.stop.cancel();
    }
}

fn closed() -> BrokerError {
    BrokerError::Unavailable("this broker was closed".to_owned())
}

fn failure(error: &sqlx::Error) -> BrokerError {
    let text = error.to_string();
    if text.contains("no such table") {
        return BrokerError::Misconfigured(
            "the SQLite file has no tables of the broker: migrate it first".to_owned(),
        );
    }
    BrokerError::Unavailable(text)
}
