//! `retouch submit`: puts tasks on the queue for the workers, and waits for their end if asked to.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use futures::future::try_join_all;
use retouch_shared::client::{Producer, ProducerError, Timeouts};
use retouch_shared::wire::{ImageRef, MAX_MESSAGE_BYTES, TaskMessage};
use serde_json::json;

use super::inputs::{EditArgs, Input, edit_types, edit_types_and_params, read_picture};
use super::report::Report;
use super::say::say;
use super::{Ending, Failure};
use crate::app::{open_store, resolve};
use crate::broker::{Broker, Message, embedded::Embedded};
use crate::config::{BrokerChoice, Settings};
use crate::media;
use crate::store::Store;

/// Put pictures on the queue for the workers
///
/// Files travel inside the message; large ones are better given as URLs.
///
/// Example: AMQP_URL=amqp://broker retouch submit photo.jpg --type blur --param sigma=3 --wait
#[derive(Debug, Args)]
#[command(after_help = edit_types(), after_long_help = edit_types_and_params())]
pub(super) struct Submit {
    #[command(flatten)]
    edit: EditArgs,
    /// Wait for the end and report it
    #[arg(long)]
    wait: bool,
    /// How long to wait, in seconds
    #[arg(long, default_value_t = 600, value_name = "SECONDS", requires = "wait")]
    timeout: u64,
}

impl Submit {
    pub(super) async fn run(self, settings: Settings, json: bool) -> Result<Ending, Failure> {
        self.edit.checked().map_err(Failure::Usage)?;
        let inputs = self.edit.inputs().map_err(Failure::Usage)?;
        let mask = self.edit.mask().map_err(Failure::Usage)?;
        let images = inputs.iter().map(packed).collect::<Result<Vec<_>>>().map_err(Failure::Usage)?;
        let mask = mask.as_ref().map(packed).transpose().map_err(Failure::Usage)?;
        let tasks = self.edit.tasks(&images, mask.as_ref()).map_err(Failure::Usage)?;
        for task in &tasks {
            check_size(task).map_err(Failure::Usage)?;
        }
        let names: Vec<String> = inputs.iter().map(Input::name).collect();
        let began = Instant::now();
        let reports = match settings.broker.clone() {
            BrokerChoice::RabbitMq { url } => self.through_rabbitmq(&url, &settings, &tasks, &names).await,
            BrokerChoice::Embedded => self.through_the_file(&settings, &tasks, &names).await,
        };
        let Some(report) = Report::merged(reports.map_err(Failure::Unreachable)?) else {
            published(&tasks, json);
            return Ok(Ending::Done);
        };
        report.print(json, Some(began.elapsed()));
        Ok(report.ending())
    }

    /// The reports are none where nobody waits.
    async fn through_rabbitmq(
        &self,
        url: &str,
        settings: &Settings,
        tasks: &[TaskMessage],
        names: &[String],
    ) -> Result<Vec<Report>> {
        let connected = Producer::connect(url, settings.topology.clone(), Timeouts::default()).await;
        let producer = connected.context("AMQP_URL")?;
        if !self.wait {
            try_join_all(tasks.iter().map(|task| producer.publish(task))).await?;
            return Ok(Vec::new());
        }
        let timeout = Duration::from_secs(self.timeout);
        let reports = tasks.iter().zip(chunks(tasks, names)).map(async |(task, names)| {
            match producer.publish_and_wait(task, timeout).await {
                Err(ProducerError::NoAnswer(_)) => Err(self.late(&task.task_id)),
                answer => Ok(Report::of_event(answer?, names)),
            }
        });
        try_join_all(reports).await
    }

    /// The embedded broker lives in the SQLite file, and so does the answer.
    async fn through_the_file(
        &self,
        settings: &Settings,
        tasks: &[TaskMessage],
        names: &[String],
    ) -> Result<Vec<Report>> {
        let store = open_store(settings).await?;
        let pool = store.sqlite_pool().context("the embedded broker needs a SQLite file")?;
        let broker = Embedded::beside(&pool).await?;
        broker.declare(&[]).await?;
        for task in tasks {
            broker.publish(crate::intake::destination(), Message::new(serde_json::to_vec(task)?)).await?;
        }
        let mut reports = Vec::new();
        if self.wait {
            let deadline = Instant::now() + Duration::from_secs(self.timeout);
            for (task, names) in tasks.iter().zip(chunks(tasks, names)) {
                reports.push(self.await_task(&store, settings, &task.task_id, names, deadline).await?);
            }
        }
        broker.close().await;
        store.close().await;
        Ok(reports)
    }

    async fn await_task(
        &self,
        store: &Store,
        settings: &Settings,
        task_id: &str,
        names: &[String],
        deadline: Instant,
    ) -> Result<Report> {
        loop {
            if let Some(task) = store.find_task(task_id).await?
                && task.status.has_ended()
            {
                return Ok(Report::of_record(&task, names, |reference| {
                    resolve(&settings.public_url, reference)
                }));
            }
            ensure!(Instant::now() < deadline, self.late(task_id));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn late(&self, task_id: &str) -> anyhow::Error {
        anyhow::anyhow!(
            "task {task_id} was published and has not ended within {} s: is a `retouch worker` running? \
             `retouch task {task_id}` shows how it stands",
            self.timeout
        )
    }
}

/// The names of each task's images.
fn chunks<'a>(tasks: &[TaskMessage], names: &'a [String]) -> Vec<&'a [String]> {
    let mut rest = names;
    let mut chunks = Vec::new();
    for task in tasks {
        let (these, others) = rest.split_at(task.images.len().min(rest.len()));
        chunks.push(these);
        rest = others;
    }
    chunks
}

fn packed(input: &Input) -> Result<ImageRef> {
    match input {
        Input::Url(url) => Ok(ImageRef::url(url.clone())),
        Input::Unreadable { path, why } => anyhow::bail!("{}: {why}", path.display()),
        Input::File(path) => {
            let bytes = read_picture(path)?;
            let media = media::inspect(&bytes).with_context(|| path.display().to_string())?;
            Ok(ImageRef::data(format!(
                "data:{};base64,{}",
                media.format.content_type(),
                STANDARD.encode(&bytes)
            )))
        }
    }
}

fn check_size(task: &TaskMessage) -> Result<()> {
    let bytes = serde_json::to_vec(task)?.len();
    ensure!(
        bytes <= MAX_MESSAGE_BYTES,
        "the message would have {bytes} bytes; the limit is {MAX_MESSAGE_BYTES}: give fewer pictures, or URLs"
    );
    Ok(())
}

fn published(tasks: &[TaskMessage], json: bool) {
    let ids: Vec<&str> = tasks.iter().map(|task| task.task_id.as_str()).collect();
    if json {
        say(json!({"task_id": ids.first(), "task_ids": ids, "status": "published"}));
        return;
    }
    for id in ids {
        say(format!("published {id}: `retouch task {id}` shows how it stands"));
    }
}
