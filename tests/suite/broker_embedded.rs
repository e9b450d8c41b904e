//! What only the embedded broker can be tested for: its file.

use std::sync::Arc;

use retouch_worker::broker::Broker;
use retouch_worker::broker::embedded::Embedded;
use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use tempfile::TempDir;

use crate::broker_conformance::Stage;

/// A SQLite file with the broker's tables.
pub(crate) struct File {
    folder: TempDir,
}

impl File {
    fn options(&self) -> SqliteConnectOptions {
        SqliteConnectOptions::new().filename(self.folder.path().join("retouch.db"))
    }
}

impl Stage for File {
    async fn new() -> Self {
        let this = Self { folder: tempfile::tempdir().unwrap() };
        let mut connection = this.options().create_if_missing(true).connect().await.unwrap();
        let tables = include_str!("../../migrations/sqlite/0002_embedded_broker.sql");
        sqlx::raw_sql(tables).execute(&mut connection).await.unwrap();
        this
    }

    async fn open(&self) -> Arc<dyn Broker> {
        Arc::new(Embedded::open(&self.folder.path().join("retouch.db")).await.unwrap())
    }
}
