//! Identity of edits through the whole program: a wrong picture is never served.

use image::ImageFormat;
use retouch_tests::pictures::{self, picture, picture_as};
use retouch_tests::site::Site;
use retouch_tests::tasks::{data, seed, task, url};
use serde_json::{Value, json};

on_both! {
    the_position_of_an_image_does_not_matter;
    the_way_a_picture_comes_does_not_matter;
    every_image_of_a_task_gets_its_own_result;
    every_field_that_changes_the_picture_makes_another_edit;
    fields_that_cannot_change_the_picture_make_no_other_edit;
    a_results_type_is_recognised_by_its_bytes;
    hits_are_counted_on_every_way_that_an_image_is_answered;
}

async fn the_position_of_an_image_does_not_matter(site: Site) {
    let [_worker] = site.workers().await;
    site.publish(&task("third", json!({}), &[seed(1), seed(2), seed(3)])).await;
    site.ended("third").await;
    site.publish(&task("first", json!({}), &[seed(3)])).await;
    let first = site.ended("first").await;
    assert_eq!(first.counts, [1, 0, 0, 0]);
    assert!(site.is_right(&first.images[0], &picture(3)));
    site.publish(&task("turned", json!({}), &[seed(3), seed(1), seed(4), seed(2), seed(3)])).await;
    let turned = site.ended("turned").await;
    assert_eq!(turned.counts, [4, 0, 1, 0]);
    for (image, input) in turned.images.iter().zip([3, 1, 4, 2, 3]) {
        assert!(site.is_right(image, &picture(input)), "{image}");
    }
    assert_eq!(site.calls().len(), 4);
}

async fn the_way_a_picture_comes_does_not_matter(site: Site) {
    let [_worker] = site.workers().await;
    site.publish(&task("data", json!({}), &[seed(1)])).await;
    let paid = site.ended("data").await;
    let hash = paid.images[0]["image_hash"].as_str().unwrap();
    let blob = json!({"blob": format!("sha256:{hash}")});
    let other_name = url(&site.pictures.png("/another-name", picture(1)));
    site.publish(&task("others", json!({}), &[url(&site.pictures.picture(1)), blob, other_name])).await;
    assert_eq!(site.ended("others").await.counts, [3, 0, 0, 0]);
}

/// Images that differ in one pixel, and two tasks that share only their first image.
async fn every_image_of_a_task_gets_its_own_result(site: Site) {
    let [_worker] = site.workers().await;
    let near = |n: u8| {
        let mut pixels = pictures::drawing(1, pictures::WIDTH, pictures::HEIGHT);
        pixels.get_pixel_mut(9, 9).0 = [n; 3];
        pictures::encode(&pixels, ImageFormat::Png)
    };
    let inputs: Vec<Vec<u8>> = (0..6).map(near).collect();
    let images: Vec<Value> = inputs.iter().map(|bytes| data(bytes)).collect();
    site.publish(&task("one", json!({}), &images[..4])).await;
    site.ended("one").await;
    site.publish(&task("two", json!({}), &[0, 4, 5].map(|n| images[n].clone()))).await;
    assert_eq!(site.ended("two").await.counts, [1, 0, 2, 0]);
    for (id, of) in [("one", &[0, 1, 2, 3][..]), ("two", &[0, 4, 5][..])] {
        for (image, n) in site.task(id).await.unwrap().images.iter().zip(of) {
            assert!(site.is_right(image, &inputs[*n]), "{id}: {image} is not of {n}");
        }
    }
    assert_eq!(site.calls().len(), 6);
}

/// Each is published alone, and again: the first time it is paid, the second time it is a hit.
async fn every_field_that_changes_the_picture_makes_another_edit(site: Site) {
    let [_worker] = site.workers().await;
    let plain = json!({"v": 1, "edit_type": "double", "prompt": "a cat", "images": [seed(1)]});
    let with = |field: &str, value: Value| {
        let mut task = plain.clone();
        task[field] = value;
        task
    };
    let params = |params: Value| with("params", params);
    let others = [
        plain.clone(),
        with("prompt", json!("a Cat")),
        with("prompt", json!("a  cat")),
        with("prompt", json!("a cat .")),
        with("prompt", json!("a cät")),
        with("prompt", json!("a cat 😀")),
        with("prompt", json!("a cat 😺")),
        with("prompt", json!("turn on the light")),
        with("prompt", json!("turn off the light")),
        with("prompt", json!("")),
        with("model", json!("double-2")),
        with("model", json!("Double-1")),
        with("variant", json!("b")),
        with("edit_type", json!("double_async")),
        with("images", json!([seed(2)])),
        with("mask", seed(3)),
        with("mask", seed(4)),
        params(json!({"negative_prompt": "dog"})),
        params(json!({"watermark": true})),
        params(json!({"watermark": false})),
        params(json!({"size": "1024*1024"})),
        params(json!({"seed": 7})),
        params(json!({"seed": 8})),
        params(json!({"seed": "7"})),
        params(json!({"seed": 7.0})),
        params(json!({"n": 1})),
        params(json!({"Seed": 7})),
    ];
    for round in ["paid", "hit"] {
        for (n, other) in others.iter().enumerate() {
            let mut other = other.clone();
            other["task_id"] = json!(format!("{round}-{n}"));
            site.publish(&other).await;
        }
        for (n, other) in others.iter().enumerate() {
            let ended = site.ended(&format!("{round}-{n}")).await;
            assert_eq!(ended.images[0]["source"], round, "{other}: {ended:?}");
        }
    }
    assert_eq!(site.calls().len(), others.len());
}

