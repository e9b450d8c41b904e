//! The report of a run, and its violations.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use super::feed::Feed;
use super::fleet::Ends;
use super::run::Plan;
use super::sample::{Process, Sample};
use super::tables::{Bound, find};
use crate::paid::Paid;

const MIB: u64 = 1024;
/// File descriptors that may come with the load of a moment.
const FILES: u64 = 10;
/// Messages that may wait more than before, besides those of so many seconds.
const DEPTH: (f64, f64) = (20.0, 5.0);

/// The report.
#[derive(Debug, Clone)]
pub struct Report {
    /// The plan of the run.
    pub plan: Plan,
    /// From the first message to the last end.
    pub took: Duration,
    /// Tasks with ids of their own.
    pub tasks: u64,
    /// Their images.
    pub images: u64,
    /// Messages by kind.
    pub kinds: BTreeMap<&'static str, u64>,
    /// Tasks of one picture that no earlier task has requested.
    pub new: Vec<String>,
    /// Tasks by their status.
    pub by_status: BTreeMap<String, u64>,
    /// Images by how they were answered.
    pub by_source: BTreeMap<String, u64>,
    /// Dead letters by their reason.
    pub dead: BTreeMap<String, u64>,
    /// Pictures that the provider bills.
    pub bills: u64,
    /// What became of the workers that ended.
    pub ends: Ends,
    /// While messages came.
    pub samples: Vec<Sample>,
    /// Once everything had ended.
    pub last: Option<Sample>,
    /// What of the work was left at the end, in words.
    pub left: String,
    /// Of all workers.
    pub log_bytes: u64,
    /// Of all workers.
    pub log_lines: u64,
    /// The log of one task.
    pub story: Vec<String>,
}

