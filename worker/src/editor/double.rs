//! The scripted test double: an editor that its parameters control, and that records its requests.
//!
//! For the test suite (cargo feature `double`), inside the built program, in many processes at once. Its
//! whole state is in one folder that the processes share:
//!
//! - `calls.jsonl`: one line per submit, written first;
//! - `polls.jsonl`: one line per poll;
//! - `tasks/<id>.json`: a task accepted by `double_async`, so that any process can poll it;
//! - a file of any other name: an open gate.
//!
//! Invariant: a line is one `O_APPEND` write, so lines never mix; and "the first N" is decided by the order
//! of the lines, so two processes never both count as the first.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use retouch_shared::key::Digest32;
use retouch_shared::task::Params;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use super::{EditError, EditRequest, EditSpec, Editor, Measure, Output, Polled, Submitted};
use crate::media::{Format, MediaError, Pixels, inspect};

/// A gate that stays closed must end the test, not hang it.
const GATE_LIMIT: Duration = Duration::from_secs(120);
const GATE_POLL: Duration = Duration::from_millis(10);
/// Poll interval: short, for tests.
const POLL_AFTER: Duration = Duration::from_millis(20);

/// Lines written by this process: with the process id, a unique name of each line.
static LINES: AtomicU64 = AtomicU64::new(0);

/// The editor of kind `double`: edit types `double`, which answers within the submit, and `double_async`,
/// accepted and polled.
#[derive(Debug, Clone)]
pub struct Double {
    dir: Arc<PathBuf>,
}

/// The double's parameters; any other one is ignored, and makes another edit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Script {
    /// Duration of the edit: for `double` after the gate, for `double_async` since the submit.
    delay_ms: u64,
    /// The edit waits for this file in the folder.
    gate: Option<String>,
    /// `double_async`: the answer to the submit, accepted and on disk, waits for this file in the folder.
    submit_gate: Option<String>,
    /// The process dies in the submit, as from a decoder's bug.
    abort: bool,
    /// Failure of a submit.
    fail: Option<Failure>,
    /// Number of failing submits of this picture with these parameters.
    times: Option<u64>,
    /// Retry-After of `rate_limited`.
    retry_after_ms: Option<u64>,
    /// Failure of a poll.
    poll_fail: Option<PollFailure>,
    /// Number of failing polls of this id.
    poll_times: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Failure {
    NotSent,
    RateLimited,
    Unavailable,
    Ambiguous,
    Rejected,
    Blocked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum PollFailure {
    RateLimited,
    Unavailable,
    Rejected,
    Blocked,
}

/// An accepted edit, on disk.
#[derive(Debug, Serialize, Deserialize)]
struct Accepted {
    script: Script,
    submitted_unix_ms: i64,
    result: String,
}

impl Double {
    /// Over a folder shared by every process of the test.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir: Arc::new(dir) }
    }

    /// Appends one line and returns its number among those of the same identity, counting from 1.
    fn record(&self, file: &str, identity: &str, mut line: Value) -> io::Result<u64> {
        let pid = std::process::id();
        let call = format!("{pid}-{}", LINES.fetch_add(1, Ordering::Relaxed));
        line["call"] = json!(call);
        line["identity"] = json!(identity);
        line["pid"] = json!(pid);
        line["unix_ms"] = json!(now());
        fs::create_dir_all(self.dir.as_path())?;
        let path = self.dir.join(file);
        append(&path, &format!("{line}\n"))?;
        // Lines up to our own are complete and final; other processes may be writing beyond it.
        let same = format!("\"identity\":\"{identity}\"");
        let own = format!("\"call\":\"{call}\"");
        let mut number = 0;
        for line in String::from_utf8_lossy(&fs::read(&path)?).lines() {
            number += u64::from(line.contains(&same));
            if line.contains(&own) {
                break;
            }
        }
        Ok(number)
    }

    async fn pass_gate(&self, gate: Option<&str>) -> Result<(), EditError> {
        let Some(gate) = gate else { return Ok(()) };
        let path = self.dir.join(gate);
        let start = Instant::now();
        while !path.exists() {
            if start.elapsed() > GATE_LIMIT {
                return Err(gate_timeout(gate));
            }
            tokio::time::sleep(GATE_POLL).await;
        }
        Ok(())
    }

    fn task_file(&self, id: &str) -> PathBuf {
        self.dir.join("tasks").join(format!("{id}.json"))
    }

    /// Written beside and renamed, so that a poll sees all of it or none.
    fn accept(&self, id: &str, accepted: &Accepted) -> io::Result<()> {
        let path = self.task_file(id);
        let beside = path.with_extension("tmp");
        fs::create_dir_all(self.dir.join("tasks"))?;
        fs::write(&beside, serde_json::to_vec(accepted)?)?;
        fs::rename(&beside, &path)
    }

    fn record_submit(&self, request: &EditRequest) -> io::Result<(String, u64)> {
        let image_hash = Digest32::of(&request.image.bytes);
        let EditSpec { edit_type, params, .. } = &request.spec;
        let identity = format!("{image_hash}/{edit_type}/{}", params.canonical());
        let identity = Digest32::of(identity.as_bytes()).to_hex();
        let line = json!({
            "at": "submit",
            "image_hash": image_hash,
            "edit_type": edit_type,
            "params": params,
        });
        let number = self.record("calls.jsonl", &identity, line)?;
        Ok((identity, number))
    }
}

