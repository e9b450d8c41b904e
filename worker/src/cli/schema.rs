//! `retouch schema`: the contract with producers as JSON Schema, generated from the types.

use clap::{Args, ValueEnum};
use retouch_shared::schema;

use super::say::say;
use super::{Ending, Failure};

/// Print the JSON Schema of a task, an event or a cancel
///
/// Example: retouch schema task > task.schema.json
#[derive(Debug, Args)]
pub(super) struct PrintSchema {
    /// Which message
    #[arg(value_enum)]
    message: Which,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Which {
    /// What producers publish
    Task,
    /// What producers hear when a task has ended
    Event,
    /// What producers publish to take a task back
    Cancel,
}

impl PrintSchema {
    pub(super) fn run(self) -> Result<Ending, Failure> {
        let schema = match self.message {
            Which::Task => schema::task(),
            Which::Event => schema::event(),
            Which::Cancel => schema::cancel(),
        };
        say(serde_json::to_string_pretty(&schema).map_err(Failure::unreachable)?);
        Ok(Ending::Done)
    }
}
