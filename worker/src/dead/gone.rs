//! Which edits of dead letters are hits by now: a hit's bytes exist.

use std::collections::HashMap;

use futures::future::FutureExt;
use futures::stream::{self, StreamExt, TryStreamExt};
use retouch_shared::key::{Digest32, EditKey};

use crate::blobs::{BlobError, Blobs};
use crate::metrics::count::blob_error;
use crate::store::CachedResult;

/// Blobs that are looked for at a time.
const LOOKS: usize = 8;

/// Those of these results whose blobs do not exist: they are misses, and the log says why.
pub(super) async fn gone_blobs<'a>(
    blobs: &Blobs,
    results: impl Iterator<Item = &'a CachedResult>,
) -> Result<HashMap<EditKey, Digest32>, BlobError> {
    let check = |result: &'a CachedResult| {
        let hash = result.result_hash?;
        let exists =
            async move { Ok((result.edit_key, hash, blobs.exists(hash, Some(result.bytes)).await?)) };
        Some(exists.boxed())
    };
    let checks: Vec<_> = results.filter_map(check).collect();
    let checks: Vec<_> = stream::iter(checks).buffer_unordered(LOOKS).try_collect().await?;
    let mut gone = HashMap::new();
    for (edit_key, hash, exists) in checks {
        if !exists {
            blob_error("missing");
            tracing::warn!(%edit_key, blob = %hash, "a cached result has lost its blob: a miss");
            gone.insert(edit_key, hash);
        }
    }
    Ok(gone)
}
