//! Serves result pictures by digest.
//!
//! Invariant: only results are served, since an event also tells the digest of the input picture (inputs too
//! if an editor's provider fetches them here). No served file can run as a script or pass for another type,
//! since providers' results contain foreign content.

use std::ops::Range;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, stream};
use retouch_shared::key::Digest32;

use super::Served;
use crate::blobs::{BlobError, BlobStream};
use crate::media;

/// How long an answer waits for one that is being read.
const TURN: Duration = Duration::from_secs(10);
/// Larger answers need a sending permit.
const SMALL: u64 = 256 * 1024;
/// Content types that browsers may display. All others are offered for download.
const SHOWN: [&str; 10] = [
    "image/png",
    "image/jpeg",
    "image/webp",
    "image/gif",
    "image/bmp",
    "image/tiff",
    "image/avif",
    "image/heic",
    "image/heif",
    "image/jxl",
];

/// A result picture, or the requested range of it.
pub(super) async fn blob(
    State(served): State<Served>,
    Path((fold, digest)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let Ok(hash) = digest.parse::<Digest32>() else { return StatusCode::NOT_FOUND.into_response() };
    if !digest.starts_with(&fold) || fold.len() != 2 {
        return StatusCode::NOT_FOUND.into_response();
    }
    let content_type = match served.app.store.result_type(hash).await {
        Ok(Some(content_type)) => content_type,
        // A provider with `input = "url"` fetches its input pictures here.
        Ok(None) if served.app.serves_inputs() => match served.app.blobs.get(hash).await {
            Ok(bytes) => {
                media::identify(&bytes).map_or_else(String::new, |kind| kind.content_type.to_owned())
            }
            Err(_) => return StatusCode::NOT_FOUND.into_response(),
        },
        Ok(None) => return StatusCode::NOT_FOUND.into_response(),
        Err(error) => {
            tracing::error!(%error, "cannot ask whether a blob is a result");
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
    };
    let body = match picture(&served, hash, &headers).await {
        Ok(body) => body,
        Err(BlobError::Missing(_)) => return StatusCode::NOT_FOUND.into_response(),
        Err(error @ (BlobError::Corrupt(_) | BlobError::Unavailable(_))) => {
            tracing::error!(%error, "cannot serve a blob");
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
    };
    described(body, hash, &content_type)
}

/// The answer without the common headers.
async fn picture(served: &Served, hash: Digest32, headers: &HeaderMap) -> Result<Response, BlobError> {
    let blobs = &served.app.blobs;
    let size = blobs.size(hash).await?;
    let given = |name| headers.get(name).map(HeaderValue::as_bytes);
    let tag = tag(hash);
    if given(header::IF_NONE_MATCH) == Some(tag.as_bytes()) {
        return Ok(StatusCode::NOT_MODIFIED.into_response());
    }
    let same = given(header::IF_RANGE).is_none_or(|given| given == tag.as_bytes());
    let asked = headers.get(header::RANGE).filter(|_| same).and_then(|range| range.to_str().ok());
    let part = match asked.map_or(Part::Whole, |asked| part(asked, size)) {
        Part::Whole => None,
        Part::Bytes(range) => Some(range),
        Part::Nothing => {
            let headers = [(header::CONTENT_RANGE, format!("bytes */{size}"))];
            return Ok((StatusCode::RANGE_NOT_SATISFIABLE, headers).into_response());
        }
    };
    let turn = tokio::time::timeout(TURN, std::sync::Arc::clone(&served.sending).acquire_owned()).await;
    let Ok(Ok(turn)) = turn else {
        let headers = [(header::RETRY_AFTER, "10")];
        return Ok((StatusCode::SERVICE_UNAVAILABLE, headers).into_response());
    };
    let bytes = match &part {
        _ if size <= SMALL => whole(&blobs.get(hash).await?, part.as_ref()),
        None => blobs.stream(hash).await?,
        Some(range) => blobs.stream_part(hash, range.clone()).await?,
    };
    let body = Body::from_stream(bytes.map(move |chunk| {
        let _until_the_end = &turn;
        chunk
    }));
    let range = part.clone().unwrap_or(0..size);
    let length = [(header::CONTENT_LENGTH, (range.end - range.start).to_string())];
    Ok(match part {
        None => (length, body).into_response(),
        Some(Range { start, end }) => {
            let place = [(header::CONTENT_RANGE, format!("bytes {start}-{}/{size}", end - 1))];
            (StatusCode::PARTIAL_CONTENT, length, place, body).into_response()
        }
    })
}

/// A small picture is read and checked before the answer begins, so that damage shows in the status.
fn whole(bytes: &Bytes, part: Option<&Range<u64>>) -> BlobStream {
    let place = |at: u64| usize::try_from(at).unwrap_or(bytes.len()).min(bytes.len());
    let asked = part.map_or(0..bytes.len(), |range| place(range.start)..place(range.end));
    let chunk = Ok(bytes.slice(asked));
    stream::once(async { chunk }).boxed()
}

/// Adds the common headers.
fn described(mut answer: Response, hash: Digest32, content_type: &str) -> Response {
    let given = answer.status().is_success() || answer.status() == StatusCode::NOT_MODIFIED;
    let headers = answer.headers_mut();
    let mut set = |name, value| headers.insert(name, HeaderValue::from_static(value));
    set(header::ACCEPT_RANGES, "bytes");
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::CONTENT_SECURITY_POLICY, "default-src 'none'; sandbox");
    if !given {
        set(header::CACHE_CONTROL, "no-store");
        return answer;
    }
    let shown = SHOWN.iter().copied().find(|shown| *shown == content_type);
    let is_svg = content_type == "image/svg+xml";
    let otherwise = if is_svg { "image/svg+xml" } else { "application/octet-stream" };
    set(header::CONTENT_TYPE, shown.unwrap_or(otherwise));
    if shown.is_none() {
        set(header::CONTENT_DISPOSITION, "attachment");
    }
    // The name is the digest: its content never changes.
    set(header::CACHE_CONTROL, "public, max-age=31536000, immutable");
    headers.extend(HeaderValue::from_str(&tag(hash)).ok().map(|tag| (header::ETAG, tag)));
    answer
}

fn tag(hash: Digest32) -> String {
    format!("\"{hash}\"")
}

/// The requested part of a picture.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    /// All of it; also for several ranges or an invalid one.
    Whole,
    Bytes(Range<u64>),
    /// A range beyond its end.
    Nothing,
}

fn part(asked: &str, size: u64) -> Part {
    let Some((from, to)) = asked.strip_prefix("bytes=").and_then(|range| range.trim().split_once('-')) else {
        return Part::Whole;
    };
    let number = |text: &str| match text {
        "" => Ok(None),
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Ok(Some(digits.parse::<u64>().unwrap_or(u64::MAX)))
        }
        _ => Err(()),
    };
    let range = match (number(from), number(to)) {
        (Ok(Some(from)), Ok(Some(to))) if from > to => return Part::Whole,
        (Ok(Some(from)), Ok(to)) => from..to.map_or(size, |to| to.saturating_add(1)).min(size),
        (Ok(None), Ok(Some(last))) => size.saturating_sub(last)..size,
        (Ok(None), Ok(None)) | (Err(()), _) | (_, Err(())) => return Part::Whole,
    };
    if range.start < range.end { Part::Bytes(range) } else { Part::Nothing }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_range_is_honoured_and_others_return_everything() {
        for (asked, expected) in [
            ("bytes=0-9", Part::Bytes(0..10)),
            ("bytes=90-", Part::Bytes(90..100)),
            ("bytes=90-200", Part::Bytes(90..100)),
            ("bytes=-10", Part::Bytes(90..100)),
            ("bytes=-1000", Part::Bytes(0..100)),
            ("bytes=0-18446744073709551616", Part::Bytes(0..100)),
            ("bytes=100-", Part::Nothing),
            ("bytes=-0", Part::Nothing),
            ("bytes=5-4", Part::Whole),
            ("bytes=0-1,5-6", Part::Whole),
            ("bytes=-", Part::Whole),
            ("bytes=a-b", Part::Whole),
            ("items=0-1", Part::Whole),
        ] {
            assert_eq!(part(asked, 100), expected, "{asked}");
        }
        assert_eq!(part("bytes=0-", 0), Part::Nothing);
    }

    #[test]
    fn types_that_could_run_in_a_browser_are_offered_for_download() {
        let hash = Digest32::of(b"picture");
        for (stored, served, attached) in [
            ("image/png", "image/png", false),
            ("image/svg+xml", "image/svg+xml", true),
            ("text/html", "application/octet-stream", true),
            ("image/png; x", "application/octet-stream", true),
            ("", "application/octet-stream", true),
        ] {
            let answer = described(StatusCode::OK.into_response(), hash, stored);
            assert_eq!(answer.headers()["content-type"], served, "{stored}");
            assert_eq!(answer.headers().contains_key("content-disposition"), attached, "{stored}");
            assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
            assert_eq!(answer.headers()["content-security-policy"], "default-src 'none'; sandbox");
        }
    }
}