impl Report {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        Self {
            plan: plan.clone(),
            took: Duration::ZERO,
            tasks: 0,
            images: 0,
            kinds: BTreeMap::new(),
            new: Vec::new(),
            by_status: BTreeMap::new(),
            by_source: BTreeMap::new(),
            dead: BTreeMap::new(),
            bills: 0,
            ends: Ends::default(),
            samples: Vec::new(),
            last: None,
            left: String::new(),
            log_bytes: 0,
            log_lines: 0,
            story: Vec::new(),
        }
    }

    /// Reads the results of the sent messages from the tables and the provider.
    pub async fn read(&mut self, paid: &Paid, feed: Feed) {
        (self.tasks, self.images, self.kinds, self.new) = (feed.tasks, feed.images, feed.kinds, feed.new);
        self.bills = paid.provider.ledger().billed();
        let ours = "FROM image_edit_tasks WHERE task_id LIKE 'load-%'";
        let status = format!("SELECT CONCAT(status, ' ', COUNT(*)) {ours} GROUP BY status");
        self.by_status = counted(&paid.site.texts(&status).await);
        for source in ["hit", "joined", "paid", "failed"] {
            let sum = format!("SELECT CAST(COALESCE(SUM({source}_images), 0) AS SIGNED) {ours}");
            self.by_source.insert(source.to_owned(), u64::try_from(paid.site.number(&sum).await).unwrap());
        }
        let dead = "SELECT CONCAT(reason, ' ', COUNT(*)) FROM dead_letters GROUP BY reason";
        self.dead = counted(&paid.site.texts(dead).await);
    }

    /// Violations; empty if there are none.
    #[must_use]
    pub fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        if !self.left.is_empty() {
            broken.push(format!("left behind: {}", self.left));
        }
        let ended: u64 = self.by_status.values().sum();
        if ended != self.tasks {
            broken.push(format!("{} tasks were sent, {ended} are known", self.tasks));
        }
        let answered: u64 = self.by_source.values().sum();
        if answered != self.images {
            broken.push(format!("{} images were sent, {answered} were answered", self.images));
        }
        let bad = self.kinds.get("no task").copied().unwrap_or_default();
        let archived = self.dead.get("bad_message").copied().unwrap_or_default();
        if archived != bad {
            broken.push(format!("{bad} messages were no task, {archived} are dead letters"));
        }
        broken.extend(self.ends.odd.iter().map(|odd| format!("a worker ended oddly: {odd}")));
        broken.extend(self.grown());
        broken.extend(self.tables_broken());
        let heard = |part: &str| self.story.iter().any(|line| line.contains(part));
        if !heard("task taken in") || !heard("event sent") {
            broken.push("no task's log leads from its message to its event".to_owned());
        }
        broken
    }

    /// What grew over time.
    fn grown(&self) -> Vec<String> {
        let mut grown = Vec::new();
        let [_, second, third] = self.thirds(|first| first.memory);
        let (before, after) = (median(&second), median(&third));
        if after > before + (before * 15 / 100).max(10 * MIB) {
            grown.push(format!("memory grew from {} to {} MiB", before / MIB, after / MIB));
        }
        let [_, second, third] = self.thirds(|first| first.files);
        let most = |files: &[u64]| files.iter().max().copied().unwrap_or_default();
        if most(&third) > most(&second) + FILES {
            grown.push(format!("open files grew from {} to {}", most(&second), most(&third)));
        }
        let [_, second, third] = thirds(&self.samples.iter().map(Sample::depth).collect::<Vec<_>>());
        #[expect(clippy::cast_precision_loss, reason = "a count of messages")]
        let (before, after) = (median(&second) as f64, median(&third) as f64);
        if after > before + DEPTH.0 + DEPTH.1 * self.plan.rate {
            grown.push(format!("messages in queues grew from {before} to {after}"));
        }
        grown
    }

    fn tables_broken(&self) -> Vec<String> {
        let Some(last) = &self.last else { return vec!["no last sample".to_owned()] };
        let mut broken = Vec::new();
        for (table, &rows) in &last.tables {
            let most = match find(table) {
                None => {
                    broken.push(format!("no known bound for the table {table}"));
                    continue;
                }
                // A distinct edit is one image at least, and an invalid task is one message.
                Some((_, Bound::Work, _)) => self.images + self.kinds.values().sum::<u64>(),
                Some((_, Bound::Most(most), _)) => *most,
                Some((_, Bound::Processes, _)) => self.ends.killed + self.plan.workers as u64 + 1,
                Some((_, Bound::Deaths, _)) => self.ends.killed,
            };
            if rows > most {
                broken.push(format!("{table} holds {rows} rows, {most} at most are its own"));
            }
        }
        broken
    }

    /// A figure of the worker that is never replaced, by thirds of the time.
    fn thirds(&self, figure: impl Fn(Process) -> u64) -> [Vec<u64>; 3] {
        let figures: Vec<u64> =
            self.samples.iter().filter_map(|sample| sample.first().map(&figure)).collect();
        thirds(&figures)
    }

    /// Its memory when so many hundredths of the time were over.
    fn memory_at(&self, hundredths: usize) -> u64 {
        let nth = self.samples.len().saturating_sub(1) * hundredths / 100;
        self.samples.get(nth).and_then(Sample::first).map_or(0, |first| first.memory)
    }

    fn memory(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [_, second, third] = self.thirds(|first| first.memory);
        let at = [10, 50, 100].map(|part| format!("{} MiB at {part} %", self.memory_at(part) / MIB));
        line(f, "the lasting worker's memory", &at.join(", "))?;
        let medians = format!("{} MiB, then {} MiB", median(&second) / MIB, median(&third) / MIB);
        line(f, "… medians of the last two thirds", &medians)?;
        let others = self.samples.iter().flat_map(|sample| &sample.processes);
        let mut by_age: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        for process in others.filter(|process| process.slot > 0) {
            let age = match process.age.as_secs() {
                0..10 => "0-9 s",
                10..30 => "10-29 s",
                _ => "30 s and more",
            };
            by_age.entry(age).or_default().push(process.memory);
        }
        for (age, memory) in &by_age {
            let most = memory.iter().max().copied().unwrap_or_default();
            let text = format!("median {} MiB, most {} MiB", median(memory) / MIB, most / MIB);
            line(f, &format!("replaced workers, aged {age}"), &text)?;
        }
        let [first, second, third] = self.thirds(|first| first.files).map(|files| median(&files));
        line(f, "its open files, by thirds", &format!("{first}, {second}, {third}"))
    }

    fn queues(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: BTreeSet<&String> = self.samples.iter().flat_map(|sample| sample.queues.keys()).collect();
        let mut empty = 0;
        for name in names {
            let depths: Vec<u64> =
                self.samples.iter().filter_map(|sample| sample.queues.get(name).copied()).collect();
            let most = depths.iter().max().copied().unwrap_or_default();
            if most == 0 {
                empty += 1;
                continue;
            }
            let last = self.last.as_ref().and_then(|last| last.queues.get(name)).copied();
            let text = format!("median {}, most {most}, last {}", median(&depths), last.unwrap_or_default());
            line(f, &format!("queue {name}"), &text)?;
        }
        line(f, "other queues", &format!("{empty}, empty whenever looked at"))
    }

    fn tables(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(last) = &self.last else { return Ok(()) };
        for (table, &rows) in &last.tables {
            let most = self.samples.iter().filter_map(|sample| sample.tables.get(table)).max().copied();
            let growth = (rows * 1000).checked_div(self.tasks).unwrap_or_default();
            let bound = find(table).map_or("?", |(.., words)| words);
            let most = most.unwrap_or_default().max(rows);
            let growth = match find(table) {
                Some((_, Bound::Work, _)) => format!("{growth} per 1,000 tasks"),
                _ => format!("most {most}"),
            };
            writeln!(f, "{table:>32}  {rows:>6} at the end, {growth}: {bound}")?;
        }
        Ok(())
    }
}

