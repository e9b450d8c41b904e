//! The contract as JSON Schema, generated from the types; checked in under `docs/` and printed by `retouch
//! schema`.
//!
//! Invariant: a schema accepts everything that the worker accepts. Rules that a schema cannot express
//! (duplicate keys, sizes in bytes, the length of a trimmed prompt) are checked by the worker alone.

use schemars::Schema;
use schemars::generate::SchemaSettings;

use crate::event::Event;
use crate::wire::{CancelMessage, TaskMessage};

/// Task messages.
pub fn task() -> Schema {
    SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<TaskMessage>()
}

/// Cancel messages.
pub fn cancel() -> Schema {
    SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<CancelMessage>()
}

/// Event messages.
pub fn event() -> Schema {
    SchemaSettings::draft2020_12().for_serialize().into_generator().into_root_schema_for::<Event>()
}

#[cfg(test)]
mod tests;
