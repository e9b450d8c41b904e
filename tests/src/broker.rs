//! The broker for tests: a producer's channel, and the management API for figures that AMQP lacks.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer,
    message::BasicGetMessage,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions,
        ExchangeBindOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
    },
    types::FieldTable,
};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use url::Url;

use crate::wait::SOON;

/// A connection with one channel in confirm mode; both close on drop.
#[derive(Debug)]
pub struct Amqp {
    /// For what the helpers here do not cover.
    pub channel: Channel,
    /// Keeps the channel open.
    pub connection: Connection,
}

impl Amqp {
    /// Connects to `url`.
    pub async fn connect(url: &str) -> Self {
        let connection = Connection::connect(url, ConnectionProperties::default()).await;
        let connection = connection.unwrap_or_else(|error| panic!("cannot connect to {url}: {error}"));
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        Self { channel, connection }
    }

    /// Publishes persistently and returns when the broker has it in a queue; panics when it reached none.
    pub async fn publish(&self, exchange: &str, key: &str, body: impl AsRef<[u8]>) {
        let properties = BasicProperties::default().with_content_type("application/json".into());
        self.publish_with(exchange, key, body, properties).await;
    }

    /// As [`Amqp::publish`], with properties of the test's choice; the delivery mode is always persistent.
    pub async fn publish_with(
        &self,
        exchange: &str,
        key: &str,
        body: impl AsRef<[u8]>,
        properties: BasicProperties,
    ) {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let properties = properties.with_delivery_mode(2);
        let sent =
            self.channel.basic_publish(exchange.into(), key.into(), options, body.as_ref(), properties);
        match sent.await.unwrap().await.unwrap() {
            Confirmation::Ack(None) => {}
            Confirmation::Ack(Some(_)) => {
                panic!("no queue takes messages from {exchange:?} with key {key:?}")
            }
            other => panic!("the broker refused a message for {exchange:?}: {other:?}"),
        }
    }

    /// Takes one message off a queue, acknowledged.
    pub async fn take(&self, queue: &str) -> Option<BasicGetMessage> {
        let options = BasicGetOptions { no_ack: true };
        self.channel.basic_get(queue.into(), options).await.unwrap()
    }

    /// Binds a private queue of this connection to `exchange`, which it declares if necessary, and consumes
    /// it.
    ///
    /// The queue exists from here on, so nothing published after this call is missed.
    pub async fn listen(&self, exchange: &str, kind: lapin::ExchangeKind, key: &str) -> Listener {
        let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let none = FieldTable::default;
        self.channel.exchange_declare(exchange.into(), kind, durable, none()).await.unwrap();
        let (name, listener) = self.own_queue().await;
        let bind = QueueBindOptions::default();
        self.channel.queue_bind(name.into(), exchange.into(), key.into(), bind, none()).await.unwrap();
        listener
    }

    /// A queue of this connection's own, consumed, and the name that the broker gave it.
    pub async fn own_queue(&self) -> (String, Listener) {
        let own = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
        let queue = self.channel.queue_declare("".into(), own, FieldTable::default()).await.unwrap();
        let name = queue.name().clone();
        let consume = BasicConsumeOptions::default();
        let consumer = self.channel.basic_consume(name.clone(), "".into(), consume, FieldTable::default());
        (name.to_string(), Listener { consumer: consumer.await.unwrap() })
    }

    /// Connects two exchanges, so that a test sees messages beside their usual route.
    pub async fn bind_exchange(&self, destination: &str, source: &str, key: &str) {
        let options = ExchangeBindOptions::default();
        let none = FieldTable::default();
        self.channel
            .exchange_bind(destination.into(), source.into(), key.into(), options, none)
            .await
            .unwrap();
    }
}

/// Messages as they come in; each is acknowledged when it is handed out.
#[derive(Debug)]
pub struct Listener {
    consumer: Consumer,
}

impl Listener {
    /// The next message; panics when none comes soon.
    pub async fn next(&mut self) -> lapin::message::Delivery {
        self.next_within(SOON).await.unwrap_or_else(|| panic!("no message came within {SOON:?}"))
    }

    /// The next message, if one comes in this time.
    pub async fn next_within(&mut self, within: Duration) -> Option<lapin::message::Delivery> {
        let next = tokio::time::timeout(within, self.consumer.next()).await.ok()?;
        let delivery = next.expect("the queue was deleted").unwrap();
        assert!(delivery.ack(BasicAckOptions::default()).await.unwrap(), "the acknowledgement was lost");
        Some(delivery)
    }

