//! One test's installation of Retouch, whole: a migrated database, a broker, a blob store, the test double, source
//! pictures, and as many worker processes as the test starts. A test tells producers' messages in and reads what came of
//! them from the tables, the blobs and the double's notes.

use std::path::PathBuf;
use std::time::Duration;

use lapin::options::QueuePurgeOptions;
use lapin::{BasicProperties, ExchangeKind};
use retouch_worker::broker::{Broker, Destination, Message, Queue, embedded::Embedded};
use retouch_worker::editor::double;
use serde_json::Value;
use sqlx::mysql::MySqlPool;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use sqlx::{AssertSqlSafe, Row as _};

use crate::broker::{Amqp, Listener};
use crate::env::{Env, LEFTOVERS};
use crate::picture_server::PictureServer;
use crate::pictures;
use crate::program::{Program, Running};
use crate::services::{MariaDb, RabbitMq};
use crate::wait::{self, SOON};

/// The installation. Workers of it must be dropped before it is.
pub struct Site {
    /// Source pictures by URL.
    pub pictures: PictureServer,
    entrance: Entrance,
    database: Database,
    /// The test's share of the servers, also where it uses none of them.
    pub env: Env,
}

/// Where messages go in.
enum Entrance {
    RabbitMq(Box<Amqp>),
    File(Box<Embedded>),
}

enum Database {
    MySql(MySqlPool),
    Sqlite(SqlitePool),
}

/// The same query on either database.
macro_rules! ask {
    ($site:expr, $pool:ident => $query:expr) => {
        match &$site.database {
            Database::MySql($pool) => $query,
            Database::Sqlite($pool) => $query,
        }
    };
}

/// A task's row, as far as tests ask.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskRow {
    /// How it stands.
    pub status: String,
    /// Images by how they were answered: hit, joined, paid, failed.
    pub counts: [i64; 4],
    /// Images.
    pub total: i64,
    /// By position.
    pub images: Vec<Value>,
}

impl TaskRow {
    /// Whether nothing of it is left to do.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        !matches!(self.status.as_str(), "pending" | "processing")
    }
}

impl Site {
    /// On RabbitMQ and MariaDB.
    pub async fn on_servers() -> Self {
        Self::on(Env::new().await).await
    }

    /// On servers that the test started itself, to stop and kill them.
    pub async fn on_own(rabbitmq: &RabbitMq, mariadb: &MariaDb) -> Self {
        Self::on(Env::on_own(rabbitmq, mariadb).await).await
    }

    /// As [`Site::on_own`] for the database alone.
    pub async fn on_own_database(mariadb: &MariaDb) -> Self {
        Self::on(Env::on_own_database(mariadb).await).await
    }

    /// As [`Site::on_own`] for the broker alone.
    pub async fn on_own_broker(rabbitmq: &RabbitMq) -> Self {
        Self::on(Env::on_own_broker(rabbitmq).await).await
    }

    async fn on(env: Env) -> Self {
        migrate(env.program(&["migrate"])).await;
        let entrance = Entrance::RabbitMq(Box::new(env.amqp().await));
        let database = Database::MySql(env.pool().await);
        Self { pictures: PictureServer::start().await, entrance, database, env }
    }

    /// In one SQLite file, with the embedded broker.
    pub async fn in_one_file() -> Self {
        let env = Env::new().await;
        migrate(one_file(&env, env.program(&["migrate"]))).await;
        let path = env.sqlite_url().split_off("sqlite://".len());
        let broker = Embedded::open(path.as_ref()).await.unwrap();
        broker.declare(&[]).await.unwrap();
        let options = SqliteConnectOptions::new().filename(&path).busy_timeout(SOON);
        let database = Database::Sqlite(SqlitePool::connect_with(options).await.unwrap());
        let entrance = Entrance::File(Box::new(broker));
        Self { pictures: PictureServer::start().await, entrance, database, env }
    }

    /// The program on this installation, in a hurry: the sweep comes often.
    #[must_use]
    pub fn program(&self, arguments: &[&str]) -> Program {
        let program = self.env.program(arguments).env("RETOUCH_DOUBLE", self.double());
        let program = program.env("RETOUCH_SWEEP_SECONDS", "1");
        match self.entrance {
            Entrance::RabbitMq(_) => program,
            Entrance::File(_) => one_file(&self.env, program),
        }
    }

    /// One worker, not started.
    #[must_use]
    pub fn worker(&self) -> Program {
        self.program(&["worker"])
    }

    /// Workers that are working.
    pub async fn workers<const N: usize>(&self) -> [Running; N] {
        let workers = std::array::from_fn(|_| self.worker().start());
        for worker in &workers {
            working(worker).await;
        }
        workers
    }

    /// One worker with further settings, working.
    pub async fn worker_with(&self, settings: &[(&str, &str)]) -> Running {
        let set = |program: Program, (name, value): &(&str, &str)| program.env(name, value);
        let worker = settings.iter().fold(self.worker(), set).start();
        working(&worker).await;
        worker
    }

