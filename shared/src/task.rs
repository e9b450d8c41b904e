//! The domain side of the contract: a [`Task`] exists only because a message passed [`Task::decode`].

use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;
use serde_json::error::Category;

use crate::key::{Digest32, Hasher, ImageHash, normalise_prompt};
use crate::limits;
pub use crate::params::Params;
use crate::wire::{ImageRef, MAX_MESSAGE_BYTES, Object, TaskMessage, VERSION};

/// Most pictures in one task.
pub const MAX_IMAGES: usize = 64;
/// Longest prompt, in characters, after normalisation.
pub const MAX_PROMPT_CHARS: usize = 32_000;
/// Longest parameters, in bytes of compact JSON.
pub const MAX_PARAMS_BYTES: usize = 16 * 1024;
/// Longest metadata, in bytes of compact JSON.
pub const MAX_METADATA_BYTES: usize = 4 * 1024;
/// Longest source URL, in bytes.
pub const MAX_URL_BYTES: usize = 8 * 1024;

/// Why a message is not a task.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Beyond [`MAX_MESSAGE_BYTES`].
    #[error(
        "the message has {bytes} bytes; the limit is {MAX_MESSAGE_BYTES}: send large pictures by url or blob"
    )]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Not JSON, or a field is missing, unknown or of the wrong type.
    #[error("{field}: {message}")]
    Field {
        /// The path of the field, e.g. `images[3].url`; `message` where it is the message as a whole.
        field: String,
        /// What is wrong and what would be right.
        message: String,
    },
}

impl Invalid {
    fn field(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Field { field: field.into(), message: message.into() }
    }

    /// The dead-letter reason.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "too_large",
            Self::Field { .. } => "bad_message",
        }
    }
}

/// Location of a picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// An `http` or `https` URL.
    Url {
        /// Not yet parsed: a bad one fails its image, not the task.
        url: String,
        /// The producer's claim about the digest of its bytes.
        image_hash: Option<ImageHash>,
    },
    /// A `data:` URI, not yet decoded: a bad one fails its image, not the task.
    Data(String),
    /// A blob by its digest.
    Blob(Digest32),
}

/// A validated task.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// The idempotency key.
    pub task_id: String,
    /// The operation.
    pub edit_type: String,
    /// Normalised.
    pub prompt: String,
    /// The producer's choice of model, if any.
    pub model: Option<String>,
    /// As given, without the route's defaults.
    pub params: Params,
    /// The mask, if any.
    pub mask: Option<Source>,
    /// In order.
    pub images: Vec<Source>,
    /// Another take on the same edit.
    pub variant: Option<String>,
    /// Returned untouched.
    pub metadata: Option<Value>,
    /// SHA-256 over all of the above: the same `task_id` with another hash is a conflict.
    pub request_hash: Digest32,
}

impl Task {
    /// Decodes and validates one message.
    ///
    /// # Errors
    /// [`Invalid`], naming the field and the fix.
    pub fn decode(payload: &[u8]) -> Result<Self, Invalid> {
        if payload.len() > MAX_MESSAGE_BYTES {
            return Err(Invalid::TooLarge { bytes: payload.len() });
        }
        limits::check(payload)?;
        let mut json = serde_json::Deserializer::from_slice(payload);
        let Object(message) =
            serde_path_to_error::deserialize(&mut json).map_err(|error| explain(payload, &error))?;
        json.end().map_err(|error| Invalid::field("message", format!("must be one JSON object: {error}")))?;
        Self::from_message(message)
    }

