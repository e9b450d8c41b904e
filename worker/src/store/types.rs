//! What goes into the store and comes out of it.

use chrono::{DateTime, NaiveDateTime, Utc};
use retouch_shared::event::{AnswerSource, Cost, Event, ImageError, ImageResult, TaskStatus};
use retouch_shared::key::{Digest32, EditKey, ImageHash};
use retouch_shared::task::Params;
use retouch_shared::wire::VERSION;
use serde::Serialize;
use serde_json::Value;

use super::db::Row;
use super::{LetterRef, Properties, Spent, StoreError};
use crate::trace::TraceContext;

/// An amount of money.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Money {
    /// Millionths of the currency.
    pub micros: i64,
    /// ISO 4217.
    pub currency: String,
}

/// A result as a cache row names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedResult {
    /// The edit it answers.
    pub edit_key: EditKey,
    /// A URL reference: relative for our own blobs.
    pub result_url: String,
    /// The digest of our blob; none where an imported URL is all there is.
    pub result_hash: Option<Digest32>,
    /// E.g. `image/png`; empty where a link is all there is.
    pub content_type: String,
    /// In pixels; 0 where a link is all there is.
    pub width: u32,
    /// In pixels; 0 where a link is all there is.
    pub height: u32,
    /// Size of the blob; 0 where a link is all there is.
    pub bytes: u64,
    /// What the call cost.
    pub price: Money,
}

/// A result that is safe in our own blobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredResult {
    /// Its digest.
    pub hash: Digest32,
    /// E.g. `image/png`.
    pub content_type: String,
    /// In pixels; 0 where it is not known.
    pub width: u32,
    /// In pixels; 0 where it is not known.
    pub height: u32,
    /// Its size.
    pub bytes: u64,
    /// Why it could not be decoded; none: it was, or was not looked at.
    pub check: Option<String>,
}

/// What is needed to perform an edit: enough for any replica, at any time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallSpec {
    /// The edit's name.
    pub edit_key: EditKey,
    /// The input blob.
    pub image_hash: ImageHash,
    /// The operation.
    pub edit_type: String,
    /// Normalised.
    pub prompt: String,
    /// The provider kind.
    pub provider: String,
    /// The provider's model id.
    pub model: String,
    /// With the route's defaults.
    pub params: Params,
    /// The mask blob.
    pub mask_hash: Option<ImageHash>,
    /// Another take.
    pub variant: Option<String>,
    /// Where it queues.
    pub lane: String,
    /// At the time the call was made.
    pub price: Money,
}

/// What intake decided about one image.
#[derive(Debug, Clone)]
pub enum Planned {
    /// Answered from the cache.
    Hit {
        /// The input.
        image_hash: ImageHash,
        /// The answer.
        result: CachedResult,
    },
    /// Not in the cache.
    Miss {
        /// What would have to be done.
        call: Box<CallSpec>,
        /// The cached result that was refused because its blob is gone, if that is why.
        refused: Option<Digest32>,
    },
    /// No answer possible.
    Failed {
        /// The input, if it could be read.
        image_hash: Option<ImageHash>,
        /// Why.
        error: ImageError,
    },
}

/// A task as intake hands it over.
#[derive(Debug, Clone)]
pub struct NewTask {
    /// The producer's id.
    pub task_id: String,
    /// What makes a repeat the same.
    pub request_hash: Digest32,
    /// The operation.
    pub edit_type: String,
    /// Normalised.
    pub prompt: String,
    /// As resolved by the route.
    pub model: String,
    /// With the route's defaults.
    pub params: Params,
    /// Where each image came from, by position; never their bytes.
    pub inputs: Vec<String>,
    /// By position.
    pub images: Vec<Planned>,
    /// As given.
    pub metadata: Option<Value>,
    /// Whom to tell.
    pub reply_to: Option<String>,
    /// Returned with the reply.
    pub correlation_id: Option<String>,
    /// The currency of its costs.
    pub currency: String,
    /// The message as it came, for the dead letter if images fail.
    pub payload: DeadPayload,
    /// Where it belongs among the traces.
    pub trace: Option<TraceContext>,
    /// The retry that its message is, if it is one.
    pub again: Option<LetterRef>,
    /// It is a command's, which tells the person itself what failed at intake: no letter is kept of that.
    pub told: bool,
    /// When it was begun to look at it, its pictures being kept after that.
    pub began: std::time::Instant,
}

/// What `register` did.
#[derive(Debug)]
pub enum Registered {
    /// The task is in the store, with these calls to wake.
    New {
        /// The task as it stands.
        task: Box<TaskRecord>,
        /// Edit key and lane of every call that this task started.
        wake: Vec<(EditKey, String)>,
    },
    /// The same task was there already.
    Same(Box<TaskRecord>),
    /// Another task has this id.
    Conflict,
    /// A result that was to be answered from has left the cache since it was looked at, or another one has taken its place.
    /// Nothing was recorded: look again.
    Gone,
}

