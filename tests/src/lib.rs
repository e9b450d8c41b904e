//! What the suite stands on: real servers, an isolated environment for each test, pictures, faults, the
//! program.
//!
//! Nothing here waits by sleeping: it waits for a signal, or polls with a deadline and then says what it
//! waited for.

// All of this is test code although none of it is marked `#[test]`: to fail loudly is its job.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]
// `task("id", json!({…}), …)` reads better than with a reference.
#![allow(clippy::needless_pass_by_value)]

pub mod bench;
pub mod broker;
pub mod bucket;
pub mod collector;
pub mod env;
pub mod exposition;
pub mod faketime;
pub mod kills;
pub mod laptop;
pub mod load;
pub mod memory;
pub mod node;
pub mod older;
pub mod paid;
pub mod picture_server;
pub mod pictures;
pub mod process;
pub mod program;
pub mod promql;
pub mod proxy;
pub mod python;
pub mod services;
pub mod site;
pub mod stand_in;
pub mod tasks;
pub mod wait;
pub mod watched;
