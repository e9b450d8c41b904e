//! The editor port: one provider that turns a picture and an edit into another picture.
//!
//! An editor sees neither a delivery nor the store. It fits both kinds of provider: a synchronous one
//! answers [`Submitted::Done`] from `submit`, a submit-then-poll one answers [`Submitted::Accepted`] and
//! is then asked through `poll`, possibly by another process than the one that submitted.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use retouch_shared::task::Params;
use thiserror::Error;

use crate::media::Media;
use crate::sources::guard::AllowHosts;

#[cfg(feature = "double")]
pub mod double;
pub mod local;

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
    /// Whether a mask comes with it.
    pub has_mask: bool,
}

/// A picture as it goes to a provider.
#[derive(Debug, Clone)]
pub struct Picture {
    /// The encoded file, exactly as it was received.
    pub bytes: Bytes,
    /// What the header says it is: format, width, height.
    pub media: Media,
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
    /// A temporary URL of the provider's, to be fetched through the guard at once and never stored.
    Url(String),
}

/// The answer to a submit.
#[derive(Debug, Clone)]
pub enum Submitted {
    /// Done within the call.
    Done(Output),
    /// The provider took it; ask for it by this id.
    Accepted {
        /// The provider's id, committed before the first poll.
        provider_task_id: String,
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

/// Why an editor could not answer, named by what the caller does next.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
pub enum EditError {
    /// Nothing reached the provider: try again, nothing can have been paid.
    #[error("not sent: {0}")]
    NotSent(String),
    /// The provider asked us to slow down: wait; burns no attempt.
    #[error("rate limited")]
    RateLimited {
        /// The provider's own wish, if it gave one.
        retry_after: Option<Duration>,
    },
    /// A poll or a result could not be had now: ask again, never submit again.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// Sent and not answered: it may have been paid.
    #[error("ambiguous: {0}")]
    Ambiguous(String),
    /// The provider's final word on this edit: fail it with this code.
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

impl EditError {
    /// A final refusal.
    pub fn rejected(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Rejected { code: code.into(), message: message.into() }
    }
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

    /// Refuses, before anything is paid, what the provider is known to refuse. `image` is what the header says.
    ///
    /// # Errors
    /// [`EditError::Rejected`], naming the parameter or limit and the fix; no other variant.
    fn check(&self, spec: &EditSpec, image: &Media) -> Result<(), EditError>;

    /// Sends the edit. Called at most once for a call that may have been accepted.
    ///
    /// # Errors
    /// See [`EditError`]; each adapter maps its provider's answers exhaustively.
    async fn submit(&self, request: EditRequest) -> Result<Submitted, EditError>;

    /// Asks after an accepted edit. Costs nothing, may be repeated by any process.
    ///
    /// # Errors
    /// See [`EditError`]; never `NotSent` or `Ambiguous`, since nothing is paid here.
    async fn poll(&self, provider_task_id: &str) -> Result<Polled, EditError>;
}
