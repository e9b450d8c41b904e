//! The floor of a paid call: a bare loop that takes one task at a time, commits its submit, calls a
//! synchronous provider, fetches the result, writes it to a file, commits row and cache row in one
//! transaction, publishes a confirmed event, and acknowledges. It validates nothing, looks nothing up,
//! retries nothing, and pays again after a kill.
//!
//! It runs as a process of its own (`bench bare`), as every contender does.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use futures::stream::StreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind};
use retouch_shared::key::ImageHash;
use serde_json::{Value, json};
use sqlx::Connection as _;
use sqlx::mysql::MySqlConnection;
use tokio::signal::unix::{SignalKind, signal};

use super::paid_site::PaidSite;
use crate::broker::Listener;
use crate::program::{Program, Running, beside};
use crate::stand_in::StandIn;

const TABLES: [&str; 2] = [
    "CREATE TABLE bare_tasks (task_id VARCHAR(64) PRIMARY KEY, status VARCHAR(16) NOT NULL, result_url VARCHAR(255), \
     created_at DATETIME(3) NOT NULL, completed_at DATETIME(3)) ENGINE = InnoDB",
    "CREATE TABLE bare_cache (image_hash CHAR(64) PRIMARY KEY, result_url VARCHAR(255) NOT NULL, created_at DATETIME(3) NOT NULL) \
     ENGINE = InnoDB",
];

/// The process, as the benchmark sees it.
pub struct Bare {
    queue: String,
    exchange: String,
    running: Running,
}

impl Bare {
    /// Starts it on a site's servers and provider, with tables and a queue of its own.
    pub async fn start(site: &PaidSite) -> Self {
        for table in TABLES {
            sqlx::query(table).execute(&site.pool).await.unwrap();
        }
        let name = format!("{}.bare", site.env.namespace());
        let (queue, exchange) = (format!("{name}.tasks"), format!("{name}.events"));
        let mut quorum = FieldTable::default();
        quorum.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        site.amqp.channel.queue_declare(queue.as_str().into(), durable, quorum).await.unwrap();
        let running = Program::other(beside("bench"), &["bare"])
            .env("AMQP_URL", site.env.amqp_url())
            .env("DATABASE_URL", site.env.mysql_url())
            .env("BENCH_QUEUE", &queue)
            .env("BENCH_EVENTS", &exchange)
            .env("BENCH_FOLDER", site.env.folder())
            .env("DASHSCOPE_API_KEY", StandIn::KEY)
            .env("DASHSCOPE_BASE_URL", site.provider.dashscope_url())
            .start();
        Self { queue, exchange, running }
    }

    /// Every event from here on.
    pub async fn events(&self, site: &PaidSite) -> Listener {
        site.amqp.listen(&self.exchange, ExchangeKind::Topic, "task.*").await
    }

    /// Publishes to its queue.
    pub async fn publish(&self, site: &PaidSite, task: &Value) {
        assert!(self.running.status().is_none(), "the bare loop ended:\n{}", self.running.stderr());
        site.amqp.publish("", &self.queue, serde_json::to_vec(task).unwrap()).await;
    }

    /// The picture that it stored for a task; panics if the task is not completed.
    pub async fn kept(&self, site: &PaidSite, task_id: &str) -> Vec<u8> {
        let row = sqlx::query_scalar(
            "SELECT result_url FROM bare_tasks WHERE status = 'completed' AND task_id = ?",
        );
        let url: String = row.bind(task_id).fetch_one(&site.pool).await.unwrap();
        std::fs::read(site.env.folder().join(url)).unwrap()
    }
}

struct Loop {
    database: MySqlConnection,
    channel: Channel,
    client: reqwest::Client,
    events: String,
    folder: PathBuf,
    generation: String,
    key: String,
}