/// A task row.
#[derive(Debug, Clone)]
pub struct TaskRecord {
    pub(super) id: i64,
    /// The producer's id.
    pub task_id: String,
    /// What makes a repeat the same.
    pub request_hash: Digest32,
    /// The operation.
    pub edit_type: String,
    /// How it stands.
    pub status: TaskStatus,
    /// Number of images.
    pub total: u32,
    /// Images answered so far, by source.
    pub hit: u32,
    /// See `hit`.
    pub joined: u32,
    /// See `hit`.
    pub paid: u32,
    /// Images without an answer.
    pub failed: u32,
    /// What was paid for its images.
    pub paid_micros: i64,
    /// What its hit and joined images would have cost.
    pub saved_micros: i64,
    /// What was spent, or perhaps spent, for its images and bought nothing.
    pub lost_micros: i64,
    /// Of all three.
    pub currency: String,
    /// By position; `result_url` is a reference.
    pub images: Vec<ImageResult>,
    /// As given.
    pub metadata: Option<Value>,
    /// Whom to tell.
    pub reply_to: Option<String>,
    /// Returned with the reply.
    pub correlation_id: Option<String>,
    /// When intake accepted it.
    pub received_at: DateTime<Utc>,
    /// When it ended.
    pub completed_at: Option<DateTime<Utc>>,
    /// Where each image came from.
    pub inputs: Vec<String>,
    /// The first error, for people.
    pub error: Option<String>,
    /// Where it belongs among the traces.
    pub trace: Option<TraceContext>,
}

impl TaskRecord {
    pub(super) fn from_row(row: &Row) -> Result<Self, StoreError> {
        let count = |column| Ok::<_, StoreError>(u32::try_from(row.int(column)?).unwrap_or_default());
        Ok(Self {
            id: row.int(0)?,
            task_id: row.text(1)?,
            request_hash: digest(row.bytes(2)?)?,
            edit_type: row.text(3)?,
            status: row.text(4)?.parse().map_err(StoreError::corrupt)?,
            total: count(5)?,
            hit: count(6)?,
            joined: count(7)?,
            paid: count(8)?,
            failed: count(9)?,
            paid_micros: row.int(10)?,
            saved_micros: row.int(11)?,
            currency: row.text(12)?,
            images: serde_json::from_str(&row.text(13)?).map_err(StoreError::corrupt)?,
            metadata: optional_json(row.opt_text(14)?)?,
            reply_to: row.opt_text(15)?,
            correlation_id: row.opt_text(16)?,
            received_at: time(&row.text(17)?)?,
            completed_at: row.opt_text(18)?.as_deref().map(time).transpose()?,
            inputs: serde_json::from_str(&row.text(19)?).map_err(StoreError::corrupt)?,
            error: row.opt_text(20)?,
            trace: TraceContext::read(row.opt_text(21)?.as_deref(), row.opt_text(22)?.as_deref()),
            lost_micros: row.int(23)?,
        })
    }

    /// A task that ended as it came, all of it from the cache; times are the database's to say.
    pub(super) fn all_hits(id: i64, task: &NewTask, images: Vec<ImageResult>, saved_micros: i64) -> Self {
        let total = u32::try_from(images.len()).unwrap_or(u32::MAX);
        Self {
            id,
            task_id: task.task_id.clone(),
            request_hash: task.request_hash,
            edit_type: task.edit_type.clone(),
            status: TaskStatus::Completed,
            total,
            hit: total,
            joined: 0,
            paid: 0,
            failed: 0,
            paid_micros: 0,
            saved_micros,
            lost_micros: 0,
            currency: task.currency.clone(),
            images,
            metadata: task.metadata.clone(),
            reply_to: task.reply_to.clone(),
            correlation_id: task.correlation_id.clone(),
            received_at: DateTime::UNIX_EPOCH,
            completed_at: None,
            inputs: task.inputs.clone(),
            error: None,
            trace: task.trace.clone(),
        }
    }

    /// How it stands once all its images are answered.
    pub(super) fn ended_status(total: u32, failed: u32) -> TaskStatus {
        match failed {
            0 => TaskStatus::Completed,
            _ if failed == total => TaskStatus::Failed,
            _ => TaskStatus::Partial,
        }
    }

