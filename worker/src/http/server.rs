//! Serves connections: their number, and a time limit for each phase.
//!
//! Invariant: probes are answered whatever other clients do. If there are too many connections, one that only
//! waits for its client is closed first; whatever a client leaves unfinished times out.

use std::collections::BTreeMap;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Request, Response, StatusCode};
use axum::response::IntoResponse;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::patient::Patient;

/// For a whole request head, and for the next request on an open connection.
const HEAD: Duration = Duration::from_secs(10);
/// For the beginning of an answer. Each has a shorter deadline of its own.
const BEGIN: Duration = Duration::from_secs(30);
/// For the reader of an answer to take some bytes.
const STALLED: Duration = Duration::from_secs(30);
/// For a request from its head to the last byte of its answer.
const WHOLE: Duration = Duration::from_secs(600);
/// Interval of checks for overdue requests.
const LOOK: Duration = Duration::from_secs(5);
/// Buffered bytes of one connection.
const BUFFER: usize = 64 * 1024;
/// Most connections at once.
pub(super) const MAX_CONNECTIONS: usize = 256;
/// Open files that a worker needs for its database, broker, pictures and blobs.
const OTHER_FILES: u64 = 64;
/// Below this limit a busy process may run out of open files.
const FEW_FILES: u64 = 1024;

/// Connection limit that leaves the rest of the worker enough open files.
pub(super) fn max_connections() -> usize {
    let Some(files) = open_files_limit() else { return MAX_CONNECTIONS };
    if files < FEW_FILES {
        tracing::warn!(
            files,
            "this process may open few files at once: raise the limit to {FEW_FILES} or more (ulimit -n, LimitNOFILE=)"
        );
    }
    connections_within(files)
}

fn connections_within(files: u64) -> usize {
    let half = files.saturating_sub(OTHER_FILES) / 2;
    usize::try_from(half).unwrap_or(MAX_CONNECTIONS).clamp(8, MAX_CONNECTIONS)
}

/// `None` if the system does not report it.
fn open_files_limit() -> Option<u64> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Serves until `shutdown`, then finishes the answers under way.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    max_connections: usize,
    shutdown: CancellationToken,
) {
    let open = Arc::new(Connections::default());
    let mut serving = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
            Some(_ended) = serving.join_next(), if !serving.is_empty() => continue,
        };
        match accepted {
            Ok((stream, _)) => {
                let connection = open.admit(max_connections);
                serving.spawn(one(stream, router.clone(), connection, shutdown.clone()));
            }
            Err(error) => {
                // Usually a client that is gone already. Without a free file descriptor, one is freed soon.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    while serving.join_next().await.is_some() {}
}

async fn one(stream: TcpStream, router: Router, entry: Entry, shutdown: CancellationToken) {
    let connection = Arc::clone(&entry.connection);
    let router = TowerToHyperService::new(router);
    let service = service_fn(|request: Request<Incoming>| {
        let answering = Answering::begin(&connection);
        let answer = router.call(request);
        async move {
            let answer = match tokio::time::timeout(BEGIN, answer).await {
                Ok(answer) => answer?,
                Err(_elapsed) => StatusCode::GATEWAY_TIMEOUT.into_response(),
            };
            Ok::<Response<Read>, std::convert::Infallible>(
                answer.map(|body| Read { body, _answering: answering }),
            )
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(Patient::new(stream, STALLED)), service);
    let mut served = pin!(served);
    let gracefully = tokio::select! {
        _ended = &mut served => false,
        () = connection.close.cancelled() => false,
        () = connection.overdue() => false,
        () = shutdown.cancelled() => true,
    };
    if gracefully {
        served.as_mut().graceful_shutdown();
        tokio::select! {
            _ended = &mut served => {}
            () = connection.overdue() => {}
        }
    }
}

/// State of a connection, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Doing {
    /// Waiting for its client.
    Waiting(Instant),
    /// A request is being answered, or its answer read.
    Answering(Instant),
}

struct Connection {
    doing: Mutex<Doing>,
    close: CancellationToken,
}

impl Connection {
    fn doing(&self) -> MutexGuard<'_, Doing> {
        self.doing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when a request takes too long.
    async fn overdue(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            let doing = *self.doing();
            if matches!(doing, Doing::Answering(since) if since.elapsed() >= WHOLE) {
                return;
            }
        }
    }
}

/// The open connections.
#[derive(Default)]
struct Connections(Mutex<Open>);

#[derive(Default)]
struct Open {
    next: u64,
    by_number: BTreeMap<u64, Arc<Connection>>,
}

/// Registers an open connection until it is dropped.
struct Entry {
    number: u64,
    connection: Arc<Connection>,
    open: Arc<Connections>,
}

impl Connections {
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a connection. Beyond the limit, the one that has waited longest for its client is closed, or else
    /// the one with the oldest request.
    fn admit(self: &Arc<Self>, max_connections: usize) -> Entry {
        let waiting = Mutex::new(Doing::Waiting(Instant::now()));
        let connection = Arc::new(Connection { doing: waiting, close: CancellationToken::new() });
        let mut open = self.lock();
        if open.by_number.len() >= max_connections
            && let Some((&number, _)) =
                open.by_number.iter().min_by_key(|(_, connection)| *connection.doing())
            && let Some(longest) = open.by_number.remove(&number)
        {
            longest.close.cancel();
        }
        open.next += 1;
        let number = open.next;
        open.by_number.insert(number, Arc::clone(&connection));
        Entry { number, connection, open: Arc::clone(self) }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.open.lock().by_number.remove(&self.number);
    }
}

/// A request of a connection, until its answer is read or abandoned.
struct Answering(Arc<Connection>);

impl Answering {
    fn begin(connection: &Arc<Connection>) -> Self {
        *connection.doing() = Doing::Answering(Instant::now());
        Self(Arc::clone(connection))
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        *self.0.doing() = Doing::Waiting(Instant::now());
    }
}

/// The body of an answer while it is being read.
struct Read {
    body: Body,
    _answering: Answering,
}

impl HttpBody for Read {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_connection_that_waits_longest_for_its_client_makes_room() {
        let open = Arc::new(Connections::default());
        let entries: Vec<Entry> = (0..3).map(|_| open.admit(3)).collect();
        let _first_answers = Answering::begin(&entries[0].connection);
        let fourth = open.admit(3);
        let closed = |entry: &Entry| entry.connection.close.is_cancelled();
        assert_eq!([0, 1, 2].map(|at| closed(&entries[at])), [false, true, false]);
        let _others_answer = [&entries[2], &fourth].map(|entry| Answering::begin(&entry.connection));
        let _fifth = open.admit(3);
        assert!(closed(&entries[0]), "where all are answered, the oldest request goes");
        assert_eq!(open.lock().by_number.len(), 3);
    }

    #[test]
    fn a_low_file_limit_leaves_room_for_the_rest_of_the_worker() {
        for (files, connections) in [(1024, 256), (1 << 20, 256), (256, 96), (200, 68), (20, 8)] {
            assert_eq!(connections_within(files), connections, "{files}");
        }
        assert!(open_files_limit().is_some());
    }
}
