//! Result pictures, by the digest in their names.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use retouch_shared::key::Digest32;

use super::Served;
use crate::blobs::BlobError;
use crate::media;

/// A result picture. Only pictures: other blobs (messages of dead letters) are nobody's business here.
pub(super) async fn blob(
    State(served): State<Served>,
    Path((fold, digest)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let Ok(hash) = digest.parse::<Digest32>() else { return StatusCode::NOT_FOUND.into_response() };
    if !digest.starts_with(&fold) || fold.len() != 2 {
        return StatusCode::NOT_FOUND.into_response();
    }
    let tag = format!("\"{digest}\"");
    if headers.get(header::IF_NONE_MATCH).is_some_and(|given| given.as_bytes() == tag.as_bytes()) {
        return StatusCode::NOT_MODIFIED.into_response();
    }
    match served.app.blobs.get(hash).await {
        Ok(bytes) => match media::identify(&bytes) {
            Some(kind) => {
                let mut response = bytes.into_response();
                let headers = response.headers_mut();
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind.content_type));
                headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
                if media::is_attachment(kind.content_type) {
                    headers.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
                    let nothing = HeaderValue::from_static("default-src 'none'; sandbox");
                    headers.insert(header::CONTENT_SECURITY_POLICY, nothing);
                }
                // The name is the digest: what is under it never changes.
                let forever = HeaderValue::from_static("public, max-age=31536000, immutable");
                headers.insert(header::CACHE_CONTROL, forever);
                headers.extend(HeaderValue::from_str(&tag).ok().map(|tag| (header::ETAG, tag)));
                response
            }
            None => StatusCode::NOT_FOUND.into_response(),
        },
        Err(BlobError::Missing(_)) => StatusCode::NOT_FOUND.into_response(),
        Err(error @ (BlobError::Corrupt(_) | BlobError::Unavailable(_))) => {
            tracing::error!(%error, "cannot serve a blob");
            StatusCode::SERVICE_UNAVAILABLE.into_response()
        }
    }
}
