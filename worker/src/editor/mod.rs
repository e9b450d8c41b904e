//! The editor port: one provider that turns a picture and an edit into another picture.
//!
//! An editor sees neither a delivery nor the store. It fits both kinds of provider: a synchronous one
//! answers [`Submitted::Done`] from `submit`, a submit-then-poll one answers [`Submitted::Accepted`] and
//! is then asked through `poll`, possibly by another process than the one that submitted.

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

/// What is asked of a provider, without the pictures: enough to refuse a bad request before anything is paid.
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
    /// The mask that comes with it, if one does.
    pub mask: Option<Measure>,
}

/// What is known of a picture without its pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measure {
    /// What its header says.
    pub media: Media,
    /// The size of the encoded file.
    pub bytes: usize,
}

/// A picture as it goes to a provider.
#[derive(Debug, Clone)]
pub struct Picture {
    /// The encoded file: exactly as it was received, unless it had to be turned upright for a provider.
    pub bytes: Bytes,
    /// What the header says it is: format, width, height.
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
    /// What to do.
    pub spec: EditSpec,
    /// The picture to do it to.
    pub image: Picture,
    /// White where to edit, black where to keep.
    pub mask: Option<Picture>,
}

/// What a provider hands back.
#[derive(Debug, Clone)]
pub enum Output {
    /// The encoded picture itself.
    Bytes(Bytes),
    /// A temporary URL of the provider's, to be fetched through the guard at once; never in a cache row.
    Url(ResultUrl),
}

/// Where a provider keeps a picture that it made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResultUrl {
    /// Where the picture is.
    pub url: String,
    /// How long after the submit it stays there.
    pub lives: Duration,
}

/// The answer to a submit.
#[derive(Debug, Clone)]
pub enum Submitted {
    /// Done within the call: the encoded picture.
    Done(Bytes),
    /// The provider took it; ask for it by this id.
    Accepted {
        /// The provider's id, committed before the first poll. A synchronous provider that answers with a URL has the URL
        /// here, so that a paid answer is safe whatever becomes of us: `poll` then gives it back.
        provider_task_id: String,
        /// That URL, which is what `poll` would say: it can be fetched while the id is being committed.
        at_hand: Option<ResultUrl>,
    },
}

/// The answer to a poll.
#[derive(Debug, Clone)]
pub enum Polled {
    /// Not yet; ask again after `after`.
    Pending {
        /// How long to wait before the next poll.
        after: Duration,
    },
    /// Finished.
    Done(Output),
}

/// What a provider says that it has accepted lately.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Each task of the model that may have been created since the time asked for, and some before it.
    pub tasks: Vec<ListedTask>,
    /// So long after it was accepted a task may be missing here.
    pub settles: Duration,
}

/// One task of a provider's list, which says nothing of what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedTask {
    /// The provider's id.
    pub provider_task_id: String,
    /// How long before the question it was created, by the provider's clock, to within [`AGE_ERROR`]; none where the provider
    /// does not say.
    pub age: Option<Duration>,
}

/// By so much a [`ListedTask::age`] may be wrong, either way.
pub const AGE_ERROR: Duration = Duration::from_secs(3);

/// The code of an error that the provider says without one.
pub(crate) const PROVIDER_ERROR: &str = "provider_error";