    /// The next message's body as JSON.
    pub async fn next_json(&mut self) -> Value {
        serde_json::from_slice(&self.next().await.data).unwrap()
    }
}

/// How many messages a queue holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// Its full name.
    pub name: String,
    /// Messages that wait for a consumer.
    pub ready: u64,
    /// Messages that a consumer holds.
    pub unacknowledged: u64,
}

/// The management API. Its counts are up to half a second old: poll for them.
#[derive(Debug, Clone)]
pub struct Management {
    root: Url,
    client: Client,
}

impl Management {
    /// `root` as of [`crate::services::RabbitMq::http_url`].
    #[must_use]
    pub fn new(root: &str) -> Self {
        crate::env::install_tls();
        Self { root: root.parse().unwrap(), client: Client::new() }
    }

    /// The queues whose name starts with `prefix`, by name.
    pub async fn queues(&self, prefix: &str) -> anyhow::Result<Vec<Queue>> {
        let query = "disable_stats=true&enable_queue_totals=true";
        let rows = self.list("queues", query, prefix).await?;
        let count = |row: &Value, field: &str| row[field].as_u64().unwrap_or_default();
        Ok(rows
            .into_iter()
            .map(|(name, row)| Queue {
                name,
                ready: count(&row, "messages_ready"),
                unacknowledged: count(&row, "messages_unacknowledged"),
            })
            .collect())
    }

    /// The exchanges whose name starts with `prefix`, by name.
    pub async fn exchanges(&self, prefix: &str) -> anyhow::Result<Vec<String>> {
        let rows = self.list("exchanges", "disable_stats=true", prefix).await?;
        Ok(rows.into_iter().map(|(name, _)| name).collect())
    }

    /// Deletes every queue and exchange whose name starts with `prefix`, with its messages.
    pub async fn delete_all(&self, prefix: &str) -> anyhow::Result<()> {
        assert!(!prefix.is_empty(), "this would delete everybody's queues");
        for queue in self.queues(prefix).await? {
            self.call(Method::DELETE, &["queues", "/", &queue.name], "").await?;
        }
        for exchange in self.exchanges(prefix).await? {
            self.call(Method::DELETE, &["exchanges", "/", &exchange], "").await?;
        }
        Ok(())
    }

    /// Creates a user with all rights in the default virtual host.
    pub async fn create_user(&self, name: &str, password: &str) -> anyhow::Result<()> {
        let user = json!({"password": password, "tags": ""});
        self.send(Method::PUT, &["users", name], "", Some(user)).await?;
        let rights = json!({"configure": ".*", "write": ".*", "read": ".*"});
        self.send(Method::PUT, &["permissions", "/", name], "", Some(rights)).await?;
        Ok(())
    }

    /// Changes a user's rights in the default virtual host: three patterns of names.
    pub async fn permit(&self, name: &str, configure: &str, write: &str, read: &str) -> anyhow::Result<()> {
        let rights = json!({"configure": configure, "write": write, "read": read});
        self.send(Method::PUT, &["permissions", "/", name], "", Some(rights)).await?;
        Ok(())
    }

    /// Removes a user.
    pub async fn delete_user(&self, name: &str) -> anyhow::Result<()> {
        self.call(Method::DELETE, &["users", name], "").await?;
        Ok(())
    }

    async fn list(&self, kind: &str, query: &str, prefix: &str) -> anyhow::Result<Vec<(String, Value)>> {
        let text = self.call(Method::GET, &[kind, "/"], query).await?;
        let rows: Vec<Value> = serde_json::from_str(&text)?;
        let named = rows.into_iter().filter_map(|row| Some((row["name"].as_str()?.to_owned(), row)));
        let mut found: Vec<_> = named.filter(|(name, _)| name.starts_with(prefix)).collect();
        found.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(found)
    }

    /// One request below `/api/`; every part of the path is escaped. Returns the body of a success.
    pub async fn call(&self, method: Method, path: &[&str], query: &str) -> anyhow::Result<String> {
        self.send(method, path, query, None).await
    }

    async fn send(
        &self,
        method: Method,
        path: &[&str],
        query: &str,
        body: Option<Value>,
    ) -> anyhow::Result<String> {
        let mut url = self.root.clone();
        url.path_segments_mut().expect("an http URL").push("api").extend(path);
        url.set_query((!query.is_empty()).then_some(query));
        let mut request = self.client.request(method, url);
        if let Some(body) = body {
            request = request.body(body.to_string());
        }
        let body: Bytes = request.send().await?.error_for_status()?.bytes().await?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }
}
