//! Admission: whether a lane lets a call be sent. What a lane is and what it answers, and the decision itself: a pure function
//! of a lane's row, so that it can be read and tested as a table. `lanes` reads the row and writes what follows.

use std::time::Duration;

use serde::Serialize;

use super::{Money, StoreError};

/// What a lane may do, over all replicas.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LanePolicy {
    /// Calls sent and not over.
    pub max_in_flight: Option<u32>,
    /// At least this long between two submits.
    pub submit_interval: Option<Duration>,
    /// Most that may be spent in one UTC day.
    pub daily_budget: Option<Money>,
    /// Whether nothing is sent while it is not known of another call what became of its submit.
    pub one_unresolved: bool,
}

/// A lane's answer to a call that wants to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// The call is committed as `submitting`, and its price as spent: send it now.
    Admitted(Pass),
    /// As many calls are in flight as may be.
    Full,
    /// The next submit is due after this.
    NotBefore(Duration),
    /// It takes no calls at the moment.
    Closed(Closure),
    /// The call is somebody else's now: do not send.
    LostLease,
    /// Nobody waits for it any more: it is closed, and not sent.
    Unwanted,
}

/// What an admitted call should know of its lane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pass {
    /// The lane is blocked, and this call finds out whether it still is.
    pub probe: bool,
    /// How often in a row the provider had asked to slow down.
    pub throttles: u32,
    /// How many calls have found out whether the lane still is, this one included; 0 where it is open.
    pub probes: u32,
    /// How many submits in a row were not answered before this one.
    pub unanswered: u32,
}

/// Why a lane takes no calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Closure {
    /// In kind.
    pub by: ClosedBy,
    /// The provider's code, `budget_spent` or `paused`.
    pub code: String,
    /// For people.
    pub message: String,
    /// When a call may try again; none: when a person says so.
    #[serde(skip)]
    pub probe_in: Option<Duration>,
}

/// What closed a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ClosedBy {
    /// The provider, when a call was sent.
    Submit,
    /// The provider, when an accepted call was asked after.
    Poll,
    /// The daily budget.
    Budget,
    /// A result of the provider that is on a host which is not allowed: the next ones would be there too.
    Fetch,
    /// A person.
    Pause,
}

impl ClosedBy {
    /// The word in the table.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Submit => "submit",
            Self::Poll => "poll",
            Self::Budget => "budget",
            Self::Fetch => "fetch",
            Self::Pause => "pause",
        }
    }

    pub(super) fn parse(text: &str) -> Result<Self, StoreError> {
        let all = [Self::Submit, Self::Poll, Self::Budget, Self::Fetch, Self::Pause];
        let found = all.into_iter().find(|by| by.as_str() == text);
        found.ok_or_else(|| StoreError::Corrupt(format!("unknown reason of a closed lane {text:?}")))
    }
}

/// A lane as `retouch lanes` and health show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneView {
    /// Its name.
    pub name: String,
    /// Its limits.
    pub policy: LanePolicy,
    /// Why it takes no calls, if it takes none.
    pub closed: Option<Closure>,
    /// Until the next submit may be made, because the provider asked to slow down.
    pub throttled_for: Option<Duration>,
    /// Spent on this UTC day, what is under way included.
    pub spent_micros: i64,
    /// Of the spending.
    pub currency: Option<String>,
    /// Calls that wait to be sent.
    pub queued: u64,
    /// Calls that are sent and not over.
    pub in_flight: u64,
    /// How long the longest of the queued ones has been waiting.
    pub oldest: Option<Duration>,
    /// Paid results that cannot be fetched now.
    pub unfetched: Option<Unfetched>,
    /// Calls in flight of which the provider cannot say what became: they hold their places.
    pub stuck: u64,
    /// What is said of one of them.
    pub stuck_why: Option<String>,
}

/// Paid results of a lane that cannot be fetched now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unfetched {
    /// How many.
    pub calls: u64,
    /// Where the last of them is; never its whole address, which may be signed.
    pub host: String,
    /// Why it cannot be fetched, and what to set where a setting is why.
    pub error: String,
}

impl Unfetched {
    /// The setting that lets results be on a private address.
    pub const ALLOW_HOSTS: &str = "RETOUCH_ALLOW_HOSTS";
    /// Settings that an error of a fetch names.
    const SETTINGS: [&str; 3] = [Self::ALLOW_HOSTS, "RETOUCH_RESULT_MAX_MIB", "result_hosts"];

    /// The setting that decides it, where one does.
    #[must_use]
    pub fn setting(&self) -> Option<&'static str> {
        Self::SETTINGS.into_iter().find(|setting| self.error.contains(setting))
    }

    /// Why it cannot be fetched, without the advice that follows where a setting decides it.
    #[must_use]
    pub fn why(&self) -> &str {
        let advice = self.setting().and_then(|_| self.error.rsplit_once("; "));
        advice.map_or(&self.error, |(why, _advice)| why)
    }

    /// For people.
    #[must_use]
    pub fn notice(&self) -> String {
        let Self { calls, host, error } = self;
        let results = if *calls == 1 { "paid result" } else { "paid results" };
        format!("{calls} {results} on {host} cannot be fetched now: {error}")
    }
}

