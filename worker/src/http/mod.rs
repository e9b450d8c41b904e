//! HTTP: liveness, readiness, metrics and the result pictures. Nothing here takes work in.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use axum::Router;
use axum::routing::get;

use crate::app::App;
use crate::worker::Consumed;

mod asked;
mod blobs;
mod health;
mod scrape;

#[derive(Clone)]
struct Served {
    app: Arc<App>,
    consumed: Arc<Vec<Consumed>>,
    health: Arc<health::Asked>,
    scrape: Arc<scrape::Asked>,
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
    let served = Served { app, consumed: Arc::new(consumed), health: Arc::default(), scrape: Arc::default() };
    let router = Router::new()
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(scrape::metrics))
        .route("/blobs/sha256/{fold}/{digest}", get(blobs::blob))
        .with_state(served);
    Ok(async move {
        let served = axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned());
        if let Err(error) = served.await {
            tracing::error!(%error, "HTTP ended");
        }
    })
}
