//! Conversion between the port's messages and AMQP's: names, headers, properties, errors. No I/O here.

use std::sync::Arc;

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::message::Delivery as Received;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use retouch_shared::amqp::AmqpError;
use retouch_shared::publisher::{NUMBER_HEADER, Outgoing};
use retouch_shared::topology::{DEAD_KEY, TASKS_KEY, Topology, rung_for};

use crate::broker::{BrokerError, Destination, Headers, Message, Queue, TRACEPARENT, TRACESTATE};

/// Longest header value in bytes: all headers must fit one frame together, and errors grow.
const MAX_HEADER_BYTES: usize = 1024;
/// Survives a restart of the broker.
const PERSISTENT: u8 = 2;

pub(super) fn error(error: AmqpError) -> BrokerError {
    match error {
        AmqpError::Unavailable(why) => BrokerError::Unavailable(why),
        AmqpError::NotFound(what) => BrokerError::NoSuchQueue(what),
        AmqpError::Refused(why) => BrokerError::Misconfigured(why),
    }
}

/// AMQP's names have at most 255 bytes, and the client library panics on longer ones.
pub(super) fn short(name: &str) -> Result<ShortString, BrokerError> {
    ShortString::try_new(name).map_err(|_too_long| {
        BrokerError::Misconfigured(format!("a name must have at most 255 bytes: {name}"))
    })
}

pub(super) fn queue_name(topology: &Topology, queue: &Queue) -> String {
    match queue {
        Queue::Tasks => topology.tasks_queue(),
        Queue::Edits { lane } => topology.edits_queue(lane),
        Queue::Dead => topology.dead_queue(),
    }
}

fn routing_key(queue: &Queue) -> String {
    match queue {
        Queue::Tasks => TASKS_KEY.to_owned(),
        Queue::Edits { lane } => Topology::edits_key(lane),
        Queue::Dead => DEAD_KEY.to_owned(),
    }
}

/// The unreachable destination, for the error.
pub(super) fn target(topology: &Topology, to: &Destination) -> String {
    match to {
        Destination::Queue(queue) => queue_name(topology, queue),
        Destination::Delayed(_, delay) => topology.wait(rung_for(*delay)),
        Destination::Event(_) => topology.events_exchange(),
        Destination::Reply(queue) => queue.clone(),
    }
}

pub(super) fn outgoing(
    topology: &Topology,
    to: &Destination,
    message: Message,
) -> Result<Outgoing, BrokerError> {
    let (exchange, key) = match to {
        Destination::Queue(Queue::Dead) => (topology.dead_exchange(), DEAD_KEY.to_owned()),
        Destination::Queue(queue) => (topology.exchange().to_owned(), routing_key(queue)),
        // The rung's exchange is a fanout and leaves the key to find the way back.
        Destination::Delayed(queue, delay) => (topology.wait(rung_for(*delay)), routing_key(queue)),
        Destination::Event(key) => (topology.events_exchange(), key.clone()),
        Destination::Reply(queue) => (String::new(), queue.clone()),
    };
    let mandatory = !matches!(to, Destination::Event(_));
    let Message { payload, headers, reply_to, correlation_id, message_id } = message;
    let mut properties = BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_content_type("application/json".into())
        .with_headers(table(&headers));
    if let Some(reply_to) = reply_to {
        properties = properties.with_reply_to(short(&reply_to)?);
    }
    if let Some(id) = correlation_id {
        properties = properties.with_correlation_id(short(&id)?);
    }
    if let Some(id) = message_id {
        properties = properties.with_message_id(short(&id)?);
    }
    Ok(Outgoing {
        exchange: short(&exchange)?,
        routing_key: short(&key)?,
        mandatory,
        payload: Arc::new(payload),
        properties,
    })
}

pub(super) fn incoming(received: &mut Received) -> Message {
    let properties = &received.properties;
    let text = |value: &Option<ShortString>| value.as_ref().map(ToString::to_string);
    Message {
        headers: properties.headers().as_ref().map(ours).unwrap_or_default(),
        reply_to: text(properties.reply_to()),
        correlation_id: text(properties.correlation_id()),
        message_id: text(properties.message_id()),
        payload: Bytes::from(std::mem::take(&mut received.data)),
    }
}

/// Whether the message may have been delivered before: some versions report it only in a header.
pub(super) fn redelivered(received: &Received) -> bool {
    let headers = received.properties.headers().as_ref();
    let count = headers.and_then(|headers| headers.inner().get("x-delivery-count"));
    received.redelivered
        || matches!(count, Some(AMQPValue::LongLongInt(count)) if *count > 0)
        || matches!(count, Some(AMQPValue::LongInt(count)) if *count > 0)
}

