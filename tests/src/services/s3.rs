//! An S3 server ([s3s-fs](https://crates.io/crates/s3s-fs)) that keeps its objects as files in a folder of its own, checks
//! signatures, and misbehaves on demand.
//!
//! It has threads of its own, and ends on drop with its folder.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures::{StreamExt, stream};
use s3s::{
    auth::SimpleAuth,
    service::{S3Service, S3ServiceBuilder},
};
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use crate::wait;

/// A fault of requests, until [`S3::mend`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum S3Fault {
    /// 503 with the code `SlowDown`, as S3 answers under load.
    SlowDown,
    /// Answered after this time.
    Slow(Duration),
    /// The connection ends when the first half of a request's body has arrived, or before an answer where there is none.
    CutRequest,
    /// The request is done, and the connection ends in the middle of the answer, or before it where it has no body.
    CutAnswer,
}

#[derive(Debug, Default)]
struct Faults {
    /// With the method that it is meant for; every one where there is none.
    current: Option<(Option<Method>, S3Fault)>,
    struck: usize,
}

#[derive(Clone)]
struct Served {
    service: S3Service,
    faults: Arc<Mutex<Faults>>,
}

impl Served {
    /// The fault of this request.
    fn strike(&self, method: &Method) -> Option<S3Fault> {
        let mut faults = self.faults.lock().unwrap();
        let (_, fault) =
            faults.current.clone().filter(|(only, _)| only.as_ref().is_none_or(|only| only == method))?;
        faults.struck += 1;
        Some(fault)
    }
}

/// The server.
#[derive(Debug)]
pub struct S3 {
    address: SocketAddr,
    faults: Arc<Mutex<Faults>>,
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
    folder: TempDir,
}

impl S3 {
    /// The key id that it knows.
    pub const KEY_ID: &str = "AKIATESTTESTTESTTEST";
    /// The secret that belongs to it.
    pub const SECRET: &str = "a-secret-for-tests";

    /// Starts it on a free port of 127.0.0.1, with these buckets.
    #[must_use]
    pub fn start(buckets: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("retouch-s3-").tempdir().unwrap();
        for bucket in buckets {
            fs::create_dir(folder.path().join(bucket)).unwrap();
        }
        let mut builder = S3ServiceBuilder::new(FileSystem::new(folder.path()).unwrap());
        builder.set_auth(SimpleAuth::from_single(Self::KEY_ID, Self::SECRET));
        let faults = Arc::new(Mutex::new(Faults::default()));
        let served = Served { service: builder.build(), faults: Arc::clone(&faults) };
        let router = Router::new().fallback(answer).with_state(served);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let runtime = Builder::new_multi_thread().worker_threads(2).thread_name("s3").enable_all().build();
        let runtime = runtime.unwrap();
        runtime.spawn(async move {
            axum::serve(tokio::net::TcpListener::from_std(listener).unwrap(), router).await.unwrap();
        });
        Self { address, faults, runtime: Some(runtime), folder }
    }

    /// Where it is, for `AWS_ENDPOINT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The file of an object.
    #[must_use]
    pub fn object(&self, bucket: &str, key: &str) -> PathBuf {
        self.folder.path().join(bucket).join(key)
    }

    /// From now on every request goes wrong like this; only those of one method, where one is named.
    pub fn break_with(&self, fault: S3Fault, method: Option<&str>) {
        let method = method.map(|name| name.parse().unwrap());
        *self.faults.lock().unwrap() = Faults { current: Some((method, fault)), struck: 0 };
    }

    /// Every request is answered as ever.
    pub fn mend(&self) {
        self.faults.lock().unwrap().current = None;
    }

    /// Returns once so many requests went wrong since the last [`S3::break_with`]; panics when that does not happen soon.
    pub async fn struck(&self, count: usize) {
        let enough = async || (self.faults.lock().unwrap().struck >= count).then_some(());
        wait::until(&format!("{count} requests to S3 that went wrong"), enough).await;
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn answer(State(served): State<Served>, request: Request) -> Response {
    match served.strike(request.method()) {
        None => done(&served.service, request).await,
        Some(S3Fault::SlowDown) => slow_down(),
        Some(S3Fault::Slow(time)) => {
            tokio::time::sleep(time).await;
            done(&served.service, request).await
        }
        Some(S3Fault::CutRequest) => {
            let length = request.headers().get(header::CONTENT_LENGTH);
            let length: usize = length.and_then(|length| length.to_str().ok()?.parse().ok()).unwrap_or(0);
            let (mut body, mut arrived) = (request.into_body().into_data_stream(), 0);
            while let Some(Ok(part)) = body.next().await
                && arrived < length / 2
            {
                arrived += part.len();
            }
            cut(&[])
        }
        Some(S3Fault::CutAnswer) => {
            let (mut parts, body) = done(&served.service, request).await.into_parts();
            let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
            if bytes.is_empty() {
                return cut(&[]);
            }
            parts.headers.insert(header::CONTENT_LENGTH, bytes.len().into());
            Response::from_parts(parts, cut(&bytes[..bytes.len() / 2]).into_body())
        }
    }
}

async fn done(service: &S3Service, request: Request) -> Response {
    match service.call(request.map(s3s::Body::http_body_unsync)).await {
        Ok(response) => response.map(Body::new),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:?}")).into_response(),
    }
}

fn slow_down() -> Response {
    let body = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
                <Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>";
    (StatusCode::SERVICE_UNAVAILABLE, [(header::CONTENT_TYPE, "application/xml")], body).into_response()
}

/// These bytes, then the connection ends; without a byte of an answer when there are none.
fn cut(bytes: &[u8]) -> Response {
    let first = (!bytes.is_empty()).then(|| Ok(Bytes::copy_from_slice(bytes)));
    let end = Err(std::io::Error::other("cut as the test asked"));
    Body::from_stream(stream::iter(first.into_iter().chain([end]))).into_response()
}
