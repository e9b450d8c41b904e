//! A producer states the hash of a picture at a URL: a hit is answered without fetching it, and a wrong hash
//! does no harm.

use retouch_shared::key::Digest32;
use retouch_tests::pictures::picture;
use retouch_tests::site::Site;
use retouch_tests::tasks::{data, seed, task, url};
use serde_json::{Value, json};

on_both! {
    a_hit_on_a_picture_whose_hash_is_said_fetches_nothing;
    a_picture_with_another_hash_fails_alone_and_is_dropped;
    a_result_without_its_blob_is_made_again_from_its_picture;
}

fn known(url: &str, picture: &[u8]) -> Value {
    json!({"url": url, "image_hash": Digest32::of(picture).to_hex()})
}

async fn a_hit_on_a_picture_whose_hash_is_said_fetches_nothing(site: Site) {
    let [_worker] = site.workers().await;
    let at = site.pictures.picture(1);
    site.publish(&task("first", json!({}), &[known(&at, &picture(1))])).await;
    let first = site.ended("first").await;
    assert_eq!((first.counts, site.pictures.requests("/1.png")), ([0, 0, 1, 0], 1));
    assert!(site.is_right(&first.images[0], &picture(1)));
    // Elsewhere, where nothing is, and as a blob.
    let nowhere = known(&site.pictures.url("/nowhere"), &picture(1));
    let blob = json!({"blob": format!("sha256:{}", Digest32::of(&picture(1)))});
    site.publish(&task("again", json!({}), &[known(&at, &picture(1)), nowhere, blob])).await;
    let again = site.ended("again").await;
    assert_eq!((again.counts, site.pictures.total_requests()), ([3, 0, 0, 0], 1));
    assert!(again.images.iter().all(|image| site.is_right(image, &picture(1))));
    site.nothing_left().await;
}

async fn a_picture_with_another_hash_fails_alone_and_is_dropped(site: Site) {
    let [_worker] = site.workers().await;
    let wrong = known(&site.pictures.picture(2), &picture(3));
    site.publish(&task("wrong", json!({}), &[wrong, url(&site.pictures.picture(4))])).await;
    let ended = site.ended("wrong").await;
    assert_eq!(ended.counts, [0, 0, 1, 1]);
    let error = &ended.images[0]["error"];
    assert_eq!(error["code"], "image_hash_mismatch");
    for named in [Digest32::of(&picture(2)), Digest32::of(&picture(3))] {
        assert!(error["message"].as_str().unwrap().contains(&named.to_hex()), "{error}");
    }
    // Neither of the two is answered by the other's result.
    site.publish(&task("both", json!({}), &[data(&picture(2)), data(&picture(3))])).await;
    let both = site.ended("both").await;
    assert_eq!(both.counts, [0, 0, 2, 0]);
    assert!(site.is_right(&both.images[0], &picture(2)) && site.is_right(&both.images[1], &picture(3)));
    assert_eq!(site.dead_letters(1).await, ["image_hash_mismatch wrong"]);
}

async fn a_result_without_its_blob_is_made_again_from_its_picture(site: Site) {
    let [_worker] = site.workers().await;
    site.publish(&task("first", json!({}), &[seed(1)])).await;
    let hash = Digest32::of(&site.result(&site.ended("first").await.images[0])).to_hex();
    let blob = site.env.folder().join("blobs").join(format!("sha256/{}/{hash}", &hash[..2]));
    std::fs::remove_file(&blob).unwrap();
    site.publish(&task("again", json!({}), &[known(&site.pictures.picture(1), &picture(1))])).await;
    let again = site.ended("again").await;
    assert_eq!(again.counts, [0, 0, 1, 0]);
    assert!(blob.is_file() && site.is_right(&again.images[0], &picture(1)));
    site.nothing_left().await;
}
