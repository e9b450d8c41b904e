//! Follows an older system's links, past the same guard as every download.

use anyhow::Result;
use bytes::Bytes;

use super::{Links, Skip};
use crate::app::App;
use crate::blobs::BlobError;
use crate::media::{self, Media, Pixels};
use crate::sources::fetch::{FetchError, Purpose};
use crate::store::StoredResult;

/// Copies the picture into our blobs, or tests whether there is one.
///
/// # Errors
/// Outer: our own blob store is unavailable. Inner: why there is no picture.
pub(super) async fn follow(app: &App, url: &str, links: Links) -> Result<Result<Option<StoredResult>, Skip>> {
    if links == Links::Check {
        return Ok(app.results.probe(url).await.map(|()| None).map_err(|error| unreached(&error)));
    }
    let bytes = match app.results.fetch(url, Purpose::Source).await {
        Ok(bytes) => bytes,
        Err(error) => return Ok(Err(unreached(&error))),
    };
    let media = match verified(&bytes).await {
        Ok(media) => media,
        Err(why) => return Ok(Err(Skip::new("not_a_picture", format!("what its link leads to is {why}")))),
    };
    let content_type = media.format.content_type();
    let kept = app.blobs.put(bytes, content_type).await;
    let kept = kept.map_err(|error: BlobError| anyhow::anyhow!("RETOUCH_BLOBS: {error}"))?;
    Ok(Ok(Some(StoredResult {
        hash: kept.hash,
        content_type: content_type.to_owned(),
        width: media.width,
        height: media.height,
        bytes: kept.bytes,
        check: None,
    })))
}

/// A supported picture whose every pixel can be decoded.
async fn verified(bytes: &Bytes) -> Result<Media, String> {
    let media = media::inspect(bytes).map_err(|error| error.to_string())?;
    let bytes = bytes.clone();
    let need = media::memory::decode_bytes(&bytes, &media);
    let decoded = media::memory::run(need, move || Pixels::decode(&bytes, &media).map(drop)).await;
    match decoded {
        Ok(decoded) => decoded.map(|()| media).map_err(|error| error.to_string()),
        Err(_) => Err("something that the decoder fails over".to_owned()),
    }
}

fn unreached(error: &FetchError) -> Skip {
    let (reason, is_final) = match error {
        // Expired signatures are answered as refusals.
        FetchError::NotFound { .. } | FetchError::Refused { .. } | FetchError::TooManyRedirects { .. } => {
            ("dead_link", true)
        }
        // Only providers' results are restricted to hosts.
        FetchError::BadUrl(_) | FetchError::ForeignHost { .. } => ("bad_url", false),
        FetchError::PrivateAddress(_) => ("private_address", false),
        FetchError::TooLarge { .. } => ("too_large", false),
        FetchError::Unavailable { .. } => ("unreachable", false),
    };
    Skip { is_final, ..Skip::new(reason, error.to_string()) }
}
