//! One test sees nothing of another, and leaves nothing behind.

use lapin::{
    options::{BasicGetOptions, ExchangeDeclareOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use retouch_tests::{
    broker::{Amqp, Queue},
    env::Env,
    wait,
};
use retouch_worker::store::{DatabaseLocation, Store};
use sqlx::MySqlPool;

#[tokio::test]
async fn a_fresh_database_holds_nothing_of_another_test() {
    let (one, other) = (Env::new().await, Env::new().await);
    let (one, other) = (one.pool().await, other.pool().await);
    sqlx::query("CREATE TABLE mine (id INT)").execute(&one).await.unwrap();
    assert_eq!(tables(&one).await, 1);
    assert_eq!(tables(&other).await, 0);
}

#[tokio::test]
async fn the_database_and_the_queues_vanish_with_their_test() {
    let witness = Env::new().await;
    let gone = Env::new().await;
    let name = gone.namespace().to_owned();
    let amqp = gone.amqp().await;
    declare(&amqp, &format!("{name}.tasks")).await;
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let kind = lapin::ExchangeKind::Direct;
    amqp.channel.exchange_declare(name.as_str().into(), kind, durable, FieldTable::default()).await.unwrap();
    drop(gone);

    assert_eq!(witness.management().queues(&name).await.unwrap(), []);
    assert_eq!(witness.management().exchanges(&name).await.unwrap(), Vec::<String>::new());
    let pool = witness.pool().await;
    let databases = "SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name = ?";
    let left: i64 = sqlx::query_scalar(databases).bind(&name).fetch_one(&pool).await.unwrap();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn the_counts_tell_waiting_messages_from_those_a_consumer_holds() {
    let env = Env::new().await;
    let amqp = env.amqp().await;
    let name = format!("{}.tasks", env.namespace());
    declare(&amqp, &name).await;
    for body in ["one", "two", "three"] {
        amqp.publish("", &name, body).await;
    }
    let held = amqp.channel.basic_get(name.as_str().into(), BasicGetOptions { no_ack: false }).await.unwrap();
    assert_eq!(held.unwrap().delivery.data, b"one");

    let expected = [Queue { name, ready: 2, unacknowledged: 1 }];
    wait::until("the counts", async || (env.queues().await == expected).then_some(())).await;
}

#[tokio::test]
async fn a_message_that_reaches_no_queue_fails_the_test_that_sent_it() {
    let env = Env::new().await;
    let amqp = env.amqp().await;
    let nowhere = format!("{}.nowhere", env.namespace());
    let sent = tokio::spawn(async move { amqp.publish("", &nowhere, "lost").await });
    let panic = sent.await.unwrap_err().into_panic();
    assert!(panic.downcast::<String>().unwrap().contains("no queue takes messages"));
}

#[tokio::test]
async fn leftovers_are_named() {
    let env = Env::new().await;
    Store::open(&DatabaseLocation::MySql(env.mysql_url()), 4).unwrap().migrate().await.unwrap();
    let pool = env.pool().await;
    let amqp = env.amqp().await;
    let (tasks, dead) = (format!("{}.tasks", env.namespace()), format!("{}.dead", env.namespace()));
    declare(&amqp, &tasks).await;
    declare(&amqp, &dead).await;
    amqp.publish("", &dead, "the test's own business").await;
    env.nothing_left().await;

    amqp.publish("", &tasks, "forgotten").await;
    let wait = "INSERT INTO image_edit_waits VALUES (REPEAT('k', 32), 'task', 0, 'paid', UTC_TIMESTAMP(3))";
    sqlx::query(wait).execute(&pool).await.unwrap();
    let expected = format!("{tasks}: 1 ready, 0 unacknowledged; open waits: 1");
    wait::until("the names", async || (env.leftovers().await == expected).then_some(())).await;
}

async fn tables(pool: &MySqlPool) -> i64 {
    let query = "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE()";
    sqlx::query_scalar(query).fetch_one(pool).await.unwrap()
}

async fn declare(amqp: &Amqp, name: &str) {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    amqp.channel.queue_declare(name.into(), durable, arguments).await.unwrap();
}
