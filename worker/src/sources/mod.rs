//! x

mod addresses;
pub mod fetch;
pub mod guard;
