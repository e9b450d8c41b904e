//! What a person sees while a command runs: a line for each picture, and a bar on a terminal or now and then
//! a line.

use std::collections::BTreeSet;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use retouch_shared::event::decimal;

use super::super::inputs::Picture;
use super::super::report::{done_line, failed_line};
use super::super::say::{complain, say};
use super::delivery::Delivered;
use crate::store::{OpenWait, Priced, TaskRecord};
use crate::words::counted;

/// Where standard error is no terminal, a line this often.
const LINE: Duration = Duration::from_secs(10);
/// So long a call that another process holds is waited for without a word.
pub(super) const SILENCE: Duration = Duration::from_secs(2);

/// The running account.
pub(super) struct Progress {
    bar: ProgressBar,
    json: bool,
    total: usize,
    next_line: Instant,
    /// Since when every call that is waited for is another process's, and whether that was said.
    held: Option<(Instant, bool)>,
    told: BTreeSet<String>,
}

impl Progress {
    pub(super) fn new(edit_type: &str, total: usize, json: bool) -> Self {
        // Draws on standard error, and not at all where that is no terminal.
        let bar = ProgressBar::new(total as u64);
        let style = ProgressStyle::with_template("{prefix} {bar:32} {pos}/{len} images  {msg}  {elapsed}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_prefix(edit_type.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        let next_line = Instant::now() + LINE;
        Self { bar, json, total, next_line, held: None, told: BTreeSet::new() }
    }

    /// Says what became of these pictures.
    pub(super) fn settled(&self, at: &[usize], pictures: &[Picture], delivered: &[Option<Delivered>]) {
        if self.json {
            return;
        }
        let line = |at: &usize| {
            let name = pictures.get(*at)?.input.name();
            Some(match delivered.get(*at)?.as_ref()? {
                Ok(output) => done_line(&name, output),
                Err(error) => failed_line(&name, error),
            })
        };
        self.bar.suspend(|| at.iter().filter_map(line).for_each(say));
    }

    /// How far it is.
    pub(super) fn show<'a>(
        &mut self,
        tasks: impl Iterator<Item = &'a TaskRecord>,
        failed_before: usize,
        spent: &Priced,
    ) {
        let [mut hit, mut joined, mut paid, mut failed] = [0, 0, 0, failed_before];
        for task in tasks {
            hit += task.hit as usize;
            joined += task.joined as usize;
            paid += task.paid as usize;
            failed += task.failed as usize;
        }
        let done = hit + joined + paid + failed;
        let costs: String = spent
            .micros
            .iter()
            .map(|(currency, micros)| format!(", {} {currency}", decimal(*micros)))
            .collect();
        let counts = format!("{hit} hit, {joined} joined, {paid} paid, {failed} failed{costs}");
        self.bar.set_position(done as u64);
        self.bar.set_message(counts.clone());
        if !self.json && !std::io::stderr().is_terminal() && Instant::now() >= self.next_line {
            self.next_line = Instant::now() + LINE;
            complain(format!("{done}/{} images: {counts}", self.total));
        }
    }

    /// Why it does not go on: calls that another process holds. `own`: what this process calls itself.
    pub(super) fn waits(&mut self, own: &str, waits: &[OpenWait], at_work: bool) {
        let others: Vec<&str> = waits.iter().filter_map(|wait| wait.owner.as_deref()).collect();
        let others: Vec<&str> = others.into_iter().filter(|owner| *owner != own).collect();
        if at_work || waits.is_empty() || others.len() < waits.len() {
            self.held = None;
            return;
        }
        let (since, told) = self.held.get_or_insert_with(|| (Instant::now(), false));
        if !*told && since.elapsed() >= SILENCE {
            *told = true;
            let edits: BTreeSet<_> = waits.iter().map(|wait| wait.edit_key).collect();
            let left = waits.iter().map(|wait| wait.lease_left).max().unwrap_or_default();
            let line = format!(
                "{} held by {}; should it have died, this command takes over when the leases run out, in {} s at most",
                are(edits.len(), "remaining edit"),
                processes(others.into_iter()),
                seconds(left)
            );
            self.tell(line);
        }
    }

    /// A line on standard error, once.
    pub(super) fn tell(&mut self, line: String) {
        if !self.told.contains(&line) {
            self.bar.suspend(|| complain(&line));
            self.told.insert(line);
        }
    }

    /// The summary takes the bar's place.
    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}

/// `1 edit is`, `2 edits are`.
pub(super) fn are(count: usize, what: &str) -> String {
    format!("{} {}", counted(count as u64, what), if count == 1 { "is" } else { "are" })
}

/// Whole seconds, rounded up.
pub(super) fn seconds(span: Duration) -> u128 {
    span.as_millis().div_ceil(1000)
}

/// Other processes by their numbers, with which the names of owners begin.
pub(super) fn processes<'a>(owners: impl Iterator<Item = &'a str>) -> String {
    let numbers: BTreeSet<&str> = owners.filter_map(|owner| owner.split('-').next()).collect();
    let numbers: Vec<&str> = numbers.into_iter().collect();
    match numbers.as_slice() {
        [one] => format!("another process ({one})"),
        several => format!("other processes ({})", several.join(", ")),
    }
}
