//! What money was spent on: one row a UTC day, lane, model, currency and outcome, written in the transaction
//! that commits the outcome. Tasks come and go; these rows stay, so that every figure can be held against the
//! provider's bill.
//!
//! What must stay true: a submit that is charged is counted here once, when it is known what it bought; one
//! without an answer is counted as `ambiguous`, which the bill may or may not have. Until then it is in
//! [`Store::in_flight`], so that both together are what the lanes say is spent.

use std::collections::BTreeMap;

use retouch_shared::key::EditKey;
use serde::Serialize;

use super::db::{Row, Tx, vals};
use super::types::ascii;
use super::{CallSpec, Lease, Money, StepError, Store, StoreError};

/// A picture for an image that waited for it.
pub const RESULT: &str = "result";
/// A picture that no image waits for any more; it is in the cache.
pub const UNWANTED: &str = "unwanted";
/// A submit without an answer: the provider may have charged for it.
pub const AMBIGUOUS: &str = "ambiguous";
/// A call that was deleted from the database while it was under way.
const FORGOTTEN: &str = "forgotten";
/// The longest outcome that the column holds.
const MAX_OUTCOME_CHARS: usize = 64;

/// The statements of a dialect for it.
pub(super) struct SpendingStatements {
    pub(super) add: &'static str,
    pub(super) add_unanswered: &'static str,
    pub(super) add_forgotten: &'static str,
    pub(super) since: &'static str,
    pub(super) in_flight: &'static str,
}

/// So many calls, and their money in millionths by currency. What costs nothing is not among them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Priced {
    /// How many.
    pub calls: u64,
    /// By ISO 4217 code.
    pub micros: BTreeMap<String, i64>,
}

impl Priced {
    /// One more call.
    pub(crate) fn add(&mut self, price: &Money) {
        if price.micros != 0 {
            self.calls += 1;
            *self.micros.entry(price.currency.clone()).or_default() += price.micros;
        }
    }

    /// The money of one currency.
    #[must_use]
    pub fn of(&self, currency: &str) -> i64 {
        self.micros.get(currency).copied().unwrap_or_default()
    }
}

/// Money of calls that were sent and have not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InFlight {
    /// The lane.
    pub lane: String,
    /// The provider's model id.
    pub model: String,
    /// ISO 4217.
    pub currency: String,
    /// Whether the provider has accepted them; otherwise they are being sent, or were sent and not answered.
    pub accepted: bool,
    /// How many.
    pub calls: u64,
    /// In millionths.
    #[serde(skip)]
    pub micros: i64,
}

/// Money of one day, lane, model, currency and outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Spending {
    /// The UTC day on which the outcome was known, as 2026-11-25.
    pub day: String,
    /// The lane.
    pub lane: String,
    /// The provider's model id.
    pub model: String,
    /// ISO 4217.
    pub currency: String,
    /// [`RESULT`], [`UNWANTED`], [`AMBIGUOUS`], or the reason code of what bought nothing.
    pub outcome: String,
    /// Submits; fewer than none where what was counted on an earlier day was taken back on this one.
    pub calls: i64,
    /// In millionths.
    #[serde(skip)]
    pub micros: i64,
}

impl Spending {
    /// Whether it bought a picture.
    pub fn bought(&self) -> bool {
        matches!(self.outcome.as_str(), RESULT | UNWANTED)
    }

    /// Whether the provider charges for it for sure.
    pub fn certain(&self) -> bool {
        self.outcome != AMBIGUOUS
    }
}

impl Store {
    /// What the last `days` UTC days, today included, were spent on, the newest day first.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn spending(&self, days: u32) -> Result<Vec<Spending>, StoreError> {
        let mut connection = self.db.plain().await?;
        let rows = connection.rows(self.db.sql().spending.since, vals![days.saturating_sub(1)]).await?;
        rows.iter().map(spending).collect()
    }

    /// Money that is spent and of which the outcome is not known yet, whenever it was sent.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn in_flight(&self) -> Result<Vec<InFlight>, StoreError> {
        let mut connection = self.db.plain().await?;
        let rows = connection.rows(self.db.sql().spending.in_flight, vals![]).await?;
        rows.iter().map(in_flight).collect()
    }

    /// Charged calls and their outcome; a negative number takes back what was counted before. What costs
    /// nothing leaves no row.
    pub(super) async fn spend(
        &self,
        tx: &mut dyn Tx,
        spec: &CallSpec,
        outcome: &str,
        calls: i64,
    ) -> Result<(), StepError> {
        let Money { micros, currency } = &spec.price;
        if *micros == 0 {
            return Ok(());
        }
        let outcome = ascii(outcome, MAX_OUTCOME_CHARS);
        let values = vals![&spec.lane, &spec.model, currency, &outcome, calls, calls * micros];
        tx.run(self.db.sql().spending.add, values).await?;
        Ok(())
    }

    /// The submit of a call that is about to be sent once more, unless it was counted before. Before its row
    /// forgets when it was submitted.
    pub(super) async fn spend_unanswered(&self, tx: &mut dyn Tx, lease: Lease) -> Result<(), StepError> {
        let values = vals![AMBIGUOUS, lease.edit_key.as_bytes(), lease.fence];
        tx.run(self.db.sql().spending.add_unanswered, values).await?;
        Ok(())
    }

    /// Calls that are under way at the provider and about to be deleted: nothing else will tell what they
    /// cost.
    pub(super) async fn spend_forgotten(&self, tx: &mut dyn Tx, keys: &[EditKey]) -> Result<(), StepError> {
        let list = super::intake::key_list(keys);
        tx.run(self.db.sql().spending.add_forgotten, vals![FORGOTTEN, &list]).await?;
        Ok(())
    }
}

fn in_flight(row: &Row) -> Result<InFlight, StoreError> {
    Ok(InFlight {
        lane: row.text(0)?,
        model: row.text(1)?,
        currency: row.text(2)?,
        accepted: row.int(3)? != 0,
        calls: u64::try_from(row.int(4)?).unwrap_or_default(),
        micros: row.int(5)?,
    })
}

fn spending(row: &Row) -> Result<Spending, StoreError> {
    Ok(Spending {
        day: row.text(0)?,
        lane: row.text(1)?,
        model: row.text(2)?,
        currency: row.text(3)?,
        outcome: row.text(4)?,
        calls: row.int(5)?,
        micros: row.int(6)?,
    })
}
