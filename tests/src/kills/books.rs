//! The books of a run: the state of tables, pixels and the provider's ledger, and its violations.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::time::Duration;

use retouch_shared::key::Digest32;

use super::feed::{self, Edit, Mode};
use super::fleet::Deaths;
use crate::paid::{Paid, picture};
use crate::stand_in::{Create, Ledger, Told};

/// The result of one run.
#[derive(Debug, Clone, Default)]
pub struct Books {
    /// The mode.
    pub mode: &'static str,
    /// Tasks that were sent.
    pub tasks: u64,
    /// Tasks by status; `lost` for those without a row or an end.
    pub by_status: BTreeMap<String, u64>,
    /// Images by their source.
    pub by_source: BTreeMap<String, u64>,
    /// Error codes of the images that failed.
    pub errors: BTreeMap<String, u64>,
    /// Distinct edits.
    pub edits: u64,
    /// Creates that the provider accepted.
    pub creates: u64,
    /// Pictures that it bills.
    pub bills: u64,
    /// Submits that the worker repeated and counted although the previous one may have been paid.
    pub possible_duplicates: u64,
    /// Pictures billed beyond the first of their edit.
    pub extra: u64,
    /// Extra bills without a counted possible duplicate of the same edit.
    pub unaccounted: u64,
    /// Edits that were billed more often than twice.
    pub thrice: u64,
    /// Results that do not show the requested edit.
    pub wrong: u64,
    /// Edits that failed although the worker had committed a paid answer.
    pub paid_lost: u64,
    /// Failed edits that were billed for an answer that never arrived: sent again, they were refused or given
    /// up.
    pub unheard: u64,
    /// Creates whose answer the provider's faults withheld: these would be paid again even without deaths.
    pub withheld: u64,
    /// Faults of the provider that struck.
    pub faults: u64,
    /// Deaths.
    pub deaths: Deaths,
    /// From the first message to the last end.
    pub took: Duration,
    /// Unfinished work at the end, in words.
    pub left: String,
    /// Disagreements of tables, `retouch cache stats`, metrics and events.
    pub disagree: Vec<String>,
    /// Bills and extra bills of the plain workers.
    pub plain: Option<(u64, u64)>,
}

impl Books {
    /// Reads everything. Call it when nothing is under way any more.
    pub async fn read(paid: &Paid, mode: Mode, tasks: u64) -> Self {
        let ledger = paid.provider.ledger();
        let mut books = Self {
            mode: mode.name(),
            tasks,
            creates: ledger.creates() as u64,
            bills: ledger.billed(),
            withheld: withheld(&ledger),
            ..Self::default()
        };
        let mut seen = HashSet::new();
        let mut edits = BTreeMap::new();
        for n in 0..tasks {
            let (id, asked, _) = feed::nth(mode, n);
            books.add_task(paid, &id, &asked, &mut seen).await;
            for edit in asked {
                let input = picture(edit.picture);
                let row = format!("{} {} {}", Digest32::of(&input), edit.edit_type, edit.asked.model());
                edits.insert(row, edit.asked.identity(&input));
            }
        }
        books.edits = edits.len() as u64;
        let calls = "SELECT CONCAT(image_hash, ' ', edit_type, ' ', model, '/', possible_duplicates, '/', IF(state = 'failed', IF(paid_calls > 0, 'paid', 'failed'), state)) FROM image_edit_calls";
        for call in paid.site.texts(calls).await {
            let mut parts = call.split('/');
            let (edit, counted, state) =
                (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
            let counted: u64 = counted.parse().unwrap();
            let billed = edits.get(edit).map_or(0, |identity| ledger.billed_of(identity));
            let extra = billed.saturating_sub(1);
            books.possible_duplicates += counted;
            books.extra += extra;
            books.unaccounted += extra.saturating_sub(counted);
            books.thrice += u64::from(billed > 2);
            books.paid_lost += u64::from(state == "paid");
            books.unheard += u64::from(billed > 0 && state == "failed");
        }
        books
    }

    async fn add_task(&mut self, paid: &Paid, id: &str, asked: &[Edit], seen: &mut HashSet<String>) {
        let row = paid.site.task(id).await.filter(super::super::site::TaskRow::has_ended);
        let Some(row) = row else {
            *self.by_status.entry("lost".to_owned()).or_default() += 1;
            return;
        };
        *self.by_status.entry(row.status.clone()).or_default() += 1;
        for (image, edit) in row.images.iter().zip(asked) {
            if let Some(code) = image["error"]["code"].as_str() {
                *self.errors.entry(code.to_owned()).or_default() += 1;
                continue;
            }
            *self.by_source.entry(image["source"].as_str().unwrap_or("none").to_owned()).or_default() += 1;
            // The same blob for the same edit shows the same.
            if seen.insert(format!("{} {:?} {}", image["result_url"], edit.asked, edit.picture)) {
                let right = paid.is_right(image, &picture(edit.picture), &edit.asked);
                self.wrong += u64::from(!right);
            }
        }
    }

    /// Tasks that never ended.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.by_status.get("lost").copied().unwrap_or_default()
    }

