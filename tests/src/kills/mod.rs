//! The kill harness: workers that die at named transitions and at random moments while tasks flow, and the books of what came of
//! it. `tests/run-faults` runs it at length, `tests/suite/kills.rs` in short form.
//!
//! What must stay true: nothing here knows how the worker protects itself. What counts is the provider's ledger, the tables and
//! the pixels.

pub mod agree;
pub mod books;
pub mod feed;
pub mod fleet;
pub mod plain;
pub mod run;
pub mod simulated;
