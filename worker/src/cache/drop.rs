//! Deleting blobs that are marked to go: see `store/dropped` for why it is in three steps.

use std::collections::BTreeSet;

use anyhow::Result;
use futures::stream::{self, StreamExt};

use crate::blobs::{BlobError, Blobs};
use crate::failpoint::around;
use crate::store::Store;

/// Blobs that are deleted together, and at a time.
const TOGETHER: u32 = 100;
const AT_A_TIME: usize = 8;

/// Deletes some of the marked blobs; says how many marks were looked at: with 0 there are none, or others are at them.
///
/// # Errors
/// The database or the blob store cannot be asked: what is marked stays so.
pub(crate) async fn delete_some(store: &Store, blobs: &Blobs) -> Result<usize> {
    let (looked_at, unnamed) = store.claim_dropped(TOGETHER).await?;
    if unnamed.is_empty() {
        return Ok(looked_at);
    }
    let deletes = stream::iter(unnamed).map(|hash| async move { (hash, blobs.delete(hash).await) });
    let went: Vec<_> = around("delete_blobs", deletes.buffer_unordered(AT_A_TIME).collect()).await;
    let (mut deleted, mut left, mut failure): (BTreeSet<_>, BTreeSet<_>, Option<BlobError>) =
        Default::default();
    for (hash, went) in went {
        match went {
            Ok(()) => {
                deleted.insert(hash);
            }
            Err(error) => {
                left.insert(hash);
                failure = Some(error);
            }
        }
    }
    store.blobs_deleted(&deleted).await?;
    store.blobs_not_deleted(&left).await?;
    match failure {
        Some(error) => Err(error.into()),
        None => Ok(looked_at),
    }
}
