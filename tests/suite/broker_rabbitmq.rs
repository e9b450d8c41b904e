//! Promises of RabbitMQ alone: other arguments, missing rights, cut connections, restarts.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use lapin::BasicProperties;
use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};
use retouch_shared::amqp::{AmqpError, Link};
use retouch_shared::publisher::{Outgoing, Publisher};
use retouch_shared::topology::Topology;
use retouch_tests::env::Env;
use retouch_tests::proxy::Proxy;
use retouch_tests::wait::{SOON, until};
use retouch_worker::broker::rabbitmq::RabbitMq;
use retouch_worker::broker::rabbitmq::topology::FindingState;
use retouch_worker::broker::{Broker, BrokerError, Destination, Message, Queue};

use crate::broker_conformance::{Stage, body, next};

/// A namespace on the shared RabbitMQ.
pub(crate) struct Server {
    env: Env,
}

impl Stage for Server {
    async fn new() -> Self {
        Self { env: Env::new().await }
    }

    async fn open(&self) -> Arc<dyn Broker> {
        self.open_within(usize::MAX).await
    }

    async fn open_within(&self, bytes_ahead: usize) -> Arc<dyn Broker> {
        Arc::new(connect(&self.env, self.env.amqp_url()).await.with_bytes_ahead(bytes_ahead))
    }
}

pub(crate) async fn connect(env: &Env, url: &str) -> RabbitMq {
    let topology = Topology::new(env.namespace()).unwrap();
    RabbitMq::connect(url, topology).await.unwrap()
}

/// A broker behind a proxy, with everything declared.
pub(crate) async fn behind_proxy(env: &Env) -> (Proxy, Arc<dyn Broker>) {
    let (proxy, url) = Proxy::before(env.amqp_url()).await;
    let broker = connect(env, &url).await;
    broker.declare(&[]).await.unwrap();
    (proxy, Arc::new(broker))
}

pub(crate) async fn publish(broker: &Arc<dyn Broker>, body: &str) -> Result<(), BrokerError> {
    broker.publish(Destination::Queue(Queue::Tasks), Message::new(body.to_owned())).await
}

/// Declares the tasks queue with other arguments: without a delivery limit.
async fn declare_otherwise(env: &Env) -> String {
    let name = Topology::new(env.namespace()).unwrap().tasks_queue();
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    let options = QueueDeclareOptions::durable();
    env.amqp().await.channel.queue_declare(name.as_str().into(), options, arguments).await.unwrap();
    name
}

#[tokio::test]
async fn a_queue_with_other_arguments_is_named_with_the_argument() {
    let env = Env::new().await;
    let name = declare_otherwise(&env).await;
    let broker = connect(&env, env.amqp_url()).await;
    let Err(BrokerError::Misconfigured(why)) = broker.declare(&[]).await else {
        panic!("it was accepted");
    };
    assert!(why.starts_with(&format!("the queue {name} exists with another x-")), "{why}");
    assert!(why.contains("it has none and the worker needs "), "{why}");
    assert!(!why.contains('\n'), "{why}");
}

#[tokio::test]
async fn a_check_finds_missing_or_different_queues_and_changes_nothing() {
    let env = Env::new().await;
    let name = declare_otherwise(&env).await;
    let broker = connect(&env, env.amqp_url()).await;
    let findings = broker.check(&["local".to_owned()], None).await.unwrap();
    for finding in &findings {
        if finding.what == format!("queue {name}") {
            assert!(matches!(finding.state, FindingState::Different(_)), "{finding:?}");
        } else {
            assert_eq!(finding.state, FindingState::Missing, "{finding:?}");
        }
    }
    let names: Vec<_> = env.queues().await.into_iter().map(|queue| queue.name).collect();
    assert_eq!(names, [name.as_str()]);
    env.management().delete_all(&name).await.unwrap();
    broker.declare(&["local".to_owned()]).await.unwrap();
    let findings = broker.check(&["local".to_owned()], None).await.unwrap();
    assert!(findings.iter().all(|finding| finding.state == FindingState::Same), "{findings:?}");
}

