//! `retouch cache evict`: what the workers' sweep does by itself where limits are set; said beforehand, or done now.

use std::time::Duration;

use anyhow::anyhow;
use clap::Args;
use retouch_shared::event::decimal;
use serde_json::{Value, json};

use super::super::say::say;
use super::super::{Ending, Failure};
use crate::app::open_store;
use crate::blobs::Blobs;
use crate::cache::evict::{Preview, preview, step};
use crate::cache::finish_deleting;
use crate::config::{CacheLimits, Settings};
use crate::store::{Candidate, Store};
use crate::words::counted;

/// Of those that would go, as many are shown one by one.
const SHOWN: usize = 10;

/// Evict what the cache can best do without: say first what would go, then do it with --yes
///
/// Limits are those of RETOUCH_CACHE_…, unless given here. Those go first that saved least for their size and time.
///
/// Example: retouch cache evict --max-bytes 500G --dry-run
#[derive(Debug, Args)]
pub(super) struct Evict {
    /// Most bytes of all results: a number, or one with k, M, G or T
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_bytes: Option<u64>,
    /// Entries that were made so many days ago go
    #[arg(long, value_name = "DAYS")]
    max_age_days: Option<u32>,
    /// Entries that answered nothing for so many days go
    #[arg(long, value_name = "DAYS")]
    max_idle_days: Option<u32>,
    /// What was served within so many hours stays
    #[arg(long, value_name = "HOURS")]
    keep_hours: Option<u32>,
    /// Only say what would go; this is what happens without --yes
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    /// Do it now
    #[arg(long)]
    yes: bool,
}

impl Evict {
    pub(super) async fn run(self, settings: &Settings, json: bool) -> Result<Ending, Failure> {
        let limits = self.limits(&settings.cache);
        if limits.max_bytes.is_none() && limits.max_age.is_none() && limits.max_idle.is_none() {
            return Err(Failure::Usage(anyhow!(
                "no limit is set: give --max-bytes, --max-age-days or --max-idle-days, or set RETOUCH_CACHE_…"
            )));
        }
        let store = open_store(settings).await.map_err(Failure::Unreachable)?;
        if self.yes {
            let blobs = Blobs::open(&settings.blobs).map_err(Failure::unreachable)?;
            let done = evict(&store, &blobs, &limits, json).await.map_err(Failure::Unreachable);
            store.close().await;
            return done.map(|()| Ending::Done);
        }
        let preview = preview(&store, &limits).await;
        store.close().await;
        print(&preview.map_err(Failure::Unreachable)?, json);
        Ok(Ending::Done)
    }

    fn limits(&self, set: &CacheLimits) -> CacheLimits {
        let days = |given: Option<u32>, set| {
            given.map_or(set, |days| Some(Duration::from_secs(u64::from(days) * 24 * 60 * 60)))
        };
        let keep = self.keep_hours.map(|hours| Duration::from_secs(u64::from(hours) * 60 * 60));
        CacheLimits {
            max_bytes: self.max_bytes.or(set.max_bytes),
            max_age: days(self.max_age_days, set.max_age),
            max_idle: days(self.max_idle_days, set.max_idle),
            keep: keep.unwrap_or(set.keep),
            sweep_blobs: None,
        }
    }
}

async fn evict(store: &Store, blobs: &Blobs, limits: &CacheLimits, json: bool) -> anyhow::Result<()> {
    let mut gone = Vec::new();
    loop {
        let some = step(store, limits).await?;
        if some.is_empty() {
            break;
        }
        gone.extend(some);
        finish_deleting(store, blobs).await?;
    }
    finish_deleting(store, blobs).await?;
    let total = store.cache_bytes().await?;
    if json {
        let mut sum = summed(&gone);
        if let Some(members) = sum.as_object_mut() {
            members.insert("bytes_left".to_owned(), json!(total));
        }
        say(serde_json::to_string_pretty(&sum).unwrap_or_default());
        return Ok(());
    }
    say(format!("evicted {}; {total} bytes are left", told(&gone)));
    if limits.max_bytes.is_some_and(|most| total > most) {
        say(
            "that is more than the limit: all of the rest was served too lately to go (RETOUCH_CACHE_KEEP_HOURS)",
        );
    }
    Ok(())
}

