//! Readiness: each part by name, `ok` or the reason why not, within seconds even if servers hang.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use retouch_shared::key::Digest32;
use serde_json::{Map, Value, json};

use super::Served;
use super::asked::{Patience, Question};
use crate::broker::Queue;
use crate::broker::supervise::Liveness;
use crate::store::{LaneView, SchemaState};

/// Probes come every few seconds, from more than one place, and none may hang.
const PATIENCE: Patience = Patience {
    keep: Duration::from_millis(500),
    at_most: Duration::from_secs(5),
    wait: Duration::from_secs(2),
};

/// `Ok`, or why the part is not ready.
type Part = Result<(), String>;

/// Probes of other servers.
#[derive(Default)]
pub(super) struct Asked {
    database: Question<(), String>,
    broker: Question<(), String>,
    blobs: Question<(), String>,
    lanes: Question<Vec<LaneView>, String>,
}

/// 200 if work can be done, 503 otherwise.
pub(super) async fn readyz(State(served): State<Served>) -> Response {
    let (database, broker, blobs, lanes) = tokio::join!(
        served.database_answers(),
        served.broker_answers(),
        served.blobs_answer(),
        served.lanes_answer()
    );
    let mut parts = Map::new();
    parts.insert("database".to_owned(), part(database));
    parts.insert("broker".to_owned(), part(broker));
    parts.insert("blobs".to_owned(), part(blobs));
    for consumed in &*served.consumed {
        let state = match &*consumed.liveness.borrow() {
            Liveness::Consuming => Ok(()),
            Liveness::Starting => Err("starting".to_owned()),
            Liveness::Stopped => Err("stopped".to_owned()),
            Liveness::Lost { since, error } => Err(format!("not consuming since {since}: {error}")),
        };
        parts.insert(format!("queue {}", consumed.queue), part(state));
    }
    if let Err(error) = &lanes {
        parts.insert("lanes".to_owned(), json!(error));
    }
    let ready = parts.values().all(|part| part == "ok");
    // A closed lane is no fault of this replica, which can do everything else; shown for people.
    for lane in lanes.unwrap_or_default() {
        let closed = lane.closed.as_ref();
        let closed = closed.map(|closure| format!("takes no calls: {}: {}", closure.code, closure.message));
        let closed = closed.or_else(|| lane.reason());
        let unfetched = lane.unfetched.as_ref().map(crate::store::Unfetched::notice);
        let state = match (closed, unfetched) {
            (Some(closed), Some(unfetched)) => Some(format!("{closed}; {unfetched}")),
            (closed, unfetched) => closed.or(unfetched),
        };
        parts.insert(format!("lane {}", lane.name), part(state.map_or(Ok(()), Err)));
    }
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Value::Object(parts))).into_response()
}

impl Served {
    async fn database_answers(&self) -> Part {
        let store = self.app.store.clone();
        let ask = || async move {
            match store.schema_state().await {
                // A newer program has extended it, which this one tolerates.
                Ok(SchemaState::Current | SchemaState::Ahead { .. }) => Ok(()),
                Ok(
                    state @ (SchemaState::Empty | SchemaState::Behind { .. } | SchemaState::Foreign { .. }),
                ) => Err(state.to_string()),
                Err(error) => Err(error.to_string()),
            }
        };
        self.health.database.ask(PATIENCE, ask).await.unwrap_or_else(|| Err(no_answer()))
    }

    /// Asks the broker, because a silent connection looks alive until its heartbeats are missed.
    async fn broker_answers(&self) -> Part {
        let broker = Arc::clone(&self.app.broker);
        let ask =
            || async move { broker.depth(Queue::Tasks).await.map(drop).map_err(|error| error.to_string()) };
        self.health.broker.ask(PATIENCE, ask).await.unwrap_or_else(|| Err(no_answer()))
    }

    async fn blobs_answer(&self) -> Part {
        let blobs = self.app.blobs.clone();
        let ask = || async move {
            blobs.exists(Digest32::of(b""), None).await.map(drop).map_err(|error| error.to_string())
        };
        self.health.blobs.ask(PATIENCE, ask).await.unwrap_or_else(|| Err(no_answer()))
    }

    async fn lanes_answer(&self) -> Result<Vec<LaneView>, String> {
        let store = self.app.store.clone();
        let ask = || async move { store.lanes().await.map_err(|error| error.to_string()) };
        self.health.lanes.ask(PATIENCE, ask).await.unwrap_or_else(|| Err(no_answer()))
    }
}

fn no_answer() -> String {
    format!("no answer within {:?}", PATIENCE.wait)
}

fn part(state: Part) -> Value {
    state.map_or_else(|error| json!(error), |()| json!("ok"))
}
