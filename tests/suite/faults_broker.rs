//! The broker fails, one fault at a time: work resumes by itself, nothing is lost, nothing is paid twice.
//! Each prints one line: the fault, and the time until work resumed.

use std::time::{Duration, Instant};

use lapin::ExchangeKind;
use reqwest::Method;
use retouch_tests::picture_server::{Answer, PictureServer};
use retouch_tests::program::Running;
use retouch_tests::proxy::Proxy;
use retouch_tests::services::Port;
use retouch_tests::site::Site;
use retouch_tests::tasks::{seed, task, task_async};
use retouch_tests::wait;
use serde_json::{Value, json};

const HURRY: [(&str, &str); 2] = [("RETOUCH_LEASE_SECONDS", "2"), ("RETOUCH_PATIENCE_SECONDS", "1")];

/// Over its own connection: the fault ends the test's, too.
async fn publish(site: &Site, task: &Value) {
    let body = serde_json::to_vec(task).unwrap();
    site.env.amqp().await.publish(site.env.namespace(), "tasks", body).await;
}

/// A call is under way during the fault.
async fn before(site: &Site, fault: &str) {
    let n = site.number("SELECT COUNT(*) FROM image_edit_tasks").await.unsigned_abs();
    let calls = site.calls().len();
    let params = json!({ "gate": fault });
    publish(site, &task_async(&format!("before-{fault}"), params, &[seed(1000 + n)])).await;
    site.called(calls + 1).await;
    site.counts("SELECT COUNT(*) FROM image_edit_calls WHERE state = 'submitted'", 1).await;
}

/// After the fault: the time until a new task has ended; the call under way must end too.
async fn after(site: &Site, fault: &str, what: &str) {
    let (over, calls) = (Instant::now(), site.calls().len());
    let id = format!("after-{fault}");
    publish(site, &task(&id, json!({ "fault": fault }), &[seed(1)])).await;
    assert_eq!(site.ended(&id).await.status, "completed");
    let took = over.elapsed();
    site.open_gate(fault);
    assert_eq!(site.ended(&format!("before-{fault}")).await.status, "completed");
    assert_eq!(site.calls().len(), calls + 1, "{fault}: something was paid twice");
    let harmed = "SELECT CAST(SUM(possible_duplicates) AS SIGNED) FROM image_edit_calls";
    assert_eq!(site.number(harmed).await, 0);
    assert_eq!(site.number("SELECT COUNT(*) FROM dead_letters").await, 0);
    site.nothing_left().await;
    println!("fault | {fault} | {what} | {:.1} s | 0 lost | 0 paid twice", took.as_secs_f64());
}

async fn ready(http: &str, wanted: u16, within: Duration) -> Duration {
    let (start, url) = (Instant::now(), format!("http://{http}/readyz"));
    let answered = wait::poll(within, async || {
        let status = reqwest::get(&url).await.ok()?.status();
        (status.as_u16() == wanted).then_some(())
    });
    assert!(answered.await.is_some(), "/readyz did not say {wanted} within {within:?}");
    start.elapsed()
}

async fn worker(site: &Site, amqp_url: &str) -> (Running, String, Port) {
    let port = Port::free().unwrap();
    let http = format!("127.0.0.1:{}", port.number());
    let settings = [HURRY[0], HURRY[1], ("AMQP_URL", amqp_url), ("RETOUCH_HTTP", &http)];
    (site.worker_with(&settings).await, http, port)
}

#[tokio::test]
async fn a_stalled_link_is_noticed_within_15_s_and_work_resumes() {
    let site = Site::on_servers().await;
    let (proxy, url) = Proxy::before(site.env.amqp_url()).await;
    let (_worker, http, _port) = worker(&site, &url).await;
    ready(&http, 200, wait::SOON).await;
    before(&site, "stalled").await;
    proxy.stall();
    let noticed = ready(&http, 503, Duration::from_secs(15)).await;
    proxy.resume();
    after(&site, "stalled", &format!("no byte passes; noticed after {:.1} s", noticed.as_secs_f64())).await;
    ready(&http, 200, wait::SOON).await;
}

