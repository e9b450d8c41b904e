//! The promises of the project, each as a test with its name. One binary, real servers: run it with `tests/run`.

// Helpers of the tests are test code too, which the linter knows only of functions marked `#[test]`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod broker_conformance;
mod broker_rabbitmq;
mod harness;
