//! `retouch cache sweep-blobs`: blobs that no row names.

use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::super::say::say;
use super::super::{Ending, Failure};
use crate::app::open_store;
use crate::blobs::Blobs;
use crate::cache::finish_deleting;
use crate::cache::orphans::{sweep_shelf, unnamed};
use crate::config::Settings;
use crate::words::counted;

/// Delete blobs that nothing names any more: say first how many there are, then do it with --yes
///
/// Inputs of calls that are over, and what workers that died left behind. Pictures that a producer has put into the store itself,
/// and names by their digest, count as named by nothing: keep them elsewhere, or leave this off.
///
/// Example: retouch cache sweep-blobs --older-days 30 --yes
#[derive(Debug, Args)]
pub(super) struct SweepBlobs {
    /// Only what nobody has kept for so many days: 7 or more
    #[arg(long, value_name = "DAYS", default_value_t = 7, value_parser = clap::value_parser!(u32).range(7..=36_500))]
    older_days: u32,
    /// Do it; without, only say what would be done
    #[arg(long)]
    yes: bool,
}

impl SweepBlobs {
    pub(super) async fn run(self, settings: &Settings, json: bool) -> Result<Ending, Failure> {
        let store = open_store(settings).await.map_err(Failure::Unreachable)?;
        let blobs = Blobs::open(&settings.blobs).map_err(Failure::unreachable)?;
        let age = Duration::from_secs(u64::from(self.older_days) * 24 * 60 * 60);
        let mut count = 0;
        for shelf in 0..=u8::MAX {
            let some = if self.yes {
                sweep_shelf(&store, &blobs, shelf, age).await
            } else {
                unnamed(&store, &blobs, shelf, age).await.map(|unnamed| unnamed.len())
            };
            count += some.map_err(Failure::Unreachable)?;
            if self.yes {
                finish_deleting(&store, &blobs).await.map_err(Failure::Unreachable)?;
            }
        }
        store.close().await;
        if json {
            say(json!({"preview": !self.yes, "blobs": count}));
        } else if self.yes {
            say(format!("deleted {} that nothing named", counted(count as u64, "blob")));
        } else {
            say(format!(
                "{} would be deleted: nothing names what was kept more than {} ago",
                counted(count as u64, "blob"),
                counted(self.older_days.into(), "day")
            ));
            say("nothing was changed: the same command with --yes does it");
        }
        Ok(Ending::Done)
    }
}
