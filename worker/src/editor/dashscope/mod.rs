//! The DashScope editor: Alibaba's image-edit models, over a port that never pays twice.
//!
//! Invariant: a submit is one POST, whatever its result; `n` is always 1; an id in the answer (a task's id,
//! or the URL of a picture made within the call) becomes the provider's task id, so that it is committed
//! before anything else may fail. Facts and limits are in `docs/providers.md`.

mod api;
mod check;
mod errors;
mod functions;
mod inputs;
mod list;
mod models;
mod result_size;
mod rhythm;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use bytes::Bytes;
use reqwest::header::HeaderValue;
use tokio::task::spawn_blocking;
use url::Url;

pub(super) use errors::presentable;
pub use functions::{COMMON, FUNCTIONS, Function, Param, Range};
pub use inputs::{Input, UnknownInput};
pub use models::{Style, UnknownStyle, known_models};

use super::answer::{self, Contents, Found};
use super::http::{self, Answer, ApiKey, SendError};
use super::{
    EditError, EditRequest, EditSpec, Editor, Listed, Measure, Output, Polled, ResultUrl, Submitted,
};
use crate::sources::guard::AllowHosts;
use api::{Api, with_request};
use errors::{Place, classify, within_success};
use inputs::WayIn;
use rhythm::Rhythm;
use wire::{Said, TaskStatus};

/// The word in the edit key.
pub const KIND: &str = "dashscope";
/// The Beijing region. Keys are bound to a region.
pub const DEFAULT_BASE_URL: &str = "https://dashscope.aliyuncs.com/api/v1";
/// First interval of polls; the ages of tasks that ended recently adjust it (`rhythm`).
pub const DEFAULT_POLL: Duration = Duration::from_secs(3);
/// Between two polls of any tasks: the account's limit is 20 a second.
pub const DEFAULT_POLL_SPACING: Duration = Duration::from_millis(50);
/// How long an accepted task may be missing from the list; undocumented.
pub const DEFAULT_LIST_SETTLES: Duration = Duration::from_secs(10);
/// Timeout of a call that returns the picture.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(8 * 60);

/// Dozens of buckets serve results, and the provider lists only those of its home region. A result on an
/// unlisted host is paid for, and the host comes from the API itself; so the provider's whole domain is
/// allowed. Private addresses behind it stay refused.
const RESULT_HOSTS: &str = "*.aliyuncs.com";
/// Lifetime of results and of task ids.
const LIVES: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a new id may be unknown to the server that is polled.
const MAY_BE_UNKNOWN: Duration = Duration::from_secs(10 * 60);
/// Prefix of a URL that stands for a task's id.
const URL_PREFIX: &str = "url:";

/// Configuration of the provider.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The key; read at each use.
    pub key: ApiKey,
    /// The API's base URL; usually [`DEFAULT_BASE_URL`].
    pub base_url: Url,
    /// The workspace of the key's calls, if not the default one.
    pub workspace: Option<String>,
    /// How pictures reach the provider.
    pub input: Input,
    /// Between two polls in the first 30 seconds, three times that later, until the durations of tasks are
    /// known. Usually [`DEFAULT_POLL`].
    pub poll: Duration,
    /// Between two polls of any tasks; usually [`DEFAULT_POLL_SPACING`].
    pub poll_spacing: Duration,
    /// Timeout of a call that returns the picture; usually [`DEFAULT_TIMEOUT`].
    pub timeout: Duration,
    /// Additional hosts of results, besides those of the base URL and the provider.
    pub result_hosts: AllowHosts,
    /// Where the provider can fetch our blobs; required for [`Input::Url`].
    pub public_url: Option<Url>,
    /// Bytes of the largest result that is kept.
    pub result_max: Option<u64>,
    /// `Some`: the list of tasks may be searched for a submit without an answer; the duration is how long a
    /// task may be missing there (usually [`DEFAULT_LIST_SETTLES`]). Only for an account without other
    /// clients.
    pub ask_list: Option<Duration>,
}