#[tokio::test]
async fn a_wrong_password_is_final_and_is_not_told() {
    let env = Env::new().await;
    let url = env.amqp_url().replace("guest:guest", "guest:hunter2");
    let answer = RabbitMq::connect(&url, Topology::default()).await.map(|_| ());
    let Err(BrokerError::Misconfigured(why)) = answer else { panic!("{answer:?}") };
    assert!(why.contains("ACCESS_REFUSED") && !why.contains("hunter2"), "{why}");
}

#[tokio::test]
async fn a_broker_that_is_down_is_unavailable() {
    let answer = RabbitMq::connect("amqp://127.0.0.1:1/", Topology::default()).await.map(|_| ());
    assert!(matches!(answer, Err(BrokerError::Unavailable(_))), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_without_configure_finds_missing_queues() {
    let env = Env::new().await;
    let (management, name) = (env.management(), env.namespace());
    let lane = ["lane".to_owned()];
    connect(&env, env.amqp_url()).await.declare(&lane).await.unwrap();
    management.create_user(name, "hunter2").await.unwrap();
    management.permit(name, "^$", ".*", ".*").await.unwrap();
    let limited = connect(&env, &env.amqp_url().replace("guest:guest", &format!("{name}:hunter2"))).await;
    limited.declare(&lane).await.unwrap();
    limited.restore().await.unwrap();
    management.delete_all(&format!("{name}.edits.lane")).await.unwrap();
    let refused = limited.restore().await;
    assert!(
        matches!(&refused, Err(BrokerError::Misconfigured(why)) if why.contains("edits.lane")),
        "{refused:?}"
    );
    management.delete_user(name).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_link_ends_the_consumer_and_its_messages_come_again() {
    let env = Env::new().await;
    let (proxy, broker) = behind_proxy(&env).await;
    publish(&broker, "one").await.unwrap();
    let mut consumer = broker.consume(Queue::Tasks, 2).await.unwrap();
    let delivery = next(&mut consumer).await;
    proxy.cut().await;
    let ended = tokio::time::timeout(SOON, consumer.next()).await.expect("it fell silent");
    assert!(matches!(ended.map(|_| ()), Err(BrokerError::Unavailable(_))));
    // The client library says Ok(false) here, which reads like success.
    assert!(!delivery.settler.ack().await);
    let mut consumer = broker.consume(Queue::Tasks, 2).await.unwrap();
    let again = next(&mut consumer).await;
    assert!(again.redelivered);
    assert!(again.settler.ack().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_queue_ends_the_consumer_and_a_publish_restores_it() {
    let env = Env::new().await;
    let broker: Arc<dyn Broker> = Arc::new(connect(&env, env.amqp_url()).await);
    broker.declare(&[]).await.unwrap();
    let mut consumer = broker.consume(Queue::Tasks, 1).await.unwrap();
    env.management().delete_all(&format!("{}.tasks", env.namespace())).await.unwrap();
    let ended = tokio::time::timeout(SOON, consumer.next()).await.expect("it fell silent");
    assert!(matches!(ended.map(|_| ()), Err(BrokerError::Unavailable(_))));
    publish(&broker, "x").await.unwrap();
    let mut consumer = broker.consume(Queue::Tasks, 1).await.unwrap();
    assert!(next(&mut consumer).await.settler.ack().await);
    // A process that has declared nothing restores nothing.
    let other: Arc<dyn Broker> = Arc::new(connect(&env, env.amqp_url()).await);
    env.management().delete_all(&format!("{}.tasks", env.namespace())).await.unwrap();
    assert!(matches!(publish(&other, "x").await, Err(BrokerError::NoSuchQueue(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_link_fails_no_publisher_and_all_share_one_new_connection() {
    let env = Env::new().await;
    let (proxy, broker) = behind_proxy(&env).await;
    publish(&broker, "first").await.unwrap();
    let before = proxy.accepted();
    proxy.reset().await;
    let all = (0..50).map(|_| publish(&broker, "more"));
    for answer in join_all(all).await {
        answer.unwrap();
    }
    assert_eq!(proxy.accepted(), before + 1);
}

/// A publisher that waits for confirms for half a second, and a task for it to publish.
fn impatient(url: &str, namespace: &str) -> (Publisher, impl Fn() -> Outgoing + use<>) {
    let publisher = Publisher::new(Link::new(url, SOON).unwrap(), "test", Duration::from_millis(500));
    let namespace = namespace.to_owned();
    let outgoing = move || Outgoing {
        exchange: namespace.as_str().into(),
        routing_key: "tasks".into(),
        mandatory: true,
        payload: Arc::new("x"),
        properties: BasicProperties::default(),
    };
    (publisher, outgoing)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_that_hears_nothing_gives_up_and_starts_over() {
    let env = Env::new().await;
    let (proxy, url) = Proxy::before(env.amqp_url()).await;
    connect(&env, &url).await.declare(&[]).await.unwrap();
    let (publisher, outgoing) = impatient(&url, env.namespace());
    publisher.publish(&outgoing()).await.unwrap();
    let before = proxy.accepted();
    proxy.stall();
    let answer = publisher.publish(&outgoing()).await;
    assert!(matches!(&answer, Err(AmqpError::Unavailable(why)) if why.contains("confirm")), "{answer:?}");
    proxy.resume();
    publisher.publish(&outgoing()).await.unwrap();
    assert_eq!(proxy.accepted(), before + 1, "it kept a connection without answers");
    publisher.close().await;
}

mod own_servers {
    use retouch_tests::services;

    use super::*;

    async fn on(server: &services::RabbitMq) -> Arc<dyn Broker> {
        Arc::new(RabbitMq::connect(&server.amqp_url(), Topology::default()).await.unwrap())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn messages_survive_a_crash_of_the_broker() {
        let mut server = services::RabbitMq::start().await.unwrap();
        let broker = on(&server).await;
        broker.declare(&[]).await.unwrap();
        publish(&broker, "one").await.unwrap();
        let later = Destination::Delayed(Queue::Tasks, Duration::from_secs(1));
        broker.publish(later, Message::new("two")).await.unwrap();
        server.kill9();
        server.stop_and_restart().await.unwrap();
        // The same broker: it connects again by itself.
        let mut consumer =
            until("a consumer after the restart", async || broker.consume(Queue::Tasks, 2).await.ok()).await;
        let mut bodies = [body(&next(&mut consumer).await), body(&next(&mut consumer).await)];
        bodies.sort();
        assert_eq!(bodies, ["one", "two"]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn without_the_right_to_declare_it_uses_existing_queues() {
        let server = services::RabbitMq::start().await.unwrap();
        server.ctl(&["add_user", "worker", "secret"]).await.unwrap();
        server.ctl(&["set_permissions", "worker", "", ".*", ".*"]).await.unwrap();
        let url = server.amqp_url().replace("guest:guest", "worker:secret");
        let limited: Arc<dyn Broker> = Arc::new(RabbitMq::connect(&url, Topology::default()).await.unwrap());
        let Err(BrokerError::Misconfigured(why)) = limited.declare(&[]).await else {
            panic!("it was declared");
        };
        assert!(why.starts_with("there is no exchange retouch, and declaring it was refused"), "{why}");
        on(&server).await.declare(&[]).await.unwrap();
        limited.declare(&[]).await.unwrap();
        publish(&limited, "one").await.unwrap();
        let mut consumer = limited.consume(Queue::Tasks, 1).await.unwrap();
        assert_eq!(body(&next(&mut consumer).await), "one");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_broker_short_of_memory_takes_acknowledgements_but_no_messages() {
        let server = services::RabbitMq::start().await.unwrap();
        let broker = on(&server).await;
        broker.declare(&[]).await.unwrap();
        publish(&broker, "one").await.unwrap();
        let mut consumer = broker.consume(Queue::Tasks, 1).await.unwrap();
        let delivery = next(&mut consumer).await;
        let (publisher, outgoing) = impatient(&server.amqp_url(), "retouch");
        server.ctl(&["set_vm_memory_high_watermark", "absolute", "1"]).await.unwrap();
        // The broker says so with the first message that it keeps waiting.
        let told = async || match publisher.publish(&outgoing()).await {
            Err(AmqpError::Unavailable(why)) if why.contains("short of memory") => Some(()),
            Ok(()) | Err(AmqpError::Unavailable(_)) => None,
            other => panic!("{other:?}"),
        };
        until("a publisher that is told", told).await;
        assert!(delivery.settler.ack().await);
        assert!(broker.depth(Queue::Tasks).await.is_ok());
        server.ctl(&["set_vm_memory_high_watermark", "absolute", "2GB"]).await.unwrap();
        until("publishing again", async || publisher.publish(&outgoing()).await.ok()).await;
    }
}
