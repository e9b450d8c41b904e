//! `retouch cache verify`: every entry's blob, read and compared.

use std::time::{Duration, Instant};

use anyhow::anyhow;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::super::say::say;
use super::super::{Ending, Failure};
use crate::app::open_store;
use crate::blobs::Blobs;
use crate::cache::verify::{How, Tally, verify};
use crate::config::Settings;
use crate::words::counted;

/// Read every entry's blob and compare it: what is missing or damaged becomes a miss, and is made again once when it is asked for
///
/// Those first that were not verified for the longest time; may be stopped at any time and goes on where it was. Exit codes: 0 all
/// good, 1 something was wrong, 3 the blobs cannot be read: nothing was changed then.
///
/// Example: retouch cache verify --rate 50 --fresh 168
#[derive(Debug, Args)]
pub(super) struct Verify {
    /// At most so many blobs a second
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Leave out what was verified within so many hours
    #[arg(long, value_name = "HOURS", default_value_t = 24)]
    fresh: u32,
    /// Go on although none of the first blobs is there
    #[arg(long)]
    all_missing: bool,
}

impl Verify {
    pub(super) async fn run(self, settings: &Settings, json: bool) -> Result<Ending, Failure> {
        let store = open_store(settings).await.map_err(Failure::Unreachable)?;
        let blobs = Blobs::open(&settings.blobs).map_err(Failure::unreachable)?;
        let fresh = Duration::from_secs(u64::from(self.fresh) * 60 * 60);
        let how = How { rate: self.rate, all_missing: self.all_missing };
        // By the database's clock: what this run has verified is not looked at twice.
        let before = store.verify_before(fresh).await.map_err(Failure::unreachable)?;
        let due = store.count_to_verify(&before).await.map_err(Failure::unreachable)?;
        let (stop, began, bar) = (CancellationToken::new(), Instant::now(), bar(due));
        let stopper = {
            let stop = stop.clone();
            tokio::spawn(async move {
                if tokio::signal::ctrl_c().await.is_ok() {
                    stop.cancel();
                }
            })
        };
        let tally =
            verify(&store, &blobs, &before, &how, &stop, |tally| bar.set_position(tally.verified)).await;
        stopper.abort();
        bar.finish_and_clear();
        store.close().await;
        let tally = tally.map_err(Failure::Unreachable)?;
        print(&tally, began.elapsed(), json);
        if stop.is_cancelled() {
            return Err(Failure::Interrupted(anyhow!(
                "stopped after {} of {due} entries; run again it goes on from there",
                tally.verified
            )));
        }
        Ok(if tally.wrong() > 0 { Ending::SomeFailed } else { Ending::Done })
    }
}

fn print(tally: &Tally, took: Duration, json: bool) {
    if json {
        let mut shown = serde_json::to_value(tally).unwrap_or_default();
        if let Some(members) = shown.as_object_mut() {
            members.insert("seconds".to_owned(), json!(took.as_secs_f64()));
        }
        // Plain data always serialises.
        say(serde_json::to_string_pretty(&shown).unwrap_or_default());
        return;
    }
    say(format!(
        "verified {}, {}, in {:.1} s: {} good",
        counted(tally.verified, "entry"),
        counted(tally.bytes, "byte"),
        took.as_secs_f64(),
        tally.good
    ));
    let lines = [
        (tally.missing, "had no blob: removed, made again when they are asked for"),
        (tally.damaged, "had a damaged blob: removed with it, made again when they are asked for"),
        (tally.wrong_size, "said a wrong size: corrected"),
        (tally.changed, "were changed by somebody else meanwhile: looked at the next time"),
    ];
    for (count, what) in lines.into_iter().filter(|(count, _)| *count > 0) {
        say(format!("  {count} {what}"));
    }
}

/// On a terminal only, on standard error.
fn bar(entries: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("verifying {bar:32} {pos}/{len} entries  {per_sec}  {eta} left");
    ProgressBar::new(entries).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
