//! The state of the whole system in one place for `retouch top`: queues, lanes, replicas, images, money,
//! failures.
//!
//! Invariant: it may run all day beside the work. Each look reads only the last minutes of ended tasks, and a
//! broker that does not answer does not hide the database's part.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::future::join_all;
use retouch_shared::event::decimal;
use serde::Serialize;

use crate::broker::{Broker, Queue};
use crate::outcome::origin;
use crate::replica::Doing;
use crate::store::{Clock, Failure, LaneView, ReplicaView, Store, StoreError, Tally};

/// Minutes that are kept separately.
const HOUR: u32 = 60;
/// A minute is read again this long after its end: a transaction may commit a little after its timestamp.
const LATE: i64 = 2;
/// Timeout for the broker.
const ASK: Duration = Duration::from_secs(3);
/// Failures shown.
const FAILURES: u32 = 8;

/// A snapshot. Durations are in milliseconds, money is decimal text.
#[derive(Debug, Clone, Serialize)]
pub struct Overview {
    /// Of this program.
    pub version: &'static str,
    /// By the database's clock.
    pub at: DateTime<Utc>,
    /// With their depth.
    pub queues: Vec<QueueGlance>,
    /// Every lane.
    pub lanes: Vec<LaneGlance>,
    /// Live ones, the oldest first.
    pub replicas: Vec<ReplicaGlance>,
    /// How images of ended tasks were answered.
    pub images: Images,
    /// Open dead letters.
    pub failures: Failures,
}

/// One queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QueueGlance {
    /// Without the namespace.
    pub name: String,
    /// Messages without a consumer; `None` if the broker does not answer.
    pub ready: Option<u64>,
    /// Replicas that consume it.
    pub consumers: usize,
    /// Why the broker did not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// One lane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LaneGlance {
    /// Its name.
    pub name: String,
    /// open, slowed down, blocked, budget spent, paused.
    pub state: &'static str,
    /// Why it takes no calls.
    pub reason: Option<String>,
    /// Time until a call may try again.
    pub probe_in_ms: Option<u64>,
    /// Calls waiting to be sent.
    pub queued: u64,
    /// Calls sent and not ended.
    pub in_flight: u64,
    /// Limit over all replicas.
    pub max_in_flight: Option<u32>,
    /// Least time between two submits.
    pub submit_interval_ms: Option<u64>,
    /// Spent on this UTC day.
    pub spent_today: String,
    /// Limit for one UTC day.
    pub daily_budget: Option<String>,
    /// Currency of both.
    pub currency: Option<String>,
}

/// One replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReplicaGlance {
    /// The owner of its leases.
    pub owner: String,
    /// For people.
    pub name: String,
    /// Of its program.
    pub version: String,
    /// How long it has been running.
    pub up_ms: u64,
    /// Age of its last report.
    pub seen_ms: u64,
    /// Its last report.
    pub doing: Doing,
}

/// Images by how they were answered, over three spans.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Images {
    /// The last minute.
    pub minute: Answers,
    /// The last hour.
    pub hour: Answers,
    /// Since the watch began; `None` for a single look.
    pub since: Option<Since>,
}

/// Images since then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Since {
    /// When it began.
    pub began: DateTime<Utc>,
    /// How they were answered.
    #[serde(flatten)]
    pub answers: Answers,
}

/// Images by how they were answered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Answers {
    /// From the cache.
    pub hit: u64,
    /// By another image's call.
    pub joined: u64,
    /// By their own call.
    pub paid: u64,
    /// Not answered.
    pub failed: u64,
    /// Share of hits among the answered images in per cent; `None` without answers.
    pub hit_percent: Option<u64>,
    /// By currency.
    pub money: Vec<MoneyGlance>,
}

/// Money in one currency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MoneyGlance {
    /// ISO 4217.
    pub currency: String,
    /// Price of the paid images.
    pub paid: String,
    /// Price saved by hit and joined images.
    pub saved: String,
    /// Spent, or perhaps spent, without a result.
    pub lost: String,
}

