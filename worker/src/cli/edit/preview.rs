//! What a command would do and cost, before it does anything: `--dry-run`, and `--max-cost`.

use std::collections::BTreeSet;

use anyhow::{Result, anyhow};
use futures::future::FutureExt;
use futures::stream::{self, StreamExt};
use retouch_shared::event::{ImageError, decimal};
use retouch_shared::task::{Source, Task};
use serde_json::{Value, json};

use super::super::folders::LeftOut;
use super::super::inputs::{Input, Picture};
use super::super::report::failed_line;
use super::super::say::say;
use super::super::{Ending, Failure};
use super::feed::read;
use crate::app::App;
use crate::broker::Message;
use crate::intake::{Foreseen, Preview};
use crate::sources::{LoadError, Loaded};
use crate::store::Money;
use crate::words::counted;

/// Pictures that are looked at together: each is decoded in full, unless it is a hit.
const LOOKS: usize = 4;

/// What would become of the pictures.
pub(super) struct Estimate {
    hit: usize,
    /// Answered by a call that another picture starts, or that was accepted before.
    joined: usize,
    calls: usize,
    /// Of these, those that were sent before and not answered: they may be paid twice.
    again: usize,
    failed: Vec<(String, ImageError)>,
    /// Of all calls.
    pub(super) cost: Money,
    price: Money,
}

/// Reads every picture, looks it up, and decodes what is no hit, as the run would; keeps nothing.
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
    let mut estimate = Estimate { hit: 0, joined: 0, calls: 0, again: 0, failed: Vec::new(), cost, price };
    let mut seen = BTreeSet::new();
    let looks: Vec<_> = pictures.iter().map(|picture| look(app, &preview, &picture.input).boxed()).collect();
    let mut looks = stream::iter(looks).buffered(LOOKS);
    for picture in pictures {
        let Some(foreseen) = looks.next().await else { break };
        match foreseen.map_err(unreachable)? {
            Foreseen::Hit => estimate.hit += 1,
            Foreseen::Joined => estimate.joined += 1,
            Foreseen::Refused(error) => estimate.failed.push((picture.input.name(), error)),
            Foreseen::Call { edit_key, again: _ } if !seen.insert(edit_key) => estimate.joined += 1,
            Foreseen::Call { edit_key: _, again } => {
                estimate.calls += 1;
                estimate.again += usize::from(again);
                estimate.cost.micros = estimate.cost.micros.saturating_add(estimate.price.micros);
            }
        }
    }
    Ok(estimate)
}

async fn look(app: &App, preview: &Preview<'_>, input: &Input) -> Result<Foreseen, String> {
    match load(app, input).await? {
        Ok(loaded) => preview.of(&loaded).await,
        Err(error) => Ok(Foreseen::Refused(error)),
    }
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
    /// As the command would end.
    pub(super) fn ending(&self) -> Ending {
        if self.failed.is_empty() { Ending::Done } else { Ending::SomeFailed }
    }

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
            counted(self.calls as u64, "edit"),
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
                "possible_duplicates": self.again, "possibly_twice": amount(&self.twice()),
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
        say(self.in_words());
    }

    fn in_words(&self) -> String {
        let Self { hit, joined, calls, again: _, failed, cost, price } = self;
        let images = counted((hit + joined + calls + failed.len()) as u64, "image");
        let cost = match (calls, price.micros) {
            (0, _) => String::new(),
            (_, 0) => " (free)".to_owned(),
            _ => format!(" (about {} {}{})", decimal(cost.micros), cost.currency, self.twice_in_words()),
        };
        let failed = failed.len();
        format!(
            "{images}: {hit} hit, {joined} joined, {calls} to be edited{cost}, {failed} failed; nothing was done"
        )
    }

    fn twice_in_words(&self) -> String {
        let Money { micros, currency } = self.twice();
        match self.again {
            0 => String::new(),
            again => format!(
                "; {again} of them may have been paid already, so {} {currency} of it perhaps a second time",
                decimal(micros)
            ),
        }
    }

    /// What may be paid a second time.
    fn twice(&self) -> Money {
        let again = i64::try_from(self.again).unwrap_or(i64::MAX);
        Money { micros: self.price.micros.saturating_mul(again), currency: self.price.currency.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estimate([hit, joined, calls, again]: [usize; 4], micros: i64) -> Estimate {
        let money = |micros| Money { micros, currency: "CNY".to_owned() };
        let cost = money(micros * i64::try_from(calls).unwrap());
        Estimate { hit, joined, calls, again, failed: Vec::new(), cost, price: money(micros) }
    }

    #[test]
    fn an_estimate_says_what_is_paid_and_what_perhaps_twice() {
        for (counts, micros, says) in [
            ([1, 0, 0, 0], 140_000, "1 image: 1 hit, 0 joined, 0 to be edited, 0 failed"),
            ([0, 1, 2, 0], 140_000, "3 images: 0 hit, 1 joined, 2 to be edited (about 0.28 CNY), 0 failed"),
            ([0, 0, 2, 0], 0, "2 images: 0 hit, 0 joined, 2 to be edited (free), 0 failed"),
            (
                [0, 0, 2, 1],
                140_000,
                "2 images: 0 hit, 0 joined, 2 to be edited (about 0.28 CNY; 1 of them may have been paid already, \
                 so 0.14 CNY of it perhaps a second time), 0 failed",
            ),
        ] {
            assert_eq!(estimate(counts, micros).in_words(), format!("{says}; nothing was done"));
        }
    }
}
