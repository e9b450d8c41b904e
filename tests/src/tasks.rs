//! Task messages as producers write them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use crate::pictures;

/// A task for the double, done within the call.
#[must_use]
pub fn task(id: &str, params: Value, images: &[Value]) -> Value {
    json!({"v": 1, "task_id": id, "edit_type": "double", "params": params, "images": images})
}

/// A task for the double, accepted and then polled.
#[must_use]
pub fn task_async(id: &str, params: Value, images: &[Value]) -> Value {
    let mut task = task(id, params, images);
    task["edit_type"] = json!("double_async");
    task
}

/// A picture inside the message.
#[must_use]
pub fn data(bytes: &[u8]) -> Value {
    json!({"data": format!("data:image/png;base64,{}", BASE64.encode(bytes))})
}

/// A picture at a URL.
#[must_use]
pub fn url(url: &str) -> Value {
    json!({"url": url})
}

/// [`pictures::picture`] of this seed inside the message.
#[must_use]
pub fn seed(seed: u64) -> Value {
    data(&pictures::picture(seed))
}
