//! Gets the pictures of a task from where the producer says they are: a URL, the task itself, our own blobs.
//!
//! Nothing in here is believed: addresses are guarded, sizes counted, digests checked, formats told by
//! content. A picture that cannot be had fails alone ([`LoadError::BadInput`]); a host that is down is asked
//! again later ([`LoadError::Temporary`]); our own store being down says nothing about the picture and holds
//! the task ([`LoadError::StoreUnavailable`]).

mod addresses;
mod data_uri;
pub mod fetch;
pub mod guard;
pub(crate) mod memory;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use retouch_shared::key::ImageHash;
use retouch_shared::task::Source;

use crate::blobs::{self, BlobError, Blobs};
use crate::editor::Measure;
use crate::media::{self, Media, MediaError};

use data_uri::DataUriError;
use fetch::{FetchError, Fetched, Fetcher};
use memory::Memory;
pub(crate) use memory::Share;

/// A picture at hand.
#[derive(Debug)]
pub struct Loaded {
    /// The encoded file, exactly as it came.
    pub bytes: Bytes,
    /// SHA-256 of the bytes.
    pub hash: ImageHash,
    /// What its header says.
    pub media: Media,
    _share: Share,
}

impl Loaded {
    fn new(bytes: Bytes, hash: ImageHash, media: Media, mut share: Share) -> Self {
        share.shrink(bytes.len());
        Self { bytes, hash, media, _share: share }
    }

    /// One that a command has read itself: beside what intake holds.
    pub fn at_hand(bytes: Bytes, media: Media) -> Self {
        let hash = ImageHash::of(&bytes);
        Self { bytes, hash, media, _share: Share::none() }
    }

    /// Its measures.
    pub fn measure(&self) -> Measure {
        Measure { media: self.media, bytes: self.bytes.len() }
    }
}

/// A picture's bytes at hand, and nobody has looked what they are: where their digest is enough, nobody need.
#[derive(Debug)]
pub struct Unrecognised {
    bytes: Bytes,
    /// SHA-256 of the bytes.
    pub hash: ImageHash,
    share: Share,
}

impl Unrecognised {
    /// Looks what it is.
    ///
    /// # Errors
    /// [`LoadError::BadInput`] where it is no picture.
    pub fn recognise(self) -> Result<Loaded, LoadError> {
        #[cfg(feature = "double")]
        if self.bytes.ends_with(DEADLY) {
            std::process::abort();
        }
        let media = media::inspect(&self.bytes)?;
        Ok(Loaded::new(self.bytes, self.hash, media, self.share))
    }
}

/// Why a picture is not at hand. Codes are for programs, messages for people; neither tells a path, a query
/// or a credential.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// This picture cannot be had, now or later: the image fails, the others go on.
    #[error("{message}")]
    BadInput {
        /// What the producer sees, e.g. `source_not_found`.
        code: &'static str,
        /// In words.
        message: String,
    },
    /// Its host does not answer properly at the moment, and was asked more than once: try the task again later.
    #[error("{message}")]
    Temporary {
        /// What the producer sees when later never comes, e.g. `source_unavailable`.
        code: &'static str,
        /// In words.
        message: String,
    },
    /// Our own blob store cannot be asked: hold the work.
    #[error("the blob store cannot be used: {0}")]
    StoreUnavailable(String),
}

impl From<FetchError> for LoadError {
    fn from(error: FetchError) -> Self {
        let (code, message) = (error.code(), error.to_string());
        if error.is_temporary() {
            return Self::Temporary { code, message };
        }
        Self::BadInput { code, message }
    }
}

impl From<BlobError> for LoadError {
    fn from(error: BlobError) -> Self {
        let message = error.to_string();
        match error {
            BlobError::Missing(_) => Self::BadInput { code: "blob_missing", message },
            BlobError::Corrupt(_) => Self::BadInput { code: "blob_corrupt", message },
            BlobError::Unavailable(why) => Self::StoreUnavailable(why),
        }
    }
}

