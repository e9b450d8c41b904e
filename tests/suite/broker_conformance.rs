//! The promises of the broker port, each checked for every adapter.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::join_all;
use retouch_shared::wire::MAX_MESSAGE_BYTES;
use retouch_tests::wait::{SOON, until};
use retouch_worker::broker::{Broker, BrokerError, Consumer, Delivery, Destination, Message, Queue};

/// One adapter with storage of its own, empty at first.
pub(crate) trait Stage: Sized {
    /// Fresh storage.
    async fn new() -> Self;
    /// Another broker on the same storage, as another process would open it.
    async fn open(&self) -> Arc<dyn Broker>;
    /// As [`Stage::open`], with at most about so many bytes ahead.
    async fn open_within(&self, bytes_ahead: usize) -> Arc<dyn Broker>;
}

const LANE: &str = "local";

fn lane() -> Queue {
    Queue::Edits { lane: LANE.to_owned() }
}

/// A stage with everything declared.
async fn set<S: Stage>() -> (S, Arc<dyn Broker>) {
    let stage = S::new().await;
    let broker = stage.open().await;
    broker.declare(&[LANE.to_owned()]).await.unwrap();
    (stage, broker)
}

fn message(body: &str) -> Message {
    Message::new(body.to_owned())
}

async fn publish(broker: &Arc<dyn Broker>, queue: Queue, bodies: &[&str]) {
    for body in bodies {
        broker.publish(Destination::Queue(queue.clone()), message(body)).await.unwrap();
    }
}

pub(crate) async fn next(consumer: &mut Box<dyn Consumer>) -> Delivery {
    let next = tokio::time::timeout(SOON, consumer.next()).await;
    next.expect("no delivery came").expect("the consumer ended")
}

pub(crate) fn body(delivery: &Delivery) -> String {
    String::from_utf8(delivery.message.payload.to_vec()).unwrap()
}

async fn depth_becomes(broker: &Arc<dyn Broker>, queue: Queue, depth: u64) {
    let name = format!("{depth} ready in {queue:?}");
    until(&name, async || (broker.depth(queue.clone()).await.unwrap() == depth).then_some(())).await;
}

