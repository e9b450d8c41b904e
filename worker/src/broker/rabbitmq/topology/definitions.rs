//! The plan as RabbitMQ's definitions (<https://www.rabbitmq.com/docs/definitions>), for brokers that are
//! managed by them and give workers no right to declare.

use serde_json::{Map, Value, json};

use super::{Argument, Plan};

/// Input for `rabbitmqctl import_definitions`. The virtual host must exist or be part of the other
/// definitions.
pub fn definitions(plan: &Plan, vhost: &str) -> Value {
    // Destructured: a new kind of item does not compile until it is here.
    let Plan { exchanges, queues, bindings } = plan;
    let exchanges = exchanges.iter().map(|exchange| {
        let alternate = exchange.alternate.iter().map(|name| ("alternate-exchange".to_owned(), json!(name)));
        json!({
            "name": exchange.name,
            "vhost": vhost,
            "type": exchange.kind,
            "durable": true,
            "auto_delete": false,
            "internal": false,
            "arguments": alternate.collect::<Map<_, _>>(),
        })
    });
    let queues = queues.iter().map(|queue| {
        let arguments = queue.arguments.iter().map(|(name, value)| {
            let value = match value {
                Argument::Text(text) => json!(text),
                Argument::Number(number) => json!(number),
            };
            ((*name).to_owned(), value)
        });
        json!({
            "name": queue.name,
            "vhost": vhost,
            "durable": true,
            "auto_delete": false,
            "arguments": arguments.collect::<Map<_, _>>(),
        })
    });
    let bindings = bindings.iter().map(|binding| {
        json!({
            "source": binding.exchange,
            "vhost": vhost,
            "destination": binding.queue,
            "destination_type": "queue",
            "routing_key": binding.key,
            "arguments": {},
        })
    });
    json!({
        "exchanges": exchanges.collect::<Vec<_>>(),
        "queues": queues.collect::<Vec<_>>(),
        "bindings": bindings.collect::<Vec<_>>(),
    })
}
