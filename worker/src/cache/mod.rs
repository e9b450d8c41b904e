//! Cleaning the cache: forgetting, evicting, verifying, and deleting blobs that nothing names. Commands do it when they are told
//! to, every worker's sweep as far as it is set to.
//!
//! What must stay true: rows go before blobs, and a blob only by way of its mark (`store/dropped`).

use std::sync::Arc;
use std::time::Duration;

use crate::app::App;
use crate::blobs::Blobs;
use crate::store::Store;

pub(crate) mod drop;
pub mod evict;
pub mod forget;
pub mod orphans;
pub mod verify;

/// Days for which it is known why a row is gone.
pub(crate) const GONE_DAYS: u32 = 90;
/// Steps of each kind in one round of the sweep: the round comes again soon.
const STEPS: usize = 20;
/// How long one replica has for a shelf of blobs before another one takes it up, and how long after the last one the first comes
/// again.
const SHELF: Duration = Duration::from_secs(600);
const AGAIN: Duration = Duration::from_secs(24 * 60 * 60);
const SWEEP_BLOBS: &str = "sweep_blobs";

/// A round of the sweep.
///
/// # Errors
/// The database or the blob store cannot be asked; the next round goes on.
pub(crate) async fn clean(app: &Arc<App>) -> anyhow::Result<()> {
    let limits = &app.settings.cache;
    for _ in 0..STEPS {
        let gone = evict::step(&app.store, limits).await?;
        if gone.is_empty() {
            break;
        }
        let bytes: u64 = gone.iter().map(|entry| entry.bytes).sum();
        tracing::info!(entries = gone.len(), bytes, "evicted");
    }
    if let Some(age) = limits.sweep_blobs
        && let Some(position) = app.store.take_chore(SWEEP_BLOBS, SHELF).await?
    {
        let shelf = u8::from_str_radix(&position, 16).unwrap_or_default();
        let swept = orphans::sweep_shelf(&app.store, &app.blobs, shelf, age).await?;
        tracing::debug!(shelf, swept, "swept blobs that nothing names");
        match shelf.checked_add(1) {
            Some(next) => {
                app.store.end_chore(SWEEP_BLOBS, &format!("{next:02x}"), Duration::ZERO).await?;
            }
            None => app.store.end_chore(SWEEP_BLOBS, "", AGAIN).await?,
        }
    }
    for _ in 0..STEPS {
        if drop::delete_some(&app.store, &app.blobs).await? == 0 {
            break;
        }
    }
    Ok(())
}

/// Deletes marked blobs until none is left that nobody is at.
///
/// # Errors
/// As for [`drop::delete_some`].
pub(crate) async fn finish_deleting(store: &Store, blobs: &Blobs) -> anyhow::Result<()> {
    while drop::delete_some(store, blobs).await? > 0 {}
    Ok(())
}
