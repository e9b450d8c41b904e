//! What the calls of one process may cost in all: `retouch edit --max-cost`. A worker has no such limit; its
//! lanes have budgets.
//!
//! What must stay true: a call is counted before it is sent, and given back only where the provider certainly
//! charges nothing.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::store::Money;

/// The limit of this process, and what is taken of it.
#[derive(Debug, Default)]
pub(crate) struct Allowance(Mutex<Taken>);

#[derive(Debug, Default)]
struct Taken {
    limit: Option<Money>,
    micros: i64,
    refused: bool,
}

impl Allowance {
    /// From now on calls may cost so much in all.
    pub(crate) fn limit(&self, limit: Money) {
        self.taken().limit = Some(limit);
    }

    /// Takes the price of one call, or refuses it: it would cost more than is left.
    pub(crate) fn take(&self, price: &Money) -> bool {
        let mut taken = self.taken();
        let fits = match &taken.limit {
            None => true,
            Some(_) if price.micros == 0 => true,
            Some(limit) => {
                limit.currency == price.currency && taken.micros.saturating_add(price.micros) <= limit.micros
            }
        };
        taken.refused = !fits;
        if fits {
            taken.micros = taken.micros.saturating_add(price.micros);
        }
        fits
    }

    /// The call was certainly not charged for.
    pub(crate) fn give_back(&self, price: &Money) {
        let mut taken = self.taken();
        taken.micros = taken.micros.saturating_sub(price.micros);
    }

    /// The last call that asked was refused.
    pub(crate) fn is_used_up(&self) -> bool {
        self.taken().refused
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cny(micros: i64) -> Money {
        Money { micros, currency: "CNY".to_owned() }
    }

    #[test]
    fn calls_beyond_the_limit_are_refused_until_one_is_given_back() {
        let allowance = Allowance::default();
        assert!(allowance.take(&cny(140_000)), "without a limit nothing is refused");
        allowance.give_back(&cny(140_000));
        allowance.limit(cny(300_000));
        assert!(allowance.take(&cny(140_000)) && allowance.take(&cny(140_000)));
        assert!(!allowance.take(&cny(140_000)) && allowance.is_used_up());
        assert!(allowance.take(&cny(0)), "what costs nothing is never refused");
        allowance.give_back(&cny(140_000));
        assert!(allowance.take(&cny(140_000)) && !allowance.is_used_up());
        let euros = Money { micros: 1, currency: "EUR".to_owned() };
        assert!(!allowance.take(&euros), "a price in another currency cannot be compared");
    }
}
