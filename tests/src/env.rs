//! One test's share of the shared servers: a database, a namespace on the broker, a folder. All of it is
//! removed when the test ends, also if it fails.

use std::{path::Path, time::Duration};

use anyhow::Result;
use sqlx::{AssertSqlSafe, Connection as _, MySqlConnection, MySqlPool, mysql::MySqlPoolOptions};
use tempfile::TempDir;
use uuid::Uuid;

use crate::{
    broker::{Amqp, Management, Queue},
    program::Program,
    services::{MariaDb, RabbitMq},
    wait,
};

/// Where the shared broker is: the default virtual host.
pub const AMQP_URL: &str = "RETOUCH_TEST_AMQP_URL";
/// Where the shared broker's management API is.
pub const RABBITMQ_HTTP_URL: &str = "RETOUCH_TEST_RABBITMQ_HTTP_URL";
/// Where the shared database server is: root, no database.
pub const MYSQL_URL: &str = "RETOUCH_TEST_MYSQL_URL";

/// A test that left a lock on its database must not delay the others.
const CLEAN_WITHIN: Duration = Duration::from_secs(10);

/// Work that must be gone at the end of a test, each as a query for what is left.
pub(crate) const LEFTOVERS: &[(&str, &str)] = &[
    ("open waits", "SELECT COUNT(*) FROM image_edit_waits"),
    ("leases", "SELECT COUNT(*) FROM image_edit_calls WHERE owner IS NOT NULL"),
    ("open calls", "SELECT COUNT(*) FROM image_edit_calls WHERE state NOT IN ('done', 'failed')"),
    ("unfinished tasks", "SELECT COUNT(*) FROM image_edit_tasks WHERE status IN ('pending', 'processing')"),
    ("unsent events", "SELECT COUNT(*) FROM image_edit_tasks WHERE event_due IS NOT NULL"),
];

/// One test's share of the servers. Declare it before its users, so that it is dropped last.
#[derive(Debug)]
pub struct Env {
    name: String,
    amqp_url: String,
    /// Root, no database.
    mysql_url: String,
    http_url: String,
    management: Management,
    folder: TempDir,
}

impl Env {
    /// A fresh share of the servers that `tests/run` started.
    pub async fn new() -> Self {
        Self::on(&variable(AMQP_URL), &variable(RABBITMQ_HTTP_URL), &variable(MYSQL_URL)).await
    }

    /// A fresh share of servers that the test started itself, to stop and kill them.
    pub async fn on_own(rabbitmq: &RabbitMq, mariadb: &MariaDb) -> Self {
        Self::on(&rabbitmq.amqp_url(), &rabbitmq.http_url(), &mariadb.url("")).await
    }

    /// As [`Env::on_own`] for the database alone; the broker is the shared one.
    pub async fn on_own_database(mariadb: &MariaDb) -> Self {
        Self::on(&variable(AMQP_URL), &variable(RABBITMQ_HTTP_URL), &mariadb.url("")).await
    }

    /// As [`Env::on_own`] for the broker alone; the database server is the shared one.
    pub async fn on_own_broker(rabbitmq: &RabbitMq) -> Self {
        Self::on(&rabbitmq.amqp_url(), &rabbitmq.http_url(), &variable(MYSQL_URL)).await
    }

    async fn on(amqp_url: &str, http_url: &str, mysql_url: &str) -> Self {
        install_tls();
        // The end of a version 7 UUID is its random part.
        let name = format!("t{}", &Uuid::now_v7().simple().to_string()[20..]);
        let create = format!("CREATE DATABASE {name}");
        execute(mysql_url, create).await.unwrap_or_else(|error| panic!("cannot create a database: {error}"));
        Self {
            name,
            amqp_url: amqp_url.to_owned(),
            mysql_url: mysql_url.to_owned(),
            http_url: http_url.to_owned(),
            management: Management::new(http_url),
            folder: tempfile::Builder::new().prefix("retouch-test-").tempdir().unwrap(),
        }
    }

