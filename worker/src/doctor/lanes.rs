//! Checks for closed lanes, and for edits that no worker with these keys serves.

use super::{Check, no_answer, within};
use crate::config::Parts;
use crate::store::{ClosedBy, LaneView, Store};
use crate::words::counted;

const NAME: &str = "lanes";

pub(super) async fn check(parts: &Parts, store: Option<&Store>) -> Check {
    let Some(store) = store else {
        return Check::skipped(NAME, "skipped: it needs the database and its schema");
    };
    let lanes = match within(store.lanes()).await {
        None => return Check::failed(NAME, no_answer(), "look at the database's load"),
        Some(Err(error)) => return Check::failed(NAME, error.to_string(), "look at the database"),
        Some(Ok(lanes)) => lanes,
    };
    let closed: Vec<&LaneView> = lanes.iter().filter(|lane| lane.closed.is_some()).collect();
    if closed.is_empty() {
        return unserved(parts, &lanes);
    }
    let told: Vec<_> = closed.iter().filter_map(|lane| told(lane)).collect();
    let provider = |lane: &&LaneView| {
        lane.closed.as_ref().is_some_and(|closure| matches!(closure.by, ClosedBy::Submit | ClosedBy::Poll))
    };
    if closed.iter().any(provider) {
        let fix = "mend the account, key or model; the lane tries again by itself, at once with `retouch lanes resume NAME`";
        return Check::failed(NAME, told.join("; "), fix);
    }
    if let Some(fetch) =
        closed.iter().filter_map(|lane| lane.closed.as_ref()).find(|closure| closure.by == ClosedBy::Fetch)
    {
        return Check::failed(NAME, told.join("; "), fetch.message.clone());
    }
    let of = |by: ClosedBy| {
        let lanes = closed.iter().filter(|lane| lane.closed.as_ref().is_some_and(|closure| closure.by == by));
        lanes.map(|lane| lane.name.as_str()).collect::<Vec<_>>().join(" ")
    };
    let (paused, spent) = (of(ClosedBy::Pause), of(ClosedBy::Budget));
    let mut fixes = Vec::new();
    if !paused.is_empty() {
        fixes.push(format!("`retouch lanes resume {paused}` when it may go on"));
    }
    if !spent.is_empty() {
        fixes.push(format!(
            "raise daily_budget of {spent} and restart the workers, or wait until midnight UTC"
        ));
    }
    let fix = fixes.join("; ");
    Check::warning(NAME, told.join("; "), fix)
}

fn told(lane: &LaneView) -> Option<String> {
    let closure = lane.closed.as_ref()?;
    let how = match closure.by {
        ClosedBy::Submit | ClosedBy::Poll | ClosedBy::Fetch => {
            format!("blocked: {}: {}", closure.code, closure.message)
        }
        ClosedBy::Budget => format!("out of budget: {}", closure.message),
        ClosedBy::Pause => format!("paused: {}", closure.message),
    };
    Some(format!("{} is {how} ({} waiting)", lane.name, counted(lane.queued, "edit")))
}

/// Another machine may have the key that this one lacks.
fn unserved(parts: &Parts, lanes: &[LaneView]) -> Check {
    let served = parts.offer.as_ref().map(|offer| offer.served_lanes()).unwrap_or_default();
    let waiting: Vec<_> =
        lanes.iter().filter(|lane| lane.queued > 0 && !served.contains(&lane.name)).collect();
    if waiting.is_empty() {
        let count = lanes.len();
        return Check::good(NAME, format!("{count} known, none of them blocked or paused"));
    }
    let waiting: Vec<_> = waiting.iter().map(|lane| format!("{} on {}", lane.queued, lane.name)).collect();
    let detail = format!(
        "edits wait on lanes that are not served with the keys of this machine: {}",
        waiting.join(", ")
    );
    Check::warning(NAME, detail, "set the provider's key, unless another machine serves them")
}
