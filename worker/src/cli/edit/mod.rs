//! `retouch edit`: the whole pipeline in one process, for a person with a folder of pictures.
//!
//! What must stay true: it sends the calls that its own tasks wait for, and no others; each result is
//! written when it is there; what it leaves when it is interrupted is found by the same command, or by a
//! worker.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use clap::Args;
use retouch_shared::event::micros;
use retouch_shared::task::Task;

use super::folders::{LeftOut, refuse_out};
use super::inputs::{EditArgs, Gathered, Input, Picture, edit_types, edit_types_and_params};
use super::output::OutputFolder;
use super::say::complain;
use super::signals::Signals;
use super::{Ending, Failure};
use crate::app::App;
use crate::cache;
use crate::config::{Settings, blobs_url};
use crate::editor::{EditError, EditSpec, Measure};
use crate::replica::Reporter;
use crate::store::Money;

mod delivery;
mod feed;
mod lanes;
mod left;
mod preview;
mod progress;
mod run;

pub(super) use left::LeftAlone;
use run::Run;

/// Edit pictures here and now; what was edited before comes from the cache
///
/// The whole pipeline runs in this process. It sends the edits of its own pictures, and no others: what earlier
/// commands left unfinished is named and left alone, unless it is at the provider already and keeps the lane
/// from taking these edits; then it is carried on, which costs nothing more. Each picture is written when it
/// is done.
///
/// Where a lane takes no calls, the command says why. It waits up to a minute for one that may mend itself, and
/// ends otherwise (3) with what helps; the same command goes on from there.
///
/// An edit type, model or parameter that cannot work for any of the pictures is a usage error (2): nothing is
/// begun. A file that cannot be read or is no picture fails by itself (1), and the others are edited. Ctrl-C
/// keeps what is finished (130): the same command goes on from there, and pays for nothing twice.
///
/// Example: retouch edit examples/photos --type sketch --out sketches
#[derive(Debug, Args)]
#[command(after_help = edit_types(), after_long_help = edit_types_and_params())]
pub(super) struct Edit {
    #[command(flatten)]
    edit: EditArgs,
    /// The folder for the results, outside of the folders that are read and not that of a file that is named;
    /// a picture that is there under the same name is kept
    #[arg(long, short = 'o', default_value = "retouched", value_name = "DIR")]
    out: PathBuf,
    /// Say what would be hit, edited and paid, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Refuse (2) what would cost more in all, in the currency of the edit's price, e.g. 5 or 0.70
    #[arg(long, value_name = "AMOUNT")]
    max_cost: Option<String>,
}

/// For connections to close once the work is done.
const CLOSE: Duration = Duration::from_secs(5);

/// See [`Rhythm::result_doubt`](crate::config::Rhythm).
const RESULT_DOUBT: Duration = Duration::from_secs(15);

impl Edit {
    pub(super) async fn run(self, mut settings: Settings, json: bool) -> Result<Ending, Failure> {
        let began = Instant::now();
        let task = self.edit.checked().map_err(Failure::Usage)?;
        let gathered = self.edit.gather(Some(&self.out)).map_err(Failure::Usage)?;
        let Gathered { pictures, folders, left_out } = gathered;
        refuse_out(&self.out, &folders, &pictures).map_err(Failure::Usage)?;
        let mask = self.edit.mask().map_err(Failure::Usage)?;
        settings.http = None;
        // A person waits; what is no picture by then is kept for them.
        settings.rhythm.result_doubt = RESULT_DOUBT;
        if !settings.public_url_given {
            // No server runs here to answer for /blobs/.
            settings.public_url = blobs_url(&settings.blobs).map_err(Failure::Usage)?;
        }
        let limit = self.limit(&settings, &task)?;
        let mut signals = Signals::new().map_err(Failure::unreachable)?;
        let opened = if self.dry_run { App::open_tables(settings).await } else { App::open(settings).await };
        let app = opened.map_err(Failure::Unreachable)?;
        refuse_what_cannot_work(&app, &task, &pictures, mask.as_ref())?;
        if self.dry_run || limit.is_some() {
            let estimate = preview::estimate(&app, &task, &pictures, mask.as_ref()).await?;
            if self.dry_run {
                estimate.print(json, &left_out);
            }
            limit.as_ref().map_or(Ok(()), |limit| estimate.within(limit))?;
            if self.dry_run {
                app.store.close().await;
                return Ok(estimate.ending());
            }
        }
        app.bill.keep(limit);
        let out = OutputFolder::open(&self.out).map_err(Failure::Usage)?;
        say_left_out(&left_out, json);
        let mask = match &mask {
            None => None,
            Some(mask) => Some(kept_mask(&app, mask).await?),
        };
        app.declare().await.map_err(Failure::Unreachable)?;
        // For `retouch top`, and so that other commands know that the edits of this one are no leftovers.
        let reporter = Reporter::start(&app, Vec::new());
        let run = Run::start(&app, self.edit, pictures.into(), mask, out, json);
        let ended = run.finish(&mut signals, left_out, began).await;
        let close = async {
            // Where no worker runs, its limits hold all the same.
            if let Err(error) = cache::clean(&app).await {
                tracing::warn!(error = %format!("{error:#}"), "the cache was not cleaned");
            }
            reporter.end().await;
            app.broker.close().await;
            app.store.close().await;
        };
        if tokio::time::timeout(CLOSE, close).await.is_err() {
            tracing::warn!("the connections did not close in time");
        }
        ended
    }

