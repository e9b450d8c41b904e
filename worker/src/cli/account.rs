//! What a command has spent, as it is shown: its own bill, and what of its edits others have paid for.
//!
//! What must stay true: the cost of a command is what its own process has sent and may be charged for, so
//! that the costs of all commands add up to the provider's bill.

use std::collections::BTreeMap;

use retouch_shared::event::{Cost, decimal};
use serde::Serialize;

use crate::bill::Statement;
use crate::store::{Money, Priced, TaskRecord};
use crate::words::counted;

/// So many edits and what they cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Edits {
    pub edits: u64,
    /// Amounts by currency.
    pub costs: Vec<Amount>,
}

/// An amount of money.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Amount {
    pub amount: String,
    pub currency: String,
}

impl Amount {
    pub(super) fn new(micros: i64, currency: &str) -> Self {
        Self { amount: decimal(micros), currency: currency.to_owned() }
    }

    pub(super) fn in_words(&self) -> String {
        format!("{} {}", self.amount, self.currency)
    }
}

/// E.g. `0.14 CNY and 0.04 USD`.
pub(super) fn in_words(amounts: &[Amount]) -> String {
    amounts.iter().map(Amount::in_words).collect::<Vec<_>>().join(" and ")
}

/// The sums of these prices, those that are nothing left out.
pub(super) fn amounts(prices: impl Iterator<Item = Money>) -> Vec<Amount> {
    let mut sums: BTreeMap<String, i64> = BTreeMap::new();
    for Money { micros, currency } in prices {
        *sums.entry(currency).or_default() += micros;
    }
    let sums = sums.iter().filter(|(_, micros)| **micros != 0);
    sums.map(|(currency, micros)| Amount::new(*micros, currency)).collect()
}

impl Edits {
    pub(super) fn new(edits: u64, prices: impl Iterator<Item = Money>) -> Self {
        Self { edits, costs: amounts(prices) }
    }

    /// None where there is none.
    pub(super) fn of(priced: &Priced) -> Option<Self> {
        let costs = priced.micros.iter().map(|(currency, micros)| Amount::new(*micros, currency));
        (priced.calls > 0).then(|| Self { edits: priced.calls, costs: costs.collect() })
    }

    /// E.g. `, about 0.42 CNY`; nothing where they are free.
    pub(super) fn about(&self) -> String {
        if self.costs.is_empty() { String::new() } else { format!(", about {}", in_words(&self.costs)) }
    }

    pub(super) fn money(&self) -> String {
        in_words(&self.costs)
    }
}

/// What a command has spent in one currency, and what became of it. The first amount is the sum of the others.
#[derive(Debug, Serialize)]
pub(super) struct Bill {
    currency: String,
    spent: String,
    bought: String,
    under_way: String,
    /// Submits without an answer: perhaps charged, for nothing.
    unanswered: String,
    /// Charged for nothing, by reason.
    for_nothing: BTreeMap<String, String>,
}

/// The money of a command.
#[derive(Debug, Default, Serialize)]
pub(super) struct Account {
    /// What this command has sent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    bill: Vec<Bill>,
    /// Of that: sent after an earlier submit of the same edit was not answered, so perhaps paid twice.
    #[serde(skip_serializing_if = "Option::is_none")]
    sent_again: Option<Edits>,
    /// Of that: edits that the tasks of other commands had started.
    #[serde(skip_serializing_if = "Option::is_none")]
    taken_over: Option<Edits>,
    /// Edits of this command's tasks that other processes have sent: on their bills.
    #[serde(skip_serializing_if = "Option::is_none")]
    paid_by_others: Option<Edits>,
    /// Edits that another process had sent before this one carried them on: paid already.
    #[serde(skip_serializing_if = "Option::is_none")]
    resumed: Option<Edits>,
    #[serde(skip)]
    statement: Statement,
}