    /// The event of an ended task, with references resolved by `resolve`; `None` while it has not ended.
    pub fn event(&self, resolve: impl Fn(&str) -> String) -> Option<Event> {
        let completed_at = self.completed_at.filter(|_| self.status.has_ended())?;
        Some(Event {
            v: VERSION,
            event_id: Event::id_for(
                &self.task_id,
                self.status,
                [self.hit, self.joined, self.paid, self.failed],
            ),
            task_id: self.task_id.clone(),
            status: self.status,
            hit: self.hit,
            joined: self.joined,
            paid: self.paid,
            failed: self.failed,
            images: self.resolved_images(resolve),
            cost: self.cost(),
            received_at: self.received_at,
            completed_at,
            metadata: self.metadata.clone(),
        })
    }

    /// Its images with absolute result URLs.
    pub fn resolved_images(&self, resolve: impl Fn(&str) -> String) -> Vec<ImageResult> {
        let resolved = |image: &ImageResult| ImageResult {
            result_url: image.result_url.as_deref().map(&resolve),
            ..image.clone()
        };
        self.images.iter().map(resolved).collect()
    }

    /// What it cost; none where nothing has a price.
    pub fn cost(&self) -> Option<Cost> {
        self.cost_and(Spent::default())
    }

    /// As [`TaskRecord::cost`], with what its unfinished calls have lost.
    pub fn cost_and(&self, spent: Spent) -> Option<Cost> {
        let lost_micros = self.lost_micros + spent.lost_micros;
        Cost::of(self.paid_micros, self.saved_micros, lost_micros, &self.currency)
    }
}

/// Where a call is in its life (ARCHITECTURE.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CallState {
    /// Wanted; nobody works on it.
    Queued,
    /// Somebody works on it; nothing was sent.
    Claimed,
    /// The request is being sent.
    Submitting,
    /// The provider accepted it.
    Submitted,
    /// Sent, and nobody knows whether it was accepted.
    Ambiguous,
    /// The result is in our blobs.
    Stored,
    /// Finished; or nothing was wanted yet.
    Done,
    /// The provider refused it.
    Failed,
}

impl CallState {
    /// Those of a call that is not over.
    pub const ALIVE: [Self; 6] =
        [Self::Queued, Self::Claimed, Self::Submitting, Self::Submitted, Self::Ambiguous, Self::Stored];

    /// The word in the table.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Claimed => "claimed",
            Self::Submitting => "submitting",
            Self::Submitted => "submitted",
            Self::Ambiguous => "ambiguous",
            Self::Stored => "stored",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }

    /// The request left, and is not known to be refused: a charge for it is known or possible.
    #[must_use]
    pub fn is_sent(self) -> bool {
        match self {
            Self::Submitting | Self::Submitted | Self::Ambiguous | Self::Stored => true,
            Self::Queued | Self::Claimed | Self::Done | Self::Failed => false,
        }
    }

    pub(super) fn parse(text: &str) -> Result<Self, StoreError> {
        let all = [
            Self::Queued,
            Self::Claimed,
            Self::Submitting,
            Self::Submitted,
            Self::Ambiguous,
            Self::Stored,
            Self::Done,
            Self::Failed,
        ];
        let found = all.into_iter().find(|state| state.as_str() == text);
        found.ok_or_else(|| StoreError::Corrupt(format!("unknown call state {text:?}")))
    }
}

/// The right to move one call on, until the lease expires or somebody else has claimed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// The call.
    pub edit_key: EditKey,
    /// Guards every step: a step with an old fence changes nothing.
    pub fence: i64,
}

/// A claimed call.
#[derive(Debug, Clone)]
pub struct ClaimedCall {
    /// The right to work on it.
    pub lease: Lease,
    /// What to do.
    pub spec: CallSpec,
    /// Where its last owner left it: `Claimed` starts over, `Submitted` polls on, `Stored` finishes, `Ambiguous` is resolved.
    pub state: CallState,
    /// Its last owner let the lease run out: most likely it died.
    pub deserted: bool,
    /// How many starts of it never ended, where it is a suspect (see [`Store::suspect_starts`](super::Store::suspect_starts)).
    pub starts: Option<u32>,
    /// Failed tries so far.
    pub attempts: u32,
    /// The provider's id, once submitted.
    pub provider_task_id: Option<String>,
    /// How long ago it was submitted, by the database's clock, a millisecond at least; zero where it has no
    /// time of a submit.
    pub since_submit: std::time::Duration,
    /// The result, once stored.
    pub result: Option<StoredResult>,
    /// The dead letter whose retry asked for it.
    pub letter: Option<i64>,
    /// Submits without an answer: counted before each is sent, taken back by its answer.
    pub unanswered: u32,
    /// Why it is not sent again without a decision of a person: a reason code.
    pub held: Option<String>,
    /// A whole answer that could not be read.
    pub answer: Option<KeptAnswer>,
    /// The provider has said that its work has ended: the call takes no place on its lane any more.
    pub ended: bool,
    /// Perhaps spent on submits without an answer since a task queued it, in millionths.
    pub lost_micros: i64,
    /// Under which reason code its payment was counted as money for nothing, while what it bought may still
    /// come: by the provider's id, or from the answer that was kept. Not charged again then, whatever comes.
    pub lost_as: Option<String>,
}

