//! The promises of the project, each as a test with its name. Run them with `tests/run`.

// Helpers of the tests are test code too, which the linter knows only of functions marked `#[test]`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod broker_conformance;
mod broker_embedded;
mod broker_rabbitmq;
mod broker_supervise;
mod client;
mod edit_pictures;
mod edit_report;
mod edit_terminal;
mod edit_together;
mod edit_usage;
mod harness;
