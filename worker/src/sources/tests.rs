//! Promises of loading, each kind of source end to end.

use axum::Router;
use axum::http::StatusCode;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use retouch_shared::key::Digest32;

use super::*;
use crate::blobs::BlobsLocation;
use crate::media::Format;
use fetch::FetchLimits;

/// The smallest PNG: one transparent pixel.
const PIXEL: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==";

fn pixel() -> Bytes {
    BASE64_STANDARD.decode(PIXEL).expect("base64").into()
}

fn sources(blobs: Blobs) -> Sources {
    let limits = FetchLimits { max_bytes: 1000, retries: 0, ..FetchLimits::default() };
    let fetcher = Fetcher::new("127.0.0.1".parse().expect("an address"), limits);
    Sources::new(fetcher.expect("a client"), blobs, 1 << 20)
}

fn url_source(url: impl Into<String>) -> Source {
    Source::Url { url: url.into(), image_hash: None }
}

fn in_memory() -> Blobs {
    Blobs::open(&BlobsLocation::Memory).expect("opens")
}

fn code(error: &LoadError) -> &'static str {
    match error {
        LoadError::BadInput { code, .. } | LoadError::Temporary { code, .. } => code,
        LoadError::StoreUnavailable(_) => "store",
    }
}

async fn serve(app: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://{address}/a.jpeg")
}

#[tokio::test]
async fn a_picture_is_the_same_from_every_source() {
    let blobs = in_memory();
    let kept = blobs.put(pixel(), "image/png").await.expect("kept");
    // The name and the Content-Type are wrong.
    let url = serve(Router::new().fallback(|| async { ([("content-type", "image/jpeg")], pixel()) })).await;
    let sources = sources(blobs);
    for source in
        [url_source(url), Source::Data(format!("data:image/jpeg;base64,{PIXEL}")), Source::Blob(kept.hash)]
    {
        let loaded = sources.load(&source).await.expect("loaded");
        assert_eq!(loaded.bytes, pixel());
        assert_eq!(loaded.hash, Digest32::of(&pixel()));
        assert_eq!(loaded.media, Media { format: Format::Png, width: 1, height: 1, on_its_side: false });
    }
}

#[tokio::test]
async fn a_source_without_a_picture_is_bad_input_with_a_reason() {
    let blobs = in_memory();
    let text = blobs.put(Bytes::from_static(b"not a picture"), "text/plain").await.expect("kept");
    let long = blobs.put(vec![0; 1001].into(), "image/png").await.expect("kept");
    let absent = Digest32::of(b"never stored");
    let page = serve(Router::new().fallback(|| async { "<html>a page</html>" })).await;
    let gone = serve(Router::new()).await;
    let sources = sources(blobs);
    for (source, expected) in [
        (Source::Blob(text.hash), "not_an_image"),
        (Source::Blob(long.hash), "too_large"),
        (Source::Blob(absent), "blob_missing"),
        (Source::Data("data:,hello".into()), "bad_data_uri"),
        (Source::Data("data:;base64,".into()), "not_an_image"),
        (Source::Data(format!("data:;base64,{}", "A".repeat(1400))), "too_large"),
        (url_source(page), "not_an_image"),
        (url_source(gone), "source_not_found"),
        (url_source("http://10.0.0.1/"), "private_address"),
        (url_source("not a URL"), "bad_url"),
    ] {
        let error = sources.load(&source).await.expect_err(expected);
        assert!(matches!(error, LoadError::BadInput { .. }), "{error:?}");
        assert_eq!(code(&error), expected, "{error}");
        assert!(!error.to_string().is_empty());
    }
}

#[tokio::test]
async fn a_host_that_is_down_is_temporary() {
    let down = serve(Router::new().fallback(|| async { StatusCode::SERVICE_UNAVAILABLE })).await;
    let error = sources(in_memory()).load(&url_source(down)).await.expect_err("down");
    assert!(matches!(error, LoadError::Temporary { code: "source_unavailable", .. }), "{error:?}");
}

#[tokio::test]
async fn an_unavailable_store_is_not_the_pictures_fault() {
    let folder = std::env::temp_dir().join(format!("retouch-sources-{}", uuid::Uuid::now_v7()));
    let blobs = Blobs::open(&BlobsLocation::Folder(folder.clone())).expect("opens");
    let kept = blobs.put(pixel(), "image/png").await.expect("kept");
    let file = folder.join(blobs::reference(kept.hash));
    let sources = sources(blobs);
    std::fs::write(&file, b"other bytes").expect("changed");
    let changed = sources.load(&Source::Blob(kept.hash)).await.expect_err("changed");
    assert_eq!(code(&changed), "blob_corrupt");
    std::fs::remove_dir_all(&folder).expect("removed");
    let away = sources.load(&Source::Blob(kept.hash)).await.expect_err("away");
    assert!(matches!(away, LoadError::StoreUnavailable(_)), "{away:?}");
}
