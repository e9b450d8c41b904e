//! `retouch edit`: the whole pipeline in one process, for a person with a folder of pictures.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use clap::Args;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use retouch_shared::event::ImageError;
use retouch_shared::key::Digest32;
use retouch_shared::task::Task;
use retouch_shared::wire::{ImageRef, TaskMessage};

use super::inputs::{EditArgs, Input, edit_types, edit_types_and_params, read_at_most};
use super::output::OutputFolder;
use super::report::Report;
use super::say::note;
use super::signals::Signals;
use super::{Ending, Failure};
use crate::app::App;
use crate::broker::Message;
use crate::config::{Settings, blobs_url};
use crate::editor::{EditError, EditSpec, Measure};
use crate::media;
use crate::sources::fetch::Purpose;
use crate::store::{ClosedBy, TaskRecord};
use crate::worker::Worker;

/// Edit pictures here and now; what was edited before comes from the cache
///
/// The whole pipeline runs in this process. With AMQP_URL set it takes part in that queue, with the edits of the same lane.
///
/// An edit type, model or parameter that cannot work for any of the pictures is a usage error (2): nothing is begun. A
/// file that is no picture fails by itself (1), and the others are edited. Ctrl-C loses nothing: the same command goes on.
///
/// Example: retouch edit examples/photos --type sketch --out sketches
#[derive(Debug, Args)]
#[command(after_help = edit_types(), after_long_help = edit_types_and_params())]
pub(super) struct Edit {
    #[command(flatten)]
    edit: EditArgs,
    /// The folder for the results; a picture that is there under the same name is kept
    #[arg(long, short = 'o', default_value = "retouched", value_name = "DIR")]
    out: PathBuf,
}

/// See [`Rhythm::result_doubt`](crate::config::Rhythm).
const RESULT_DOUBT: Duration = Duration::from_secs(15);
/// How often the store is asked how far the tasks are.
const LOOK: Duration = Duration::from_millis(50);
/// Every so many looks, also at the lanes.
const LANE_LOOK: u32 = 20;

impl Edit {
    pub(super) async fn run(self, mut settings: Settings, json: bool) -> Result<Ending, Failure> {
        let began = Instant::now();
        let task = self.edit.checked().map_err(Failure::Usage)?;
        let inputs = self.edit.inputs().map_err(Failure::Usage)?;
        let mask = self.edit.mask().map_err(Failure::Usage)?;
        settings.http = None;
        // A person waits; what is no picture by then is kept for them.
        settings.rhythm.result_doubt = RESULT_DOUBT;
        if !settings.public_url_given {
            // No server runs here to answer for /blobs/.
            settings.public_url = blobs_url(&settings.blobs).map_err(Failure::Usage)?;
        }
        let mut signals = Signals::new().map_err(Failure::unreachable)?;
        let app = App::open(settings).await.map_err(Failure::Unreachable)?;
        refuse_what_cannot_work(&app, &task, &inputs, mask.as_ref())?;
        let mut out = OutputFolder::open(&self.out).map_err(Failure::Usage)?;
        let images = keep(&app, &inputs).await?;
        let mask = keep(&app, mask.as_slice()).await?.pop();
        let tasks = self.edit.tasks(&images, mask.as_ref()).map_err(Failure::Usage)?;
        // Only its own lanes: what somebody left unfinished on another is not bought by the way.
        let worker = Worker::start_on(&app, lanes_of(&app, &tasks)).await.map_err(Failure::Unreachable)?;
        let report = tokio::select! {
            carried = carry_out(&app, &tasks) => match carried {
                Ok(Carried { records, stopped }) => {
                    let delivered = deliver(&app, &mut out, &tasks, &records, &inputs).await;
                    delivered.map(|report| (report, stopped)).map_err(Failure::Unreachable)
                }
                Err(error) => Err(Failure::Unreachable(error)),
            },
            _ = signals.next() => {
                let why = "interrupted; nothing is lost: the same command goes on from here, and a worker would finish what is begun";
                Err(Failure::Interrupted(anyhow::anyhow!(why)))
            }
        };
        tokio::select! {
            () = worker.stop() => {}
            // Told twice: not even what is under way is waited for.
            _ = signals.next() => {}
        }
        let (report, stopped) = report?;
        if let Some(report) = &report {
            report.print(json, Some(began.elapsed()));
        }
        match (stopped, report) {
            (Some(why), _) => Err(Failure::Unreachable(why)),
            (None, Some(report)) => Ok(report.ending()),
            (None, None) => Ok(Ending::Done),
        }
    }
}

