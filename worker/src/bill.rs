//! What one command spends: every call that this process sends, and what became of it; and the most that it
//! may spend, `retouch edit --max-cost`. A worker keeps no bill; its lanes have budgets.
//!
//! What must stay true: a call is on the bill before it is sent, and leaves it only where the provider
//! certainly charges nothing: with the same transitions as the lane's spending (`Store::refund`), so that
//! bills, lanes and the provider's ledger say the same.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use retouch_shared::key::EditKey;

use crate::store::{CallState, ClaimedCall, Money, Priced};

/// The bill of this process, where it keeps one.
#[derive(Debug, Default)]
pub(crate) struct Bill(Mutex<Option<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    limit: Option<Money>,
    /// Of calls that wait for their lane.
    reserved: i64,
    refused: bool,
    edits: HashMap<EditKey, Edit>,
}

/// One edit that costs money.
#[derive(Debug, Default)]
struct Edit {
    /// Sent here, in their order.
    sends: Vec<Sent>,
    /// Accepted by the provider before this process took the call over.
    before: Option<Money>,
    /// Its result was stored by this process.
    answered: bool,
}

#[derive(Debug)]
struct Sent {
    price: Money,
    /// An earlier submit of the edit, here or elsewhere, was not answered.
    again: bool,
    became: Became,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Became {
    UnderWay,
    Unanswered,
    Bought,
    /// Charged, for this reason without a result.
    Lost(String),
}

/// The bill, summed up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Statement {
    /// All that was sent here: the sum of the next four.
    pub(crate) spent: Priced,
    /// Results.
    pub(crate) bought: Priced,
    /// Sent, and not ended.
    pub(crate) under_way: Priced,
    /// Sent and not answered: perhaps charged, for nothing.
    pub(crate) unanswered: Priced,
    /// Charged for nothing, by reason.
    pub(crate) lost: BTreeMap<String, Priced>,
    /// Of all that was sent: after an earlier submit of the same edit was not answered.
    pub(crate) again: Priced,
    /// Of all that was sent: edits that the tasks of other commands had started.
    pub(crate) of_others: Priced,
    /// Carried on here, and sent by another process before: in none of the figures above.
    pub(crate) before: Priced,
    /// Results of this process, whichever process has paid for them, of edits that its own tasks have
    /// started; and of those that others have.
    pub(crate) results: [Priced; 2],
}

/// The price of a call that waits for its lane: it counts until this is dropped.
#[derive(Debug)]
pub(crate) struct Reserved<'a> {
    bill: &'a Bill,
    price: &'a Money,
}

impl Bill {
    /// Keeps a bill from now on, of at most `limit`.
    pub(crate) fn keep(&self, limit: Option<Money>) {
        *self.lock() = Some(Kept { limit, ..Kept::default() });
    }

    /// Sets the price of one call aside. `None`: it would cost more than is left.
    pub(crate) fn reserve<'a>(&'a self, price: &'a Money) -> Option<Reserved<'a>> {
        if let Some(kept) = self.lock().as_mut() {
            kept.refused = !kept.allows(price);
            if kept.refused {
                return None;
            }
            kept.reserved = kept.reserved.saturating_add(price.micros);
        }
        Some(Reserved { bill: self, price })
    }

    /// The last call that asked was refused.
    pub(crate) fn is_used_up(&self) -> bool {
        self.lock().as_ref().is_some_and(|kept| kept.refused)
    }

    /// A call is taken over as it was left.
    pub(crate) fn found(&self, call: &ClaimedCall) {
        if matches!(call.state, CallState::Submitted | CallState::Stored) {
            self.accepted_before(call);
        }
    }

    /// The provider has accepted a submit that was thought to be without an answer.
    pub(crate) fn accepted_after_all(&self, call: &ClaimedCall) {
        let sent_here = self.last(call.lease.edit_key, |sent| {
            if sent.became == Became::Unanswered {
                sent.became = Became::UnderWay;
            }
        });
        if !sent_here {
            self.accepted_before(call);
        }
    }

