//! `retouch dead`: what failed, in groups and one by one; sending it again, discarding it, exporting it. Reads the table only:
//! browsing never touches the broker.

use anyhow::anyhow;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Ending, Failure};
use crate::config::Settings;
use crate::store::Letter;

mod change;
mod export;
mod list;
mod pick;
mod save;
mod show;

pub(super) use pick::since;

/// Show what failed, send it again, or discard it
///
/// Whatever fails is kept here with its reason until a person decides. Nothing is changed without --yes.
///
/// Example: retouch dead retry --reason source_unavailable --yes
#[derive(Debug, Args)]
pub(super) struct Dead {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    List(list::List),
    Show(show::Show),
    Retry(change::Retry),
    Discard(change::Discard),
    Export(export::Export),
}

impl Dead {
    pub(super) async fn run(self, settings: Settings, json: bool) -> Result<Ending, Failure> {
        match self.what {
            What::List(list) => list.run(&settings, json).await,
            What::Show(show) => show.run(settings, json).await,
            What::Retry(retry) => retry.run(settings, json).await,
            What::Discard(discard) => discard.run(&settings, json).await,
            What::Export(export) => export.run(settings).await,
        }
    }
}

fn no_letter(id: i64) -> Failure {
    Failure::Usage(anyhow!(
        "no dead letter {id}: `retouch dead list --state all --each` shows those that there are"
    ))
}

/// The blob of what was paid for and could not be used, as JSON.
fn kept_json(letter: &Letter) -> Value {
    letter
        .kept
        .as_ref()
        .map_or(Value::Null, |kept| json!({"blob": kept.hash, "content_type": kept.content_type}))
}

/// As people write times in tables: to the second, UTC.
fn time(at: chrono::DateTime<chrono::Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%S").to_string()
}

fn json_time(at: chrono::DateTime<chrono::Utc>) -> String {
    at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}
