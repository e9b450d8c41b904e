//! DashScope's temporary files: a policy, a form posted to object storage, and from then on an `oss://` URL that only the
//! same account may use, only with the same model.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use chrono::TimeDelta;
use serde_json::json;

use super::answers::{Refusal, Wire, new_id, ok, oss};
use super::faults::Stage;
use super::form::Form;
use super::manage::misbehave;
use super::state::{Policy, Shared, Upload};

const EXPIRES_IN: i64 = 300;
const KEPT_HOURS: i64 = 48;
const MOST_MB: usize = 100;

pub(super) async fn policy(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    let refuse = |refusal: Refusal| refusal.answer(Wire::DashScope);
    let model = query.get("model").cloned().unwrap_or_default();
    let (account, strike) = {
        let (mut state, _) = shared.now();
        match state.account(&headers, Wire::DashScope) {
            Ok(account) => (account, state.strike(Stage::Upload, &model, "policy")),
            Err(refusal) => return refuse(refusal),
        }
    };
    if let Some(response) = misbehave(strike).await {
        return response;
    }
    let (mut state, now) = shared.now();
    if query.get("action").is_none_or(|action| action != "getPolicy") {
        return refuse(Refusal::invalid("action must be getPolicy"));
    }
    if let Err(refusal) = state.model(&model, Wire::DashScope) {
        return refuse(refusal);
    }
    let upload_dir = format!("dashscope-instant/{}", new_id());
    let expires = now + TimeDelta::seconds(EXPIRES_IN);
    state.uploads.policies.insert(upload_dir.clone(), Policy { account, model, expires });
    ok(&json!({ "request_id": new_id(), "data": {
        "policy": upload_dir,
        "signature": "c3RhbmQtaW4=",
        "upload_dir": upload_dir,
        "upload_host": shared.url(""),
        "expire_in_seconds": EXPIRES_IN,
        "max_file_size_mb": MOST_MB,
        "capacity_limit_mb": 999_999_999,
        "oss_access_key_id": "stand-in",
        "x_oss_object_acl": "private",
        "x_oss_forbid_overwrite": "true",
    } }))
}

pub(super) async fn upload(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let form = match Form::read(request).await {
        Ok(form) => form,
        Err(words) => return oss(400, "MalformedPOSTRequest", &words),
    };
    let (key, granted) = {
        let (mut state, now) = shared.now();
        let key = form.text("key").unwrap_or_default().to_owned();
        let policy = form.text("policy").and_then(|policy| state.uploads.policies.get(policy)).cloned();
        let signed =
            form.text("OSSAccessKeyId") == Some("stand-in") && form.text("Signature") == Some("c3RhbmQtaW4=");
        let inside = form.text("policy").is_some_and(|folder| key.starts_with(&format!("{folder}/")));
        let granted = policy.filter(|policy| signed && inside && policy.expires > now);
        let granted = granted.map(|policy| {
            let strike = state.strike(Stage::Upload, &policy.model, "upload");
            (policy, strike)
        });
        (key, granted)
    };
    let Some((policy, strike)) = granted else {
        return oss(403, "AccessDenied", "Invalid according to Policy, or the policy has expired.");
    };
    if let Some(response) = misbehave(strike).await {
        return response;
    }
    store(&shared, &form, key, policy)
}

fn store(shared: &Shared, form: &Form, key: String, policy: Policy) -> Response {
    let (mut state, now) = shared.now();
    // OSS ignores fields after the file.
    let Some(file) = form.0.last().filter(|field| field.name == "file") else {
        return oss(400, "InvalidArgument", "The file must be the last field of the form.");
    };
    if file.bytes.len() > MOST_MB * 1024 * 1024 {
        return oss(400, "EntityTooLarge", "Your proposed upload exceeds the maximum allowed size.");
    }
    if state.uploads.files.contains_key(&key) {
        return oss(
            409,
            "FileAlreadyExists",
            "The object you specified already exists and can not be overwritten.",
        );
    }
    let expires = now + TimeDelta::hours(KEPT_HOURS);
    let Policy { account, model, .. } = policy;
    state.uploads.files.insert(key, Upload { account, model, expires, bytes: file.bytes.clone() });
    state.ledger.uploads += 1;
    // Without `success_action_status` OSS answers 204.
    let status = form.text("success_action_status").and_then(|status| status.parse().ok());
    StatusCode::from_u16(status.unwrap_or(204)).unwrap_or(StatusCode::NO_CONTENT).into_response()
}
