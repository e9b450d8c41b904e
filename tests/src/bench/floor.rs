//! The floor: what the servers and this machine allow. A bare loop that consumes, fetches, hashes, looks a group up in one
//! select, commits the group's task rows and counts in one transaction, publishes an event for each task in one window of
//! confirms, and acknowledges the group at once. It validates nothing, retries nothing, traces nothing.
//!
//! It runs as a process of its own (`bench floor`), as every contender does.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use futures::stream::{StreamExt, TryStreamExt};
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    ExchangeDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind};
use retouch_shared::key::ImageHash;
use serde::Deserialize;
use serde_json::json;
use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{Connection as _, Row as _};
use tokio::signal::unix::{SignalKind, signal};

/// Unacknowledged messages: two groups.
const PREFETCH: u16 = 1024;
/// Pictures that are fetched at once.
const FETCHES: usize = 64;
/// Tasks in one transaction, at most.
const GROUP: usize = 512;

const LOOK_UP: &str = "SELECT c.id, c.image_hash, c.result_url FROM JSON_TABLE(?, '$[*]' COLUMNS \
    (h CHAR(64) CHARACTER SET utf8mb4 PATH '$.image_hash', t VARCHAR(32) CHARACTER SET utf8mb4 PATH '$.edit_type', \
    p VARCHAR(500) CHARACTER SET utf8mb4 PATH '$.prompt')) j STRAIGHT_JOIN plain_cache c FORCE INDEX (image_edit) \
    ON c.image_hash = j.h AND c.edit_type = j.t AND c.prompt = j.p";
const INSERT: &str = "INSERT INTO plain_tasks (task_id, edit_type, prompt, status, image_hashes, results, completed_at) \
    SELECT j.id, j.t, j.p, 'completed', j.h, j.r, UTC_TIMESTAMP(3) FROM JSON_TABLE(?, '$[*]' COLUMNS \
    (id VARCHAR(64) CHARACTER SET utf8mb4 PATH '$.task_id', t VARCHAR(32) CHARACTER SET utf8mb4 PATH '$.edit_type', \
    p VARCHAR(500) CHARACTER SET utf8mb4 PATH '$.prompt', h LONGTEXT CHARACTER SET utf8mb4 PATH '$.hashes', \
    r LONGTEXT CHARACTER SET utf8mb4 PATH '$.results')) j";
const COUNT: &str = "UPDATE JSON_TABLE(?, '$[*]' COLUMNS (id BIGINT PATH '$.id', n BIGINT PATH '$.n')) j \
    STRAIGHT_JOIN plain_cache c FORCE INDEX (PRIMARY) ON c.id = j.id \
    SET c.hit_count = c.hit_count + j.n, c.last_hit_at = UTC_TIMESTAMP(3)";

#[derive(Debug, Deserialize)]
struct Task {
    task_id: String,
    edit_type: String,
    prompt: String,
    images: Vec<Source>,
}

#[derive(Debug, Deserialize)]
struct Source {
    url: String,
}

/// One task with its picture hashed.
struct Fetched {
    delivery: Delivery,
    task: Task,
    hash: ImageHash,
}

struct Floor {
    database: MySqlConnection,
    channel: Channel,
    /// The exchange of its events, if it publishes any.
    events: Option<String>,
}

