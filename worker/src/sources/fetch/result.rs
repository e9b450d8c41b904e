//! A provider's result: past the guard like everything from outside, and into the blob store while it arrives.
//!
//! It is paid for, so its size is bounded by a setting and not by memory, and its time by progress and not by a
//! deadline for all of it.

use std::time::Duration;

use reqwest::Response;
use reqwest::header::CONTENT_TYPE;
use tokio::time::{Instant, timeout, timeout_at};
use url::Url;

use super::{FetchError, Fetcher, Purpose, failed, host_of};
use crate::blobs::{BlobError, Blobs, Received};
use crate::sources::guard::AllowHosts;

/// For the next bytes: a host that sends none for so long is asked again.
const STALLED: Duration = Duration::from_secs(30);
/// For all of it, however slowly it comes.
const ALL: Duration = Duration::from_secs(30 * 60);

/// A result that has arrived whole.
#[derive(Debug)]
pub(crate) struct ResultFile {
    /// Its bytes.
    pub(crate) received: Received,
    /// What the host says that it is; may be empty, and is not believed.
    pub(crate) said: String,
}

/// Why a result is not at hand.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResultError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Blobs(#[from] BlobError),
}

impl Fetcher {
    /// The file at `url`, at every hop from one of `hosts`; at most `most` bytes. Asks once: the caller has its own retries.
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
        Ok(ResultFile { received: receive(&from, response, most, blobs).await?, said })
    }
}

async fn receive(
    url: &Url,
    mut response: Response,
    most: u64,
    blobs: &Blobs,
) -> Result<Received, ResultError> {
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
        if arriving.bytes() + chunk.len() as u64 > most {
            return Err(too_large(url, most).into());
        }
        arriving.write(chunk).await?;
    }
    Ok(arriving.finish().await?)
}

fn too_large(url: &Url, most: u64) -> FetchError {
    FetchError::TooLarge { host: host_of(url), limit: usize::try_from(most).unwrap_or(usize::MAX) }
}
