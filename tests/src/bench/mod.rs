//! What `tests/bench` does: Retouch and other ways to do the same measured in the same run, on servers that commit durably.
//!
//! What must stay true: contenders take turns within a round, so that a busy machine hits them alike; and whoever does not
//! do the work (a row for each task, the right picture) ends the run instead of being a number in it.

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
