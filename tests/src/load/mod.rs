//! Load over time: tasks at a steady rate through RabbitMQ, MariaDB, worker processes and the provider stand-in, workers stopped
//! and killed meanwhile, and what all of it holds sampled. docs/performance.md has the figures.
//!
//! What must stay true: one worker is never restarted, so that what it gathers is seen; and a table that the report does not know
//! breaks it, so that whoever adds one says what bounds it.

pub mod feed;
pub mod fleet;
pub mod report;
pub mod run;
pub mod sample;
mod story;
mod tables;