/// What a provider sent and could not be used, kept as a blob: a whole answer that could not be read, a
/// result that is no picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptAnswer {
    /// The blob.
    pub hash: Digest32,
    /// As the provider said it; may be empty.
    pub content_type: String,
}

/// The reason code of an edit whose whole answer could not be read.
pub const UNREADABLE_ANSWER: &str = "unreadable_answer";

/// The answer to a claim.
#[derive(Debug)]
pub enum Claim {
    /// It is ours.
    Won(Box<ClaimedCall>),
    /// Somebody works on it; ask again after this.
    Held {
        /// What is left of the lease.
        remaining: std::time::Duration,
    },
    /// Nothing is left to do for this edit.
    Done,
}

/// What a finish did.
#[derive(Debug)]
pub enum Finished {
    /// Done; these tasks ended by it.
    Ended(Vec<TaskRecord>),
    /// The lease was lost: somebody else finishes it. Nothing was changed.
    LostLease,
}

/// A dead letter to be kept.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// Writing the same letter twice keeps one.
    pub letter_key: Digest32,
    /// The queue it comes from.
    pub queue: String,
    /// A reason code.
    pub reason: String,
    /// For people.
    pub message: String,
    /// The message as it was.
    pub payload: DeadPayload,
    /// What was paid for and could not be used.
    pub kept: Option<KeptAnswer>,
    /// Our headers.
    pub headers: std::collections::BTreeMap<String, String>,
    /// Tries before it died.
    pub attempts: u32,
    /// Where known.
    pub task_id: Option<String>,
    /// Where known.
    pub edit_key: Option<EditKey>,
    /// Where known.
    pub edit_type: Option<String>,
    /// Whom to answer.
    pub properties: Properties,
    /// The retry that it failed by: that letter is opened again, and no other is written.
    pub again: Option<LetterRef>,
    /// Kept for the record: nothing is left to do about it.
    pub settled: bool,
}

/// The body of a dead letter.
#[derive(Debug, Clone)]
pub enum DeadPayload {
    /// In the row.
    Inline(bytes::Bytes),
    /// Too large for a row: in the blob store, by digest.
    Blob(Digest32),
}

/// A call that the sweep woke.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueCall {
    /// The call.
    pub edit_key: EditKey,
    /// Where it queues.
    pub lane: String,
    /// Whether it waits for its first or next try (otherwise a lease ran out).
    pub queued: bool,
    /// Whether it was sent, and may be under way at the provider.
    pub sent: bool,
    /// How often the sweep has looked after it since it was last moved.
    pub wakes: u32,
}

/// What is for people is cut to what every database keeps: a long error must not stop the step that it explains.
pub(super) fn clip(text: &str) -> &str {
    &text[..text.floor_char_boundary(16 * 1024)]
}

/// As much of a foreign word as fits a column of `most` ASCII characters.
pub(super) fn ascii(text: &str, most: usize) -> String {
    text.chars().filter(char::is_ascii_graphic).take(most).collect()
}

pub(super) fn digest(bytes: Vec<u8>) -> Result<Digest32, StoreError> {
    let bytes = <[u8; 32]>::try_from(bytes)
        .map_err(|_| StoreError::Corrupt("a digest is not 32 bytes".to_owned()))?;
    Ok(Digest32::from_bytes(bytes))
}

pub(super) fn hex_digest(text: &str) -> Result<Digest32, StoreError> {
    text.parse().map_err(StoreError::corrupt)
}

pub(super) fn image_result(
    position: u32,
    source: AnswerSource,
    image_hash: ImageHash,
    result: &CachedResult,
) -> ImageResult {
    ImageResult {
        position,
        status: retouch_shared::event::ImageStatus::Done,
        source: Some(source),
        image_hash: Some(image_hash),
        result_url: Some(result.result_url.clone()),
        // Of a link nobody has looked behind, nothing is known: the row has 0 and an empty text.
        content_type: Some(result.content_type.clone()).filter(|known| !known.is_empty()),
        width: Some(result.width).filter(|known| *known > 0),
        height: Some(result.height).filter(|known| *known > 0),
        error: None,
    }
}

fn optional_json(text: Option<String>) -> Result<Option<Value>, StoreError> {
    text.map(|text| serde_json::from_str(&text).map_err(StoreError::corrupt)).transpose()
}

pub(super) fn time(text: &str) -> Result<DateTime<Utc>, StoreError> {
    let time = NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f").map_err(StoreError::corrupt)?;
    Ok(time.and_utc())
}
