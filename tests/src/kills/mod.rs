//! The kill harness: workers that die at named transitions and at random moments while tasks flow, and the
//! books afterwards. `tests/run-faults` runs it at length, `tests/suite/kills.rs` in short form.
//!
//! Invariant: this module knows nothing of the worker's protections. It judges by the provider's ledger, the
//! tables and the pixels.

pub mod agree;
pub mod books;
pub mod feed;
pub mod fleet;
pub mod plain;
pub mod run;
pub mod simulated;