    /// Violated promises; empty if all hold.
    #[must_use]
    pub fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        for (what, count) in [
            ("tasks lost", self.lost()),
            ("wrong pictures", self.wrong),
            ("paid results lost", self.paid_lost),
            ("extra bills that no possible duplicate accounts for", self.unaccounted),
            ("edits billed more than twice", self.thrice),
            ("workers that ended otherwise than they should", self.deaths.odd.len() as u64),
        ] {
            if count > 0 {
                broken.push(format!("{}: {count} {what}", self.mode));
            }
        }
        if self.mode == Mode::AsyncList.name() && self.extra > 0 {
            broken.push(format!("{}: {} extra bills, and the list knows better", self.mode, self.extra));
        }
        broken.extend(self.disagree.iter().map(|what| format!("{}: {what}", self.mode)));
        if !self.left.is_empty() {
            broken.push(format!("{}: left behind: {}", self.mode, self.left));
        }
        broken
    }
}

fn withheld(ledger: &Ledger) -> u64 {
    let told = |create: &&Create| matches!(create.told, Told::Dropped | Told::Refused(..));
    ledger.received.iter().filter(|create| create.task_id.is_some()).filter(told).count() as u64
}

/// So many in ten thousand.
#[must_use]
pub fn per_10_000(count: u64, of: u64) -> u64 {
    (count * 10_000).checked_div(of).unwrap_or_default()
}

fn listed(counts: &BTreeMap<String, u64>) -> String {
    let parts: Vec<_> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
    if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
}

impl fmt::Display for Books {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at: u64 = self.deaths.at.values().sum();
        writeln!(f, "== {}", self.mode)?;
        for (name, text) in [
            ("tasks sent", self.tasks.to_string()),
            ("tasks by status", listed(&self.by_status)),
            ("images by source", listed(&self.by_source)),
            ("images failed", listed(&self.errors)),
            ("edits, creates, bills", format!("{}, {}, {}", self.edits, self.creates, self.bills)),
            ("possible duplicates (counted)", self.possible_duplicates.to_string()),
            (
                "paid again (extra bills)",
                format!("{}, {} of them unaccounted for", self.extra, self.unaccounted),
            ),
            ("tasks lost", self.lost().to_string()),
            ("wrong pictures", self.wrong.to_string()),
            ("paid results lost", self.paid_lost.to_string()),
            ("failed after an unheard answer", self.unheard.to_string()),
            ("provider faults", format!("{}, {} of them withheld a paid answer", self.faults, self.withheld)),
            (
                "kills",
                format!(
                    "{}: {} by kill -9, {at} at {} of the points",
                    self.deaths.all(),
                    self.deaths.killed,
                    self.deaths.at.len()
                ),
            ),
            ("died while a submit was sent", self.deaths.while_sending().to_string()),
            (
                "tables, stats, metrics, events",
                if self.disagree.is_empty() { "agree".to_owned() } else { "DISAGREE".to_owned() },
            ),
            ("left behind", if self.left.is_empty() { "nothing".to_owned() } else { self.left.clone() }),
            ("wall time", format!("{:.0} s", self.took.as_secs_f64())),
        ] {
            writeln!(f, "{name:>32}  {text}")?;
        }
        for odd in &self.deaths.odd {
            writeln!(f, "{:>32}  {odd}", "an odd end")?;
        }
        Ok(())
    }
}