/// What no picture can be edited with is for the person to correct; nothing of it is stored.
fn refuse_what_cannot_work(
    app: &App,
    task: &Task,
    inputs: &[Input],
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
            Some(Ok(None)) => return Ok(()),
            Some(measured) => measured.map_err(Failure::Usage)?,
            None => None,
        },
    };
    let mut refusal = None;
    for input in inputs {
        // What is behind a URL is not known yet.
        if matches!(input, Input::Url(_)) {
            return Ok(());
        }
        // A file that is no picture says nothing about the others.
        let Some(image) = measure(input).map_err(Failure::Usage)? else { continue };
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
fn measure(input: &Input) -> Result<Option<Measure>> {
    let Input::File(path) = input else { return Ok(None) };
    let bytes = read_at_most(path)?;
    Ok(media::inspect(&bytes).ok().map(|media| Measure { media, bytes: bytes.len() }))
}

/// Writes the results beside each other into the output folder.
async fn deliver(
    app: &App,
    out: &mut OutputFolder,
    tasks: &[TaskMessage],
    records: &[Option<TaskRecord>],
    inputs: &[Input],
) -> Result<Option<Report>> {
    let mut reports = Vec::new();
    let mut rest = inputs;
    for (message, record) in tasks.iter().zip(records) {
        let (these, others) = rest.split_at(message.images.len().min(rest.len()));
        rest = others;
        let Some(task) = record else { continue };
        let shown: Vec<String> = these.iter().map(Input::name).collect();
        let mut report = Report::of_record(task, &shown, |reference| app.resolve(reference));
        for (at, (result, input)) in task.images.iter().zip(these).enumerate() {
            let Some(reference) = &result.result_url else { continue };
            let name = format!("{}-{}", input.stem(), task.edit_type);
            match bytes_of(app, reference).await? {
                Ok(bytes) => report.images[at].output = Some(write(out, &name, &bytes)?),
                Err(error) => report.undelivered(at, error),
            }
        }
        reports.push(report);
    }
    Ok(Report::merged(reports))
}

/// A result's bytes: from our blobs, or from the link that an older system has left.
///
/// # Errors
/// The inner one: the link leads to no picture, which says nothing about the other results.
async fn bytes_of(app: &App, reference: &str) -> Result<Result<Bytes, ImageError>> {
    if reference.starts_with("http://") || reference.starts_with("https://") {
        let fetched = app.results.fetch(reference, Purpose::Source).await;
        return Ok(fetched.map_err(|error| ImageError {
            code: "result_unavailable".to_owned(),
            message: format!("its result was imported as a link to {reference}, and {error}"),
        }));
    }
    let digest = reference.rsplit('/').next().unwrap_or_default();
    let hash: Digest32 = digest.parse().with_context(|| format!("{reference} is not one of our blobs"))?;
    Ok(Ok(app.blobs.get(hash).await?))
}

fn write(out: &mut OutputFolder, name: &str, bytes: &[u8]) -> Result<String> {
    let ending = media::identify(bytes).map_or("bin", |kind| kind.extension);
    Ok(out.write(name, ending, bytes)?.display().to_string())
}

/// Files go into the blob store; a URL stays what it is.
async fn keep(app: &App, inputs: &[Input]) -> Result<Vec<ImageRef>, Failure> {
    let mut images = Vec::with_capacity(inputs.len());
    for input in inputs {
        images.push(match input {
            Input::Url(url) => ImageRef::url(url.clone()),
            Input::File(path) => {
                let bytes = read_at_most(path).map_err(Failure::Usage)?;
                // Whether it is a picture, and small enough, is for intake to say, with its place in the report.
                let content_type = media::inspect(&bytes)
                    .map_or("application/octet-stream", |media| media.format.content_type());
                let kept = app.blobs.put(bytes, content_type).await;
                ImageRef::blob(&kept.map_err(Failure::unreachable)?.hash.to_hex())
            }
        });
    }
    Ok(images)
}

/// How far the tasks came.
struct Carried {
    /// Each as it stands, by its place; none for one that was not taken in.
    records: Vec<Option<TaskRecord>>,
    /// Why no more is to be expected now; none when all have ended.
    stopped: Option<anyhow::Error>,
}

/// Publishes the tasks and waits for their end, or until their lane takes no calls.
async fn carry_out(app: &Arc<App>, tasks: &[TaskMessage]) -> Result<Carried> {
    let mut bars = Bars::new(tasks);
    for task in tasks {
        let message = Message::new(serde_json::to_vec(task)?);
        app.broker.publish(crate::intake::destination(), message).await?;
    }
    let ended = |record: &Option<TaskRecord>| record.as_ref().is_some_and(|record| record.status.has_ended());
    let mut records: Vec<Option<TaskRecord>> = vec![None; tasks.len()];
    let lanes = lanes_of(app, tasks);
    let (mut looks, mut stopped) = (0u32, None);
    while stopped.is_none() && !records.iter().all(ended) {
        tokio::time::sleep(LOOK).await;
        looks += 1;
        if looks.is_multiple_of(LANE_LOOK) {
            stopped = closed_lane(app, &lanes).await?;
            bars.tell(app.unfetched(&lanes).await?);
        }
        for (task, place) in tasks.iter().zip(&mut records).filter(|(_, place)| !ended(place)) {
            let Some(record) = app.store.find_task(&task.task_id).await? else { continue };
            bars.show(&record);
            *place = Some(record);
        }
    }
    bars.clear();
    Ok(Carried { stopped: stopped.filter(|_| !records.iter().all(ended)), records })
}

/// The lanes on which these tasks' calls queue.
fn lanes_of(app: &App, tasks: &[TaskMessage]) -> Vec<String> {
    let route = |task: &TaskMessage| app.settings.offer.resolve(&task.edit_type, task.model.as_deref()).ok();
    let lanes: BTreeSet<String> = tasks.iter().filter_map(route).map(|route| route.lane).collect();
    lanes.into_iter().collect()
}

/// A worker waits for a closed lane for ever; a person at a terminal wants to know, and to mend it: why the lane takes no
/// calls, where none is under way that could find it open again.
async fn closed_lane(app: &App, lanes: &[String]) -> Result<Option<anyhow::Error>> {
    for lane in app.store.lanes().await? {
        let work = lane.queued > 0 || lane.unfetched.is_some();
        let waits = work && lane.in_flight == 0 && lanes.contains(&lane.name);
        let Some(closure) = lane.closed.filter(|_| waits) else { continue };
        // One that may be tried now is about to be.
        if matches!(closure.by, ClosedBy::Pause | ClosedBy::Fetch) || closure.probe_in.is_some() {
            let (name, code, message) = (&lane.name, &closure.code, &closure.message);
            let message = message.trim_end_matches('.');
            return Ok(Some(anyhow::anyhow!(
                "the lane {name} takes no calls: {code}: {message}. Nothing is lost: once that is mended, the same command goes on"
            )));
        }
    }
    Ok(None)
}

/// Progress, on a terminal only.
struct Bars {
    all: MultiProgress,
    by_task: HashMap<String, ProgressBar>,
    told: BTreeSet<String>,
}

impl Bars {
    fn new(tasks: &[TaskMessage]) -> Self {
        // Draws on standard error, and not at all where that is no terminal.
        let all = MultiProgress::new();
        let style = ProgressStyle::with_template("{prefix} {bar:32} {pos}/{len} images  {msg}  {elapsed}");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = |task: &TaskMessage| {
            let bar = all.add(ProgressBar::new(task.images.len() as u64)).with_style(style.clone());
            bar.set_prefix(task.edit_type.clone());
            bar.enable_steady_tick(Duration::from_millis(200));
            (task.task_id.clone(), bar)
        };
        Self { by_task: tasks.iter().map(bar).collect(), all, told: BTreeSet::new() }
    }

    fn show(&self, task: &TaskRecord) {
        let Some(bar) = self.by_task.get(&task.task_id) else { return };
        let TaskRecord { hit, joined, paid, failed, .. } = task;
        bar.set_position(u64::from(hit + joined + paid + failed));
        bar.set_message(format!("{hit} hit, {joined} joined, {paid} paid, {failed} failed"));
        if task.status.has_ended() {
            bar.finish();
        }
    }

    /// Says each notice once, above the bars.
    fn tell(&mut self, notices: Vec<String>) {
        for notice in notices {
            if self.told.insert(notice.clone()) {
                self.all.suspend(|| note(&notice));
            }
        }
    }

    /// The summary takes their place.
    fn clear(&self) {
        // Failing to clear a terminal is not worth a word.
        drop(self.all.clear());
    }
}
