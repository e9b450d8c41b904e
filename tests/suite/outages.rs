//! Outages of each server, by refused connections and by silence: how soon `/readyz`, `retouch health` and
//! `retouch top` show them, and how soon after their end these are right again. Each prints one line of the
//! table in docs/reliability.md; `RETOUCH_TEST_OUTAGES=5,30,120` sets the lengths in seconds.

use std::time::{Duration, Instant};

use retouch_tests::bucket::Bucket;
use retouch_tests::program::{Finished, Program};
use retouch_tests::proxy::Proxy;
use retouch_tests::services::Port;
use retouch_tests::wait;
use serde_json::Value;
use tokio::sync::Mutex;

/// In both directions: until the outage is shown, and until its end is.
const AT_MOST: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(200);

fn lengths() -> Vec<Duration> {
    let given = std::env::var("RETOUCH_TEST_OUTAGES").unwrap_or_else(|_| "5".to_owned());
    given.split(',').map(|seconds| Duration::from_secs(seconds.trim().parse().unwrap())).collect()
}

/// A worker whose servers are all behind proxies.
struct Watched {
    bucket: Bucket,
    database: Mutex<Proxy>,
    broker: Mutex<Proxy>,
    urls: [(&'static str, String); 2],
    http: String,
    _port: Port,
}

impl Watched {
    async fn new() -> Self {
        let bucket = Bucket::on_servers().await;
        let (database, database_url) = Proxy::before(&bucket.site.env.mysql_url()).await;
        let (broker, amqp_url) = Proxy::before(bucket.site.env.amqp_url()).await;
        let port = Port::free().unwrap();
        let http = format!("127.0.0.1:{}", port.number());
        let urls = [("DATABASE_URL", database_url), ("AMQP_URL", amqp_url)];
        let (database, broker) = (Mutex::new(database), Mutex::new(broker));
        Self { bucket, database, broker, urls, http, _port: port }
    }

    fn proxy(&self, server: &str) -> &Mutex<Proxy> {
        match server {
            "MariaDB" => &self.database,
            "RabbitMQ" => &self.broker,
            _bucket => &self.bucket.proxy,
        }
    }

    /// The status of `/readyz`, and whether it names one of these parts as not well.
    async fn ready(&self, parts: &[&str]) -> (u16, bool) {
        let answer = reqwest::get(format!("http://{}/readyz", self.http)).await.unwrap();
        let status = answer.status().as_u16();
        let said: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        (status, parts.iter().any(|part| !said[*part].is_null() && said[*part] != "ok"))
    }

    async fn healthy(&self) -> bool {
        let program = Program::new(&["health"]).env("RETOUCH_HTTP", &self.http);
        program.run().await.status.success()
    }

    async fn top(&self) -> Finished {
        let program = self.bucket.site.program(&["top", "--json"]);
        self.urls.iter().fold(program, |program, (name, url)| program.env(name, url)).run().await
    }

    /// Whether `top` shows everything that there is: a worker that consumes, and the depth of every queue.
    async fn top_is_right(&self) -> bool {
        let done = self.top().await;
        let Ok(shown) = serde_json::from_str::<Value>(&done.stdout) else { return false };
        let queues = shown["queues"].as_array().unwrap();
        let served = |queue: &&Value| queue["name"] != "edits.local" || queue["consumers"] == 1;
        let right = |queue: &Value| queue["ready"].is_u64() && served(&queue);
        shown["replicas"].as_array().is_some_and(|replicas| replicas.len() == 1)
            && queues.iter().any(|queue| queue["name"] == "tasks" && queue["consumers"] == 1)
            && queues.iter().all(right)
    }
}

/// How long until it is so.
async fn until(what: &str, mut look: impl AsyncFnMut() -> bool) -> Duration {
    let begun = Instant::now();
    loop {
        if look().await {
            return begun.elapsed();
        }
        assert!(begun.elapsed() < wait::SOON, "{what}: not within {:?}", wait::SOON);
        tokio::time::sleep(LOOK).await;
    }
}

async fn outages_of(server: &str, parts: &[&str]) {
    let watched = Watched::new().await;
    let mut settings: Vec<(&str, &str)> = vec![("RETOUCH_HTTP", &watched.http)];
    settings.extend(watched.urls.iter().map(|(name, url)| (*name, url.as_str())));
    let _serving = watched.bucket.worker(&settings).await;
    let mut late = Vec::new();
    for (length, how) in lengths().into_iter().flat_map(|length| [(length, "refused"), (length, "silent")]) {
        until("readiness", async || watched.ready(&[]).await.0 == 200).await;
        until("top", async || watched.top_is_right().await).await;
        let begun = Instant::now();
        match how {
            "refused" => watched.proxy(server).lock().await.refuse().await,
            _silent => watched.proxy(server).lock().await.stall(),
        }
        let said = until("/readyz says it", async || watched.ready(parts).await == (503, true)).await;
        assert!(!watched.healthy().await, "health says nothing of it");
        tokio::time::sleep(length.saturating_sub(begun.elapsed())).await;
        match how {
            "refused" => watched.proxy(server).lock().await.accept().await,
            _silent => watched.proxy(server).lock().await.resume(),
        }
        let (ready, health, top) = tokio::join!(
            until("/readyz is right", async || watched.ready(parts).await == (200, false)),
            until("health is right", async || watched.healthy().await),
            until("top is right", async || watched.top_is_right().await),
        );
        let seconds = [said, ready, health, top].map(|took| format!("{:.1} s", took.as_secs_f64()));
        println!("outage | {server} | {how} | {} s | {}", length.as_secs(), seconds.join(" | "));
        if [said, ready, health, top].iter().any(|took| *took > AT_MOST) {
            late.push(format!("{server} {how} {length:?}: {seconds:?}"));
        }
    }
    assert!(late.is_empty(), "later than {AT_MOST:?}: {late:#?}");
}

#[tokio::test]
async fn health_is_right_within_10_s_of_a_database_outage() {
    outages_of("MariaDB", &["database", "lanes"]).await;
}

#[tokio::test]
async fn health_is_right_within_10_s_of_a_broker_outage() {
    outages_of("RabbitMQ", &["broker", "queue tasks"]).await;
}

#[tokio::test]
async fn health_is_right_within_10_s_of_a_blob_store_outage() {
    outages_of("blob store", &["blobs"]).await;
}
