//! A provider's error inside an answer with status 200.

use serde_json::{Map, Value};

use super::find::{is_nothing, plain};

/// Greatest observed nesting of errors.
const MAX_DEPTH: usize = 4;
const ERRORS: [&str; 4] = ["error", "errors", "err", "fault"];
const MESSAGES: [&str; 8] =
    ["message", "msg", "errormessage", "errormsg", "errordescription", "detail", "details", "reason"];
const CODES: [&str; 4] = ["code", "errorcode", "errcode", "errno"];
const WRAPS: [&str; 6] = ["response", "output", "data", "result", "body", "header"];

/// A provider's error.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::editor) struct Fault {
    /// Its code, also a number; `None` if it has none.
    pub(in crate::editor) code: Option<String>,
    /// Its broader type.
    pub(in crate::editor) kind: Option<String>,
    /// For people; may be empty.
    pub(in crate::editor) message: String,
}

impl Fault {
    /// The error in a document, if it is one.
    pub(super) fn of(document: &Value) -> Option<Self> {
        Self::within(document, MAX_DEPTH)
    }

    /// An HTTP status in place of a code.
    pub(in crate::editor) fn status(&self) -> Option<u16> {
        self.code.as_deref()?.parse().ok().filter(|status| (400..600).contains(status))
    }

    fn within(document: &Value, depth: usize) -> Option<Self> {
        let depth = depth.checked_sub(1)?;
        let fields = match document {
            Value::Object(fields) => fields,
            Value::Array(items) => return items.iter().find_map(|item| Self::within(item, depth)),
            _ => return None,
        };
        let nested = ERRORS.iter().filter_map(|name| member(fields, name));
        let nested = nested.into_iter().find_map(|error| Self::told(error, fields, depth));
        let wraps = || WRAPS.iter().filter_map(|name| member(fields, name));
        nested.or_else(|| Self::flat(fields)).or_else(|| wraps().find_map(|wrap| Self::within(wrap, depth)))
    }

    /// Reads the value of `error`; `beside` holds its siblings.
    fn told(error: &Value, beside: &Map<String, Value>, depth: usize) -> Option<Self> {
        match error {
            Value::String(text) => {
                // A single word is a code; the message stands beside it.
                let is_code = !text.contains(char::is_whitespace);
                let code = first(beside, &CODES).or_else(|| is_code.then(|| text.clone()));
                let message = first(beside, &MESSAGES).unwrap_or_else(|| text.clone());
                Some(Self { code, kind: None, message }).filter(|_| !is_nothing(text))
            }
            Value::Object(fields) if !fields.is_empty() => {
                let deeper = member(fields, "error").filter(|inner| inner.is_object());
                let deeper = deeper.and_then(|inner| Self::told(inner, fields, depth.checked_sub(1)?));
                deeper.or_else(|| Some(Self::fields(fields)))
            }
            Value::Array(errors) => {
                errors.iter().find_map(|error| Self::told(error, beside, depth.checked_sub(1)?))
            }
            Value::Bool(true) => Some(Self::fields(beside)),
            Value::Object(_) | Value::Null | Value::Bool(false) | Value::Number(_) => None,
        }
    }

    /// A code beside a message, as DashScope writes it, or a plain failure flag.
    fn flat(fields: &Map<String, Value>) -> Option<Self> {
        let fault = Self::fields(fields);
        let says_no = member(fields, "success") == Some(&Value::Bool(false))
            || member(fields, "status").and_then(Value::as_str).is_some_and(|status| {
                matches!(status.to_ascii_lowercase().as_str(), "error" | "failed" | "failure" | "fail")
            });
        let is_code = fault.code.as_deref().is_some_and(|code| !is_good(code));
        let is_number =
            fault.code.as_deref().is_some_and(|code| code.bytes().all(|byte| byte.is_ascii_digit()));
        let is_error = is_code && !is_good(&fault.message) && (!is_number || !fault.message.is_empty());
        (says_no || is_error).then_some(fault)
    }

    fn fields(fields: &Map<String, Value>) -> Self {
        let kind = member(fields, "type").and_then(text).filter(|kind| !is_nothing(kind));
        let message = first(fields, &MESSAGES).unwrap_or_default();
        let code = first(fields, &CODES)
            .or_else(|| first(fields, &["status"]).filter(|code| code.parse::<u16>().is_ok()));
        Self { code, kind, message }
    }
}

fn member<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    fields.iter().find(|(own, _)| plain(own) == name).map(|(_, value)| value)
}

fn first(fields: &Map<String, Value>, names: &[&str]) -> Option<String> {
    let texts = names.iter().filter_map(|name| member(fields, name).and_then(text));
    texts.into_iter().find(|text| !is_nothing(text))
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Codes and messages that mean success.
fn is_good(word: &str) -> bool {
    let word = word.trim().to_ascii_lowercase();
    matches!(word.as_str(), "0" | "ok" | "success" | "succeeded" | "succeed" | "成功" | "completed")
        || word.parse::<u16>().is_ok_and(|code| (200..300).contains(&code))
}
