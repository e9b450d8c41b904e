//! Lanes: whether a call may be sent now, over all replicas. Limits, spending and blocks are columns of one row, and every
//! decision is taken under its lock (after the call's), so two replicas never both take the last place.

use std::time::Duration;

use retouch_shared::key::EditKey;
use serde::Serialize;

use super::calls::millis;
use super::db::{Row, Tx, vals};
use super::types::{ascii, clip};
use super::{CallState, ClaimedCall, Lease, Money, StepError, Store, StoreError, again};
use crate::failpoint::around;

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
}

/// What an admitted call should know of its lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pass {
    /// The lane is blocked, and this call finds out whether it still is.
    pub probe: bool,
    /// How often in a row the provider had asked to slow down.
    pub throttles: u32,
    /// How often in a row a call found the lane blocked.
    pub probes: u32,
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
    /// A person.
    Pause,
}

impl ClosedBy {
    /// The word in the table.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Submit => "submit",
            Self::Poll => "poll",
            Self::Budget => "budget",
            Self::Pause => "pause",
        }
    }

    fn parse(text: &str) -> Result<Self, StoreError> {
        let all = [Self::Submit, Self::Poll, Self::Budget, Self::Pause];
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
}

/// How long one prober has until another may try: longer than any call takes to be answered.
const PROBE_HOLD: Duration = Duration::from_secs(10 * 60);

/// A lane's row, as the decision needs it; times relative to the database's now.
#[derive(Debug, Clone, Default)]
struct LaneRow {
    policy: LanePolicy,
    next_submit_in: Option<Duration>,
    throttles: u32,
    probes: u32,
    spent_micros: i64,
    blocked: Option<Closure>,
    paused: bool,
    midnight_in: Duration,
}

/// What becomes of a call that wants to be sent, and of its lane.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    Admit(Pass),
    Full,
    NotBefore(Duration),
    Closed(Closure),
}

