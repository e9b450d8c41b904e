//! The provider's errors: one table of its codes, and one function that decides what follows.
//!
//! Invariant: whether money may have been spent is decided here and nowhere else. For a code that is not in
//! [`CODES`] the HTTP status decides, and without a known status the most expensive reading: it may have been
//! paid.

use std::time::Duration;

use crate::editor::answer::Fault;
use crate::editor::{EditError, PROVIDER_ERROR};

/// Submits in all for an edit that the provider failed without a charge.
const TRIES: u32 = 3;
/// The longest message of the provider that is repeated.
const MAX_MESSAGE_CHARS: usize = 500;

/// The longest code; the known ones are far shorter.
const MAX_CODE_CHARS: usize = 64;

/// The request that was answered with an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// A submit of an asynchronous call.
    Create,
    /// A submit of a call that returns the picture.
    Call,
    /// Before the submit, during an upload to the provider's store.
    Upload,
    /// A poll; the error concerns the poll.
    Poll,
    /// A task's error inside a successful poll. The task has ended, and another poll changes nothing.
    Task,
}

/// The subject of a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// This request is bad, or its content is refused.
    Refused,
    /// The provider could not fetch the picture, this time.
    Download,
    /// The account, its key, rights or money, or a retired model.
    Account,
    /// The requested object does not exist.
    Missing,
    /// Too many requests.
    Throttled,
    /// The model is unreachable at the moment; the provider's gateway says so, and has not forwarded the
    /// request.
    NoModel,
    /// An internal failure of the provider.
    Internal,
    /// An undocumented code.
    Other,
}

/// Every code of the provider's error pages. For a missing one the lookup drops its last `.part`.
pub(super) const CODES: &[(&str, Kind)] = &[
    // 400
    ("InvalidParameter", Kind::Refused),
    ("InvalidParameter.DataInspection", Kind::Download),
    ("BadRequest.EmptyInput", Kind::Refused),
    ("BadRequest.EmptyParameters", Kind::Refused),
    ("BadRequest.EmptyModel", Kind::Refused),
    ("BadRequest.TooLarge", Kind::Refused),
    ("BadRequest.InputDownloadFailed", Kind::Download),
    ("InvalidURL", Kind::Refused),
    ("InvalidURL.ConnectionRefused", Kind::Download),
    ("InvalidURL.Timeout", Kind::Download),
    ("InvalidImage.FileFormat", Kind::Refused),
    ("InvalidImageResolution", Kind::Refused),
    ("UnsupportedOperation", Kind::Refused),
    ("DataInspectionFailed", Kind::Refused),
    ("data_inspection_failed", Kind::Refused),
    ("IPInfringementSuspect", Kind::Refused),
    ("Arrearage", Kind::Account),
    // 401, 403, 404. AccessDenied also answers an API style that the model does not have: every edit would
    // meet it.
    ("InvalidApiKey", Kind::Account),
    ("AccessDenied", Kind::Account),
    ("AccessDenied.Unpurchased", Kind::Account),
    ("Model.AccessDenied", Kind::Account),
    ("Workspace.AccessDenied", Kind::Account),
    ("AllocationQuota.FreeTierOnly", Kind::Account),
    ("ModelNotFound", Kind::Account),
    ("model_not_found", Kind::Account),
    ("WorkSpaceNotFound", Kind::Account),
    ("NotFound", Kind::Missing),
    // 429
    ("Throttling", Kind::Throttled),
    ("Throttling.RateQuota", Kind::Throttled),
    ("Throttling.BurstRate", Kind::Throttled),
    ("Throttling.Concurrency", Kind::Throttled),
    ("Throttling.AllocationQuota", Kind::Throttled), // unless its message says that the free quota is used up
    ("LimitRequests", Kind::Throttled),
    ("CommodityNotPurchased", Kind::Account),
    ("PrepaidBillOverdue", Kind::Account),
    ("PostpaidBillOverdue", Kind::Account),
    // 408, 500, 503
    ("RequestTimeOut", Kind::Internal),
    ("InternalError", Kind::Internal),
    ("InternalError.Algo", Kind::Internal),
    ("InternalError.Upload", Kind::Internal),
    ("InternalError.FileUpload", Kind::Internal),
    ("InternalError.Timeout", Kind::Internal),
    ("SystemError", Kind::Internal),
    ("ModelServiceFailed", Kind::Internal),
    ("ModelServingError", Kind::Internal),
    ("ModelUnavailable", Kind::NoModel),
];

