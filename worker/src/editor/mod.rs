//! The editor port: one provider that turns a picture and an edit into another picture.
//!
//! An editor sees neither a delivery nor the store. The port fits both kinds of provider: a synchronous one
//! answers [`Submitted::Done`] from `submit`, an asynchronous one answers [`Submitted::Accepted`] and is then
//! polled, possibly by another process.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use retouch_shared::task::Params;
use thiserror::Error;

use crate::media::Media;
use crate::sources::guard::AllowHosts;

mod answer;
pub mod dashscope;
#[cfg(feature = "double")]
pub mod double;
pub mod http;
pub mod local;
pub mod openai;

/// A request to a provider without the pictures: enough to refuse a bad one before anything is paid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EditSpec {
    /// The operation, e.g. `grayscale`.
    pub edit_type: String,
    /// Normalised prompt (NFC, trimmed); may be empty where the edit type allows it.
    pub prompt: String,
    /// The provider's model id.
    pub model: String,
    /// Canonical parameters, the route's defaults already merged in.
    pub params: Params,
    /// The mask of the edit, if it has one.
    pub mask: Option<Measure>,
}

/// Size and format of a picture, without its pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measure {
    /// From its header.
    pub media: Media,
    /// The size of the encoded file.
    pub bytes: usize,
}

/// A picture for a provider.
#[derive(Debug, Clone)]
pub struct Picture {
    /// The encoded file as received, unless it was turned upright for a provider.
    pub bytes: Bytes,
    /// From its header: format, width, height.
    pub media: Media,
}

impl Picture {
    /// Its measures.
    pub fn measure(&self) -> Measure {
        Measure { media: self.media, bytes: self.bytes.len() }
    }
}

/// Refuses a mask that does not fit its picture. A mask is drawn on the upright picture, for every editor.
///
/// # Errors
/// [`EditError::Rejected`] with the code `invalid_mask`.
pub fn check_mask_size(mask: Media, image: Media) -> Result<(), EditError> {
    let (mask_size, size) = ((mask.width, mask.height), (image.width, image.height));
    if mask_size == size {
        return Ok(());
    }
    let message = if image.on_its_side && mask_size == (size.1, size.0) {
        format!(
            "mask: {} × {} fits the stored picture, not the upright one ({} × {}); turn the mask upright",
            mask_size.0, mask_size.1, size.0, size.1
        )
    } else {
        format!(
            "mask: has {} by {} pixels and the picture {} by {}; they must be the same",
            mask_size.0, mask_size.1, size.0, size.1
        )
    };
    Err(EditError::rejected("invalid_mask", message))
}

/// One edit, ready to be performed.
#[derive(Debug, Clone)]
pub struct EditRequest {
    /// The edit.
    pub spec: EditSpec,
    /// The input picture.
    pub image: Picture,
    /// White where to edit, black where to keep.
    pub mask: Option<Picture>,
}

/// A provider's result.
#[derive(Debug, Clone)]
pub enum Output {
    /// The encoded picture itself.
    Bytes(Bytes),
    /// A temporary URL at the provider, to be fetched through the guard at once; never in a cache row.
    Url(ResultUrl),
}

/// The location of a result at the provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResultUrl {
    /// Its address.
    pub url: String,
    /// Its lifetime, counted from the submit.
    pub lives: Duration,
}

/// The answer to a submit.
#[derive(Debug, Clone)]
pub enum Submitted {
    /// Done within the call: the encoded picture.
    Done(Bytes),
    /// Accepted; poll with this id.
    Accepted {
        /// The provider's id, committed before the first poll. A synchronous provider's result URL becomes
        /// the id, so that a paid answer survives a crash: `poll` then returns it.
        provider_task_id: String,
        /// That URL, as `poll` would return it: it can be fetched while the id is being committed.
        at_hand: Option<ResultUrl>,
    },
}

/// The answer to a poll.
#[derive(Debug, Clone)]
pub enum Polled {
    /// Not yet; poll again after `after`.
    Pending {
        /// Delay before the next poll.
        after: Duration,
    },
    /// Finished.
    Done(Output),
}

/// The provider's list of recently accepted tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Each task of the model that may have been created since the requested time, and some before it.
    pub tasks: Vec<ListedTask>,
    /// How long a new task may be missing from the list.
    pub settles: Duration,
}

/// One task of a provider's list, which does not show the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedTask {
    /// The provider's id.
    pub provider_task_id: String,
    /// Its age at the time of the query by the provider's clock, to within [`AGE_ERROR`]; `None` if the
    /// provider does not state it.
    pub age: Option<Duration>,
}

/// Tolerance of [`ListedTask::age`], either way.
pub const AGE_ERROR: Duration = Duration::from_secs(3);

/// The code of a provider's error without a code.
pub(crate) const PROVIDER_ERROR: &str = "provider_error";

