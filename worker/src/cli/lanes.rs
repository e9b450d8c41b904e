//! `retouch lanes`: what each provider account and model may do, what it is doing, and why it is not.

use std::time::Duration;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use comfy_table::Table;
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use retouch_shared::event::decimal;
use serde::Serialize;

use super::say::say;
use super::{Ending, Failure};
use crate::app::open_store;
use crate::config::Settings;
use crate::store::{LaneView, Spending, Store, Unfetched};
use crate::words::left;

/// Show the lanes, or stop and start one
///
/// A lane is one provider account and model, with its limits over all replicas. A lane that is blocked keeps its edits
/// queued, tries again now and then, and goes on by itself; `resume` lets it try at once.
///
/// Example: retouch lanes pause dashscope.wanx2.1-imageedit
#[derive(Debug, Args)]
pub(super) struct Lanes {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show them (the default)
    ///
    /// Example: retouch lanes list --json
    List,
    /// Stop a lane: no replica sends a call on it until it is resumed; what is under way is finished
    ///
    /// Example: retouch lanes pause dashscope.wanx2.1-imageedit
    Pause {
        /// The lane's name
        name: String,
    },
    /// End a pause, and let a blocked lane try again at once
    ///
    /// Example: retouch lanes resume dashscope.wanx2.1-imageedit
    Resume {
        /// The lane's name
        name: String,
    },
}

/// A lane in `--json`. Money is decimal text, times are in milliseconds.
#[derive(Debug, Serialize)]
struct Shown {
    name: String,
    state: &'static str,
    #[serde(skip)]
    may_try: bool,
    code: Option<String>,
    message: Option<String>,
    /// Until the next call finds out whether the lane still is blocked; 0: it may try now.
    probe_in_ms: Option<u64>,
    throttled_for_ms: Option<u64>,
    queued: u64,
    in_flight: u64,
    unfetched: Option<ShownUnfetched>,
    oldest_ms: Option<u64>,
    stuck: u64,
    max_in_flight: Option<u32>,
    submit_interval_ms: Option<u64>,
    daily_budget: Option<String>,
    spent_today: String,
    /// Of what ended today, and bought nothing; with what was perhaps charged.
    lost_today: String,
    currency: Option<String>,
}

/// Paid results that cannot be fetched now.
#[derive(Debug, Serialize)]
struct ShownUnfetched {
    #[serde(flatten)]
    unfetched: Unfetched,
    setting: Option<&'static str>,
}

impl Lanes {
    pub(super) async fn run(self, settings: &Settings, json: bool) -> Result<Ending, Failure> {
        let store = open_store(settings).await.map_err(Failure::Unreachable)?;
        let done = self.act(&store).await;
        let lanes = store.lanes().await.map_err(Failure::unreachable);
        let today = store.spending(1).await.map_err(Failure::unreachable);
        store.close().await;
        done?;
        print(&lanes?, &today?, json);
        Ok(Ending::Done)
    }

    async fn act(&self, store: &Store) -> Result<(), Failure> {
        let (found, name) = match &self.what {
            None | Some(What::List) => return Ok(()),
            Some(What::Pause { name }) => (store.pause_lane(name).await, name),
            Some(What::Resume { name }) => (store.resume_lane(name).await, name),
        };
        if found.map_err(Failure::unreachable)? {
            return Ok(());
        }
        let lanes = store.lanes().await.map_err(Failure::unreachable)?;
        let known: Vec<_> = lanes.into_iter().map(|lane| lane.name).collect();
        let known = if known.is_empty() {
            "there is none yet: a worker makes its lanes known when it starts".to_owned()
        } else {
            format!("there are {}", known.join(", "))
        };
        Err(Failure::Usage(anyhow!("no lane {name:?}; {known}")))
    }
}

