//! Blobs: bytes by their SHA-256, in a folder, an S3-compatible bucket or memory.
//!
//! A struct over `object_store`, whose trait is the port already. Invariants: returned bytes have the
//! requested digest; a `put` that returned survives a power cut; and an unavailable store (unplugged disk,
//! unmounted share, missing bucket) is never mistaken for one that lacks the blob, because a missing blob is
//! paid for again.

use std::fs::Permissions;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, BackoffConfig, GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutOptions,
    RetryConfig,
};
use retouch_shared::key::{Digest32, Hasher};
use url::Url;

use crate::metrics::count::blob_error;
use crate::private;

mod incoming;
mod location;
mod presence;
mod seen;
#[cfg(test)]
mod tests;

use presence::Presence;

pub use incoming::{Arriving, Received};
pub use location::{BadLocation, BlobsLocation};
use seen::Seen;

/// Content type of anything but a known picture format.
pub const UNKNOWN_TYPE: &str = "application/octet-stream";
/// First part of every object key and of every reference.
const ALGORITHM: &str = "sha256";
/// Larger bytes are hashed on another thread: 20 MiB keep a core busy for tens of milliseconds.
const HASH_INLINE_BYTES: usize = 256 * 1024;
/// A `put` rewrites blobs older than this: far less than any age at which blobs are swept.
const RENEW: TimeDelta = TimeDelta::days(1);
/// Retries inside the S3 client; beyond them the caller holds the work.
const S3_RETRIES: RetryConfig = RetryConfig {
    backoff: BackoffConfig {
        init_backoff: Duration::from_millis(100),
        max_backoff: Duration::from_secs(5),
        base: 2.0,
    },
    max_retries: 4,
    retry_timeout: Duration::from_secs(30),
};

/// Errors, by what the caller does next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlobError {
    /// The store answered that it lacks the blob: for a result, a miss with a reason.
    #[error("the blob store has no blob {0}")]
    Missing(Digest32),
    /// Other bytes are stored under its name. Never served; the next `put` of the right bytes heals it.
    #[error("blob {0} is damaged: its bytes have another digest")]
    Corrupt(Digest32),
    /// The store is unavailable: hold the work, and pay nothing.
    #[error("the blob store cannot be used: {0}")]
    Unavailable(String),
}

/// A stored blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobRef {
    /// SHA-256 of the bytes.
    pub hash: Digest32,
    /// Size in bytes.
    pub bytes: u64,
}

/// The blob store. Clones share it.
#[derive(Debug, Clone)]
pub struct Blobs {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    place: Place,
    /// Blobs seen a moment ago, for stores where asking costs a round trip.
    seen: Arc<Seen>,
}

/// Properties of the backend: object_store stores content types only in some, and shows a missing root as
/// empty.
#[derive(Debug, Clone)]
enum Place {
    /// The `sha256` folder; created when the store is opened, so that its later absence is a lost mount.
    Folder(PathBuf, Presence),
    Bucket,
    Memory,
}

impl Blobs {
    /// Opens the store and creates a missing folder. Does not touch the network.
    ///
    /// # Errors
    /// [`BlobError::Unavailable`] if the folder cannot be created or the `AWS_*` settings are invalid.
    pub fn open(location: &BlobsLocation) -> Result<Self, BlobError> {
        Self::open_with(location, S3_RETRIES)
    }

    /// As [`Blobs::open`], without retries: for diagnosis.
    ///
    /// # Errors
    /// As there.
    pub fn open_to_look(location: &BlobsLocation) -> Result<Self, BlobError> {
        Self::open_with(location, RetryConfig { max_retries: 0, ..S3_RETRIES })
    }

