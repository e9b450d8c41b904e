//! `retouch cache stats`: what the cache holds, how images were answered, and the money. Everything is summed up from the tables, so
//! it says the same whoever asks and whatever died meanwhile.

use std::collections::BTreeMap;

use clap::Args;
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{CellAlignment, Table};
use indicatif::HumanBytes;
use retouch_shared::event::decimal;
use retouch_shared::key::{EditKey, KEY_VERSION_NUMBER};
use serde::Serialize;

use super::super::say::say;
use super::super::{Ending, Failure};
use super::{json_time, shortened};
use crate::app::open_store;
use crate::config::Settings;
use crate::store::{Answered, CacheEntry, CacheShare, InFlight, Spending, Store, StoreError, Tally};
use crate::words::counted;

/// Show what the cache holds, how images were answered, and the money paid, saved, and spent for nothing
///
/// A day is a UTC day, and has the tasks that ended on it; tasks that have not ended are a line of their own. What is saved is what each
/// image that was answered from the cache, or by another image's call, would have cost.
///
/// Example: retouch cache stats --days 7 --top 3
#[derive(Debug, Args)]
pub(super) struct Stats {
    /// So many days, today included
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    days: u32,
    /// So many of the entries that were served most
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=1000))]
    top: u32,
}

/// All of it, in `--json`. Money is decimal text.
#[derive(Debug, Serialize)]
struct Shown {
    entries: u64,
    imported: u64,
    bytes: u64,
    served: u64,
    by_model: Vec<ShownShare>,
    days: Vec<ShownAnswers>,
    under_way: Vec<ShownAnswers>,
    total: Vec<ShownAnswers>,
    /// What money was spent on, by day, lane and outcome; it stays when tasks are deleted.
    spending: Vec<ShownSpending>,
    /// What is spent and has no outcome yet, whenever it was sent.
    in_flight: Vec<ShownInFlight>,
    top: Vec<ShownEntry>,
}

/// Money of one day, lane, model and outcome.
#[derive(Debug, Serialize)]
struct ShownSpending {
    #[serde(flatten)]
    spent: Spending,
    amount: String,
}

/// Money that is under way.
#[derive(Debug, Serialize)]
struct ShownInFlight {
    #[serde(flatten)]
    in_flight: InFlight,
    amount: String,
}

#[derive(Debug, Serialize)]
struct ShownShare {
    key_version: u16,
    /// Whether an edit can still have such a key.
    current: bool,
    provider: String,
    model: String,
    entries: u64,
    imported: u64,
    bytes: u64,
    served: u64,
}

/// One line of answers.
#[derive(Debug, Serialize)]
struct ShownAnswers {
    #[serde(skip_serializing_if = "Option::is_none")]
    day: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    edit_type: Option<String>,
    tasks: u64,
    images: u64,
    hit: u64,
    joined: u64,
    paid: u64,
    failed: u64,
    /// Images that have no answer yet.
    waiting: u64,
    /// Of a hundred images that were answered, those from the cache; null where none was.
    hit_percent: Option<u64>,
    money_paid: String,
    money_saved: String,
    money_lost: String,
    currency: String,
}

#[derive(Debug, Serialize)]
struct ShownEntry {
    edit_key: EditKey,
    image_hash: String,
    edit_type: String,
    model: String,
    prompt: String,
    hits: u64,
    price: String,
    currency: String,
    last_hit_at: String,
}

impl Stats {
    pub(super) async fn run(self, settings: &Settings, json: bool) -> Result<Ending, Failure> {
        let store = open_store(settings).await.map_err(Failure::Unreachable)?;
        let shown = self.read(&store).await;
        store.close().await;
        let shown = shown.map_err(Failure::unreachable)?;
        if json {
            // Plain data always serialises.
            say(serde_json::to_string_pretty(&shown).unwrap_or_default());
        } else {
            shown.print(self.days);
        }
        Ok(Ending::Done)
    }

    async fn read(&self, store: &Store) -> Result<Shown, StoreError> {
        let shares = store.cache_shares().await?;
        let answered = store.answered(self.days).await?;
        // Before the outcomes: what ends in between is in both rather than in neither.
        let in_flight = store.in_flight().await?;
        let spending = store.spending(self.days).await?;
        let top = store.most_served(self.top).await?;
        Ok(Shown::of(&shares, answered, spending, in_flight, &top))
    }
}