#[async_trait]
impl Editor for Double {
    fn kind(&self) -> &'static str {
        "double"
    }

    fn check(&self, spec: &EditSpec, _: Measure) -> Result<(), EditError> {
        if !matches!(spec.edit_type.as_str(), "double" | "double_async") {
            return Err(EditError::rejected(
                "unknown_edit_type",
                format!("the double has double and double_async, not {}", spec.edit_type),
            ));
        }
        Script::of(&spec.params).map(drop)
    }

    async fn submit(&self, request: EditRequest) -> Result<Submitted, EditError> {
        let this = self.clone();
        let recorded = blocking(move || {
            let (identity, number) = this.record_submit(&request)?;
            Ok((request, identity, number))
        });
        let (request, identity, number) = recorded.await?;
        let script = Script::of(&request.spec.params)?;
        if script.abort {
            std::process::abort();
        }
        let is_async = request.spec.edit_type == "double_async";
        if !is_async {
            self.pass_gate(script.gate.as_deref()).await?;
            tokio::time::sleep(Duration::from_millis(script.delay_ms)).await;
        }
        if let Some(failure) = script.fail
            && number <= script.times.unwrap_or(u64::MAX)
        {
            return Err(failure.error(&script));
        }
        let bytes = request.image.bytes;
        let result = blocking(move || Ok(expected(&bytes)))
            .await?
            .map_err(|error| EditError::rejected(error.code(), error.to_string()))?;
        if !is_async {
            return Ok(Submitted::Done(result.into()));
        }
        let provider_task_id = format!("{identity}-{number}");
        let accepted = Accepted { result: BASE64.encode(result), submitted_unix_ms: now(), script };
        let submit_gate = accepted.script.submit_gate.clone();
        let (this, id) = (self.clone(), provider_task_id.clone());
        blocking(move || this.accept(&id, &accepted)).await?;
        self.pass_gate(submit_gate.as_deref()).await?;
        Ok(Submitted::Accepted { provider_task_id, at_hand: None })
    }

    async fn poll(&self, provider_task_id: &str, _: Duration) -> Result<Polled, EditError> {
        let id = provider_task_id.to_owned();
        let this = self.clone();
        let polled = blocking(move || {
            let line = json!({ "at": "poll", "provider_task_id": id });
            let number = this.record("polls.jsonl", &id, line)?;
            // The id becomes a file name.
            if !is_file_name(&id) {
                return Ok(None);
            }
            match fs::read(this.task_file(&id)) {
                Ok(task) => Ok(Some((number, serde_json::from_slice::<Accepted>(&task)?))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            }
        });
        let (number, accepted) = polled
            .await?
            .ok_or_else(|| EditError::rejected("unknown_task", format!("no task {provider_task_id:?}")))?;
        self.answer(number, &accepted)
    }
}

