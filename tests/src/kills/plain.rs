//! The classic design: a worker that selects from its cache, calls the provider, inserts, acknowledges. It
//! dies at the same moments as the real ones, in this process, with all its work under way; its deliveries
//! are redelivered.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use sqlx::MySqlPool;
use tokio::sync::{Notify, broadcast};
use tokio::task::JoinSet;

use super::feed::{Edit, Mode};
use crate::paid::{Paid, WANX, picture};
use crate::stand_in::{Limits, StandIn};

/// Edits at a time in one process, as in a real worker.
const AT_A_TIME: usize = 8;

/// The plain workers, their provider and their queue.
pub struct Plain {
    /// Their provider, with books of its own.
    pub provider: StandIn,
    keeper: JoinSet<()>,
    shared: Arc<Shared>,
}

struct Shared {
    queue: Mutex<VecDeque<Edit>>,
    came: Notify,
    pool: MySqlPool,
    base: String,
    http: reqwest::Client,
    mode: Mode,
}

impl Plain {
    /// As many as there are slots; `died` tells which of them ends.
    pub async fn start(
        paid: &Paid,
        mode: Mode,
        slots: usize,
        takes: Duration,
        mut died: broadcast::Receiver<usize>,
    ) -> Self {
        let provider = StandIn::start().await;
        provider.set(|settings| (settings.limits, settings.task_duration) = (Limits::Off, takes));
        let pool = paid.site.env.pool().await;
        let table = "CREATE TABLE plain_cache (edit_key VARCHAR(200) PRIMARY KEY, result LONGBLOB NOT NULL)";
        sqlx::query(table).execute(&pool).await.unwrap();
        retouch_worker::tls::init();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let base = provider.dashscope_url();
        let (queue, came) = (Mutex::default(), Notify::new());
        let shared = Arc::new(Shared { queue, came, pool, base, http, mode });
        let mut workers: Vec<JoinSet<()>> = (0..slots).map(|_| worker(&shared)).collect();
        let (mut keeper, again) = (JoinSet::new(), Arc::clone(&shared));
        keeper.spawn(async move {
            while let Ok(slot) = died.recv().await {
                // Dropped, it ends wherever it is.
                workers[slot] = worker(&again);
            }
        });
        Self { provider, keeper, shared }
    }

    /// Sends edits.
    pub fn send(&self, edits: &[Edit]) {
        self.shared.queue.lock().unwrap().extend(edits.iter().cloned());
        self.shared.came.notify_waiters();
    }

    /// Pictures paid for and pictures paid for again, up to now.
    #[must_use]
    pub fn paid(&self) -> (u64, u64) {
        let ledger = self.provider.ledger();
        let again = ledger.paid_again().values().map(|count| *count as u64 - 1).sum();
        (ledger.billed(), again)
    }

    /// Ends them.
    pub async fn end(mut self) {
        self.keeper.shutdown().await;
    }
}

fn worker(shared: &Arc<Shared>) -> JoinSet<()> {
    let mut loops = JoinSet::new();
    for _ in 0..AT_A_TIME {
        let shared = Arc::clone(shared);
        loops.spawn(async move {
            loop {
                let Some(delivery) = shared.next() else {
                    let _ = tokio::time::timeout(Duration::from_millis(50), shared.came.notified()).await;
                    continue;
                };
                if shared.work(&delivery.edit).await.is_ok() {
                    delivery.ack();
                }
            }
        });
    }
    loops
}

/// An edit that goes back to the queue unless it was acknowledged.
struct Delivery<'a> {
    edit: Edit,
    shared: &'a Shared,
    acked: bool,
}

impl Delivery<'_> {
    fn ack(mut self) {
        self.acked = true;
    }
}

impl Drop for Delivery<'_> {
    fn drop(&mut self) {
        if !self.acked {
            self.shared.queue.lock().unwrap().push_front(self.edit.clone());
        }
    }
}

impl Shared {
    fn next(&self) -> Option<Delivery<'_>> {
        let edit = self.queue.lock().unwrap().pop_front()?;
        Some(Delivery { edit, shared: self, acked: false })
    }

    /// Select, call, insert.
    async fn work(&self, edit: &Edit) -> anyhow::Result<()> {
        let key = format!("{} {}", edit.edit_type, edit.picture);
        let found = sqlx::query("SELECT 1 FROM plain_cache WHERE edit_key = ?").bind(&key);
        if found.fetch_optional(&self.pool).await?.is_some() {
            return Ok(());
        }
        let image = format!("data:image/png;base64,{}", BASE64.encode(picture(edit.picture)));
        let url = match self.mode {
            Mode::Sync => self.sync(edit, &image).await?,
            Mode::Async | Mode::AsyncList => self.polled(edit, &image).await?,
        };
        let result = self.http.get(url).send().await?.error_for_status()?.bytes().await?;
        let insert = sqlx::query("INSERT IGNORE INTO plain_cache (edit_key, result) VALUES (?, ?)");
        insert.bind(&key).bind(&result[..]).execute(&self.pool).await?;
        Ok(())
    }

    async fn sync(&self, edit: &Edit, image: &str) -> anyhow::Result<String> {
        let content = json!([{"image": image}, {"text": edit.edit_type}]);
        let body =
            json!({"model": "qwen-image-2.0", "input": {"messages": [{"role": "user", "content": content}]}});
        let answer = self.post("multimodal-generation/generation", false, &body).await?;
        text(&answer, "/output/choices/0/message/content/0/image")
    }

    async fn polled(&self, edit: &Edit, image: &str) -> anyhow::Result<String> {
        let input = json!({"function": edit.edit_type, "prompt": "the text", "base_image_url": image});
        let body = json!({"model": WANX, "input": input, "parameters": {"n": 1}});
        let answer = self.post("image2image/image-synthesis", true, &body).await?;
        let id = text(&answer, "/output/task_id")?;
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let poll = self.http.get(format!("{}/tasks/{id}", self.base)).bearer_auth(StandIn::KEY);
            let answer: Value =
                serde_json::from_slice(&poll.send().await?.error_for_status()?.bytes().await?)?;
            match text(&answer, "/output/task_status")?.as_str() {
                "PENDING" | "RUNNING" => {}
                _ => return text(&answer, "/output/results/0/url"),
            }
        }
    }

    async fn post(&self, path: &str, is_async: bool, body: &Value) -> anyhow::Result<Value> {
        let post = self.http.post(format!("{}/services/aigc/{path}", self.base)).bearer_auth(StandIn::KEY);
        let post = post.header("content-type", "application/json");
        let post = if is_async { post.header("x-dashscope-async", "enable") } else { post };
        let answer = post.body(body.to_string()).send().await?.error_for_status()?;
        Ok(serde_json::from_slice(&answer.bytes().await?)?)
    }
}

fn text(answer: &Value, at: &str) -> anyhow::Result<String> {
    let found = answer.pointer(at).and_then(Value::as_str);
    Ok(found.ok_or_else(|| anyhow::anyhow!("no {at} in {answer}"))?.to_owned())
}
