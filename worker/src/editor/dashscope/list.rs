//! The provider's list of tasks: the tasks of a model in a span of time. It has ids and times, not the
//! requests.
//!
//! Invariant: our clock is never compared with the provider's, and a list that may be incomplete is an error.
//! The `Date` header of an answer is the provider's clock, and the span is counted from there.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use chrono::{DateTime, FixedOffset, Utc};
use url::Url;

use super::api::Api;
use super::errors::Place;
use super::wire::{Page, Said};
use crate::editor::http::{self, SendError};
use crate::editor::{EditError, ListedTask};

/// Start of the span before the submit: an unclaimed task in it makes the match doubtful.
pub(super) const BEFORE: Duration = Duration::from_secs(60);
/// The default page size. The maximum is not documented.
const PAGE: &str = "10";
/// Covers some minutes of the fastest lane, and bounds the requests at twenty a second.
const MOST_PAGES: u64 = 200;
/// A slower answer dates its list too imprecisely.
const PROMPT: Duration = Duration::from_secs(2);
/// The provider's timestamps are in China time.
const CHINA: i32 = 8 * 60 * 60;

/// The tasks of a model since `since` ago, and some before.
pub(super) async fn since(api: &Api, model: &str, since: Duration) -> Result<Vec<ListedTask>, EditError> {
    let asked = Instant::now();
    let (_, date) = page(api, &[("model_name", model), ("page_no", "1"), ("page_size", "1")]).await?;
    let took = asked.elapsed();
    let date = date.ok_or_else(|| unavailable("its answers have no date"))?;
    if took > PROMPT {
        return Err(unavailable("it answers too slowly to tell what its clock shows"));
    }
    // Whole seconds, truncated: the request was made within the two seconds before this and the one after.
    let asked = date + Duration::from_secs(1) - took;
    let (from, to) = (written(asked - since - BEFORE), written(date + Duration::from_secs(1)));
    let mut lines = BTreeMap::new();
    let mut number = 1;
    loop {
        let page_no = number.to_string();
        let span = [("start_time", from.as_str()), ("end_time", to.as_str())];
        let size = [("model_name", model), ("page_no", page_no.as_str()), ("page_size", PAGE)];
        let (page, _) = page(api, &[span.as_slice(), size.as_slice()].concat()).await?;
        let is_last = number >= page.pages;
        lines.extend(page.lines.into_iter().map(|line| (line.task_id.clone(), line)));
        if is_last {
            // A task created meanwhile can have moved another one from a later page to one that was read.
            if (lines.len() as u64) < page.total {
                return Err(unavailable("it changed while it was read"));
            }
            break;
        }
        if number >= MOST_PAGES {
            return Err(unavailable("it is too long to be read"));
        }
        number += 1;
    }
    let age = |created_ms| {
        let created = SystemTime::UNIX_EPOCH + Duration::from_millis(created_ms);
        asked.duration_since(created).unwrap_or_default()
    };
    let meant = lines.into_values().filter(|line| line.model.is_empty() || line.model == model);
    let task = |line: super::wire::Line| ListedTask {
        age: line.created_ms.map(age),
        provider_task_id: line.task_id,
    };
    Ok(meant.map(task).collect())
}

/// Whether a page can be read at all.
pub(super) async fn ask(api: &Api) -> Result<(), EditError> {
    page(api, &[("page_no", "1"), ("page_size", "1")]).await.map(drop)
}

/// One page, and the provider's clock.
async fn page(api: &Api, query: &[(&str, &str)]) -> Result<(Page, Option<SystemTime>), EditError> {
    // With the final slash that the provider documents.
    let mut url: Url = api.url(&["tasks", ""]);
    url.query_pairs_mut().extend_pairs(query);
    let answer = http::send(api.get(url)?).await.map_err(|error| match error {
        SendError::NotSent(why) | SendError::NoAnswer(why) => EditError::Unavailable(why),
    })?;
    let said = Said::read(&answer.body);
    if !answer.is_success() || !said.fault().0.is_empty() {
        return Err(api.refused(Place::Poll, &answer, &said));
    }
    let page = said.page().ok_or_else(|| unavailable("it is no list"))?;
    Ok((page, answer.date))
}

fn unavailable(why: &str) -> EditError {
    EditError::Unavailable(format!("the provider's list of tasks cannot be used: {why}"))
}

fn written(at: SystemTime) -> String {
    let at = DateTime::<Utc>::from(at);
    match FixedOffset::east_opt(CHINA) {
        Some(china) => at.with_timezone(&china).format("%Y%m%d%H%M%S").to_string(),
        // Eight hours are a valid offset.
        None => at.format("%Y%m%d%H%M%S").to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_chinas() {
        let at = httpdate::parse_http_date("Wed, 25 Nov 2026 20:00:01 GMT").unwrap();
        assert_eq!(written(at), "20261126040001");
    }
}