async fn a_published_message_is_delivered_whole<S: Stage>() {
    let (_stage, broker) = set::<S>().await;
    let mut sent = message("{\"a\":1}");
    sent.headers = [("x-retouch-attempt", "3"), ("x-retouch-error", "größer"), ("traceparent", "00-1-2-01")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    sent.reply_to = Some("answers".to_owned());
    sent.correlation_id = Some("c 1".to_owned());
    sent.message_id = Some("m-1".to_owned());
    broker.publish(Destination::Queue(Queue::Tasks), sent.clone()).await.unwrap();
    let mut consumer = broker.consume(Queue::Tasks, 1).await.unwrap();
    let Delivery { message: got, redelivered, broker_death, settler } = next(&mut consumer).await;
    assert_eq!(got.payload, sent.payload);
    assert_eq!(got.headers, sent.headers);
    assert_eq!(got.reply_to, sent.reply_to);
    assert_eq!(got.correlation_id, sent.correlation_id);
    assert_eq!(got.message_id, sent.message_id);
    assert!(!redelivered);
    assert_eq!(broker_death, None);
    assert!(settler.ack().await);
}

async fn the_largest_message_is_delivered_whole<S: Stage>() {
    let (_stage, broker) = set::<S>().await;
    let bytes: Vec<u8> = (0..MAX_MESSAGE_BYTES).map(|n| n.to_le_bytes()[n % 4]).collect();
    broker.publish(Destination::Queue(Queue::Tasks), Message::new(bytes.clone())).await.unwrap();
    let mut consumer = broker.consume(Queue::Tasks, 1).await.unwrap();
    assert!(next(&mut consumer).await.message.payload == bytes, "other bytes came out");
}

async fn messages_of_any_size_arrive_once_within_the_prefetch_bound<S: Stage>() {
    let stage = S::new().await;
    let broker = stage.open_within(8 << 20).await;
    broker.declare(&[]).await.unwrap();
    let large = "x".repeat(3 << 20);
    let sizes =
        [vec![10; 6], vec![large.len(); 6], vec![10; 300], vec![large.len(); 3], vec![10; 3]].concat();
    for (number, size) in sizes.iter().enumerate() {
        publish(&broker, Queue::Tasks, &[&format!("{number:04} {}", &large[..*size])]).await;
    }
    let mut consumer = broker.consume(Queue::Tasks, 64).await.unwrap();
    let (mut arrived, mut again, mut large_before) = (BTreeSet::new(), 0, false);
    while arrived.len() < sizes.len() {
        let delivery = next(&mut consumer).await;
        let text = body(&delivery);
        let number: usize = text[..4].parse().unwrap();
        assert_eq!(text.len(), sizes[number] + 5);
        assert!(arrived.insert(number), "{number} came twice");
        again += usize::from(delivery.redelivered);
        if sizes[number] == large.len() && !std::mem::replace(&mut large_before, true) {
            // The first large one stays unsettled: nothing more may be prefetched.
            tokio::time::sleep(Duration::from_millis(500)).await;
            let ready = broker.depth(Queue::Tasks).await.unwrap();
            assert!(ready >= 290, "{ready} of {} are left", sizes.len());
        }
        assert!(delivery.settler.ack().await);
    }
    // Messages on their way while the prefetch changes return once.
    assert!(again <= 40, "{again} came again");
    depth_becomes(&broker, Queue::Tasks, 0).await;
}

async fn an_unsettled_message_comes_back_when_its_consumer_is_dropped<S: Stage>() {
    let (_stage, broker) = set::<S>().await;
    publish(&broker, Queue::Tasks, &["one", "two"]).await;
    let mut consumer = broker.consume(Queue::Tasks, 2).await.unwrap();
    let held = next(&mut consumer).await;
    // "two" may have been prefetched without reaching a handler.
    drop((consumer, held));
    let mut consumer = broker.consume(Queue::Tasks, 2).await.unwrap();
    let again = [next(&mut consumer).await, next(&mut consumer).await];
    let bodies: BTreeSet<_> = again.iter().map(body).collect();
    assert_eq!(bodies, BTreeSet::from(["one".to_owned(), "two".to_owned()]));
    let one = again.iter().find(|delivery| body(delivery) == "one").unwrap();
    assert!(one.redelivered);
}

async fn a_delivery_dropped_unsettled_comes_back_at_once<S: Stage>() {
    let (_stage, broker) = set::<S>().await;
    publish(&broker, Queue::Tasks, &["one"]).await;
    let mut consumer = broker.consume(Queue::Tasks, 1).await.unwrap();
    let started = Instant::now();
    for _ in 0..3 {
        drop(next(&mut consumer).await);
    }
    assert!(next(&mut consumer).await.redelivered);
    assert!(started.elapsed() < Duration::from_secs(10), "it waited for a lock to expire");
}

async fn a_handed_back_message_goes_to_another_consumer<S: Stage>() {
    let (_stage, broker) = set::<S>().await;
    publish(&broker, Queue::Tasks, &["one"]).await;
    let mut first = broker.consume(Queue::Tasks, 1).await.unwrap();
    let delivery = next(&mut first).await;
    let mut second = broker.consume(Queue::Tasks, 1).await.unwrap();
    drop(first);
    assert!(delivery.settler.hand_back().await);
    assert!(next(&mut second).await.redelivered);
}

async fn a_dropped_consumer_returns_prefetched_messages_and_finishes_the_rest<S: Stage>() {
    let (_stage, broker) = set::<S>().await;
    publish(&broker, Queue::Tasks, &["one", "two"]).await;
    let mut consumer = broker.consume(Queue::Tasks, 2).await.unwrap();
    let under_way = next(&mut consumer).await;
    depth_becomes(&broker, Queue::Tasks, 0).await;
    drop(consumer);
    // This consumer sees everything that comes back.
    let mut consumer = broker.consume(Queue::Tasks, 2).await.unwrap();
    let two = next(&mut consumer).await;
    assert_eq!(body(&two), "two");
    assert!(under_way.settler.ack().await);
    publish(&broker, Queue::Tasks, &["last"]).await;
    assert_eq!(body(&next(&mut consumer).await), "last");
}

async fn an_acknowledged_message_never_comes_back<S: Stage>() {
    let (stage, broker) = set::<S>().await;
    publish(&broker, Queue::Tasks, &["one"]).await;
    let mut consumer = broker.consume(Queue::Tasks, 1).await.unwrap();
    assert!(next(&mut consumer).await.settler.ack().await);
    drop(consumer);
    broker.close().await;
    let broker = stage.open().await;
    publish(&broker, Queue::Tasks, &["last"]).await;
    let mut consumer = broker.consume(Queue::Tasks, 2).await.unwrap();
    assert_eq!(body(&next(&mut consumer).await), "last");
    depth_becomes(&broker, Queue::Tasks, 0).await;
}

/// Some handlers end at once, one message goes back, the other handlers still run when their consumer dies.
async fn after_a_loss_only_unsettled_messages_come_back<S: Stage>() {
    const MANY: usize = 60;
    let (_stage, broker) = set::<S>().await;
    let bodies: Vec<String> = (0..MANY).map(|n| n.to_string()).collect();
    publish(&broker, Queue::Tasks, &bodies.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let mut consumer = broker.consume(Queue::Tasks, u16::try_from(MANY).unwrap()).await.unwrap();
    let (mut ended, mut left, mut returned) = (Vec::new(), BTreeSet::new(), Vec::new());
    let mut at_work = Vec::new();
    for n in 0..MANY {
        let delivery = next(&mut consumer).await;
        match n {
            20 | 41 => {
                left.insert(body(&delivery));
                at_work.push(delivery);
            }
            30 => {
                left.insert(body(&delivery));
                returned.push(delivery);
            }
            _ => ended.push(delivery.settler),
        }
    }
    // In another order than they came.
    ended.rotate_left(7);
    let acknowledged = join_all(ended.into_iter().map(|settler| settler.ack()));
    let given_back = join_all(returned.into_iter().map(|delivery| delivery.settler.hand_back()));
    let (acknowledged, given_back) = tokio::join!(acknowledged, given_back);
    assert!(acknowledged.into_iter().chain(given_back).all(|heard| heard));
    drop((consumer, at_work));
    let mut consumer = broker.consume(Queue::Tasks, 10).await.unwrap();
    let again = [next(&mut consumer).await, next(&mut consumer).await, next(&mut consumer).await];
    assert_eq!(again.iter().map(body).collect::<BTreeSet<_>>(), left);
    depth_becomes(&broker, Queue::Tasks, 0).await;
    publish(&broker, Queue::Tasks, &["last"]).await;
    assert_eq!(body(&next(&mut consumer).await), "last", "nothing else came back");
}

async fn a_delayed_message_keeps_its_delay_queue_and_headers<S: Stage>() {
    let (_stage, broker) = set::<S>().await;
    let mut consumer = broker.consume(lane(), 1).await.unwrap();
    let delay = Duration::from_secs(1);
    let mut delayed = message("later");
    delayed.headers.insert("x-retouch-attempt".to_owned(), "2".to_owned());
    delayed.reply_to = Some("answers".to_owned());
    let started = Instant::now();
    broker.publish(Destination::Delayed(lane(), delay), delayed.clone()).await.unwrap();
    publish(&broker, lane(), &["now"]).await;
    let now = next(&mut consumer).await;
    assert_eq!(body(&now), "now");
    assert!(now.settler.ack().await);
    let later = next(&mut consumer).await;
    assert!(started.elapsed() >= delay, "{:?}", started.elapsed());
    assert_eq!(body(&later), "later");
    assert_eq!(later.message.headers, delayed.headers);
    assert_eq!(later.message.reply_to, delayed.reply_to);
    assert!(!later.redelivered);
}

async fn a_short_delay_does_not_wait_for_a_long_one<S: Stage>() {
    let (_stage, broker) = set::<S>().await;
    let mut consumer = broker.consume(lane(), 1).await.unwrap();
    for (seconds, body) in [(5, "long"), (1, "short")] {
        let to = Destination::Delayed(lane(), Duration::from_secs(seconds));
        broker.publish(to, message(body)).await.unwrap();
    }
    assert_eq!(body(&next(&mut consumer).await), "short");
}

async fn a_reply_to_a_queue_that_is_gone_is_no_such_queue<S: Stage>() {
    let (_stage, broker) = set::<S>().await;
    let answer = broker.publish(Destination::Reply("gone".to_owned()), message("x")).await;
    assert!(matches!(&answer, Err(BrokerError::NoSuchQueue(name)) if name == "gone"), "{answer:?}");
    let unknown = Queue::Edits { lane: "unknown".to_owned() };
    let answer = broker.publish(Destination::Queue(unknown.clone()), message("x")).await;
    assert!(matches!(answer, Err(BrokerError::NoSuchQueue(_))), "{answer:?}");
    let answer = broker.consume(unknown.clone(), 1).await.map(|_| ());
    assert!(matches!(answer, Err(BrokerError::NoSuchQueue(_))), "{answer:?}");
    let answer = broker.depth(unknown).await;
    assert!(matches!(answer, Err(BrokerError::NoSuchQueue(_))), "{answer:?}");
    publish(&broker, Queue::Tasks, &["still works"]).await;
}

async fn an_event_without_a_listener_is_no_error<S: Stage>() {
    let (_stage, broker) = set::<S>().await;
    broker.publish(Destination::Event("task.completed".to_owned()), message("x")).await.unwrap();
}

async fn each_of_many_messages_in_flight_gets_its_own_answer<S: Stage>() {
    let (_stage, broker) = set::<S>().await;
    let sent = (0..300_u32).map(|n| {
        let broker = Arc::clone(&broker);
        async move {
            let to = match n % 3 {
                0 => Destination::Queue(Queue::Tasks),
                1 => Destination::Reply(format!("gone-{n}")),
                _ => Destination::Event("task.failed".to_owned()),
            };
            (n, broker.publish(to, message(&n.to_string())).await)
        }
    });
    for (n, answer) in join_all(sent).await {
        match n % 3 {
            1 => {
                let gone = format!("gone-{n}");
                assert!(
                    matches!(&answer, Err(BrokerError::NoSuchQueue(name)) if *name == gone),
                    "{n}: {answer:?}"
                );
            }
            _ => answer.unwrap_or_else(|error| panic!("{n}: {error}")),
        }
    }
    depth_becomes(&broker, Queue::Tasks, 100).await;
}

async fn a_consumer_holds_no_more_than_its_prefetch<S: Stage>() {
    let (_stage, broker) = set::<S>().await;
    publish(&broker, Queue::Tasks, &["one", "two", "three"]).await;
    let mut consumer = broker.consume(Queue::Tasks, 2).await.unwrap();
    let one = next(&mut consumer).await;
    let _two = next(&mut consumer).await;
    assert_eq!(broker.depth(Queue::Tasks).await.unwrap(), 1);
    assert!(consumer.next().now_or_never().is_none());
    assert!(one.settler.ack().await);
    assert_eq!(body(&next(&mut consumer).await), "three");
}

async fn depth_counts_the_messages_that_are_ready<S: Stage>() {
    let (_stage, broker) = set::<S>().await;
    assert_eq!(broker.depth(Queue::Tasks).await.unwrap(), 0);
    publish(&broker, Queue::Tasks, &["one", "two"]).await;
    broker.publish(Destination::Delayed(Queue::Tasks, Duration::from_secs(30)), message("x")).await.unwrap();
    depth_becomes(&broker, Queue::Tasks, 2).await;
    let mut consumer = broker.consume(Queue::Tasks, 1).await.unwrap();
    let held = next(&mut consumer).await;
    depth_becomes(&broker, Queue::Tasks, 1).await;
    drop(consumer);
    drop(held);
    depth_becomes(&broker, Queue::Tasks, 2).await;
    assert_eq!(broker.depth(lane()).await.unwrap(), 0);
}

async fn a_message_returned_too_often_is_dead_with_its_reason<S: Stage>() {
    let (_stage, broker) = set::<S>().await;
    let mut poison = message("poison");
    poison.headers.insert("x-retouch-attempt".to_owned(), "1".to_owned());
    // By way of a delay, so that its first death is another one.
    let to = Destination::Delayed(Queue::Tasks, Duration::from_secs(1));
    broker.publish(to, poison.clone()).await.unwrap();
    let mut consumer = broker.consume(Queue::Tasks, 1).await.unwrap();
    for _ in 0..=retouch_shared::topology::DELIVERY_LIMIT {
        assert!(next(&mut consumer).await.settler.hand_back().await);
    }
    let mut dead = broker.consume(Queue::Dead, 1).await.unwrap();
    let delivery = next(&mut dead).await;
    let (reason, queue) = delivery.broker_death.clone().expect("a reason");
    assert_eq!(reason, "delivery_limit");
    assert!(queue.ends_with("tasks"), "{queue}");
    assert_eq!(delivery.message.payload, poison.payload);
    assert_eq!(delivery.message.headers, poison.headers);
    assert!(consumer.next().now_or_never().is_none(), "it is dead and yet delivered");
}

async fn a_message_published_as_dead_has_no_reason_of_the_brokers<S: Stage>() {
    let (_stage, broker) = set::<S>().await;
    publish(&broker, Queue::Dead, &["x"]).await;
    let mut dead = broker.consume(Queue::Dead, 1).await.unwrap();
    let delivery = next(&mut dead).await;
    assert_eq!(delivery.broker_death, None);
    // The archive failed now and retries later.
    let later = Destination::Delayed(Queue::Dead, Duration::from_secs(1));
    broker.publish(later, delivery.message).await.unwrap();
    assert!(delivery.settler.ack().await);
    assert_eq!(body(&next(&mut dead).await), "x");
}

async fn messages_survive_reopening_the_broker<S: Stage>() {
    let (stage, broker) = set::<S>().await;
    publish(&broker, Queue::Tasks, &["one"]).await;
    let held = {
        publish(&broker, lane(), &["two"]).await;
        let mut consumer = broker.consume(lane(), 1).await.unwrap();
        next(&mut consumer).await
    };
    broker.close().await;
    drop(held);
    let broker = stage.open().await;
    for (queue, expected) in [(Queue::Tasks, "one"), (lane(), "two")] {
        let mut consumer = broker.consume(queue, 1).await.unwrap();
        assert_eq!(body(&next(&mut consumer).await), expected);
    }
}

async fn after_close_every_call_fails<S: Stage>() {
    let (_stage, broker) = set::<S>().await;
    let mut consumer = broker.consume(Queue::Tasks, 1).await.unwrap();
    broker.close().await;
    let ended = tokio::time::timeout(SOON, consumer.next()).await.expect("an end");
    assert!(matches!(ended.map(|_| ()), Err(BrokerError::Unavailable(_))));
    let answer = broker.publish(Destination::Queue(Queue::Tasks), message("x")).await;
    assert!(matches!(answer, Err(BrokerError::Unavailable(_))), "{answer:?}");
    assert!(matches!(broker.depth(Queue::Tasks).await, Err(BrokerError::Unavailable(_))));
}

async fn two_consumers_share_a_queue_and_neither_gets_what_the_other_holds<S: Stage>() {
    let (stage, broker) = set::<S>().await;
    let other = stage.open().await;
    let mut one = broker.consume(Queue::Tasks, 5).await.unwrap();
    let mut two = other.consume(Queue::Tasks, 5).await.unwrap();
    let bodies: Vec<String> = (0..10).map(|n| n.to_string()).collect();
    for body in &bodies {
        publish(&broker, Queue::Tasks, &[body]).await;
    }
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(next(&mut one).await);
        held.push(next(&mut two).await);
    }
    let got: BTreeSet<_> = held.iter().map(body).collect();
    assert_eq!(got, bodies.into_iter().collect());
    assert!(one.next().now_or_never().is_none() && two.next().now_or_never().is_none());
}

/// Every promise as a test of every adapter.
macro_rules! promises {
    ($($promise:ident),* $(,)?) => {
        promises!(@adapter rabbitmq, crate::broker_rabbitmq::Server, $($promise),*);
        promises!(@adapter embedded, crate::broker_embedded::File, $($promise),*);
    };
    (@adapter $adapter:ident, $stage:ty, $($promise:ident),*) => {
        mod $adapter {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                super::$promise::<$stage>().await;
            })*
        }
    };
}

promises!(
    a_published_message_is_delivered_whole,
    the_largest_message_is_delivered_whole,
    messages_of_any_size_arrive_once_within_the_prefetch_bound,
    an_unsettled_message_comes_back_when_its_consumer_is_dropped,
    a_delivery_dropped_unsettled_comes_back_at_once,
    a_handed_back_message_goes_to_another_consumer,
    a_dropped_consumer_returns_prefetched_messages_and_finishes_the_rest,
    an_acknowledged_message_never_comes_back,
    after_a_loss_only_unsettled_messages_come_back,
    a_delayed_message_keeps_its_delay_queue_and_headers,
    a_short_delay_does_not_wait_for_a_long_one,
    a_reply_to_a_queue_that_is_gone_is_no_such_queue,
    an_event_without_a_listener_is_no_error,
    each_of_many_messages_in_flight_gets_its_own_answer,
    a_consumer_holds_no_more_than_its_prefetch,
    depth_counts_the_messages_that_are_ready,
    a_message_returned_too_often_is_dead_with_its_reason,
    a_message_published_as_dead_has_no_reason_of_the_brokers,
    messages_survive_reopening_the_broker,
    after_close_every_call_fails,
    two_consumers_share_a_queue_and_neither_gets_what_the_other_holds,
);