/// Pure, so that it can be read and tested as a table.
fn decide(lane: &LaneRow, in_flight: u64, unresolved: u64, price: &Money) -> Decision {
    if lane.paused {
        return Decision::Closed(paused());
    }
    if let Some(closure) = budget_spent(lane, price) {
        return Decision::Closed(closure);
    }
    // A budget that is there again needs no probe.
    let blocked = lane.blocked.as_ref().filter(|closure| closure.by != ClosedBy::Budget);
    let probe = match blocked {
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
    Decision::Admit(Pass { probe, throttles: lane.throttles, probes: lane.probes })
}

fn paused() -> Closure {
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

impl Store {
    /// Makes a lane known, with its limits over all replicas; the last word counts. A blocked one may be tried at once: whoever
    /// starts a worker has perhaps mended the key.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn declare_lane(&self, name: &str, policy: &LanePolicy) -> Result<(), StoreError> {
        let budget = policy.daily_budget.as_ref();
        again!(async {
            let mut connection = self.db.plain().await?;
            let values = vals![
                name,
                policy.max_in_flight.map(i64::from),
                policy.submit_interval.map(millis),
                budget.map(|budget| budget.micros),
                budget.map(|budget| budget.currency.as_str()),
                i64::from(policy.one_unresolved),
            ];
            connection.run(self.db.sql().declare_lane, values).await?;
            Ok(())
        })
    }

    /// claimed → submitting, if the lane lets it: from here on, no answer means ambiguous. `price` is what the call costs
    /// now; it is written on the call and counted as spent.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn begin_submit(&self, lease: Lease, price: &Money) -> Result<Admission, StoreError> {
        around("begin_submit", async { again!(self.try_begin(lease, price)) }).await
    }

    async fn try_begin(&self, lease: Lease, price: &Money) -> Result<Admission, StepError> {
        let sql = self.db.sql();
        let mut tx = self.db.begin().await?;
        let Some(call) = self.locked_call(&mut *tx, lease).await? else {
            return Ok(Admission::LostLease);
        };
        if call.state != CallState::Claimed {
            return Ok(Admission::LostLease);
        }
        let name = &call.spec.lane;
        let pass = match tx.rows(sql.lock_lane, vals![name]).await?.pop() {
            // Not declared: no limits.
            None => Pass { probe: false, throttles: 0, probes: 0 },
            Some(row) => {
                let lane = lane_row(&row)?;
                let in_flight = match lane.policy.max_in_flight {
                    Some(_) => self.in_flight(&mut *tx, name).await?,
                    None => 0,
                };
                let unresolved = match lane.policy.one_unresolved {
                    true => self.unresolved(&mut *tx, name, lease.edit_key).await?,
                    false => 0,
                };
                match decide(&lane, in_flight, unresolved, price) {
                    Decision::Admit(pass) => {
                        self.take_place(&mut *tx, name, &lane, price, pass).await?;
                        pass
                    }
                    Decision::Full => return Ok(Admission::Full),
                    Decision::NotBefore(after) => return Ok(Admission::NotBefore(after)),
                    Decision::Closed(closure) => {
                        if closure.by == ClosedBy::Budget {
                            self.write_block(&mut *tx, name, &closure).await?;
                            tx.commit().await?;
                        }
                        return Ok(Admission::Closed(closure));
                    }
                }
            }
        };
        let values = vals![price.micros, &price.currency, lease.edit_key.as_bytes(), lease.fence];
        if tx.run(sql.begin_submit, values).await? == 0 {
            return Ok(Admission::LostLease);
        }
        tx.commit().await?;
        Ok(Admission::Admitted(pass))
    }

    async fn in_flight(&self, tx: &mut dyn Tx, lane: &str) -> Result<u64, StepError> {
        let rows = tx.rows(self.db.sql().lane_in_flight, vals![lane]).await?;
        let count = rows.first().map_or(Ok(0), |row| row.int(0))?;
        Ok(u64::try_from(count).unwrap_or_default())
    }

    /// The other calls of a lane of which nobody knows yet what became of their submit, whoever owns them.
    pub(super) async fn unresolved(
        &self,
        tx: &mut dyn Tx,
        lane: &str,
        but: EditKey,
    ) -> Result<u64, StepError> {
        let rows = tx.rows(self.db.sql().lane_unresolved, vals![lane, but.as_bytes()]).await?;
        let count = rows.first().map_or(Ok(0), |row| row.int(0))?;
        Ok(u64::try_from(count).unwrap_or_default())
    }

    async fn take_place(
        &self,
        tx: &mut dyn Tx,
        name: &str,
        lane: &LaneRow,
        price: &Money,
        pass: Pass,
    ) -> Result<(), StepError> {
        // Two submits can come nearer to each other on their way; the provider counts where they arrive.
        let interval = lane.policy.submit_interval.map(|interval| millis(interval + interval / 50));
        let reopened = lane.blocked.as_ref().is_some_and(|closure| closure.by == ClosedBy::Budget);
        let values = vals![
            price.micros,
            &price.currency,
            interval,
            i64::from(pass.probe),
            millis(PROBE_HOLD),
            i64::from(reopened),
            name
        ];
        tx.run(self.db.sql().take_place, values).await?;
        Ok(())
    }

    /// submitting or ambiguous → claimed: certainly not taken by the provider, so nothing is spent. The lease stays.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn retract_submit(&self, lease: Lease) -> Result<bool, StoreError> {
        around("retract_submit", async { again!(self.try_retract(lease)) }).await
    }

    async fn try_retract(&self, lease: Lease) -> Result<bool, StepError> {
        let mut tx = self.db.begin().await?;
        let Some(call) = self.locked_call(&mut *tx, lease).await? else { return Ok(false) };
        if !matches!(call.state, CallState::Submitting | CallState::Ambiguous) {
            return Ok(false);
        }
        self.refund(&mut *tx, &call).await?;
        let values = vals![lease.edit_key.as_bytes(), lease.fence];
        tx.run(self.db.sql().retract_submit, values).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// A call that was sent is not charged: its price goes back to the lane's budget, if it is still the same day, and it was
    /// no paid call.
    pub(super) async fn refund(&self, tx: &mut dyn Tx, call: &ClaimedCall) -> Result<(), StepError> {
        let (sql, key) = (self.db.sql(), call.lease.edit_key);
        tx.run(sql.refund, vals![call.spec.price.micros, &call.spec.lane, key.as_bytes()]).await?;
        if call.state == CallState::Submitted {
            tx.run(sql.uncount_paid, vals![key.as_bytes(), call.lease.fence]).await?;
        }
        Ok(())
    }

    /// The provider asked to slow down: no replica submits on this lane for `pause`.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn throttle_lane(&self, name: &str, pause: Duration) -> Result<(), StoreError> {
        again!(async {
            let mut connection = self.db.plain().await?;
            connection.run(self.db.sql().throttle_lane, vals![millis(pause), name]).await?;
            Ok(())
        })
    }

    /// The lane takes no calls until one that is let through after `closure.probe_in` works.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn block_lane(&self, name: &str, closure: &Closure) -> Result<(), StoreError> {
        again!(async {
            let mut connection = self.db.plain().await?;
            self.write_block(&mut *connection, name, closure).await
        })
    }

    async fn write_block(&self, tx: &mut dyn Tx, name: &str, closure: &Closure) -> Result<(), StepError> {
        let code = ascii(&closure.code, 64);
        let values =
            vals![closure.by.as_str(), &code, clip(&closure.message), closure.probe_in.map(millis), name];
        tx.run(self.db.sql().block_lane, values).await?;
        Ok(())
    }

    /// The provider works again: open, and no longer slowed down. `by_poll`: only an answer to a poll says so, which proves
    /// nothing for a lane that was blocked at a submit.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn reopen_lane(&self, name: &str, by_poll: bool) -> Result<bool, StoreError> {
        again!(async {
            let mut connection = self.db.plain().await?;
            Ok(connection.run(self.db.sql().reopen_lane, vals![name, i64::from(by_poll)]).await? > 0)
        })
    }

    /// Stops a lane until [`Store::resume_lane`]. `false`: there is no such lane.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn pause_lane(&self, name: &str) -> Result<bool, StoreError> {
        self.switch_lane(self.db.sql().pause_lane, name).await
    }

    /// Ends a pause, and lets a blocked lane try again at once. `false`: there is no such lane.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn resume_lane(&self, name: &str) -> Result<bool, StoreError> {
        self.switch_lane(self.db.sql().resume_lane, name).await
    }

    async fn switch_lane(&self, sql: &'static str, name: &str) -> Result<bool, StoreError> {
        again!(async {
            let mut connection = self.db.plain().await?;
            Ok(connection.run(sql, vals![name]).await? > 0)
        })
    }

    /// Every lane as it stands, by name.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn lanes(&self) -> Result<Vec<LaneView>, StoreError> {
        let mut connection = self.db.plain().await?;
        let rows = connection.rows(self.db.sql().lanes, vals![]).await?;
        rows.iter().map(lane_view).collect()
    }
}

