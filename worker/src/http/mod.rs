//! HTTP: liveness, readiness and the result pictures. Nothing here takes work in.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use axum::Json;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use retouch_shared::key::Digest32;
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::blobs::BlobError;
use crate::broker::supervise::Liveness;
use crate::media;
use crate::worker::Consumed;

#[derive(Clone)]
struct Served {
    app: Arc<App>,
    consumed: Arc<Vec<Consumed>>,
}

/// Listens on `address`; the returned future serves until shutdown.
///
/// # Errors
/// The address cannot be listened on.
pub(crate) async fn bind(
    address: SocketAddr,
    app: Arc<App>,
    consumed: Vec<Consumed>,
) -> Result<impl Future<Output = ()> + Send + 'static> {
    let listener = tokio::net::TcpListener::bind(address).await;
    let listener =
        listener.with_context(|| format!("RETOUCH_HTTP: cannot listen on {address}; give another or off"))?;
    tracing::info!(address = %listener.local_addr()?, "serving HTTP");
    let shutdown = app.shutdown.clone();
    let router = Router::new()
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(readyz))
        .route("/blobs/sha256/{fold}/{digest}", get(blob))
        .with_state(Served { app, consumed: Arc::new(consumed) });
    Ok(async move {
        let served = axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned());
        if let Err(error) = served.await {
            tracing::error!(%error, "HTTP ended");
        }
    })
}

/// 200 when work can be done, 503 otherwise; each part by name with its reason.
async fn readyz(State(served): State<Served>) -> Response {
    let mut parts = Map::new();
    let database = served.app.store.schema_state().await;
    parts.insert("database".to_owned(), part(database.map(drop).map_err(|error| error.to_string())));
    let blobs = served.app.blobs.exists(Digest32::of(b""), None).await;
    parts.insert("blobs".to_owned(), part(blobs.map(drop).map_err(|error| error.to_string())));
    for consumed in &*served.consumed {
        let state = match &*consumed.liveness.borrow() {
            Liveness::Consuming => Ok(()),
            Liveness::Starting => Err("starting".to_owned()),
            Liveness::Stopped => Err("stopped".to_owned()),
            Liveness::Lost { since, error } => Err(format!("not consuming since {since}: {error}")),
        };
        parts.insert(format!("queue {}", consumed.queue), part(state));
    }
    let ready = parts.values().all(|part| part == "ok");
    // A lane that takes no calls is no fault of this replica, which can still do everything else; people see why here.
    for lane in served.app.store.lanes().await.unwrap_or_default() {
        let state =
            lane.closed.map(|closure| format!("takes no calls: {}: {}", closure.code, closure.message));
        parts.insert(format!("lane {}", lane.name), part(state.map_or(Ok(()), Err)));
    }
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Value::Object(parts))).into_response()
}

fn part(state: Result<(), String>) -> Value {
    state.map_or_else(|error| json!(error), |()| json!("ok"))
}

/// A result picture. Only pictures: other blobs (messages of dead letters) are nobody's business here.
async fn blob(
    State(served): State<Served>,
    Path((fold, digest)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let Ok(hash) = digest.parse::<Digest32>() else { return StatusCode::NOT_FOUND.into_response() };
    if !digest.starts_with(&fold) || fold.len() != 2 {
        return StatusCode::NOT_FOUND.into_response();
    }
    let tag = format!("\"{digest}\"");
    if headers.get(header::IF_NONE_MATCH).is_some_and(|given| given.as_bytes() == tag.as_bytes()) {
        return StatusCode::NOT_MODIFIED.into_response();
    }
    match served.app.blobs.get(hash).await {
        Ok(bytes) => match media::inspect(&bytes) {
            Ok(media) => {
                let mut response = bytes.into_response();
                let headers = response.headers_mut();
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media.format.content_type()));
                // The name is the digest: what is under it never changes.
                let forever = HeaderValue::from_static("public, max-age=31536000, immutable");
                headers.insert(header::CACHE_CONTROL, forever);
                headers.extend(HeaderValue::from_str(&tag).ok().map(|tag| (header::ETAG, tag)));
                response
            }
            Err(_) => StatusCode::NOT_FOUND.into_response(),
        },
        Err(BlobError::Missing(_)) => StatusCode::NOT_FOUND.into_response(),
        Err(error @ (BlobError::Corrupt(_) | BlobError::Unavailable(_))) => {
            tracing::error!(%error, "cannot serve a blob");
            StatusCode::SERVICE_UNAVAILABLE.into_response()
        }
    }
}