    fn open_with(location: &BlobsLocation, retries: RetryConfig) -> Result<Self, BlobError> {
        let unusable = |why: String| BlobError::Unavailable(format!("{location}: {why}"));
        match location {
            BlobsLocation::Memory => Ok(Self {
                store: Arc::new(InMemory::new()),
                prefix: Path::default(),
                place: Place::Memory,
                seen: Arc::default(),
            }),
            BlobsLocation::Folder(folder) => {
                let root = folder.join(ALGORITHM);
                private::make_folder(&root).map_err(|error| unusable(error.to_string()))?;
                // Protects everything in it from other users.
                private::tighten(&root, private::FOLDER);
                // Without fsync, a power cut could leave a row that names an empty file.
                let store = LocalFileSystem::new_with_prefix(folder)
                    .map_err(|error| unusable(explain(&error)))?
                    .with_fsync(true);
                let place = Place::Folder(root, Presence::of(folder));
                Ok(Self { store: Arc::new(store), prefix: Path::default(), place, seen: Arc::default() })
            }
            BlobsLocation::S3 { bucket, prefix } => {
                crate::tls::init();
                // S3-compatible stores often lack bulk delete, and we delete one at a time.
                let store = AmazonS3Builder::from_env()
                    .with_bucket_name(bucket)
                    .with_retry(retries)
                    .with_disable_bulk_delete(true)
                    .build();
                Ok(Self {
                    store: Arc::new(store.map_err(|error| unusable(explain(&error)))?),
                    prefix: Path::parse(prefix).map_err(|error| unusable(error.to_string()))?,
                    place: Place::Bucket,
                    seen: Arc::default(),
                })
            }
        }
    }

    /// Stores `bytes`, durably and atomically, with `content_type` if the store can. An existing blob is read
    /// back rather than rewritten, which also heals a damaged one; but an old one is rewritten, so that its
    /// age shows when it was last needed, see [`Blobs::list_old`].
    ///
    /// # Errors
    /// [`BlobError::Unavailable`].
    pub async fn put(&self, bytes: Bytes, content_type: &str) -> Result<BlobRef, BlobError> {
        let hash = digest(&bytes).await;
        let kept = BlobRef { hash, bytes: bytes.len() as u64 };
        match self.read(hash).await {
            Ok((_, modified)) if Utc::now() - modified < RENEW => return Ok(kept),
            Ok(_) | Err(BlobError::Missing(_) | BlobError::Corrupt(_)) => {}
            Err(error @ BlobError::Unavailable(_)) => return Err(error),
        }
        let options = PutOptions { attributes: self.attributes(content_type), ..PutOptions::default() };
        self.store
            .put_opts(&self.path(hash), bytes.into(), options)
            .await
            .map_err(|error| unavailable(explain(&error)))?;
        self.make_private(hash).await;
        self.remember(hash, kept.bytes);
        Ok(kept)
    }

    /// The folder already keeps other users out; this protects copies that keep the mode.
    async fn make_private(&self, hash: Digest32) {
        let Place::Folder(root, _) = &self.place else { return };
        let Some(file) = root.parent().map(|folder| folder.join(reference(hash))) else { return };
        let rights = <Permissions as PermissionsExt>::from_mode(private::FILE);
        if let Err(error) = tokio::fs::set_permissions(&file, rights).await {
            tracing::debug!(%error, "cannot remove the rights of other users from a blob");
        }
    }

    /// The bytes of a blob, checked against their digest.
    ///
    /// # Errors
    /// Any [`BlobError`].
    pub async fn get(&self, hash: Digest32) -> Result<Bytes, BlobError> {
        Ok(self.read(hash).await?.0)
    }

    /// The size of a blob from the store's metadata; its bytes are not read.
    ///
    /// # Errors
    /// [`BlobError::Missing`] or [`BlobError::Unavailable`].
    pub async fn size(&self, hash: Digest32) -> Result<u64, BlobError> {
        match self.store.head(&self.path(hash)).await {
            Ok(meta) => Ok(meta.size),
            Err(error) => Err(self.not_read(hash, &error).await),
        }
    }

    /// The bytes of a blob in chunks. The last chunk comes only if all had the requested digest: a damaged
    /// blob ends in an error instead.
    ///
    /// # Errors
    /// Any [`BlobError`].
    pub async fn stream(&self, hash: Digest32) -> Result<BlobStream, BlobError> {
        match self.store.get(&self.path(hash)).await {
            Ok(found) => Ok(checked(found.into_stream(), hash, Arc::clone(&self.seen))),
            Err(error) => Err(self.not_read(hash, &error).await),
        }
    }

    /// As [`Blobs::stream`], for a range. All of it is read and checked before the first byte.
    ///
    /// # Errors
    /// Any [`BlobError`].
    pub async fn stream_part(&self, hash: Digest32, range: Range<u64>) -> Result<BlobStream, BlobError> {
        let mut all = self.stream(hash).await?;
        while all.try_next().await?.is_some() {}
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        match self.store.get_opts(&self.path(hash), options).await {
            Ok(found) => Ok(found.into_stream().map_err(|error| unavailable(explain(&error))).boxed()),
            Err(error) => Err(self.not_read(hash, &error).await),
        }
    }

