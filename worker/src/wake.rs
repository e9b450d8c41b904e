//! Edit messages: each wakes a call that is in the store. A lost message delays the call; the sweep sends
//! another.

use bytes::Bytes;
use futures::future::FutureExt;
use futures::stream::{self, StreamExt};
use retouch_shared::key::EditKey;
use retouch_shared::wire::{EditMessage, VERSION};

use crate::app::App;
use crate::broker::{Destination, Message, Queue};
use crate::failpoint::around;
use crate::trace;

/// The body of an edit message.
pub(crate) fn payload(edit_key: EditKey) -> Bytes {
    // A struct of a number and a digest always serialises.
    serde_json::to_vec(&EditMessage { v: VERSION, edit_key }).unwrap_or_default().into()
}

/// Publishes a message for each call, by edit key and lane; the sweep repeats those that fail.
pub(crate) async fn calls(app: &App, calls: Vec<(EditKey, String)>) {
    let wakes: Vec<_> = calls.into_iter().map(|(edit_key, lane)| one(app, edit_key, lane).boxed()).collect();
    around("wake_calls", stream::iter(wakes).buffer_unordered(64).collect::<()>()).await;
}

async fn one(app: &App, edit_key: EditKey, lane: String) {
    let to = Destination::Queue(Queue::Edits { lane });
    let mut message = Message::new(payload(edit_key));
    trace::stamp(&mut message.headers, trace::current().as_ref());
    if let Err(error) = app.broker.publish(to, message).await {
        tracing::warn!(%edit_key, %error, "cannot wake a call now; the sweep will");
    }
}