#[tokio::test]
async fn cut_links_deleted_queues_and_purged_messages_stop_nothing() {
    let site = Site::on_servers().await;
    let (proxy, url) = Proxy::before(site.env.amqp_url()).await;
    let (_worker, http, _port) = worker(&site, &url).await;
    before(&site, "cut").await;
    proxy.reset().await;
    after(&site, "cut", "every connection reset").await;

    before(&site, "deleted").await;
    let queue = format!("{}.edits.double", site.env.namespace());
    site.env.management().delete_all(&queue).await.unwrap();
    after(&site, "deleted", "the queue of edits deleted").await;

    before(&site, "purged").await;
    site.purge_all().await;
    after(&site, "purged", "every queue purged").await;
    ready(&http, 200, wait::SOON).await;
}

#[tokio::test]
async fn deleted_queues_are_declared_again_without_losses() {
    let (site, pictures) = (Site::on_servers().await, PictureServer::start().await);
    let (_worker, http, _port) = worker(&site, site.env.amqp_url()).await;
    let (name, management) = (site.env.namespace(), site.env.management());
    let delete = async |kind: &str, name: &str| {
        management.call(Method::DELETE, &[kind, "/", name], "").await.unwrap();
    };

    // By a worker that publishes to it.
    before(&site, "exchange").await;
    delete("exchanges", name).await;
    let straight = serde_json::to_vec(&task("straight", json!({}), &[seed(7)])).unwrap();
    site.env.amqp().await.publish("", &format!("{name}.tasks"), straight).await;
    assert_eq!(site.ended("straight").await.status, "completed");
    after(&site, "exchange", "the exchange deleted; a task that was there already needs it").await;

    before(&site, "wait").await;
    let late = pictures.answer("/late.png", Answer::Status(503));
    delete("queues", &format!("{name}.wait.1s")).await;
    let mut waits = task("waits", json!({}), &[]);
    waits["images"] = json!([{ "url": late }]);
    publish(&site, &waits).await;
    pictures.requested("/late.png", 1).await;
    pictures.png("/late.png", retouch_tests::pictures::picture(8));
    assert_eq!(site.ended("waits").await.status, "completed");
    after(&site, "wait", "the queue deleted in which a task was to wait for its source").await;

    // By the sweep: no producer can publish.
    before(&site, "idle").await;
    delete("exchanges", name).await;
    let tasks = format!("{name}.tasks");
    wait::until("the exchange is there again, bound to the queue", async || {
        let path = ["bindings", "/", "e", name, "q", &tasks];
        let bound: Value = serde_json::from_str(&management.call(Method::GET, &path, "").await.ok()?).ok()?;
        (!bound.as_array()?.is_empty()).then_some(())
    })
    .await;
    after(&site, "idle", "the exchange deleted, without a publisher").await;
    ready(&http, 200, wait::SOON).await;
}

#[tokio::test]
async fn an_event_without_its_exchange_waits_for_a_listener() {
    let site = Site::on_servers().await;
    let (worker, _http, _port) = worker(&site, site.env.amqp_url()).await;
    let (events, management) = (format!("{}.events", site.env.namespace()), site.env.management());
    before(&site, "events").await;
    management.call(Method::DELETE, &["exchanges", "/", &events], "").await.unwrap();
    site.open_gate("events");
    assert_eq!(site.ended("before-events").await.status, "completed");
    let due = "SELECT COUNT(*) FROM image_edit_tasks WHERE event_due IS NOT NULL";
    // Between two rounds the sweep has looked for what is missing.
    let mut seen = 0;
    for _ in 0..2 {
        worker.line_after(seen, "sending an event again").await;
        seen = worker.mark();
    }
    assert_eq!(site.number(due).await, 1, "it was sent without a listener");
    assert_eq!(management.exchanges(&events).await.unwrap(), [] as [&str; 0]);

    // No worker sends between the exchange and its first binding.
    drop(worker);
    let amqp = site.env.amqp().await;
    let mut listener = amqp.listen(&events, ExchangeKind::Topic, "task.*").await;
    let _worker = site.worker_with(&HURRY).await;
    let working = Instant::now();
    let event = listener.next_json().await;
    let took = working.elapsed();
    assert_eq!((&event["task_id"], &event["status"]), (&json!("before-events"), &json!("completed")));
    site.nothing_left().await;
    println!(
        "fault | events | the exchange of events deleted | {:.1} s | 0 lost | 0 paid twice",
        took.as_secs_f64()
    );
}

