//! The provider's list of tasks: what was created of a model in a span of time. It names ids and times, never what was asked.
//!
//! What must stay true: no clock of ours is compared with the provider's, and a list that may have a gap is no list. An
//! answer's own date says what the provider's clock shows, and the span is counted from there.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use chrono::{DateTime, FixedOffset, Utc};
use url::Url;

use super::api::Api;
use super::errors::Place;
use super::wire::{Page, Said};
use crate::editor::http::{self, SendError};
use crate::editor::{EditError, ListedTask};

/// So long before the submit the span begins: what is found there and is nobody's raises doubt.
pub(super) const BEFORE: Duration = Duration::from_secs(60);
/// The default. How many a page may have at most is not documented.
const PAGE: &str = "10";
/// Some minutes of the fastest lane. More is not read with twenty questions a second.
const MOST_PAGES: u64 = 200;
/// An answer that took longer says the time too vaguely.
const PROMPT: Duration = Duration::from_secs(2);
/// Times are written in China time.
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
    // Whole seconds, cut off: the question was asked within the two seconds before this and the one after.
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
            // A task that came meanwhile can have pushed another one from a page that was to come to one that was read.
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

/// Whether a page can be had at all.
pub(super) async fn ask(api: &Api) -> Result<(), EditError> {
    page(api, &[("page_no", "1"), ("page_size", "1")]).await.map(drop)
}

/// One page, and what the provider's clock shows.
async fn page(api: &Api, query: &[(&str, &str)]) -> Result<(Page, Option<SystemTime>), EditError> {
    // With its last slash, as the provider writes it.
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
        // Eight hours are an offset.
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
