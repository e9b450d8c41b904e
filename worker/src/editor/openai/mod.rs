//! The OpenAI-compatible editor: `POST {base}/images/edits`, multipart, answered within the call. For OpenAI
//! and compatible gateways.
//!
//! Invariant: a request is sent once; a whole answer is read or kept, and only a broken or self-declared
//! uncertain one is ambiguous; a picture's URL becomes the id of an accepted call, which is committed before
//! the picture is fetched; no error holds the key.
//! <https://platform.openai.com/docs/api-reference/images/createEdit>

mod check;
mod errors;
mod mask;
#[cfg(test)]
mod tests;

use std::time::Duration;

use anyhow::{Context, ensure};
use async_trait::async_trait;
use bytes::Bytes;
use reqwest::multipart::{Form, Part};
use reqwest::{Body, Client};
use tokio::task::{JoinError, spawn_blocking};
use url::Url;

use super::answer::{self, Contents, Found};
use super::http::{self, Answer, ApiKey, SendError};
use super::{
    EditError, EditRequest, EditSpec, Editor, KnownModel, Measure, Output, Picture, Polled, ResultUrl,
    Submitted,
};
use crate::media::{Format, memory};
use crate::sources::guard::AllowHosts;
use crate::trace;

/// The provider kind that enters the edit key.
pub const KIND: &str = "openai";
/// OpenAI itself.
pub const DEFAULT_BASE_URL: &str = "https://api.openai.com/v1";
/// Timeout of a whole call. Large pictures at high quality take minutes, and an abandoned answer may be paid
/// all the same.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(8 * 60);

/// OpenAI's storage of results. This one account, not all of `*.blob.core.windows.net`, where any customer
/// can rent a name.
const RESULT_HOST: &str = "oaidalleapiprodscus.blob.core.windows.net";
/// Lifetime of such a URL.
const URL_LIVES: Duration = Duration::from_secs(60 * 60);
/// Prefix of our ids; the URL follows.
const URL_ID: &str = "url:";
/// Replaces the key for a kept answer: the key of that time is unknown.
const NO_KEY: &str = "\0";

/// None: OpenAI bills by tokens, so the cost of a picture depends on its size and quality. A model must be
/// configured with its price, or it would count as free.
pub fn known_models() -> &'static [KnownModel] {
    &[]
}

/// Configuration of the editor.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Sent as `Authorization: Bearer`.
    pub key: ApiKey,
    /// Up to and without `/images/edits`; a query is kept.
    pub base_url: Url,
    /// For a whole call; see [`DEFAULT_TIMEOUT`].
    pub timeout: Duration,
    /// Additional hosts of results, besides those of the base URL and OpenAI.
    pub result_hosts: AllowHosts,
}

/// The editor of kind `openai`.
#[derive(Debug, Clone)]
pub struct OpenAi {
    client: Client,
    key: ApiKey,
    endpoint: Url,
    models: Url,
    base_url: Url,
    result_hosts: AllowHosts,
}

impl OpenAi {
    /// Creates the editor without network access.
    ///
    /// # Errors
    /// The base URL or the hosts are invalid, or TLS cannot be set up.
    pub fn new(settings: Settings) -> anyhow::Result<Self> {
        let Settings { key, base_url, timeout, result_hosts } = settings;
        let (endpoint, models) = (endpoint(&base_url, "images/edits")?, endpoint(&base_url, "models")?);
        let host = base_url.host_str().context("the base URL has no host")?;
        let own: AllowHosts = format!("{host},{RESULT_HOST}").parse()?;
        let result_hosts = own.and(result_hosts);
        Ok(Self { client: http::client(timeout)?, key, endpoint, models, base_url, result_hosts })
    }

    async fn send(&self, key: &str, form: Form) -> Result<Answer, EditError> {
        let request = self.client.post(self.endpoint.clone()).bearer_auth(key).multipart(form);
        http::send(trace::outgoing(request)).await.map_err(|error| match error {
            SendError::NotSent(why) => EditError::NotSent(why),
            SendError::NoAnswer(why) => EditError::Ambiguous(why),
        })
    }
}

#[async_trait]
impl Editor for OpenAi {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn result_hosts(&self) -> AllowHosts {
        self.result_hosts.clone()
    }

    fn check(&self, spec: &EditSpec, image: Measure) -> Result<(), EditError> {
        check::fields(spec, image).map(drop)
    }

    async fn submit(&self, request: EditRequest) -> Result<Submitted, EditError> {
        let EditRequest { spec, image, mask } = request;
        let fields = check::fields(&spec, image.measure())?;
        let key = self.key.read().map_err(no_key)?;
        let mut form = fields.into_iter().fold(Form::new(), |form, (name, value)| form.text(name, value));
        let mask = match mask {
            Some(mask) => Some(transparent(mask).await?),
            None => None,
        };
        form = form.part("image", file(image.bytes, "image", image.media.format)?);
        if let Some(mask) = mask {
            form = form.part("mask", file(mask, "mask", Format::Png)?);
        }
        let answer = self.send(&key, form).await?;
        if !answer.is_success() {
            return Err(errors::refused(&answer, &key));
        }
        // Some 30 MB of JSON and base64: parse them off the async threads.
        let (whole, base_url) = (answer.clone(), self.base_url.clone());
        let read = spawn_blocking(move || read(&whole, &base_url, &key)).await;
        read.unwrap_or_else(|_| {
            Err(answer::unread(&answer, "reading it failed unexpectedly".to_owned(), None))
        })
    }

