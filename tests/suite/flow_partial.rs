//! Failed images leave the others alone, the counts are right, and the producer gets an event.

use retouch_tests::picture_server::Answer;
use retouch_tests::pictures::picture;
use retouch_tests::program::Program;
use retouch_tests::site::Site;
use retouch_tests::tasks::{data, seed, task, url};
use serde_json::{Value, json};

on_both! {
    two_bad_images_of_five_make_a_partial_task;
    a_task_with_only_failed_images_has_failed;
    every_bad_source_has_a_code_of_its_own;
    a_refused_edit_fails_its_images_and_leaves_one_letter;
}

fn five(site: &Site) -> Value {
    let text = site.pictures.answer("/text.png", Answer::Bytes("image/png", "no picture at all".into()));
    let images = [
        seed(1),
        url(&site.pictures.url("/gone.png")),
        url(&site.pictures.picture(2)),
        url(&text),
        data(&picture(3)),
    ];
    let mut five = task("five", json!({}), &images);
    five["metadata"] = json!({"user_id": "42"});
    five
}

async fn two_bad_images_of_five_make_a_partial_task(site: Site) {
    let [_worker] = site.workers().await;
    site.publish(&five(&site)).await;
    let row = site.ended("five").await;
    assert_eq!((row.status.as_str(), row.counts, row.total), ("partial", [0, 0, 3, 2], 5));
    for (position, input) in [(0, 1), (2, 2), (4, 3)] {
        assert!(site.is_right(&row.images[position], &picture(input)), "{position}");
    }
    assert_eq!(row.images[1]["error"]["code"], "source_not_found");
    assert_eq!(row.images[3]["error"]["code"], "not_an_image");
    let positions: Vec<_> = row.images.iter().map(|image| image["position"].as_u64().unwrap()).collect();
    assert_eq!(positions, [0, 1, 2, 3, 4]);
    // One letter a cause, so that each can be retried by itself.
    assert_eq!(site.dead_letters(2).await, ["not_an_image five", "source_not_found five"]);
    site.nothing_left().await;
}

#[tokio::test]
async fn the_event_matches_its_schema_and_correlation_id() {
    let site = Site::on_servers().await;
    let [_worker] = site.workers().await;
    let schema = Program::new(&["schema", "event"]).run().await.stdout;
    let schema = jsonschema::validator_for(&serde_json::from_str(&schema).unwrap()).unwrap();
    let mut events = site.events().await;
    let (reply_to, mut replies) = site.reply_queue().await;
    site.publish_for(&five(&site), &reply_to, "question 1").await;

    let event = events.next().await;
    let reply = replies.next().await;
    assert_eq!(event.routing_key.as_str(), "task.partial");
    assert_eq!(reply.properties.correlation_id().as_ref().unwrap().as_str(), "question 1");
    assert_eq!(reply.data, event.data);
    let id = event.properties.message_id().as_ref().unwrap().to_string();
    assert_eq!(event.properties.content_type().as_ref().unwrap().as_str(), "application/json");
    let event: Value = serde_json::from_slice(&event.data).unwrap();
    let errors: Vec<String> = schema.iter_errors(&event).map(|error| error.to_string()).collect();
    assert_eq!(errors, Vec::<String>::new(), "{event:#}");

    assert_eq!((&event["task_id"], &event["status"]), (&json!("five"), &json!("partial")));
    let counts = ["hit", "joined", "paid", "failed"].map(|count| event[count].as_u64().unwrap());
    assert_eq!(counts, [0, 0, 3, 2]);
    assert_eq!(event["event_id"], id);
    assert_eq!(event["cost"], json!({"paid": "0.42", "saved": "0", "lost": "0", "currency": "CNY"}));
    assert_eq!(event["metadata"], json!({"user_id": "42"}));
    let images = event["images"].as_array().unwrap();
    assert_eq!(images.iter().filter(|image| image["status"] == "done").count(), 3);
    assert_eq!(images[1]["error"]["code"], "source_not_found");
    assert_eq!(images[3]["error"]["code"], "not_an_image");
    site.nothing_left().await;
}

