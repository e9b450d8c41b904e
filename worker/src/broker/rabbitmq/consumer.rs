//! Deliveries from RabbitMQ. Each consumer has a channel of its own, which lives as long as the consumer or any of its
//! deliveries: a consumer that is dropped stops, and what is under way can still be acknowledged.

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
use super::{convert, passive};
use crate::broker::{BrokerError, Consumer, Delivery, Queue, Settle};

/// How often a consumer that hears nothing asks whether the broker still knows it, and how long the answer may take:
/// within 15 s of losing it the worker says so.
const PROBE: Duration = Duration::from_secs(5);
const PROBE_ANSWER: Duration = Duration::from_secs(8);
const REQUEUE: BasicNackOptions = BasicNackOptions { multiple: false, requeue: true };

pub(super) struct RabbitConsumer {
    channel: Channel,
    stream: Option<lapin::Consumer>,
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
        prefetch: u16,
    ) -> Result<Self, BrokerError> {
        let failed = |error: lapin::Error| match AmqpError::from_lapin(&error) {
            AmqpError::NotFound(_) => BrokerError::NoSuchQueue(name.to_string()),
            error => convert::error(error),
        };
        // A prefetch of 0 means "without a limit".
        let qos = channel.basic_qos(prefetch.max(1), BasicQosOptions::default());
        qos.await.map_err(failed)?;
        let options = BasicConsumeOptions::default();
        let stream = channel.basic_consume(name.clone(), "".into(), options, FieldTable::default());
        let stream = stream.await.map_err(failed)?;
        let mut probe = interval(PROBE);
        probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
        probe.reset();
        let (stream, is_dead_queue) = (Some(stream), *queue == Queue::Dead);
        Ok(Self { channel, stream, queue: name, is_dead_queue, acks: Arc::default(), probe })
    }

    /// A socket that is up proves nothing: ask the broker whether the queue has a consumer and this channel is heard.
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
        loop {
            let Some(stream) = &mut self.stream else {
                return Err(lost("it has ended"));
            };
            tokio::select! {
                biased;
                received = stream.next() => match received {
                    Some(Ok(received)) => return Ok(self.delivery(received)),
                    Some(Err(error)) => return Err(lost(&error.to_string())),
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

impl Drop for RabbitConsumer {
    fn drop(&mut self) {
        let (Some(stream), Ok(runtime)) = (self.stream.take(), tokio::runtime::Handle::try_current()) else {
            return;
        };
        runtime.spawn(stop(self.channel.clone(), stream));
    }
}

/// Stops the consumer and gives back what was sent ahead of it: the channel may stay open for long.
async fn stop(channel: Channel, mut stream: lapin::Consumer) {
    let cancelled = channel.basic_cancel(stream.tag(), BasicCancelOptions::default());
    if cancelled.await.is_err() {
        return;
    }
    while let Some(Ok(received)) = stream.next().await {
        let _dead_channel = received.acker.nack(REQUEUE).await;
    }
}

/// Dropped without a word (its handler panicked or was aborted), it gives the delivery back.
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
            // The first poll hands it to the connection; there is nobody to wait for the rest.
            let _sent = acker.nack(REQUEUE).now_or_never();
            self.acks.returned(self.tag);
        }
    }
}
