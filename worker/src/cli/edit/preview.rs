//! What a command would do and cost, before it does anything: `--dry-run`, and `--max-cost`.

use std::collections::BTreeSet;

use anyhow::{Result, anyhow};
use retouch_shared::event::{ImageError, decimal};
use retouch_shared::task::{Source, Task};
use serde_json::{Value, json};

use super::super::Failure;
use super::super::folders::LeftOut;
use super::super::inputs::{Input, Picture};
use super::super::report::failed_line;
use super::super::say::say;
use super::feed::read;
use crate::app::App;
use crate::broker::Message;
use crate::intake::{Foreseen, Preview};
use crate::sources::{LoadError, Loaded};
use crate::store::{CallState, Money};

/// What would become of the pictures.
pub(super) struct Estimate {
    hit: usize,
    /// Answered by a call that another picture starts, or that was accepted before.
    joined: usize,
    calls: usize,
    failed: Vec<(String, ImageError)>,
    /// Of all calls.
    pub(super) cost: Money,
    price: Money,
}

/// Reads every picture and looks it up; keeps nothing.
///
/// # Errors
/// The cache cannot be asked, or the edit is refused for every picture.
pub(super) async fn estimate(
    app: &App,
    task: &Task,
    pictures: &[Picture],
    mask: Option<&Input>,
) -> Result<Estimate, Failure> {
    let unreachable = |error: String| Failure::Unreachable(anyhow!(error));
    let usage = |error: ImageError| Failure::Usage(anyhow!(error.message));
    let mask = match mask {
        None => None,
        Some(mask) => Some(load(app, mask).await.map_err(unreachable)?.map_err(usage)?),
    };
    let message = Message::new(Vec::new());
    let preview = Preview::new(app, &message, task, mask).map_err(usage)?;
    let price = preview.price().clone();
    let cost = Money { micros: 0, currency: price.currency.clone() };
    let mut estimate = Estimate { hit: 0, joined: 0, calls: 0, failed: Vec::new(), cost, price };
    let mut seen = BTreeSet::new();
    for picture in pictures {
        let foreseen = match load(app, &picture.input).await.map_err(unreachable)? {
            Ok(loaded) => preview.of(&loaded).await.map_err(unreachable)?,
            Err(error) => Foreseen::Refused(error),
        };
        match foreseen {
            Foreseen::Hit => estimate.hit += 1,
            Foreseen::Refused(error) => estimate.failed.push((picture.input.name(), error)),
            Foreseen::Miss(key) if !seen.insert(key) => estimate.joined += 1,
            Foreseen::Miss(key) => {
                let known = app.store.known_of_edit(key).await.map_err(Failure::unreachable)?;
                let paid = |state| matches!(state, CallState::Submitted | CallState::Stored);
                if known.calls.iter().any(|call| paid(call.state)) {
                    estimate.joined += 1;
                } else {
                    estimate.calls += 1;
                    estimate.cost.micros = estimate.cost.micros.saturating_add(estimate.price.micros);
                }
            }
        }
    }
    Ok(estimate)
}

/// A picture at hand; the inner error is this picture's own.
async fn load(app: &App, input: &Input) -> Result<Result<Loaded, ImageError>, String> {
    let Input::Url(url) = input else {
        return Ok(read(input).map(|(bytes, media)| Loaded::at_hand(bytes, media)));
    };
    match app.sources.load(&Source::Url { url: url.clone(), image_hash: None }).await {
        Ok(loaded) => Ok(Ok(loaded)),
        Err(LoadError::BadInput { code, message } | LoadError::Temporary { code, message }) => {
            Ok(Err(ImageError { code: code.to_owned(), message }))
        }
        Err(error @ LoadError::StoreUnavailable(_)) => Err(error.to_string()),
    }
}

impl Estimate {
    /// Refuses what would cost more than `limit`.
    ///
    /// # Errors
    /// Says by how much.
    pub(super) fn within(&self, limit: &Money) -> Result<(), Failure> {
        if self.cost.micros <= limit.micros {
            return Ok(());
        }
        let money = |micros| format!("{} {}", decimal(micros), limit.currency);
        Err(Failure::Usage(anyhow!(
            "--max-cost {}: {} at {} each would cost {}; nothing was begun",
            money(limit.micros),
            super::super::account::counted(self.calls as u64, "edit"),
            money(self.price.micros),
            money(self.cost.micros)
        )))
    }

    pub(super) fn print(&self, json: bool, left_out: &LeftOut) {
        let images = self.hit + self.joined + self.calls + self.failed.len();
        if json {
            let amount = |money: &Money| json!({"amount": decimal(money.micros), "currency": money.currency});
            let failed = |(input, error): &(String, ImageError)| json!({"input": input, "error": error});
            let mut shown = json!({
                "dry_run": true, "images": images, "hit": self.hit, "joined": self.joined, "calls": self.calls,
                "failed": self.failed.iter().map(failed).collect::<Vec<_>>(),
                "price": amount(&self.price), "cost": amount(&self.cost),
            });
            if !left_out.is_empty() {
                // Plain data always serialises.
                shown["left_out"] = serde_json::to_value(left_out).unwrap_or(Value::Null);
            }
            say(serde_json::to_string_pretty(&shown).unwrap_or_default());
            return;
        }
        for (input, error) in &self.failed {
            say(failed_line(input, error));
        }
        let Self { hit, joined, calls, cost, price, .. } = self;
        let cost = match price.micros {
            0 => "free".to_owned(),
            _ => format!("about {} {}", decimal(cost.micros), cost.currency),
        };
        say(format!(
            "{images} images: {hit} hit, {joined} joined, {calls} to be edited ({cost}), {} failed; nothing was done",
            self.failed.len()
        ));
    }
}
