//! One namespace, one database: a worker with another database is refused, at its start and while it runs,
//! until a person decides.

use futures::future::join_all;
use retouch_shared::topology::Topology;
use retouch_tests::env::Env;
use retouch_tests::program::Program;
use retouch_tests::services::Port;
use retouch_tests::site::{Site, working};
use retouch_tests::tasks::{seed, task};
use retouch_tests::wait;
use retouch_worker::broker::rabbitmq::{Belongs, RabbitMq};
use retouch_worker::broker::{Broker, BrokerError, Queue};
use serde_json::{Value, json};

/// A command with the namespace of `site` and the database of `other`.
fn stranger(site: &Site, other: &Site, arguments: &[&str]) -> Program {
    site.program(arguments).env("DATABASE_URL", other.env.mysql_url())
}

async fn id(site: &Site) -> String {
    site.texts("SELECT id FROM installation").await.remove(0)
}

async fn json_of(program: Program) -> Value {
    let done = program.run().await;
    serde_json::from_str(&done.stdout).unwrap_or_else(|_| panic!("{}{}", done.stdout, done.stderr))
}

fn installation(checks: &Value) -> &Value {
    checks.as_array().unwrap().iter().find(|check| check["check"] == "installation").unwrap()
}

#[tokio::test]
async fn a_worker_with_another_database_refuses_to_start() {
    let (site, other) = (Site::on_servers().await, Site::on_servers().await);
    let [_worker] = site.workers().await;
    let picture = site.env.folder().join("cat.png");
    std::fs::write(&picture, retouch_tests::pictures::picture(1)).unwrap();
    let picture = picture.display().to_string();
    for arguments in [&["worker"][..], &["edit", &picture, "--type", "double"]] {
        let done = stranger(&site, &other, arguments).run().await;
        assert_eq!(done.status.code(), Some(3), "{}", done.stderr);
        let (namespace, database) = (site.env.namespace(), other.env.namespace());
        let (theirs, ours) = (id(&site).await, id(&other).await);
        for part in [
            &format!(
                "the namespace {namespace} belongs to installation {theirs}, and this database is installation {ours}"
            ),
            &format!("/{database}"),
            "virtual host /",
            "RETOUCH_NAMESPACE",
            "`retouch rebind`",
        ] {
            assert!(done.stderr.contains(part), "{part}: {}", done.stderr);
        }
        assert!(!done.stderr.contains("guest:guest"), "{}", done.stderr);
    }
    assert_eq!(other.number("SELECT COUNT(*) FROM image_edit_tasks").await, 0);
    let checks = json_of(stranger(&site, &other, &["doctor", "--json"])).await;
    let check = installation(&checks);
    assert_eq!(check["state"], "failed", "{check}");
    assert!(check["detail"].as_str().unwrap().contains("refuse to start"), "{check}");
    let checks = json_of(site.program(&["doctor", "--json"])).await;
    assert_eq!(installation(&checks)["state"], "ok", "{checks}");
    // Its own database may come and go.
    let [_second] = site.workers().await;
    site.publish(&task("t", json!({}), &[seed(1)])).await;
    assert_eq!(site.ended("t").await.status, "completed");
    site.nothing_left().await;
}

#[tokio::test]
async fn after_a_rebind_running_workers_of_the_other_database_stop() {
    let (site, other) = (Site::on_servers().await, Site::on_servers().await);
    let port = Port::free().unwrap();
    let http = format!("127.0.0.1:{}", port.number());
    let old = site.worker_with(&[("RETOUCH_HTTP", &http)]).await;
    let preview = json_of(stranger(&site, &other, &["rebind", "--json"])).await;
    assert_eq!((&preview["preview"], &preview["before"]), (&json!(true), &json!("other")), "{preview}");
    assert_eq!((&preview["other"], &preview["messages"]["tasks"]), (&json!(id(&site).await), &json!(0)));
    let told = stranger(&site, &other, &["rebind"]).run().await;
    assert!(told.stdout.contains("nothing was changed") && told.status.success(), "{}", told.stdout);
    assert_eq!(stranger(&site, &other, &["worker"]).run().await.status.code(), Some(3), "a preview bound it");

    let done = stranger(&site, &other, &["rebind", "--yes"]).run().await;
    assert!(done.status.success(), "{}", done.stderr);
    old.line("this worker consumes no more messages from the namespace").await;
    let ready = async |wanted: u16| {
        let answer = reqwest::get(format!("http://{http}/readyz")).await.unwrap();
        let (status, text) = (answer.status().as_u16(), answer.text().await.unwrap());
        (status == wanted).then_some(text)
    };
    let said = wait::until("/readyz of the old worker", async || {
        ready(503).await.filter(|text| text.contains("belongs to installation"))
    });
    assert!(said.await.contains("queue tasks"));
    let new = stranger(&site, &other, &["worker"]).start();
    working(&new).await;
    site.publish(&task("t", json!({}), &[seed(1)])).await;
    assert_eq!(other.ended("t").await.status, "completed");
    assert_eq!(site.number("SELECT COUNT(*) FROM image_edit_tasks").await, 0, "the old worker took it");
    assert_eq!(site.calls().len(), 1);
    // And back.
    drop(new);
    let done = site.program(&["rebind", "--yes"]).run().await;
    assert!(done.status.success(), "{}", done.stderr);
    wait::until("the old worker at work again", async || ready(200).await).await;
    site.publish(&task("u", json!({}), &[seed(2)])).await;
    assert_eq!(site.ended("u").await.status, "completed");
}