/// Why an editor could not answer, named by what the caller does next.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
pub enum EditError {
    /// Nothing reached the provider: try again, nothing can have been paid.
    #[error("not sent: {0}")]
    NotSent(String),
    /// The provider asked us to slow down and took nothing: wait; burns no attempt.
    #[error("rate limited: {message}")]
    RateLimited {
        /// The provider's own wish, if it gave one.
        retry_after: Option<Duration>,
        /// For people.
        message: String,
    },
    /// The provider could not do it this time and charges nothing: a new submit may work.
    #[error("{code}: {message}")]
    Unbilled {
        /// The provider's code.
        code: String,
        /// For people.
        message: String,
        /// So many submits in all are worth it; then it is refused with this code.
        tries: u32,
    },
    /// A poll or a result could not be had now: ask again, never submit again.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// Sent and not answered: it may have been paid.
    #[error("ambiguous: {0}")]
    Ambiguous(String),
    /// Answered whole, and in a way that cannot be read: paid for, most likely. The same request would be
    /// answered the same, so it is kept as it came and never sent again by itself.
    #[error("unreadable: {0}")]
    Unreadable(Box<UnreadableAnswer>),
    /// The provider's final word on this edit, not charged: fail it with this code.
    #[error("{code}: {message}")]
    Rejected {
        /// Ours or the provider's code.
        code: String,
        /// For people.
        message: String,
    },
    /// Nothing on this lane can work until a person acts: key, arrears, retired model.
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
    /// What the body is said to be; may be empty.
    pub content_type: String,
    /// The provider's name for the request.
    pub request_id: Option<String>,
    /// The body; as much of it as was read.
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
        // Nothing but an id belongs into a message for people.
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

/// A model that an adapter knows by itself. Configuration can name others, and change what is said here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownModel {
    /// The provider's id.
    pub id: &'static str,
    /// The word for how it is spoken to; each adapter has its own.
    pub style: &'static str,
    /// Per picture, a decimal number as text.
    pub price: &'static str,
    /// ISO 4217.
    pub currency: &'static str,
    /// Submits that its account may make in a minute, over all replicas.
    pub submits_per_minute: Option<u32>,
    /// Calls that its account may have under way at once, over all replicas.
    pub max_in_flight: Option<u32>,
}

/// One provider.
#[async_trait]
pub trait Editor: Send + Sync {
    /// The provider kind that enters the edit key, e.g. `local`. Never changes for an adapter.
    fn kind(&self) -> &'static str;

    /// The hosts that its result URLs may be on; none for an editor that answers with bytes.
    fn result_hosts(&self) -> AllowHosts {
        AllowHosts::default()
    }

    /// Whether the provider gets pictures by fetching them from our blobs.
    fn fetches_inputs(&self) -> bool {
        false
    }

    /// Refuses, before anything is paid, what the provider is known to refuse.
    ///
    /// # Errors
    /// [`EditError::Rejected`], naming the parameter or limit, the value and the fix; no other variant.
    fn check(&self, spec: &EditSpec, image: Measure) -> Result<(), EditError>;

    /// Sends the edit. Called at most once for a call that may have been accepted.
    ///
    /// # Errors
    /// See [`EditError`]; each adapter maps its provider's answers exhaustively.
    async fn submit(&self, request: EditRequest) -> Result<Submitted, EditError>;

    /// Reads a whole answer to such an edit that could not be read when it came, and was kept: by the same
    /// reader, which may know more by now. Sends nothing.
    ///
    /// # Errors
    /// Whatever it is: it still cannot be read.
    fn read_answer(&self, spec: &EditSpec, content_type: &str, body: Bytes) -> Result<Submitted, EditError> {
        let _ = (spec, content_type, body);
        Err(EditError::Unavailable("this editor answers nothing that would be kept".to_owned()))
    }

    /// Asks after an edit that was accepted `age` ago. Costs nothing, may be repeated by any process.
    ///
    /// # Errors
    /// See [`EditError`]; never `NotSent`, since nothing is paid here. `Ambiguous` means that the provider knows the id no
    /// more, and nobody can tell whether it was paid.
    async fn poll(&self, provider_task_id: &str, age: Duration) -> Result<Polled, EditError>;

    /// Asks what was accepted of a model since a submit that began `since` ago and was not answered. Costs nothing.
    /// `None`: this provider cannot be asked, not of this model, or not of what was so long ago.
    ///
    /// # Errors
    /// See [`EditError`]; nothing is paid here, so whatever it is, asking again does no harm.
    async fn list_submitted(&self, model: &str, since: Duration) -> Result<Option<Listed>, EditError> {
        let _ = (model, since);
        Ok(None)
    }

    /// Asks whether the provider answers and takes the key, by a question that costs nothing: for people who set it up.
    /// `false`: it has none.
    ///
    /// # Errors
    /// See [`EditError`]; nothing is paid here.
    async fn ask(&self) -> Result<bool, EditError> {
        Ok(false)
    }
}