impl Kind {
    /// The kind of this code with this message.
    pub(super) fn of(code: &str, message: &str) -> Self {
        // A used-up free quota shares its code with a limit per minute, but does not pass.
        if code == "Throttling.AllocationQuota" && message.contains("Free allocated quota exceeded") {
            return Self::Account;
        }
        let mut name = code;
        loop {
            if let Some((_, kind)) = CODES.iter().find(|(known, _)| *known == name) {
                return *kind;
            }
            match name.rsplit_once('.') {
                Some((family, _)) => name = family,
                None => return Self::Other,
            }
        }
    }
}

/// What the caller does next: the variants of [`EditError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    NotSent,
    RateLimited,
    Unbilled,
    Unavailable,
    Ambiguous,
    Rejected,
    Blocked,
}

/// What the caller does next.
pub(super) const fn class(kind: Kind, place: Place, status: u16) -> Class {
    match kind {
        Kind::Refused => match place {
            Place::Create | Place::Call | Place::Upload | Place::Task => Class::Rejected,
            // The poll was refused, not the edit, which may be paid for.
            Place::Poll => Class::Unavailable,
        },
        Kind::Download => match place {
            Place::Create | Place::Call | Place::Task => Class::Unbilled,
            Place::Upload => Class::NotSent,
            Place::Poll => Class::Unavailable,
        },
        Kind::Account => match place {
            Place::Create | Place::Call | Place::Upload | Place::Poll => Class::Blocked,
            // The edit has ended. The next submit gets the same error, and blocks the lane where it can be
            // resumed.
            Place::Task => Class::Unbilled,
        },
        Kind::Missing => match place {
            Place::Create | Place::Call | Place::Upload => Class::Blocked,
            Place::Poll => Class::Unavailable,
            Place::Task => Class::Rejected,
        },
        Kind::Throttled => match place {
            Place::Create | Place::Call | Place::Upload | Place::Poll => Class::RateLimited,
            Place::Task => Class::Unbilled,
        },
        // The provider answered with its own code, which no proxy has, and took nothing. So this is not
        // ambiguous like other 5xx; and an outage is no failure of the edit, so it costs no attempt.
        Kind::NoModel => match place {
            Place::Create | Place::Call | Place::Upload => Class::RateLimited,
            Place::Poll => Class::Unavailable,
            Place::Task => Class::Unbilled,
        },
        // A submit that failed inside the provider may have created a task.
        Kind::Internal => match place {
            Place::Create | Place::Call => Class::Ambiguous,
            Place::Upload => Class::NotSent,
            Place::Poll => Class::Unavailable,
            Place::Task => Class::Unbilled,
        },
        Kind::Other => by_status(place, Status::of(status)),
    }
}

/// HTTP statuses, for answers without a known code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Success,
    Redirect,
    NotAllowed,
    NotFound,
    Timeout,
    TooMany,
    Refused,
    Failed,
    Odd,
}

impl Status {
    const fn of(status: u16) -> Self {
        match status {
            200..=299 => Self::Success,
            300..=399 => Self::Redirect,
            401..=403 => Self::NotAllowed,
            404 => Self::NotFound,
            408 => Self::Timeout,
            429 => Self::TooMany,
            400 | 405..=407 | 409..=428 | 430..=499 => Self::Refused,
            500..=599 => Self::Failed,
            0..=199 | 600..=u16::MAX => Self::Odd,
        }
    }
}

