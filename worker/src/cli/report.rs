//! What `edit`, `submit --wait` and `task` print: one shape, as text or JSON.

use std::collections::BTreeMap;
use std::time::Duration;

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{CellAlignment, Table};
use retouch_shared::event::{
    AnswerSource, Cost, Event, ImageError, ImageResult, ImageStatus, TaskStatus, decimal, micros,
};
use retouch_shared::key::ImageHash;
use serde::Serialize;

use super::Ending;
use super::folders::LeftOut;
use super::say::say;
use crate::store::{Money, TaskRecord};
pub(super) use crate::words::counted;

/// One task, or several that are one command's.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// None where no picture could be read: there is no task.
    pub task_id: Option<String>,
    /// All of them, where a command took more than one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub task_ids: Vec<String>,
    pub status: TaskStatus,
    pub images: Vec<ReportImage>,
    pub hit: u32,
    pub joined: u32,
    pub paid: u32,
    pub failed: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
    #[serde(flatten)]
    pub aside: Aside,
}

/// What a command has to say beside its own images.
#[derive(Debug, Default, Serialize)]
pub(super) struct Aside {
    /// What of the folders was not edited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_out: Option<LeftOut>,
    /// Edits that earlier runs had started and this one has carried on: their cost is in no other figure of
    /// this report.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resumed: Option<Edits>,
    /// Unfinished edits of earlier commands, which this one has not touched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_alone: Option<Edits>,
}

/// So many edits and what they cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Edits {
    pub edits: u64,
    /// Amounts by currency.
    pub costs: Vec<Amount>,
}

/// An amount of money.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Amount {
    pub amount: String,
    pub currency: String,
}

impl Edits {
    /// The sum of these prices, those that are nothing left out.
    pub(super) fn new(edits: u64, prices: impl Iterator<Item = Money>) -> Self {
        let mut sums: BTreeMap<String, i64> = BTreeMap::new();
        for Money { micros, currency } in prices.filter(|price| price.micros != 0) {
            *sums.entry(currency).or_default() += micros;
        }
        let amount = |(currency, micros)| Amount { amount: decimal(micros), currency };
        Self { edits, costs: sums.into_iter().map(amount).collect() }
    }

    /// E.g. `3 edits are`, and with more `about 0.42 CNY`.
    pub(super) fn about(&self) -> String {
        let costs: Vec<String> =
            self.costs.iter().map(|cost| format!("{} {}", cost.amount, cost.currency)).collect();
        if costs.is_empty() { String::new() } else { format!(", about {}", costs.join(" and ")) }
    }
}

/// One image of it.
#[derive(Debug, Serialize)]
pub(super) struct ReportImage {
    pub position: usize,
    pub input: String,
    pub status: ImageStatus,
    pub source: Option<AnswerSource>,
    pub image_hash: Option<ImageHash>,
    pub result_url: Option<String>,
    /// The file that was written, if any was.
    pub output: Option<String>,
    pub error: Option<ImageError>,
}

impl Report {
    /// A task as the store has it.
    pub(super) fn of_record(task: &TaskRecord, inputs: &[String], resolve: impl Fn(&str) -> String) -> Self {
        Self::new(
            &task.task_id,
            task.status,
            task.resolved_images(resolve),
            inputs,
            [task.hit, task.joined, task.paid, task.failed],
            task.cost(),
        )
    }

    /// A task as its event tells it.
    pub(super) fn of_event(event: Event, inputs: &[String]) -> Self {
        let counts = [event.hit, event.joined, event.paid, event.failed];
        Self::new(&event.task_id, event.status, event.images, inputs, counts, event.cost)
    }

    fn new(
        task_id: &str,
        status: TaskStatus,
        images: Vec<ImageResult>,
        inputs: &[String],
        [hit, joined, paid, failed]: [u32; 4],
        cost: Option<Cost>,
    ) -> Self {
        let image = |(position, image): (usize, ImageResult)| ReportImage {
            position,
            input: inputs.get(position).cloned().unwrap_or_default(),
            status: image.status,
            source: image.source,
            image_hash: image.image_hash,
            result_url: image.result_url,
            output: None,
            error: image.error,
        };
        Self {
            task_id: Some(task_id.to_owned()),
            task_ids: Vec::new(),
            status,
            images: images.into_iter().enumerate().map(image).collect(),
            hit,
            joined,
            paid,
            failed,
            cost,
            aside: Aside::default(),
        }
    }

