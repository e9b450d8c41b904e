//! `/metrics`: counters of this process, and figures read from the database and the broker on request.
//! Figures that are not available in time are left out, and counted: the rest matters all the more then.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::Served;
use super::asked::{Patience, Question};
use crate::broker::supervise::Liveness;
use crate::config::BrokerChoice;
use crate::metrics::text::{Family, units};
use crate::metrics::{self, count, recorder};
use crate::store::{CallState, ClosedBy, DatabaseLocation, LaneView, Readings, Spending, StoreError, Tally};

/// Ten replicas scraped every few seconds ask the database less often than one working worker does.
const PATIENCE: Patience =
    Patience { keep: Duration::from_secs(5), at_most: Duration::from_secs(60), wait: Duration::from_secs(2) };
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Questions to other servers.
#[derive(Default)]
pub(super) struct Asked {
    database: Question<Readings, ()>,
    /// Separate, because its query takes longer the more was done today.
    today: Question<Today, ()>,
    broker: Question<Vec<(String, u64)>, ()>,
}

/// The database's figures of this UTC day.
#[derive(Clone)]
struct Today {
    answered: Vec<Tally>,
    spending: Vec<Spending>,
}

/// In the text format 0.0.4.
pub(super) async fn metrics(State(served): State<Served>) -> Response {
    let (readings, today, depths) = tokio::join!(served.readings(), served.today(), served.depths());
    let mut text = recorder::render();
    served.of_this_process(&mut text);
    if let Some(readings) = readings {
        of_the_database(&readings, &mut text);
    }
    if let Some(today) = today {
        of_today(&today, &mut text);
    }
    let mut ready = Family::new(metrics::QUEUE_READY);
    for (queue, depth) in depths.unwrap_or_default() {
        ready.sample([&queue], depth);
    }
    ready.write_to(&mut text);
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response()
}

impl Served {
    async fn readings(&self) -> Option<Readings> {
        let store = self.app.store.clone();
        let ask = || async move {
            let readings = store.readings().await;
            readings.inspect_err(|error| tracing::debug!(%error, "no readings for /metrics")).map_err(drop)
        };
        let readings = self.scrape.database.ask(PATIENCE, ask).await.and_then(Result::ok);
        if readings.is_none() {
            count::scrape_error("database");
        }
        readings
    }

    async fn today(&self) -> Option<Today> {
        let store = self.app.store.clone();
        let ask = || async move {
            let today = async {
                Ok::<_, StoreError>(Today {
                    answered: store.answered_today().await?,
                    spending: store.spending(1).await?,
                })
            };
            let today = today.await;
            today.inspect_err(|error| tracing::debug!(%error, "no sums of today for /metrics")).map_err(drop)
        };
        let today = self.scrape.today.ask(PATIENCE, ask).await.and_then(Result::ok);
        if today.is_none() {
            count::scrape_error("database");
        }
        today
    }

    async fn depths(&self) -> Option<Vec<(String, u64)>> {
        let broker = self.app.broker.clone();
        let queues: Vec<_> =
            self.consumed.iter().map(|consumed| (consumed.queue.clone(), consumed.source.clone())).collect();
        let ask = || async move {
            let mut depths = Vec::with_capacity(queues.len());
            for (name, queue) in queues {
                match broker.depth(queue).await {
                    Ok(depth) => depths.push((name, depth)),
                    Err(error) => {
                        tracing::debug!(%error, "no depths for /metrics");
                        return Err(());
                    }
                }
            }
            Ok(depths)
        };
        let depths = self.scrape.broker.ask(PATIENCE, ask).await.and_then(Result::ok);
        if depths.is_none() {
            count::scrape_error("broker");
        }
        depths
    }

    fn of_this_process(&self, text: &mut String) {
        let mut up = Family::new(metrics::CONSUMER_UP);
        for consumed in &*self.consumed {
            up.sample([&consumed.queue], u8::from(*consumed.liveness.borrow() == Liveness::Consuming));
        }
        up.write_to(text);
        let database = match self.app.settings.database {
            DatabaseLocation::Sqlite(_) => "sqlite",
            DatabaseLocation::MySql(_) => "mysql",
        };
        let broker = match self.app.settings.broker {
            BrokerChoice::Embedded => "embedded",
            BrokerChoice::RabbitMq { .. } => "rabbitmq",
        };
        let mut build = Family::new(metrics::BUILD_INFO);
        build.sample([env!("CARGO_PKG_VERSION"), database, broker], 1);
        build.write_to(text);
    }
}

