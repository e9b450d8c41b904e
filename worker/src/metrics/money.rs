//! Money, in whole millionths: the counters of the metrics crate hold no fractions, and a sum of fractions is not exact.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// What is added up, by model and currency.
type Sums = BTreeMap<(String, String), i64>;

/// One counter of money.
pub(crate) struct Purse(Mutex<Sums>);

/// What was spent.
pub(crate) static PAID: Purse = Purse(Mutex::new(BTreeMap::new()));
/// What was not.
pub(crate) static SAVED: Purse = Purse(Mutex::new(BTreeMap::new()));

impl Purse {
    pub(crate) fn add(&self, model: &str, currency: &str, micros: i64) {
        let mut sums = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *sums.entry((model.to_owned(), currency.to_owned())).or_default() += micros.max(0);
    }

    pub(crate) fn sums(&self) -> Sums {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
