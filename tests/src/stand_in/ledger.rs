//! The provider's own books: every create, its result, and its cost, whether or not the client ever hears of
//! it.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::asked::Identity;
use super::clock::delta;
use super::models;

/// A POST that asked for work: a create, or a synchronous call.
#[derive(Debug, Clone, Serialize)]
pub struct Create {
    /// When it arrived, before its body was read.
    pub at: DateTime<Utc>,
    /// The account of its key; `None` for an unknown key.
    pub account: Option<String>,
    /// The model that it named.
    pub model: String,
    /// The edit and its picture; `None` if the request was refused before they were read.
    pub identity: Option<Identity>,
    /// The task that was created, also where the client was told otherwise. A synchronous call has one too.
    pub task_id: Option<String>,
    /// How long the stand-in took from having the whole request to beginning the work, which is when the settings' duration
    /// begins: it makes the picture in that time.
    pub prepared: Duration,
    /// What the client was told.
    pub told: Told,
}

/// A client's answer to its create.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// It is being answered, or the client went away before.
    Nothing,
    /// That it was accepted; of a synchronous call, its result.
    Accepted,
    /// Status and code.
    Refused(u16, String),
    /// The connection ended without an answer.
    Dropped,
}

/// Pictures that were made and are billed.
#[derive(Debug, Clone, Serialize)]
pub struct Bill {
    /// When they were ready.
    pub at: DateTime<Utc>,
    /// By which task.
    pub task_id: String,
    /// By which model.
    pub model: String,
    /// Of which picture, with which edit.
    pub identity: Identity,
    /// How many.
    pub images: u64,
}

/// The books at one moment.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Ledger {
    /// Every create, in order of arrival.
    pub received: Vec<Create>,
    /// Every bill, in order of completion within a model.
    pub bills: Vec<Bill>,
    /// Queries of tasks, refused ones included.
    pub polls: usize,
    /// Lists of tasks, refused ones included.
    pub lists: usize,
    /// Requests to cancel, refused ones included.
    pub cancels: usize,
    /// The tasks that were cancelled while PENDING.
    pub cancelled: Vec<String>,
    /// Downloads of results, refused ones included.
    pub downloads: usize,
    /// Files that were uploaded.
    pub uploads: usize,
    /// By model: the most tasks RUNNING at once, of one account.
    pub most_running: BTreeMap<String, usize>,
    /// By model: the most tasks PENDING or RUNNING at once, of one account.
    pub most_open: BTreeMap<String, usize>,
}

impl Ledger {
    /// How many creates were accepted, told or not.
    #[must_use]
    pub fn creates(&self) -> usize {
        self.received.iter().filter(|create| create.task_id.is_some()).count()
    }

    /// How many creates of one edit were accepted, told or not.
    #[must_use]
    pub fn creates_of(&self, identity: &Identity) -> usize {
        self.of(identity).filter(|create| create.task_id.is_some()).count()
    }

    /// How long the provider prepared the creates of one edit, see [`Create::prepared`].
    #[must_use]
    pub fn prepared(&self, identity: &Identity) -> Duration {
        self.of(identity).map(|create| create.prepared).sum()
    }

    /// How many POSTs came for one edit, whatever became of them.
    #[must_use]
    pub fn received_of(&self, identity: &Identity) -> usize {
        self.of(identity).count()
    }

    fn of(&self, identity: &Identity) -> impl Iterator<Item = &Create> {
        self.received.iter().filter(|create| create.identity.as_ref() == Some(identity))
    }

    /// How many pictures are to be paid.
    #[must_use]
    pub fn billed(&self) -> u64 {
        self.bills.iter().map(|bill| bill.images).sum()
    }

    /// How many pictures of one edit are to be paid.
    #[must_use]
    pub fn billed_of(&self, identity: &Identity) -> u64 {
        self.bills.iter().filter(|bill| bill.identity == *identity).map(|bill| bill.images).sum()
    }

    /// The edits that were billed more than once, with how often.
    #[must_use]
    pub fn paid_again(&self) -> BTreeMap<Identity, usize> {
        let mut counts = BTreeMap::new();
        for bill in &self.bills {
            *counts.entry(bill.identity).or_default() += 1;
        }
        counts.retain(|_, count| *count > 1);
        counts
    }

    /// What each model costs up to now, in hundredths of a yuan.
    #[must_use]
    pub fn fen_by_model(&self) -> BTreeMap<String, u64> {
        let mut sums = BTreeMap::new();
        for bill in &self.bills {
            let price = models::find(&bill.model).map_or(0, |model| model.price_fen);
            *sums.entry(bill.model.clone()).or_default() += price * bill.images;
        }
        sums
    }

    /// What everything costs up to now, in hundredths of a yuan.
    #[must_use]
    pub fn fen(&self) -> u64 {
        self.fen_by_model().values().sum()
    }

    /// The most tasks that ever RAN at once, of one account and model.
    #[must_use]
    pub fn most_running(&self) -> usize {
        self.most_running.values().copied().max().unwrap_or_default()
    }

    /// The most tasks that ever were PENDING or RUNNING at once, of one account and model.
    #[must_use]
    pub fn most_open(&self) -> usize {
        self.most_open.values().copied().max().unwrap_or_default()
    }

    /// The most creates that came within any second, for one account and model, whatever became of them.
    #[must_use]
    pub fn most_submits_in_a_second(&self) -> usize {
        self.most_submits_within(Duration::from_secs(1))
    }

    /// As [`Ledger::most_submits_in_a_second`], within any such span; its end is no part of it.
    #[must_use]
    pub fn most_submits_within(&self, span: Duration) -> usize {
        let mut lanes = BTreeMap::<_, Vec<DateTime<Utc>>>::new();
        for create in &self.received {
            lanes.entry((&create.account, &create.model)).or_default().push(create.at);
        }
        let most = |mut times: Vec<DateTime<Utc>>| {
            times.sort_unstable();
            let from = |(at, first)| times.partition_point(|time| *time < first + delta(span)) - at;
            times.iter().copied().enumerate().map(from).max().unwrap_or_default()
        };
        lanes.into_values().map(most).max().unwrap_or_default()
    }

    /// How many creates were told this code.
    #[must_use]
    pub fn refused(&self, code: &str) -> usize {
        let told = |create: &&Create| matches!(&create.told, Told::Refused(_, said) if said == code);
        self.received.iter().filter(told).count()
    }
}