/// Consumes until it is asked to stop.
///
/// # Errors
/// Any fault: it has no fallback.
pub async fn run() -> Result<()> {
    crate::env::install_tls();
    let var = |name: &str| std::env::var(name).with_context(|| format!("{name} is not set"));
    let database = MySqlConnection::connect(&var("DATABASE_URL")?).await?;
    let connection = Connection::connect(&var("AMQP_URL")?, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    channel.basic_qos(1, BasicQosOptions::default()).await?;
    let (queue, options) = (var("BENCH_QUEUE")?, BasicConsumeOptions::default());
    let consumer = channel.basic_consume(queue.as_str().into(), "".into(), options, FieldTable::default());
    let mut consumer = consumer.await?;
    let base = var("DASHSCOPE_BASE_URL")?;
    let mut bare = Loop {
        database,
        channel,
        client: reqwest::Client::new(),
        events: var("BENCH_EVENTS")?,
        folder: var("BENCH_FOLDER")?.into(),
        generation: format!("{base}/services/aigc/multimodal-generation/generation"),
        key: var("DASHSCOPE_API_KEY")?,
    };
    let mut stop = signal(SignalKind::terminate())?;
    loop {
        tokio::select! {
            delivery = consumer.next() => bare.work(delivery.context("the broker ended the consumer")??).await?,
            _ = stop.recv() => return Ok(()),
        }
    }
}

impl Loop {
    async fn work(&mut self, delivery: Delivery) -> Result<()> {
        let task: Value = serde_json::from_slice(&delivery.data)?;
        let id = task["task_id"].as_str().context("no task_id")?;
        let image = task["images"][0]["data"].as_str().context("the loop takes one image, as data")?;
        let begin =
            "INSERT INTO bare_tasks (task_id, status, created_at) VALUES (?, 'submitting', UTC_TIMESTAMP(3))";
        sqlx::query(begin).bind(id).execute(&mut self.database).await?;
        let bytes = self.edited(image, &task["prompt"]).await?;
        let name = ImageHash::of(&bytes).to_hex();
        let folder = self.folder.join("bare");
        let (kept, file) = (name.clone(), bytes.clone());
        tokio::task::spawn_blocking(move || keep(&folder, &kept, &file)).await??;
        let url = format!("bare/{name}");
        let mut transaction = self.database.begin().await?;
        let cache = "INSERT INTO bare_cache VALUES (?, ?, UTC_TIMESTAMP(3))";
        sqlx::query(cache)
            .bind(ImageHash::of(image.as_bytes()).to_hex())
            .bind(&url)
            .execute(&mut *transaction)
            .await?;
        let done = "UPDATE bare_tasks SET status = 'completed', result_url = ?, completed_at = UTC_TIMESTAMP(3) WHERE task_id = ?";
        sqlx::query(done).bind(&url).bind(id).execute(&mut *transaction).await?;
        transaction.commit().await?;
        let event = json!({"v": 1, "task_id": id, "status": "completed", "images": [{"result_url": url}]});
        let (key, body) = ("task.completed".into(), serde_json::to_vec(&event)?);
        let properties = BasicProperties::default().with_delivery_mode(2);
        let options = BasicPublishOptions::default();
        let sent = self.channel.basic_publish(self.events.as_str().into(), key, options, &body, properties);
        sent.await?.await?;
        ensure!(delivery.ack(BasicAckOptions::default()).await?, "the acknowledgement was lost");
        Ok(())
    }

    /// The provider's result.
    async fn edited(&self, image: &str, prompt: &Value) -> Result<bytes::Bytes> {
        let content = json!([{"image": image}, {"text": prompt}]);
        let asked = json!({
            "model": "qwen-image-2.0",
            "input": {"messages": [{"role": "user", "content": content}]},
            "parameters": {"n": 1}
        });
        let asking = self.client.post(&self.generation).bearer_auth(&self.key);
        let asking = asking.header("content-type", "application/json").body(asked.to_string()).send();
        let answer: Value = serde_json::from_slice(&asking.await?.error_for_status()?.bytes().await?)?;
        let url = answer["output"]["choices"][0]["message"]["content"][0]["image"].as_str();
        let url = url.with_context(|| format!("no picture: {answer}"))?;
        Ok(self.client.get(url).send().await?.error_for_status()?.bytes().await?)
    }
}

/// Atomically and durably.
fn keep(folder: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let written = folder.join(format!("{name}.part"));
    let mut file = File::create(&written)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&written, folder.join(name))?;
    File::open(folder)?.sync_all()?;
    Ok(())
}
