//! All writes of one embedded broker, one after the other on one connection.
//!
//! Concurrent writes share a transaction, and so the wait for the disk; a process never waits for its own
//! lock on the file.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::{Connection, SqliteConnection};
use tokio::sync::{mpsc, oneshot, watch};

use super::sql::{self, Claimed};
use crate::broker::Message;

/// Most writes in one transaction.
const BATCH: usize = 256;
/// How often claims are renewed: three times before a claim would expire.
const RENEW: Duration = Duration::from_secs(20);

/// One write and the channel of its answer. A write whose caller is gone is still done.
pub(super) enum Write {
    Declare { queues: Vec<String>, answer: Answer<()> },
    Publish { queue: String, message: Message, delay: Duration, answer: Answer<bool> },
    Claim { queue: String, owner: String, most: i64, most_bytes: i64, answer: Answer<Vec<Claimed>> },
    Acknowledge { id: i64, owner: String, answer: Answer<bool> },
    GiveBack { id: i64, owner: String, answer: Answer<bool> },
}

pub(super) type Answer<T> = oneshot::Sender<Result<T, Arc<sqlx::Error>>>;

/// Claims of this broker's deliveries: the owner by message.
#[derive(Default)]
pub(super) struct Held(Mutex<HashMap<i64, String>>);

impl Held {
    fn lock(&self) -> MutexGuard<'_, HashMap<i64, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, id: i64, owner: &str) {
        self.lock().insert(id, owner.to_owned());
    }

    pub(super) fn remove(&self, id: i64, owner: &str) {
        let mut held = self.lock();
        // A later claim may hold the message by now.
        if held.get(&id).is_some_and(|holder| holder == owner) {
            held.remove(&id);
        }
    }

    pub(super) fn take_all(&self) -> HashMap<i64, String> {
        std::mem::take(&mut *self.lock())
    }

    fn has(&self, id: i64, owner: &str) -> bool {
        self.lock().get(&id).is_some_and(|holder| holder == owner)
    }

    /// The owners as a JSON array, or `None` without claims.
    fn owners(&self) -> Option<String> {
        let held = self.lock();
        let owners: BTreeSet<_> = held.values().collect();
        (!owners.is_empty()).then(|| serde_json::json!(owners).to_string())
    }
}

/// Runs until every sender is gone, then closes the connection.
pub(super) async fn run(
    mut connection: SqliteConnection,
    mut writes: mpsc::UnboundedReceiver<Write>,
    held: Arc<Held>,
    changed: Arc<watch::Sender<()>>,
    dead: String,
) {
    let mut renew = tokio::time::interval(RENEW);
    renew.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let mut batch = Vec::new();
        tokio::select! {
            count = writes.recv_many(&mut batch, BATCH) => {
                if count == 0 {
                    break;
                }
                write(&mut connection, batch, &held, &dead).await;
                changed.send_replace(());
            }
            _ = renew.tick() => {
                // Two more renewals are tried before a claim expires.
                if let Some(owners) = held.owners()
                    && let Err(error) = sql::renew(&mut connection, &owners).await
                {
                    tracing::warn!(%error, "cannot renew the claims on messages");
                }
            }
        }
    }
    let _closed = connection.close().await;
}

/// Reports the result to one caller; called after the commit.
type Tell = Box<dyn FnOnce(Option<&Arc<sqlx::Error>>) + Send>;

async fn write(connection: &mut SqliteConnection, batch: Vec<Write>, held: &Held, dead: &str) {
    let mut transaction = match connection.begin_with("BEGIN IMMEDIATE").await {
        Ok(transaction) => transaction,
        Err(error) => {
            let error = Arc::new(error);
            return batch.into_iter().map(refuse).for_each(|tell| tell(Some(&error)));
        }
    };
    let mut tell: Vec<Tell> = Vec::with_capacity(batch.len());
    let mut failed = None;
    for write in batch {
        match &failed {
            None => failed = apply(&mut transaction, write, held, dead, &mut tell).await.err(),
            // The failed transaction was rolled back as a whole.
            Some(_) => tell.push(refuse(write)),
        }
    }
    let done = match failed {
        None => transaction.commit().await,
        Some(error) => transaction.rollback().await.and(Err(error)),
    };
    let failed = done.err().map(Arc::new);
    for tell in tell {
        tell(failed.as_ref());
    }
}

/// Runs one write inside the transaction and queues the report to its caller.
async fn apply(
    connection: &mut SqliteConnection,
    write: Write,
    held: &Held,
    dead: &str,
    tell: &mut Vec<Tell>,
) -> sqlx::Result<()> {
    match write {
        Write::Declare { queues, answer } => {
            let mut done = Ok(());
            for queue in &queues {
                done = done.and(sql::declare(connection, queue).await);
            }
            settle(tell, answer, done)
        }
        Write::Publish { queue, message, delay, answer } => {
            let done = sql::insert(connection, &queue, &message, delay).await;
            settle(tell, answer, done)
        }
        Write::Claim { queue, owner, most, most_bytes, answer } => {
            let done = match free(connection, held, dead).await {
                Ok(()) => sql::claim(connection, &queue, &owner, most, most_bytes).await,
                Err(error) => Err(error),
            };
            settle(tell, answer, done)
        }
        Write::Acknowledge { id, owner, answer } => {
            let done = sql::acknowledge(connection, id, &owner).await;
            settle(tell, answer, done)
        }
        Write::GiveBack { id, owner, answer } => {
            let done = sql::give_back(connection, id, &owner, dead).await;
            settle(tell, answer, done)
        }
    }
}

/// Gives back messages with expired claims before claiming others. Our own claims are kept: this process may
/// have slept with its machine, and goes on working.
async fn free(connection: &mut SqliteConnection, held: &Held, dead: &str) -> sqlx::Result<()> {
    let expired = sql::expired(connection).await?;
    let (ours, lost): (Vec<_>, Vec<_>) = expired.into_iter().partition(|(id, owner)| held.has(*id, owner));
    if let (false, Some(owners)) = (ours.is_empty(), held.owners()) {
        sql::renew(connection, &owners).await?;
    }
    for (id, owner) in lost {
        tracing::info!(id, "giving back a message whose process is gone");
        sql::give_back(connection, id, &owner, dead).await?;
    }
    Ok(())
}

fn settle<T: Send + 'static>(
    tell: &mut Vec<Tell>,
    answer: Answer<T>,
    done: sqlx::Result<T>,
) -> sqlx::Result<()> {
    match done {
        Ok(done) => {
            tell.push(Box::new(move |failed| {
                let _gone = answer.send(failed.map_or(Ok(done), |error| Err(Arc::clone(error))));
            }));
            Ok(())
        }
        Err(error) => {
            tell.push(refusal(answer));
            Err(error)
        }
    }
}

fn refuse(write: Write) -> Tell {
    match write {
        Write::Declare { answer, .. } => refusal(answer),
        Write::Claim { answer, .. } => refusal(answer),
        Write::Publish { answer, .. }
        | Write::Acknowledge { answer, .. }
        | Write::GiveBack { answer, .. } => refusal(answer),
    }
}

fn refusal<T: Send + 'static>(answer: Answer<T>) -> Tell {
    Box::new(move |failed| {
        if let Some(error) = failed {
            let _gone = answer.send(Err(Arc::clone(error)));
        }
    })
}
