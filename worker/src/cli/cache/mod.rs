//! `retouch cache`: what the cache holds, and cleaning it. A file for each subcommand.

use clap::{Args, Subcommand};

use super::{Ending, Failure};
use crate::config::Settings;

mod evict;
mod forget;
mod sweep;
mod verify;

/// Look into the cache, clean it, verify it
///
/// Nothing is removed without --yes, except what `verify` finds to be of no use.
///
/// Example: retouch cache forget --image portrait.jpg --yes
#[derive(Debug, Args)]
pub(super) struct Cache {
    #[command(subcommand)]
    command: CacheCommand,
}

#[derive(Debug, Subcommand)]
enum CacheCommand {
    Forget(forget::Forget),
    Evict(evict::Evict),
    SweepBlobs(sweep::SweepBlobs),
    Verify(verify::Verify),
}

impl Cache {
    pub(super) async fn run(self, settings: Settings, json: bool) -> Result<Ending, Failure> {
        match self.command {
            CacheCommand::Forget(forget) => forget.run(&settings, json).await,
            CacheCommand::Evict(evict) => evict.run(&settings, json).await,
            CacheCommand::SweepBlobs(sweep) => sweep.run(&settings, json).await,
            CacheCommand::Verify(verify) => verify.run(&settings, json).await,
        }
    }
}