impl Account {
    /// The money of the command that has these tasks.
    pub(super) fn new<'a>(
        statement: Statement,
        tasks: impl Iterator<Item = &'a TaskRecord>,
    ) -> (Self, Option<Cost>) {
        let (mut currency, mut paid, mut paid_micros, mut saved_micros) = (String::new(), 0, 0, 0);
        for task in tasks {
            currency.clone_from(&task.currency);
            paid += u64::from(task.paid);
            paid_micros += task.paid_micros;
            saved_micros += task.saved_micros;
        }
        let [own, others] = &statement.results;
        let elsewhere = (paid_micros - own.of(&currency)).max(0);
        let paid_by_others = (elsewhere > 0).then(|| Edits {
            edits: paid.saturating_sub(own.calls),
            costs: vec![Amount::new(elsewhere, &currency)],
        });
        // What the results are worth that this process had not to have made.
        let saved = (paid_micros + saved_micros - own.of(&currency) - others.of(&currency)).max(0);
        let (bought, for_nothing) = statement.split(&currency);
        let is_money = statement.spent.calls + statement.before.calls > 0;
        let cost = Cost::of(bought, saved, for_nothing, &currency);
        let nothing =
            || Cost { paid: decimal(0), saved: decimal(0), lost: decimal(0), currency: currency.clone() };
        let cost = cost.or_else(|| is_money.then(nothing));
        let account = Self {
            bill: statement.spent.micros.keys().map(|currency| Bill::of(&statement, currency)).collect(),
            sent_again: Edits::of(&statement.again),
            taken_over: Edits::of(&statement.of_others),
            paid_by_others,
            resumed: Edits::of(&statement.before),
            statement,
        };
        (account, cost)
    }

    /// Whether anything of it is money.
    pub(super) fn is_empty(&self) -> bool {
        self.bill.is_empty() && self.resumed.is_none()
    }

    /// What the table's one cost does not say.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let statement = &self.statement;
        if let Some(edits) = Edits::of(&statement.under_way) {
            let (count, are) = counted_are(&edits, "is", "are");
            lines.push(format!(
                "{count} {are} sent and not ended: {} of the cost above; the same command goes on with what is under way",
                edits.money()
            ));
        }
        if let Some(edits) = Edits::of(&statement.unanswered) {
            let (verb, count) =
                (if edits.edits == 1 { "was" } else { "were" }, counted(edits.edits, "submit"));
            lines.push(format!(
                "{count} {verb} not answered: {} of the cost above is perhaps charged, for nothing",
                edits.money()
            ));
        }
        for (code, lost) in &statement.lost {
            let Some(edits) = Edits::of(lost) else { continue };
            let (count, were) = counted_are(&edits, "was", "were");
            lines.push(format!(
                "{count} {were} charged for nothing ({code}): {} of the cost above",
                edits.money()
            ));
        }
        if let Some(edits) = &self.sent_again {
            let (count, were) = counted_are(edits, "was", "were");
            lines.push(format!(
                "{count} {were} sent a second time after a lost answer: {} perhaps paid twice",
                edits.money()
            ));
        }
        if let Some(edits) = &self.taken_over {
            let (count, were) = counted_are(edits, "was", "were");
            lines.push(format!(
                "{count} that other commands had started {were} sent by this one: {} of the cost above",
                edits.money()
            ));
        }
        if let Some(edits) = &self.paid_by_others {
            let (count, were) = counted_are(edits, "was", "were");
            lines.push(format!(
                "{count} {were} sent by other processes, on their bills: {}, not in the cost above",
                edits.money()
            ));
        }
        if let Some(edits) = &self.resumed {
            let count = counted(edits.edits, "edit");
            lines.push(format!(
                "resumed {count} sent before: {} paid already, not in the cost above",
                edits.money()
            ));
        }
        lines
    }
}

fn counted_are(edits: &Edits, one: &'static str, more: &'static str) -> (String, &'static str) {
    (counted(edits.edits, "edit"), if edits.edits == 1 { one } else { more })
}

impl Bill {
    fn of(statement: &Statement, currency: &str) -> Self {
        let amount = |priced: &Priced| decimal(priced.of(currency));
        let lost = statement.lost.iter().filter(|(_, lost)| lost.of(currency) != 0);
        Self {
            currency: currency.to_owned(),
            spent: amount(&statement.spent),
            bought: amount(&statement.bought),
            under_way: amount(&statement.under_way),
            unanswered: amount(&statement.unanswered),
            for_nothing: lost.map(|(code, lost)| (code.clone(), amount(lost))).collect(),
        }
    }
}
