//! Every image is counted once, by how it was answered.

use retouch_tests::pictures::picture;
use retouch_tests::site::Site;
use retouch_tests::tasks::{seed, task};
use serde_json::json;

on_both! {
    a_task_is_paid_once_and_then_hits;
}

async fn a_task_is_paid_once_and_then_hits(site: Site) {
    let [_worker] = site.workers().await;
    site.publish(&task("first", json!({}), &[seed(1), seed(2), seed(1)])).await;
    let first = site.ended("first").await;
    assert_eq!((first.status.as_str(), first.counts), ("completed", [0, 1, 2, 0]));
    for (image, input) in first.images.iter().zip([1, 2, 1]) {
        assert!(site.is_right(image, &picture(input)), "{image}");
    }
    site.publish(&task("second", json!({}), &[seed(2), seed(1)])).await;
    let second = site.ended("second").await;
    assert_eq!((second.status.as_str(), second.counts), ("completed", [2, 0, 0, 0]));
    assert_eq!(site.calls().len(), 2);
    site.nothing_left().await;
}