fn of_the_database(readings: &Readings, text: &mut String) {
    let [mut calls, mut leases] = [metrics::CALLS, metrics::LEASES].map(Family::new);
    let mut oldest = Family::new(metrics::OLDEST_QUEUED);
    for lane in &readings.lanes {
        let of_lane: Vec<_> = readings.calls.iter().filter(|reading| reading.lane == lane.name).collect();
        leases.sample([&lane.name], of_lane.iter().map(|reading| reading.leased).sum::<u64>());
        for state in CallState::ALIVE {
            let calls_in = of_lane.iter().filter(|reading| reading.state == state.as_str());
            calls.sample([&lane.name, state.as_str()], calls_in.map(|reading| reading.calls).sum::<u64>());
        }
        let waited = readings.oldest.iter().find(|(name, _)| *name == lane.name);
        oldest.sample([&lane.name], waited.map_or(0.0, |(_, waited)| waited.as_secs_f64()));
    }
    let mut dead = Family::new(metrics::DEAD_LETTERS);
    for (reason, letters) in &readings.dead {
        dead.sample([reason], letters);
    }
    let mut due = Family::new(metrics::EVENTS_DUE);
    due.sample([], readings.events_due);
    for family in [calls, leases, oldest, dead, due] {
        family.write_to(text);
    }
    of_the_lanes(&readings.lanes, text);
}

/// From the tables, not from this process: correct also after a crash, which resets counters.
fn of_today(today: &Today, text: &mut String) {
    let tallies = &today.answered;
    let [mut images, mut paid, mut saved, mut lost, mut spent] = [
        metrics::TODAY_IMAGES,
        metrics::TODAY_PAID,
        metrics::TODAY_SAVED,
        metrics::TODAY_LOST,
        metrics::SPENT_TODAY,
    ]
    .map(Family::new);
    let sum = |of: fn(&Tally) -> u64| tallies.iter().map(of).sum::<u64>();
    images.sample(["hit"], sum(|tally| tally.hit));
    images.sample(["joined"], sum(|tally| tally.joined));
    images.sample(["paid"], sum(|tally| tally.paid));
    images.sample(["failed"], sum(|tally| tally.failed));
    for tally in tallies {
        paid.sample([&tally.currency], units(tally.paid_micros));
        saved.sample([&tally.currency], units(tally.saved_micros));
        lost.sample([&tally.currency], units(tally.lost_micros));
    }
    for (labels, micros) in spent_by_lane(&today.spending) {
        spent.sample(labels, units(micros));
    }
    for family in [images, paid, saved, lost, spent] {
        family.write_to(text);
    }
}

/// Sums over the models of a lane.
fn spent_by_lane(spending: &[Spending]) -> BTreeMap<[&str; 3], i64> {
    let mut sums = BTreeMap::new();
    for spent in spending {
        let labels = [spent.lane.as_str(), &spent.currency, &spent.outcome];
        *sums.entry(labels).or_default() += spent.micros;
    }
    sums
}

fn of_the_lanes(lanes: &[LaneView], text: &mut String) {
    let [mut state, mut unfetched, mut spent, mut budget] =
        [metrics::LANE_STATE, metrics::UNFETCHED_RESULTS, metrics::LANE_SPENT, metrics::LANE_BUDGET]
            .map(Family::new);
    for lane in lanes {
        let is = match lane.closed.as_ref().map(|closure| closure.by) {
            None => "open",
            Some(ClosedBy::Pause) => "paused",
            Some(ClosedBy::Submit | ClosedBy::Poll | ClosedBy::Budget | ClosedBy::Fetch) => "blocked",
        };
        for word in ["open", "blocked", "paused"] {
            state.sample([&lane.name, word], u8::from(word == is));
        }
        unfetched.sample([&lane.name], lane.unfetched.as_ref().map_or(0, |unfetched| unfetched.calls));
        if let Some(currency) = &lane.currency {
            spent.sample([&lane.name, currency], units(lane.spent_micros));
        }
        if let Some(most) = &lane.policy.daily_budget {
            budget.sample([&lane.name, &most.currency], units(most.micros));
        }
    }
    for family in [state, unfetched, spent, budget] {
        family.write_to(text);
    }
}
