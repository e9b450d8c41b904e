//! Finds the picture, or a task's id, in a JSON document: first in the known members, last in members of any
//! name, and never in members that repeat the request.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use serde_json::{Map, Value};
use url::Url;

use super::{Found, MAX_PICTURE};
use crate::{coding, media};

/// Lenient padding: a paid picture is not lost over it.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);
/// Deeper than any observed wrapper; bounds the cost of a hostile answer.
const MAX_DEPTH: usize = 10;
/// Shorter than any picture in base64.
const LEAST_BASE64: usize = 24;

/// Members with a picture in base64. Here and below names ignore case, `_` and `-`.
const BASE64_NAMES: [&str; 14] = [
    "b64json",
    "b64",
    "base64",
    "b64image",
    "imageb64",
    "imagebase64",
    "base64image",
    "base64data",
    "b64data",
    "bytesbase64encoded",
    "base64encoded",
    "imagebytes",
    "imagedata",
    "b64jsondata",
];
/// Wrappers around a picture, the likelier first.
const WRAPS: [&str; 34] = [
    "output",
    "outputs",
    "data",
    "images",
    "results",
    "result",
    "choices",
    "message",
    "delta",
    "content",
    "contents",
    "response",
    "candidates",
    "parts",
    "inlinedata",
    "predictions",
    "artifacts",
    "generatedimages",
    "outputimages",
    "outputimage",
    "resultimages",
    "resultimage",
    "resultlist",
    "imagelist",
    "editedimage",
    "generations",
    "items",
    "item",
    "body",
    "payload",
    "files",
    "file",
    "pictures",
    "picture",
];
/// Members with the address of a picture.
const URL_NAMES: [&str; 20] = [
    "url",
    "urls",
    "imageurl",
    "imageurls",
    "image",
    "img",
    "imageuri",
    "uri",
    "resulturl",
    "resulturls",
    "resultimageurl",
    "outputurl",
    "outputurls",
    "outputimageurl",
    "outputuri",
    "fileurl",
    "fileuri",
    "downloadurl",
    "signedurl",
    "publicurl",
];
/// Members of the request, its cost, or other pages: never the picture.
const NEVER: [&str; 44] = [
    "input",
    "inputs",
    "inputimage",
    "inputimages",
    "inputurl",
    "inputimageurl",
    "request",
    "requests",
    "req",
    "query",
    "prompt",
    "revisedprompt",
    "messages",
    "source",
    "sourceurl",
    "sourceimage",
    "original",
    "originalimage",
    "originalurl",
    "originimage",
    "initimage",
    "baseimage",
    "baseimageurl",
    "reference",
    "referenceimage",
    "referenceimages",
    "mask",
    "maskurl",
    "maskimage",
    "maskimageurl",
    "usage",
    "error",
    "errors",
    "parameters",
    "params",
    "config",
    "metadata",
    "meta",
    "links",
    "docs",
    "help",
    "user",
    "thumbnail",
    "logs",
];
const EXTENSIONS: [&str; 12] =
    [".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".jxl", ".svg"];

/// Searches the members that are known to hold a picture.
pub(super) fn where_known(document: &Value, base: &Url) -> Option<Found> {
    Search { base, any_name: false }.value(document, MAX_DEPTH)
}

/// Searches members of any name except those that repeat the request.
pub(super) fn anywhere(document: &Value, base: &Url) -> Option<Found> {
    Search { base, any_name: true }.value(document, MAX_DEPTH)
}

/// A one-word answer: an address, a data URI, or base64.
pub(super) fn in_word(word: &str, base: &Url) -> Option<Found> {
    Search { base, any_name: false }.text(word, false)
}

/// Whether this is a draft sent ahead of the picture.
pub(super) fn is_draft(document: &Value) -> bool {
    let Value::Object(fields) = document else { return false };
    let kind = fields.get("type").and_then(Value::as_str).unwrap_or_default();
    kind.contains("partial") || fields.keys().any(|name| plain(name).starts_with("partialimage"))
}

/// The id of a task, from any known member.
pub(super) fn task_id(document: &Value) -> Option<String> {
    task_id_within(document, MAX_DEPTH)
}

fn task_id_within(value: &Value, depth: usize) -> Option<String> {
    let depth = depth.checked_sub(1)?;
    match value {
        Value::Array(items) => items.iter().find_map(|item| task_id_within(item, depth)),
        Value::Object(fields) => {
            let own =
                fields.iter().filter(|(name, _)| plain(name) == "taskid").find_map(|(_, id)| match id {
                    Value::String(id) => Some(id.trim().to_owned()),
                    Value::Number(id) => Some(id.to_string()),
                    Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
                });
            // An id of dots would change the path of the poll.
            let own = own.filter(|id| !id.trim_matches('.').is_empty() && !is_nothing(id));
            own.or_else(|| {
                let others = fields.iter().filter(|(name, _)| !NEVER.contains(&plain(name).as_str()));
                others.into_iter().find_map(|(_, value)| task_id_within(value, depth))
            })
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

struct Search<'a> {
    base: &'a Url,
    any_name: bool,
}

impl Search<'_> {
    fn value(&self, value: &Value, depth: usize) -> Option<Found> {
        let depth = depth.checked_sub(1)?;
        match value {
            Value::Array(items) => items.iter().find_map(|item| self.value(item, depth)),
            Value::Object(fields) if !is_draft(value) => self.object(fields, depth),
            // JSON inside a JSON text, as proxies wrap it.
            Value::String(text) if text.starts_with(['{', '[']) => {
                self.value(&serde_json::from_str(text).ok()?, depth)
            }
            Value::String(text) => self.text(text, false),
            Value::Object(_) | Value::Null | Value::Bool(_) | Value::Number(_) => None,
        }
    }

    fn object(&self, fields: &Map<String, Value>, depth: usize) -> Option<Found> {
        let fields: Vec<(String, &Value)> = fields.iter().map(|(name, value)| (plain(name), value)).collect();
        let named = |names: &'static [&'static str]| {
            let own = |name: &'static str| fields.iter().filter(move |(own, _)| own == name);
            names.iter().flat_map(move |name| own(name).map(|(_, value)| (*name, *value)).collect::<Vec<_>>())
        };
        let in_base64 = || {
            named(&BASE64_NAMES).find_map(|(_, value)| match value {
                Value::String(text) => self.base64_or_address(text),
                other => self.value(other, depth),
            })
        };
        let wrapped = || {
            named(&WRAPS).find_map(|(name, value)| match value {
                // A message for people.
                Value::String(_) if name == "message" => None,
                value => self.value(value, depth),
            })
        };
        let at_url = || {
            named(&URL_NAMES).find_map(|(name, value)| match value {
                Value::String(text) => self.text(text, true),
                Value::Array(items) => items.iter().find_map(|item| match item {
                    Value::String(text) => self.text(text, true),
                    other => self.value(other, depth),
                }),
                // Links to poll and cancel.
                Value::Object(_) if name == "urls" => None,
                other => self.value(other, depth),
            })
        };
        in_base64().or_else(wrapped).or_else(at_url).or_else(|| self.others(&fields, depth))
    }

    fn others(&self, fields: &[(String, &Value)], depth: usize) -> Option<Found> {
        if !self.any_name {
            return None;
        }
        let others = fields.iter().filter(|(name, value)| {
            !NEVER.contains(&name.as_str()) && matches!(value, Value::Array(_) | Value::Object(_))
        });
        others.into_iter().find_map(|(_, value)| self.value(value, depth))
    }

    /// A member for base64 may hold an address instead.
    fn base64_or_address(&self, text: &str) -> Option<Found> {
        if text.contains("://") {
            return self.text(text, true);
        }
        decode(text).map(Found::Bytes)
    }

    /// A text that may be a picture or its address; `is_url`: the member's name says it is an address.
    fn text(&self, text: &str, is_url: bool) -> Option<Found> {
        let text = text.trim();
        if is_nothing(text) {
            return None;
        }
        if text.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("data:")) {
            return decode(text).map(Found::Bytes);
        }
        // Before it is parsed as a URL: words with a colon begin like one.
        if let Some(link) = in_markdown(text) {
            return self.text(link, is_url);
        }
        if let Ok(url) = Url::parse(text) {
            let is_web = matches!(url.scheme(), "http" | "https") && url.has_host();
            return (is_web && !text.contains(char::is_whitespace)).then(|| Found::Url(text.to_owned()));
        }
        if text.len() >= LEAST_BASE64
            && let Some(picture) = decode(text).filter(|bytes| media::begins_like_a_picture(bytes))
        {
            return Some(Found::Bytes(picture));
        }
        self.relative(text, is_url)
    }

    /// An address without a host, resolved against the base URL.
    fn relative(&self, text: &str, is_url: bool) -> Option<Found> {
        let path = text.split(['?', '#']).next().unwrap_or_default().to_ascii_lowercase();
        let is_path = path.starts_with('/') || path.starts_with("./") || path.starts_with("../");
        let is_file = EXTENSIONS.iter().any(|extension| path.ends_with(extension));
        let is_one = is_path || is_file || (is_url && path.contains('/'));
        if !is_one || text.contains(|char: char| char.is_whitespace() || char.is_control()) {
            return None;
        }
        let mut folder = self.base.clone();
        folder.set_query(None);
        folder.set_path(&format!("{}/", folder.path().trim_end_matches('/')));
        folder.join(text).ok().filter(Url::has_host).map(|url| Found::Url(url.into()))
    }
}

