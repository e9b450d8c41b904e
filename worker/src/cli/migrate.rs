//! `retouch migrate`: brings the database to the schema that this program needs.

use anyhow::Context;
use clap::Args;
use serde_json::json;

use super::say::say;
use super::{Ending, Failure};
use crate::app::connect_store;
use crate::store::{DatabaseLocation, SchemaState};

/// Bring the database to the schema that this program needs
///
/// Example: DATABASE_URL=mysql://retouch:secret@db/retouch retouch migrate
#[derive(Debug, Args)]
pub(super) struct Migrate {}

impl Migrate {
    pub(super) async fn run(self, database: &DatabaseLocation, json: bool) -> Result<Ending, Failure> {
        let store = connect_store(database).await.map_err(Failure::Unreachable)?;
        let place = || format!("DATABASE_URL ({database})");
        let before = store.schema_state().await.with_context(place).map_err(Failure::Unreachable)?;
        let after = store.migrate().await.with_context(place).map_err(Failure::Unreachable)?;
        store.close().await;
        if after != SchemaState::Current {
            return Err(Failure::Usage(anyhow::anyhow!("{after}")));
        }
        let changed = before != after;
        if json {
            say(json!({"status": "current", "changed": changed}));
        } else if changed {
            say(format!("migrated: {after}"));
        } else {
            say(format!("nothing to do: {after}"));
        }
        Ok(Ending::Done)
    }
}