/// The editor of kind [`KIND`].
#[derive(Debug, Clone)]
pub struct DashScope {
    api: Api,
    input: Input,
    way_in: WayIn,
    rhythm: Arc<Rhythm>,
    hosts: AllowHosts,
    styles: BTreeMap<String, Style>,
    ask_list: Option<Duration>,
    result_max: Option<u64>,
}

impl DashScope {
    /// `styles` holds the API style of each model, built in or configured.
    ///
    /// # Errors
    /// One sentence that names the setting and the fix.
    pub fn new(settings: Settings, styles: BTreeMap<String, Style>) -> Result<Self> {
        let Settings {
            key,
            base_url,
            workspace,
            input,
            poll,
            poll_spacing,
            timeout,
            result_hosts,
            public_url,
            ask_list,
            result_max,
        } = settings;
        ensure!(is_web(&base_url), "the base URL of dashscope must start with https:// or http://");
        let host = base_url.host_str().context("the base URL of dashscope has no host")?;
        let own: AllowHosts = format!("{host},{RESULT_HOSTS}").parse()?;
        let hosts = own.and(result_hosts);
        let workspace = workspace.map(|id| HeaderValue::from_str(&id)).transpose();
        let workspace =
            workspace.ok().context("the workspace of dashscope is no id: it cannot be sent as a header")?;
        let way_in = match input {
            Input::Data => WayIn::Data,
            Input::Url => {
                let public_url = public_url.filter(is_web).context(
                    "input = \"url\" in [editors.dashscope] needs RETOUCH_PUBLIC_URL, an http(s) address that the provider can reach; set it, or use \"data\" or \"oss\"",
                )?;
                WayIn::Url { public_url }
            }
            Input::Oss => WayIn::Oss { hosts: hosts.clone() },
        };
        let client = http::client(timeout)?;
        let api = Api { client, key, base_url, workspace, timeout };
        let rhythm = Arc::new(Rhythm::new(poll, poll_spacing));
        Ok(Self { api, input, way_in, rhythm, hosts, styles, ask_list, result_max })
    }

    fn style(&self, model: &str) -> Result<Style, EditError> {
        self.styles.get(model).copied().ok_or_else(|| {
            let known: Vec<_> = self.styles.keys().map(String::as_str).collect();
            let known = known.join(", ");
            EditError::rejected(
                "unknown_model",
                format!("model: {model:?} is not known here; known are {known}; add [models.{model:?}] with its style and price"),
            )
        })
    }

    /// Reads a successful answer to a poll.
    fn polled(&self, answer: &Answer, age: Duration) -> Result<Polled, EditError> {
        let contents = if answer.flaw.is_none() { Contents::of(&answer.body) } else { Contents::default() };
        let said = &Said::of(&contents);
        match said.task_status() {
            TaskStatus::Pending => Ok(Polled::Pending { after: self.rhythm.pause(age) }),
            TaskStatus::Succeeded => match contents.picture(&self.api.base_url) {
                Some(found) => {
                    self.rhythm.ended(age, said.took());
                    tracing::info!(
                        billed = said.billed(),
                        request_id = said.request_id(),
                        "the picture is there"
                    );
                    Ok(Polled::Done(match found {
                        Found::Bytes(bytes) => Output::Bytes(bytes),
                        Found::Url(url) => Output::Url(result_url(url)),
                    }))
                }
                None => Err(failed(answer, &contents, said, age)),
            },
            TaskStatus::Failed => {
                let (code, message) = said.task_fault();
                Err(with_request(classify(Place::Task, 200, &code, &message, None), said))
            }
            TaskStatus::Canceled => Err(EditError::rejected(
                "canceled",
                "the task was canceled at the provider, not by this worker; send it again",
            )),
            TaskStatus::Unknown => Err(unknown(age)),
            TaskStatus::Other(word) => {
                tracing::warn!(
                    task_status = word,
                    request_id = said.request_id(),
                    "not a status that is known"
                );
                let (code, message) = said.fault();
                if code.is_empty() {
                    return Err(EditError::Unavailable(format!(
                        "the task's status is {word:?}, which is not known"
                    )));
                }
                Err(classify(Place::Poll, 200, &code, &message, None))
            }
        }
    }
}

