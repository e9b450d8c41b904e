//! The contract as JSON Schema, generated from the types: what is checked in under `docs/` and printed by `retouch schema`.
//!
//! What must stay true: a schema refuses nothing that the worker takes. What it cannot say (a key twice, a size in
//! bytes, the length of a prompt once it is trimmed) the worker refuses all the same.

use schemars::Schema;
use schemars::generate::SchemaSettings;

use crate::event::Event;
use crate::wire::{CancelMessage, TaskMessage};

/// What producers publish.
pub fn task() -> Schema {
    SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<TaskMessage>()
}

/// What producers publish to take a task back.
pub fn cancel() -> Schema {
    SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<CancelMessage>()
}

/// What producers hear when a task has ended.
pub fn event() -> Schema {
    SchemaSettings::draft2020_12().for_serialize().into_generator().into_root_schema_for::<Event>()
}

#[cfg(test)]
mod tests;
