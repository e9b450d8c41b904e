//! The parts of `tests/bench`: Retouch and alternatives measured in the same run, on servers that commit
//! durably.
//!
//! Invariant: contenders take turns within a round, so that a busy machine affects them alike; and a
//! contender that does not do the work (a row for each task, the right picture) ends the run instead of being
//! a number in it.

pub mod bare;
pub mod contender;
pub mod costs;
pub mod designs;
pub mod feed;
pub mod filled;
pub mod floor;
pub mod gallery;
pub mod growth;
pub mod hits;
pub mod latency;
pub mod memory;
pub mod overhead;
pub mod paid_site;
pub mod plain;
pub mod plan;
pub mod report;
pub mod retouch;
pub mod run;
pub mod stats;
pub mod tables;