async fn fields_that_cannot_change_the_picture_make_no_other_edit(site: Site) {
    let [_worker] = site.workers().await;
    let plain = json!({"v": 1, "task_id": "plain", "edit_type": "double", "prompt": "é\nà", "params": {"a": 1, "b": 2},
        "images": [seed(1)]});
    site.publish(&plain).await;
    assert_eq!(site.ended("plain").await.counts, [0, 0, 1, 0]);
    let same = [
        ("outer-space", "prompt", json!("  é\nà \n")),
        ("line-ends", "prompt", json!("é\r\nà")),
        ("decomposed", "prompt", json!("e\u{301}\na\u{300}")),
        ("the-default-model", "model", json!("double-1")),
        ("metadata", "metadata", json!({"user_id": "42"})),
    ];
    for (id, field, value) in same {
        let mut task = plain.clone();
        task["task_id"] = json!(id);
        task[field] = value;
        site.publish(&task).await;
        assert_eq!(site.ended(id).await.counts, [1, 0, 0, 0], "{id}");
    }
    // serde_json would sort the keys; a producer need not.
    let turned =
        r#"{"v":1,"task_id":"order","edit_type":"double","prompt":"é\nà","params":{"b":2,"a":1},"images":["#;
    site.publish_bytes(format!("{turned}{}]}}", seed(1)).as_bytes()).await;
    assert_eq!(site.ended("order").await.counts, [1, 0, 0, 0]);
}

async fn a_results_type_is_recognised_by_its_bytes(site: Site) {
    let [_worker] = site.workers().await;
    let jpeg = picture_as(1, 40, 30, ImageFormat::Jpeg);
    let webp = picture_as(2, 50, 20, ImageFormat::WebP);
    // With wrong names and content types.
    let images = [data(&jpeg), url(&site.pictures.png("/webp.png", webp))];
    let mut local = task("local", json!({}), &images);
    local["edit_type"] = json!("grayscale");
    site.publish(&local).await;
    let ended = site.ended("local").await;
    assert_eq!(ended.counts, [0, 0, 2, 0]);
    for (image, (width, height)) in ended.images.iter().zip([(40, 30), (50, 20)]) {
        let bytes = site.result(image);
        let format = image::guess_format(&bytes).unwrap();
        assert_eq!(image["content_type"], format.to_mime_type(), "{image}");
        assert_eq!((image["width"].as_u64(), image["height"].as_u64()), (Some(width), Some(height)));
        let pixels = pictures::decode(&bytes);
        assert_eq!((u64::from(pixels.width()), u64::from(pixels.height())), (width, height));
    }
    let table = "SELECT CONCAT(content_type, ' ', width, ' ', height) FROM image_edit_cache ORDER BY width";
    let of_images = ended.images.iter().map(|image| {
        format!("{} {} {}", image["content_type"].as_str().unwrap(), image["width"], image["height"])
    });
    assert_eq!(site.texts(table).await, of_images.collect::<Vec<_>>());
}

async fn hits_are_counted_on_every_way_that_an_image_is_answered(site: Site) {
    let [_worker] = site.workers().await;
    let params = json!({"gate": "open"});
    // Paid and joined in one task, joined from another, hit twice in a third beside a miss.
    site.publish(&task("paid", params.clone(), &[seed(1), seed(1)])).await;
    site.called(1).await;
    site.publish(&task("joined", params.clone(), &[seed(1)])).await;
    site.counts("SELECT COUNT(*) FROM image_edit_waits", 3).await;
    site.open_gate("open");
    assert_eq!(site.ended("paid").await.counts, [0, 1, 1, 0]);
    assert_eq!(site.ended("joined").await.counts, [0, 1, 0, 0]);
    site.publish(&task("hit", params.clone(), &[seed(1), seed(2), seed(1)])).await;
    assert_eq!(site.ended("hit").await.counts, [2, 0, 1, 0]);
    site.publish(&task("again", params.clone(), &[seed(2)])).await;
    assert_eq!(site.ended("again").await.counts, [1, 0, 0, 0]);
    let counts = site.texts("SELECT CAST(hit_count AS CHAR) FROM image_edit_cache ORDER BY hit_count").await;
    assert_eq!(counts, ["2", "5"]);
    // A hit is dated when it happens, so that hits of a day can be counted.
    assert_eq!(site.number("SELECT COUNT(*) FROM image_edit_cache WHERE last_hit_at > created_at").await, 2);
    site.nothing_left().await;
}
