//! Deliveries from RabbitMQ. Each consumer has its own channel, which lives as long as the consumer or any of
//! its deliveries: a dropped consumer stops, and deliveries under way can still be acknowledged.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::{FutureExt, StreamExt};
use lapin::{Acker, Channel};

use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions};
use lapin::types::{DeliveryTag, FieldTable, ShortString};
use retouch_shared::amqp::AmqpError;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::acks::Acks;
use super::prefetch::Prefetch;
use super::{convert, passive};
use crate::broker::{BrokerError, Consumer, Delivery, Queue, Settle};

/// How often an idle consumer checks that the broker still knows it, and the limit for the answer: the worker
/// reports a lost consumer within 15 s.
const PROBE: Duration = Duration::from_secs(5);
const PROBE_ANSWER: Duration = Duration::from_secs(8);
const REQUEUE: BasicNackOptions = BasicNackOptions { multiple: false, requeue: true };

pub(super) struct RabbitConsumer {
    channel: Channel,
    stream: Option<lapin::Consumer>,
    /// Deliveries prefetched under an earlier prefetch; they come first.
    earlier: Vec<lapin::Consumer>,
    prefetch: Prefetch,
    queue: ShortString,
    is_dead_queue: bool,
    acks: Arc<Acks>,
    probe: Interval,
}

impl RabbitConsumer {
    pub(super) async fn start(
        channel: Channel,
        name: ShortString,
        queue: &Queue,
        prefetch: Prefetch,
    ) -> Result<Self, BrokerError> {
        let stream = begin(&channel, &name, prefetch.current()).await?;
        let mut probe = interval(PROBE);
        probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
        probe.reset();
        let (stream, is_dead_queue) = (Some(stream), *queue == Queue::Dead);
        let (earlier, acks) = (Vec::new(), Arc::default());
        Ok(Self { channel, stream, earlier, prefetch, queue: name, is_dead_queue, acks, probe })
    }

    /// The next delivery prefetched under an earlier prefetch.
    async fn next_of_earlier(&mut self) -> Option<Result<lapin::message::Delivery, lapin::Error>> {
        while let Some(stream) = self.earlier.first_mut() {
            if let Some(received) = stream.next().await {
                return Some(received);
            }
            self.earlier.remove(0);
        }
        None
    }

    /// Takes a delivery, and changes the prefetch if its size says so.
    async fn take(
        &mut self,
        received: Result<lapin::message::Delivery, lapin::Error>,
    ) -> Result<Delivery, BrokerError> {
        let delivery = self.delivery(received.map_err(|error| lost(&error.to_string()))?);
        if let Some(prefetch) = self.prefetch.note(delivery.message.payload.len()) {
            self.begin_anew(prefetch).await?;
        }
        Ok(delivery)
    }

    /// RabbitMQ fixes the prefetch when a consumer starts, so another prefetch takes another consumer.
    /// Deliveries of the first one stay with this channel; messages still on their way return to the queue
    /// and reach the second one.
    async fn begin_anew(&mut self, prefetch: u16) -> Result<(), BrokerError> {
        let Some(stream) = self.stream.take() else { return Ok(()) };
        let tag = stream.tag();
        self.earlier.push(stream);
        let cancelled = self.channel.basic_cancel(tag, BasicCancelOptions::default());
        cancelled.await.map_err(|error| lost(&error.to_string()))?;
        self.stream = Some(begin(&self.channel, &self.queue, prefetch).await?);
        tracing::debug!(queue = %self.queue, prefetch, "changing the prefetch");
        Ok(())
    }

    /// An open socket proves nothing: ask the broker whether the queue has a consumer and this channel
    /// answers.
    async fn probe(&self) -> Result<(), BrokerError> {
        let answer = tokio::time::timeout(PROBE_ANSWER, passive(&self.channel, self.queue.clone())).await;
        let Ok(answer) = answer else {
            return Err(lost(&format!("the broker did not answer within {PROBE_ANSWER:?}")));
        };
        match answer {
            Ok(queue) if queue.consumer_count() > 0 => Ok(()),
            Ok(_) => Err(lost("the broker does not know this consumer any more")),
            Err(error) => Err(lost(&error.to_string())),
        }
    }