/// What failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failures {
    /// Open dead letters.
    pub open: u64,
    /// Whether there are more, which were not counted.
    pub more: bool,
    /// The last ones, the newest first.
    pub last: Vec<FailureGlance>,
}

/// One dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FailureGlance {
    /// Id for `retouch dead show`.
    pub id: i64,
    /// Its reason code.
    pub reason: String,
    /// The first line of its message.
    pub message: String,
    /// The queue that it comes from.
    pub queue: String,
    /// If known.
    pub task_id: Option<String>,
    /// open, retried, discarded.
    pub state: String,
    /// How long ago.
    pub ago_ms: u64,
}

/// Looks repeatedly and caches the minutes that no longer change.
pub struct Watcher {
    store: Store,
    broker: Option<Arc<dyn Broker>>,
    /// By minute; the last hour.
    minutes: BTreeMap<i64, Vec<Tally>>,
    /// Tallies since `began` that are older than the hour.
    before: Vec<Tally>,
    began: Option<Clock>,
    last: Option<i64>,
}

impl Watcher {
    /// Reads nothing before the first look.
    pub fn new(store: Store, broker: Option<Arc<dyn Broker>>) -> Self {
        let (minutes, before) = (BTreeMap::new(), Vec::new());
        Self { store, broker, minutes, before, began: None, last: None }
    }

    /// The current state.
    ///
    /// # Errors
    /// The database is unavailable.
    pub async fn look(&mut self) -> Result<Overview, StoreError> {
        let clock = self.store.clock().await?;
        let first = self.began.is_none();
        let began = *self.began.get_or_insert(clock);
        self.read_minutes(clock).await?;
        let minute = self.store.ended_lately(Duration::from_secs(60)).await?;
        let hour = self.minutes.values().flatten();
        let since = self.minutes.range(began.minute..).flat_map(|(_, tallies)| tallies).chain(&self.before);
        let images = Images {
            minute: answers(&minute),
            hour: answers(hour),
            since: (!first).then(|| Since { began: began.now, answers: answers(since) }),
        };
        let replicas: Vec<_> = self.store.replicas().await?.into_iter().map(replica).collect();
        let lanes: Vec<_> = self.store.lanes_at_a_glance().await?.into_iter().map(lane).collect();
        let queues = self.queues(&lanes, &replicas).await;
        let (last, open) = self.store.last_failures(FAILURES).await?;
        let most = crate::store::MOST_COUNTED;
        let last = last.into_iter().map(failure).collect();
        let failures = Failures { open: open.min(most), more: open > most, last };
        Ok(Overview {
            version: env!("CARGO_PKG_VERSION"),
            at: clock.now,
            queues,
            lanes,
            replicas,
            images,
            failures,
        })
    }

    /// Reads the minutes that may have changed since the last look.
    async fn read_minutes(&mut self, clock: Clock) -> Result<(), StoreError> {
        let oldest = clock.minute - i64::from(HOUR) + 1;
        let from = self.last.map_or(oldest, |last| (last - LATE).max(oldest));
        // One minute more, of which only the end is read.
        let back = u32::try_from(clock.minute - from + 1).unwrap_or(HOUR).min(HOUR);
        let read = self.store.ended_by_minute(back).await?;
        self.minutes.retain(|minute, _| *minute < from);
        for (minute, tally) in read.into_iter().filter(|(minute, _)| *minute >= from) {
            self.minutes.entry(minute).or_default().push(tally);
        }
        let recent = self.minutes.split_off(&oldest);
        let began = self.began.map_or(i64::MAX, |began| began.minute);
        let left = std::mem::replace(&mut self.minutes, recent);
        self.before.extend(left.into_iter().filter(|(minute, _)| *minute >= began).flat_map(|(_, all)| all));
        self.before = summed(&self.before);
        self.last = Some(clock.minute);
        Ok(())
    }

