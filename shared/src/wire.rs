//! The task message as it is on the wire (DESIGN section 5). These types only carry what was sent;
//! [`crate::task::Task`] is what may be worked on. The JSON Schema under `docs/` is generated from here.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::params::Params;

/// The version of the contract that this library speaks.
pub const VERSION: u32 = 1;
/// The largest message that is worked on: RabbitMQ 4's own default limit.
pub const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// One task: one edit on one or more pictures. Unknown fields are refused by name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Retouch task, version 1")]
pub struct TaskMessage {
    /// The contract's version: 1.
    #[schemars(range(min = 1, max = 1))]
    pub v: u32,
    /// Chosen by the producer; the idempotency key. 1-64 of `[A-Za-z0-9._:-]`.
    #[schemars(regex(pattern = r"^[A-Za-z0-9._:-]{1,64}$"))]
    pub task_id: String,
    /// The operation, e.g. `remove_watermark`. 1-32 of `[A-Za-z0-9._-]`.
    #[schemars(regex(pattern = r"^[A-Za-z0-9._-]{1,32}$"))]
    pub edit_type: String,
    /// What to do, in words; may be empty where the edit type allows it. At most 32,000 characters.
    #[serde(default)]
    #[schemars(length(max = 32000))]
    pub prompt: String,
    /// The provider's model id; otherwise the edit type's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub model: Option<String>,
    /// Passed on to the provider; every entry is part of the edit key. At most 16 KiB as compact JSON.
    #[serde(default, skip_serializing_if = "Params::is_empty")]
    pub params: Params,
    /// White where to edit, black where to keep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<ImageRef>,
    /// The pictures, in order; repeats allowed.
    #[schemars(length(min = 1, max = 64))]
    pub images: Vec<ImageRef>,
    /// Asks for another take on the same edit. 1-64 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub variant: Option<String>,
    /// Returned untouched in the event. An object of at most 4 KiB as compact JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("type" = "object"))]
    pub metadata: Option<Value>,
}

/// Where a picture is: exactly one of the three.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub struct ImageRef {
    /// An `http` or `https` URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8192))]
    pub url: Option<String>,
    /// A `data:` URI in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// `sha256:<64 hex digits>`: already in the worker's blob store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^sha256:[0-9a-f]{64}$"))]
    pub blob: Option<String>,
}

impl ImageRef {
    /// A picture at an `http` or `https` URL.
    pub fn url(url: impl Into<String>) -> Self {
        Self { url: Some(url.into()), ..Self::default() }
    }

    /// A picture inside the message, as a `data:` URI.
    pub fn data(uri: impl Into<String>) -> Self {
        Self { data: Some(uri.into()), ..Self::default() }
    }

    /// A picture already in the blob store, by its digest in hex.
    pub fn blob(sha256_hex: &str) -> Self {
        Self { blob: Some(format!("sha256:{sha256_hex}")), ..Self::default() }
    }
}

/// The edit message: a wake-up for one call. The database has everything else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EditMessage {
    /// The contract's version: 1.
    pub v: u32,
    /// The call's edit key in hex.
    pub edit_key: crate::key::EditKey,
}
