//! See above; each server is started with certificates of the test's own.

use retouch_tests::program::{Finished, Program, Running};
use retouch_tests::services::{Certificates, MariaDb, RabbitMq};
use retouch_tests::site::{Site, TaskRow, working};
use retouch_tests::tasks::{seed, task};
use retouch_tests::wait;
use serde_json::json;

/// It works a task to its end.
async fn works(site: &Site, worker: Program, task_id: &str) -> Running {
    let worker = worker.start();
    working(&worker).await;
    site.publish(&task(task_id, json!({}), &[seed(1)])).await;
    let ended = async || site.task(task_id).await.filter(TaskRow::has_ended);
    let ended = wait::poll(2 * wait::SOON, ended).await;
    let status = ended.map(|task| task.status);
    assert_eq!(status.as_deref(), Some("completed"), "{task_id}: {}", worker.stderr());
    site.nothing_left().await;
    worker
}

/// It does not even start, and says why in one line.
pub(super) async fn is_refused(worker: Program, says: &[&str]) {
    let Finished { status, stdout, stderr } = worker.run().await;
    assert_eq!(status.code(), Some(3), "{stdout}{stderr}");
    let told = stderr.lines().last().unwrap_or_default();
    for part in says {
        assert!(told.contains(part), "{part:?} is not in: {stderr}");
    }
    assert!(!told.contains("guest:guest"), "{told}");
}

/// What the broker knows of the connections that are not the harness's own.
async fn encrypted(broker: &RabbitMq) -> Vec<String> {
    let list = ["list_connections", "--silent", "name", "ssl", "client_properties"];
    let listed = broker.ctl(&list).await.unwrap();
    let ours = listed.lines().filter(|line| line.contains("retouch consumer"));
    ours.filter_map(|line| line.split('\t').nth(1).map(str::to_owned)).collect()
}

#[tokio::test]
async fn a_broker_of_an_unknown_authority_is_refused_over_amqps() {
    let (ours, others) = (Certificates::new().unwrap(), Certificates::new().unwrap());
    let (broker, database) = (RabbitMq::start_tls(&ours).await.unwrap(), MariaDb::start().await.unwrap());
    let site = Site::on_own(&broker, &database).await;
    let over = |query: &str| site.worker().env("AMQP_URL", format!("{}{query}", broker.amqps_url()));
    let ca = format!("?cacertfile={}", ours.ca().display());

    // The authority in the URL, in the system's place for them, and with a certificate of the worker's own.
    let worker = works(&site, over(&ca), "by-url").await;
    let seen = wait::until("the worker's connection", async || {
        let seen = encrypted(&broker).await;
        (!seen.is_empty()).then_some(seen)
    });
    assert_eq!(seen.await, ["true"]);
    drop(worker);
    drop(works(&site, over("").env("SSL_CERT_FILE", ours.ca()), "by-variable").await);
    let (cert, key) = ours.of("client");
    let both = format!("{ca}&certfile={}&keyfile={}", cert.display(), key.display());
    drop(works(&site, over(&both), "with-a-certificate").await);

    let unknown = ["AMQP_URL", "UnknownIssuer", "?cacertfile=/path/ca.pem"];
    is_refused(over(""), &unknown).await;
    is_refused(over(&format!("?cacertfile={}", others.ca().display())), &unknown).await;
    is_refused(over("?cacertfile=/nowhere.pem"), &["cacertfile /nowhere.pem: No such file"]).await;
    // TLS where there is none, and none where it was meant.
    let plain = format!("{}{ca}", broker.amqp_url().replace("amqp://", "amqps://"));
    is_refused(site.worker().env("AMQP_URL", plain), &["does not speak TLS on this port"]).await;
    let settings = site.worker().env("AMQP_URL", format!("{}{ca}", broker.amqp_url())).run().await;
    assert!(settings.stderr.contains("need amqps://"), "never silently plain: {}", settings.stderr);
}

#[tokio::test]
async fn a_database_of_an_unknown_authority_is_refused_over_tls() {
    let (ours, others) = (Certificates::new().unwrap(), Certificates::new().unwrap());
    let (broker, database) = (RabbitMq::start().await.unwrap(), MariaDb::start_tls(&ours).await.unwrap());
    let site = Site::on_own(&broker, &database).await;
    let over = |query: &str| site.worker().env("DATABASE_URL", format!("{}{query}", site.env.mysql_url()));
    let ca = format!("?ssl-ca={}", ours.ca().display());

    drop(works(&site, over(&ca), "by-url").await);
    let verified = over("?ssl-mode=VERIFY_IDENTITY").env("SSL_CERT_FILE", ours.ca());
    drop(works(&site, verified, "by-variable").await);

    let unknown = ["DATABASE_URL", "UnknownIssuer", "?ssl-ca=/path/ca.pem"];
    is_refused(over("?ssl-mode=VERIFY_IDENTITY"), &unknown).await;
    is_refused(over(&format!("?ssl-ca={}", others.ca().display())), &unknown).await;
    // The server accepts no client without a certificate.
    is_refused(over("?ssl-mode=DISABLED"), &["DATABASE_URL"]).await;
}