    /// Several tasks of one command as one, their images in order.
    pub(super) fn merged(mut reports: Vec<Self>) -> Option<Self> {
        if reports.len() == 1 {
            return reports.pop();
        }
        let all: u32 = reports.iter().map(|report| report.failed).sum();
        let total = reports.iter().map(|report| report.images.len()).sum::<usize>();
        let status = match all {
            0 => TaskStatus::Completed,
            failed if failed as usize == total => TaskStatus::Failed,
            _ => TaskStatus::Partial,
        };
        let sum = |count: fn(&Self) -> u32| reports.iter().map(count).sum();
        let (hit, joined, paid) = (sum(|r| r.hit), sum(|r| r.joined), sum(|r| r.paid));
        let cost = summed(reports.iter().filter_map(|report| report.cost.as_ref()));
        let task_ids: Vec<String> = reports.iter().filter_map(|report| report.task_id.clone()).collect();
        let task_id = Some(task_ids.first()?.clone());
        let mut images: Vec<ReportImage> = reports.into_iter().flat_map(|report| report.images).collect();
        for (position, image) in images.iter_mut().enumerate() {
            image.position = position;
        }
        let aside = Aside::default();
        Some(Self { task_id, task_ids, status, images, hit, joined, paid, failed: all, cost, aside })
    }

    /// A command that has no task: none of its pictures could be read, or it was interrupted before.
    pub(super) fn empty() -> Self {
        Self {
            task_id: None,
            task_ids: Vec::new(),
            status: TaskStatus::Completed,
            images: Vec::new(),
            hit: 0,
            joined: 0,
            paid: 0,
            failed: 0,
            cost: None,
            aside: Aside::default(),
        }
    }

    /// Puts pictures that are in no task into their places, in ascending order: they have failed, or wait.
    pub(super) fn put(&mut self, others: impl Iterator<Item = (usize, String, Option<ImageError>)>) {
        for (at, input, error) in others {
            let failed = error.is_some();
            self.failed += u32::from(failed);
            let image = ReportImage {
                position: at,
                input,
                status: if failed { ImageStatus::Failed } else { ImageStatus::Waiting },
                source: None,
                image_hash: None,
                result_url: None,
                output: None,
                error,
            };
            self.images.insert(at.min(self.images.len()), image);
        }
        for (position, image) in self.images.iter_mut().enumerate() {
            image.position = position;
        }
        let waits = self.images.iter().any(|image| image.status == ImageStatus::Waiting);
        self.status = match self.failed as usize {
            _ if waits => TaskStatus::Processing,
            0 => TaskStatus::Completed,
            failed if failed == self.images.len() => TaskStatus::Failed,
            _ => TaskStatus::Partial,
        };
    }

    /// An image that was answered, and whose result cannot be had here.
    pub(super) fn undelivered(&mut self, at: usize, error: ImageError) {
        let Some(image) = self.images.get_mut(at) else { return };
        let answered = match image.source {
            Some(AnswerSource::Hit) | None => &mut self.hit,
            Some(AnswerSource::Joined) => &mut self.joined,
            Some(AnswerSource::Paid) => &mut self.paid,
        };
        *answered = answered.saturating_sub(1);
        (image.status, image.error) = (ImageStatus::Failed, Some(error));
        self.failed += 1;
        let all = self.failed as usize == self.images.len();
        self.status = if all { TaskStatus::Failed } else { TaskStatus::Partial };
    }

    /// 1 where an image has no result.
    pub(super) fn ending(&self) -> Ending {
        if self.failed == 0 { Ending::Done } else { Ending::SomeFailed }
    }