    fn accepted_before(&self, call: &ClaimedCall) {
        let price = &call.spec.price;
        if price.micros == 0 {
            return;
        }
        if let Some(kept) = self.lock().as_mut() {
            let edit = kept.edits.entry(call.lease.edit_key).or_default();
            if edit.sends.is_empty() {
                edit.before = Some(price.clone());
            }
        }
    }

    /// The last submit was not answered.
    pub(crate) fn unanswered(&self, key: EditKey) {
        self.last(key, |sent| {
            if sent.became == Became::UnderWay {
                sent.became = Became::Unanswered;
            }
        });
    }

    /// The last submit was certainly not accepted, though it may have been without an answer for a while.
    pub(crate) fn not_accepted(&self, key: EditKey) {
        self.take_back(key, |became| matches!(became, Became::UnderWay | Became::Unanswered));
    }

    /// The call is queued again: what was answered is not charged.
    pub(crate) fn queued_again(&self, key: EditKey) {
        self.take_back(key, |became| *became == Became::UnderWay);
    }

    /// The edit has its result.
    pub(crate) fn answered(&self, call: &ClaimedCall) {
        if let Some(edit) = self.lock().as_mut().and_then(|kept| kept.edits.get_mut(&call.lease.edit_key)) {
            edit.answered = true;
            if let Some(sent) = edit.sends.last_mut() {
                sent.became = Became::Bought;
            }
        }
    }

    /// The edit has failed, with this code; `charged` says whether what was answered is paid for.
    pub(crate) fn failed(&self, key: EditKey, code: &str, charged: bool) {
        if !charged {
            return self.queued_again(key);
        }
        self.last(key, |sent| {
            if sent.became == Became::UnderWay {
                sent.became = Became::Lost(code.to_owned());
            }
        });
    }

    /// All of it; `of_others` are the edits that other commands have started.
    pub(crate) fn statement(&self, of_others: &HashSet<EditKey>) -> Statement {
        let mut statement = Statement::default();
        let kept = self.lock();
        for (key, edit) in kept.iter().flat_map(|kept| &kept.edits) {
            statement.add(edit, of_others.contains(key));
        }
        statement
    }

    /// Changes the last submit of an edit. `false`: it has none of this process.
    fn last(&self, key: EditKey, change: impl FnOnce(&mut Sent)) -> bool {
        let mut kept = self.lock();
        let edit = kept.as_mut().and_then(|kept| kept.edits.get_mut(&key));
        edit.and_then(|edit| edit.sends.last_mut()).map(change).is_some()
    }

    fn take_back(&self, key: EditKey, fits: impl FnOnce(&Became) -> bool) {
        let mut kept = self.lock();
        let Some(edit) = kept.as_mut().and_then(|kept| kept.edits.get_mut(&key)) else { return };
        match edit.sends.last() {
            Some(sent) if fits(&sent.became) => drop(edit.sends.pop()),
            Some(_) => {}
            // It was another process's, and is not charged either.
            None => edit.before = None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn allows(&self, price: &Money) -> bool {
        let Some(limit) = self.limit.as_ref().filter(|_| price.micros != 0) else { return true };
        let sends = self.edits.values().flat_map(|edit| &edit.sends);
        let spent: i64 = sends.map(|sent| sent.price.micros).sum();
        let after = spent.saturating_add(self.reserved).saturating_add(price.micros);
        limit.currency == price.currency && after <= limit.micros
    }
}

impl Reserved<'_> {
    /// The call is about to leave. `again`: an earlier submit of it was not answered.
    pub(crate) fn sent(self, key: EditKey, again: bool) {
        if self.price.micros == 0 {
            return;
        }
        if let Some(kept) = self.bill.lock().as_mut() {
            let sent = Sent { price: self.price.clone(), again, became: Became::UnderWay };
            kept.edits.entry(key).or_default().sends.push(sent);
        }
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        if let Some(kept) = self.bill.lock().as_mut() {
            kept.reserved = kept.reserved.saturating_sub(self.price.micros);
        }
    }
}

impl Statement {
    fn add(&mut self, edit: &Edit, of_others: bool) {
        for sent in &edit.sends {
            self.spent.add(&sent.price);
            match &sent.became {
                Became::UnderWay => self.under_way.add(&sent.price),
                Became::Unanswered => self.unanswered.add(&sent.price),
                Became::Bought => self.bought.add(&sent.price),
                Became::Lost(code) => self.lost.entry(code.clone()).or_default().add(&sent.price),
            }
            if sent.again {
                self.again.add(&sent.price);
            }
            if of_others {
                self.of_others.add(&sent.price);
            }
        }
        if let Some(before) = &edit.before {
            self.before.add(before);
        }
        let price = edit.sends.last().map(|sent| &sent.price).or(edit.before.as_ref());
        if let Some(price) = price.filter(|_| edit.answered) {
            let [own, others] = &mut self.results;
            if of_others { others.add(price) } else { own.add(price) }
        }
    }

