//! Reads a whole 2xx answer in any shape that a provider, a gateway or a proxy gives it: the picture in it,
//! the task that it names, or why it has neither. All providers share this reader, for new answers and for
//! kept ones.
//!
//! Invariant: a value echoed from the request, or a draft, is never taken for the picture. An answer without
//! a recognised picture is kept whole, never treated as empty, because it was paid for.

mod fault;
mod find;

use bytes::Bytes;
use serde_json::{Deserializer, Value};
use url::Url;

use super::http::Answer;
use super::{EditError, UnreadableAnswer};
use crate::{coding, media};

pub(super) use fault::Fault;

/// Most bytes of a picture that is compressed inside an answer.
const MAX_PICTURE: usize = 256 * 1024 * 1024;
/// Length of the excerpt that is shown.
const SHOWN_CHARS: usize = 80;
/// Bytes of an answer that the excerpt is made from.
const SHOWN_BYTES: usize = 1024;

/// Location of the picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// In the answer.
    Bytes(Bytes),
    /// At an http or https address, unchanged.
    Url(String),
}

/// The parsed parts of an answer.
#[derive(Debug, Clone, Default)]
pub(super) struct Contents {
    /// The body is the picture itself.
    picture: Option<Bytes>,
    /// The body is not JSON but one word: perhaps a picture or an address.
    word: Option<String>,
    /// Its JSON documents: one, or one per event or line.
    documents: Vec<Value>,
}

impl Contents {
    /// Parses an answer.
    pub(super) fn of(body: &Bytes) -> Self {
        let body = match coding::decode_unnamed(body.clone(), MAX_PICTURE) {
            Ok(plain) => plain,
            Err(_) => return Self::default(),
        };
        if media::begins_like_a_picture(&body) {
            return Self { picture: Some(body), ..Self::default() };
        }
        let text = text(&body);
        let text = text.trim_matches(|char: char| char.is_whitespace() || matches!(char, '\u{feff}' | '\0'));
        let is_data_uri = text.get(..11).is_some_and(|head| head.eq_ignore_ascii_case("data:image/"));
        if text.starts_with(['{', '[', '"']) {
            return Self { documents: documents(text), ..Self::default() };
        }
        if !is_data_uri && is_events(text) {
            return Self { documents: events(text), ..Self::default() };
        }
        let is_word = !text.is_empty() && !text.contains(char::is_whitespace) || is_base64_lines(text);
        Self { word: is_word.then(|| text.to_owned()), ..Self::default() }
    }

    /// The picture, from the last document that has one: that is the final one.
    pub(super) fn picture(&self, base: &Url) -> Option<Found> {
        if let Some(picture) = &self.picture {
            return Some(Found::Bytes(picture.clone()));
        }
        if let Some(word) = &self.word {
            return find::in_word(word, base);
        }
        let documents = || self.documents.iter().rev();
        documents().find_map(|document| find::where_known(document, base))
    }

    /// As [`Contents::picture`], searching members of any name.
    pub(super) fn picture_anywhere(&self, base: &Url) -> Option<Found> {
        self.documents.iter().rev().find_map(|document| find::anywhere(document, base))
    }

    /// The id of an accepted task.
    pub(super) fn task_id(&self) -> Option<String> {
        self.documents.iter().rev().find_map(find::task_id)
    }

    /// The provider's own error, if the answer has one.
    pub(super) fn fault(&self) -> Option<Fault> {
        self.documents.iter().rev().find_map(Fault::of)
    }

    /// The last document that is an object, for adapter-specific members.
    pub(super) fn object(&self) -> Value {
        self.documents.iter().rev().find(|document| document.is_object()).cloned().unwrap_or_default()
    }

    /// A short description of an answer without a picture.
    fn what(&self, body: &[u8]) -> String {
        let head = body.trim_ascii_start();
        let begins = |with: &str| {
            head.get(..with.len()).is_some_and(|head| head.eq_ignore_ascii_case(with.as_bytes()))
        };
        if head.is_empty() {
            "it is empty".to_owned()
        } else if begins("<!doctype html") || begins("<html") {
            "it is an HTML page".to_owned()
        } else if self.documents.iter().any(find::is_draft) {
            "it holds drafts and no final picture".to_owned()
        } else if !self.documents.is_empty() {
            "it holds no picture in any place that is known".to_owned()
        } else {
            "it is neither a picture nor JSON".to_owned()
        }
    }
}

