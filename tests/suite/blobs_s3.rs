//! Blobs in a bucket of a real S3 server, through the whole program: pictures are stored and served there,
//! and a fault of the bucket or the key is reported with its fix.

use retouch_tests::bucket::Bucket;
use retouch_tests::services::S3;
use retouch_tests::tasks::{seed, task, task_async, url};
use retouch_tests::wait;
use serde_json::json;

/// Calls of a refused task come again soon.
const HURRY: (&str, &str) = ("RETOUCH_PATIENCE_SECONDS", "1");

#[tokio::test]
async fn pictures_are_stored_in_and_served_from_the_bucket() {
    let bucket = Bucket::on_servers().await;
    let site = &bucket.site;
    let first = bucket.worker(&[]).await;
    let images = [seed(1), url(&site.pictures.picture(2)), seed(1)];
    site.publish(&task("at-once", json!({}), &images)).await;
    let row = site.ended("at-once").await;
    bucket.all_right(&first, &row, &[1, 2, 1]).await;
    site.publish(&task_async("later", json!({}), &[seed(3)])).await;
    bucket.all_right(&first, &site.ended("later").await, &[3]).await;
    assert_eq!(first.ready().await, (200, "ok".to_owned()));
    for image in &row.images {
        let served = first.get(image).await.bytes().await.unwrap();
        assert_eq!(std::fs::read(bucket.object(image)).unwrap(), served, "under its reference in the bucket");
    }
    first.end().await;

    let second = bucket.worker(&[]).await;
    site.publish(&task("again", json!({}), &[seed(1), seed(2)])).await;
    let row = site.ended("again").await;
    assert_eq!(row.counts, [2, 0, 0, 0]);
    bucket.all_right(&second, &row, &[1, 2]).await;
    assert_eq!(site.calls().len(), 3);
    site.nothing_left().await;
}

/// The worker reports it, counts no miss and pays nothing; with the right settings the work continues.
async fn refused(settings: &[(&str, &str)], says: &[&str]) {
    let bucket = Bucket::on_servers().await;
    let site = &bucket.site;
    let wrong = bucket.worker(&[settings, &[HURRY]].concat()).await;
    let (status, blobs) = wrong.ready().await;
    assert_eq!(status, 503, "{blobs}");
    site.publish(&task("held", json!({}), &[seed(1)])).await;
    let log = wrong.worker.line(r#""message":"delayed""#).await;
    for part in says {
        assert!(blobs.contains(part), "{blobs}");
        assert!(log.contains(part), "{log}");
    }
    for said in [&blobs, &wrong.worker.stderr()] {
        assert!(!said.contains(S3::SECRET) && !said.contains("not-the-secret"), "{said}");
    }
    assert_eq!((site.calls().len(), site.number("SELECT COUNT(*) FROM image_edit_calls").await), (0, 0));
    wrong.end().await;

    let right = bucket.worker(&[]).await;
    bucket.all_right(&right, &site.ended("held").await, &[1]).await;
    assert_eq!(site.calls().len(), 1);
    assert_eq!(site.number("SELECT COUNT(*) FROM dead_letters").await, 0);
    site.nothing_left().await;
}

#[tokio::test]
async fn a_wrong_secret_is_said_with_the_variable_to_look_at() {
    let says = ["we are refused", "AWS_SECRET_ACCESS_KEY", "SignatureDoesNotMatch"];
    refused(&[("AWS_SECRET_ACCESS_KEY", "not-the-secret")], &says).await;
}

#[tokio::test]
async fn an_unknown_key_is_reported_with_its_variable() {
    refused(&[("AWS_ACCESS_KEY_ID", "AKIANOBODY")], &["we are refused", "AWS_ACCESS_KEY_ID"]).await;
}

#[tokio::test]
async fn a_missing_bucket_is_reported_with_its_setting() {
    let says = ["the bucket does not exist", "RETOUCH_BLOBS", "NoSuchBucket"];
    refused(&[("RETOUCH_BLOBS", "s3://no-such-bucket/retouch")], &says).await;
}

/// Objects removed, truncated, or changed in place.
#[tokio::test]
async fn a_missing_or_damaged_object_is_made_again_once() {
    let bucket = Bucket::on_servers().await;
    let site = &bucket.site;
    let serving = bucket.worker(&[]).await;
    site.publish(&task("first", json!({}), &[seed(1), seed(2), seed(3), seed(4)])).await;
    let first = site.ended("first").await;
    bucket.all_right(&serving, &first, &[1, 2, 3, 4]).await;
    let [gone, cut, changed] = [0, 1, 3].map(|position| bucket.object(&first.images[position]));
    let (whole, mut other) = (std::fs::read(&cut).unwrap(), std::fs::read(&changed).unwrap());
    std::fs::remove_file(&gone).unwrap();
    std::fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    *other.last_mut().unwrap() ^= 1;
    std::fs::write(&changed, other).unwrap();
    for (position, status) in [(0, 404), (1, 503), (2, 200), (3, 503)] {
        assert_eq!(serving.get(&first.images[position]).await.status(), status, "{position}");
    }

    site.publish(&task("again", json!({}), &[seed(1), seed(2), seed(3), seed(1)])).await;
    let row = site.ended("again").await;
    assert_eq!(row.counts, [1, 1, 2, 0]);
    bucket.all_right(&serving, &row, &[1, 2, 3, 1]).await;
    assert_eq!(site.calls().len(), 6);
    assert_eq!(serving.worker.stderr().matches("lost its blob").count(), 2);
    site.publish(&task("healed", json!({}), &[seed(1), seed(2), seed(3)])).await;
    assert_eq!(site.ended("healed").await.counts, [3, 0, 0, 0]);
    assert_eq!(site.calls().len(), 6);
    site.nothing_left().await;
}

/// A picture that arrives while the bucket is missing is no bad source.
#[tokio::test]
async fn a_bucket_that_is_removed_and_comes_back_holds_the_work() {
    let bucket = Bucket::on_servers().await;
    let site = &bucket.site;
    let serving = bucket.worker(&[HURRY]).await;
    site.publish(&task("before", json!({}), &[seed(1)])).await;
    let before = site.ended("before").await;
    bucket.all_right(&serving, &before, &[1]).await;
    let there = bucket.object(&before.images[0]);
    let there = there.ancestors().find(|folder| folder.ends_with("pictures")).unwrap();
    let away = there.with_file_name("removed");
    std::fs::rename(there, &away).unwrap();
    assert_eq!(serving.get(&before.images[0]).await.status(), 503, "it may be there");
    site.publish(&task("during", json!({}), &[seed(1), seed(2)])).await;
    let log = serving.worker.line(r#""message":"delayed""#).await;
    assert!(log.contains("the bucket does not exist"), "{log}");
    let ready = async || (serving.ready().await.0 == 503).then_some(());
    wait::until("503 of /readyz", ready).await;
    assert_eq!(site.calls().len(), 1);
    std::fs::rename(&away, there).unwrap();
    let during = site.ended("during").await;
    assert_eq!(during.counts, [1, 0, 1, 0]);
    bucket.all_right(&serving, &during, &[1, 2]).await;
    assert_eq!(site.calls().len(), 2);
    site.nothing_left().await;
}
