//! Promises of the embedded broker alone: its file.

use std::sync::Arc;

use retouch_worker::broker::embedded::Embedded;
use retouch_worker::broker::{Broker, BrokerError, Queue};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, SqliteConnection};
use tempfile::TempDir;

use crate::broker_conformance::{Stage, body, next};
use crate::broker_rabbitmq::publish;

/// A SQLite file with the broker's tables.
pub(crate) struct File {
    folder: TempDir,
}

impl File {
    async fn connection(&self) -> SqliteConnection {
        let options = SqliteConnectOptions::new().filename(self.folder.path().join("retouch.db"));
        options.create_if_missing(true).connect().await.unwrap()
    }

    /// Expires every claim: its process is gone, or the machine slept.
    async fn let_holds_expire(&self) {
        let expire = "UPDATE broker_messages SET visible_at = 0 WHERE owner IS NOT NULL";
        let done = sqlx::query(expire).execute(&mut self.connection().await).await.unwrap();
        assert!(done.rows_affected() > 0, "nothing was held");
    }
}

impl Stage for File {
    async fn new() -> Self {
        let this = Self { folder: tempfile::tempdir().unwrap() };
        let tables = include_str!("../../migrations/sqlite/0002_embedded_broker.sql");
        sqlx::raw_sql(tables).execute(&mut this.connection().await).await.unwrap();
        this
    }

    async fn open(&self) -> Arc<dyn Broker> {
        self.open_within(usize::MAX).await
    }

    async fn open_within(&self, bytes_ahead: usize) -> Arc<dyn Broker> {
        let opened = Embedded::open(&self.folder.path().join("retouch.db")).await;
        Arc::new(opened.unwrap().with_bytes_ahead(bytes_ahead))
    }
}

async fn two_processes() -> (File, Arc<dyn Broker>, Arc<dyn Broker>) {
    let file = File::new().await;
    let (one, two) = (file.open().await, file.open().await);
    one.declare(&[]).await.unwrap();
    (file, one, two)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_from_another_process_wakes_the_consumer() {
    let (_file, one, two) = two_processes().await;
    let mut consumer = one.consume(Queue::Tasks, 1).await.unwrap();
    let waiting = tokio::spawn(async move { body(&next(&mut consumer).await) });
    publish(&two, "one").await.unwrap();
    assert_eq!(waiting.await.unwrap(), "one");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_a_dead_process_come_back_to_others() {
    let (file, one, two) = two_processes().await;
    publish(&one, "one").await.unwrap();
    let mut consumer = one.consume(Queue::Tasks, 1).await.unwrap();
    let held = next(&mut consumer).await;
    let mut other = two.consume(Queue::Tasks, 1).await.unwrap();
    file.let_holds_expire().await;
    let again = next(&mut other).await;
    assert!(again.redelivered);
    assert!(!held.settler.ack().await);
    assert!(again.settler.ack().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_slept_keeps_its_claims() {
    let file = File::new().await;
    let broker = file.open().await;
    broker.declare(&[]).await.unwrap();
    publish(&broker, "held").await.unwrap();
    let mut consumer = broker.consume(Queue::Tasks, 2).await.unwrap();
    let held = next(&mut consumer).await;
    file.let_holds_expire().await;
    publish(&broker, "next").await.unwrap();
    let other = next(&mut consumer).await;
    assert_eq!(body(&other), "next");
    let renewed = "SELECT COUNT(*) FROM broker_messages WHERE owner IS NOT NULL AND visible_at > 0";
    let renewed: i64 = sqlx::query_scalar(renewed).fetch_one(&mut file.connection().await).await.unwrap();
    assert_eq!(renewed, 2);
    assert!(held.settler.ack().await);
}

#[tokio::test]
async fn a_file_that_was_not_migrated_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("retouch.db");
    SqliteConnectOptions::new().filename(&path).create_if_missing(true).connect().await.unwrap();
    let answer = Embedded::open(&path).await.unwrap().declare(&[]).await;
    assert!(matches!(&answer, Err(BrokerError::Misconfigured(why)) if why.contains("migrate")), "{answer:?}");
}
