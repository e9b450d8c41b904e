//! The producer client against a stand-in for the worker.

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use futures::future::join_all;
use lapin::ExchangeKind;
use lapin::options::ExchangeDeclareOptions;
use lapin::types::FieldTable;
use retouch_shared::client::{Producer, ProducerError, Timeouts};
use retouch_shared::event::{Event, TaskStatus};
use retouch_shared::params::Params;
use retouch_shared::task::Task;
use retouch_shared::topology::Topology;
use retouch_shared::wire::{ImageRef, TaskMessage};
use retouch_tests::env::Env;
use retouch_tests::proxy::Proxy;
use retouch_tests::wait::{SOON, until};
use retouch_worker::broker::{Broker, BrokerError, Delivery, Destination, Message, Queue};

use crate::broker_conformance::next;
use crate::broker_rabbitmq::connect;

fn task(id: &str) -> TaskMessage {
    TaskMessage {
        v: 1,
        task_id: id.to_owned(),
        edit_type: "remove_watermark".to_owned(),
        prompt: String::new(),
        model: None,
        params: Params::default(),
        mask: None,
        images: vec![ImageRef::url("https://example.com/1.png")],
        variant: None,
        metadata: None,
    }
}

fn event(task_id: &str) -> Event {
    let status = TaskStatus::Completed;
    Event {
        v: 1,
        event_id: Event::id_for(task_id, status, [1, 0, 0, 0]),
        task_id: task_id.to_owned(),
        status,
        hit: 1,
        joined: 0,
        paid: 0,
        failed: 0,
        images: Vec::new(),
        cost: None,
        received_at: Utc::now(),
        completed_at: Utc::now(),
        metadata: None,
    }
}

async fn producer(env: &Env, url: &str) -> Producer {
    let topology = Topology::new(env.namespace()).unwrap();
    Producer::connect(url, topology, Timeouts::default()).await.unwrap()
}

/// Takes `count` tasks, then answers them in the opposite order.
async fn answer(broker: Arc<dyn Broker>, count: usize) {
    let mut consumer = broker.consume(Queue::Tasks, 100).await.unwrap();
    let mut taken = Vec::new();
    for _ in 0..count {
        taken.push(next(&mut consumer).await);
    }
    while let Some(delivery) = taken.pop() {
        reply(&broker, delivery).await.unwrap();
    }
}

async fn reply(broker: &Arc<dyn Broker>, delivery: Delivery) -> Result<(), BrokerError> {
    let task = Task::decode(&delivery.message.payload).unwrap();
    assert_eq!(delivery.message.correlation_id.as_deref(), Some(task.task_id.as_str()));
    let mut reply = Message::new(serde_json::to_vec(&event(&task.task_id)).unwrap());
    reply.correlation_id = delivery.message.correlation_id;
    let to = Destination::Reply(delivery.message.reply_to.unwrap());
    assert!(delivery.settler.ack().await);
    broker.publish(to, reply).await
}