    /// Validates a decoded message.
    ///
    /// # Errors
    /// [`Invalid::Field`], naming the field and the fix.
    pub fn from_message(message: TaskMessage) -> Result<Self, Invalid> {
        let TaskMessage { v, task_id, edit_type, prompt, model, params, mask, images, variant, metadata } =
            message;
        check_version(u64::from(v))?;
        check_token("task_id", &task_id, 64, b"._:-")?;
        check_token("edit_type", &edit_type, 32, b"._-")?;
        let prompt = normalise_prompt(&prompt);
        check_chars("prompt", &prompt, 0, MAX_PROMPT_CHARS)?;
        if let Some(model) = &model {
            check_chars("model", model, 1, 128)?;
        }
        if let Some(variant) = &variant {
            check_chars("variant", variant, 1, 64)?;
        }
        check_bytes("params", params.canonical().len(), MAX_PARAMS_BYTES)?;
        if let Some(metadata) = &metadata {
            check_metadata(metadata)?;
        }
        if !(1..=MAX_IMAGES).contains(&images.len()) {
            let fix = if images.is_empty() { "name at least one" } else { "split the task" };
            let message = format!("must be 1 to {MAX_IMAGES} images, not {}; {fix}", images.len());
            return Err(Invalid::field("images", message));
        }
        let images =
            images.into_iter().enumerate().map(|(at, image)| source(&format!("images[{at}]"), image));
        let images = images.collect::<Result<Vec<_>, _>>()?;
        let mask = mask.map(|mask| source("mask", mask)).transpose()?;
        let mut task = Self {
            task_id,
            edit_type,
            prompt,
            model,
            params,
            mask,
            images,
            variant,
            metadata,
            request_hash: Digest32::from_bytes([0; 32]),
        };
        task.request_hash = task.content_hash();
        Ok(task)
    }

    fn content_hash(&self) -> Digest32 {
        // Destructured: a new field does not compile until it is decided whether it is content.
        let Self {
            task_id,
            edit_type,
            prompt,
            model,
            params,
            mask,
            images,
            variant,
            metadata,
            request_hash: _,
        } = self;
        let sources: Vec<_> = mask.iter().chain(images).map(Written).collect();
        let content = (task_id, edit_type, prompt, model, params, mask.is_some(), sources, variant, metadata);
        // Written straight into the hash: a picture in the message is not copied for it.
        let mut hashed = Hashed::default();
        // Neither serialising these fields nor writing to the hash can fail.
        let _written = serde_json::to_writer(&mut hashed, &content);
        hashed.0.digest()
    }
}

/// Lets `serde_json` write into a hash.
#[derive(Default)]
struct Hashed(Hasher);

impl std::io::Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A source as it enters the request hash.
struct Written<'a>(&'a Source);

impl Serialize for Written<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Source::Url { url, image_hash: None } => serializer.collect_str(&format_args!("url {url}")),
            // URLs contain no space.
            Source::Url { url, image_hash: Some(hash) } => {
                serializer.collect_str(&format_args!("url {url} {hash}"))
            }
            Source::Data(uri) => serializer.collect_str(&format_args!("data {uri}")),
            Source::Blob(hash) => serializer.collect_str(&format_args!("blob {hash}")),
        }
    }
}

impl Source {
    /// The digest that the reference itself states: it is not verified, since no bytes are read.
    pub fn image_hash(&self) -> Option<ImageHash> {
        match self {
            Self::Url { url: _, image_hash } => *image_hash,
            Self::Blob(hash) => Some(*hash),
            Self::Data(_) => None,
        }
    }

    /// The wire form.
    pub fn to_ref(&self) -> ImageRef {
        match self {
            Self::Url { url, image_hash } => {
                let image_hash = image_hash.map(|hash| hash.to_hex());
                ImageRef { image_hash, ..ImageRef::url(url.clone()) }
            }
            Self::Data(uri) => ImageRef::data(uri.clone()),
            Self::Blob(hash) => ImageRef::blob(&hash.to_hex()),
        }
    }
}

/// The `task_id` of an undecodable message, if it shows one: for the dead letter only.
pub fn peek_task_id(payload: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Peek {
        task_id: String,
    }
    if payload.len() > 2 * MAX_MESSAGE_BYTES {
        return None;
    }
    let Peek { task_id } = serde_json::from_slice(payload).ok()?;
    check_token("task_id", &task_id, 64, b"._:-").is_ok().then_some(task_id)
}