impl LaneView {
    /// How it stands, in a word or two.
    #[must_use]
    pub fn state(&self) -> &'static str {
        match self.closed.as_ref().map(|closure| closure.by) {
            None if self.throttled_for.is_some() => "slowed down",
            None => "open",
            Some(ClosedBy::Submit | ClosedBy::Poll | ClosedBy::Fetch) => "blocked",
            Some(ClosedBy::Budget) => "budget spent",
            Some(ClosedBy::Pause) => "paused",
        }
    }

    /// Whether it is blocked, and the next call finds out whether it still is.
    #[must_use]
    pub fn may_try(&self) -> bool {
        let by_provider = |closure: &Closure| matches!(closure.by, ClosedBy::Submit | ClosedBy::Poll);
        self.closed.as_ref().is_some_and(|closure| by_provider(closure) && closure.probe_in.is_none())
    }

    /// Whether as many calls are in flight as may be.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.policy.max_in_flight.is_some_and(|most| self.in_flight >= u64::from(most))
    }

    /// Why it takes no calls, or what holds its places, for people.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        let closed = self.closed.as_ref().map(|closure| match closure.by {
            ClosedBy::Submit | ClosedBy::Poll | ClosedBy::Fetch => {
                format!("{}: {}", closure.code, closure.message)
            }
            ClosedBy::Budget | ClosedBy::Pause => closure.message.clone(),
        });
        closed.or_else(|| self.stuck())
    }

    /// What holds its places without getting on.
    fn stuck(&self) -> Option<String> {
        let why = self.stuck_why.as_ref().filter(|_| self.stuck > 0)?;
        let places = match self.policy.max_in_flight {
            Some(most) => format!("{} of {most} places hold", self.stuck),
            None if self.stuck == 1 => "1 place holds".to_owned(),
            None => format!("{} places hold", self.stuck),
        };
        Some(format!("{places} calls of which the provider cannot say what became: {why}"))
    }
}

/// A lane's row, as the decision needs it; times relative to the database's now.
#[derive(Debug, Clone, Default)]
pub(super) struct LaneRow {
    pub(super) policy: LanePolicy,
    pub(super) next_submit_in: Option<Duration>,
    pub(super) throttles: u32,
    pub(super) probes: u32,
    pub(super) unanswered: u32,
    pub(super) spent_micros: i64,
    pub(super) blocked: Option<Closure>,
    pub(super) paused: bool,
    pub(super) midnight_in: Duration,
}

/// What becomes of a call that wants to be sent, and of its lane.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Admit(Pass),
    Full,
    NotBefore(Duration),
    Closed(Closure),
}

/// Pure, so that it can be read and tested as a table.
pub(super) fn decide(lane: &LaneRow, in_flight: u64, unresolved: u64, price: &Money) -> Decision {
    if lane.paused {
        return Decision::Closed(paused());
    }
    if let Some(closure) = budget_spent(lane, price) {
        return Decision::Closed(closure);
    }
    // A budget that is there again needs no probe.
    let blocked = lane.blocked.as_ref().filter(|closure| closure.by != ClosedBy::Budget);
    let probe = match blocked {
        // A paid call shows nothing: a result that can be fetched opens it.
        Some(closure) if closure.by == ClosedBy::Fetch => return Decision::Closed(closure.clone()),
        Some(closure) if closure.probe_in.is_some() => return Decision::Closed(closure.clone()),
        Some(_) => true,
        None => false,
    };
    if let Some(after) = lane.next_submit_in {
        return Decision::NotBefore(after);
    }
    // No probe either: what is asked for then, the provider's list, is how such a lane finds out that it is open again.
    if lane.policy.one_unresolved && unresolved > 0 {
        return Decision::Full;
    }
    // What hangs in a blocked lane must not keep it from finding out that it is open again.
    let full = lane.policy.max_in_flight.is_some_and(|most| in_flight >= u64::from(most));
    if full && !probe {
        return Decision::Full;
    }
    // Of a lane that was never blocked, or is open again, nothing is left to count on.
    let probes = if probe { lane.probes + 1 } else { 0 };
    Decision::Admit(Pass { probe, throttles: lane.throttles, probes, unanswered: lane.unanswered })
}

pub(super) fn paused() -> Closure {
    Closure {
        by: ClosedBy::Pause,
        code: "paused".to_owned(),
        message: "paused by a person; `retouch lanes resume NAME` lets it go on".to_owned(),
        probe_in: None,
    }
}