const fn by_status(place: Place, status: Status) -> Class {
    match place {
        Place::Create | Place::Call => match status {
            Status::Refused => Class::Rejected,
            Status::TooMany => Class::RateLimited,
            // A wrong base URL answers every edit with a redirect or a 404.
            Status::NotAllowed | Status::NotFound | Status::Redirect => Class::Blocked,
            Status::Success | Status::Timeout | Status::Failed | Status::Odd => Class::Ambiguous,
        },
        Place::Upload => match status {
            Status::Refused => Class::Rejected,
            Status::TooMany => Class::RateLimited,
            Status::NotAllowed | Status::NotFound | Status::Redirect => Class::Blocked,
            Status::Success | Status::Timeout | Status::Failed | Status::Odd => Class::NotSent,
        },
        Place::Poll => match status {
            Status::TooMany => Class::RateLimited,
            Status::NotAllowed => Class::Blocked,
            Status::Success
            | Status::Redirect
            | Status::NotFound
            | Status::Timeout
            | Status::Refused
            | Status::Failed
            | Status::Odd => Class::Unavailable,
        },
        // The status belongs to the poll; the edit has failed and costs nothing in any case.
        Place::Task => Class::Rejected,
    }
}

/// Classifies an error of the provider. `code` may be empty.
pub(super) fn classify(
    place: Place,
    status: u16,
    code: &str,
    message: &str,
    retry_after: Option<Duration>,
) -> EditError {
    let class = class(Kind::of(code, message), place, status);
    let message = presentable(message);
    let code = match (code, place) {
        ("", Place::Task) => "task_failed".to_owned(),
        ("", Place::Create | Place::Call | Place::Upload | Place::Poll) => format!("http_{status}"),
        (code, _) => presentable(code).chars().take(MAX_CODE_CHARS).collect(),
    };
    let message = if message.is_empty() { "the provider gave no reason".to_owned() } else { message };
    let words = || format!("HTTP {status}, {code}: {message}");
    match class {
        Class::NotSent => EditError::NotSent(words()),
        Class::Unavailable => EditError::Unavailable(words()),
        Class::Ambiguous => EditError::Ambiguous(words()),
        Class::RateLimited => EditError::RateLimited { retry_after, message: words() },
        Class::Unbilled => EditError::Unbilled { code, message, tries: TRIES },
        Class::Rejected => EditError::Rejected { code, message },
        Class::Blocked => EditError::Blocked { code, message },
    }
}

/// Classifies an error inside a 2xx answer. The request was answered, so an unknown code, or one that leaves
/// the charge open, is final.
pub(super) fn within_success(place: Place, fault: &Fault, retry_after: Option<Duration>) -> EditError {
    let code = fault.code.as_deref().or(fault.kind.as_deref()).unwrap_or(PROVIDER_ERROR);
    match classify(place, fault.status().unwrap_or(200), code, &fault.message, retry_after) {
        EditError::Ambiguous(_) => {
            // A task's error is always final, in the same words.
            match classify(Place::Task, 200, code, &fault.message, None) {
                EditError::Rejected { code, message } | EditError::Unbilled { code, message, .. } => {
                    EditError::Rejected { code, message }
                }
                other => other,
            }
        }
        told => told,
    }
}

/// Makes a provider's message fit for tables and logs: one line, bounded, without the key that some gateways
/// repeat, with only the host of a URL (the rest may be a signature), and without a picture in base64.
pub(in crate::editor) fn presentable(text: &str) -> String {
    let words: Vec<_> = text.split_whitespace().map(without_secrets).collect();
    let text = words.join(" ");
    if text.chars().count() <= MAX_MESSAGE_CHARS {
        return text;
    }
    text.chars().take(MAX_MESSAGE_CHARS - 1).chain(['…']).collect()
}

fn without_secrets(word: &str) -> String {
    let url = word.find("://").and_then(|at| {
        let host = at + 3;
        let is_host = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-');
        word[host..].find(|c| !is_host(c)).map(|end| host + end)
    });
    let mut keys = word.match_indices("sk-").filter(|(at, _)| !word[..*at].ends_with(char::is_alphanumeric));
    let key = keys.next().map(|(at, found)| at + found.len());
    let data = word.find(";base64,").map(|at| at + 8);
    // Cut at the first of them.
    match [url, key, data].into_iter().flatten().min() {
        Some(at) => format!("{}…", &word[..at]),
        None => word.to_owned(),
    }
}

#[cfg(test)]
mod tests;