/// Milliseconds from now; none where it is past or not set.
fn ahead(row: &Row, column: usize) -> Result<Option<Duration>, StoreError> {
    let millis = row.opt_int(column)?.and_then(|millis| u64::try_from(millis).ok());
    Ok(millis.filter(|millis| *millis > 0).map(Duration::from_millis))
}

fn count(row: &Row, column: usize) -> Result<u64, StoreError> {
    Ok(u64::try_from(row.int(column)?).unwrap_or_default())
}

/// The columns that `lock_lane` and `lanes` have in common.
fn lane_row(row: &Row) -> Result<LaneRow, StoreError> {
    let budget = match (row.opt_int(2)?, row.opt_text(3)?) {
        (Some(micros), Some(currency)) => Some(Money { micros, currency }),
        _ => None,
    };
    let millis =
        |column| Ok::<_, StoreError>(row.opt_int(column)?.and_then(|millis| u64::try_from(millis).ok()));
    let blocked = match row.opt_text(7)? {
        None => None,
        Some(by) => Some(Closure {
            by: ClosedBy::parse(&by)?,
            code: row.opt_text(8)?.unwrap_or_default(),
            message: row.opt_text(9)?.unwrap_or_default(),
            probe_in: ahead(row, 10)?,
        }),
    };
    Ok(LaneRow {
        policy: LanePolicy {
            max_in_flight: row.opt_int(0)?.map(|most| u32::try_from(most).unwrap_or_default()),
            submit_interval: millis(1)?.map(Duration::from_millis),
            daily_budget: budget,
            one_unresolved: row.int(14)? != 0,
        },
        spent_micros: row.int(4)?,
        next_submit_in: ahead(row, 5)?,
        throttles: u32::try_from(row.int(6)?).unwrap_or_default(),
        blocked,
        paused: row.int(11)? != 0,
        midnight_in: Duration::from_millis(count(row, 12)?),
        probes: u32::try_from(row.int(13)?).unwrap_or_default(),
    })
}

fn lane_view(row: &Row) -> Result<LaneView, StoreError> {
    let lane = lane_row(row)?;
    let throttled = lane.throttles > 0;
    // A budget that is there again closes nothing, though no call has noticed yet.
    let blocked =
        lane.blocked.clone().filter(|closure| closure.by != ClosedBy::Budget || closure.probe_in.is_some());
    Ok(LaneView {
        closed: if lane.paused { Some(paused()) } else { blocked },
        throttled_for: lane.next_submit_in.filter(|_| throttled),
        policy: lane.policy,
        spent_micros: lane.spent_micros,
        name: row.text(15)?,
        currency: row.opt_text(3)?,
        queued: count(row, 16)?,
        in_flight: count(row, 17)?,
        oldest: row
            .opt_int(18)?
            .map(|millis| Duration::from_millis(u64::try_from(millis).unwrap_or_default())),
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
                ClosedBy::Submit | ClosedBy::Poll => "blocked",
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