    /// What every queue and exchange of this test starts with.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.name
    }

    /// The broker, default virtual host.
    #[must_use]
    pub fn amqp_url(&self) -> &str {
        &self.amqp_url
    }

    /// This test's database.
    #[must_use]
    pub fn mysql_url(&self) -> String {
        format!("{}{}", self.mysql_url, self.name)
    }

    /// A SQLite file that does not exist yet, for a test without servers.
    #[must_use]
    pub fn sqlite_url(&self) -> String {
        format!("sqlite://{}/retouch.db", self.folder.path().display())
    }

    /// A blob store for all processes of this test.
    #[must_use]
    pub fn blobs_url(&self) -> String {
        format!("file://{}/blobs", self.folder.path().display())
    }

    /// An empty folder that is removed with this value.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A few connections to this test's database.
    pub async fn pool(&self) -> MySqlPool {
        MySqlPoolOptions::new().max_connections(4).connect(&self.mysql_url()).await.unwrap()
    }

    /// A connection to the broker.
    pub async fn amqp(&self) -> Amqp {
        Amqp::connect(&self.amqp_url).await
    }

    /// The management API of the broker.
    #[must_use]
    pub fn management(&self) -> &Management {
        &self.management
    }

    /// The queues of this test.
    pub async fn queues(&self) -> Vec<Queue> {
        self.management.queues(&self.name).await.unwrap()
    }

    /// The program with this test's servers, namespace and blobs; pictures may come from this machine. Its
    /// own HTTP server is off.
    #[must_use]
    pub fn program(&self, arguments: &[&str]) -> Program {
        std::fs::create_dir_all(self.folder.path().join("blobs")).unwrap();
        Program::new(arguments)
            .env("DATABASE_URL", self.mysql_url())
            .env("AMQP_URL", &self.amqp_url)
            .env("RETOUCH_NAMESPACE", &self.name)
            .env("RETOUCH_BLOBS", self.blobs_url())
            .env("RETOUCH_ALLOW_HOSTS", "127.0.0.1")
            .env("RETOUCH_HTTP", "off")
    }

    /// Waits until [`Env::leftovers`] finds nothing, and panics with what it finds. Call it at the end of a
    /// test, while the workers still run.
    pub async fn nothing_left(&self) {
        let mut left = String::new();
        let clean = wait::poll(wait::SOON, async || {
            left = self.leftovers().await;
            left.is_empty().then_some(())
        });
        if clean.await.is_none() {
            panic!("left behind: {left}");
        }
    }

    /// Unfinished work, in words; empty if there is none: unacknowledged messages, messages in queues (except
    /// dead letters, which the test checks itself), open waits, leases, open calls, tasks without an end,
    /// unsent events.
    pub async fn leftovers(&self) -> String {
        let mut left = Vec::new();
        for Queue { name, ready, unacknowledged } in self.queues().await {
            let may_hold = name == format!("{}.dead", self.name);
            if unacknowledged > 0 || (ready > 0 && !may_hold) {
                left.push(format!("{name}: {ready} ready, {unacknowledged} unacknowledged"));
            }
        }
        let mut database = MySqlConnection::connect(&self.mysql_url()).await.unwrap();
        for (what, query) in LEFTOVERS {
            let count: i64 = sqlx::query_scalar(*query).fetch_one(&mut database).await.unwrap();
            if count > 0 {
                left.push(format!("{what}: {count}"));
            }
        }
        left.join("; ")
    }
}

impl Drop for Env {
    fn drop(&mut self) {
        // On a thread, because a runtime cannot be entered from within another; and with a new client,
        // because the other's open connections are driven by the test's runtime, which may be waiting for
        // this thread. The servers may be down by now, as the test may want; then nothing is left to remove.
        let (name, url, management) =
            (self.name.clone(), self.mysql_url.clone(), Management::new(&self.http_url));
        let clean = async move {
            let database = execute(&url, format!("DROP DATABASE {name}"));
            let _ = tokio::time::timeout(CLEAN_WITHIN, database).await;
            let _ = tokio::time::timeout(CLEAN_WITHIN, management.delete_all(&name)).await;
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let thread = std::thread::spawn(move || runtime.map(|runtime| runtime.block_on(clean)));
        let _ = thread.join();
    }
}

async fn execute(url: &str, statement: String) -> Result<()> {
    let mut connection = MySqlConnection::connect(url).await?;
    sqlx::query(AssertSqlSafe(statement)).execute(&mut connection).await?;
    connection.close().await?;
    Ok(())
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!(
            "{name} is not set: this test needs a RabbitMQ and a MariaDB. `tests/run` (or `tests/run NAME` for some \
             of the tests) starts both and runs the tests."
        )
    })
}

/// Chooses the TLS provider of this process; every HTTP client needs one, also for plain HTTP.
pub fn install_tls() {
    // Fails only if it is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