#[tokio::test]
async fn a_copied_database_gets_an_id_and_then_a_namespace() {
    let site = Site::on_servers().await;
    let [worker] = site.workers().await;
    drop(worker);
    let before = id(&site).await;
    let told = site.program(&["rebind", "--new-id"]).run().await;
    assert!(told.stdout.contains("nothing was changed"), "{}", told.stdout);
    assert_eq!(id(&site).await, before);
    let done = json_of(site.program(&["rebind", "--new-id", "--yes", "--json"])).await;
    let after = id(&site).await;
    assert_eq!((&done["before"], &done["after"]), (&json!(before), &json!(after)));
    assert_eq!(site.worker().run().await.status.code(), Some(3), "the namespace is the original's");
}

async fn connect(env: &Env, url: &str) -> RabbitMq {
    RabbitMq::connect(url, Topology::new(env.namespace()).unwrap()).await.unwrap()
}

#[tokio::test]
async fn of_databases_that_come_at_once_one_is_bound() {
    let env = Env::new().await;
    let brokers = join_all((0..8).map(|_| connect(&env, env.amqp_url()))).await;
    let ids: Vec<_> = (0..8).map(|n| format!("{n:016x}")).collect();
    assert_eq!(brokers[0].belongs(Some(&ids[0])).await.unwrap(), Belongs::Unbound, "a look binds nothing");
    let bound = join_all(brokers.iter().zip(&ids).map(|(broker, id)| broker.bind(id))).await;
    let winners: Vec<_> =
        bound.iter().zip(&ids).filter(|(bound, _)| bound.is_ok()).map(|(_, id)| id).collect();
    assert_eq!(winners.len(), 1, "{bound:?}");
    for lost in bound.iter().filter_map(|bound| bound.as_ref().err()) {
        assert!(
            matches!(lost, BrokerError::OtherInstallation { theirs: Some(theirs), .. } if theirs == winners[0]),
            "{lost:?}"
        );
    }
    // A binding deleted at the broker is restored by the database with its id.
    env.management().delete_all(env.namespace()).await.unwrap();
    let winner = &brokers[ids.iter().position(|id| id == winners[0]).unwrap()];
    winner.declare(&[]).await.unwrap();
    winner.consume(Queue::Tasks, 1).await.unwrap();
    assert_eq!(winner.belongs(Some(winners[0])).await.unwrap(), Belongs::Ours);
}

#[tokio::test]
async fn a_login_that_may_not_configure_is_refused_by_definitions() {
    let env = Env::new().await;
    let (management, name) = (env.management(), env.namespace().to_owned());
    let (ours, theirs) = ("0123456789abcdef", "fedcba9876543210");
    management.create_user(&name, "hunter2").await.unwrap();
    management.permit(&name, "^$", ".*", ".*").await.unwrap();
    let url = env.amqp_url().replace("guest:guest", &format!("{name}:hunter2"));
    // Nothing was imported: it works, and is not protected.
    connect(&env, &url).await.bind(ours).await.unwrap();
    connect(&env, env.amqp_url()).await.bind(ours).await.unwrap();
    connect(&env, &url).await.bind(ours).await.unwrap();
    let refused = connect(&env, &url).await.bind(theirs).await;
    assert!(matches!(refused, Err(BrokerError::OtherInstallation { theirs: None, .. })), "{refused:?}");
    let export = env.program(&["topology", "export", "--installation", ours]).run().await;
    let definitions: Value = serde_json::from_str(&export.stdout).unwrap();
    let exchanges = definitions["exchanges"].as_array().unwrap();
    let named = |wanted: &str| exchanges.iter().find(|exchange| exchange["name"] == wanted).unwrap();
    let main = named(&format!("{name}.installation"));
    assert_eq!(main["arguments"]["alternate-exchange"], format!("{name}.installation.{ours}"));
    named(&format!("{name}.installation.{ours}"));
    let check = json_of(env.program(&["topology", "check", "--json", "--installation", theirs])).await;
    let checked: Vec<_> = check.as_array().unwrap().iter().filter(|one| one["state"] != "missing").collect();
    assert_eq!(checked.len(), 1, "{check}");
    assert_eq!(checked[0]["state"], "different", "{check}");
    management.delete_user(&name).await.unwrap();
}