impl Shown {
    fn of(
        shares: &[CacheShare],
        answered: Vec<Answered>,
        spending: Vec<Spending>,
        in_flight: Vec<InFlight>,
        top: &[CacheEntry],
    ) -> Self {
        let sum = |of: fn(&CacheShare) -> u64| shares.iter().map(of).sum();
        let total = totals(&answered);
        let (under_way, days): (Vec<_>, Vec<_>) =
            answered.into_iter().partition(|answered| answered.day.is_none());
        let shown = |answered: Vec<Answered>| answered.into_iter().map(ShownAnswers::of).collect();
        Self {
            entries: sum(|share| share.entries),
            imported: sum(|share| share.imported),
            bytes: sum(|share| share.bytes),
            served: sum(|share| share.served),
            by_model: shares.iter().map(ShownShare::of).collect(),
            days: shown(days),
            under_way: shown(under_way),
            total,
            spending: spending
                .into_iter()
                .map(|spent| ShownSpending { amount: decimal(spent.micros), spent })
                .collect(),
            in_flight: in_flight
                .into_iter()
                .map(|in_flight| ShownInFlight { amount: decimal(in_flight.micros), in_flight })
                .collect(),
            top: top.iter().map(ShownEntry::of).collect(),
        }
    }

    fn print(&self, days: u32) {
        let size = HumanBytes(self.bytes);
        let imported =
            if self.imported > 0 { format!(", {} imported", self.imported) } else { String::new() };
        let (entries, times) = (counted(self.entries, "entry"), counted(self.served, "time"));
        say(format!("{entries}{imported}, {size}, served {times}"));
        if !self.by_model.is_empty() {
            self.print_models();
        }
        let within = if days == 1 { "today".to_owned() } else { format!("in the last {days} days") };
        self.print_spending(&within);
        self.print_in_flight();
        if self.total.is_empty() {
            say(format!("no task ended {within} (UTC)"));
            return;
        }
        say(format!("images of tasks that ended {within} (UTC), and of those under way:"));
        self.print_answers();
        for (nth, entry) in self.top.iter().enumerate() {
            if nth == 0 {
                say("served most:");
            }
            let prompt = if entry.prompt.is_empty() {
                String::new()
            } else {
                format!(" {:?}", shortened(&entry.prompt, 60))
            };
            say(format!(
                "{:>8} times  {} {}{prompt}, {} {}\n{:16}{}",
                entry.hits, entry.edit_type, entry.model, entry.price, entry.currency, "", entry.edit_key
            ));
        }
    }

    /// One line a currency and outcome, over all lanes: what it bought first.
    fn print_spending(&self, within: &str) {
        let mut sums: BTreeMap<(&str, u8, &str), (i64, i64)> = BTreeMap::new();
        for ShownSpending { spent, .. } in &self.spending {
            let rank = if spent.bought() { 0 } else { 1 + u8::from(!spent.certain()) };
            let sum = sums.entry((&spent.currency, rank, &spent.outcome)).or_default();
            *sum = (sum.0 + spent.calls, sum.1 + spent.micros);
        }
        if sums.is_empty() {
            return;
        }
        say(format!("money of calls whose outcome was known {within} (UTC):"));
        for ((currency, rank, outcome), (calls, micros)) in sums {
            let what = match rank {
                0 => "bought a picture",
                1 => "bought nothing",
                _ => "perhaps charged, bought nothing",
            };
            let plural = if calls == 1 { "call" } else { "calls" };
            say(format!("{:>12} {currency}  {what}: {calls} {plural} ({outcome})", decimal(micros)));
        }
    }

    /// One line a currency and state, over all lanes.
    fn print_in_flight(&self) {
        let mut sums: BTreeMap<(&str, bool), (u64, i64)> = BTreeMap::new();
        for ShownInFlight { in_flight, .. } in &self.in_flight {
            let sum = sums.entry((&in_flight.currency, !in_flight.accepted)).or_default();
            *sum = (sum.0 + in_flight.calls, sum.1 + in_flight.micros);
        }
        if sums.is_empty() {
            return;
        }
        say("money of calls that were sent and have not ended:");
        for ((currency, unanswered), (calls, micros)) in sums {
            let what = if unanswered { "not answered yet, perhaps charged" } else { "accepted, charged" };
            let plural = if calls == 1 { "call" } else { "calls" };
            say(format!("{:>12} {currency}  {what}: {calls} {plural}", decimal(micros)));
        }
    }