    async fn queues(&self, lanes: &[LaneGlance], replicas: &[ReplicaGlance]) -> Vec<QueueGlance> {
        let edits = lanes.iter().map(|lane| Queue::Edits { lane: lane.name.clone() });
        let queues = std::iter::once(Queue::Tasks).chain(edits).chain([Queue::Dead]);
        join_all(queues.map(|queue| self.queue(queue, replicas))).await
    }

    async fn queue(&self, queue: Queue, replicas: &[ReplicaGlance]) -> QueueGlance {
        let name = origin(&queue);
        let consumers = replicas.iter().filter(|replica| replica.doing.queues.contains(&name)).count();
        let depth = match &self.broker {
            None => Err("no broker".to_owned()),
            Some(broker) => match tokio::time::timeout(ASK, broker.depth(queue)).await {
                Ok(depth) => depth.map_err(|error| error.to_string()),
                Err(_late) => Err(format!("the broker does not answer within {ASK:?}")),
            },
        };
        QueueGlance { name, ready: depth.as_ref().ok().copied(), consumers, error: depth.err() }
    }
}

/// Sums by currency.
fn summed<'a>(tallies: impl IntoIterator<Item = &'a Tally>) -> Vec<Tally> {
    let mut sums: BTreeMap<&str, Tally> = BTreeMap::new();
    for tally in tallies {
        let sum = sums.entry(&tally.currency).or_default();
        sum.hit += tally.hit;
        sum.joined += tally.joined;
        sum.paid += tally.paid;
        sum.failed += tally.failed;
        sum.paid_micros += tally.paid_micros;
        sum.saved_micros += tally.saved_micros;
        sum.lost_micros += tally.lost_micros;
    }
    sums.into_iter().map(|(currency, sum)| Tally { currency: currency.to_owned(), ..sum }).collect()
}

fn answers<'a>(tallies: impl IntoIterator<Item = &'a Tally>) -> Answers {
    let sums = summed(tallies);
    let count = |of: fn(&Tally) -> u64| sums.iter().map(of).sum::<u64>();
    let (hit, joined) = (count(|sum| sum.hit), count(|sum| sum.joined));
    let (paid, failed) = (count(|sum| sum.paid), count(|sum| sum.failed));
    // Images without a price have no currency.
    let money =
        sums.iter().filter(|sum| sum.paid_micros != 0 || sum.saved_micros != 0 || sum.lost_micros != 0);
    let money = money.map(|sum| MoneyGlance {
        currency: sum.currency.clone(),
        paid: decimal(sum.paid_micros),
        saved: decimal(sum.saved_micros),
        lost: decimal(sum.lost_micros),
    });
    let hit_percent = (hit * 100).checked_div(hit + joined + paid);
    Answers { hit, joined, paid, failed, hit_percent, money: money.collect() }
}

fn lane(lane: LaneView) -> LaneGlance {
    LaneGlance {
        state: lane.state(),
        reason: lane.reason(),
        probe_in_ms: lane.closed.as_ref().and_then(|closure| closure.probe_in).map(millis),
        queued: lane.queued,
        in_flight: lane.in_flight,
        max_in_flight: lane.policy.max_in_flight,
        submit_interval_ms: lane.policy.submit_interval.map(millis),
        spent_today: decimal(lane.spent_micros),
        daily_budget: lane.policy.daily_budget.map(|budget| decimal(budget.micros)),
        currency: lane.currency,
        name: lane.name,
    }
}

fn replica(view: ReplicaView) -> ReplicaGlance {
    ReplicaGlance {
        owner: view.report.owner,
        name: view.report.name,
        version: view.report.version,
        up_ms: millis(view.up),
        seen_ms: millis(view.seen),
        doing: serde_json::from_value(view.report.doing).unwrap_or_default(),
    }
}

fn failure(failure: Failure) -> FailureGlance {
    FailureGlance {
        id: failure.id,
        reason: failure.reason,
        message: failure.message.lines().next().unwrap_or_default().to_owned(),
        queue: failure.queue,
        task_id: failure.task_id,
        state: failure.state,
        ago_ms: millis(failure.ago),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