fn print(preview: &Preview, json: bool) {
    let all = preview.aged.iter().chain(&preview.for_room);
    if json {
        let first: Vec<Value> = all.take(SHOWN).map(shown).collect();
        let shown = json!({
            "preview": true, "bytes": preview.total, "aged": summed(&preview.aged), "for_room": summed(&preview.for_room), "first": first,
        });
        say(serde_json::to_string_pretty(&shown).unwrap_or_default());
        return;
    }
    say(format!("the results take {} bytes", preview.total));
    say(format!("by age or last hit would go {}", told(&preview.aged)));
    say(format!("to make room would go about {}", told(&preview.for_room)));
    for candidate in all.take(SHOWN) {
        say(format!(
            "  {}  {}, {}, saved {} {}, idle for {} h",
            candidate.edit_key,
            counted(candidate.bytes, "byte"),
            counted(candidate.hits, "image"),
            decimal(candidate.saved_micros()),
            candidate.price.currency,
            candidate.idle.as_secs() / 3600
        ));
    }
    say("nothing was changed: the same command with --yes does it");
}

fn told(candidates: &[Candidate]) -> String {
    let bytes: u64 = candidates.iter().map(|candidate| candidate.bytes).sum();
    let saved = saved(candidates);
    let saved: Vec<String> = saved.iter().map(|(currency, amount)| format!("{amount} {currency}")).collect();
    let saved = if saved.is_empty() { "nothing".to_owned() } else { saved.join(", ") };
    let entries = counted(candidates.len() as u64, "entry");
    format!("{entries} of {} that had saved {saved}", counted(bytes, "byte"))
}

fn summed(candidates: &[Candidate]) -> Value {
    let bytes: u64 = candidates.iter().map(|candidate| candidate.bytes).sum();
    json!({"entries": candidates.len(), "bytes": bytes, "saved": saved(candidates)})
}

fn saved(candidates: &[Candidate]) -> std::collections::BTreeMap<String, String> {
    let mut saved = std::collections::BTreeMap::<String, i64>::new();
    for candidate in candidates.iter().filter(|candidate| candidate.saved_micros() > 0) {
        *saved.entry(candidate.price.currency.clone()).or_default() += candidate.saved_micros();
    }
    saved.into_iter().map(|(currency, micros)| (currency, decimal(micros))).collect()
}

fn shown(candidate: &Candidate) -> Value {
    json!({
        "edit_key": candidate.edit_key, "bytes": candidate.bytes, "images": candidate.hits,
        "saved": decimal(candidate.saved_micros()), "currency": candidate.price.currency, "idle_seconds": candidate.idle.as_secs(),
    })
}

/// Powers of 1000, as disks are sold.
fn size(text: &str) -> Result<u64, String> {
    let wrong =
        || format!("{text:?} is no size: write a number of bytes, or one with k, M, G or T, such as 500G");
    let (digits, unit) = text.split_at(text.trim_end_matches(|c: char| c.is_ascii_alphabetic()).len());
    let unit: u64 = match unit {
        "" => 1,
        "k" | "K" | "kB" => 1000,
        "M" | "MB" => 1_000_000,
        "G" | "GB" => 1_000_000_000,
        "T" | "TB" => 1_000_000_000_000,
        _ => return Err(wrong()),
    };
    digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_numbers_with_the_usual_letters() {
        for (text, bytes) in
            [("0", 0), ("1234", 1234), ("5k", 5000), ("7MB", 7_000_000), ("500G", 500_000_000_000)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "G", "-1", "1.5G", "5Gi", "99999999999T"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