fn budget_spent(lane: &LaneRow, price: &Money) -> Option<Closure> {
    use retouch_shared::event::decimal;
    let budget = lane.policy.daily_budget.as_ref()?;
    let after = lane.spent_micros.saturating_add(price.micros);
    (price.micros > 0 && after > budget.micros).then(|| Closure {
        by: ClosedBy::Budget,
        code: "budget_spent".to_owned(),
        message: format!(
            "{} of the daily budget of {} {} are spent, and a call costs {}; it goes on at midnight UTC, or with a higher daily_budget",
            decimal(lane.spent_micros),
            decimal(budget.micros),
            budget.currency,
            decimal(price.micros)
        ),
        probe_in: Some(lane.midnight_in),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRICE: i64 = 140_000;

    fn price() -> Money {
        Money { micros: PRICE, currency: "CNY".to_owned() }
    }

    fn closure(by: ClosedBy, probe_in: Option<u64>) -> Closure {
        let probe_in = probe_in.map(Duration::from_secs);
        Closure { by, code: "InvalidApiKey".to_owned(), message: "no".to_owned(), probe_in }
    }

    fn budgeted(images: i64, spent: i64) -> LaneRow {
        let budget = Money { micros: images * PRICE, currency: "CNY".to_owned() };
        let policy = LanePolicy { daily_budget: Some(budget), ..LanePolicy::default() };
        let midnight_in = Duration::from_secs(60);
        LaneRow { policy, spent_micros: spent * PRICE, midnight_in, ..LaneRow::default() }
    }

    fn word(decision: &Decision) -> &'static str {
        match decision {
            Decision::Admit(Pass { probe: false, .. }) => "admit",
            Decision::Admit(Pass { probe: true, .. }) => "probe",
            Decision::Full => "full",
            Decision::NotBefore(_) => "not before",
            Decision::Closed(closure) => match closure.by {
                ClosedBy::Pause => "paused",
                ClosedBy::Budget => "budget",
                ClosedBy::Submit | ClosedBy::Poll | ClosedBy::Fetch => "blocked",
            },
        }
    }

    #[test]
    fn a_lane_decides_by_pause_then_budget_then_block_then_pace_then_places() {
        let second = Some(Duration::from_secs(1));
        let two = LanePolicy { max_in_flight: Some(2), ..LanePolicy::default() };
        let open = LaneRow::default();
        let blocked = |by, probe_in| LaneRow {
            blocked: Some(closure(by, probe_in)),
            policy: two.clone(),
            ..LaneRow::default()
        };
        let table = [
            ("no limits", open.clone(), 1000, "admit"),
            ("paused", LaneRow { paused: true, ..budgeted(1, 1) }, 0, "paused"),
            ("the last image of the budget", budgeted(10, 9), 0, "admit"),
            ("the eleventh of ten", budgeted(10, 10), 0, "budget"),
            ("a budget below one image", budgeted(0, 0), 0, "budget"),
            (
                "a new day",
                LaneRow { blocked: Some(closure(ClosedBy::Budget, Some(9))), ..budgeted(10, 0) },
                0,
                "admit",
            ),
            ("blocked", blocked(ClosedBy::Submit, Some(9)), 0, "blocked"),
            ("blocked, the probe is due", blocked(ClosedBy::Submit, None), 0, "probe"),
            ("no probe where results cannot be fetched", blocked(ClosedBy::Fetch, None), 0, "blocked"),
            ("a probe although it is full", blocked(ClosedBy::Poll, None), 2, "probe"),
            ("too soon", LaneRow { next_submit_in: second, ..open.clone() }, 0, "not before"),
            ("room", LaneRow { policy: two.clone(), ..open.clone() }, 1, "admit"),
            ("full", LaneRow { policy: two.clone(), ..open }, 2, "full"),
        ];
        for (what, lane, in_flight, expected) in table {
            assert_eq!(word(&decide(&lane, in_flight, 1, &price())), expected, "{what}");
        }
    }

    #[test]
    fn where_one_may_be_unresolved_nothing_is_sent_beside_it_and_no_probe_either() {
        let one = LanePolicy { one_unresolved: true, max_in_flight: Some(9), ..LanePolicy::default() };
        let open = LaneRow { policy: one, ..LaneRow::default() };
        let probing = LaneRow { blocked: Some(closure(ClosedBy::Submit, None)), ..open.clone() };
        for (lane, unresolved, expected) in
            [(&open, 0, "admit"), (&open, 1, "full"), (&probing, 0, "probe"), (&probing, 1, "full")]
        {
            assert_eq!(word(&decide(lane, 3, unresolved, &price())), expected, "{lane:?}");
        }
    }

    #[test]
    fn what_costs_nothing_goes_on_when_the_budget_is_spent() {
        let free = Money { micros: 0, currency: "CNY".to_owned() };
        assert_eq!(word(&decide(&budgeted(1, 1), 0, 0, &free)), "admit");
    }

    #[test]
    fn a_spent_budget_says_how_much_and_when_it_goes_on() {
        let Decision::Closed(closure) = decide(&budgeted(10, 10), 0, 0, &price()) else { panic!() };
        for part in ["1.4 ", "CNY", "0.14", "midnight UTC", "daily_budget"] {
            assert!(closure.message.contains(part), "{part}: {}", closure.message);
        }
        assert_eq!(closure.probe_in, Some(Duration::from_secs(60)));
    }
}
