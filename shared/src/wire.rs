//! Messages as they are on the wire (docs/contract.md), not yet validated; [`crate::task::Task`] and
//! [`crate::cancel::Cancel`] are their validated forms. The JSON Schema under `docs/` is generated from here.

use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::params::Params;

/// The version of the contract that this library speaks.
pub const VERSION: u32 = 1;
/// The largest message that is accepted: RabbitMQ 4's own default limit.
pub const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// One task: one edit on one or more pictures. A field that is not listed is refused by name; `null` says the same
/// as leaving an optional field out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Retouch task, version 1")]
pub struct TaskMessage {
    /// The contract's version: 1.
    #[schemars(schema_with = "version")]
    pub v: u32,
    /// Chosen by the producer; the idempotency key. 1-64 of `[A-Za-z0-9._:-]`.
    #[schemars(regex(pattern = r"^[A-Za-z0-9._:-]{1,64}$"))]
    pub task_id: String,
    /// The operation, e.g. `remove_watermark`. 1-32 of `[A-Za-z0-9._-]`.
    #[schemars(regex(pattern = r"^[A-Za-z0-9._-]{1,32}$"))]
    pub edit_type: String,
    /// What to do, in words; may be empty where the edit type allows it. At most 32,000 characters once outer white space
    /// is trimmed. No NUL.
    #[serde(default, deserialize_with = "or_default")]
    #[schemars(with = "Option<String>", regex(pattern = NO_NUL), extend("default" = ""))]
    pub prompt: String,
    /// The provider's model id; otherwise the edit type's. 1-128 characters, no NUL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = NO_NUL))]
    pub model: Option<String>,
    /// Passed on to the provider; every entry is part of the edit key. At most 16 KiB as compact JSON; no key twice.
    #[serde(default, skip_serializing_if = "Params::is_empty", deserialize_with = "or_default")]
    #[schemars(schema_with = "optional_object", extend("default" = {}))]
    pub params: Params,
    /// White where to edit, black where to keep.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "optional_image")]
    pub mask: Option<ImageRef>,
    /// The pictures, in order; repeats allowed.
    #[serde(deserialize_with = "images")]
    #[schemars(length(min = 1, max = 64))]
    pub images: Vec<ImageRef>,
    /// Asks for another take on the same edit. 1-64 characters, no NUL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), regex(pattern = NO_NUL))]
    pub variant: Option<String>,
    /// Returned untouched in the event. An object of at most 4 KiB as compact JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "optional_object")]
    pub metadata: Option<Value>,
}

/// Where a picture is: exactly one of `url`, `data`, `blob`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [
    {"required": ["url"], "properties": {"url": {"type": "string"}, "data": {"type": "null"}, "blob": {"type": "null"}}},
    {"required": ["data"], "properties": {"url": {"type": "null"}, "data": {"type": "string"}, "blob": {"type": "null"}, "image_hash": {"type": "null"}}},
    {"required": ["blob"], "properties": {"url": {"type": "null"}, "data": {"type": "null"}, "blob": {"type": "string"}, "image_hash": {"type": "null"}}},
]))]
pub struct ImageRef {
    /// An `http` or `https` URL of at most 8,192 bytes.
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
    /// With `url`: the SHA-256 of the picture there, 64 lower-case hex digits. Where the answer is known already nothing is
    /// fetched; where the picture is fetched and is another one, its image fails as `image_hash_mismatch`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9a-f]{64}$"))]
    pub image_hash: Option<String>,
}

impl ImageRef {
    /// A picture at an `http` or `https` URL.
    pub fn url(url: impl Into<String>) -> Self {
        Self { url: Some(url.into()), ..Self::default() }
    }

    /// A picture at a URL whose bytes the producer knows, by their SHA-256 in hex: a hit is answered without fetching it.
    pub fn known_url(url: impl Into<String>, sha256_hex: &str) -> Self {
        Self { image_hash: Some(sha256_hex.to_owned()), ..Self::url(url) }
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

/// Cancels a task: images without an answer fail. Published where tasks are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Retouch cancel, version 1")]
pub struct CancelMessage {
    /// The contract's version: 1.
    #[schemars(schema_with = "version")]
    pub v: u32,
    /// The `task_id` of the task. 1-64 of `[A-Za-z0-9._:-]`.
    #[schemars(regex(pattern = r"^[A-Za-z0-9._:-]{1,64}$"))]
    pub cancel: String,
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

/// No U+0000 in it: some databases and providers cut a text there.
const NO_NUL: &str = r"^[^\x00]*$";

/// The schema of `v`.
pub(crate) fn version(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    json_schema!({"type": "integer", "const": VERSION})
}

fn optional_object(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    json_schema!({"type": ["object", "null"]})
}

/// A JSON object, and nothing else: serde's derive would also take an array of the fields in their order.
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Only<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Only<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(entries)).map(Object)
            }
        }

        deserializer.deserialize_map(Only(PhantomData))
    }
}

fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn optional_image<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ImageRef>, D::Error> {
    let image: Option<Object<ImageRef>> = Deserialize::deserialize(deserializer)?;
    Ok(image.map(|Object(image)| image))
}

fn images<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<ImageRef>, D::Error> {
    let images: Vec<Object<ImageRef>> = Deserialize::deserialize(deserializer)?;
    Ok(images.into_iter().map(|Object(image)| image).collect())
}