    /// Prints it: one JSON object, or the images that need a word and a summary.
    pub(super) fn print(&self, json: bool, took: Option<Duration>) {
        if json {
            // Plain data always serialises.
            say(serde_json::to_string_pretty(self).unwrap_or_default());
            return;
        }
        for image in &self.images {
            say(match (&image.error, &image.output, &image.result_url) {
                (Some(error), _, _) => failed_line(&image.input, error),
                (None, Some(output), _) => done_line(&image.input, output),
                (None, None, Some(url)) => done_line(&image.input, url),
                (None, None, None) => format!("… {}", image.input),
            });
        }
        say(self.summary(took));
    }

    fn lost_any(&self) -> bool {
        self.cost.as_ref().and_then(|cost| micros(&cost.lost)).is_some_and(|lost| lost != 0)
    }

    /// As [`Report::print`], for a command that has said of each image already what became of it.
    pub(super) fn print_summary(&self, json: bool, took: Duration) {
        if json {
            return self.print(true, None);
        }
        say(self.summary(Some(took)));
        let Aside { left_out: _, resumed, left_alone } = &self.aside;
        if let Some(resumed) = resumed {
            let edits = counted(resumed.edits, "edit");
            say(format!(
                "resumed {edits} of an earlier run{}, in addition to the cost above",
                resumed.about()
            ));
        }
        if let Some(left_alone) = left_alone {
            say(left_alone_line(left_alone));
        }
        let ids: Vec<&str> = match self.task_ids.as_slice() {
            [] => self.task_id.iter().map(String::as_str).collect(),
            ids => ids.iter().map(String::as_str).collect(),
        };
        if !ids.is_empty() {
            say(format!("{} {}", if ids.len() == 1 { "task" } else { "tasks" }, ids.join(" ")));
        }
    }

    fn summary(&self, took: Option<Duration>) -> Table {
        let mut table = Table::new();
        table.load_style(UTF8_HORIZONTAL_ONLY);
        // What has no price was not paid for.
        let paid = if self.cost.is_some() { "paid" } else { "edited" };
        let mut names = vec!["images", "hit", "joined", paid, "failed"];
        let counts = [self.hit, self.joined, self.paid, self.failed].map(|count| count.to_string());
        let mut values = vec![self.images.len().to_string()];
        values.extend(counts);
        if let Some(took) = took {
            names.push("time");
            values.push(format!("{:.2} s", took.as_secs_f64()));
        }
        let money = |amount: fn(&Cost) -> &str| {
            self.cost.as_ref().map(|cost| format!("{} {}", amount(cost), cost.currency))
        };
        // Most people at a laptop never see a price.
        if let Some(cost) = money(|cost| &cost.paid) {
            names.push("cost");
            values.push(cost);
        }
        if let Some(lost) = money(|cost| &cost.lost).filter(|_| self.lost_any()) {
            names.push("for nothing");
            values.push(lost);
        }
        names.push("saved");
        values.push(money(|cost| &cost.saved).unwrap_or_else(|| "–".to_owned()));
        table.set_header(names).add_row(values);
        for column in table.column_iter_mut() {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }
}

/// An image that has its result.
pub(super) fn done_line(input: &str, output: &str) -> String {
    format!("✓ {input} → {output}")
}

/// An image that has none.
pub(super) fn failed_line(input: &str, error: &ImageError) -> String {
    format!("✗ {input}: {} ({})", error.message, error.code)
}

/// What earlier commands left unfinished, and what can be done about it.
pub(super) fn left_alone_line(left_alone: &Edits) -> String {
    let Edits { edits, .. } = left_alone;
    let (noun, verb) = if *edits == 1 { ("edit", "was") } else { ("edits", "were") };
    format!(
        "{edits} unfinished {noun} of earlier commands{}, {verb} left alone: `retouch task list` names their tasks, \
         `retouch worker` carries them on",
        left_alone.about()
    )
}

/// The sum of several tasks' costs, which one command has in one currency.
fn summed<'a>(mut costs: impl Iterator<Item = &'a Cost>) -> Option<Cost> {
    let mut sum = costs.next()?.clone();
    for cost in costs {
        let Cost { paid, saved, lost, currency: _ } = &mut sum;
        for (total, more) in [(paid, &cost.paid), (saved, &cost.saved), (lost, &cost.lost)] {
            *total = decimal(micros(total).unwrap_or_default() + micros(more).unwrap_or_default());
        }
    }
    Some(sum)
}