    /// Of one currency, in millionths: bought or under way, and for nothing or perhaps so.
    pub(crate) fn split(&self, currency: &str) -> (i64, i64) {
        let lost: i64 = self.lost.values().map(|lost| lost.of(currency)).sum();
        let for_nothing = self.unanswered.of(currency) + lost;
        (self.bought.of(currency) + self.under_way.of(currency), for_nothing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cny(micros: i64) -> Money {
        Money { micros, currency: "CNY".to_owned() }
    }

    fn key(n: u8) -> EditKey {
        format!("{n:02x}").repeat(32).parse().unwrap()
    }

    fn send(bill: &Bill, n: u8, again: bool) -> bool {
        let price = cny(140_000);
        let Some(reserved) = bill.reserve(&price) else { return false };
        reserved.sent(key(n), again);
        true
    }

    #[test]
    fn calls_beyond_the_limit_are_refused_until_one_is_taken_back() {
        let bill = Bill::default();
        assert!(bill.reserve(&cny(140_000)).is_some(), "a process without a bill refuses nothing");
        bill.keep(Some(cny(300_000)));
        let price = cny(140_000);
        let waiting = bill.reserve(&price);
        assert!(waiting.is_some() && send(&bill, 1, false));
        assert!(!send(&bill, 2, false) && bill.is_used_up(), "what waits for its lane counts");
        drop(waiting);
        assert!(send(&bill, 2, false) && !bill.is_used_up());
        assert!(bill.reserve(&cny(0)).is_some(), "what costs nothing is never refused");
        bill.not_accepted(key(1));
        assert!(send(&bill, 1, false));
        let euros = Money { micros: 1, currency: "EUR".to_owned() };
        assert!(bill.reserve(&euros).is_none(), "a price in another currency cannot be compared");
    }

    #[test]
    fn only_what_is_certainly_not_charged_leaves_the_bill() {
        let bill = Bill::default();
        bill.keep(None);
        for n in 1..=6 {
            assert!(send(&bill, n, false));
        }
        bill.queued_again(key(1));
        bill.unanswered(key(2));
        bill.queued_again(key(2));
        assert!(send(&bill, 2, true));
        bill.unanswered(key(3));
        bill.failed(key(3), "ambiguous", true);
        bill.failed(key(4), "bad_result", true);
        bill.failed(key(5), "DataInspectionFailed", false);
        bill.unanswered(key(6));
        bill.not_accepted(key(6));
        let statement = bill.statement(&HashSet::new());
        let calls = |tally: &Priced| (tally.calls, tally.of("CNY"));
        assert_eq!(calls(&statement.spent), (4, 560_000));
        assert_eq!(calls(&statement.under_way), (1, 140_000));
        assert_eq!(calls(&statement.unanswered), (2, 280_000));
        assert_eq!(calls(&statement.lost["bad_result"]), (1, 140_000));
        assert_eq!(calls(&statement.again), (1, 140_000));
        assert_eq!(statement.split("CNY"), (140_000, 420_000));
    }
}
