//! HTTP: liveness, readiness, metrics and result pictures. No endpoint accepts work.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use axum::Router;
use axum::routing::get;
use tokio::sync::Semaphore;

use crate::app::App;
use crate::worker::Consumed;

mod asked;
mod blobs;
mod health;
mod patient;
mod scrape;
mod server;

#[derive(Clone)]
struct Served {
    app: Arc<App>,
    consumed: Arc<Vec<Consumed>>,
    health: Arc<health::Asked>,
    scrape: Arc<scrape::Asked>,
    /// One permit for each picture that is being sent.
    sending: Arc<Semaphore>,
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
    if !address.ip().is_loopback() {
        tracing::warn!(
            %address,
            "RETOUCH_HTTP: other machines reach this address, and it has no login: let them see /blobs/ at most"
        );
    }
    let shutdown = app.shutdown.clone();
    let max_connections = server::max_connections();
    // Half of the connections stay for probes and scrapes.
    let sending = Arc::new(Semaphore::new(max_connections / 2));
    let served =
        Served { app, consumed: Arc::new(consumed), health: Arc::default(), scrape: Arc::default(), sending };
    let router = Router::new()
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(scrape::metrics))
        .route("/blobs/sha256/{fold}/{digest}", get(blobs::blob))
        .with_state(served);
    Ok(server::serve(listener, router, max_connections, shutdown))
}