    // ---- in

    /// Publishes a task as a producer does.
    pub async fn publish(&self, task: &Value) {
        self.publish_bytes(&serde_json::to_vec(task).unwrap()).await;
    }

    /// Publishes any bytes where tasks go.
    pub async fn publish_bytes(&self, body: &[u8]) {
        match &self.entrance {
            Entrance::RabbitMq(amqp) => amqp.publish(self.env.namespace(), "tasks", body).await,
            Entrance::File(broker) => {
                let message = Message::new(body.to_vec());
                broker.publish(Destination::Queue(Queue::Tasks), message).await.unwrap();
            }
        }
    }

    /// Publishes a task and names whom to answer; on RabbitMQ only.
    pub async fn publish_for(&self, task: &Value, reply_to: &str, correlation_id: &str) {
        let properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_reply_to(reply_to.into())
            .with_correlation_id(correlation_id.into());
        let body = serde_json::to_vec(task).unwrap();
        self.amqp().publish_with(self.env.namespace(), "tasks", body, properties).await;
    }

    /// The connection of this test to RabbitMQ.
    #[must_use]
    pub fn amqp(&self) -> &Amqp {
        match &self.entrance {
            Entrance::RabbitMq(amqp) => amqp,
            Entrance::File(_) => panic!("this installation has no RabbitMQ"),
        }
    }

    /// Every event from here on; on RabbitMQ only.
    pub async fn events(&self) -> Listener {
        let exchange = format!("{}.events", self.env.namespace());
        self.amqp().listen(&exchange, ExchangeKind::Topic, "task.*").await
    }

    /// Empties every queue of RabbitMQ and returns how many messages were lost by it.
    pub async fn purge_all(&self) -> u32 {
        let mut purged = 0;
        for queue in self.env.queues().await {
            let name = queue.name.as_str().into();
            purged += self.amqp().channel.queue_purge(name, QueuePurgeOptions::default()).await.unwrap();
        }
        purged
    }

    /// A producer's own queue for replies, by its name; on RabbitMQ only.
    pub async fn reply_queue(&self) -> (String, Listener) {
        self.amqp().own_queue().await
    }

    /// Lets the broker notice that a process was killed: RabbitMQ sees its connection end, the embedded broker waits a
    /// minute for its claims to expire, which is skipped here.
    pub async fn notice_a_kill(&self) {
        if matches!(self.entrance, Entrance::File(_)) {
            self.execute("UPDATE broker_messages SET visible_at = 0 WHERE owner IS NOT NULL").await;
        }
    }

    // ---- out

    /// One number from the database.
    pub async fn number(&self, sql: &str) -> i64 {
        let sql = AssertSqlSafe(sql.to_owned());
        ask!(self, pool => sqlx::query_scalar(sql).fetch_one(pool).await.unwrap())
    }

    /// One column of texts from the database.
    pub async fn texts(&self, sql: &str) -> Vec<String> {
        let sql = AssertSqlSafe(sql.to_owned());
        ask!(self, pool => sqlx::query_scalar(sql).fetch_all(pool).await.unwrap())
    }

    /// Changes something behind the program's back.
    pub async fn execute(&self, sql: &str) {
        let sql = AssertSqlSafe(sql.to_owned());
        ask!(self, pool => { sqlx::query(sql).execute(pool).await.unwrap(); });
    }

    /// A task's row, if it was taken in.
    pub async fn task(&self, task_id: &str) -> Option<TaskRow> {
        let sql = "SELECT status, hit_images, joined_images, paid_images, failed_images, total_images, results \
                   FROM image_edit_tasks WHERE task_id = ?";
        macro_rules! read {
            ($row:ident) => {
                $row.map(|row| TaskRow {
                    status: row.get(0),
                    counts: [row.get(1), row.get(2), row.get(3), row.get(4)],
                    total: row.get(5),
                    images: serde_json::from_str(row.get(6)).unwrap(),
                })
            };
        }
        ask!(self, pool => {
            let row = sqlx::query(sql).bind(task_id).fetch_optional(pool).await.unwrap();
            read!(row)
        })
    }

    /// The task once it was taken in; panics when that does not happen soon.
    pub async fn taken_in(&self, task_id: &str) -> TaskRow {
        wait::until(&format!("task {task_id} in the table"), async || self.task(task_id).await).await
    }

    /// The task once it has ended; panics when that does not happen soon.
    pub async fn ended(&self, task_id: &str) -> TaskRow {
        let ended = async || self.task(task_id).await.filter(TaskRow::has_ended);
        wait::until(&format!("the end of task {task_id}"), ended).await
    }

    /// Waits until a query counts `count`.
    pub async fn counts(&self, sql: &str, count: i64) {
        self.counts_within(SOON, sql, count).await;
    }

