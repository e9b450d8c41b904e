//! Lanes' limits: `[lanes.NAME]` over the known limits of the models that queue there.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::models::{EditorKind, Model, Models, Origin, check_lane, money};
use crate::routes::Routes;
use crate::store::Money;

/// `[lanes.NAME]` in `retouch.toml`, unvalidated.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLane {
    pub(super) concurrency: Option<u16>,
    max_in_flight: Option<u32>,
    per_second: Option<f64>,
    per_minute: Option<f64>,
    daily_budget: Option<String>,
}

/// One lane's limits. `None` is no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LaneLimits {
    /// Calls at a time in one process; also the prefetch.
    pub concurrency: Option<u16>,
    /// Calls at a time over all replicas.
    pub max_in_flight: Option<u32>,
    /// Least time between two submits, over all replicas.
    pub submit_interval: Option<Duration>,
    /// Limit of its calls' cost in a day, in the currency of its models.
    pub daily_budget: Option<Money>,
    /// Whether no call is sent while another submit of the lane is unresolved, over all replicas: the
    /// provider's list names no edit, so only a single unresolved submit can be matched with certainty.
    pub one_unresolved: bool,
}

/// One lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lane {
    /// Its name: a part of its queue's name.
    pub name: String,
    /// The provider of the account.
    pub editor: &'static EditorKind,
    /// Its limits.
    pub limits: LaneLimits,
    /// Origin of the number of calls in flight.
    pub max_in_flight_from: Origin,
    /// Origin of the interval.
    pub submit_interval_from: Origin,
}

/// Every model's lane by name, with or without a key here.
#[derive(Debug, Clone, Default)]
pub struct Lanes(BTreeMap<String, Lane>);

impl Lanes {
    /// The lanes of the models, with the file's limits.
    ///
    /// # Errors
    /// One sentence that names the lane, the field and the fix.
    pub(super) fn decide(
        given: &BTreeMap<String, RawLane>,
        models: &Models,
        routes: &Routes,
        can_list: impl Fn(&Model) -> bool,
    ) -> Result<Self> {
        let mut lanes = Self::default();
        for model in models.iter() {
            let lane = lanes.0.entry(model.lane.clone()).or_insert_with(|| Lane {
                name: model.lane.clone(),
                editor: model.editor,
                limits: LaneLimits::default(),
                max_in_flight_from: Origin::BuiltIn,
                submit_interval_from: Origin::BuiltIn,
            });
            ensure!(
                lane.editor == model.editor,
                "[models.{:?}]: the lane {} is one of {}; a lane is one provider's: choose another name",
                model.id,
                lane.name,
                lane.editor.name
            );
            lane.limits.one_unresolved |= can_list(model);
            // The narrowest limit of the models that share a lane holds for all.
            let limits = &mut lane.limits;
            limits.max_in_flight = narrowest(limits.max_in_flight, model.max_in_flight, Ord::min);
            let interval = model.submits_per_minute.filter(|submits| *submits > 0);
            let interval = interval.map(|submits| Duration::from_mins(1) / submits);
            limits.submit_interval = narrowest(limits.submit_interval, interval, Ord::max);
        }
        let currencies = currencies(models, routes)?;
        for (name, raw) in given {
            let place = format!("[lanes.{name}]");
            check_lane(&place, name)?;
            let known: Vec<_> = lanes.0.keys().cloned().collect();
            let Some(lane) = lanes.0.get_mut(name) else {
                bail!("{place}: no model has this lane; there are {}", known.join(", "));
            };
            apply(&place, raw, lane, currencies.get(name.as_str()).copied())?;
        }
        Ok(lanes)
    }

    /// A lane's limits; no limits for an unknown lane, e.g. of a call that another worker created.
    pub fn limits(&self, lane: &str) -> LaneLimits {
        self.0.get(lane).map(|lane| lane.limits.clone()).unwrap_or_default()
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Lane> {
        self.0.values()
    }
}

fn narrowest<T>(one: Option<T>, other: Option<T>, narrower: fn(T, T) -> T) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(narrower(one, other)),
        (one, other) => one.or(other),
    }
}

/// The currency of each lane's prices: only one, so that they can be added up. Free models have none.
fn currencies<'a>(models: &'a Models, routes: &'a Routes) -> Result<BTreeMap<&'a str, &'a str>> {
    let of_models = models.iter().map(|model| (model.lane.as_str(), &model.price));
    let of_routes = routes.iter().map(|route| (route.lane.as_str(), &route.price));
    let mut currencies = BTreeMap::new();
    for (lane, price) in of_models.chain(of_routes).filter(|(_, price)| price.micros > 0) {
        let first: &&str = currencies.entry(lane).or_insert(price.currency.as_str());
        ensure!(
            *first == price.currency,
            "the lane {lane} has prices in {first} and in {}, which cannot be added up: give all its models and routes one currency, or some of the models a lane of their own",
            price.currency
        );
    }
    Ok(currencies)
}

fn apply(place: &str, raw: &RawLane, lane: &mut Lane, currency: Option<&str>) -> Result<()> {
    let RawLane { concurrency, max_in_flight, per_second, per_minute, daily_budget } = raw;
    ensure!(*concurrency != Some(0), "{place}: concurrency must be 1 or more");
    ensure!(*max_in_flight != Some(0), "{place}: max_in_flight must be 1 or more");
    lane.limits.concurrency = *concurrency;
    if max_in_flight.is_some() {
        lane.limits.max_in_flight = *max_in_flight;
        lane.max_in_flight_from = Origin::Lanes;
    }
    let interval = match (per_second, per_minute) {
        (None, None) => None,
        (Some(rate), None) => Some(interval(place, "per_second", *rate, 1.0)?),
        (None, Some(rate)) => Some(interval(place, "per_minute", *rate, 60.0)?),
        (Some(_), Some(_)) => {
            bail!("{place}: per_second and per_minute say the same thing; give one of them")
        }
    };
    if interval.is_some() {
        lane.limits.submit_interval = interval;
        lane.submit_interval_from = Origin::Lanes;
    }
    if let Some(budget) = daily_budget {
        let currency = currency.with_context(|| {
            format!("{place}: daily_budget needs a price to count, and no model on this lane costs anything")
        })?;
        let budget = money(place, "daily_budget", budget, currency)?;
        ensure!(budget.micros > 0, "{place}: daily_budget must be more than 0");
        lane.limits.daily_budget = Some(budget);
    }
    Ok(())
}

/// Bounded by the database's clock in milliseconds and by a day; rounded up to a millisecond, or the rate
/// would be exceeded.
fn interval(place: &str, field: &str, rate: f64, seconds: f64) -> Result<Duration> {
    ensure!(rate > 0.0, "{place}: {field} must be more than 0");
    let interval = Duration::try_from_secs_f64(seconds / rate).unwrap_or(Duration::MAX);
    let fits = (Duration::from_millis(1)..=Duration::from_hours(24)).contains(&interval);
    ensure!(fits, "{place}: {field} must be between one submit a day and 1000 a second, not {rate}");
    // Nanoseconds, so that a third of a second is not rounded up to more.
    let millis = interval.as_nanos().div_ceil(1_000_000);
    Ok(Duration::from_millis(u64::try_from(millis)?))
}

#[cfg(test)]
mod tests;
