//! Money in whole millionths: the metrics crate's counters hold no fractions, and sums of fractions are
//! inexact.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Sums by the values of their labels.
type Sums<const N: usize> = BTreeMap<[String; N], i64>;

/// One counter of money.
pub(crate) struct Purse<const N: usize>(Mutex<Sums<N>>);

/// Money for pictures, by model and currency.
pub(crate) static PAID: Purse<2> = Purse::new();
/// Money saved, by model and currency.
pub(crate) static SAVED: Purse<2> = Purse::new();
/// Money without a result, by model, currency and reason.
pub(crate) static LOST: Purse<3> = Purse::new();

impl<const N: usize> Purse<N> {
    const fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    pub(crate) fn add(&self, labels: [&str; N], micros: i64) {
        let mut sums = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *sums.entry(labels.map(ToOwned::to_owned)).or_default() += micros.max(0);
    }

    pub(crate) fn sums(&self) -> Sums<N> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
