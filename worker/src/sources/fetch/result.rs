//! Downloads a provider's result: past the guard like all downloads, and into the blob store while it
//! arrives.
//!
//! It is paid for, so its size is bounded by a setting and not by memory, and its time by progress and not by
//! a total deadline.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::Response;
use reqwest::header::CONTENT_TYPE;
use tokio::time::{Instant, timeout, timeout_at};
use url::Url;

use super::{FetchError, Fetcher, Purpose, failed, host_of};
use crate::blobs::{BlobError, Blobs, Received};
use crate::coding::{self, CodingError};
use crate::media::memory;
use crate::sources::guard::AllowHosts;

/// Timeout for the next bytes of a stalled host.
const STALLED: Duration = Duration::from_secs(30);
/// Total timeout, however slow the host.
const ALL: Duration = Duration::from_secs(30 * 60);

/// A result that has arrived whole.
#[derive(Debug)]
pub(crate) struct ResultFile {
    /// Its bytes.
    pub(crate) received: Received,
    /// The declared content type; may be empty, and is not trusted.
    pub(crate) said: String,
}

/// Why a result is unavailable.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResultError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Blobs(#[from] BlobError),
}

impl Fetcher {
    /// Downloads `url`, of at most `most` bytes; every hop must be one of `hosts`. Tries once: the caller has
    /// its own retries.
    ///
    /// # Errors
    /// [`ResultError`].
    pub(crate) async fn fetch_result(
        &self,
        url: &str,
        hosts: &AllowHosts,
        most: u64,
        blobs: &Blobs,
    ) -> Result<ResultFile, ResultError> {
        let url = Url::parse(url).map_err(|error| FetchError::BadUrl(error.to_string()))?;
        let purpose = Purpose::ProviderResult { hosts };
        let answer = timeout(self.limits.deadline, Box::pin(self.follow(&url, purpose))).await;
        let (from, response) = answer.unwrap_or_else(|_| Err(self.too_slow(&url)))?;
        if response.content_length().is_some_and(|length| length > most) {
            return Err(too_large(&from, most).into());
        }
        let said = response.headers().get(CONTENT_TYPE).and_then(|said| said.to_str().ok());
        let said = said.unwrap_or_default().chars().take(128).collect();
        let codings = coding::named(response.headers());
        Ok(ResultFile { received: receive(&from, response, codings, most, blobs).await?, said })
    }
}

/// A compressed body, declared or not, is collected in memory and decoded within the bound on decoded
/// pictures; other bodies go into the blob store as they arrive.
async fn receive(
    url: &Url,
    mut response: Response,
    codings: String,
    most: u64,
    blobs: &Blobs,
) -> Result<Received, ResultError> {
    let mut coded: Option<BytesMut> = (!codings.is_empty()).then(BytesMut::new);
    let unavailable = |why: String| FetchError::Unavailable { host: host_of(url), why };
    let mut arriving = blobs.receive();
    let until = Instant::now() + ALL;
    loop {
        let next = until.min(Instant::now() + STALLED);
        let chunk = match timeout_at(next, response.chunk()).await {
            Ok(chunk) => chunk.map_err(|error| failed(url, &error))?,
            Err(_) if next == until => {
                return Err(unavailable(format!("did not deliver all of it within {ALL:?}")).into());
            }
            Err(_) => return Err(unavailable(format!("sent nothing for {STALLED:?}")).into()),
        };
        let Some(chunk) = chunk else { break };
        if arriving.bytes() == 0 && coded.is_none() && coding::begins_compressed(&chunk) {
            coded = Some(BytesMut::new());
        }
        let gathered = coded.as_ref().map_or(0, BytesMut::len) as u64;
        if arriving.bytes() + gathered + chunk.len() as u64 > most {
            return Err(too_large(url, most).into());
        }
        match &mut coded {
            Some(coded) => coded.extend_from_slice(&chunk),
            None => arriving.write(chunk).await?,
        }
    }
    if let Some(coded) = coded {
        arriving.write(plain(url, coded.freeze(), codings, most).await?).await?;
    }
    Ok(arriving.finish().await?)
}

/// The decoded bytes; unchanged if decoding fails, since they are paid for.
async fn plain(url: &Url, coded: Bytes, codings: String, most: u64) -> Result<Bytes, FetchError> {
    let limit = usize::try_from(most).unwrap_or(usize::MAX);
    let body = coded.clone();
    let decoded = memory::run(most, move || {
        let plain = if codings.is_empty() { body } else { coding::decode(&codings, body, limit)? };
        coding::decode_unnamed(plain, limit)
    });
    let unavailable = |why: String| FetchError::Unavailable { host: host_of(url), why };
    match decoded.await.map_err(|_| unavailable("sent what made the decoder fail".to_owned()))? {
        Ok(bytes) => Ok(bytes),
        Err(CodingError::TooLarge(_)) => Err(too_large(url, most)),
        Err(error @ (CodingError::Unknown(_) | CodingError::Damaged { .. })) => {
            tracing::warn!(%error, host = host_of(url), "a result cannot be decompressed and is kept as it came");
            Ok(coded)
        }
    }
}

fn too_large(url: &Url, most: u64) -> FetchError {
    FetchError::TooLarge { host: host_of(url), limit: usize::try_from(most).unwrap_or(usize::MAX) }
}