impl From<DataUriError> for LoadError {
    fn from(error: DataUriError) -> Self {
        Self::BadInput { code: error.code(), message: error.to_string() }
    }
}

impl From<MediaError> for LoadError {
    fn from(error: MediaError) -> Self {
        Self::BadInput { code: error.code(), message: error.to_string() }
    }
}

/// The process dies of a picture that ends like this, as of a decoder's bug. For the test suite only.
#[cfg(feature = "double")]
pub const DEADLY: &[u8] = b"retouch: this picture is deadly";

/// A message without a picture in it; 256 of them have 16 MiB together.
const SMALL_MESSAGE_BYTES: usize = 64 * 1024;

/// Everything that pictures are loaded with. Clones share it.
#[derive(Debug, Clone)]
pub struct Sources {
    fetcher: Fetcher,
    blobs: Blobs,
    memory: Memory,
    masks: Memory,
    messages: Memory,
}

impl Sources {
    /// The fetcher's limit of size holds for every kind of source; `memory` bytes, for all pictures that are at hand at once: what
    /// is beyond waits. Masks have a quarter of that beside it.
    pub fn new(fetcher: Fetcher, blobs: Blobs, memory: usize) -> Self {
        let [masks, messages] = [memory / 4, memory].map(Memory::of);
        Self { fetcher, blobs, memory: Memory::of(memory), masks, messages }
    }

    /// Waits for the memory that a message takes while it is worked on, beside its bytes: the pictures in it
    /// become texts of their own, and one that is written with escapes is a text twice while it is parsed.
    /// What is small waits for nothing.
    pub(crate) async fn room_for_message(&self, bytes: usize) -> Share {
        if bytes <= SMALL_MESSAGE_BYTES {
            return Share::none();
        }
        self.messages.share(bytes.saturating_mul(2)).await
    }

    /// One picture, whole and recognised. It has its share of the memory until it is dropped: whoever holds one must not wait
    /// for another.
    ///
    /// # Errors
    /// [`LoadError`].
    pub async fn load(&self, source: &Source) -> Result<Loaded, LoadError> {
        self.read(source).await?.recognise()
    }

    /// As [`Sources::load`], for whoever may do with the digest.
    ///
    /// # Errors
    /// [`LoadError`].
    pub async fn read(&self, source: &Source) -> Result<Unrecognised, LoadError> {
        self.read_into(&self.memory, source).await
    }

    /// A mask, as [`Sources::load`]. It is held while the task's pictures are loaded, so that it has memory of its own.
    ///
    /// # Errors
    /// [`LoadError`].
    pub async fn load_mask(&self, source: &Source) -> Result<Loaded, LoadError> {
        self.read_into(&self.masks, source).await?.recognise()
    }

    async fn read_into(&self, memory: &Memory, source: &Source) -> Result<Unrecognised, LoadError> {
        let limit = self.fetcher.limits().max_bytes;
        let (bytes, hash, share) = match source {
            Source::Url { url, image_hash } => {
                let Fetched { bytes, hash, share } = self.fetcher.fetch_into(memory, url).await?;
                if let Some(said) = image_hash.filter(|said| *said != hash) {
                    let message = format!(
                        "the picture at the URL is {hash}, not {said} as image_hash says: correct it or leave it out"
                    );
                    return Err(LoadError::BadInput { code: "image_hash_mismatch", message });
                }
                (bytes, hash, share)
            }
            Source::Data(uri) => {
                let share = memory.share(uri.len().min(limit)).await;
                let bytes = data_uri::decode(uri, limit)?;
                let hash = blobs::digest(&bytes).await;
                (bytes, hash, share)
            }
            Source::Blob(hash) => {
                let share = memory.share(limit).await;
                (self.blobs.get(*hash).await?, *hash, share)
            }
        };
        if bytes.len() > limit {
            let message = format!("blob {hash} has more than {limit} bytes, the limit for a picture");
            return Err(LoadError::BadInput { code: "too_large", message });
        }
        Ok(Unrecognised { bytes, hash, share })
    }
}
