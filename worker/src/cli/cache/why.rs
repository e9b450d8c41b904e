//! `retouch cache why`: whether a picture with an edit would be answered from the cache, and if not, by name what differs.
//!
//! What must stay true: the edit key is made of what intake would make it of (the route's prompt and parameters), nothing is
//! stored or changed, and a store that cannot be asked is no answer.

use std::time::{Duration, Instant};

use anyhow::anyhow;
use bytes::Bytes;
use clap::Args;
use image::DynamicImage;
use retouch_shared::key::{Digest32, EditIdentity, EditKey};
use retouch_shared::task::{Params, Source, Task};
use serde::Serialize;
use serde_json::{Value, json};

use super::super::inputs::{EditArgs, Input, read_picture};
use super::super::say::say;
use super::super::{Ending, Failure};
use super::entry::{BlobState, ShownEntry};
use super::{shortened, time};
use crate::app::App;
use crate::blobs::BlobError;
use crate::config::Settings;
use crate::editor::{EditError, EditSpec};
use crate::explain::{Reason, nearest};
use crate::media;
use crate::routes::Route;
use crate::sources::{LoadError, Loaded};
use crate::store::{CacheEntry, CallState, GoneEntry, Known};
use crate::words::counted;

/// So many other pictures with the same edit are compared pixel by pixel.
const TWINS: u32 = 32;
/// For no longer than this.
const TWINS_FOR: Duration = Duration::from_secs(5);
/// And no larger pictures than this.
const TWIN_PIXELS: u64 = 16_000_000;

/// Say whether a picture with this edit would be answered from the cache, and if not, why not
///
/// Outcomes: hit; joined (somebody's call for it is under way); miss, with the nearest entry of this picture and each field that
/// differs; refused (the editor takes no such edit, so the cache is not asked). Nothing is stored or changed. Exit codes: 0 hit or
/// joined, 1 miss or refused, 3 a store cannot be asked.
///
/// Example: retouch cache why examples/photos/cat.jpg --type sketch
#[derive(Debug, Args)]
pub(super) struct Why {
    #[command(flatten)]
    edit: EditArgs,
}

/// The edit as intake would have it.
struct Asked {
    task: Task,
    route: Route,
    prompt: String,
    params: Params,
    picture: Loaded,
    mask: Option<Loaded>,
}

/// The answer, in `--json`.
#[derive(Debug, Serialize)]
struct Answer {
    outcome: &'static str,
    edit_key: EditKey,
    image_hash: Digest32,
    reasons: Vec<Reason>,
    /// The entry that hits, or comes nearest.
    nearest: Option<ShownEntry>,
}

impl Why {
    pub(super) async fn run(self, settings: Settings, json: bool) -> Result<Ending, Failure> {
        let usage = |message: String| Failure::Usage(anyhow!(message));
        let inputs = self.edit.inputs().map_err(Failure::Usage)?;
        let [input] = inputs.as_slice() else {
            return Err(usage(format!("one picture is explained at a time, not {}", inputs.len())));
        };
        let task = self.edit.checked().map_err(Failure::Usage)?;
        let route = settings.offer.resolve(&task.edit_type, task.model.as_deref());
        let route = route.map_err(|error| usage(error.message))?;
        let prompt = route.effective_prompt(&task.prompt).map_err(|error| usage(error.message))?;
        let params = task.params.clone().with_defaults(&route.params);
        let mask = self.edit.mask().map_err(Failure::Usage)?;
        let app = App::open_tables(settings).await.map_err(Failure::Unreachable)?;
        let picture = load(&app, input).await?;
        let mask = match &mask {
            Some(mask) => Some(load(&app, mask).await?),
            None => None,
        };
        let asked = Asked { task, route, prompt, params, picture, mask };
        let answer = asked.answer(&app).await;
        app.store.close().await;
        let answer = answer?;
        if json {
            // Plain data always serialises.
            say(serde_json::to_string_pretty(&answer).unwrap_or_default());
        } else {
            answer.print();
        }
        Ok(if ["hit", "joined"].contains(&answer.outcome) { Ending::Done } else { Ending::Told(1) })
    }
}

