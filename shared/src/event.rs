//! Events: what the worker publishes when a task has ended (docs/contract.md).

use chrono::{DateTime, Utc};
use schemars::{JsonSchema, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::key::ImageHash;
use crate::wire::{VERSION, version};

/// State of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskStatus {
    /// Known, not yet examined.
    Pending,
    /// Some of its images wait on edits.
    Processing,
    /// Ended: every image has a result.
    Completed,
    /// Ended: some images have a result.
    Partial,
    /// Ended: no image has a result.
    Failed,
}

impl TaskStatus {
    /// The word in tables, events and routing keys.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Processing => "processing",
            Self::Completed => "completed",
            Self::Partial => "partial",
            Self::Failed => "failed",
        }
    }

    /// Whether the task has ended.
    pub const fn has_ended(self) -> bool {
        matches!(self, Self::Completed | Self::Partial | Self::Failed)
    }
}

impl std::str::FromStr for TaskStatus {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let all = [Self::Pending, Self::Processing, Self::Completed, Self::Partial, Self::Failed];
        all.into_iter().find(|status| status.as_str() == text).ok_or_else(|| UnknownWord(text.to_owned()))
    }
}

/// A word outside the expected list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown word {0:?}")]
pub struct UnknownWord(pub String);

/// How an image was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AnswerSource {
    /// From the cache.
    Hit,
    /// By a call that another image had started.
    Joined,
    /// By its own call.
    Paid,
}

impl AnswerSource {
    /// The word in tables and events.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Joined => "joined",
            Self::Paid => "paid",
        }
    }
}

/// State of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageStatus {
    /// Waits on an edit. Never in an event.
    Waiting,
    /// Has a result.
    Done,
    /// Has an error.
    Failed,
}

/// Why an image has no result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ImageError {
    /// For programs, e.g. `source_not_found`; the provider's own code where it refused.
    pub code: String,
    /// For people.
    pub message: String,
}

/// One image of a task. In the tables `result_url` is a reference; in an event it is absolute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "One image of a task.")]
#[schemars(extend(
    "if" = {"properties": {"status": {"const": "done"}}},
    "then" = {"required": ["source", "image_hash", "result_url"], "properties": {"error": false}},
    "else" = {"required": ["error"], "properties": {"source": false, "result_url": false}},
))]
pub struct ImageResult {
    /// Its place in the task, from 0.
    #[schemars(range(max = 63))]
    pub position: u32,
    /// `done` or `failed`.
    #[schemars(schema_with = "ended_image")]
    pub status: ImageStatus,
    /// When done: how it was answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "AnswerSource")]
    pub source: Option<AnswerSource>,
    /// SHA-256 of the input's bytes, once they were read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", regex(pattern = r"^[0-9a-f]{64}$"))]
    pub image_hash: Option<ImageHash>,
    /// When done: where the result is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", extend("format" = "uri"))]
    pub result_url: Option<String>,
    /// Of the result, e.g. `image/png`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub content_type: Option<String>,
    /// Of the result, in pixels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32")]
    pub width: Option<u32>,
    /// Of the result, in pixels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32")]
    pub height: Option<u32>,
    /// When failed: why there is no result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ImageError")]
    pub error: Option<ImageError>,
}

/// Cost of the task's images, savings by the cache, and money lost. Decimal numbers as text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Cost {
    /// The price of the images that were paid for.
    #[schemars(regex(pattern = r"^[0-9]+(\.[0-9]{1,6})?$"))]
    pub paid: String,
    /// What the hit and joined images would have cost: the price of the entries that answered them.
    #[schemars(regex(pattern = r"^[0-9]+(\.[0-9]{1,6})?$"))]
    pub saved: String,
    /// Money without a result: failed calls that were charged, and submits without an answer, which the
    /// provider may have charged.
    #[schemars(regex(pattern = r"^[0-9]+(\.[0-9]{1,6})?$"))]
    pub lost: String,
    /// ISO 4217.
    #[schemars(regex(pattern = r"^[A-Z]{3}$"))]
    pub currency: String,
}

