//! Blobs that no row names: inputs of calls that are over, and what a worker that died had kept for a row that never came.
//!
//! What must stay true: a blob goes only when nobody has written it for longer than anything waits between a picture and the row
//! that names it: a message in a queue that names a picture by its digest, a call on its ladder of waits. The shortest age that
//! can be set is seven days: the ladder ends after hours, and a queue that is a week behind has other worries. That a blob is
//! needed at this very moment is what its mark guards.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;
use retouch_shared::key::Digest32;

use crate::blobs::Blobs;
use crate::store::Store;

/// Names that are looked up together.
const TOGETHER: usize = 500;

/// Marks the blobs of one shelf that nothing names; says how many.
///
/// # Errors
/// The database or the blob store cannot be asked.
pub async fn sweep_shelf(store: &Store, blobs: &Blobs, shelf: u8, age: Duration) -> Result<usize> {
    let mut swept = 0;
    for unnamed in unnamed(store, blobs, shelf, age).await?.chunks(TOGETHER) {
        store.drop_blobs(&unnamed.iter().copied().collect()).await?;
        swept += unnamed.len();
    }
    Ok(swept)
}

/// The blobs of one shelf that nothing names.
///
/// # Errors
/// As for [`sweep_shelf`].
pub async fn unnamed(store: &Store, blobs: &Blobs, shelf: u8, age: Duration) -> Result<Vec<Digest32>> {
    let mut unnamed = Vec::new();
    for old in blobs.list_old(shelf, age).await?.chunks(TOGETHER) {
        let old: BTreeSet<Digest32> = old.iter().copied().collect();
        let named = store.named_blobs(&old).await?;
        unnamed.extend(old.difference(&named));
    }
    Ok(unnamed)
}
