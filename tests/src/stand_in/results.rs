//! The pictures that were made, under URLs that are signed and end, as object storage hands them out.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{StreamExt, stream};
use retouch_shared::key::Digest32;
use tokio::task::spawn_blocking;

use super::answers::{dropped, oss};
use super::faults::{Fault, OnResult, Stage};
use super::state::Shared;
use super::tasks::{Edit, Status, Task};

pub(super) fn url(base: &str, task: &str, nth: usize, expires: DateTime<Utc>) -> String {
    let expires = expires.timestamp();
    let name = format!("{task}-{nth}.png");
    let signature = signature(&name, &expires.to_string());
    format!("{base}/results/{name}?Expires={expires}&OSSAccessKeyId=stand-in&Signature={signature}")
}

fn signature(name: &str, expires: &str) -> String {
    Digest32::of(format!("stand-in {name} {expires}").as_bytes()).to_hex()[..24].to_owned()
}

/// The number of a picture among those made: one that failed makes none.
fn place(task: &Task, nth: usize) -> Option<usize> {
    let pictures = task.pictures();
    pictures.get(nth)?.as_ref().ok()?;
    let added = pictures.len() > usize::try_from(task.work.n).unwrap_or_default();
    Some(if added { nth - 1 } else { nth })
}

struct Found {
    edit: Arc<Edit>,
    nth: usize,
    strike: Option<(Fault, super::faults::Armed)>,
}

pub(super) async fn download(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let found = match find(&shared, &name, &query) {
        Ok(found) => found,
        Err(refused) => return *refused,
    };
    let fault = match found.strike {
        Some((Fault::Result(OnResult::Hold), armed)) => {
            armed.hold().await;
            None
        }
        Some((Fault::Result(OnResult::Slow(time)), _)) => {
            tokio::time::sleep(time).await;
            None
        }
        Some((Fault::Result(fault), _)) => Some(fault),
        _ => None,
    };
    let makes = shared.now().0.settings.makes.clone();
    if let (Some(makes), None) = (makes, &fault) {
        return ([(header::CONTENT_TYPE, makes.content_type.clone())], makes.whole()).into_response();
    }
    let rendered = spawn_blocking(move || found.edit.made(found.nth)).await;
    let Ok(Ok(bytes)) = rendered else { return oss(500, "InternalError", "The picture cannot be made.") };
    send(bytes, fault)
}

fn find(shared: &Shared, name: &str, query: &HashMap<String, String>) -> Result<Found, Box<Response>> {
    let refuse = |status, code, message| Err(Box::new(oss(status, code, message)));
    let (mut state, now) = shared.now();
    state.ledger.downloads += 1;
    let expires = query.get("Expires").map(String::as_str).unwrap_or_default();
    if query.get("Signature") != Some(&signature(name, expires)) {
        return refuse(403, "SignatureDoesNotMatch", "The request signature we calculated does not match.");
    }
    if expires.parse::<i64>().is_ok_and(|at| at <= now.timestamp()) {
        return refuse(403, "AccessDenied", "Request has expired.");
    }
    let parts = name.strip_suffix(".png").and_then(|name| name.rsplit_once('-'));
    let found = parts.and_then(|(id, nth)| {
        let task = state.tasks.get(id).filter(|task| task.status == Status::Succeeded)?;
        Some((Arc::clone(&task.work.edit), task.work.model.name, place(task, nth.parse().ok()?)?))
    });
    let Some((edit, model, nth)) = found else {
        return refuse(404, "NoSuchKey", "The specified key does not exist.");
    };
    let strike = state.strike(Stage::Result, model, &format!("{} {nth}", edit.identity));
    Ok(Found { edit, nth, strike })
}

fn send(bytes: Bytes, fault: Option<OnResult>) -> Response {
    let png = [(header::CONTENT_TYPE, "image/png")];
    match fault {
        None | Some(OnResult::Hold | OnResult::Slow(_)) => (png, bytes).into_response(),
        Some(OnResult::Drop) => dropped(),
        Some(OnResult::Status(403)) => oss(403, "AccessDenied", "Request has expired."),
        Some(OnResult::Status(404)) => oss(404, "NoSuchKey", "The specified key does not exist."),
        Some(OnResult::Status(status)) => oss(status, "InternalError", "We encountered an internal error."),
        Some(OnResult::Truncated) => (png, bytes.slice(..bytes.len() / 2)).into_response(),
        Some(OnResult::Html) => {
            let html = [(header::CONTENT_TYPE, "text/html; charset=utf-8")];
            (html, "<!DOCTYPE html><title>Sign in</title><p>Please sign in to this network.").into_response()
        }
        Some(OnResult::CutOff) => {
            let half = bytes.slice(..bytes.len() / 2);
            // What was said is sent when the body has nothing more to say for now; an error at once would send nothing.
            let end = stream::once(async {
                tokio::task::yield_now().await;
                Err(io::Error::other("cut off as the test asked"))
            });
            let body = Body::from_stream(stream::iter([Ok(half)]).chain(end));
            (png, [(header::CONTENT_LENGTH, bytes.len())], body).into_response()
        }
    }
}