impl Cost {
    /// From millionths; none where every amount is 0.
    pub fn of(paid_micros: i64, saved_micros: i64, lost_micros: i64, currency: &str) -> Option<Self> {
        let some = [paid_micros, saved_micros, lost_micros].iter().any(|micros| *micros != 0);
        some.then(|| Self {
            paid: decimal(paid_micros),
            saved: decimal(saved_micros),
            lost: decimal(lost_micros),
            currency: currency.to_owned(),
        })
    }
}

/// The end of a task. Delivered at least once; drop what has an `event_id` seen before, and ignore fields that you
/// don't know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "Retouch event, version 1")]
pub struct Event {
    /// The contract's version: 1.
    #[schemars(schema_with = "version")]
    pub v: u32,
    /// Derived from the task and its outcome, so that consumers can recognise a repeat.
    pub event_id: Uuid,
    /// The producer's id.
    #[schemars(regex(pattern = r"^[A-Za-z0-9._:-]{1,64}$"))]
    pub task_id: String,
    /// `completed`: every image has a result; `partial`: some have; `failed`: none has.
    #[schemars(schema_with = "ended_task")]
    pub status: TaskStatus,
    /// Images answered from the cache.
    pub hit: u32,
    /// Images answered by a call that another image had started.
    pub joined: u32,
    /// Images answered by their own call.
    pub paid: u32,
    /// Images without a result.
    pub failed: u32,
    /// One entry an image, by position.
    #[schemars(length(min = 1, max = 64))]
    pub images: Vec<ImageResult>,
    /// Absent where nothing has a price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Cost")]
    pub cost: Option<Cost>,
    /// When the worker accepted the task.
    pub received_at: DateTime<Utc>,
    /// When its last image was answered.
    pub completed_at: DateTime<Utc>,
    /// As given with the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "serde_json::Map<String, Value>")]
    pub metadata: Option<Value>,
}

impl Event {
    /// The routing key on the events exchange.
    pub fn routing_key(&self) -> String {
        format!("task.{}", self.status.as_str())
    }

    /// The id of the event for `task_id` ending as `status` with these counts. The counts are part of it
    /// because a retry of failed images can end in the same status with another outcome.
    pub fn id_for(task_id: &str, status: TaskStatus, [hit, joined, paid, failed]: [u32; 4]) -> Uuid {
        let outcome = format!("v{VERSION}\n{task_id}\n{}\n{hit},{joined},{paid},{failed}", status.as_str());
        Uuid::new_v5(&EVENT_NAMESPACE, outcome.as_bytes())
    }
}

/// The UUID namespace of event ids; a random constant.
const EVENT_NAMESPACE: Uuid = Uuid::from_u128(0x6f1d_5a57_3c0e_4f0e_9b43_0f5d_2f1c_7a91);

fn ended_task(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    json_schema!({"type": "string", "enum": [TaskStatus::Completed, TaskStatus::Partial, TaskStatus::Failed]})
}

fn ended_image(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    json_schema!({"type": "string", "enum": [ImageStatus::Done, ImageStatus::Failed]})
}

/// Millionths as a plain decimal number without trailing zeros: `140000` is `0.14`.
pub fn decimal(micros: i64) -> String {
    let sign = if micros < 0 { "-" } else { "" };
    let (whole, part) = (micros.unsigned_abs() / 1_000_000, micros.unsigned_abs() % 1_000_000);
    let text = format!("{sign}{whole}.{part:06}");
    let text = text.trim_end_matches('0');
    text.strip_suffix('.').unwrap_or(text).to_owned()
}

/// Millionths from a plain decimal number with at most six decimals; nothing is rounded.
pub fn micros(decimal: &str) -> Option<i64> {
    let (sign, digits) = decimal.strip_prefix('-').map_or((1, decimal), |rest| (-1, rest));
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let are_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let fits = !whole.is_empty() && part.len() <= 6 && are_digits(whole) && are_digits(part);
    let micros: i64 = fits.then(|| format!("{whole}{part:0<6}"))?.parse().ok()?;
    Some(sign * micros)
}

#[cfg(test)]
mod tests;