async fn declared(env: &Env) -> Arc<dyn Broker> {
    let broker = connect(env, env.amqp_url()).await;
    broker.declare(&[]).await.unwrap();
    Arc::new(broker)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_published_task_reaches_the_worker_durably() {
    let env = Env::new().await;
    let broker = declared(&env).await;
    producer(&env, env.amqp_url()).await.publish(&task("t1")).await.unwrap();
    let sent = env.amqp().await.take(&format!("{}.tasks", env.namespace())).await.unwrap().delivery;
    assert_eq!(*sent.properties.delivery_mode(), Some(2));
    assert_eq!(sent.properties.content_type().as_ref().unwrap().as_str(), "application/json");
    assert_eq!(Task::decode(&sent.data).unwrap(), Task::from_message(task("t1")).unwrap());
    assert_eq!(broker.depth(Queue::Tasks).await.unwrap(), 0);
}

#[tokio::test]
async fn a_bad_task_is_refused_before_anything_is_connected() {
    let timeouts = Timeouts::default();
    let nowhere = Producer::new("amqp://127.0.0.1:1/", Topology::default(), timeouts).unwrap();
    let bad = TaskMessage { images: Vec::new(), ..task("t1") };
    for answer in [nowhere.publish(&bad).await, nowhere.publish_and_wait(&bad, SOON).await.map(|_| ())] {
        assert!(
            matches!(&answer, Err(ProducerError::Invalid(why)) if why.to_string().starts_with("images")),
            "{answer:?}"
        );
    }
    let answer = nowhere.publish(&task("t1")).await;
    assert!(matches!(answer, Err(ProducerError::Unavailable(_))), "{answer:?}");
}

#[tokio::test]
async fn without_a_worker_ever_there_is_no_queue() {
    let env = Env::new().await;
    let producer = producer(&env, env.amqp_url()).await;
    let queue = format!("{}.tasks", env.namespace());
    let answer = producer.publish(&task("t1")).await;
    assert_eq!(answer, Err(ProducerError::NoSuchQueue(queue.clone())));
    // Nor where there is an exchange, but nothing is bound to it.
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let amqp = env.amqp().await;
    let declare = amqp.channel.exchange_declare(
        env.namespace().into(),
        ExchangeKind::Direct,
        options,
        FieldTable::default(),
    );
    declare.await.unwrap();
    let answer = producer.publish(&task("t1")).await;
    assert_eq!(answer, Err(ProducerError::NoSuchQueue(queue)));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_wait_at_once_and_each_gets_its_own_event() {
    let env = Env::new().await;
    let broker = declared(&env).await;
    let producer = producer(&env, env.amqp_url()).await;
    let worker = tokio::spawn(answer(broker, 41));
    let ids: Vec<_> = (0..40).map(|n| format!("task-{n}")).collect();
    // One of them twice: both are answered.
    let all = ids.iter().chain(&ids[..1]).map(|id| {
        let producer = &producer;
        async move { producer.publish_and_wait(&task(id), SOON).await.map(|event| (id, event)) }
    });
    for answer in join_all(all).await {
        let (id, event) = answer.unwrap();
        assert_eq!(event.task_id, *id);
        assert_eq!(event.status, TaskStatus::Completed);
    }
    worker.await.unwrap();
    producer.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unanswered_task_was_still_published() {
    let env = Env::new().await;
    let broker = declared(&env).await;
    let producer = producer(&env, env.amqp_url()).await;
    let patience = Duration::from_millis(100);
    let answer = producer.publish_and_wait(&task("t1"), patience).await;
    assert_eq!(answer, Err(ProducerError::NoAnswer(patience)));
    assert_eq!(broker.depth(Queue::Tasks).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_link_ends_the_wait_and_the_next_call_works() {
    let env = Env::new().await;
    let broker = declared(&env).await;
    let (proxy, url) = Proxy::before(env.amqp_url()).await;
    let producer = Arc::new(producer(&env, &url).await);
    let waiting = {
        let producer = Arc::clone(&producer);
        tokio::spawn(async move { producer.publish_and_wait(&task("t1"), 4 * SOON).await })
    };
    let mut consumer = broker.consume(Queue::Tasks, 1).await.unwrap();
    let taken = next(&mut consumer).await;
    proxy.cut().await;
    let answer = tokio::time::timeout(SOON, waiting).await.expect("it waited on").unwrap();
    assert!(matches!(answer, Err(ProducerError::Unavailable(_))), "{answer:?}");
    // The queue for its answer went with the link.
    let answer = reply(&broker, taken).await;
    assert!(matches!(answer, Err(BrokerError::NoSuchQueue(_))), "{answer:?}");
    let worker = tokio::spawn(async move {
        loop {
            let delivery = next(&mut consumer).await;
            match reply(&broker, delivery).await {
                // From a try whose connection was lost after it was published.
                Err(BrokerError::NoSuchQueue(_)) => {}
                answered => answered.unwrap(),
            }
        }
    });
    // The other connection may notice its loss only now.
    let answer = async || producer.publish_and_wait(&task("t1"), SOON).await.ok();
    assert_eq!(until("an answer over a new link", answer).await.task_id, "t1");
    worker.abort();
}