    fn print_models(&self) {
        let mut table = table(["key version", "model", "entries", "imported", "size", "served"], 2);
        for share in &self.by_model {
            let version = share.key_version;
            table.add_row([
                if share.current { version.to_string() } else { format!("{version} (never hit)") },
                format!("{} {}", share.provider, share.model),
                share.entries.to_string(),
                share.imported.to_string(),
                HumanBytes(share.bytes).to_string(),
                share.served.to_string(),
            ]);
        }
        say(table);
    }

    fn print_answers(&self) {
        let mut table = table(
            [
                "day",
                "edit type",
                "tasks",
                "hit",
                "joined",
                "paid",
                "failed",
                "waiting",
                "hit rate",
                "money paid",
                "money saved",
                "for nothing",
            ],
            2,
        );
        for answers in self.under_way.iter().chain(&self.days).chain(&self.total) {
            table.add_row(answers.cells());
        }
        say(table);
    }
}

/// A table whose columns from the n-th on are numbers.
fn table<const N: usize>(header: [&str; N], numbers_from: usize) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY).set_header(header);
    for column in table.column_iter_mut().skip(numbers_from) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// One line a currency.
fn totals(answered: &[Answered]) -> Vec<ShownAnswers> {
    let mut totals: BTreeMap<&str, Answered> = BTreeMap::new();
    for one in answered {
        let Tally { currency, hit, joined, paid, failed, paid_micros, saved_micros, lost_micros } =
            &one.tally;
        let total = totals.entry(currency).or_insert_with(|| Answered {
            day: None,
            edit_type: String::new(),
            tasks: 0,
            images: 0,
            tally: Tally { currency: currency.clone(), ..Tally::default() },
        });
        total.tasks += one.tasks;
        total.images += one.images;
        total.tally.hit += hit;
        total.tally.joined += joined;
        total.tally.paid += paid;
        total.tally.failed += failed;
        total.tally.paid_micros += paid_micros;
        total.tally.saved_micros += saved_micros;
        total.tally.lost_micros += lost_micros;
    }
    let shown = |total| ShownAnswers { edit_type: None, ..ShownAnswers::of(total) };
    totals.into_values().map(shown).collect()
}

impl ShownShare {
    fn of(share: &CacheShare) -> Self {
        let CacheShare { key_version, provider, model, entries, imported, bytes, served } = share.clone();
        let current = key_version == KEY_VERSION_NUMBER;
        Self { key_version, current, provider, model, entries, imported, bytes, served }
    }
}

impl ShownAnswers {
    fn of(answered: Answered) -> Self {
        let Answered { day, edit_type, tasks, images, tally } = answered;
        let Tally { currency, hit, joined, paid, failed, paid_micros, saved_micros, lost_micros } = tally;
        Self {
            day,
            edit_type: Some(edit_type),
            tasks,
            images,
            hit,
            joined,
            paid,
            failed,
            waiting: images.saturating_sub(hit + joined + paid + failed),
            hit_percent: (hit * 100).checked_div(hit + joined + paid),
            money_paid: decimal(paid_micros),
            money_saved: decimal(saved_micros),
            money_lost: decimal(lost_micros),
            currency,
        }
    }

    fn cells(&self) -> [String; 12] {
        let day = match (&self.day, &self.edit_type) {
            (Some(day), _) => day.clone(),
            (None, Some(_)) => "under way".to_owned(),
            (None, None) => "total".to_owned(),
        };
        [
            day,
            self.edit_type.clone().unwrap_or_default(),
            self.tasks.to_string(),
            self.hit.to_string(),
            self.joined.to_string(),
            self.paid.to_string(),
            self.failed.to_string(),
            self.waiting.to_string(),
            self.hit_percent.map_or_else(|| "–".to_owned(), |percent| format!("{percent} %")),
            format!("{} {}", self.money_paid, self.currency),
            format!("{} {}", self.money_saved, self.currency),
            format!("{} {}", self.money_lost, self.currency),
        ]
    }
}

impl ShownEntry {
    fn of(entry: &CacheEntry) -> Self {
        Self {
            edit_key: entry.result.edit_key,
            image_hash: entry.image_hash.to_hex(),
            edit_type: entry.edit_type.clone(),
            model: entry.model.clone(),
            prompt: entry.prompt.clone(),
            hits: entry.hit_count,
            price: decimal(entry.result.price.micros),
            currency: entry.result.price.currency.clone(),
            last_hit_at: json_time(entry.last_hit_at),
        }
    }
}
