//! Every answer without a picture, by what the caller does next.
//!
//! A known code decides whatever the status, since a gateway often puts a status of its own around the
//! provider's code; then the type, which OpenAI keeps broader; then the status alone. Invariant: no call that
//! may have been paid for is called refused or rate limited, and no text holds a key or a part of one.
//! <https://platform.openai.com/docs/guides/error-codes>

use std::time::Duration;

use serde_json::Value;

use crate::editor::answer::Fault;
use crate::editor::http::Answer;
use crate::editor::{EditError, PROVIDER_ERROR};

/// The longest message that is passed on.
const MAX_MESSAGE_CHARS: usize = 500;
/// The longest code; longer ones are sentences in the wrong field.
const MAX_CODE_CHARS: usize = 64;
/// Bytes examined of an answer that is not JSON (an error page, mostly).
const MAX_TEXT_BYTES: usize = 4096;

/// Meaning of a code, a type or a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// A person must act: key, money, model, address.
    Blocked,
    /// Nothing was taken; retry later.
    RateLimited,
    /// Final for this edit.
    Rejected,
    /// It may have been paid.
    Ambiguous,
}

use Verdict::{Ambiguous, Blocked, RateLimited, Rejected};

/// Codes and types. `invalid_request_error` and `server_error` are missing: OpenAI uses these types for
/// everything.
const KNOWN: [(&str, Verdict); 60] = [
    // Key, organisation, place.
    ("invalid_api_key", Blocked),
    ("invalid_authentication", Blocked),
    ("authentication_error", Blocked),
    ("auth_error", Blocked),
    ("expired_key", Blocked),
    ("token_not_found_in_db", Blocked),
    ("account_deactivated", Blocked),
    ("deactivated_workspace", Blocked),
    ("invalid_organization", Blocked),
    ("invalid_project", Blocked),
    ("ip_not_authorized", Blocked),
    ("permission_error", Blocked),
    ("permission_denied", Blocked),
    ("insufficient_permissions", Blocked),
    ("missing_scope", Blocked),
    ("key_model_access_denied", Blocked),
    ("team_model_access_denied", Blocked),
    ("unsupported_country_region_territory", Blocked),
    // Model.
    ("model_not_found", Blocked),
    ("model_not_available", Blocked),
    ("model_deprecated", Blocked),
    ("get_channel_failed", Blocked), // new-api: no channel serves the model
    // Money. These come as 400, 403 and 429.
    ("insufficient_quota", Blocked),
    ("billing_hard_limit_reached", Blocked),
    ("billing_not_active", Blocked),
    ("credit_balance_exhausted", Blocked),
    ("organization_spend_limit_exceeded", Blocked),
    ("organization_usage_limit_exceeded", Blocked),
    ("project_spend_limit_exceeded", Blocked),
    ("insufficient_user_quota", Blocked),
    ("pre_consume_token_quota_failed", Blocked),
    ("budget_exceeded", Blocked),
    // Too much at once. The last three are types.
    ("rate_limit_exceeded", RateLimited),
    ("slow_down", RateLimited),
    ("rate_limit_error", RateLimited),
    ("throttling_error", RateLimited),
    ("requests", RateLimited),
    ("tokens", RateLimited),
    // Content.
    ("moderation_blocked", Rejected),
    ("content_policy_violation", Rejected),
    ("content_filter", Rejected),
    ("image_generation_user_error", Rejected),
    ("sensitive_words_detected", Rejected),
    // The request.
    ("invalid_value", Rejected),
    ("invalid_type", Rejected),
    ("invalid_prompt", Rejected),
    ("invalid_size", Rejected),
    ("invalid_image", Rejected),
    ("invalid_image_file", Rejected),
    ("invalid_image_format", Rejected),
    ("invalid_mask_image_format", Rejected),
    ("invalid_input_fidelity_model", Rejected),
    ("image_too_large", Rejected),
    ("image_too_small", Rejected),
    ("unsupported_image_format", Rejected),
    ("unsupported_file_mimetype", Rejected),
    ("missing_required_parameter", Rejected),
    ("unknown_parameter", Rejected),
    ("unsupported_parameter", Rejected),
    ("unsupported_value", Rejected),
];

/// OpenAI's message for an empty account, for gateways that forward it without its code.
const QUOTA_WORDS: &str = "exceeded your current quota";

fn known(word: &str) -> Option<Verdict> {
    KNOWN.into_iter().find(|(known, _)| *known == word).map(|(_, verdict)| verdict)
}

/// For an answer without a known code or type.
const fn by_status(status: u16) -> Verdict {
    match status {
        // Not a final answer, or a success without a picture.
        0..=299 => Ambiguous,
        // Redirects are not followed: picture and key would go to an unconfigured host.
        300..=399 => Blocked,
        // Key, money, permission, no such model or path, a proxy's password, gone for good, misdirected.
        401..=405 | 407 | 410 | 421 => Blocked,
        400 | 406 | 411..=420 | 422..=424 | 426..=428 | 430..=498 => Rejected,
        // Too early, too many.
        425 | 429 => RateLimited,
        // Timeout, conflict, client closed (by a proxy): the provider had the request by then.
        408 | 409 | 499 => Ambiguous,
        500..=u16::MAX => Ambiguous,
    }
}

