//! The provider's address, and the common parts of its requests.
//!
//! Invariant: the key goes only to the provider's own API; neither the key nor a URL reaches a log.

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
/// Timeout of calls that are answered at once, including a request of 10 MB on a slow line.
const AT_ONCE: Duration = Duration::from_secs(120);
/// Timeout of small requests with small answers.
const SMALL: Duration = Duration::from_secs(30);

/// Client of the provider's API.
#[derive(Debug, Clone)]
pub(super) struct Api {
    pub(super) client: Client,
    pub(super) key: ApiKey,
    pub(super) base_url: Url,
    pub(super) workspace: Option<HeaderValue>,
    /// Timeout of a call that returns the picture.
    pub(super) timeout: Duration,
}

impl Api {
    /// A URL under the base URL; each segment is encoded, so that none changes the path.
    pub(super) fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.base_url.clone();
        // Fails only for URLs such as `data:`, which are refused at start.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    /// The submit: the request that may cost money.
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

    /// A GET, which is free.
    pub(super) fn get(&self, url: Url) -> Result<RequestBuilder, EditError> {
        let request = self.client.get(url).bearer_auth(self.key()?).headers(self.headers());
        let request = trace::outgoing(request);
        Ok(request.timeout(SMALL.min(self.timeout)))
    }

    /// A form to the provider's store, which carries its own signature and no key.
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

    /// The error for an unsuccessful answer.
    pub(super) fn refused(&self, place: Place, answer: &Answer, said: &Said) -> EditError {
        let (code, message) = said.fault();
        tracing::debug!(?place, answer.status, code, request_id = said.request_id(), "refused");
        with_request(classify(place, answer.status, &code, &message, answer.retry_after), said)
    }
}

/// Adds the provider's request id to a final error: the provider's support asks for it.
pub(super) fn with_request(error: EditError, said: &Said) -> EditError {
    let id = said.request_id();
    // Only an id may enter a message for people.
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
