//! Files too large for memory: written to the store while they arrive, and renamed once their digest is
//! known.
//!
//! Invariant: the object under a digest's name is whole. Until then a file is under `incoming/`, which is
//! never served, and remains of a crash are deleted by the next large file after a day.

use bytes::{Bytes, BytesMut};
use chrono::{TimeDelta, Utc};
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutMultipartOptions, WriteMultipart};
use retouch_shared::key::Hasher;

use super::{BlobError, BlobRef, Blobs, explain, unavailable};

/// Folder of files without a digest yet.
const FOLDER: &str = "incoming";
/// A file up to this size stays in memory: most results do, and are stored with one request.
const INLINE_BYTES: usize = 8 * 1024 * 1024;
/// The S3 minimum is 5 MiB for every part but the last.
const PART_BYTES: usize = 8 * 1024 * 1024;
/// Parts uploaded at a time: with the one being filled they are all that is in memory.
const PARTS: usize = 2;
/// Longer than any download.
const ABANDONED: TimeDelta = TimeDelta::days(1);

/// A file that has arrived whole.
#[derive(Debug)]
pub enum Received {
    /// In memory.
    Whole(Bytes),
    /// In the store, not yet under a digest.
    Incoming(Incoming),
}

/// A large file in the store, with its beginning in memory.
#[derive(Debug)]
pub struct Incoming {
    path: Path,
    blob: BlobRef,
    head: Bytes,
}

impl Received {
    /// The file, or the beginning that is in memory: enough to recognise its format.
    pub fn head(&self) -> &[u8] {
        match self {
            Self::Whole(bytes) => bytes,
            Self::Incoming(incoming) => &incoming.head,
        }
    }
}

/// A file during its arrival.
pub struct Arriving<'a> {
    blobs: &'a Blobs,
    head: BytesMut,
    bytes: u64,
    upload: Option<Upload>,
}

struct Upload {
    path: Path,
    writer: WriteMultipart,
    hasher: Hasher,
    head: Bytes,
}

impl<'a> Arriving<'a> {
    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Writes the next bytes.
    ///
    /// # Errors
    /// [`BlobError::Unavailable`]: the store refuses them.
    pub async fn write(&mut self, chunk: Bytes) -> Result<(), BlobError> {
        self.bytes += chunk.len() as u64;
        if let Some(upload) = &mut self.upload {
            return upload.write(chunk).await;
        }
        self.head.extend_from_slice(&chunk);
        if self.head.len() > INLINE_BYTES {
            self.upload = Some(self.blobs.begin_upload(self.head.split().freeze()).await?);
        }
        Ok(())
    }

    /// Ends the file.
    ///
    /// # Errors
    /// [`BlobError::Unavailable`].
    pub async fn finish(self) -> Result<Received, BlobError> {
        let Some(Upload { path, writer, hasher, head }) = self.upload else {
            return Ok(Received::Whole(self.head.freeze()));
        };
        writer.finish().await.map_err(|error| unavailable(explain(&error)))?;
        let blob = BlobRef { hash: hasher.digest(), bytes: self.bytes };
        Ok(Received::Incoming(Incoming { path, blob, head }))
    }
}

impl Upload {
    async fn write(&mut self, chunk: Bytes) -> Result<(), BlobError> {
        self.writer.wait_for_capacity(PARTS).await.map_err(|error| unavailable(explain(&error)))?;
        self.hasher.update(&chunk);
        self.writer.put(chunk);
        Ok(())
    }
}

impl Blobs {
    /// Begins a file.
    pub fn receive(&self) -> Arriving<'_> {
        Arriving { blobs: self, head: BytesMut::new(), bytes: 0, upload: None }
    }

    async fn begin_upload(&self, head: Bytes) -> Result<Upload, BlobError> {
        self.delete_abandoned().await;
        let path = self.incoming().join(uuid::Uuid::now_v7().simple().to_string());
        let content_type =
            crate::media::identify(&head).map_or(super::UNKNOWN_TYPE, |kind| kind.content_type);
        let options = PutMultipartOptions {
            attributes: self.attributes(content_type),
            ..PutMultipartOptions::default()
        };
        let upload = self.store.put_multipart_opts(&path, options).await;
        let upload = upload.map_err(|error| unavailable(explain(&error)))?;
        let writer = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
        let mut upload = Upload { path, writer, hasher: Hasher::default(), head: head.clone() };
        upload.write(head).await?;
        Ok(upload)
    }

    /// Stores an arrived file under its digest; may be repeated.
    ///
    /// # Errors
    /// [`BlobError`].
    pub async fn put_received(&self, received: &Received, content_type: &str) -> Result<BlobRef, BlobError> {
        let Incoming { path, blob, .. } = match received {
            Received::Whole(bytes) => return self.put(bytes.clone(), content_type).await,
            Received::Incoming(incoming) => incoming,
        };
        match self.store.rename(path, &self.path(blob.hash)).await {
            Ok(()) => {}
            // An earlier try got this far.
            Err(object_store::Error::NotFound { .. }) if self.exists(blob.hash, Some(blob.bytes)).await? => {}
            Err(error) => return Err(self.not_read(blob.hash, &error).await),
        }
        self.remember(blob.hash, blob.bytes);
        Ok(*blob)
    }

    /// Deletes an unwanted file. If that fails, it is deleted after a day.
    pub async fn discard_received(&self, received: Received) {
        if let Received::Incoming(Incoming { path, .. }) = received
            && let Err(error) = self.store.delete(&path).await
        {
            tracing::warn!(error = explain(&error), "an unwanted file stays for a day");
        }
    }

    fn incoming(&self) -> Path {
        self.prefix.clone().join(FOLDER)
    }

    /// Deletes abandoned files; a failure is not an error.
    async fn delete_abandoned(&self) {
        let folder = self.incoming();
        let mut listing = self.store.list(Some(&folder));
        while let Ok(Some(meta)) = listing.try_next().await {
            if Utc::now() - meta.last_modified > ABANDONED
                && let Err(error) = self.store.delete(&meta.location).await
            {
                tracing::debug!(error = explain(&error), "an abandoned file stays");
            }
        }
    }
}