/// Succeeded without a picture: each result failed, it is not ready yet, or its form is unknown.
fn failed(answer: &Answer, contents: &Contents, said: &Said, age: Duration) -> EditError {
    match said.task_fault() {
        (code, _) if code.is_empty() && age < MAY_BE_UNKNOWN => unknown(age),
        // It was made and paid for: another submit would be answered the same.
        (code, _) if code.is_empty() => answer::unreadable(answer, contents, Some(said.request_id())),
        (code, message) => classify(Place::Task, 200, &code, &message, None),
    }
}

/// The provider does not know the task.
fn unknown(age: Duration) -> EditError {
    if age < MAY_BE_UNKNOWN {
        return EditError::Unavailable("the provider does not know the task, or not yet".to_owned());
    }
    EditError::Ambiguous(format!(
        "the provider does not know the task that it accepted {} minutes ago",
        age.as_secs() / 60
    ))
}

/// Ids expire after this age: a further poll would wait for ever.
fn within_life(polled: Result<Polled, EditError>, age: Duration) -> Result<Polled, EditError> {
    let hours = age.as_secs() / 3600;
    match polled {
        Ok(Polled::Pending { .. }) if age > LIVES => {
            Err(EditError::Ambiguous(format!("not finished after {hours} hours, and ids are kept for 24")))
        }
        Err(EditError::Unavailable(why)) if age > LIVES => {
            Err(EditError::Ambiguous(format!("after {hours} hours, and ids are kept for 24: {why}")))
        }
        other => other,
    }
}

fn is_web(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https") && url.has_host()
}

fn result_url(url: String) -> ResultUrl {
    ResultUrl { url, lives: LIVES }
}

/// Reads the answer to a submit.
fn taken(api: &Api, place: Place, answer: &Answer) -> Result<Submitted, EditError> {
    if !answer.is_success() {
        return Err(api.refused(place, answer, &Said::read(&answer.body)));
    }
    let contents = if answer.flaw.is_none() { Contents::of(&answer.body) } else { Contents::default() };
    let said = Said::of(&contents);
    let accepted = || {
        let provider_task_id = contents.task_id()?;
        tracing::debug!(request_id = said.request_id(), "accepted");
        Some(Submitted::Accepted { provider_task_id, at_hand: None })
    };
    let made = || {
        let found = contents.picture(&api.base_url)?;
        tracing::info!(billed = said.billed(), request_id = said.request_id(), "the picture is there");
        Some(submitted(found))
    };
    // A task's answer may repeat the input picture; a call's may name a task that cannot be polled.
    let found = match place {
        Place::Create => accepted().or_else(made),
        Place::Call | Place::Upload | Place::Poll | Place::Task => made().or_else(accepted),
    };
    if let Some(submitted) = found {
        return Ok(submitted);
    }
    if let Some(fault) = contents.fault() {
        return Err(with_request(within_success(place, &fault, answer.retry_after), &said));
    }
    match contents.picture_anywhere(&api.base_url) {
        Some(found) => Ok(submitted(found)),
        None => {
            Err(answer::unreadable(answer, &contents, Some(said.request_id()).filter(|id| !id.is_empty())))
        }
    }
}

/// A picture inside the answer, or its address, which becomes the id to poll.
fn submitted(found: Found) -> Submitted {
    match found {
        Found::Bytes(bytes) => Submitted::Done(bytes),
        Found::Url(url) => Submitted::Accepted {
            provider_task_id: format!("{URL_PREFIX}{url}"),
            at_hand: Some(result_url(url)),
        },
    }
}