fn line(f: &mut fmt::Formatter<'_>, name: &str, text: &str) -> fmt::Result {
    writeln!(f, "{name:>32}  {text}")
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan { length, workers, rate, seed, .. } = self.plan;
        let length = length.as_secs();
        writeln!(f, "== {length} s of {rate} messages a second, {workers} workers, seed {seed}")?;
        let per_task = |count: u64| count.checked_div(self.tasks).unwrap_or_default();
        for (name, text) in [
            ("messages sent", listed(&self.kinds)),
            ("tasks, images", format!("{}, {}", self.tasks, self.images)),
            ("tasks by status", listed(&self.by_status)),
            ("images by source", listed(&self.by_source)),
            ("billed pictures", self.bills.to_string()),
            ("dead letters", listed(&self.dead)),
            (
                "workers replaced",
                format!(
                    "{} stopped (within {:.1} s), {} killed",
                    self.ends.stopped.saturating_sub(self.plan.workers as u64),
                    self.ends.slowest.as_secs_f64(),
                    self.ends.killed
                ),
            ),
            (
                "log of a task",
                format!("{} bytes, {} lines", per_task(self.log_bytes), per_task(self.log_lines)),
            ),
            ("left behind", if self.left.is_empty() { "nothing".to_owned() } else { self.left.clone() }),
            ("wall time", format!("{:.0} s", self.took.as_secs_f64())),
        ] {
            line(f, name, &text)?;
        }
        self.memory(f)?;
        self.queues(f)?;
        self.tables(f)?;
        writeln!(f, "the log of one task, by its id and the key of its edit:")?;
        self.story.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

fn counted(rows: &[String]) -> BTreeMap<String, u64> {
    let row = |row: &String| {
        let (name, count) = row.rsplit_once(' ').unwrap();
        (name.to_owned(), count.parse().unwrap())
    };
    rows.iter().map(row).collect()
}

fn listed<N: fmt::Display>(counts: &BTreeMap<N, u64>) -> String {
    let parts: Vec<_> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
    if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
}

fn median(figures: &[u64]) -> u64 {
    let mut figures = figures.to_vec();
    figures.sort_unstable();
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}

fn thirds(figures: &[u64]) -> [Vec<u64>; 3] {
    let third = figures.len() / 3;
    [&figures[..third], &figures[third..2 * third], &figures[2 * third..]].map(<[u64]>::to_vec)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        let (length, second) = (Duration::from_secs(30), Duration::from_secs(1));
        Plan { length, workers: 2, rate: 5.0, seed: 1, replace: second, sample: second }
    }

    /// A report of a worker whose memory, in MiB, and open files were these; messages wait as `depth` says.
    fn report(memory: impl Fn(u64) -> u64, files: impl Fn(u64) -> u64, depth: impl Fn(u64) -> u64) -> Report {
        let sample = |n| Sample {
            at: Duration::from_secs(n),
            processes: vec![Process {
                slot: 0,
                age: Duration::from_secs(n),
                memory: memory(n) * MIB,
                files: files(n),
            }],
            queues: BTreeMap::from([("tasks".to_owned(), depth(n))]),
            tables: BTreeMap::from([("image_edit_waits".to_owned(), 0)]),
        };
        let samples: Vec<Sample> = (0..30).map(sample).collect();
        let (last, story) = (samples.last().cloned(), vec!["task taken in, event sent".to_owned()]);
        Report { samples, last, story, ..Report::new(&plan()) }
    }

    #[test]
    fn flat_figures_are_within_bounds() {
        assert_eq!(report(|n| 100 + n % 7, |n| 30 + n % 5, |n| n % 9).broken(), Vec::<String>::new());
    }

    #[test]
    fn growth_of_memory_files_queues_and_tables_is_broken_and_named() {
        let grown = report(|n| 100 + n * 4, |n| 30 + n * 4, |n| n * 9);
        let broken = grown.broken();
        assert_eq!(broken.len(), 3, "{broken:?}");
        for (line, part) in broken.iter().zip(["memory grew", "open files grew", "messages in queues grew"]) {
            assert!(line.starts_with(part), "{line}");
        }
        let mut full = report(|_| 100, |_| 30, |_| 0);
        full.last.as_mut().unwrap().tables =
            BTreeMap::from([("image_edit_waits".to_owned(), 1), ("new_table".to_owned(), 0)]);
        let broken = full.broken();
        assert_eq!(
            broken,
            [
                "image_edit_waits holds 1 rows, 0 at most are its own",
                "no known bound for the table new_table"
            ]
        );
    }
}