mod own_servers {
    use retouch_tests::services::{MariaDb, RabbitMq};

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_memory_alarm_closed_channels_or_a_killed_broker_stop_nothing() {
        let (mut rabbitmq, mariadb) = (RabbitMq::start().await.unwrap(), MariaDb::start().await.unwrap());
        let site = Site::on_own(&rabbitmq, &mariadb).await;
        let (_worker, http, _port) = worker(&site, site.env.amqp_url()).await;
        ready(&http, 200, wait::SOON).await;

        before(&site, "memory").await;
        rabbitmq.ctl(&["set_vm_memory_high_watermark", "absolute", "1"]).await.unwrap();
        // An edit ends meanwhile; its event waits.
        site.open_gate("memory");
        assert_eq!(site.ended("before-memory").await.status, "completed");
        rabbitmq.ctl(&["set_vm_memory_high_watermark", "absolute", "2GB"]).await.unwrap();
        after(&site, "memory", "memory alarm: publishers blocked, then released").await;

        before(&site, "channels").await;
        // As when a delivery is held too long: the broker ends every channel, the connections stay.
        let close = "[exit(Pid, {amqp_error, precondition_failed, \"as the test asked\", none}) \
                     || Pid <- rabbit_channel:list()].";
        rabbitmq.ctl(&["eval", close]).await.unwrap();
        after(&site, "channels", "every channel ended by the broker").await;

        before(&site, "killed").await;
        rabbitmq.sync_declarations().await.unwrap();
        rabbitmq.kill9();
        ready(&http, 503, Duration::from_secs(15)).await;
        rabbitmq.stop_and_restart().await.unwrap();
        after(&site, "killed", "RabbitMQ killed and restarted").await;
        ready(&http, 200, wait::SOON).await;
    }

    /// The broker's timeout for a delivery, 30 minutes by default, is set to 5 s here, checked every second.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_call_longer_than_the_consumer_timeout_is_paid_once() {
        let patience = ", {consumer_timeout, 5000}, {channel_tick_interval, 1000}";
        let rabbitmq = RabbitMq::start_with(patience).await.unwrap();
        let site = Site::on_own_broker(&rabbitmq).await;
        let (worker, http, _port) = worker(&site, site.env.amqp_url()).await;
        ready(&http, 200, wait::SOON).await;
        // One is submitted and polled, one gets its result with the answer.
        publish(&site, &task("at-once", json!({ "gate": "timeout" }), &[seed(2000)])).await;
        before(&site, "timeout").await;
        let closed = async || timed_out(&worker).then_some(());
        wait::until("a channel closed by the broker", closed).await;
        worker.line("consuming again").await;
        after(
            &site,
            "timeout",
            "two calls longer than RabbitMQ's consumer timeout (5 s); it closed the channel",
        )
        .await;
        assert_eq!(site.ended("at-once").await.status, "completed");
        assert_eq!(site.calls().len(), 3);
        assert_eq!(site.number("SELECT MAX(paid_calls) FROM image_edit_calls").await, 1);
        assert_eq!(site.number("SELECT CAST(SUM(paid_calls) AS SIGNED) FROM image_edit_calls").await, 3);
        ready(&http, 200, wait::SOON).await;
    }

    /// Whether the broker closed a channel because a delivery on it was not acknowledged in time.
    fn timed_out(worker: &Running) -> bool {
        let said = worker.stderr();
        said.lines().any(|line| line.contains("not consuming") && line.contains("PRECONDITION_FAILED"))
    }
}