/// An error inside a 2xx answer: by its code, its type, or a status in place of a code. The request was
/// answered, so an unknown error is final.
pub(super) fn within_success(fault: &Fault, key: &str, retry_after: Option<Duration>) -> EditError {
    let (kind, code) = (fault.kind.clone().and_then(as_code), fault.code.clone().and_then(as_code));
    let message = fit(&fault.message, key);
    let status = fault.status().unwrap_or(200);
    match classify(status, kind.as_deref(), code.as_deref(), &message, retry_after) {
        EditError::Ambiguous(_) => EditError::Rejected {
            code: code.or(kind).unwrap_or_else(|| PROVIDER_ERROR.to_owned()),
            message: if message.is_empty() { "the provider gave no reason".to_owned() } else { message },
        },
        told => told,
    }
}

/// The error for an answer without a picture.
pub(super) fn refused(answer: &Answer, key: &str) -> EditError {
    let Said { kind, code, message } = said(&answer.body);
    classify(answer.status, kind.as_deref(), code.as_deref(), &fit(&message, key), answer.retry_after)
}

fn classify(
    status: u16,
    kind: Option<&str>,
    code: Option<&str>,
    message: &str,
    retry_after: Option<Duration>,
) -> EditError {
    let out_of_quota = status == 429 && message.contains(QUOTA_WORDS);
    let decided = code.and_then(known).or_else(|| kind.and_then(known));
    let (verdict, code) = match (decided, out_of_quota) {
        // A broad "too many" that means an empty account.
        (None | Some(RateLimited), true) => (Blocked, Some("insufficient_quota")),
        (Some(verdict), true | false) => (verdict, code.or(kind)),
        (None, false) => (by_status(status), code.or(kind)),
    };
    let code = code.map_or_else(|| format!("http_{status}"), str::to_owned);
    let message = match (message, status) {
        ("", 300..=399) => {
            "the base URL answers with a redirect; give the address that it leads to".to_owned()
        }
        ("", _) => format!("the provider answered {status} without a message"),
        (message, 404 | 405) if code.starts_with("http_") => {
            format!("{message} (is the base URL right? It answered {status})")
        }
        (message, _) => message.to_owned(),
    };
    match verdict {
        Blocked => EditError::Blocked { code, message },
        RateLimited => EditError::RateLimited { retry_after, message: format!("{code}: {message}") },
        Rejected => EditError::Rejected { code, message },
        Ambiguous => EditError::Ambiguous(format!("the provider answered {status}: {code}: {message}")),
    }
}

/// An error in the answer's own words.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    kind: Option<String>,
    code: Option<String>,
    message: String,
}

/// OpenAI nests it under `error`; some gateways write it flat, as `detail`, or as plain text.
fn said(body: &[u8]) -> Said {
    let Ok(whole) = serde_json::from_slice::<Value>(body) else {
        let head = body.get(..MAX_TEXT_BYTES).unwrap_or(body);
        return Said { message: String::from_utf8_lossy(head).into_owned(), ..Said::default() };
    };
    let within = |value: &Value, name: &str| value.get(name).filter(|value| !value.is_null()).cloned();
    let inner = within(&whole, "error").or_else(|| within(&whole, "detail")).unwrap_or_else(|| whole.clone());
    let inner = within(&inner, "error").unwrap_or(inner);
    // A single word under `error` is a code, with its siblings beside it.
    let (fields, bare) = match &inner {
        Value::String(text) => (&whole, Some(text.as_str())),
        other => (other, None),
    };
    let field = |name: &str| fields.get(name).and_then(text_of);
    let message = field("message").or_else(|| field("msg")).or_else(|| field("error_description"));
    Said {
        kind: field("type").and_then(as_code),
        code: field("code").or_else(|| bare.map(str::to_owned)).and_then(as_code),
        message: message.or_else(|| bare.map(str::to_owned)).unwrap_or_else(|| unnamed(&inner)),
    }
}

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A code that programs can compare. A status in its place (litellm) carries no meaning, nor does Python's
/// `None`.
fn as_code(text: String) -> Option<String> {
    let usable = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b':');
    let is_status = text.parse::<u16>().is_ok_and(|number| (100..600).contains(&number));
    let is_code = !text.is_empty() && text.len() <= MAX_CODE_CHARS && text.bytes().all(usable);
    // A key can look like a code.
    (is_code && !is_status && text != "None" && !looks_like_key(&text)).then_some(text)
}

/// A message in an unknown field.
fn unnamed(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Object(fields) if fields.is_empty() => String::new(),
        other => other.to_string(),
    }
}

/// Makes a message presentable: without keys, on one line, bounded. OpenAI's 401 repeats a part of the key.
fn fit(message: &str, key: &str) -> String {
    let message = message.replace(key, "[key]");
    let mut after_bearer = false;
    let mut words = Vec::new();
    for word in message.split(|char: char| char.is_whitespace() || char.is_control()) {
        if word.is_empty() {
            continue;
        }
        let hidden = after_bearer || looks_like_key(word);
        after_bearer = word.to_ascii_lowercase().ends_with("bearer");
        words.push(if hidden { "[key]" } else { word });
    }
    let line = words.join(" ");
    match line.char_indices().nth(MAX_MESSAGE_CHARS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// `sk-…` at the beginning of a word or after a punctuation mark, and starred-out text.
fn looks_like_key(word: &str) -> bool {
    let begins = |(at, _): (usize, &str)| !word[..at].ends_with(char::is_alphanumeric);
    word.contains("**") || word.match_indices("sk-").any(begins)
}

#[cfg(test)]
mod tests;
