//! A broker that cannot be reached, has other queues, or gives this login too few rights.

use lapin::ExchangeKind;
use lapin::options::{ExchangeDeclareOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use retouch_tests::env::Env;

use super::{doctor, examine};

#[tokio::test]
async fn a_broker_that_cannot_be_reached_is_named_with_the_reason() {
    let env = Env::new().await;
    let report = examine(doctor(&env).env("AMQP_URL", "amqp://guest:hunter2@127.0.0.1:1/")).await;
    report.names("broker down", "broker", "failed", "127.0.0.1:1");
    assert_eq!(
        (report.state("queues"), report.state("database"), report.state("blobs")),
        ("skipped", "ok", "ok")
    );
    let url = env.amqp_url().replace("%2f", "nowhere");
    examine(doctor(&env).env("AMQP_URL", url)).await.names(
        "wrong virtual host",
        "broker",
        "failed",
        "nowhere",
    );
    let url = env.amqp_url().replace("guest:guest", "guest:hunter2");
    examine(doctor(&env).env("AMQP_URL", url)).await.names(
        "wrong broker password",
        "broker",
        "failed",
        "ACCESS_REFUSED",
    );
    let url = env.amqp_url().replace("amqp://", "amqps://");
    let report = examine(doctor(&env).env("AMQP_URL", url)).await;
    report.names("TLS where there is none", "broker", "failed", "does not speak TLS");
    let url = format!("{}?cacertfile=/nowhere.pem", env.amqp_url().replace("amqp://", "amqps://"));
    let report = examine(doctor(&env).env("AMQP_URL", url)).await;
    report.names("authority's file is not there", "broker", "failed", "cacertfile /nowhere.pem");
}

#[tokio::test]
async fn a_queue_with_other_arguments_is_named_with_the_argument() {
    let env = Env::new().await;
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    let name = format!("{}.tasks", env.namespace());
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    env.amqp().await.channel.queue_declare(name.as_str().into(), options, arguments).await.unwrap();
    let report = examine(doctor(&env)).await;
    report.names(
        "queue with other arguments",
        "queues",
        "failed",
        &format!("the queue {name} exists with another x-"),
    );
    report.names("the others are missing", "queues", "warning", "exchanges and queues are missing");
    assert_eq!(env.queues().await.len(), 1, "nothing was declared");
}

#[tokio::test]
async fn rights_that_a_worker_needs_and_this_login_lacks_are_named() {
    let env = Env::new().await;
    let (management, name) = (env.management(), env.namespace().to_owned());
    management.create_user(&name, "hunter2").await.unwrap();
    let limited = async |configure: &str, write: &str, read: &str| {
        management.permit(&name, configure, write, read).await.unwrap();
        let url = env.amqp_url().replace("guest:guest", &format!("{name}:hunter2"));
        examine(doctor(&env).env("AMQP_URL", url)).await
    };
    let report = limited("^$", ".*", ".*").await;
    report.names("no right to configure", "broker rights", "warning", "may not declare");
    report.names(
        "no right to configure, nothing there",
        "queues",
        "failed",
        "this login may not declare them",
    );
    let report = limited(".*", "^$", ".*").await;
    assert_eq!(report.state("broker alarms"), "skipped", "{:#?}", report.checks);
    // With the exchange there, both rights can be tried.
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let (amqp, none) = (env.amqp().await, FieldTable::default());
    amqp.channel.exchange_declare(name.as_str().into(), ExchangeKind::Direct, options, none).await.unwrap();
    let report = limited(".*", &format!("^{name}\\.doctor\\..*"), ".*").await;
    report.names("no right to write", "broker rights", "failed", "may not publish");
    let report = limited(".*", ".*", "^$").await;
    report.names("no right to read", "broker rights", "failed", "may not consume");
    let left: Vec<_> = env.queues().await.into_iter().map(|queue| queue.name).collect();
    assert_eq!(left, [] as [&str; 0], "the queue that was tried is gone");
    management.delete_user(&name).await.unwrap();
}