    /// As [`Site::counts`], for what takes longer.
    pub async fn counts_within(&self, within: Duration, sql: &str, count: i64) {
        let mut last = 0;
        let counted = wait::poll(within, async || {
            last = self.number(sql).await;
            (last == count).then_some(())
        });
        if counted.await.is_none() {
            panic!("waited {} s in vain for {count}, it is {last}: {sql}", within.as_secs());
        }
    }

    /// The bytes of a result, from the blob store.
    #[must_use]
    pub fn result(&self, image: &Value) -> Vec<u8> {
        let reference = image["result_url"].as_str().unwrap_or_else(|| panic!("no result: {image}"));
        std::fs::read(self.env.folder().join("blobs").join(reference)).unwrap()
    }

    /// Whether an image's result is what the double makes of `input`.
    #[must_use]
    pub fn is_right(&self, image: &Value, input: &[u8]) -> bool {
        pictures::same_pixels(&self.result(image), &double::expected(input).unwrap())
    }

    /// Waits until no work is left, and panics naming what is; then adds the numbers up. Call it while the workers still
    /// run.
    pub async fn nothing_left(&self) {
        self.nothing_left_but(0).await;
    }

    /// As [`Site::nothing_left`], where so many results were made that no image waited for any more: a row of the cache
    /// counts one at least.
    pub async fn nothing_left_but(&self, unasked: i64) {
        match self.database {
            Database::MySql(_) => self.env.nothing_left().await,
            Database::Sqlite(_) => self.nothing_left_in_the_file().await,
        }
        let answered = "hit_images + joined_images + paid_images";
        let tasks =
            format!("SELECT COUNT(*) FROM image_edit_tasks WHERE {answered} + failed_images <> total_images");
        assert_eq!(self.number(&tasks).await, 0, "a task's counts don't add up to its images");
        let images = format!("SELECT CAST(COALESCE(SUM({answered}), 0) AS SIGNED) FROM image_edit_tasks");
        // What an older system had served before an import is no image of ours.
        let served = "SELECT CAST(COALESCE(SUM(hit_count - COALESCE(imported_hits, 0)), 0) AS SIGNED) FROM image_edit_cache";
        assert_eq!(
            self.number(served).await,
            self.number(&images).await + unasked,
            "the cache counts other images than the tasks"
        );
        let paid = "SELECT CAST(COALESCE(SUM(paid_calls), 0) AS SIGNED) FROM image_edit_calls";
        let by_tasks = "SELECT CAST(COALESCE(SUM(paid_images), 0) AS SIGNED) FROM image_edit_tasks";
        assert!(
            self.number(paid).await >= self.number(by_tasks).await,
            "more images were paid for than calls"
        );
    }

    async fn nothing_left_in_the_file(&self) {
        for (what, sql) in LEFTOVERS {
            let mut left = 0;
            let gone = wait::poll(SOON, async || {
                left = self.number(sql).await;
                (left == 0).then_some(())
            });
            assert!(gone.await.is_some(), "left behind: {what}: {left}");
        }
        self.counts("SELECT COUNT(*) FROM broker_messages WHERE queue NOT LIKE '%dead'", 0).await;
    }

    /// The dead letters, once there are as many: reason and task id, in the order of their reasons.
    pub async fn dead_letters(&self, count: i64) -> Vec<String> {
        self.counts("SELECT COUNT(*) FROM dead_letters", count).await;
        self.texts("SELECT CONCAT(reason, ' ', COALESCE(task_id, '-')) FROM dead_letters ORDER BY 1").await
    }

    // ---- the double

    /// The folder of the double.
    #[must_use]
    pub fn double(&self) -> PathBuf {
        self.env.folder().join("double")
    }

    /// The calls that the double got, as it noted them.
    #[must_use]
    pub fn calls(&self) -> Vec<Value> {
        self.notes("calls.jsonl")
    }

    /// As [`Site::calls`], for the polls.
    #[must_use]
    pub fn polls(&self) -> Vec<Value> {
        self.notes("polls.jsonl")
    }

    fn notes(&self, file: &str) -> Vec<Value> {
        let notes = std::fs::read_to_string(self.double().join(file)).unwrap_or_default();
        // The last line may still be on its way.
        notes.split_inclusive('\n').filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits until the double has got so many calls.
    pub async fn called(&self, count: usize) {
        let enough = async || (self.calls().len() >= count).then_some(());
        wait::until(&format!("{count} calls of the editor"), enough).await;
    }

    /// Opens a gate for good.
    pub fn open_gate(&self, name: &str) {
        std::fs::create_dir_all(self.double()).unwrap();
        std::fs::write(self.double().join(name), "").unwrap();
    }
}

/// The settings for one SQLite file instead of the servers.
fn one_file(env: &Env, program: Program) -> Program {
    program.env("DATABASE_URL", env.sqlite_url()).without("AMQP_URL").without("RETOUCH_NAMESPACE")
}

async fn migrate(program: Program) {
    let done = program.run().await;
    assert!(done.status.success(), "{}", done.stderr);
}

/// Returns when a worker has said that it is working.
pub async fn working(worker: &Running) {
    worker.line(r#""message":"working""#).await;
}
