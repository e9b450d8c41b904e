//! Loads the pictures of a task from their sources: a URL, the task itself, our own blobs.
//!
//! All input is untrusted: addresses are guarded, sizes counted, digests checked, formats recognised by
//! content. A picture that cannot be loaded fails alone ([`LoadError::BadInput`]); a host that is down is
//! asked again later ([`LoadError::Temporary`]); an outage of our own store is no verdict on the picture and
//! holds the task ([`LoadError::StoreUnavailable`]).

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

/// A loaded picture.
#[derive(Debug)]
pub struct Loaded {
    /// The encoded file as received.
    pub bytes: Bytes,
    /// SHA-256 of the bytes.
    pub hash: ImageHash,
    /// From its header.
    pub media: Media,
    _share: Share,
}

impl Loaded {
    fn new(bytes: Bytes, hash: ImageHash, media: Media, mut share: Share) -> Self {
        share.shrink(bytes.len());
        Self { bytes, hash, media, _share: share }
    }

    /// A picture that a command has read itself, outside intake's memory.
    pub fn at_hand(bytes: Bytes, media: Media) -> Self {
        let hash = ImageHash::of(&bytes);
        Self { bytes, hash, media, _share: Share::none() }
    }

    /// Its measures.
    pub fn measure(&self) -> Measure {
        Measure { media: self.media, bytes: self.bytes.len() }
    }
}

/// A picture's bytes, not yet recognised: for lookups the digest is enough.
#[derive(Debug)]
pub struct Unrecognised {
    bytes: Bytes,
    /// SHA-256 of the bytes.
    pub hash: ImageHash,
    share: Share,
}

impl Unrecognised {
    /// Recognises its format.
    ///
    /// # Errors
    /// [`LoadError::BadInput`] if it is not a picture.
    pub fn recognise(self) -> Result<Loaded, LoadError> {
        #[cfg(feature = "double")]
        if self.bytes.ends_with(DEADLY) {
            std::process::abort();
        }
        let media = media::inspect(&self.bytes)?;
        Ok(Loaded::new(self.bytes, self.hash, media, self.share))
    }
}

/// Why a picture was not loaded. Codes are for programs, messages for people; neither reveals a path, a query
/// or a credential.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// This picture cannot be loaded, now or later: the image fails, the others go on.
    #[error("{message}")]
    BadInput {
        /// The code in the event, e.g. `source_not_found`.
        code: &'static str,
        /// In words.
        message: String,
    },
    /// Its host is unavailable after several requests: try the task again later.
    #[error("{message}")]
    Temporary {
        /// The code in the event if no retry succeeds, e.g. `source_unavailable`.
        code: &'static str,
        /// In words.
        message: String,
    },
    /// Our own blob store is unavailable: hold the work.
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

/// A picture that ends like this kills the process, as a decoder's bug would. For the test suite only.
#[cfg(feature = "double")]
pub const DEADLY: &[u8] = b"retouch: this picture is deadly";

/// A message too small to hold a picture; 256 of them have 16 MiB together.
const SMALL_MESSAGE_BYTES: usize = 64 * 1024;

/// Loads pictures. Clones share it.
#[derive(Debug, Clone)]
pub struct Sources {
    fetcher: Fetcher,
    blobs: Blobs,
    memory: Memory,
    masks: Memory,
    messages: Memory,
}

impl Sources {
    /// The fetcher's size limit holds for every kind of source; `memory` bounds the bytes of all loaded
    /// pictures: further ones wait. Masks have a quarter of that on top.
    pub fn new(fetcher: Fetcher, blobs: Blobs, memory: usize) -> Self {
        let [masks, messages] = [memory / 4, memory].map(Memory::of);
        Self { fetcher, blobs, memory: Memory::of(memory), masks, messages }
    }

    /// Waits for the memory that a message needs beside its bytes: its pictures become texts of their own,
    /// and an escaped one exists twice while it is parsed. A small message does not wait.
    pub(crate) async fn room_for_message(&self, bytes: usize) -> Share {
        if bytes <= SMALL_MESSAGE_BYTES {
            return Share::none();
        }
        self.messages.share(bytes.saturating_mul(2)).await
    }

    /// Loads one picture, whole and recognised. It holds its share of the memory until it is dropped: a
    /// holder must not wait for another one.
    ///
    /// # Errors
    /// [`LoadError`].
    pub async fn load(&self, source: &Source) -> Result<Loaded, LoadError> {
        self.read(source).await?.recognise()
    }

    /// As [`Sources::load`] without recognition, for callers that may need only the digest.
    ///
    /// # Errors
    /// [`LoadError`].
    pub async fn read(&self, source: &Source) -> Result<Unrecognised, LoadError> {
        self.read_into(&self.memory, source).await
    }

    /// A mask, as [`Sources::load`]. It is held while the task's pictures are loaded, so masks have memory of
    /// their own.
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