    /// The bytes, and the time of their last write.
    async fn read(&self, hash: Digest32) -> Result<(Bytes, DateTime<Utc>), BlobError> {
        let found = match self.store.get(&self.path(hash)).await {
            Ok(found) => found,
            Err(error) => return Err(self.not_read(hash, &error).await),
        };
        let modified = found.meta.last_modified;
        let bytes = match found.bytes().await {
            Ok(bytes) => bytes,
            Err(error) => return Err(self.not_read(hash, &error).await),
        };
        if digest(&bytes).await == hash {
            return Ok((bytes, modified));
        }
        self.seen.forget(hash);
        blob_error("corrupt");
        Err(BlobError::Corrupt(hash))
    }

    /// Whether the blob exists, by its name and, if given, its size; its bytes are not read. For a bucket the
    /// answer may be a minute old; a folder is always asked.
    ///
    /// # Errors
    /// [`BlobError::Unavailable`].
    pub async fn exists(&self, hash: Digest32, expected_bytes: Option<u64>) -> Result<bool, BlobError> {
        if let Place::Folder(_, presence) = &self.place {
            return presence.exists(hash, expected_bytes).await;
        }
        if let Some(size) = self.seen.size(hash) {
            return Ok(expected_bytes.is_none_or(|expected| size == expected));
        }
        match self.store.head(&self.path(hash)).await {
            Ok(meta) => {
                self.remember(hash, meta.size);
                Ok(expected_bytes.is_none_or(|expected| meta.size == expected))
            }
            Err(error) => match self.not_read(hash, &error).await {
                BlobError::Missing(_) => Ok(false),
                other @ (BlobError::Corrupt(_) | BlobError::Unavailable(_)) => Err(other),
            },
        }
    }

    /// Deletes a blob; a missing one is no error.
    ///
    /// # Errors
    /// [`BlobError::Unavailable`].
    pub async fn delete(&self, hash: Digest32) -> Result<(), BlobError> {
        self.seen.forget(hash);
        match self.store.delete(&self.path(hash)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(unavailable(explain(&error))),
        }
    }

    /// The blobs of one of the 256 prefixes that were last written longer ago than `age`.
    ///
    /// # Errors
    /// [`BlobError::Unavailable`].
    pub async fn list_old(&self, shelf: u8, age: Duration) -> Result<Vec<Digest32>, BlobError> {
        self.is_there().await.map_err(unavailable)?;
        let folder = self.prefix.clone().join(ALGORITHM).join(format!("{shelf:02x}"));
        let mut listing = self.store.list(Some(&folder));
        let mut old = Vec::new();
        while let Some(meta) = listing.try_next().await.map_err(|error| unavailable(explain(&error)))? {
            let hash = meta.location.filename().and_then(|name| name.parse::<Digest32>().ok());
            // Other names are not ours, or still being written.
            let Some(hash) = hash.filter(|hash| self.path(*hash) == meta.location) else { continue };
            let written = (Utc::now() - meta.last_modified).to_std().unwrap_or_default();
            if written > age {
                old.push(hash);
            }
        }
        Ok(old)
    }

    fn remember(&self, hash: Digest32, size: u64) {
        if matches!(self.place, Place::Bucket) {
            self.seen.note(hash, size);
        }
    }

    fn path(&self, hash: Digest32) -> Path {
        let hex = hash.to_hex();
        let (shelf, _) = hex.split_at(2);
        self.prefix.clone().join(ALGORITHM).join(shelf).join(hex.as_str())
    }

    fn attributes(&self, content_type: &str) -> Attributes {
        match self.place {
            // A folder cannot store them, and object_store refuses instead of dropping them.
            Place::Folder(..) => Attributes::new(),
            // Content under its digest never changes: a CDN may keep it for good.
            Place::Bucket | Place::Memory => Attributes::from_iter([
                (Attribute::ContentType, content_type.to_owned()),
                (Attribute::CacheControl, "public, max-age=31536000, immutable".to_owned()),
            ]),
        }
    }

    /// "Not found" is trusted only from a store that is present.
    async fn not_read(&self, hash: Digest32, error: &object_store::Error) -> BlobError {
        self.seen.forget(hash);
        if matches!(error, object_store::Error::NotFound { .. }) {
            return match self.is_there().await {
                Ok(()) => BlobError::Missing(hash),
                Err(why) => unavailable(why),
            };
        }
        if !is_refusal(error) {
            return unavailable(explain(error));
        }
        // The answer to a HEAD has no body with the reason; a listing has.
        let why = self.is_there().await.err().unwrap_or_else(|| explain(error));
        unavailable(format!(
            "we are refused: check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the right of that key to list, read and \
             write: {why}"
        ))
    }