/// The error for an unreadable answer.
pub(super) fn unreadable(answer: &Answer, contents: &Contents, request_id: Option<String>) -> EditError {
    let what = answer.flaw.clone().unwrap_or_else(|| contents.what(&answer.body));
    unread(answer, what, request_id)
}

/// The error for an answer whose body could not be examined.
pub(super) fn unread(answer: &Answer, what: String, request_id: Option<String>) -> EditError {
    EditError::Unreadable(Box::new(UnreadableAnswer {
        status: answer.status,
        content_type: answer.content_type.clone(),
        request_id: request_id.or_else(|| answer.request_id.clone()),
        body: answer.body.clone(),
        what,
    }))
}

/// The first presentable characters of an answer: no control or bidirectional characters, no key, and of a
/// URL only its host.
pub(super) fn beginning(body: &[u8]) -> String {
    let head = String::from_utf8_lossy(&body[..body.len().min(SHOWN_BYTES)]);
    let shown = |char: &char| {
        !char.is_control()
            && !matches!(char, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fffd}')
    };
    let spaced = head.split_whitespace().collect::<Vec<_>>().join(" ");
    let printable: String = spaced.chars().filter(shown).collect();
    super::dashscope::presentable(&printable).chars().take(SHOWN_CHARS).collect()
}

/// UTF-8, or UTF-16 if a byte order mark says so.
fn text(body: &[u8]) -> String {
    let wide = |unit: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = body[2..].chunks_exact(2).map(|pair| unit([pair[0], pair[1]])).collect();
        String::from_utf16_lossy(&units)
    };
    match body {
        [0xff, 0xfe, ..] => wide(u16::from_le_bytes),
        [0xfe, 0xff, ..] => wide(u16::from_be_bytes),
        _ => String::from_utf8_lossy(body).into_owned(),
    }
}

/// One document, or one per line; a trailing part that is not JSON is ignored.
fn documents(text: &str) -> Vec<Value> {
    let read = Deserializer::from_str(text).into_iter::<Value>().map_while(Result::ok);
    let documents: Vec<Value> = read.collect();
    match documents.as_slice() {
        // JSON inside a JSON text.
        [Value::String(inner)] if inner.trim_start().starts_with(['{', '[']) => self::documents(inner.trim()),
        _ => documents,
    }
}

const FIELDS: [&str; 4] = ["data", "event", "id", "retry"];

/// Whether the first line is one of server-sent events: a field or a comment.
fn is_events(text: &str) -> bool {
    let line = text.lines().next().unwrap_or_default();
    line.starts_with(':')
        || FIELDS.iter().any(|field| line.strip_prefix(field).is_some_and(|rest| rest.starts_with(':')))
}

/// The JSON of each server-sent event. The event's name becomes its `type` if it has none.
/// <https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream>
fn events(text: &str) -> Vec<Value> {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut found = Vec::new();
    for event in text.split("\n\n") {
        let (mut name, mut data) = (None, Vec::new());
        for line in event.lines() {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "data" => data.push(value),
                "event" => name = Some(value.trim()),
                _ => {}
            }
        }
        let whole = documents(data.join("\n").trim());
        // One document over several lines, or one per line.
        let mut read = if whole.is_empty() {
            data.iter().flat_map(|line| documents(line.trim())).collect()
        } else {
            whole
        };
        if let (Some(name), [Value::Object(fields)]) = (name, read.as_mut_slice()) {
            fields.entry("type").or_insert_with(|| name.into());
        }
        found.append(&mut read);
    }
    found
}

/// Base64 is often broken into lines.
fn is_base64_lines(text: &str) -> bool {
    text.len() > 64
        && text.bytes().all(|byte| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_' | b'=' | b'\r' | b'\n')
        })
}

#[cfg(test)]
mod tests;
