//! Pictures differ by their seed and are compared by what is seen; the server that hands them out counts
//! right.

use std::time::Duration;

use image::ImageFormat;
use retouch_tests::{
    picture_server::{Answer, PictureServer},
    pictures::{self, picture, picture_as, same_pixels},
};

#[test]
fn pictures_are_the_same_for_the_same_seed_and_no_other() {
    for (seed, other) in [(0, 1), (1, 256), (7, u64::MAX)] {
        assert_eq!(picture(seed), picture(seed));
        assert!(!same_pixels(&picture(seed), &picture(other)), "{seed} looks like {other}");
    }
}

#[test]
fn a_picture_is_the_same_in_every_lossless_format() {
    for format in [ImageFormat::WebP, ImageFormat::Bmp, ImageFormat::Tiff] {
        assert!(same_pixels(&picture(3), &picture_as(3, pictures::WIDTH, pictures::HEIGHT, format)));
    }
}

#[test]
fn a_lossy_copy_differs_little_and_another_picture_much() {
    let jpeg = picture_as(3, pictures::WIDTH, pictures::HEIGHT, ImageFormat::Jpeg);
    let near = pictures::difference(&picture(3), &jpeg).unwrap();
    let far = pictures::difference(&picture(3), &picture(90)).unwrap();
    assert!(near < 10.0 && far > 3.0 * near, "{near} and {far}");
    assert_eq!(pictures::difference(&picture(3), &picture_as(3, 8, 8, ImageFormat::Png)), None);
}

#[tokio::test]
async fn the_picture_server_counts_every_request_of_a_path() {
    let server = PictureServer::start().await;
    let url = server.picture(5);
    for _ in 0..3 {
        assert_eq!(get(&url).await.unwrap(), picture(5));
    }
    assert!(get(&server.url("/missing.png")).await.unwrap_err().is_status());
    assert_eq!(server.requests("/5.png"), 3);
    assert_eq!(server.requests("/missing.png"), 1);
    assert_eq!(server.total_requests(), 4);
}

#[tokio::test]
async fn a_held_request_is_counted_and_answered_only_after_its_release() {
    let server = PictureServer::start().await;
    let url = server.picture(5);
    server.hold("/5.png");
    let early = tokio::spawn(async move { get(&url).await.unwrap() });
    server.requested("/5.png", 1).await;
    assert!(!early.is_finished());
    server.answer("/5.png", Answer::Bytes("image/png", picture(6).into()));
    server.release("/5.png");
    assert_eq!(early.await.unwrap(), picture(6));
}

#[tokio::test]
async fn the_picture_server_misbehaves_as_it_is_told() {
    let server = PictureServer::start().await;
    let cut = server.answer("/cut", Answer::CutOff(picture(1).into()));
    let mut response = client().get(&cut).send().await.unwrap();
    let mut got = 0;
    while let Ok(Some(chunk)) = response.chunk().await {
        got += chunk.len();
    }
    assert_eq!(got, picture(1).len() / 2);
    assert!(get(&cut).await.is_err());
    let gone = server.answer("/gone", Answer::Status(410));
    assert_eq!(get(&gone).await.unwrap_err().status().unwrap(), 410);
    let moved = server.answer("/moved", Answer::Redirect(server.picture(2)));
    assert_eq!(get(&moved).await.unwrap(), picture(2));
    let endless = server.answer("/endless", Answer::Endless(picture(1).into()));
    let mut response = client().get(&endless).send().await.unwrap();
    let mut seen = 0;
    while seen < 1024 * 1024 {
        seen += response.chunk().await.unwrap().unwrap().len();
    }
}

fn client() -> reqwest::Client {
    retouch_tests::env::install_tls();
    reqwest::Client::builder().timeout(Duration::from_secs(30)).build().unwrap()
}

async fn get(url: &str) -> reqwest::Result<Vec<u8>> {
    let response = client().get(url).send().await?.error_for_status()?;
    Ok(response.bytes().await?.to_vec())
}