/// Consumes until it is asked to stop.
///
/// # Errors
/// Any fault: the floor has no fallback.
pub async fn run() -> Result<()> {
    crate::env::install_tls();
    let var = |name: &str| std::env::var(name).with_context(|| format!("{name} is not set"));
    let mut database = MySqlConnection::connect(&var("DATABASE_URL")?).await?;
    sqlx::query("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED").execute(&mut database).await?;
    let connection = Connection::connect(&var("AMQP_URL")?, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let events = (var("BENCH_PUBLISHES")? == "1").then(|| var("BENCH_EVENTS")).transpose()?;
    if let Some(events) = &events {
        let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let name = events.as_str().into();
        channel.exchange_declare(name, ExchangeKind::Topic, durable, FieldTable::default()).await?;
    }
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
    let (queue, options) = (var("BENCH_QUEUE")?, BasicConsumeOptions::default());
    let consumer =
        channel.basic_consume(queue.as_str().into(), "".into(), options, FieldTable::default()).await?;
    let client = reqwest::Client::new();
    let fetched = consumer
        .map(|delivery| {
            let client = client.clone();
            // A task of its own, so that fetching continues while a group is committed.
            let fetch = tokio::spawn(async move { fetch(&client, delivery?).await });
            async move { fetch.await? }
        })
        // In order: a group is acknowledged by its last message.
        .buffered(FETCHES);
    let mut groups = fetched.ready_chunks(GROUP);
    let mut floor = Floor { database, channel, events };
    let mut stop = signal(SignalKind::terminate())?;
    loop {
        tokio::select! {
            biased;
            group = groups.next() => match group {
                Some(group) => floor.finish(group.into_iter().collect::<Result<_>>()?).await?,
                None => anyhow::bail!("the broker ended the consumer"),
            },
            _ = stop.recv() => return Ok(()),
        }
    }
}

async fn fetch(client: &reqwest::Client, delivery: Delivery) -> Result<Fetched> {
    let task: Task = serde_json::from_slice(&delivery.data)?;
    let [source] = &*task.images else { anyhow::bail!("the floor takes one image a task") };
    let bytes = client.get(&source.url).send().await?.error_for_status()?.bytes().await?;
    let hash = ImageHash::of(&bytes);
    Ok(Fetched { delivery, task, hash })
}

impl Floor {
    async fn finish(&mut self, group: Vec<Fetched>) -> Result<()> {
        let found = self.look_up(&group).await?;
        let (mut rows, mut counts, mut told) = (Vec::new(), BTreeMap::<i64, u64>::new(), Vec::new());
        for Fetched { task, hash, .. } in &group {
            let hash = hash.to_hex();
            let (id, result_url) = found.get(&hash).context("the floor knows hits only")?;
            *counts.entry(*id).or_default() += 1;
            let results = json!([{"image_hash": hash, "result_url": result_url}]);
            told.push(json!({"v": 1, "task_id": task.task_id, "status": "completed", "images": results}));
            rows.push(json!({"task_id": task.task_id, "edit_type": task.edit_type, "prompt": task.prompt,
                "hashes": json!([hash]).to_string(), "results": results.to_string()}));
        }
        let counts: Vec<_> = counts.iter().map(|(id, n)| json!({"id": id, "n": n})).collect();
        let mut transaction = self.database.begin().await?;
        for (statement, rows) in [(INSERT, json!(rows)), (COUNT, json!(counts))] {
            sqlx::query(statement).bind(rows.to_string()).execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        self.tell(&told).await?;
        let last = group.last().context("a group of none")?;
        let acknowledged = last.delivery.ack(BasicAckOptions { multiple: true }).await?;
        ensure!(acknowledged, "the acknowledgement was lost");
        Ok(())
    }

    async fn look_up(&mut self, group: &[Fetched]) -> Result<HashMap<String, (i64, String)>> {
        let keys: BTreeMap<_, _> = group.iter().map(|fetched| (fetched.hash, &fetched.task)).collect();
        let keys: Vec<_> = keys
            .iter()
            .map(|(hash, task)| json!({"image_hash": hash, "edit_type": task.edit_type, "prompt": task.prompt}))
            .collect();
        let query = sqlx::query(LOOK_UP).bind(json!(keys).to_string());
        let row = |row: MySqlRow| (row.get(1), (row.get(0), row.get(2)));
        Ok(query.fetch(&mut self.database).map_ok(row).try_collect().await?)
    }

    /// All of a group in one window of confirms.
    async fn tell(&self, events: &[serde_json::Value]) -> Result<()> {
        let Some(exchange) = &self.events else { return Ok(()) };
        let mut confirms = Vec::with_capacity(events.len());
        for event in events {
            let properties = BasicProperties::default().with_delivery_mode(2);
            let (key, body) = ("task.completed".into(), serde_json::to_vec(event)?);
            let options = BasicPublishOptions::default();
            let sent = self.channel.basic_publish(exchange.as_str().into(), key, options, &body, properties);
            confirms.push(sent.await?);
        }
        try_join_all(confirms).await?;
        Ok(())
    }
}
