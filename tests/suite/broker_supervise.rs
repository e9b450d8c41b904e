//! The supervisor: a queue is consumed for ever, through every fault of the broker, until it is told to stop.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use retouch_tests::env::Env;
use retouch_tests::wait::{SOON, until};
use retouch_worker::broker::supervise::{Liveness, supervise};
use retouch_worker::broker::{Broker, Delivery, Queue};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::broker_conformance::{Stage, body};
use crate::broker_embedded::File;
use crate::broker_rabbitmq::{behind_proxy, connect, publish};

/// A supervised consumer of the tasks queue whose handlers report their message and wait for permission to
/// acknowledge it.
struct Supervised {
    task: JoinHandle<()>,
    shutdown: CancellationToken,
    status: watch::Receiver<Liveness>,
    started: mpsc::UnboundedReceiver<String>,
    leave: Arc<Semaphore>,
    /// The most handlers that ever ran at once.
    most: Arc<AtomicUsize>,
}

impl Supervised {
    fn start(broker: &Arc<dyn Broker>, prefetch: u16) -> Self {
        let (status, watched) = watch::channel(Liveness::Starting);
        let (starting, started) = mpsc::unbounded_channel();
        let shutdown = CancellationToken::new();
        let leave = Arc::new(Semaphore::new(0));
        let wanted = Arc::clone(&leave);
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let highest = Arc::clone(&most);
        let handle = move |delivery: Delivery| {
            let (starting, wanted) = (starting.clone(), Arc::clone(&wanted));
            let (running, highest) = (Arc::clone(&running), Arc::clone(&highest));
            async move {
                highest.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                let text = body(&delivery);
                starting.send(text.clone()).unwrap();
                wanted.acquire().await.unwrap().forget();
                running.fetch_sub(1, Ordering::SeqCst);
                assert!(text != "poison" || delivery.redelivered, "as planned");
                delivery.settler.ack().await;
            }
        };
        let (broker, token) = (Arc::clone(broker), shutdown.clone());
        let task = tokio::spawn(supervise(broker, Queue::Tasks, prefetch, token, status, handle));
        Self { task, shutdown, status: watched, started, leave, most }
    }

    async fn becomes(&mut self, what: &str, expected: impl Fn(&Liveness) -> bool) {
        let seen = tokio::time::timeout(SOON, self.status.wait_for(|status| expected(status))).await;
        seen.unwrap_or_else(|_| panic!("it did not become {what}")).unwrap();
    }

    async fn becomes_consuming(&mut self) {
        self.becomes("consuming", |status| *status == Liveness::Consuming).await;
    }

    async fn started(&mut self) -> String {
        tokio::time::timeout(SOON, self.started.recv()).await.expect("no handler started").unwrap()
    }
}

async fn embedded() -> (File, Arc<dyn Broker>) {
    let file = File::new().await;
    let broker = file.open().await;
    broker.declare(&[]).await.unwrap();
    (file, broker)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_handlers_run_than_the_prefetch() {
    let (_file, broker) = embedded().await;
    for text in ["one", "two", "three"] {
        publish(&broker, text).await.unwrap();
    }
    let mut supervised = Supervised::start(&broker, 2);
    let two = BTreeSet::from([supervised.started().await, supervised.started().await]);
    assert_eq!(two, BTreeSet::from(["one".to_owned(), "two".to_owned()]));
    assert!(supervised.started.try_recv().is_err());
    supervised.leave.add_permits(1);
    assert_eq!(supervised.started().await, "three");
    assert_eq!(supervised.most.load(Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_waits_for_the_handlers_and_leaves_the_rest() {
    let (_file, broker) = embedded().await;
    for text in ["one", "two"] {
        publish(&broker, text).await.unwrap();
    }
    let mut supervised = Supervised::start(&broker, 1);
    assert_eq!(supervised.started().await, "one");
    supervised.shutdown.cancel();
    supervised.becomes("stopped", |status| *status == Liveness::Stopped).await;
    assert!(!supervised.task.is_finished());
    supervised.leave.add_permits(2);
    tokio::time::timeout(SOON, supervised.task).await.expect("it did not end").unwrap();
    assert_eq!(broker.depth(Queue::Tasks).await.unwrap(), 1, "\"one\" is done, \"two\" is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn aborting_it_aborts_the_handlers_and_gives_their_messages_back() {
    let (_file, broker) = embedded().await;
    publish(&broker, "one").await.unwrap();
    let mut supervised = Supervised::start(&broker, 1);
    supervised.started().await;
    supervised.task.abort();
    let mut consumer = broker.consume(Queue::Tasks, 1).await.unwrap();
    assert_eq!(body(&crate::broker_conformance::next(&mut consumer).await), "one");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_panics_costs_nothing_but_its_own_attempt() {
    let (_file, broker) = embedded().await;
    publish(&broker, "poison").await.unwrap();
    let mut supervised = Supervised::start(&broker, 1);
    supervised.leave.add_permits(3);
    assert_eq!(supervised.started().await, "poison");
    assert_eq!(supervised.started().await, "poison", "it came back");
    publish(&broker, "next").await.unwrap();
    assert_eq!(supervised.started().await, "next");
    assert_eq!(*supervised.status.borrow(), Liveness::Consuming);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_goes_on_working_after_the_link_returns() {
    let env = Env::new().await;
    let (mut proxy, broker) = behind_proxy(&env).await;
    let direct: Arc<dyn Broker> = Arc::new(connect(&env, env.amqp_url()).await);
    let mut supervised = Supervised::start(&broker, 2);
    publish(&direct, "held").await.unwrap();
    assert_eq!(supervised.started().await, "held");
    proxy.refuse().await;
    supervised.becomes("lost", |status| matches!(status, Liveness::Lost { .. })).await;
    publish(&direct, "meanwhile").await.unwrap();
    proxy.accept().await;
    supervised.becomes_consuming().await;
    // What was held over the loss is delivered again, and its first handler is still at work.
    let one = supervised.started().await;
    let all_sent = async || (direct.depth(Queue::Tasks).await.unwrap() == 0).then_some(());
    until("both messages with the consumer", all_sent).await;
    supervised.leave.add_permits(10);
    let got = BTreeSet::from([one, supervised.started().await]);
    assert_eq!(supervised.most.load(Ordering::SeqCst), 2);
    assert_eq!(got, BTreeSet::from(["held".to_owned(), "meanwhile".to_owned()]));
    supervised.shutdown.cancel();
    tokio::time::timeout(SOON, supervised.task).await.expect("it did not end").unwrap();
    let left =
        async || env.queues().await.iter().all(|queue| queue.ready + queue.unacknowledged == 0).then_some(());
    until("empty queues", left).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_was_deleted_is_declared_again() {
    let env = Env::new().await;
    let broker: Arc<dyn Broker> = Arc::new(connect(&env, env.amqp_url()).await);
    broker.declare(&[]).await.unwrap();
    let mut supervised = Supervised::start(&broker, 1);
    supervised.leave.add_permits(1);
    supervised.becomes_consuming().await;
    env.management().delete_all(&format!("{}.tasks", env.namespace())).await.unwrap();
    supervised.becomes("lost", |status| matches!(status, Liveness::Lost { .. })).await;
    supervised.becomes_consuming().await;
    publish(&broker, "one").await.unwrap();
    assert_eq!(supervised.started().await, "one");
}
