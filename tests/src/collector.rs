//! A stand-in for an OpenTelemetry collector: takes spans over OTLP/HTTP in JSON, and shows them.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::wait;

type Requests = Arc<Mutex<Vec<Value>>>;

/// The collector; it stops on drop.
#[derive(Debug)]
pub struct Collector {
    address: SocketAddr,
    requests: Requests,
    task: JoinHandle<()>,
}

/// One span, as far as tests ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Which service.
    pub service: String,
    /// Its name.
    pub name: String,
    /// In hexadecimal digits.
    pub trace_id: String,
    /// As `trace_id`.
    pub span_id: String,
    /// As `trace_id`; empty where it has none.
    pub parent: String,
    /// Its attributes as JSON.
    pub attributes: Value,
}

impl Collector {
    /// Listens on a free port of 127.0.0.1.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Requests::default();
        let router = Router::new().route("/v1/traces", post(take)).with_state(Arc::clone(&requests));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, requests, task }
    }

    /// For `OTEL_EXPORTER_OTLP_ENDPOINT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The spans that came so far.
    #[must_use]
    pub fn spans(&self) -> Vec<Span> {
        let requests = self.requests.lock().unwrap();
        let list = |value: &Value, name: &str| value[name].as_array().cloned().unwrap_or_default();
        let mut spans = Vec::new();
        for resource in requests.iter().flat_map(|request| list(request, "resourceSpans")) {
            let attributes = list(&resource["resource"], "attributes");
            let service = attributes.iter().find(|attribute| attribute["key"] == "service.name");
            let service = service.map(|service| text(&service["value"]["stringValue"])).unwrap_or_default();
            for span in list(&resource, "scopeSpans").iter().flat_map(|scope| list(scope, "spans")) {
                spans.push(Span {
                    service: service.clone(),
                    name: text(&span["name"]),
                    trace_id: text(&span["traceId"]),
                    span_id: text(&span["spanId"]),
                    parent: text(&span["parentSpanId"]),
                    attributes: span["attributes"].clone(),
                });
            }
        }
        spans
    }

    /// The first span of this name, once it has come.
    pub async fn span(&self, name: &str) -> Span {
        let found = async || self.spans().into_iter().find(|span| span.name == name);
        wait::until(&format!("a span {name}"), found).await
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

async fn take(State(requests): State<Requests>, Json(request): Json<Value>) -> Json<Value> {
    requests.lock().unwrap().push(request);
    Json(json!({}))
}