/// The picture's bytes; what is no picture, or is not there, would fail at intake.
async fn load(app: &App, input: &Input) -> Result<Loaded, Failure> {
    match input {
        Input::File(path) => {
            let named = |error: anyhow::Error| Failure::Usage(error.context(path.display().to_string()));
            let bytes = read_picture(path).map_err(Failure::Usage)?;
            let media = media::inspect(&bytes).map_err(|error| named(error.into()))?;
            Ok(Loaded::at_hand(bytes, media))
        }
        Input::Unreadable { path, why } => Err(Failure::Usage(anyhow!("{}: {why}", path.display()))),
        Input::Url(url) => app
            .sources
            .load(&Source::Url { url: url.clone(), image_hash: None })
            .await
            .map_err(|error| match error {
                LoadError::BadInput { .. } => Failure::Usage(error.into()),
                LoadError::Temporary { .. } | LoadError::StoreUnavailable(_) => Failure::unreachable(error),
            }),
    }
}

impl Asked {
    fn identity(&self) -> EditIdentity<'_> {
        EditIdentity {
            image_hash: self.picture.hash,
            edit_type: &self.task.edit_type,
            prompt: &self.prompt,
            provider: self.route.editor.name,
            model: &self.route.model,
            params: &self.params,
            mask_hash: self.mask.as_ref().map(|mask| mask.hash),
            variant: self.task.variant.as_deref(),
        }
    }

    async fn answer(&self, app: &App) -> Result<Answer, Failure> {
        let edit_key = self.identity().key();
        let answer = |outcome, reasons, nearest| Answer {
            outcome,
            edit_key,
            image_hash: self.picture.hash,
            reasons,
            nearest,
        };
        if let Some(refusal) = self.refusal(app) {
            return Ok(answer("refused", vec![refusal], None));
        }
        let known = app.store.known_of_edit(edit_key).await.map_err(Failure::unreachable)?;
        let mut reasons = Vec::new();
        let entry = match known.entries.first() {
            Some(entry) => {
                let blob = BlobState::of(app, entry).await?;
                if !blob.is_served() {
                    reasons.push(lost(entry, blob));
                }
                Some(ShownEntry::of(app, entry).await?)
            }
            None => None,
        };
        if entry.is_some() && reasons.is_empty() {
            return Ok(answer("hit", reasons, entry));
        }
        let (alive, of_calls) = of_calls(&known);
        reasons.extend(of_calls);
        if entry.is_none() {
            reasons.extend(known.gone.iter().map(of_gone));
        }
        if alive {
            return Ok(answer("joined", reasons, entry));
        }
        if !reasons.is_empty() {
            return Ok(answer("miss", reasons, entry));
        }
        let (reasons, entry) = self.nearest(app).await?;
        let nearest = match &entry {
            Some(entry) => Some(ShownEntry::of(app, entry).await?),
            None => None,
        };
        Ok(answer("miss", reasons, nearest))
    }

    /// What the editor is known to refuse fails at intake, before the cache is asked.
    fn refusal(&self, app: &App) -> Option<Reason> {
        let editor = app.editors.get(self.route.editor.name)?;
        let spec = EditSpec {
            edit_type: self.task.edit_type.clone(),
            prompt: self.prompt.clone(),
            model: self.route.model.clone(),
            params: self.params.clone(),
            mask: self.mask.as_ref().map(Loaded::measure),
        };
        let error = editor.check(&spec, self.picture.measure()).err()?;
        let message = match error {
            EditError::Rejected { message, .. } => message,
            other => other.to_string(),
        };
        Some(Reason::new("refused", Value::Null, Value::Null, message))
    }

    /// The entry that comes nearest, and what of it differs.
    async fn nearest(&self, app: &App) -> Result<(Vec<Reason>, Option<CacheEntry>), Failure> {
        let wanted = self.identity();
        let known = app.store.known_of_image(self.picture.hash).await.map_err(Failure::unreachable)?;
        if let Some((entry, reasons)) = nearest(&wanted, &known.entries) {
            return Ok((reasons, Some(entry.clone())));
        }
        let hash = json!(self.picture.hash);
        if let Some(twin) = self.twin(app).await? {
            let message = format!(
                "image: the pixels are those of {}, which is cached with this edit; only the file's bytes differ (its metadata or encoding)",
                twin.image_hash
            );
            return Ok((vec![Reason::new("image", hash, json!(twin.image_hash), message)], Some(twin)));
        }
        let mut message = "image: nothing is cached for the bytes of this picture".to_owned();
        if !known.gone.is_empty() {
            let entries = counted(known.gone.len() as u64, "entry");
            let are = if known.gone.len() == 1 { "is" } else { "are" };
            message += &format!("; {entries} of it {are} gone (`retouch cache show` says more)");
        }
        Ok((vec![Reason::new("image", hash, Value::Null, message)], None))
    }

    /// Among the newest pictures that were edited so, one with the very same pixels.
    async fn twin(&self, app: &App) -> Result<Option<CacheEntry>, Failure> {
        let began = Instant::now();
        let media = self.picture.media;
        if u64::from(media.width) * u64::from(media.height) > TWIN_PIXELS {
            return Ok(None);
        }
        let recent = app.store.recent_of_edit(&self.identity(), TWINS).await.map_err(Failure::unreachable)?;
        let mut ours = None;
        for entry in recent {
            if began.elapsed() > TWINS_FOR {
                break;
            }
            let bytes = match app.blobs.get(entry.image_hash).await {
                Ok(bytes) => bytes,
                Err(BlobError::Missing(_) | BlobError::Corrupt(_)) => continue,
                Err(error @ BlobError::Unavailable(_)) => return Err(Failure::unreachable(error)),
            };
            let Ok(theirs) = media::inspect(&bytes) else { continue };
            if theirs.width.max(theirs.height) != media.width.max(media.height) {
                continue;
            }
            if ours.is_none() {
                ours = pixels(self.picture.bytes.clone()).await;
            }
            let (Some(ours), Some(theirs)) = (&ours, pixels(bytes).await) else { continue };
            if same(ours, &theirs) {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }
}

/// Upright; none of what does not decode.
async fn pixels(bytes: Bytes) -> Option<DynamicImage> {
    let media = media::inspect(&bytes).ok()?;
    let need = media::memory::decode_bytes(&bytes, &media);
    media::memory::run(need, move || media::decode(&bytes, &media).ok()).await.ok()?
}

fn same(one: &DynamicImage, other: &DynamicImage) -> bool {
    if (one.width(), one.height()) != (other.width(), other.height()) {
        return false;
    }
    if one.color() == other.color() {
        return one.as_bytes() == other.as_bytes();
    }
    one.to_rgba16() == other.to_rgba16()
}

fn lost(entry: &CacheEntry, blob: BlobState) -> Reason {
    let hash = entry.result.result_hash.map(|hash| hash.to_hex());
    let is = match blob {
        BlobState::WrongSize => "has another size than its row says",
        BlobState::Missing | BlobState::Present | BlobState::Elsewhere => "is not in the blob store",
    };
    let message = format!(
        "blob: the result {} {is}: it is made again when it is asked for",
        hash.clone().unwrap_or_default()
    );
    Reason::new("blob", hash, blob.as_str(), message)
}

/// Whether a call is under way, and what is to be said of one that is or that failed.
fn of_calls(known: &Known) -> (bool, Option<Reason>) {
    let Some(call) = known.calls.first() else { return (false, None) };
    let (alive, is) = match call.state {
        CallState::Done => return (false, None),
        CallState::Failed => (false, "the last one failed; asked for again, it is made anew".to_owned()),
        CallState::Queued
        | CallState::Claimed
        | CallState::Submitting
        | CallState::Submitted
        | CallState::Ambiguous
        | CallState::Stored => (
            true,
            format!("one is {} since {}, and would be joined", call.state.as_str(), time(call.updated_at)),
        ),
    };
    let error =
        call.last_error.as_ref().map_or_else(String::new, |error| format!(" ({})", shortened(error, 200)));
    (alive, Some(Reason::new("call", Value::Null, call.state.as_str(), format!("call: {is}{error}"))))
}

fn of_gone(gone: &GoneEntry) -> Reason {
    let since = time(gone.gone_at);
    let message = match gone.reason.as_str() {
        "evicted" => format!("evicted: it was cached until {since}, and was the least worth its place"),
        "forgotten" => format!("forgotten: somebody had it forgotten at {since}"),
        "blob_missing" => format!("blob_missing: its result was lost, which was found at {since}"),
        other => format!("{other}: gone since {since}"),
    };
    Reason::new(&gone.reason, Value::Null, Value::Null, message)
}

impl Answer {
    fn print(&self) {
        let reasons = self.reasons.iter().map(|reason| reason.field.as_str()).collect::<Vec<_>>().join(", ");
        let named = if reasons.is_empty() { String::new() } else { format!(": {reasons}") };
        say(format!("{}{named}", self.outcome));
        for reason in &self.reasons {
            say(format!("  {}", reason.message));
        }
        say(format!("edit key {}", self.edit_key));
        if let Some(entry) = &self.nearest {
            say(if self.outcome == "hit" { "the entry:" } else { "the nearest entry:" });
            entry.print();
        }
    }
}
