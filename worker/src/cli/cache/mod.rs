//! `retouch cache`: the life of the cache.

use clap::{Args, Subcommand};

use super::{Ending, Failure};
use crate::config::Settings;

mod import;

/// See into the cache, and move an older system's results into it
///
/// Example: retouch cache import --from mysql://reader:secret@db/old --dry-run
#[derive(Debug, Args)]
pub(super) struct Cache {
    #[command(subcommand)]
    command: CacheCommand,
}

#[derive(Debug, Subcommand)]
enum CacheCommand {
    Import(import::Import),
}

impl Cache {
    pub(super) async fn run(self, settings: Settings, json: bool) -> Result<Ending, Failure> {
        match self.command {
            CacheCommand::Import(import) => import.run(settings, json).await,
        }
    }
}
