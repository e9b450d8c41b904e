//! Retouch among the contenders: the built program, as users run it.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::OnceLock;

use async_trait::async_trait;
use image::imageops::flip_horizontal;
use serde_json::Value;
use sqlx::Row as _;
use sqlx::mysql::MySqlPool;

use super::contender::Contender;
use super::feed::{self, pictures_of, task, task_number};
use super::gallery::Gallery;
use super::run::{LONG, settled};
use super::tables;
use crate::broker::Amqp;
use crate::env::Env;
use crate::pictures;
use crate::program::{Program, Running};
use crate::services::Port;
use crate::wait;

/// Tasks that fill the cache have numbers far above those that are counted.
const WARM: u64 = 1 << 40;

/// One installation, and a number of worker processes.
pub struct Retouch {
    processes: usize,
    /// Images in a task.
    images: u64,
    pool: MySqlPool,
    amqp: Amqp,
    ports: Vec<Port>,
    settings: Vec<(&'static str, String)>,
    /// The result of each picture, by its hash; every one was compared by its pixels.
    results: OnceLock<HashMap<String, String>>,
    env: Env,
}

impl Retouch {
    /// With an empty cache.
    pub async fn new(processes: usize) -> Self {
        let env = Env::new().await;
        let migrated = env.program(&["migrate"]).run().await;
        assert!(migrated.status.success(), "{}", migrated.stderr);
        let (pool, amqp) = (env.pool().await, env.amqp().await);
        let ports = (0..processes).map(|_| Port::free().unwrap()).collect();
        Self { processes, images: 1, pool, amqp, ports, settings: Vec::new(), results: OnceLock::new(), env }
    }

    /// Whose tasks have so many images.
    #[must_use]
    pub fn of_images(self, images: u64) -> Self {
        Self { images, ..self }
    }

    /// With a setting other than users have it.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.settings.push((name, value.to_owned()));
        self
    }

    fn worker(&self, port: &Port) -> Program {
        let worker = self.env.program(&["worker"]);
        let worker = worker.env("RETOUCH_HTTP", format!("127.0.0.1:{}", port.number()));
        self.settings.iter().fold(worker, |worker, (name, value)| worker.env(name, value))
    }

    /// Has every picture edited once, and looks at what became of it.
    pub async fn warm(&self, gallery: &Gallery) {
        let worker = self.worker(&self.ports[0]).start();
        worker.line(r#""message":"working""#).await;
        let count = gallery.pictures().len() as u64;
        let last = tables::last_row(&self.pool, self.table()).await;
        // One image each: `of_task` brings every picture once, because its step and their number have no common divisor.
        let tasks = (WARM..WARM + count).map(|number| task(gallery, number, 1));
        feed::publish(&self.amqp, self.env.namespace(), "tasks", tasks).await;
        let all = async || (tables::ended(&self.pool, self.table(), last).await == count).then_some(());
        assert!(wait::poll(LONG, all).await.is_some(), "the cache is not filled:\n{}", worker.stderr());
        settled(&self.env).await;
        let mut results = HashMap::new();
        for (number, images) in self.answered(last).await {
            let image = &images[0];
            let picture = &gallery.pictures()[gallery.of_task(number)];
            let reference = image["result_url"].as_str().unwrap_or_else(|| panic!("no result: {image}"));
            let made = std::fs::read(self.env.folder().join("blobs").join(reference)).unwrap();
            let mirrored = flip_horizontal(&pictures::decode(&picture.bytes));
            assert!(pictures::decode(&made) == mirrored, "task {number} shows something else");
            results.insert(picture.hash.to_hex(), reference.to_owned());
        }
        assert_eq!(results.len() as u64, count, "not every picture was edited");
        self.results.set(results).expect("filled once");
        worker.terminate();
        let status = worker.exit().await;
        assert!(status.success(), "{}", worker.stderr());
    }

    /// The images of every task after row `from`.
    async fn answered(&self, from: i64) -> Vec<(u64, Vec<Value>)> {
        let rows = sqlx::query("SELECT task_id, results FROM image_edit_tasks WHERE id > ?").bind(from);
        let rows = rows.fetch_all(&self.pool).await.unwrap();
        rows.iter().map(|row| (task_number(row.get(0)), serde_json::from_str(row.get(1)).unwrap())).collect()
    }

    async fn hits(&self) -> i64 {
        let sql = "SELECT CAST(SUM(hit_count) AS SIGNED) FROM image_edit_cache";
        tables::number(&self.pool, sql.to_owned()).await
    }
}

#[async_trait(?Send)]
impl Contender for Retouch {
    fn name(&self) -> String {
        let set: String = self.settings.iter().map(|(name, value)| format!(", {name}={value}")).collect();
        match self.processes {
            1 => format!("Retouch{set}"),
            processes => format!("Retouch × {processes}{set}"),
        }
    }

    fn pool(&self) -> &MySqlPool {
        &self.pool
    }

    fn table(&self) -> &'static str {
        "image_edit_tasks"
    }

    async fn feed(&self, gallery: &Gallery, tasks: Range<u64>) {
        let tasks = tasks.map(|number| task(gallery, number, self.images));
        feed::publish(&self.amqp, self.env.namespace(), "tasks", tasks).await;
    }

    async fn start(&self) -> Vec<Running> {
        self.ports.iter().map(|port| self.worker(port).start()).collect()
    }

    async fn check(&self, gallery: &Gallery, from: i64, tasks: Range<u64>) {
        // Events sent, messages acknowledged.
        settled(&self.env).await;
        let results = self.results.get().expect("filled before");
        let mut seen = Vec::new();
        for (number, images) in self.answered(from).await {
            assert_eq!(images.len() as u64, self.images, "task {number}");
            for (image, picture) in images.iter().zip(pictures_of(gallery, number, self.images)) {
                let hash = gallery.pictures()[picture].hash.to_hex();
                let right = image["image_hash"] == hash.as_str()
                    && image["result_url"] == results[&hash].as_str()
                    && image["source"] == "hit";
                assert!(right, "Retouch answers task {number} wrongly: {image}");
            }
            seen.push(number);
        }
        seen.sort_unstable();
        assert!(seen.into_iter().eq(tasks), "Retouch has other tasks in its table than it was sent");
        let images = "SELECT CAST(SUM(total_images) AS SIGNED) FROM image_edit_tasks".to_owned();
        let images = tables::number(&self.pool, images).await;
        assert_eq!(self.hits().await, images, "Retouch does not count its hits");
    }
}
