//! A connection that may be dropped at any moment: whoever runs a step can be, at shutdown or when its lease is lost.
//!
//! sqlx 0.9 loses count of the server's answers when a statement is dropped while it is being prepared, and notes that a
//! transaction is open only once BEGIN is answered. Such a connection would go back to the pool with a transaction that nobody
//! knows of, or wait for ever, in its place of the pool, for an answer that does not come. So transactions are begun and ended
//! here, and a connection that is dropped in the middle of a statement is closed.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::mysql::{MySqlArguments, MySqlConnection};
use sqlx::{Connection as _, Executor as _, MySql};

use super::super::db::{DbError, Row, Tx, Val, impl_bound};
use super::pool::{Lent, Pool};
use super::{CONNECT, FRESH, error};

impl_bound!(MySql, MySqlArguments);

/// For a connection that has rested to say that it lives.
const PING: Duration = Duration::from_secs(3);

/// A connection of the pool; in a transaction once [`Connection::begin`] was called.
pub(super) struct Connection {
    /// There until it is dropped.
    lent: Option<Lent>,
    in_transaction: bool,
    /// A statement was sent and its whole answer is not read.
    in_statement: bool,
    /// A statement was not answered well.
    doubtful: bool,
    /// It holds what is its own, such as a lock, and nobody else may use it.
    sole: bool,
}

impl Connection {
    /// One that lives.
    pub(super) async fn acquire(pool: &Pool) -> Result<Self, DbError> {
        let acquired = tokio::time::timeout(CONNECT, Self::acquire_alive(pool)).await;
        acquired.unwrap_or(Err(sqlx::Error::PoolTimedOut)).map_err(error)
    }

    async fn acquire_alive(pool: &Pool) -> Result<Self, sqlx::Error> {
        loop {
            let lent = pool.acquire().await?;
            let rested = lent.rested();
            let mut connection = Self {
                lent: Some(lent),
                in_transaction: false,
                in_statement: false,
                doubtful: false,
                sole: false,
            };
            if rested <= FRESH {
                return Ok(connection);
            }
            connection.in_statement = true;
            match tokio::time::timeout(PING, connection.raw().ping()).await {
                Ok(Ok(())) => {
                    connection.in_statement = false;
                    return Ok(connection);
                }
                Ok(Err(_lost)) => {}
                // A server that went without a word: each of them would be waited for in turn.
                Err(_silent) => pool.close_resting(),
            }
        }
    }

    /// The connection itself, for statements that are not ours.
    #[expect(clippy::expect_used, reason = "only `drop` takes it")]
    pub(super) fn raw(&mut self) -> &mut MySqlConnection {
        self.lent.as_mut().expect("it is there until it is dropped")
    }

    /// Begins a transaction; rolled back when this is dropped before it is committed.
    pub(super) async fn begin(&mut self) -> Result<(), DbError> {
        self.plain_text("BEGIN").await?;
        self.in_transaction = true;
        Ok(())
    }

    /// To be closed instead of given back.
    pub(super) const fn keep_apart(&mut self) {
        self.sole = true;
    }

    async fn plain_text(&mut self, sql: &'static str) -> Result<(), DbError> {
        self.in_statement = true;
        let done = self.raw().execute(sql).await;
        self.answered(done)?;
        Ok(())
    }

    fn answered<T>(&mut self, answer: Result<T, sqlx::Error>) -> Result<T, DbError> {
        self.in_statement = false;
        self.doubtful |= answer.is_err();
        answer.map_err(error)
    }
}

#[async_trait]
impl Tx for Connection {
    async fn run(&mut self, sql: &'static str, values: &[Val<'_>]) -> Result<u64, DbError> {
        self.in_statement = true;
        let done = bound(sql, values).execute(self.raw()).await;
        Ok(self.answered(done)?.rows_affected())
    }

    async fn rows(&mut self, sql: &'static str, values: &[Val<'_>]) -> Result<Vec<Row>, DbError> {
        self.in_statement = true;
        let rows = bound(sql, values).fetch_all(self.raw()).await;
        Ok(self.answered(rows)?.into_iter().map(Row::MySql).collect())
    }

    async fn commit(mut self: Box<Self>) -> Result<(), DbError> {
        // Outside of a transaction each statement has committed itself.
        if self.in_transaction {
            self.plain_text("COMMIT").await?;
            self.in_transaction = false;
        }
        Ok(())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let Some(mut lent) = self.lent.take() else { return };
        if self.in_statement || self.sole {
            // The server rolls back what was open.
            lent.close();
        } else if self.in_transaction {
            // Without a runtime the connection is closed with the process.
            let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
            runtime.spawn(async move {
                match lent.execute("ROLLBACK").await {
                    Ok(_) => drop(lent),
                    Err(_) => lent.close(),
                }
            });
        } else if !self.doubtful {
            lent.rest();
        }
    }
}