fn print(lanes: &[LaneView], today: &[Spending], json: bool) {
    let shown: Vec<Shown> = lanes.iter().map(|lane| Shown::of(lane, today)).collect();
    if json {
        // Plain data always serialises.
        say(serde_json::to_string_pretty(&shown).unwrap_or_default());
        return;
    }
    if shown.is_empty() {
        say("no lanes yet: a worker makes its lanes known when it starts");
        return;
    }
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY);
    table.set_header([
        "lane",
        "state",
        "queued",
        "in flight",
        "at most",
        "submits",
        "spent today",
        "for nothing",
        "daily budget",
    ]);
    for lane in &shown {
        table.add_row(lane.cells());
    }
    say(table);
    for lane in &shown {
        if let Some(message) = &lane.message {
            say(if lane.may_try {
                format!(
                    "{} may try now: the next edit finds out whether it works; it was blocked: {message}",
                    lane.name
                )
            } else {
                let how = if lane.state == "budget spent" { "out of budget" } else { lane.state };
                format!("{} is {how}: {message}{}", lane.name, lane.next_try())
            });
        }
        if let Some(shown) = &lane.unfetched {
            say(format!("{}: {}", lane.name, shown.unfetched.notice()));
        }
    }
}

impl Shown {
    fn of(lane: &LaneView, today: &[Spending]) -> Self {
        let (state, message, may_try) = (lane.state(), lane.reason(), lane.may_try());
        let LaneView {
            name,
            policy,
            closed,
            throttled_for,
            spent_micros,
            currency,
            queued,
            in_flight,
            oldest,
            unfetched,
            stuck,
            stuck_why: _,
        } = lane.clone();
        let lost = today.iter().filter(|spent| spent.lane == name && !spent.bought());
        let lost = lost.map(|spent| spent.micros).sum();
        Self {
            name,
            state,
            may_try,
            code: closed.as_ref().map(|closure| closure.code.clone()),
            message,
            probe_in_ms: if may_try {
                Some(0)
            } else {
                closed.and_then(|closure| closure.probe_in).map(millis)
            },
            throttled_for_ms: throttled_for.map(millis),
            queued,
            in_flight,
            unfetched: unfetched.map(|unfetched| ShownUnfetched { setting: unfetched.setting(), unfetched }),
            oldest_ms: oldest.map(millis),
            stuck,
            max_in_flight: policy.max_in_flight,
            submit_interval_ms: policy.submit_interval.map(millis),
            daily_budget: policy.daily_budget.map(|budget| decimal(budget.micros)),
            spent_today: decimal(spent_micros),
            lost_today: decimal(lost),
            currency,
        }
    }

    fn cells(&self) -> [String; 9] {
        let none = || "–".to_owned();
        let money = |amount: &str| match &self.currency {
            Some(currency) => format!("{amount} {currency}"),
            None => amount.to_owned(),
        };
        [
            self.name.clone(),
            if self.may_try { "may try now".to_owned() } else { self.state.to_owned() },
            self.queued.to_string(),
            self.in_flight.to_string(),
            self.max_in_flight.map_or_else(none, |most| most.to_string()),
            self.submit_interval_ms.map_or_else(none, pace),
            money(&self.spent_today),
            if self.lost_today == "0" { none() } else { money(&self.lost_today) },
            self.daily_budget.as_deref().map_or_else(none, money),
        ]
    }

    fn next_try(&self) -> String {
        let left = |millis| left(Duration::from_millis(millis));
        self.probe_in_ms.map_or_else(String::new, |millis| format!(" (next try in {})", left(millis)))
    }
}

/// Submits as people speak of them: so many a second or a minute.
pub(super) fn pace(interval_ms: u64) -> String {
    // Only for the eye; limits are counted in whole milliseconds.
    #[expect(clippy::cast_precision_loss, reason = "an interval is far below 2^52 milliseconds")]
    let per_second = 1000.0 / interval_ms.max(1) as f64;
    if per_second >= 1.0 {
        return format!("{}/s", (per_second * 10.0).round() / 10.0);
    }
    format!("{}/min", (per_second * 6000.0).round() / 100.0)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_reads_as_people_say_it() {
        for (interval, text) in [
            (500, "2/s"),
            (200, "5/s"),
            (30_000, "2/min"),
            (1000, "1/s"),
            (334, "3/s"),
            (17, "58.8/s"),
            (1_500_000, "0.04/min"),
        ] {
            assert_eq!(pace(interval), text);
        }
    }
}