    fn read_answer(&self, _: &EditSpec, content_type: &str, body: Bytes) -> Result<Submitted, EditError> {
        read(&Answer::kept(content_type, body), &self.base_url, NO_KEY)
    }

    async fn poll(&self, provider_task_id: &str, _: Duration) -> Result<Polled, EditError> {
        match provider_task_id.strip_prefix(URL_ID) {
            Some(url) => Ok(Polled::Done(Output::Url(result_url(url.to_owned())))),
            // The submit behind this id was answered, so it may have been paid: `Rejected` would deny that,
            // and OpenAI has no list.
            None => Err(EditError::Ambiguous("the call's id is not one of this editor".to_owned())),
        }
    }

    /// <https://platform.openai.com/docs/api-reference/models/list>. Not every gateway has it.
    async fn ask(&self) -> Result<bool, EditError> {
        let key = self.key.read().map_err(no_key)?;
        let get = self.client.get(self.models.clone()).bearer_auth(&key);
        let answer = http::send(get).await.map_err(|error| match error {
            SendError::NotSent(why) => EditError::NotSent(why),
            SendError::NoAnswer(why) => EditError::Unavailable(why),
        })?;
        match answer.status {
            200..=299 => Ok(true),
            404 | 405 => Ok(false),
            _ => Err(errors::refused(&answer, &key)),
        }
    }
}

/// Reads a 2xx answer: its picture, its error, or neither.
fn read(answer: &Answer, base_url: &Url, key: &str) -> Result<Submitted, EditError> {
    let contents = if answer.flaw.is_none() { Contents::of(&answer.body) } else { Contents::default() };
    if let Some(found) = contents.picture(base_url) {
        return Ok(taken(found));
    }
    if let Some(fault) = contents.fault() {
        return Err(errors::within_success(&fault, key, answer.retry_after));
    }
    match contents.picture_anywhere(base_url) {
        Some(found) => Ok(taken(found)),
        None => Err(answer::unreadable(answer, &contents, None)),
    }
}

/// Bytes are the result. A URL becomes the id to poll, committed as soon as it is known.
fn taken(found: Found) -> Submitted {
    match found {
        Found::Bytes(bytes) => Submitted::Done(bytes),
        Found::Url(url) => {
            Submitted::Accepted { provider_task_id: format!("{URL_ID}{url}"), at_hand: Some(result_url(url)) }
        }
    }
}

fn result_url(url: String) -> ResultUrl {
    ResultUrl { url, lives: URL_LIVES }
}

fn endpoint(base_url: &Url, path: &str) -> anyhow::Result<Url> {
    ensure!(
        matches!(base_url.scheme(), "http" | "https"),
        "the base URL must begin with http:// or https://"
    );
    ensure!(
        base_url.username().is_empty() && base_url.password().is_none(),
        "the base URL must not hold a user or a password; the key is set on its own"
    );
    let mut endpoint = base_url.clone();
    endpoint.set_path(&format!("{}/{path}", base_url.path().trim_end_matches('/')));
    endpoint.set_fragment(None);
    Ok(endpoint)
}

fn no_key(why: String) -> EditError {
    EditError::Blocked { code: "no_key".to_owned(), message: why }
}

/// Some servers derive the format from the extension and some from the type, so both are set.
fn file(bytes: Bytes, name: &'static str, format: Format) -> Result<Part, EditError> {
    // With a length: otherwise the body is sent in chunks, which not every gateway accepts.
    let length = bytes.len() as u64;
    Part::stream_with_length(Body::from(bytes), length)
        .file_name(format!("{name}.{}", format.extension()))
        .mime_str(format.content_type())
        .map_err(|error| EditError::NotSent(format!("the request cannot be made: {error}")))
}

async fn transparent(mask: Picture) -> Result<Bytes, EditError> {
    // The mask, and the picture with alpha made from it.
    let pixels = u64::from(mask.media.width) * u64::from(mask.media.height);
    let need = memory::decode_bytes(&mask.bytes, &mask.media) + pixels * 8;
    memory::run(need, move || mask::transparent(&mask)).await.unwrap_or_else(|error| Err(unmade(&error)))
}

/// Nothing was sent yet.
fn unmade(error: &JoinError) -> EditError {
    if error.is_panic() {
        // A bug in a decoder, which this mask triggers every time.
        return EditError::rejected("undecodable", "the mask made the decoder fail unexpectedly");
    }
    EditError::NotSent("the program is ending".to_owned())
}
