//! The suite: one binary, real servers, started by `tests/run`.

mod broker_conformance;
mod broker_embedded;
mod broker_rabbitmq;