    async fn is_there(&self) -> Result<(), String> {
        match &self.place {
            Place::Memory => Ok(()),
            Place::Folder(root, _) => match tokio::fs::metadata(root).await {
                Ok(meta) if meta.is_dir() => Ok(()),
                Ok(_) => Err(format!("{} is not a folder", root.display())),
                Err(error) => Err(format!("{}: {error}", root.display())),
            },
            // A HEAD answers 404 for a missing bucket as for a missing object; listing tells them apart.
            Place::Bucket => {
                let mut listing = self.store.list(Some(&self.prefix.clone().join(ALGORITHM)));
                listing.try_next().await.map(|_| ()).map_err(|error| no_listing(&error))
            }
        }
    }
}

/// The bytes of a blob in chunks.
pub type BlobStream = BoxStream<'static, Result<Bytes, BlobError>>;

type ChunkStream = BoxStream<'static, object_store::Result<Bytes>>;

/// Passes chunks on, one behind, until the digest of all is verified.
fn checked(chunks: ChunkStream, hash: Digest32, seen: Arc<Seen>) -> BlobStream {
    let begun = (chunks, Hasher::default(), None::<Bytes>);
    let next = move |(mut chunks, mut hasher, mut held): (ChunkStream, Hasher, Option<Bytes>)| {
        let seen = Arc::clone(&seen);
        async move {
            while let Some(chunk) = chunks.try_next().await.map_err(|error| unavailable(explain(&error)))? {
                hasher.update(&chunk);
                if let Some(earlier) = held.replace(chunk) {
                    return Ok(Some((earlier, (chunks, hasher, held))));
                }
            }
            if hasher.clone().digest() != hash {
                seen.forget(hash);
                blob_error("corrupt");
                return Err(BlobError::Corrupt(hash));
            }
            Ok(held.take().map(|last| (last, (chunks, hasher, None))))
        }
    };
    stream::try_unfold(begun, next).boxed()
}

fn is_refusal(error: &object_store::Error) -> bool {
    use object_store::Error::{PermissionDenied, Unauthenticated};
    matches!(error, PermissionDenied { .. } | Unauthenticated { .. })
}

/// Why a bucket cannot be listed, and the setting to correct.
fn no_listing(error: &object_store::Error) -> String {
    let text = explain(error);
    if text.contains("NoSuchBucket") {
        return format!("the bucket does not exist: make it, or name another one in RETOUCH_BLOBS: {text}");
    }
    text
}

fn unavailable(why: String) -> BlobError {
    blob_error("unavailable");
    BlobError::Unavailable(why)
}

/// The location of a blob relative to the public base; also its object key under the prefix.
pub fn reference(hash: Digest32) -> String {
    let hex = hash.to_hex();
    let (shelf, _) = hex.split_at(2);
    format!("{ALGORITHM}/{shelf}/{hex}")
}

/// A reference as a URL: relative to `public_base` (with or without its final slash), an absolute one
/// unchanged.
pub fn resolve(public_base: &Url, reference: &str) -> String {
    // Imported URLs are returned byte for byte, not re-serialised: they may be signed.
    if Url::parse(reference).is_ok() {
        return reference.to_owned();
    }
    let mut base = public_base.clone();
    base.set_query(None);
    base.set_fragment(None);
    let base = base.as_str().trim_end_matches('/');
    format!("{base}/{}", reference.trim_start_matches('/'))
}

/// Hashes possibly many megabytes without blocking a runtime thread.
pub(crate) async fn digest(bytes: &Bytes) -> Digest32 {
    if bytes.len() <= HASH_INLINE_BYTES {
        return Digest32::of(bytes);
    }
    let shared = bytes.clone();
    let hashing = tokio::task::spawn_blocking(move || Digest32::of(&shared));
    // Spawning fails only while the runtime shuts down.
    hashing.await.unwrap_or_else(|_| Digest32::of(bytes))
}

/// The error with its causes, on one bounded line; S3 repeats the key id in some answers.
fn explain(error: &object_store::Error) -> String {
    let text = error.to_string();
    let public = text.split("<AWSAccessKeyId>").next().unwrap_or_default();
    let words: Vec<_> = public.split_whitespace().collect();
    words.join(" ").chars().take(400).collect()
}
