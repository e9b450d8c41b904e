//! The HTTP interface under `/stand-in/` of the program `stand-in`, in place of the Rust interface. The JSON
//! is that of the Rust types:
//!
//! - `GET /stand-in/ledger`; `GET` and `PUT /stand-in/settings` (what is left out has its default);
//! - `POST /stand-in/faults` with e.g. `{"fault": {"poll": {"refuse": {"status": 500, "code": "InternalError", "message": ""}}},
//!   "times": 3, "model": null}`, where no `times` means until `DELETE /stand-in/faults`;
//! - `POST /stand-in/chaos` with `{"seed": 1, "chaos": [[0.1, {"poll": "drop"}]]}`;
//! - `POST /stand-in/advance` with `{"seconds": 86400}`.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Json, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::json;

use super::faults::{Arm, Chaos};
use super::settings::Settings;
use super::state::Shared;

pub(super) fn router() -> Router<Arc<Shared>> {
    Router::new()
        .route("/stand-in/ledger", get(ledger))
        .route("/stand-in/settings", get(settings).put(set))
        .route("/stand-in/faults", post(arm).delete(clear))
        .route("/stand-in/chaos", post(chaos))
        .route("/stand-in/advance", post(advance))
}

async fn ledger(State(shared): State<Arc<Shared>>) -> Response {
    let ledger = shared.now().0.ledger.clone();
    let sums =
        json!({ "creates": ledger.creates(), "billed": ledger.billed(), "fen": ledger.fen_by_model() });
    Json(json!({ "sums": sums, "ledger": ledger })).into_response()
}

async fn settings(State(shared): State<Arc<Shared>>) -> Json<Settings> {
    Json(shared.now().0.settings.clone())
}

async fn set(State(shared): State<Arc<Shared>>, Json(settings): Json<Settings>) -> StatusCode {
    shared.now().0.settings = settings;
    shared.changed.send_replace(());
    StatusCode::NO_CONTENT
}

async fn arm(State(shared): State<Arc<Shared>>, Json(arm): Json<Arm>) -> StatusCode {
    shared.now().0.faults.arm(arm);
    StatusCode::NO_CONTENT
}

async fn clear(State(shared): State<Arc<Shared>>) -> StatusCode {
    shared.now().0.faults.clear();
    StatusCode::NO_CONTENT
}

#[derive(Debug, Deserialize)]
struct Seeded {
    seed: u64,
    chaos: Chaos,
}

async fn chaos(State(shared): State<Arc<Shared>>, Json(seeded): Json<Seeded>) -> StatusCode {
    shared.now().0.faults.chaos(seeded.seed, seeded.chaos);
    StatusCode::NO_CONTENT
}

#[derive(Debug, Deserialize)]
struct Seconds {
    seconds: u64,
}

async fn advance(State(shared): State<Arc<Shared>>, Json(by): Json<Seconds>) -> StatusCode {
    shared.clock.advance(Duration::from_secs(by.seconds));
    shared.changed.send_replace(());
    StatusCode::NO_CONTENT
}
