//! Rights of this login in the namespace, tried on a queue that is deleted with the connection; and whether
//! the broker accepts messages.

use std::time::Duration;

use futures::StreamExt;
use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions,
    QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, Event, ExchangeKind};
use retouch_shared::amqp::AmqpError;
use retouch_shared::topology::Topology;

use super::convert::{error, short};
use crate::broker::BrokerError;

/// A blocked broker says so at the first message; otherwise the confirm comes within this.
const CONFIRM: Duration = Duration::from_secs(3);

/// Each right that was tried, with the broker's words if it refused; `None` if it could not be tried.
#[derive(Debug, Default)]
pub struct Rights {
    /// Create queues in the namespace.
    pub declare: Option<Result<(), String>>,
    /// Publish to its exchange.
    pub publish: Option<Result<(), String>>,
    /// Consume from its queues.
    pub consume: Option<Result<(), String>>,
    /// Why the broker accepts no messages, if it is blocked.
    pub blocked: Option<String>,
    /// Whether the broker accepted a message.
    pub took_one: bool,
}

/// Tries all rights. The connection must serve nothing else: a blocked broker stops reading from it.
pub(super) async fn rights(connection: &Connection, names: &Topology) -> Result<Rights, BrokerError> {
    let queue = format!("{}.doctor.{}", names.exchange(), uuid::Uuid::now_v7().simple());
    let tried = try_on(connection, names, &queue).await?;
    if tried.blocked.is_none() && tried.declare == Some(Ok(())) {
        // The queue would go with the connection; deleting it now does not delay the answer.
        let deleted = open(connection)
            .await?
            .queue_delete(name(&queue).map_err(error)?, QueueDeleteOptions::default())
            .await;
        deleted.map_err(|failed| error(AmqpError::from_lapin(&failed)))?;
    }
    Ok(tried)
}

async fn try_on(connection: &Connection, names: &Topology, queue: &str) -> Result<Rights, BrokerError> {
    let mut rights = Rights::default();
    let declared = declare(&open(connection).await?, queue).await;
    let has_queue = declared.is_ok();
    rights.declare = Some(verdict(declared)?);
    // Without the exchange (no worker has run here) messages go to the queue by its name.
    let exchange = match exists(&open(connection).await?, names.exchange()).await {
        Ok(()) => names.exchange(),
        Err(AmqpError::NotFound(_)) => "",
        Err(failed) => return Err(error(failed)),
    };
    if has_queue && !exchange.is_empty() {
        let bound = bind(&open(connection).await?, queue, exchange).await;
        // Binding needs the right to read from the exchange, which consumers of events need.
        if let Err(why) = verdict(bound)? {
            rights.consume = Some(Err(why));
        }
    }
    let channel = open(connection).await?;
    match publish(connection, &channel, exchange, queue).await {
        Published::Confirmed => {
            rights.took_one = true;
            rights.publish = (!exchange.is_empty()).then_some(Ok(()));
        }
        Published::Blocked(why) => {
            rights.blocked = Some(why);
            return Ok(rights);
        }
        Published::Failed(AmqpError::Refused(_)) if exchange.is_empty() => {}
        Published::Failed(failed) => rights.publish = Some(verdict(Err(failed))?),
    }
    if has_queue && rights.consume.is_none() {
        rights.consume = Some(verdict(get(&open(connection).await?, queue).await)?);
    }
    Ok(rights)
}

enum Published {
    Confirmed,
    Blocked(String),
    Failed(AmqpError),
}

async fn publish(connection: &Connection, channel: &Channel, exchange: &str, key: &str) -> Published {
    let mut events = Box::pin(connection.events_listener());
    let sending = async {
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
        channel.basic_publish(exchange.into(), key.into(), options, b"{}", properties).await?.await
    };
    let blocked = async {
        loop {
            match events.next().await {
                Some(Event::ConnectionBlocked(why)) => return why,
                Some(_other) => {}
                None => std::future::pending().await,
            }
        }
    };
    tokio::select! {
        biased;
        why = blocked => Published::Blocked(why),
        sent = sending => match sent {
            Ok(_confirmed) => Published::Confirmed,
            Err(failed) => Published::Failed(AmqpError::from_lapin(&failed)),
        },
        () = tokio::time::sleep(CONFIRM) => Published::Blocked(format!("no confirm within {CONFIRM:?}")),
    }
}

async fn declare(channel: &Channel, queue: &str) -> Result<(), AmqpError> {
    let options =
        QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
    let declared = channel.queue_declare(name(queue)?, options, FieldTable::default()).await;
    declared.map(drop).map_err(|failed| AmqpError::from_lapin(&failed))
}

async fn bind(channel: &Channel, queue: &str, exchange: &str) -> Result<(), AmqpError> {
    let (key, options) = (name(queue)?, QueueBindOptions::default());
    let bound = channel.queue_bind(name(queue)?, name(exchange)?, key, options, FieldTable::default());
    bound.await.map_err(|failed| AmqpError::from_lapin(&failed))
}

async fn exists(channel: &Channel, exchange: &str) -> Result<(), AmqpError> {
    let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
    let asked =
        channel.exchange_declare(name(exchange)?, ExchangeKind::Direct, options, FieldTable::default());
    asked.await.map_err(|failed| AmqpError::from_lapin(&failed))
}

async fn get(channel: &Channel, queue: &str) -> Result<(), AmqpError> {
    let got = channel.basic_get(name(queue)?, BasicGetOptions { no_ack: true }).await;
    got.map(drop).map_err(|failed| AmqpError::from_lapin(&failed))
}

/// A refusal is an answer; an unreachable broker is an error.
fn verdict(tried: Result<(), AmqpError>) -> Result<Result<(), String>, BrokerError> {
    match tried {
        Ok(()) => Ok(Ok(())),
        Err(AmqpError::Refused(why) | AmqpError::NotFound(why)) => Ok(Err(why)),
        Err(failed @ AmqpError::Unavailable(_)) => Err(error(failed)),
    }
}

fn name(text: &str) -> Result<lapin::types::ShortString, AmqpError> {
    short(text).map_err(|too_long| AmqpError::Refused(too_long.to_string()))
}

async fn open(connection: &Connection) -> Result<Channel, BrokerError> {
    let channel = connection.create_channel().await;
    channel.map_err(|failed| error(AmqpError::from_lapin(&failed)))
}