/// A message of another version fails on its unknown fields first; the version is the more useful error.
pub(crate) fn explain(payload: &[u8], error: &serde_path_to_error::Error<serde_json::Error>) -> Invalid {
    #[derive(Deserialize)]
    struct Version {
        v: u64,
    }
    if let Err(error) = std::str::from_utf8(payload) {
        return Invalid::field("message", format!("is not UTF-8 from byte {} on", error.valid_up_to()));
    }
    if let Ok(Object(Version { v })) = serde_json::from_slice(payload)
        && let Err(version) = check_version(v)
    {
        return version;
    }
    let path = error.path().to_string();
    // serde_path_to_error ends the path with a question mark if the field's name could not be read.
    let path = path.trim_end_matches(['.', '?']);
    let field = if path.is_empty() { "message" } else { path };
    let text = match error.inner().classify() {
        Category::Syntax | Category::Eof => format!("is not valid JSON: {}", error.inner()),
        Category::Data | Category::Io => error.inner().to_string(),
    };
    Invalid::field(shortened(field), shortened(&text))
}

/// A message may hold megabytes of text, or a picture; its error travels in headers and logs.
fn shortened(text: &str) -> String {
    const MOST: usize = 400;
    match text.char_indices().nth(MOST) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

pub(crate) fn check_version(v: u64) -> Result<(), Invalid> {
    if v == u64::from(VERSION) {
        return Ok(());
    }
    Err(Invalid::field("v", format!("version {v} is not known; this worker speaks version {VERSION}")))
}

pub(crate) fn check_token(field: &str, text: &str, most: usize, punctuation: &[u8]) -> Result<(), Invalid> {
    let fits = (1..=most).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || punctuation.contains(&b));
    if fits {
        return Ok(());
    }
    let extra = String::from_utf8_lossy(punctuation);
    Err(Invalid::field(field, format!("must be 1-{most} of [A-Za-z0-9{extra}]")))
}

fn check_chars(field: &str, text: &str, least: usize, most: usize) -> Result<(), Invalid> {
    let count = text.chars().count();
    if !(least..=most).contains(&count) {
        return Err(Invalid::field(field, format!("must be {least} to {most} characters, not {count}")));
    }
    // Some databases and providers cut a text at a NUL.
    if text.contains('\0') {
        return Err(Invalid::field(field, "must not contain a NUL character"));
    }
    Ok(())
}

fn check_bytes(field: &str, bytes: usize, most: usize) -> Result<(), Invalid> {
    if bytes <= most {
        return Ok(());
    }
    Err(Invalid::field(field, format!("has {bytes} bytes as compact JSON; the limit is {most}")))
}

fn check_metadata(metadata: &Value) -> Result<(), Invalid> {
    if !metadata.is_object() {
        return Err(Invalid::field("metadata", "must be an object"));
    }
    check_bytes("metadata", metadata.to_string().len(), MAX_METADATA_BYTES)
}

fn source(field: &str, image: ImageRef) -> Result<Source, Invalid> {
    let digest = |name: &str, form: &str, hex: Option<&str>| {
        let wrong =
            || Invalid::field(format!("{field}.{name}"), format!("must be {form}64 lower-case hex digits"));
        hex.and_then(|hex| hex.parse::<ImageHash>().ok()).ok_or_else(wrong)
    };
    match image {
        ImageRef { url: Some(url), data: None, blob: None, image_hash } => {
            if url.len() > MAX_URL_BYTES {
                let message = format!("has {} bytes; the limit is {MAX_URL_BYTES}", url.len());
                return Err(Invalid::field(format!("{field}.url"), message));
            }
            let image_hash = image_hash.map(|hex| digest("image_hash", "", Some(&hex))).transpose()?;
            Ok(Source::Url { url, image_hash })
        }
        ImageRef { url: None, data: Some(data), blob: None, image_hash: None } => Ok(Source::Data(data)),
        ImageRef { url: None, data: None, blob: Some(blob), image_hash: None } => {
            digest("blob", "`sha256:` and ", blob.strip_prefix("sha256:")).map(Source::Blob)
        }
        ImageRef { image_hash: Some(_), .. } => Err(Invalid::field(
            format!("{field}.image_hash"),
            "goes with `url` only: the others say it themselves",
        )),
        _ => Err(Invalid::field(field, "must have exactly one of `url`, `data`, `blob`")),
    }
}

#[cfg(test)]
mod tests;