/// Reason and queue of the newest dead-lettering by the broker: a delayed message has also expired on the
/// wait ladder before.
pub(super) fn broker_death(received: &Received) -> Option<(String, String)> {
    let headers = received.properties.headers().as_ref()?.inner();
    let last = |name| headers.get(name).and_then(text);
    if let (Some(reason), Some(queue)) = (last("x-last-death-reason"), last("x-last-death-queue")) {
        return Some((reason, queue));
    }
    let newest = match headers.get("x-death") {
        Some(AMQPValue::FieldArray(deaths)) => deaths.as_slice().first(),
        _ => None,
    };
    if let Some(AMQPValue::FieldTable(death)) = newest {
        let field = |name| death.inner().get(name).and_then(text);
        return Some((field("reason")?, field("queue")?));
    }
    Some((last("x-first-death-reason")?, last("x-first-death-queue")?))
}

fn is_ours(name: &str) -> bool {
    (name.starts_with("x-retouch-") && name != NUMBER_HEADER) || [TRACEPARENT, TRACESTATE].contains(&name)
}

/// Drops the broker's headers: newer versions would rely on them (a message on the wait ladder would look
/// like a cycle), older ones would not update them.
fn ours(table: &FieldTable) -> Headers {
    table
        .inner()
        .iter()
        .filter(|(name, _)| is_ours(name.as_str()))
        .filter_map(|(name, value)| Some((name.to_string(), text(value)?)))
        .collect()
}

fn table(headers: &Headers) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in headers.iter().filter(|(name, _)| is_ours(name)) {
        let Ok(name) = ShortString::try_new(name) else {
            continue;
        };
        let value = &value[..value.floor_char_boundary(MAX_HEADER_BYTES)];
        table.insert(name, AMQPValue::LongString(value.into()));
    }
    table
}

fn text(value: &AMQPValue) -> Option<String> {
    match value {
        AMQPValue::LongString(text) => String::from_utf8(text.as_bytes().to_vec()).ok(),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        AMQPValue::LongLongInt(number) => Some(number.to_string()),
        AMQPValue::LongInt(number) => Some(number.to_string()),
        // Our headers have no other type.
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(headers: &[(&str, AMQPValue)]) -> Received {
        let mut table = FieldTable::default();
        for (name, value) in headers {
            table.insert((*name).into(), value.clone());
        }
        let mut received = Received::mock(1, "x".into(), "tasks".into(), false, b"{}".to_vec());
        received.properties = BasicProperties::default().with_headers(table);
        received
    }

    fn string(text: &str) -> AMQPValue {
        AMQPValue::LongString(text.into())
    }

    #[test]
    fn only_our_own_headers_get_through_in_either_direction() {
        let mut message = received(&[
            ("x-retouch-attempt", AMQPValue::LongInt(3)),
            ("traceparent", string("00-a-b-01")),
            ("tracestate", string("a=1")),
            ("x-death", AMQPValue::FieldArray(vec![].into())),
            ("x-first-death-reason", string("expired")),
            ("x-delivery-count", AMQPValue::LongLongInt(2)),
            (NUMBER_HEADER, AMQPValue::LongLongInt(7)),
            ("user", string("x")),
        ]);
        assert!(redelivered(&message));
        let Message { mut headers, .. } = incoming(&mut message);
        assert_eq!(headers.keys().collect::<Vec<_>>(), ["traceparent", "tracestate", "x-retouch-attempt"]);
        assert_eq!(headers["x-retouch-attempt"], "3");
        headers.insert("x-death".into(), "no".into());
        assert_eq!(table(&headers).inner().len(), 3);
    }

    #[test]
    fn a_long_header_is_cut_between_characters() {
        let headers = Headers::from([("x-retouch-error".to_owned(), "é".repeat(2000))]);
        let Some(AMQPValue::LongString(value)) = table(&headers).inner().get("x-retouch-error").cloned()
        else {
            panic!("no header");
        };
        assert_eq!(value.to_string(), "é".repeat(512));
    }

    #[test]
    fn the_newest_death_is_reported() {
        let death = |reason: &str, queue: &str| {
            let mut table = FieldTable::default();
            table.insert("reason".into(), string(reason));
            table.insert("queue".into(), string(queue));
            AMQPValue::FieldTable(table)
        };
        let deaths = vec![death("delivery_limit", "tasks"), death("expired", "wait")];
        let mut headers = vec![
            ("x-death", AMQPValue::FieldArray(deaths.into())),
            ("x-first-death-reason", string("expired")),
            ("x-first-death-queue", string("wait")),
        ];
        let told = |headers: &[(&str, AMQPValue)]| broker_death(&received(headers)).map(|(reason, _)| reason);
        assert_eq!(told(&headers).as_deref(), Some("delivery_limit"));
        assert_eq!(told(&headers[1..]).as_deref(), Some("expired"));
        headers.push(("x-last-death-reason", string("rejected")));
        headers.push(("x-last-death-queue", string("tasks")));
        assert_eq!(told(&headers).as_deref(), Some("rejected"));
        assert_eq!(told(&[]), None);
    }
}
