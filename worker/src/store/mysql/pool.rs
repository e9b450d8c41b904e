//! Connections, the one that was used last first.
//!
//! sqlx's pool lends its connections in turn: a worker with little to do goes through all that it ever opened, and each of
//! them is cold at both ends and prepares its statements first. So those at rest lie on a pile here, and the pool is asked
//! only where that is empty. The pool still limits their number and opens them; it gets back what was not needed for a while,
//! what is in doubt, and every connection now and then, and closes those that are old.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sqlx::MySql;
use sqlx::mysql::{MySqlConnection, MySqlPool};
use sqlx::pool::PoolConnection;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

/// What was not needed for so long goes back to the pool, which closes it later.
const REST: Duration = Duration::from_secs(60);
/// After so long the pool sees a connection again, and closes it where it has reached its age.
const LENT: Duration = Duration::from_secs(5 * 60);

/// The pool, and the pile on it.
pub(super) struct Pool {
    pool: MySqlPool,
    pile: Arc<Pile>,
}

impl Pool {
    pub(super) fn new(pool: MySqlPool) -> Self {
        Self { pool, pile: Arc::default() }
    }

    /// The connection that was used last, where one rests; how long it has is [`Lent::rested`].
    pub(super) async fn acquire(&self) -> Result<Lent, sqlx::Error> {
        let pile = Arc::clone(&self.pile);
        let _waiting = match self.pile.take() {
            Ok(Resting { connection, since, rests }) => {
                return Ok(Lent { connection, pile, since, rested: rests.elapsed() });
            }
            Err(waiting) => waiting,
        };
        // In a task of its own: a handshake polls deep, and the steps that need a connection stand deep on
        // their stack already.
        let asking = AbortOnDropHandle::new(tokio::spawn(self.pool.acquire().in_current_span()));
        let connection = asking.await.map_err(|_ended| sqlx::Error::WorkerCrashed)??;
        Ok(Lent { connection, pile, since: Instant::now(), rested: Duration::ZERO })
    }

    /// Closes those at rest: one of them did not answer, and the others most likely do not either.
    pub(super) fn close_resting(&self) {
        let resting = std::mem::take(&mut self.pile.lock().resting);
        for Resting { mut connection, .. } in resting {
            connection.close_on_drop();
        }
    }

    /// Closes all of them, when they are given back.
    pub(super) async fn close(&self) {
        let resting = {
            let mut pile = self.pile.lock();
            pile.closed = true;
            std::mem::take(&mut pile.resting)
        };
        drop(resting);
        self.pool.close().await;
    }
}

/// A connection that is in use.
pub(super) struct Lent {
    connection: PoolConnection<MySql>,
    pile: Arc<Pile>,
    /// When it was taken from the pool.
    since: Instant,
    rested: Duration,
}

impl Lent {
    /// How long nobody had used it.
    pub(super) const fn rested(&self) -> Duration {
        self.rested
    }

    /// Onto the pile. To be called when its last statement was answered well; otherwise it is dropped, and the pool asks whether it
    /// still works.
    pub(super) fn rest(self) {
        let resting = Resting { connection: self.connection, since: self.since, rests: Instant::now() };
        drop(self.pile.put(resting));
    }

    /// Closed instead of given back.
    pub(super) fn close(mut self) {
        self.connection.close_on_drop();
    }
}

impl Deref for Lent {
    type Target = MySqlConnection;

    fn deref(&self) -> &MySqlConnection {
        &self.connection
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut MySqlConnection {
        &mut self.connection
    }
}

/// A connection on the pile.
struct Resting {
    connection: PoolConnection<MySql>,
    since: Instant,
    /// Since when.
    rests: Instant,
}

#[derive(Default)]
struct Pile(Mutex<Piled>);

#[derive(Default)]
struct Piled {
    /// The last used last.
    resting: Vec<Resting>,
    /// How many wait for the pool; while anyone does, it is given everything back.
    waiting: usize,
    closed: bool,
}

impl Pile {
    fn lock(&self) -> MutexGuard<'_, Piled> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looked for and waited for under one lock: nothing can come to rest in between.
    fn take(self: &Arc<Self>) -> Result<Resting, Waiting> {
        let mut pile = self.lock();
        if let Some(resting) = pile.resting.pop() {
            return Ok(resting);
        }
        pile.waiting += 1;
        drop(pile);
        Err(Waiting(Arc::clone(self)))
    }

    /// Returns what goes back to the pool.
    fn put(&self, resting: Resting) -> Vec<Resting> {
        let now = resting.rests;
        let mut pile = self.lock();
        if pile.closed || pile.waiting > 0 || now.duration_since(resting.since) > LENT {
            return vec![resting];
        }
        pile.resting.push(resting);
        let unneeded = pile.resting.partition_point(|other| now.duration_since(other.rests) > REST);
        pile.resting.drain(..unneeded).collect()
    }
}

/// Counts as waiting until it is dropped.
struct Waiting(Arc<Pile>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.lock().waiting -= 1;
    }
}