    fn delivery(&self, mut received: lapin::message::Delivery) -> Delivery {
        let broker_death = self.is_dead_queue.then(|| convert::broker_death(&received)).flatten();
        let tag = received.delivery_tag;
        self.acks.begin(tag);
        let (message, redelivered) = (convert::incoming(&mut received), convert::redelivered(&received));
        let (acks, channel) = (Arc::clone(&self.acks), self.channel.clone());
        let settler = Settler { acker: Some(received.acker), tag, acks, _channel: channel };
        Delivery { message, redelivered, broker_death, settler: Box::new(settler) }
    }
}

#[async_trait]
impl Consumer for RabbitConsumer {
    async fn next(&mut self) -> Result<Delivery, BrokerError> {
        if let Some(received) = self.next_of_earlier().await {
            return self.take(received).await;
        }
        loop {
            let Some(stream) = &mut self.stream else {
                return Err(lost("it has ended"));
            };
            tokio::select! {
                biased;
                received = stream.next() => match received {
                    Some(received) => return self.take(received).await,
                    None => return Err(lost("the broker cancelled it")),
                },
                _ = self.probe.tick() => self.probe().await?,
            }
        }
    }

    async fn lost(&mut self) -> BrokerError {
        loop {
            self.probe.tick().await;
            if let Err(error) = self.probe().await {
                return error;
            }
        }
    }
}

fn lost(why: &str) -> BrokerError {
    BrokerError::Unavailable(format!("the consumer was lost: {why}"))
}

/// Starts consuming.
async fn begin(
    channel: &Channel,
    queue: &ShortString,
    prefetch: u16,
) -> Result<lapin::Consumer, BrokerError> {
    let failed = |error: lapin::Error| match AmqpError::from_lapin(&error) {
        AmqpError::NotFound(_) => BrokerError::NoSuchQueue(queue.to_string()),
        error => convert::error(error),
    };
    channel.basic_qos(prefetch, BasicQosOptions::default()).await.map_err(failed)?;
    let options = BasicConsumeOptions::default();
    let stream = channel.basic_consume(queue.clone(), "".into(), options, FieldTable::default());
    stream.await.map_err(failed)
}

impl Drop for RabbitConsumer {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        for stream in self.earlier.drain(..).chain(self.stream.take()) {
            runtime.spawn(stop(self.channel.clone(), stream));
        }
    }
}

/// Stops the consumer and returns its prefetched deliveries: the channel may stay open for long.
async fn stop(channel: Channel, mut stream: lapin::Consumer) {
    let cancelled = channel.basic_cancel(stream.tag(), BasicCancelOptions::default());
    if cancelled.await.is_err() {
        return;
    }
    while let Some(Ok(received)) = stream.next().await {
        let _dead_channel = received.acker.nack(REQUEUE).await;
    }
}

/// Dropped unsettled (its handler panicked or was aborted), it gives the delivery back.
struct Settler {
    acker: Option<Acker>,
    tag: DeliveryTag,
    acks: Arc<Acks>,
    /// Keeps the channel open.
    _channel: Channel,
}

#[async_trait]
impl Settle for Settler {
    async fn ack(mut self: Box<Self>) -> bool {
        match self.acker.take() {
            Some(acker) => self.acks.ack(self.tag, acker).await,
            None => false,
        }
    }

    async fn hand_back(mut self: Box<Self>) -> bool {
        match self.acker.take() {
            Some(acker) => {
                let heard = matches!(acker.nack(REQUEUE).await, Ok(true));
                self.acks.returned(self.tag);
                heard
            }
            None => false,
        }
    }
}

impl Drop for Settler {
    fn drop(&mut self) {
        if let Some(acker) = self.acker.take() {
            // The first poll hands it to the connection; its result has no receiver.
            let _sent = acker.nack(REQUEUE).now_or_never();
            self.acks.returned(self.tag);
        }
    }
}
