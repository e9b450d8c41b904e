//! Metrics: every name once (`names`), what is counted where (`count`), and the text that Prometheus reads (`recorder`,
//! `text`).
//!
//! What must stay true: a counter counts after the commit of what it counts, and once: what was repeated because its answer was
//! lost is not counted again. Money is counted in whole millionths and written as a decimal number, so that sums
//! agree with the tables to the last digit. No label has a value that a producer chooses.

pub(crate) mod count;
mod money;
mod names;
pub(crate) mod recorder;
pub(crate) mod text;

pub(crate) use names::*;
pub use names::{DECLARED, Declared, Kind};