/// Why an editor failed, named by what the caller does next.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
pub enum EditError {
    /// Nothing reached the provider: try again, nothing was paid.
    #[error("not sent: {0}")]
    NotSent(String),
    /// The provider refused because of its rate limit and took nothing: wait; costs no attempt.
    #[error("rate limited: {message}")]
    RateLimited {
        /// The provider's Retry-After, if any.
        retry_after: Option<Duration>,
        /// For people.
        message: String,
    },
    /// The provider failed this time and charges nothing: a new submit may work.
    #[error("{code}: {message}")]
    Unbilled {
        /// The provider's code.
        code: String,
        /// For people.
        message: String,
        /// Submits in all before the edit is refused with this code.
        tries: u32,
    },
    /// A poll or a result is unavailable now: ask again, never submit again.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// Sent without an answer: it may have been paid.
    #[error("ambiguous: {0}")]
    Ambiguous(String),
    /// A whole answer that cannot be read: most likely paid for. The same request would be answered the same,
    /// so the answer is kept unchanged and the call is never sent again automatically.
    #[error("unreadable: {0}")]
    Unreadable(Box<UnreadableAnswer>),
    /// The provider's final refusal of this edit, not charged: fail it with this code.
    #[error("{code}: {message}")]
    Rejected {
        /// Ours or the provider's code.
        code: String,
        /// For people.
        message: String,
    },
    /// No call on this lane can work until a person acts: key, arrears, retired model.
    #[error("blocked: {code}: {message}")]
    Blocked {
        /// The provider's code.
        code: String,
        /// For people.
        message: String,
    },
}

/// A whole answer that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadableAnswer {
    /// The HTTP status, a 2xx.
    pub status: u16,
    /// The declared content type; may be empty.
    pub content_type: String,
    /// The provider's request id.
    pub request_id: Option<String>,
    /// The body, as far as it was read.
    pub body: Bytes,
    /// Why it cannot be read.
    pub what: String,
}

impl fmt::Display for UnreadableAnswer {
    /// One sentence for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { status, content_type, request_id, body, what } = self;
        let content_type = answer::beginning(content_type.as_bytes());
        let said = if content_type.is_empty() { "no content type" } else { content_type.as_str() };
        write!(f, "the provider answered {status} ({said}, {} bytes), but {what}", body.len())?;
        let beginning = answer::beginning(body);
        if !beginning.is_empty() {
            write!(f, "; it begins with \u{201c}{beginning}\u{201d}")?;
        }
        // Only an id may enter a message for people.
        let is_id = |id: &&String| {
            (1..=64).contains(&id.len())
                && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':'))
        };
        match request_id.as_ref().filter(is_id) {
            Some(id) => write!(f, " (request_id {id})"),
            None => Ok(()),
        }
    }
}

impl EditError {
    /// A final refusal.
    pub fn rejected(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Rejected { code: code.into(), message: message.into() }
    }
}

/// A built-in model of an adapter. Configuration can add others, and override these values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownModel {
    /// The provider's id.
    pub id: &'static str,
    /// The API style; each adapter has its own names.
    pub style: &'static str,
    /// Per picture, a decimal number as text.
    pub price: &'static str,
    /// ISO 4217.
    pub currency: &'static str,
    /// Submits a minute that its account allows, over all replicas.
    pub submits_per_minute: Option<u32>,
    /// Calls in flight that its account allows, over all replicas.
    pub max_in_flight: Option<u32>,
}

/// One provider.
#[async_trait]
pub trait Editor: Send + Sync {
    /// The provider kind that enters the edit key, e.g. `local`. Never changes for an adapter.
    fn kind(&self) -> &'static str;

    /// Hosts of its result URLs; none for an editor that answers with bytes.
    fn result_hosts(&self) -> AllowHosts {
        AllowHosts::default()
    }

    /// Whether the provider fetches input pictures from our blobs.
    fn fetches_inputs(&self) -> bool {
        false
    }

    /// Refuses, before anything is paid, requests that the provider is known to refuse.
    ///
    /// # Errors
    /// [`EditError::Rejected`], naming the parameter or limit, the value and the fix; no other variant.
    fn check(&self, spec: &EditSpec, image: Measure) -> Result<(), EditError>;

    /// Sends the edit. Called at most once for a call that may have been accepted.
    ///
    /// # Errors
    /// See [`EditError`]; each adapter maps its provider's answers exhaustively.
    async fn submit(&self, request: EditRequest) -> Result<Submitted, EditError>;

    /// Reads a kept answer that was unreadable when it came: by the same reader, which may have learned
    /// since. Sends nothing.
    ///
    /// # Errors
    /// Any error: it is still unreadable.
    fn read_answer(&self, spec: &EditSpec, content_type: &str, body: Bytes) -> Result<Submitted, EditError> {
        let _ = (spec, content_type, body);
        Err(EditError::Unavailable("this editor answers nothing that would be kept".to_owned()))
    }

    /// Polls an edit that was accepted `age` ago. Free, and may be repeated by any process.
    ///
    /// # Errors
    /// See [`EditError`]; never `NotSent`, since nothing is paid here. `Ambiguous` means that the provider no
    /// longer knows the id, and payment cannot be determined.
    async fn poll(&self, provider_task_id: &str, age: Duration) -> Result<Polled, EditError>;

    /// Lists the accepted tasks of a model since a submit that began `since` ago and was not answered. Free.
    /// `None`: this provider has no list, or none for this model or that time.
    ///
    /// # Errors
    /// See [`EditError`]; nothing is paid here, so repeating it after any error is safe.
    async fn list_submitted(&self, model: &str, since: Duration) -> Result<Option<Listed>, EditError> {
        let _ = (model, since);
        Ok(None)
    }

    /// Checks that the provider answers and accepts the key, by a free request: for people who set it up.
    /// `false`: there is no such request.
    ///
    /// # Errors
    /// See [`EditError`]; nothing is paid here.
    async fn ask(&self) -> Result<bool, EditError> {
        Ok(false)
    }
}
