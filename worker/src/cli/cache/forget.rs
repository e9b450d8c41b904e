//! `retouch cache forget`: first what would go, then, with `--yes`, it goes.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use retouch_shared::key::{Digest32, EditKey};
use serde_json::json;

use super::super::say::say;
use super::super::{Ending, Failure};
use crate::app::open_store;
use crate::blobs::Blobs;
use crate::cache::forget::{Report, Wanted, forget, preview};
use crate::config::Settings;
use crate::store::Store;

/// Forget an edit, a picture, or all pictures of some tasks: say first what would go, then do it with --yes
///
/// Goes: entries, calls, inputs, results and masks that nothing else names, and every mention in tasks and their dead letters.
/// Safe while workers run: an image that waits for a forgotten picture fails as `forgotten`; what was sent already is paid, and its
/// result is dropped when it comes. What is sent again later is a new edit.
///
/// Example: retouch cache forget --task order-4711 --yes
#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct Forget {
    /// One edit, by its key
    #[arg(value_name = "EDIT-KEY", required_unless_present_any = ["image", "task"], conflicts_with_all = ["image", "task"])]
    edit_key: Option<EditKey>,
    /// One picture, whatever was made of it: a file, or its SHA-256
    #[arg(long, value_name = "FILE|HASH", conflicts_with = "task")]
    image: Option<String>,
    /// Every picture that these tasks brought in, whatever was made of it and whoever asked
    #[arg(long, value_name = "ID", num_args = 1..)]
    task: Vec<String>,
    /// Do it; without, only say what would be done
    #[arg(long)]
    yes: bool,
}

impl Forget {
    pub(super) async fn run(self, settings: &Settings, json: bool) -> Result<Ending, Failure> {
        let blobs = Blobs::open(&settings.blobs).context("RETOUCH_BLOBS").map_err(Failure::Unreachable)?;
        // The tasks that end by it are told about at once: by the next sweep of any worker.
        let store = open_store(settings).await.map_err(Failure::Unreachable)?.with_patience(Duration::ZERO);
        let wanted = self.wanted(&store).await?;
        let bar = bar();
        let looked = |looked: i64, last: i64| {
            bar.set_length(u64::try_from(last).unwrap_or_default());
            bar.set_position(u64::try_from(looked).unwrap_or_default());
        };
        let report = if self.yes {
            forget(&store, &blobs, &wanted, looked).await
        } else {
            preview(&store, &wanted, looked).await
        };
        bar.finish_and_clear();
        store.close().await;
        print(&report.map_err(Failure::Unreachable)?, self.yes, json);
        Ok(Ending::Done)
    }

    async fn wanted(&self, store: &Store) -> Result<Wanted, Failure> {
        if let Some(key) = self.edit_key {
            return Ok(Wanted::Edit(key));
        }
        if let Some(image) = &self.image {
            return Ok(Wanted::Picture(picture(image)?));
        }
        let mut pictures = BTreeSet::new();
        for id in &self.task {
            let found = store.find_task(id).await.map_err(Failure::unreachable)?;
            let task = found.ok_or_else(|| {
                Failure::Usage(anyhow!("no task {id:?}: `retouch task {id}` shows one that there is"))
            })?;
            pictures.extend(task.images.iter().filter_map(|image| image.image_hash));
        }
        Ok(Wanted::Tasks { ids: self.task.iter().cloned().collect(), pictures })
    }
}

/// A file's digest, or the digest itself.
fn picture(image: &str) -> Result<Digest32, Failure> {
    if let Ok(hash) = image.strip_prefix("sha256:").unwrap_or(image).parse() {
        return Ok(hash);
    }
    let bytes = std::fs::read(image).with_context(|| {
        format!("--image {image}: neither a SHA-256 in hexadecimal nor a file that can be read")
    });
    Ok(Digest32::of(&bytes.map_err(Failure::Usage)?))
}

fn print(report: &Report, yes: bool, json: bool) {
    if json {
        let mut shown = serde_json::to_value(report).unwrap_or_default();
        if let Some(members) = shown.as_object_mut() {
            members.insert("preview".to_owned(), json!(!yes));
        }
        // Plain data always serialises.
        say(serde_json::to_string_pretty(&shown).unwrap_or_default());
        return;
    }
    if report.is_empty() {
        say("nothing of it is here");
        return;
    }
    say(if yes { "forgotten:" } else { "would be forgotten:" });
    let mentions = &report.mentions;
    let (blobs, kept) = if yes {
        ("blobs", "blobs stay: something else names them")
    } else {
        ("blobs, but for those that something else names", "")
    };
    let lines = [
        (report.entries, "entries of the cache"),
        (report.calls_not_sent, "calls that were not sent"),
        (report.calls_sent, "calls that were sent: they are paid, and their results are dropped"),
        (report.images_failed, "images that were waiting; they fail as forgotten"),
        (report.tasks_ended, "tasks ended by it"),
        (mentions.tasks, "tasks that mention it"),
        (mentions.letters, "dead letters of these tasks: their messages are emptied"),
        (report.letters_discarded, "dead letters of its calls: discarded"),
        (report.blobs_deleted, blobs),
        (report.blobs_kept, kept),
    ];
    for (count, what) in lines.into_iter().filter(|(count, what)| *count > 0 && !what.is_empty()) {
        say(format!("  {count} {what}"));
    }
    for (currency, amount) in &report.paid_in_vain {
        say(format!("  {amount} {currency} were paid for results that nobody gets"));
    }
    if !yes {
        say("nothing was changed: the same command with --yes does it");
    }
}

/// On a terminal only, on standard error.
fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("looking through tasks {bar:32} {pos}/{len}  {eta} left");
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
