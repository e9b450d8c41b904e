//! Batched existence checks in a folder: checking a file takes microseconds, and the hand-over to a blocking
//! thread many times that.

use std::fs::metadata;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use retouch_shared::key::Digest32;

use super::{BlobError, reference, unavailable};
use crate::together::Together;

/// Blobs in one batch.
const MOST: usize = 256;

/// A blob, and its size if known.
type Wanted = (Digest32, Option<u64>);

/// The batcher of one folder.
#[derive(Debug, Clone)]
pub(super) struct Presence {
    /// The folder of all blobs.
    folder: Arc<PathBuf>,
    asked: Arc<Together<Wanted, Result<bool, BlobError>>>,
}

impl Presence {
    pub(super) fn of(folder: &Path) -> Self {
        Self { folder: Arc::new(folder.to_owned()), asked: Together::new(MOST) }
    }

    pub(super) async fn exists(&self, hash: Digest32, bytes: Option<u64>) -> Result<bool, BlobError> {
        let folder = Arc::clone(&self.folder);
        let look = move |wanted: Vec<Wanted>| {
            let folder = Arc::clone(&folder);
            async move {
                let count = wanted.len();
                let looking = move || wanted.iter().map(|wanted| is_there(&folder, *wanted)).collect();
                let looked: Result<Vec<_>, _> = tokio::task::spawn_blocking(looking).await;
                looked.unwrap_or_else(|error| vec![Err(BlobError::Unavailable(error.to_string())); count])
            }
        };
        let cut_off = || Err(BlobError::Unavailable("the look was cut off".to_owned()));
        self.asked.ask((hash, bytes), look).await.unwrap_or_else(cut_off)
    }
}

/// "Not found" is trusted only from a folder that is present.
fn is_there(folder: &Path, (hash, bytes): Wanted) -> Result<bool, BlobError> {
    let file = folder.join(reference(hash));
    match metadata(&file) {
        Ok(meta) => Ok(meta.is_file() && bytes.is_none_or(|bytes| meta.len() == bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let root = folder.join(super::ALGORITHM);
            match metadata(&root) {
                Ok(meta) if meta.is_dir() => Ok(false),
                Ok(_) => Err(unavailable(format!("{} is not a folder", root.display()))),
                Err(error) => Err(unavailable(format!("{}: {error}", root.display()))),
            }
        }
        Err(error) => Err(unavailable(format!("{}: {error}", file.display()))),
    }
}