    /// What `--max-cost` allows, in the currency of the edit's price.
    fn limit(&self, settings: &Settings, task: &Task) -> Result<Option<Money>, Failure> {
        let Some(amount) = &self.max_cost else { return Ok(None) };
        let wrong = || Failure::Usage(anyhow!("--max-cost {amount}: must be an amount such as 5 or 0.70"));
        let micros = micros(amount).filter(|micros| *micros >= 0).ok_or_else(wrong)?;
        let route = settings.offer.resolve(&task.edit_type, task.model.as_deref());
        let route = route.map_err(|error| Failure::Usage(anyhow!(error.message)))?;
        Ok(Some(Money { micros, currency: route.price.currency }))
    }
}

/// In `--json` it is in the report.
fn say_left_out(left_out: &LeftOut, json: bool) {
    if !json && !left_out.is_empty() {
        complain(format!("left out: {}", left_out.in_words()));
    }
}

/// A mask that is no picture would fail every picture.
async fn kept_mask(app: &Arc<App>, mask: &Input) -> Result<retouch_shared::wire::ImageRef, Failure> {
    let kept = feed::keep(app, mask).await.map_err(Failure::Unreachable)?;
    kept.map_err(|error| Failure::Usage(anyhow!("--mask {}: {}", mask.name(), error.message)))
}

/// What no picture can be edited with is for the person to correct; nothing of it is stored.
fn refuse_what_cannot_work(
    app: &App,
    task: &Task,
    pictures: &[Picture],
    mask: Option<&Input>,
) -> Result<(), Failure> {
    let usage = |error: String| Failure::Usage(anyhow::anyhow!(error));
    let route = app.settings.offer.resolve(&task.edit_type, task.model.as_deref());
    let route = route.map_err(|error| usage(error.message))?;
    let prompt = route.effective_prompt(&task.prompt).map_err(|error| usage(error.message))?;
    let Some(editor) = app.editors.get(route.editor.name) else { return Ok(()) };
    let spec = EditSpec {
        edit_type: task.edit_type.clone(),
        prompt,
        model: route.model,
        params: task.params.clone().with_defaults(&route.params),
        mask: match mask.map(measure) {
            // What is behind a URL is not known yet; a mask that is no picture is for intake to refuse.
            Some(None) => return Ok(()),
            Some(measured) => measured,
            None => None,
        },
    };
    let mut refusal = None;
    for input in pictures.iter().map(|picture| &picture.input) {
        // What is behind a URL is not known yet.
        if matches!(input, Input::Url(_)) {
            return Ok(());
        }
        // A file that is no picture says nothing about the others.
        let Some(image) = measure(input) else { continue };
        match editor.check(&spec, image) {
            Ok(()) => return Ok(()),
            Err(EditError::Rejected { message, .. }) => {
                // What is wrong with one picture is said of it by its name; all else holds for every one.
                let named = message.strip_prefix("image:").map(|why| format!("{}:{why}", input.name()));
                refusal = refusal.or(Some(named.unwrap_or(message)));
            }
            Err(other) => refusal = refusal.or(Some(other.to_string())),
        }
    }
    refusal.map_or(Ok(()), |message| Err(usage(message)))
}

/// What is known of a file before anything is stored; `None` behind a URL, and for what is no picture.
fn measure(input: &Input) -> Option<Measure> {
    let (bytes, media) = feed::read(input).ok()?;
    Some(Measure { media, bytes: bytes.len() })
}
