//! An installation whose blobs are in a bucket: a [`Site`], an [`S3`] server with a proxy in front of it, and workers that
//! serve what is in it.

use nix::sys::signal::Signal;
use retouch_worker::editor::double;
use serde_json::Value;
use tokio::sync::Mutex;

use crate::pictures;
use crate::program::{Program, Running};
use crate::proxy::Proxy;
use crate::services::{Port, S3};
use crate::site::{Site, TaskRow, working};

/// The bucket.
const BUCKET: &str = "pictures";
/// Before every key in it.
const PREFIX: &str = "retouch/blobs";

/// The installation. Workers of it must be dropped before it is.
pub struct Bucket {
    /// The installation. Its own blob folder stays empty.
    pub site: Site,
    /// The server.
    pub s3: S3,
    /// The proxy that workers connect to.
    pub proxy: Mutex<Proxy>,
    url: String,
}

/// A worker and its HTTP address.
pub struct Serving {
    /// The process.
    pub worker: Running,
    address: String,
    _port: Port,
}

impl Bucket {
    /// On RabbitMQ and MariaDB.
    pub async fn on_servers() -> Self {
        let (site, s3) = (Site::on_servers().await, S3::start(&[BUCKET]));
        let (proxy, url) = Proxy::before(&s3.url()).await;
        Self { site, s3, proxy: Mutex::new(proxy), url }
    }

    /// A worker that is working, with further settings.
    pub async fn worker(&self, settings: &[(&str, &str)]) -> Serving {
        let port = Port::free().unwrap();
        let address = format!("127.0.0.1:{}", port.number());
        let program = self
            .site
            .worker()
            .env("RETOUCH_BLOBS", format!("s3://{BUCKET}/{PREFIX}"))
            .env("RETOUCH_HTTP", &address)
            .env("AWS_ENDPOINT", self.url.trim_end_matches('/'))
            .env("AWS_ALLOW_HTTP", "true")
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", S3::KEY_ID)
            .env("AWS_SECRET_ACCESS_KEY", S3::SECRET);
        let set = |program: Program, (name, value): &(&str, &str)| program.env(name, value);
        let worker = settings.iter().fold(program, set).start();
        working(&worker).await;
        Serving { worker, address, _port: port }
    }

    /// The file behind an image's result.
    #[must_use]
    pub fn object(&self, image: &Value) -> std::path::PathBuf {
        let reference = image["result_url"].as_str().unwrap_or_else(|| panic!("no result: {image}"));
        self.s3.object(BUCKET, &format!("{PREFIX}/{reference}"))
    }

    /// Asserts that a task is completed, and each of its images is served and right.
    pub async fn all_right(&self, serving: &Serving, row: &TaskRow, inputs: &[u64]) {
        assert_eq!((row.status.as_str(), row.images.len()), ("completed", inputs.len()), "{row:?}");
        for (image, input) in row.images.iter().zip(inputs) {
            let served = serving.get(image).await;
            assert_eq!(served.status(), 200, "{image}");
            assert_eq!(served.headers()["content-type"], "image/png");
            let right = double::expected(&pictures::picture(*input)).unwrap();
            assert!(pictures::same_pixels(&served.bytes().await.unwrap(), &right), "{image}");
        }
    }
}

impl Serving {
    /// An image's result, by plain HTTP.
    pub async fn get(&self, image: &Value) -> reqwest::Response {
        self.ask(&format!("/blobs/{}", image["result_url"].as_str().unwrap())).await
    }

    /// Its readiness: the status, and the part about the blobs.
    pub async fn ready(&self) -> (u16, String) {
        let answer = self.ask("/readyz").await;
        let status = answer.status().as_u16();
        let parts: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        (status, parts["blobs"].as_str().unwrap().to_owned())
    }

    /// Ends it as a scheduler does, and waits for it.
    pub async fn end(&self) {
        self.worker.signal(Signal::SIGTERM);
        assert!(self.worker.exit().await.success());
    }

    async fn ask(&self, path: &str) -> reqwest::Response {
        reqwest::get(format!("http://{}{path}", self.address)).await.unwrap()
    }
}