/// The place of a style's submit.
const fn place(style: Style) -> Place {
    if style.is_async() { Place::Create } else { Place::Call }
}

#[async_trait]
impl Editor for DashScope {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn result_hosts(&self) -> AllowHosts {
        self.hosts.clone()
    }

    fn fetches_inputs(&self) -> bool {
        self.input == Input::Url
    }

    fn check(&self, spec: &EditSpec, image: Measure) -> Result<(), EditError> {
        check::check(self.style(&spec.model)?, self.input, spec, image)?;
        result_size::check(spec, image, self.result_max)
    }

    async fn submit(&self, mut request: EditRequest) -> Result<Submitted, EditError> {
        // Checked again: limits and routes may have changed since the edit was queued, and the next step
        // pays.
        request.spec.mask = request.mask.as_ref().map(super::Picture::measure);
        let style = self.style(&request.spec.model)?;
        let function = check::check(style, self.input, &request.spec, request.image.measure())?;
        result_size::check(&request.spec, request.image.measure(), self.result_max)?;
        let given = self.way_in.give(&self.api, &request).await?;
        let from_oss = matches!(self.way_in, WayIn::Oss { .. });
        let body = wire::body(style, function.map_or("", |function| function.name), &request.spec, given);
        let post = self.api.submit(style, &body, from_oss)?;
        drop(body);
        let answer = http::send(post).await.map_err(|error| match error {
            SendError::NotSent(why) => EditError::NotSent(why),
            SendError::NoAnswer(why) => EditError::Ambiguous(why),
        })?;
        // The answer may hold a picture: decode it off the async threads.
        let (api, whole) = (self.api.clone(), answer.clone());
        let read = spawn_blocking(move || taken(&api, place(style), &whole)).await;
        read.unwrap_or_else(|_| {
            Err(answer::unread(&answer, "reading it failed unexpectedly".to_owned(), None))
        })
    }

    fn read_answer(&self, spec: &EditSpec, content_type: &str, body: Bytes) -> Result<Submitted, EditError> {
        taken(&self.api, place(self.style(&spec.model)?), &Answer::kept(content_type, body))
    }

    async fn poll(&self, provider_task_id: &str, age: Duration) -> Result<Polled, EditError> {
        if let Some(url) = provider_task_id.strip_prefix(URL_PREFIX) {
            return Ok(Polled::Done(Output::Url(result_url(url.to_owned()))));
        }
        if let Some(after) = self.rhythm.too_early(age) {
            return Ok(Polled::Pending { after });
        }
        let waiting = Instant::now();
        self.rhythm.turn().await;
        let age = age + waiting.elapsed();
        let get = self.api.get(self.api.url(&["tasks", provider_task_id]))?;
        let answer = http::send(get).await.map_err(|error| match error {
            SendError::NotSent(why) | SendError::NoAnswer(why) => EditError::Unavailable(why),
        })?;
        let polled = if answer.is_success() {
            self.polled(&answer, age)
        } else {
            match self.api.refused(Place::Poll, &answer, &Said::read(&answer.body)) {
                EditError::Unavailable(_) if answer.status == 404 => Err(unknown(age)),
                limited @ EditError::RateLimited { .. } => {
                    self.rhythm.throttled();
                    Err(limited)
                }
                refused => Err(refused),
            }
        };
        within_life(polled, age)
    }

    async fn list_submitted(&self, model: &str, since: Duration) -> Result<Option<Listed>, EditError> {
        // A call that returns the picture makes no task.
        let (Some(settles), true) = (self.ask_list, self.style(model)?.is_async()) else { return Ok(None) };
        // Beyond the span that the list covers.
        if since + 2 * list::BEFORE >= LIVES {
            return Ok(None);
        }
        let tasks = list::since(&self.api, model, since).await?;
        Ok(Some(Listed { tasks, settles }))
    }

    async fn ask(&self) -> Result<bool, EditError> {
        list::ask(&self.api).await.map(|()| true)
    }
}
