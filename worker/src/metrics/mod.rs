//! Metrics: every name once (`names`), the counting functions (`count`), and the text for Prometheus
//! (`recorder`, `text`).
//!
//! Invariant: a counter counts an event once, after its commit; a step repeated because its answer was lost
//! is not counted again. Money is counted in whole millionths and written as a decimal number, so that sums
//! agree with the tables to the last digit. No label has a value that a producer chooses.

pub(crate) mod count;
mod money;
mod names;
pub(crate) mod recorder;
pub(crate) mod text;

pub(crate) use names::*;
pub use names::{DECLARED, Declared, Kind};
