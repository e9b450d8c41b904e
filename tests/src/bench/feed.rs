//! Task messages, many at a time: published persistently, with as many unconfirmed at once as the broker likes.

use futures::stream::{self, StreamExt};
use lapin::options::BasicPublishOptions;
use lapin::{BasicProperties, Confirmation};
use serde_json::{Value, json};

use super::gallery::Gallery;
use crate::broker::Amqp;

/// Messages that wait for their confirm at once.
const WINDOW: usize = 500;

/// The edit type of every task: local, exact, and it needs no parameter.
pub const EDIT_TYPE: &str = "flip";

/// Task `number`: so many pictures by their URLs.
#[must_use]
pub fn task(gallery: &Gallery, number: u64, images: u64) -> Value {
    let pictures = pictures_of(gallery, number, images);
    let images: Vec<Value> = pictures.map(|picture| json!({"url": gallery.url(picture)})).collect();
    json!({"v": 1, "task_id": task_id(number), "edit_type": EDIT_TYPE, "prompt": "", "images": images})
}

/// Its pictures, by position.
pub fn pictures_of(gallery: &Gallery, number: u64, images: u64) -> impl Iterator<Item = usize> {
    (0..images).map(move |position| gallery.of_task(number + position))
}

/// The id of task `number`.
#[must_use]
pub fn task_id(number: u64) -> String {
    format!("bench-{number}")
}

/// The number of a task by its id.
#[must_use]
pub fn task_number(id: &str) -> u64 {
    let number = id.strip_prefix("bench-").and_then(|number| number.parse().ok());
    number.unwrap_or_else(|| panic!("{id:?} is no task of ours"))
}

/// Publishes them in order, and returns when the broker has them all.
pub async fn publish(amqp: &Amqp, exchange: &str, key: &str, messages: impl Iterator<Item = Value>) {
    let confirmed = stream::iter(messages).map(|message| async move {
        let properties =
            BasicProperties::default().with_content_type("application/json".into()).with_delivery_mode(2);
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let body = serde_json::to_vec(&message).unwrap();
        let sent = amqp.channel.basic_publish(exchange.into(), key.into(), options, &body, properties);
        sent.await.unwrap().await.unwrap()
    });
    let mut confirmed = confirmed.buffered(WINDOW);
    while let Some(confirmation) = confirmed.next().await {
        assert_eq!(confirmation, Confirmation::Ack(None), "the broker has no queue for {exchange}/{key}");
    }
}
