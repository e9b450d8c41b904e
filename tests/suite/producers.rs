//! The example producers, as a newcomer would start them, against a real worker.

use retouch_tests::pictures::{picture, picture_as};
use retouch_tests::program::{Finished, Program};
use retouch_tests::site::Site;
use retouch_tests::{node, python};
use serde_json::Value;

/// The promise of both producers: a file and a URL become one task, and its event is printed.
async fn publishes_and_hears(site: &Site, producer: Program) {
    let _worker = site.workers::<1>().await;
    let folder = producer.folder().to_owned();
    // A JPEG by content, whatever its name says.
    let jpeg = picture_as(1, 64, 48, image::ImageFormat::Jpeg);
    std::fs::write(folder.join("one.png"), &jpeg).unwrap();
    let url = site.pictures.picture(2);
    let done = with_broker(site, producer).arg("one.png").arg(url).run().await;
    assert_eq!(done.status.code(), Some(0), "{}", done.stderr);
    let event: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!((&event["status"], &event["paid"]), (&"completed".into(), &2.into()));
    let row = site.ended(event["task_id"].as_str().unwrap()).await;
    assert!(site.is_right(&row.images[0], &jpeg) && site.is_right(&row.images[1], &picture(2)));
    assert_eq!(row.images[0]["image_hash"], event["images"][0]["image_hash"]);
}

fn with_broker(site: &Site, producer: Program) -> Program {
    let env = &site.env;
    producer.env("AMQP_URL", env.amqp_url()).env("RETOUCH_NAMESPACE", env.namespace())
}

/// Tells a failed task from an unsent one.
async fn tells_failure_from_silence(site: &Site, publish: impl AsyncFn() -> Program) {
    let [worker] = site.workers::<1>().await;
    let producer = publish().await;
    let gone = site.pictures.url("/gone.png");
    let done: Finished = with_broker(site, producer).arg(gone).run().await;
    assert_eq!(done.status.code(), Some(1), "{}", done.stderr);
    let event: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(event["images"][0]["error"]["code"], "source_not_found");
    drop(worker);
    let unreachable =
        publish().await.env("AMQP_URL", "amqp://127.0.0.1:1").arg("https://pictures.example/a.png");
    let done = unreachable.run().await;
    assert_eq!(done.status.code(), Some(3), "{}", done.stderr);
    assert_eq!(done.stdout, "");
}

#[tokio::test]
async fn the_python_example_publishes_a_task_and_prints_its_event() {
    let site = Site::on_servers().await;
    publishes_and_hears(
        &site,
        python::producer("publish.py", &["--type", "double", "--timeout", "60"]).await,
    )
    .await;
}

#[tokio::test]
async fn the_node_example_publishes_a_task_and_prints_its_event() {
    let site = Site::on_servers().await;
    publishes_and_hears(&site, node::producer(&["--type", "double", "--timeout", "60"]).await).await;
}

#[tokio::test]
async fn the_python_example_tells_failure_from_an_unreachable_broker() {
    let site = Site::on_servers().await;
    let arguments = ["--type", "double", "--timeout", "60"];
    tells_failure_from_silence(&site, async || python::producer("publish.py", &arguments).await).await;
}

#[tokio::test]
async fn the_node_example_tells_failure_from_an_unreachable_broker() {
    let site = Site::on_servers().await;
    tells_failure_from_silence(&site, async || {
        node::producer(&["--type", "double", "--timeout", "60"]).await
    })
    .await;
}
