//! An HTTP server for source pictures that counts requests, and misbehaves on demand.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use futures::{StreamExt, stream};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use crate::{pictures, wait::SOON};

/// What the server says to a path.
#[derive(Debug, Clone)]
pub enum Answer {
    /// These bytes with this content type, true or not.
    Bytes(&'static str, Bytes),
    /// This status and no body.
    Status(u16),
    /// A redirect to this URL.
    Redirect(String),
    /// A length that is not kept: the connection ends after half of these bytes.
    CutOff(Bytes),
    /// A body that begins with these bytes and never ends.
    Endless(Bytes),
}

#[derive(Debug, Default)]
struct Paths {
    answers: HashMap<String, Answer>,
    requests: HashMap<String, usize>,
    /// Requests that named a trace.
    traced: usize,
    held: HashMap<String, bool>,
}

#[derive(Debug)]
struct Shared {
    paths: Mutex<Paths>,
    /// Told at each request and each release.
    changed: watch::Sender<()>,
}

/// The server; it stops on drop. Paths that were not given an answer get a 404, and are counted too.
#[derive(Debug)]
pub struct PictureServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl PictureServer {
    /// Listens on a free port of 127.0.0.1.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared { paths: Mutex::default(), changed: watch::Sender::new(()) });
        let router = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, shared, task }
    }

    /// Serves [`pictures::picture`] of this seed and returns its URL.
    pub fn picture(&self, seed: u64) -> String {
        self.png(&format!("/{seed}.png"), pictures::picture(seed))
    }

    /// Serves PNG bytes under a path and returns their URL.
    pub fn png(&self, path: &str, bytes: impl Into<Bytes>) -> String {
        self.answer(path, Answer::Bytes("image/png", bytes.into()))
    }

    /// Sets what a path, starting with `/`, is answered from now on, and returns its URL.
    pub fn answer(&self, path: &str, answer: Answer) -> String {
        self.shared.paths.lock().unwrap().answers.insert(path.to_owned(), answer);
        self.url(path)
    }

    /// The URL of a path.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The server's address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Keeps the requests of a path waiting until [`PictureServer::release`].
    pub fn hold(&self, path: &str) {
        self.shared.paths.lock().unwrap().held.insert(path.to_owned(), true);
    }

    /// Answers the requests that wait since [`PictureServer::hold`], and those to come.
    pub fn release(&self, path: &str) {
        self.shared.paths.lock().unwrap().held.remove(path);
        self.shared.changed.send_replace(());
    }

    /// How often a path was asked for, held requests included.
    #[must_use]
    pub fn requests(&self, path: &str) -> usize {
        self.shared.paths.lock().unwrap().requests.get(path).copied().unwrap_or_default()
    }

    /// How many requests named a trace.
    #[must_use]
    pub fn traced_requests(&self) -> usize {
        self.shared.paths.lock().unwrap().traced
    }

    /// How many requests came in all.
    #[must_use]
    pub fn total_requests(&self) -> usize {
        self.shared.paths.lock().unwrap().requests.values().sum()
    }

    /// Returns once a path was asked for `count` times; panics when that does not happen soon.
    pub async fn requested(&self, path: &str, count: usize) {
        let mut changed = self.shared.changed.subscribe();
        let enough = changed.wait_for(|()| self.requests(path) >= count);
        if tokio::time::timeout(SOON, enough).await.is_err() {
            panic!("{path} was asked for {} times in {SOON:?}, not {count}", self.requests(path));
        }
    }
}

impl Drop for PictureServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(State(shared): State<Arc<Shared>>, uri: Uri, headers: HeaderMap) -> Response {
    let path = uri.path();
    shared.paths.lock().unwrap().traced += usize::from(headers.contains_key("traceparent"));
    *shared.paths.lock().unwrap().requests.entry(path.to_owned()).or_default() += 1;
    shared.changed.send_replace(());
    let held = |_: &()| !shared.paths.lock().unwrap().held.contains_key(path);
    // Fails only when the server is gone.
    let _ = shared.changed.subscribe().wait_for(held).await;
    let answer = shared.paths.lock().unwrap().answers.get(path).cloned();
    match answer {
        None => StatusCode::NOT_FOUND.into_response(),
        Some(Answer::Bytes(kind, bytes)) => ([(header::CONTENT_TYPE, kind)], bytes).into_response(),
        Some(Answer::Status(status)) => StatusCode::from_u16(status).unwrap().into_response(),
        Some(Answer::Redirect(to)) => (StatusCode::FOUND, [(header::LOCATION, to)]).into_response(),
        Some(Answer::CutOff(bytes)) => {
            let half = bytes.slice(..bytes.len() / 2);
            // What was said is sent when the body has nothing more to say for now; an error at once would
            // send nothing.
            let end = stream::once(async {
                tokio::task::yield_now().await;
                Err(io::Error::other("cut off as the test asked"))
            });
            let body = stream::iter([Ok(half)]).chain(end);
            ([(header::CONTENT_LENGTH, bytes.len())], Body::from_stream(body)).into_response()
        }
        Some(Answer::Endless(bytes)) => {
            let zeros = stream::repeat(Bytes::from_static(&[0; 16 * 1024]));
            let body = stream::iter([bytes]).chain(zeros).map(Ok::<_, io::Error>);
            Body::from_stream(body).into_response()
        }
    }
}