async fn a_task_with_only_failed_images_has_failed(site: Site) {
    let [_worker] = site.workers().await;
    let rejected = json!({"fail": "rejected"});
    site.publish(&task("refused", rejected, &[seed(1), seed(2)])).await;
    site.publish(&task("gone", json!({}), &[url(&site.pictures.url("/gone.png"))])).await;
    let mut unknown = task("unknown", json!({}), &[seed(1), seed(2), seed(3)]);
    unknown["edit_type"] = json!("greyscale");
    site.publish(&unknown).await;
    for (id, failed) in [("refused", 2), ("gone", 1), ("unknown", 3)] {
        let row = site.ended(id).await;
        assert_eq!((row.status.as_str(), row.counts), ("failed", [0, 0, 0, failed]), "{id}");
        let errors = row.images.iter().filter(|image| image["error"]["code"].is_string());
        assert_eq!(errors.count() as i64, failed, "{row:?}");
    }
    assert_eq!(site.number("SELECT COUNT(*) FROM image_edit_cache").await, 0);
    site.nothing_left().await;
}

async fn every_bad_source_has_a_code_of_its_own(site: Site) {
    let [_worker] = site.workers().await;
    let answer = |path: &str, answer| url(&site.pictures.answer(path, answer));
    let truncated = picture(1)[..200].to_vec();
    let large = vec![0; 21 * 1024 * 1024];
    let loop_to = site.pictures.url("/loop");
    let bad = [
        (url("ftp://example.com/a.png"), "bad_url"),
        (url("http://10.0.0.1/a.png"), "private_address"),
        (url("http://169.254.169.254/latest/meta-data"), "private_address"),
        (answer("/away", Answer::Redirect("http://192.168.0.1/a.png".to_owned())), "private_address"),
        (answer("/loop", Answer::Redirect(loop_to)), "too_many_redirects"),
        (answer("/gone", Answer::Status(410)), "source_not_found"),
        (answer("/forbidden", Answer::Status(403)), "source_refused"),
        (answer("/large", Answer::Bytes("image/png", large.into())), "too_large"),
        (answer("/html", Answer::Bytes("image/png", "<html>".into())), "not_an_image"),
        (json!({"blob": format!("sha256:{}", "0".repeat(64))}), "blob_missing"),
    ];
    let mut images: Vec<Value> = bad.iter().map(|(image, _)| image.clone()).collect();
    images.push(data(&truncated));
    images.push(seed(1));
    site.publish(&task("bad", json!({}), &images)).await;
    let row = site.ended("bad").await;
    for (image, (source, code)) in row.images.iter().zip(&bad) {
        assert_eq!(image["error"]["code"], *code, "{source}: {image}");
    }
    // Its header is whole; only decoding shows the damage.
    assert_eq!(row.images[bad.len()]["status"], "failed");
    assert_eq!(row.images[bad.len() + 1]["status"], "done");
    assert_eq!(row.counts, [0, 0, 1, bad.len() as i64 + 1]);
}

async fn a_refused_edit_fails_its_images_and_leaves_one_letter(site: Site) {
    let [_worker] = site.workers().await;
    let params = json!({"gate": "open", "fail": "rejected"});
    site.publish(&task("one", params.clone(), &[seed(1), seed(1)])).await;
    site.called(1).await;
    site.publish(&task("two", params, &[seed(1)])).await;
    site.counts("SELECT COUNT(*) FROM image_edit_waits", 3).await;
    site.open_gate("open");
    assert_eq!(site.ended("one").await.counts, [0, 0, 0, 2]);
    assert_eq!(site.ended("two").await.counts, [0, 0, 0, 1]);
    let letters = site.dead_letters(1).await;
    assert!(letters[0].ends_with(" one"), "{letters:?}");
    assert_eq!(site.calls().len(), 1, "a refusal is not tried again");
    site.nothing_left().await;
}
