//! `retouch cache`: what the cache holds, what it would answer and why not, and cleaning it. A file for each subcommand.

use chrono::{DateTime, SecondsFormat, Utc};
use clap::{Args, Subcommand};

use super::{Ending, Failure};
use crate::config::Settings;

mod entry;
mod evict;
mod forget;
mod import;
mod show;
mod stats;
mod sweep;
mod verify;
mod why;

/// Show what the cache holds and saves, explain what it answers, clean it, and move an older system's results into it
///
/// Nothing is removed without --yes, except what `verify` finds to be of no use.
///
/// Example: retouch cache stats --days 7
#[derive(Debug, Args)]
pub(super) struct Cache {
    #[command(subcommand)]
    command: CacheCommand,
}

#[derive(Debug, Subcommand)]
enum CacheCommand {
    Stats(stats::Stats),
    Show(show::Show),
    Why(why::Why),
    Forget(forget::Forget),
    Evict(evict::Evict),
    SweepBlobs(sweep::SweepBlobs),
    Verify(verify::Verify),
    Import(import::Import),
}

impl Cache {
    pub(super) async fn run(self, settings: Settings, json: bool) -> Result<Ending, Failure> {
        match self.command {
            CacheCommand::Stats(stats) => stats.run(&settings, json).await,
            CacheCommand::Show(show) => show.run(settings, json).await,
            CacheCommand::Why(why) => why.run(settings, json).await,
            CacheCommand::Forget(forget) => forget.run(&settings, json).await,
            CacheCommand::Evict(evict) => evict.run(&settings, json).await,
            CacheCommand::SweepBlobs(sweep) => sweep.run(&settings, json).await,
            CacheCommand::Verify(verify) => verify.run(&settings, json).await,
            CacheCommand::Import(import) => import.run(settings, json).await,
        }
    }
}

/// As people write times in tables: to the second, UTC.
fn time(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%S").to_string()
}

fn json_time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// The beginning of a text, on one line.
fn shortened(text: &str, most: usize) -> String {
    let line: String = text.chars().map(|c| if c.is_whitespace() { ' ' } else { c }).collect();
    match line.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
