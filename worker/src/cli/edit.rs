//! `retouch edit`: the whole pipeline in one process, for a person with a folder of pictures.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use clap::Args;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use retouch_shared::key::Digest32;
use retouch_shared::wire::{ImageRef, TaskMessage};

use super::inputs::{EditArgs, Input};
use super::report::{Report, ReportImage};
use super::{Ending, Failure};
use crate::app::App;
use crate::broker::Message;
use crate::config::{Settings, blobs_url};
use crate::media::{self, Format};
use crate::store::TaskRecord;
use crate::worker::Worker;

/// Edit pictures here and now; what was edited before comes from the cache
///
/// The whole pipeline runs in this process. With AMQP_URL set it takes part in that queue like any other worker.
///
/// Example: retouch edit examples/photos --type sketch --out sketches
#[derive(Debug, Args)]
pub(super) struct Edit {
    #[command(flatten)]
    edit: EditArgs,
    /// The folder for the results
    #[arg(long, short = 'o', default_value = "retouched", value_name = "DIR")]
    out: PathBuf,
}

/// How often the store is asked how far the tasks are.
const LOOK: Duration = Duration::from_millis(50);

impl Edit {
    pub(super) async fn run(self, mut settings: Settings, json: bool) -> Result<Ending, Failure> {
        let began = Instant::now();
        let inputs = self.edit.inputs().map_err(Failure::Usage)?;
        let mask = self.edit.mask().map_err(Failure::Usage)?;
        std::fs::create_dir_all(&self.out)
            .with_context(|| format!("--out {}", self.out.display()))
            .map_err(Failure::Usage)?;
        settings.http = None;
        if !settings.public_url_given {
            // No server runs here to answer for /blobs/.
            settings.public_url = blobs_url(&settings.blobs).map_err(Failure::Usage)?;
        }
        let app = App::open(settings).await.map_err(Failure::Unreachable)?;
        let images = keep(&app, &inputs).await.map_err(Failure::Unreachable)?;
        let mask = match mask {
            Some(mask) => keep(&app, &[mask]).await.map_err(Failure::Unreachable)?.pop(),
            None => None,
        };
        let tasks = self.edit.tasks(&images, mask.as_ref()).map_err(Failure::Usage)?;
        let worker = Worker::start(&app).await.map_err(Failure::Unreachable)?;
        let ended = tokio::select! {
            ended = carry_out(&app, &tasks) => Some(ended),
            _ = tokio::signal::ctrl_c() => None,
        };
        let report = match ended {
            Some(Ok(ended)) => self.deliver(&app, &ended, &inputs).await,
            Some(Err(error)) => Err(error),
            None => Err(anyhow::anyhow!("interrupted: nothing is lost; the same command goes on from here")),
        };
        worker.stop().await;
        let report = report.map_err(Failure::Unreachable)?;
        report.print(json, Some(began.elapsed()));
        Ok(report.ending())
    }

    /// Writes the results beside each other into the output folder.
    async fn deliver(&self, app: &App, ended: &[TaskRecord], inputs: &[Input]) -> Result<Report> {
        let mut names = Names::default();
        let mut reports = Vec::new();
        let mut rest = inputs;
        for task in ended {
            let (these, others) = rest.split_at(task.images.len().min(rest.len()));
            rest = others;
            let shown: Vec<String> = these.iter().map(Input::name).collect();
            let mut report = Report::of_record(task, &shown, |reference| app.resolve(reference));
            for ((image, result), input) in report.images.iter_mut().zip(&task.images).zip(these) {
                if let Some(reference) = &result.result_url {
                    let name = names.unique(&format!("{}-{}", input.stem(), task.edit_type));
                    self.write(app, image, reference, &name).await?;
                }
            }
            reports.push(report);
        }
        let micros = |count: fn(&TaskRecord) -> i64| ended.iter().map(count).sum();
        let currency = ended.first().map_or("", |task| task.currency.as_str());
        let money = (micros(|task| task.paid_micros), micros(|task| task.saved_micros), currency);
        Report::merged(reports, money).context("no task")
    }

    async fn write(&self, app: &App, image: &mut ReportImage, reference: &str, name: &str) -> Result<()> {
        let digest = reference.rsplit('/').next().unwrap_or_default();
        let hash: Digest32 =
            digest.parse().with_context(|| format!("{reference} is not one of our blobs"))?;
        let bytes = app.blobs.get(hash).await?;
        let ending = media::inspect(&bytes).map_or("bin", |media| media.format.extension());
        let output = self.out.join(format!("{name}.{ending}"));
        write_whole(&output, &bytes).with_context(|| output.display().to_string())?;
        image.output = Some(output.display().to_string());
        Ok(())
    }
}

/// Nobody ever finds half a picture under the final name.
fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    std::fs::write(&beside, bytes)?;
    std::fs::rename(&beside, path)
}

/// Names that are given once.
#[derive(Default)]
struct Names(HashMap<String, u32>);

impl Names {
    fn unique(&mut self, name: &str) -> String {
        let count = self.0.entry(name.to_owned()).or_default();
        *count += 1;
        match *count {
            1 => name.to_owned(),
            nth => {
                let next = format!("{name}-{nth}");
                self.unique(&next)
            }
        }
    }
}

/// Files go into the blob store; a URL stays what it is.
async fn keep(app: &App, inputs: &[Input]) -> Result<Vec<ImageRef>> {
    let mut images = Vec::with_capacity(inputs.len());
    for input in inputs {
        images.push(match input {
            Input::Url(url) => ImageRef::url(url.clone()),
            Input::File(path) => {
                let bytes = tokio::fs::read(path).await.with_context(|| path.display().to_string())?;
                // Whether it is a picture is for intake to say, with its place in the report.
                let content_type = media::inspect(&bytes).map_or("application/octet-stream", content_type);
                ImageRef::blob(&app.blobs.put(Bytes::from(bytes), content_type).await?.hash.to_hex())
            }
        });
    }
    Ok(images)
}

fn content_type(media: media::Media) -> &'static str {
    Format::content_type(media.format)
}

/// Publishes the tasks and waits for their end.
async fn carry_out(app: &Arc<App>, tasks: &[TaskMessage]) -> Result<Vec<TaskRecord>> {
    let bars = Bars::new(tasks);
    for task in tasks {
        let message = Message::new(serde_json::to_vec(task)?);
        app.broker.publish(crate::intake::destination(), message).await?;
    }
    let mut ended: Vec<Option<TaskRecord>> = vec![None; tasks.len()];
    while ended.iter().any(Option::is_none) {
        tokio::time::sleep(LOOK).await;
        for (task, place) in tasks.iter().zip(&mut ended).filter(|(_, place)| place.is_none()) {
            let Some(record) = app.store.find_task(&task.task_id).await? else { continue };
            bars.show(&record);
            if record.status.has_ended() {
                *place = Some(record);
            }
        }
    }
    bars.clear();
    Ok(ended.into_iter().flatten().collect())
}

/// Progress, on a terminal only.
struct Bars {
    all: MultiProgress,
    by_task: HashMap<String, ProgressBar>,
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
        Self { by_task: tasks.iter().map(bar).collect(), all }
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

    /// The summary takes their place.
    fn clear(&self) {
        // Failing to clear a terminal is not worth a word.
        drop(self.all.clear());
    }
}