impl Double {
    fn answer(&self, number: u64, accepted: &Accepted) -> Result<Polled, EditError> {
        let script = &accepted.script;
        if let Some(failure) = script.poll_fail
            && number <= script.poll_times.unwrap_or(u64::MAX)
        {
            return Err(Failure::from(failure).error(script));
        }
        let age = u64::try_from(now() - accepted.submitted_unix_ms).unwrap_or(0);
        if let Some(gate) = &script.gate
            && !self.dir.join(gate).exists()
        {
            if Duration::from_millis(age) > GATE_LIMIT {
                return Err(gate_timeout(gate));
            }
            return Ok(Polled::Pending { after: POLL_AFTER });
        }
        if age < script.delay_ms {
            return Ok(Polled::Pending { after: POLL_AFTER });
        }
        let result = BASE64.decode(&accepted.result).map_err(|error| broken(&error))?;
        Ok(Polled::Done(Output::Bytes(Bytes::from(result))))
    }
}

impl Script {
    fn of(params: &Params) -> Result<Self, EditError> {
        let script = Self::deserialize(Value::Object(params.as_object().clone()))
            .map_err(|error| EditError::rejected("invalid_params", format!("params: {error}")))?;
        for gate in [&script.gate, &script.submit_gate].into_iter().flatten() {
            if !is_file_name(gate) {
                let message = format!("params: a gate is a file name, not {gate:?}");
                return Err(EditError::rejected("invalid_params", message));
            }
        }
        Ok(script)
    }
}

impl Failure {
    fn error(self, script: &Script) -> EditError {
        let words = "as the test asked".to_owned();
        match self {
            Self::NotSent => EditError::NotSent(words),
            Self::RateLimited => {
                let retry_after = script.retry_after_ms.map(Duration::from_millis);
                EditError::RateLimited { retry_after, message: words }
            }
            Self::Unavailable => EditError::Unavailable(words),
            Self::Ambiguous => EditError::Ambiguous(words),
            Self::Rejected => EditError::rejected("scripted_rejection", words),
            Self::Blocked => EditError::Blocked { code: "scripted_block".to_owned(), message: words },
        }
    }
}

impl From<PollFailure> for Failure {
    fn from(failure: PollFailure) -> Self {
        match failure {
            PollFailure::RateLimited => Self::RateLimited,
            PollFailure::Unavailable => Self::Unavailable,
            PollFailure::Rejected => Self::Rejected,
            PollFailure::Blocked => Self::Blocked,
        }
    }
}

/// The double's result for a picture: its negative, upright, alpha kept, as a PNG.
///
/// # Errors
/// [`MediaError`] if it is not a picture.
pub fn expected(bytes: &[u8]) -> Result<Vec<u8>, MediaError> {
    let media = inspect(bytes)?;
    let mut pixels = Pixels::decode(bytes, &media)?;
    pixels.image.invert();
    pixels.encode(Format::Png).map(|(bytes, _)| bytes)
}

fn append(path: &Path, line: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    // Not `write_all`: a second write could land behind another process's line.
    let written = file.write(line.as_bytes())?;
    if written < line.len() {
        return Err(io::Error::other("a line was written only in part"));
    }
    Ok(())
}

fn is_file_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (1..=128).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(allowed)
}

fn now() -> i64 {
    chrono::Utc::now().timestamp_millis()
}

fn gate_timeout(gate: &str) -> EditError {
    EditError::rejected("gate_timeout", format!("gate {gate:?} stayed closed"))
}

/// The double itself is broken: a final error, so that a test sees this and not a retry.
fn broken(error: &dyn std::error::Error) -> EditError {
    EditError::rejected("double_broken", error.to_string())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, EditError> {
    match spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| broken(&error)),
        Err(error) => Err(broken(&error)),
    }
}

#[cfg(test)]
mod tests;
