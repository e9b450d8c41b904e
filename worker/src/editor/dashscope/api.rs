//! The provider's address, and what every request to it carries.
//!
//! What must stay true: the key goes to the provider's own API and nowhere else; neither it nor a URL reaches a log.

use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::multipart::Form;
use reqwest::{Client, RequestBuilder};
use serde_json::Value;
use url::Url;

use super::errors::{Place, classify};
use super::models::Style;
use super::wire::Said;
use crate::editor::EditError;
use crate::editor::http::{Answer, ApiKey};
use crate::trace;

const WORKSPACE: HeaderName = HeaderName::from_static("x-dashscope-workspace");
const ASYNC: HeaderName = HeaderName::from_static("x-dashscope-async");
const RESOLVE_OSS: HeaderName = HeaderName::from_static("x-dashscope-ossresourceresolve");
const ENABLE: HeaderValue = HeaderValue::from_static("enable");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// For what is answered at once, a request of 10 MB on a slow line included.
const AT_ONCE: Duration = Duration::from_secs(120);
/// For what is small both ways.
const SMALL: Duration = Duration::from_secs(30);

/// The way to the provider.
#[derive(Debug, Clone)]
pub(super) struct Api {
    pub(super) client: Client,
    pub(super) key: ApiKey,
    pub(super) base_url: Url,
    pub(super) workspace: Option<HeaderValue>,
    /// For a whole call that is answered with the picture.
    pub(super) timeout: Duration,
}

impl Api {
    /// Under the base URL; each segment is encoded, so that none can lead elsewhere.
    pub(super) fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.base_url.clone();
        // Fails for URLs such as `data:` only, which are refused at start.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    /// The request that may cost money.
    pub(super) fn submit(
        &self,
        style: Style,
        body: &Value,
        from_oss: bool,
    ) -> Result<RequestBuilder, EditError> {
        let mut headers = self.headers();
        headers.insert(CONTENT_TYPE, JSON);
        if style.is_async() {
            headers.insert(ASYNC, ENABLE);
        }
        if from_oss {
            headers.insert(RESOLVE_OSS, ENABLE);
        }
        let timeout = if style.is_async() { AT_ONCE.min(self.timeout) } else { self.timeout };
        let request = self.client.post(self.url(&style.path())).bearer_auth(self.key()?).headers(headers);
        let request = trace::outgoing(request);
        Ok(request.body(body.to_string()).timeout(timeout))
    }

    /// A question.
    pub(super) fn get(&self, url: Url) -> Result<RequestBuilder, EditError> {
        let request = self.client.get(url).bearer_auth(self.key()?).headers(self.headers());
        let request = trace::outgoing(request);
        Ok(request.timeout(SMALL.min(self.timeout)))
    }

    /// A form to the provider's store, which has its own signature in it and no key.
    pub(super) fn upload(&self, host: &str, form: Form) -> RequestBuilder {
        self.client.post(host).multipart(form).timeout(AT_ONCE.min(self.timeout))
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, JSON);
        headers.extend(self.workspace.clone().map(|workspace| (WORKSPACE, workspace)));
        headers
    }

    fn key(&self) -> Result<String, EditError> {
        let code = || "no_api_key".to_owned();
        self.key.read().map_err(|message| EditError::Blocked { code: code(), message })
    }

    /// What an answer means that is not the hoped-for one.
    pub(super) fn refused(&self, place: Place, answer: &Answer, said: &Said) -> EditError {
        let (code, message) = said.fault();
        tracing::debug!(?place, answer.status, code, request_id = said.request_id(), "refused");
        with_request(classify(place, answer.status, &code, &message, answer.retry_after), said)
    }
}

/// What ends an edit carries the provider's name for the request: whoever asks the provider about it needs that.
pub(super) fn with_request(error: EditError, said: &Said) -> EditError {
    let id = said.request_id();
    // Nothing but an id belongs into a message for people.
    if id.is_empty() || id.len() > 64 || !id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return error;
    }
    let named = |message: String| format!("{message} (request_id {id})");
    match error {
        EditError::Rejected { code, message } => EditError::Rejected { code, message: named(message) },
        EditError::Unbilled { code, message, tries } => {
            EditError::Unbilled { code, message: named(message), tries }
        }
        error @ (EditError::NotSent(_)
        | EditError::RateLimited { .. }
        | EditError::Unavailable(_)
        | EditError::Ambiguous(_)
        | EditError::Unreadable(_)
        | EditError::Blocked { .. }) => error,
    }
}