/// `![…](address)`, as chat models answer.
fn in_markdown(text: &str) -> Option<&str> {
    let image = &text[text.find("![")?..];
    let link = &image[image.find("](")? + 2..];
    link[..link.find(')')?].split_ascii_whitespace().next()
}

/// A normalised member name.
pub(super) fn plain(name: &str) -> String {
    name.chars().filter(|char| !matches!(char, '_' | '-')).collect::<String>().to_ascii_lowercase()
}

/// Placeholders of gateways for an empty value.
pub(super) fn is_nothing(text: &str) -> bool {
    matches!(text.trim().to_ascii_lowercase().as_str(), "" | "null" | "none" | "undefined" | "n/a" | "nil")
}

/// Base64 in either alphabet, bare or in a `data:` URI, which may be percent-encoded instead.
fn decode(text: &str) -> Option<Bytes> {
    if is_nothing(text) {
        return None;
    }
    let (head, data) = text.split_once(',').unwrap_or(("", text));
    let data = if data.contains('%') { percent_decoded(data) } else { data.as_bytes().to_vec() };
    let is_plain = head.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("data:"))
        && !head.to_ascii_lowercase().ends_with(";base64");
    if is_plain {
        return Some(Bytes::from(data)).filter(|bytes| !bytes.is_empty());
    }
    let data: Vec<u8> = data
        .into_iter()
        .filter(|byte| !byte.is_ascii_whitespace())
        .map(|byte| match byte {
            b'-' => b'+',
            b'_' => b'/',
            other => other,
        })
        .collect();
    let bytes = BASE64.decode(data).ok().filter(|bytes| !bytes.is_empty())?;
    coding::decode_unnamed(bytes.into(), MAX_PICTURE).ok()
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|hex| u8::from_str_radix(str::from_utf8(hex).ok()?, 16).ok());
        match hex {
            Some(byte) if *first == b'%' => (decoded.push(byte), rest = &after[2..]),
            _ => (decoded.push(*first), rest = after),
        };
    }
    decoded
}
