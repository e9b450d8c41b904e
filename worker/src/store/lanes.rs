//! Lanes: whether a call may be sent now, over all replicas. Limits, spending and blocks are columns of one row, and every
//! decision is taken under its lock (after the call's), so two replicas never both take the last place.

use std::time::Duration;

use retouch_shared::key::EditKey;

use super::admission::{
    Admission, ClosedBy, Closure, Decision, LanePolicy, LaneRow, LaneView, Pass, Unfetched, decide, paused,
};
use super::calls::millis;
use super::db::{Row, Tx, vals};
use super::types::{ascii, clip};
use super::{CallState, ClaimedCall, Lease, Money, StepError, Store, StoreError, again};
use crate::failpoint::around;

/// Submits in a row without an answer after which a lane is blocked.
pub const UNANSWERED_SUBMITS: u32 = 3;
/// The code of a lane that is blocked for that; the statements name it too.
pub const UNANSWERED: &str = "unanswered";
/// How the error of a call begins of which its provider cannot say what became; the statements name it too.
pub(super) const STUCK: &str = "the provider cannot say what became of it: ";
/// How long one prober has until another may try: longer than any call takes to be answered.
const PROBE_HOLD: Duration = Duration::from_secs(10 * 60);

impl Store {
    /// Makes a lane known, with its limits over all replicas; the last word counts. A blocked one may be tried at once: whoever
    /// starts a worker has perhaps mended the key. Results that could not be fetched are due at once for the
    /// same reason.
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
            connection.run(self.db.sql().wake_unfetched, vals![name]).await?;
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
        if !self.is_waited_for(&mut *tx, lease.edit_key).await? {
            self.close_unwanted(&mut *tx, lease.edit_key).await?;
            tx.commit().await?;
            return Ok(Admission::Unwanted);
        }
        let name = &call.spec.lane;
        let pass = match tx.rows(sql.lock_lane, vals![name]).await?.pop() {
            // Not declared: no limits.
            None => Pass::default(),
            Some(row) => {
                let mut lane = lane_row(&row)?;
                let unfetched = lane.blocked.as_ref().is_some_and(|closure| closure.by == ClosedBy::Fetch);
                // Nothing is left that it was blocked for.
                if unfetched && self.count_in(&mut *tx, sql.lane_unfetched, name).await? == 0 {
                    tx.run(sql.reopen_fetched, vals![name]).await?;
                    lane.blocked = None;
                }
                let in_flight = match lane.policy.max_in_flight {
                    Some(_) => self.count_in(&mut *tx, sql.lane_in_flight, name).await?,
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

    async fn count_in(&self, tx: &mut dyn Tx, sql: &'static str, lane: &str) -> Result<u64, StepError> {
        let rows = tx.rows(sql, vals![lane]).await?;
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
            if reopened { 0 } else { i64::from(pass.probes) },
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
        let (by, probe_in) = (closure.by.as_str(), closure.probe_in.map(millis));
        let values = vals![&code, by, &code, clip(&closure.message), probe_in, name];
        tx.run(self.db.sql().block_lane, values).await?;
        Ok(())
    }

    /// A lane that is blocked because submits stay unanswered does not answer other questions either: no
    /// probe before this.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn postpone_probe(&self, name: &str, after: Duration) -> Result<(), StoreError> {
        again!(async {
            let mut connection = self.db.plain().await?;
            connection.run(self.db.sql().postpone_probe, vals![millis(after), name]).await?;
            Ok(())
        })
    }

    /// How many probes found a lane blocked with this code, since it was; 0 where it is open, or blocked for
    /// another cause.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn lane_probes(&self, name: &str, code: &str) -> Result<u32, StoreError> {
        let code = ascii(code, 64);
        again!(async {
            let mut connection = self.db.plain().await?;
            let rows = connection.rows(self.db.sql().lane_probes, vals![name, &code]).await?;
            let probes = rows.first().map_or(Ok(0), |row| row.int(0))?;
            Ok(u32::try_from(probes).unwrap_or_default())
        })
    }

    /// A submit on this lane was sent, and not answered. Says how many in a row, and since when (text, UTC).
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn count_unanswered(&self, name: &str) -> Result<(u32, String), StoreError> {
        again!(async {
            let sql = self.db.sql();
            let mut tx = self.db.begin().await?;
            tx.run(sql.count_unanswered, vals![name]).await?;
            let row = tx.rows(sql.lane_unanswered, vals![name]).await?.pop();
            tx.commit().await?;
            let Some(row) = row else { return Ok((0, String::new())) };
            let submits = u32::try_from(row.int(0)?).unwrap_or_default();
            Ok((submits, row.opt_text(1)?.unwrap_or_default()))
        })
    }

    /// The call that was to show whether a blocked lane works again has shown nothing: another may try after this.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn probe_lane(&self, name: &str, after: Duration) -> Result<(), StoreError> {
        again!(async {
            let mut connection = self.db.plain().await?;
            connection.run(self.db.sql().probe_lane, vals![millis(after), name]).await?;
            Ok(())
        })
    }

    /// The provider works again: open, and no longer slowed down. `by_poll`: only an answer to a poll says so, which proves
    /// nothing for a lane that was blocked at a submit.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn reopen_lane(&self, name: &str, by_poll: bool) -> Result<bool, StoreError> {
        self.reopen_by(name, if by_poll { "poll" } else { "probe" }).await
    }

    /// A submit that was no probe was answered: the count of those without an answer starts from 0, and a lane that was
    /// blocked for them is open. It proves nothing about any other block.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn reset_unanswered(&self, name: &str) -> Result<bool, StoreError> {
        self.reopen_by(name, "answer").await
    }

    async fn reopen_by(&self, name: &str, proof: &str) -> Result<bool, StoreError> {
        again!(async {
            let mut connection = self.db.plain().await?;
            Ok(connection.run(self.db.sql().reopen_lane, vals![name, proof]).await? > 0)
        })
    }

    /// A result that could not be fetched was: a lane that was blocked for that is open.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn reopen_fetched(&self, name: &str) -> Result<bool, StoreError> {
        self.switch_lane(self.db.sql().reopen_fetched, name).await
    }

    /// Stops a lane until [`Store::resume_lane`]. `false`: there is no such lane.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn pause_lane(&self, name: &str) -> Result<bool, StoreError> {
        self.switch_lane(self.db.sql().pause_lane, name).await
    }

    /// Ends a pause, and lets a blocked lane try again at once, also to fetch results. `false`: there is no
    /// such lane.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn resume_lane(&self, name: &str) -> Result<bool, StoreError> {
        self.switch_lane(self.db.sql().wake_unfetched, name).await?;
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
        unanswered: u32::try_from(row.int(15)?).unwrap_or_default(),
    })
}

fn unfetched(row: &Row) -> Result<Option<Unfetched>, StoreError> {
    let Some(host) = row.opt_text(21)? else { return Ok(None) };
    Ok(Some(Unfetched { calls: count(row, 20)?, host, error: row.opt_text(22)?.unwrap_or_default() }))
}

pub(super) fn lane_view(row: &Row) -> Result<LaneView, StoreError> {
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
        name: row.text(16)?,
        currency: row.opt_text(3)?,
        queued: count(row, 17)?,
        in_flight: count(row, 18)?,
        oldest: row
            .opt_int(19)?
            .map(|millis| Duration::from_millis(u64::try_from(millis).unwrap_or_default())),
        unfetched: unfetched(row)?,
        stuck: count(row, 23)?,
        stuck_why: row.opt_text(24)?.map(|why| why.trim_start_matches(STUCK).to_owned()),
    })
}
