//! `retouch cache show`: everything that is known of one picture or one edit.

use std::path::Path;

use anyhow::{Context, anyhow};
use clap::Args;
use retouch_shared::key::Digest32;
use serde_json::{Value, json};

use super::super::say::say;
use super::super::{Ending, Failure};
use super::entry::ShownEntry;
use super::{json_time, shortened, time};
use crate::app::App;
use crate::config::Settings;
use crate::store::{CacheEntry, CallState, CallView, GoneEntry, Known, StoreError};

/// Show every entry of a picture, or one entry: what it was made with, how often it was served, and whether its result is there
///
/// Also what the picture is the result of, what the cache no longer has, and calls that are under way or failed. Exit codes: 0
/// something is known, 1 nothing is.
///
/// Example: retouch cache show examples/photos/cat.jpg
#[derive(Debug, Args)]
pub(super) struct Show {
    /// A picture file; or 64 hex digits (also as sha256:… or at the end of a result's URL): a picture's hash or an edit key
    #[arg(value_name = "PICTURE-FILE|IMAGE-HASH|EDIT-KEY")]
    what: String,
}

impl Show {
    pub(super) async fn run(self, settings: Settings, json: bool) -> Result<Ending, Failure> {
        let digest = self.digest().map_err(Failure::Usage)?;
        let app = App::open_tables(settings).await.map_err(Failure::Unreachable)?;
        let shown = Shown::read(&app, digest).await;
        app.store.close().await;
        let shown = shown?;
        if json {
            // Plain data always serialises.
            say(serde_json::to_string_pretty(&shown.json()).unwrap_or_default());
        } else {
            shown.print();
        }
        Ok(if shown.is_empty() { Ending::Told(1) } else { Ending::Done })
    }

    /// A file that is there is meant, whatever it is called.
    fn digest(&self) -> anyhow::Result<Digest32> {
        let path = Path::new(&self.what);
        if path.is_file() {
            return Ok(Digest32::of(&std::fs::read(path).with_context(|| self.what.clone())?));
        }
        let last = self.what.rsplit(['/', ':']).next().unwrap_or_default();
        last.parse().map_err(|_| {
            anyhow!(
                "{}: neither a file nor 64 lower-case hex digits of a picture's hash or an edit key",
                self.what
            )
        })
    }
}

/// What is known.
struct Shown {
    digest: Digest32,
    entries: Vec<ShownEntry>,
    result_of: Vec<ShownEntry>,
    gone: Vec<GoneEntry>,
    /// Those that are not over, and those that failed.
    calls: Vec<CallView>,
}

impl Shown {
    async fn read(app: &App, digest: Digest32) -> Result<Self, Failure> {
        let unreachable = |error: StoreError| Failure::unreachable(error);
        let edit = app.store.known_of_edit(digest).await.map_err(unreachable)?;
        let Known { mut entries, mut gone, mut calls } =
            app.store.known_of_image(digest).await.map_err(unreachable)?;
        entries.extend(edit.entries);
        gone.extend(edit.gone);
        calls.extend(edit.calls);
        calls.retain(|call| call.state != CallState::Done);
        let result_of = app.store.entries_of_result(digest).await.map_err(unreachable)?;
        let (entries, result_of) = (shown(app, &entries).await?, shown(app, &result_of).await?);
        Ok(Self { digest, entries, result_of, gone, calls })
    }

    fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.result_of.is_empty() && self.gone.is_empty() && self.calls.is_empty()
    }

    fn json(&self) -> Value {
        let gone = |gone: &GoneEntry| {
            json!({
                "edit_key": gone.edit_key, "image_hash": gone.image_hash, "reason": gone.reason,
                "gone_at": json_time(gone.gone_at),
            })
        };
        let call = |call: &CallView| {
            json!({
                "edit_key": call.edit_key, "image_hash": call.image_hash, "edit_type": call.edit_type, "model": call.model,
                "lane": call.lane, "state": call.state, "last_error": call.last_error, "since": json_time(call.updated_at),
            })
        };
        json!({
            "hash": self.digest,
            "entries": self.entries,
            "result_of": self.result_of,
            "gone": self.gone.iter().map(gone).collect::<Vec<_>>(),
            "calls": self.calls.iter().map(call).collect::<Vec<_>>(),
        })
    }

    fn print(&self) {
        if self.is_empty() {
            say(format!("nothing is known of {}", self.digest));
        }
        self.entries.iter().for_each(ShownEntry::print);
        if !self.result_of.is_empty() {
            say(format!("{} is the result of:", self.digest));
            self.result_of.iter().for_each(ShownEntry::print);
        }
        for gone in &self.gone {
            say(format!("edit {}\n  {} since {}", gone.edit_key, gone.reason, time(gone.gone_at)));
        }
        for call in &self.calls {
            let CallView { edit_key, edit_type, model, lane, state, last_error, updated_at, .. } = call;
            let state = state.as_str();
            say(format!(
                "edit {edit_key}\n  {edit_type} by {model}: call {state} on {lane} since {}",
                time(*updated_at)
            ));
            if let Some(error) = last_error {
                say(format!("  last error: {}", shortened(error, 400)));
            }
        }
    }
}

async fn shown(app: &App, entries: &[CacheEntry]) -> Result<Vec<ShownEntry>, Failure> {
    let mut shown = Vec::with_capacity(entries.len());
    for entry in entries {
        shown.push(ShownEntry::of(app, entry).await?);
    }
    Ok(shown)
}
