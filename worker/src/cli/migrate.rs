//! `retouch migrate`: brings the database to the schema that this program needs.

use clap::Args;
use serde_json::json;

use super::{Ending, Failure};
use crate::config::Settings;
use crate::store::{SchemaState, Store};

/// Bring the database to the schema that this program needs
///
/// Example: DATABASE_URL=mysql://retouch:secret@db/retouch retouch migrate
#[derive(Debug, Args)]
pub(super) struct Migrate {}

impl Migrate {
    pub(super) async fn run(self, settings: &Settings, json: bool) -> Result<Ending, Failure> {
        let store = Store::open(&settings.database, 2).map_err(Failure::unreachable)?;
        let before = store.schema_state().await.map_err(Failure::unreachable)?;
        let after = store.migrate().await.map_err(Failure::unreachable)?;
        store.close().await;
        if after != SchemaState::Current {
            return Err(Failure::Usage(anyhow::anyhow!("{after}")));
        }
        let changed = before != after;
        if json {
            println!("{}", json!({"status": "current", "changed": changed}));
        } else if changed {
            println!("migrated: {after}");
        } else {
            println!("nothing to do: {after}");
        }
        Ok(Ending::Done)
    }
}
