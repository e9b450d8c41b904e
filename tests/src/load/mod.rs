//! Load over time: tasks at a steady rate through RabbitMQ, MariaDB, worker processes and the provider
//! stand-in; workers are stopped and killed meanwhile, and resources are sampled. docs/performance.md has the
//! figures.
//!
//! Invariant: one worker is never restarted, so that leaks show; and a table that the report does not know
//! fails the run, so that a new table comes with its bound.

pub mod feed;
pub mod fleet;
pub mod report;
pub mod run;
pub mod sample;
mod story;
mod tables;
