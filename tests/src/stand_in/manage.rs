//! Query, list and cancel: what DashScope offers around tasks, for every key of their account.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use serde_json::json;

use super::answers::{Refusal, Wire, dropped, new_id, ok};
use super::clock::{china, delta};
use super::faults::{Armed, Fault, OnRequest, Stage};
use super::state::{self, Shared};
use super::tasks::{Kind, Task};
use super::views;

pub(super) async fn query(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    let strike = {
        let (mut state, now) = shared.now();
        state.ledger.polls += 1;
        let account = match state.account(&headers, Wire::DashScope) {
            Ok(account) => account,
            Err(refusal) => return refusal.answer(Wire::DashScope),
        };
        if let Err(refusal) = state.admit_management(&account, "query", now) {
            return refusal.answer(Wire::DashScope);
        }
        let (model, subject) = named(&state, &id);
        (state.strike(Stage::Poll, model, &subject), account)
    };
    let (strike, account) = strike;
    if let Some(response) = misbehave(strike).await {
        return response;
    }
    let (state, now) = shared.now();
    match state.tasks.get(&id).filter(|task| visible(task, &account, &state, now)) {
        Some(task) => ok(&views::query(&shared, &state, task)),
        None => ok(&views::unknown(&id)),
    }
}

pub(super) async fn cancel(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    let (strike, account) = {
        let (mut state, now) = shared.now();
        state.ledger.cancels += 1;
        let account = match state.account(&headers, Wire::DashScope) {
            Ok(account) => account,
            Err(refusal) => return refusal.answer(Wire::DashScope),
        };
        if let Err(refusal) = state.admit_management(&account, "cancel", now) {
            return refusal.answer(Wire::DashScope);
        }
        let (model, subject) = named(&state, &id);
        (state.strike(Stage::Cancel, model, &subject), account)
    };
    if let Some(response) = misbehave(strike).await {
        return response;
    }
    let (mut state, now) = shared.now();
    let theirs = state.tasks.get(&id).is_some_and(|task| visible(task, &account, &state, now));
    if !theirs || !state.tasks.cancel(&id, now) {
        let words = "Failed to cancel the task, please confirm if the task is in PENDING status.";
        return Refusal::new(400, "UnsupportedOperation", words).answer(Wire::DashScope);
    }
    state.ledger.cancelled.push(id);
    ok(&json!({ "request_id": new_id() }))
}

pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    Query(wanted): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    let (strike, account) = {
        let (mut state, now) = shared.now();
        state.ledger.lists += 1;
        let account = match state.account(&headers, Wire::DashScope) {
            Ok(account) => account,
            Err(refusal) => return refusal.answer(Wire::DashScope),
        };
        if let Err(refusal) = state.admit_management(&account, "list", now) {
            return refusal.answer(Wire::DashScope);
        }
        let model = wanted.get("model_name").map(String::as_str).unwrap_or_default();
        (state.strike(Stage::List, model, &account), account)
    };
    if let Some(response) = misbehave(strike).await {
        return response;
    }
    let (state, now) = shared.now();
    let filter = match Filter::of(&wanted, now) {
        Ok(filter) => filter,
        Err(refusal) => return refusal.answer(Wire::DashScope),
    };
    let newest_first = state.tasks.ids.iter().rev().filter_map(|id| state.tasks.get(id));
    let matching = newest_first.filter(|task| visible(task, &account, &state, now) && filter.takes(task));
    let all: Vec<_> = matching.map(views::line).collect();
    let total = all.len();
    let skipped = filter.page_size * (filter.page_no - 1);
    let data: Vec<_> = all.into_iter().skip(skipped).take(filter.page_size).collect();
    ok(&json!({
        "total": total,
        "data": data,
        "total_page": total.div_ceil(filter.page_size),
        "page_no": filter.page_no,
        "page_size": filter.page_size,
        "request_id": new_id(),
    }))
}

/// What a list is asked for.
#[derive(Debug)]
struct Filter<'a> {
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    wanted: &'a HashMap<String, String>,
    page_no: usize,
    page_size: usize,
}

impl<'a> Filter<'a> {
    fn of(wanted: &'a HashMap<String, String>, now: DateTime<Utc>) -> Result<Self, Refusal> {
        let time = |name: &str| match wanted.get(name) {
            None => Ok(None),
            Some(text) => read_time(text)
                .map(Some)
                .ok_or_else(|| Refusal::invalid(format!("{name} is not YYYYMMDDhhmmss"))),
        };
        let number = |name: &str, otherwise: usize| match wanted.get(name) {
            None => Ok(otherwise),
            Some(text) => text
                .parse()
                .ok()
                .filter(|number| *number > 0)
                .ok_or_else(|| Refusal::invalid(format!("{name} must be a positive number"))),
        };
        let day = TimeDelta::hours(24);
        let (from, to) = match (time("start_time")?, time("end_time")?) {
            (Some(from), Some(to)) => (from, to),
            (Some(from), None) => (from, from + day),
            (None, Some(to)) => (to - day, to),
            (None, None) => (now - day, now),
        };
        if to - from > day {
            return Err(Refusal::invalid("the time range must not exceed 24 hours"));
        }
        Ok(Self { from, to, wanted, page_no: number("page_no", 1)?, page_size: number("page_size", 10)? })
    }

    fn takes(&self, task: &Task) -> bool {
        let is = |name: &str, value: &str| self.wanted.get(name).is_none_or(|wanted| wanted == value);
        let status = serde_json::to_value(task.status).unwrap();
        (self.from..=self.to).contains(&task.submitted)
            && is("task_id", &task.id)
            && is("model_name", task.work.model.name)
            && is("status", status.as_str().unwrap_or_default())
    }
}

fn read_time(text: &str) -> Option<DateTime<Utc>> {
    let naive = NaiveDateTime::parse_from_str(text, "%Y%m%d%H%M%S").ok()?;
    Some(naive.and_local_timezone(china()).single()?.to_utc())
}

/// Whether an account may see a task, and it is still kept. A synchronous call has no task to be seen.
fn visible(task: &Task, account: &str, state: &state::State, now: DateTime<Utc>) -> bool {
    let kept = now < task.submitted + delta(state.settings.task_ttl);
    kept && task.work.account == account && task.work.kind != Kind::Call
}

/// The model of a task, and what dice are thrown for: the edit, which has the same name in every run.
fn named(state: &state::State, id: &str) -> (&'static str, String) {
    match state.tasks.get(id) {
        Some(task) => (task.work.model.name, task.work.edit.identity.to_hex()),
        None => ("", id.to_owned()),
    }
}

/// The answer that a fault gives in place of the right one, if it gives one.
pub(super) async fn misbehave(strike: Option<(Fault, Armed)>) -> Option<Response> {
    let (fault, armed) = strike?;
    let (Fault::Poll(fault) | Fault::List(fault) | Fault::Cancel(fault) | Fault::Upload(fault)) = fault
    else {
        return None;
    };
    match fault {
        OnRequest::Drop => Some(dropped()),
        OnRequest::Refuse(refusal) => Some(refusal.answer(Wire::DashScope)),
        OnRequest::Hold => {
            armed.hold().await;
            None
        }
        OnRequest::Slow(time) => {
            tokio::time::sleep(time).await;
            None
        }
    }
}
