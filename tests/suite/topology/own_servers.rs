//! Definitions imported into a fresh broker.

use retouch_tests::services::{MariaDb, RabbitMq};
use retouch_tests::site::{Site, working};
use retouch_tests::tasks::{seed, task, task_async};
use serde_json::{Value, json};

#[tokio::test]
async fn a_worker_works_on_imported_definitions_without_configure() {
    let (broker, database) = (RabbitMq::start().await.unwrap(), MariaDb::start().await.unwrap());
    let site = Site::on_own(&broker, &database).await;
    let exported = site.program(&["topology", "export"]).run().await;
    assert!(exported.status.success(), "{}", exported.stderr);
    let file = site.env.folder().join("definitions.json");
    std::fs::write(&file, &exported.stdout).unwrap();
    broker.ctl(&["import_definitions", file.to_str().unwrap()]).await.unwrap();

    // Nothing is different, says the program ...
    let check = site.program(&["topology", "check", "--json"]).run().await;
    let findings: Vec<Value> = serde_json::from_str(&check.stdout).unwrap();
    assert_eq!(check.status.code(), Some(0), "{findings:#?}");
    assert!(
        findings.len() > 15 && findings.iter().all(|finding| finding["state"] == "same"),
        "{findings:#?}"
    );

    // ... and a worker that may declare nothing finds everything there, bindings too.
    broker.ctl(&["add_user", "worker", "hunter2"]).await.unwrap();
    broker.ctl(&["set_permissions", "-p", "/", "worker", "^$", ".*", ".*"]).await.unwrap();
    let bindings = async || broker.ctl(&["list_bindings", "--silent"]).await.unwrap();
    let mut before: Vec<_> = bindings().await.lines().map(str::to_owned).collect();
    let url = broker.amqp_url().replace("guest:guest", "worker:hunter2");
    let worker = site.worker().env("AMQP_URL", &url).start();
    working(&worker).await;
    site.publish(&task("within", json!({}), &[seed(1)])).await;
    site.publish(&task_async("polled", json!({}), &[seed(2), seed(3)])).await;
    for id in ["within", "polled"] {
        assert_eq!(site.ended(id).await.status, "completed", "{id}");
    }
    site.nothing_left().await;
    let mut after: Vec<_> = bindings().await.lines().map(str::to_owned).collect();
    before.sort();
    after.sort();
    assert_eq!(before, after, "a worker had bindings to make");

    // For such a login, incomparable items are reported as such.
    let check = site.program(&["topology", "check", "--json"]).env("AMQP_URL", &url).run().await;
    let findings: Vec<Value> = serde_json::from_str(&check.stdout).unwrap();
    assert!(findings.iter().all(|finding| finding["state"] == "unknown"), "{findings:#?}");
    assert_eq!(check.status.code(), Some(1));
}
