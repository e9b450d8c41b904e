//! Every documented code, its class in each place, and the part of its message that is repeated.

use std::collections::BTreeSet;

use super::Class::{Ambiguous, Blocked, NotSent, RateLimited, Rejected, Unavailable, Unbilled};
use super::*;

/// Code, status, and the class in a submit's answer, in an upload, in a poll, and of an ended task.
type Row = (&'static str, u16, [Class; 4]);

const REFUSED: [Class; 4] = [Rejected, Rejected, Unavailable, Rejected];
const DOWNLOAD: [Class; 4] = [Unbilled, NotSent, Unavailable, Unbilled];
const ACCOUNT: [Class; 4] = [Blocked, Blocked, Blocked, Unbilled];
const THROTTLED: [Class; 4] = [RateLimited, RateLimited, RateLimited, Unbilled];
const INTERNAL: [Class; 4] = [Ambiguous, NotSent, Unavailable, Unbilled];

/// The table of the provider's error pages as of November 2026, written down a second time.
const PAGES: &[Row] = &[
    ("InvalidParameter", 400, REFUSED),
    ("InvalidParameter.DataInspection", 400, DOWNLOAD),
    ("BadRequest.EmptyInput", 400, REFUSED),
    ("BadRequest.EmptyParameters", 400, REFUSED),
    ("BadRequest.EmptyModel", 400, REFUSED),
    ("BadRequest.TooLarge", 413, REFUSED),
    ("BadRequest.InputDownloadFailed", 400, DOWNLOAD),
    ("InvalidURL", 400, REFUSED),
    ("InvalidURL.ConnectionRefused", 400, DOWNLOAD),
    ("InvalidURL.Timeout", 400, DOWNLOAD),
    ("InvalidImage.FileFormat", 400, REFUSED),
    ("InvalidImageResolution", 400, REFUSED),
    ("UnsupportedOperation", 400, REFUSED),
    ("DataInspectionFailed", 400, REFUSED),
    ("data_inspection_failed", 400, REFUSED),
    ("IPInfringementSuspect", 400, REFUSED),
    ("Arrearage", 400, ACCOUNT),
    ("InvalidApiKey", 401, ACCOUNT),
    ("AccessDenied", 403, ACCOUNT),
    ("AccessDenied.Unpurchased", 403, ACCOUNT),
    ("Model.AccessDenied", 403, ACCOUNT),
    ("Workspace.AccessDenied", 403, ACCOUNT),
    ("AllocationQuota.FreeTierOnly", 403, ACCOUNT),
    ("ModelNotFound", 404, ACCOUNT),
    ("model_not_found", 404, ACCOUNT),
    ("WorkSpaceNotFound", 404, ACCOUNT),
    ("NotFound", 404, [Blocked, Blocked, Unavailable, Rejected]),
    ("RequestTimeOut", 408, INTERNAL),
    ("RequestTimeOut", 500, INTERNAL),
    ("Throttling", 429, THROTTLED),
    ("Throttling.RateQuota", 429, THROTTLED),
    ("Throttling.BurstRate", 429, THROTTLED),
    ("Throttling.Concurrency", 429, THROTTLED),
    ("Throttling.AllocationQuota", 429, THROTTLED),
    ("LimitRequests", 429, THROTTLED),
    ("CommodityNotPurchased", 429, ACCOUNT),
    ("PrepaidBillOverdue", 429, ACCOUNT),
    ("PostpaidBillOverdue", 429, ACCOUNT),
    ("InternalError", 500, INTERNAL),
    ("InternalError.Algo", 500, INTERNAL),
    ("InternalError.Upload", 500, INTERNAL),
    ("InternalError.FileUpload", 500, INTERNAL),
    ("InternalError.Timeout", 500, INTERNAL),
    ("SystemError", 500, INTERNAL),
    ("ModelServiceFailed", 500, INTERNAL),
    ("ModelServingError", 500, INTERNAL),
    ("ModelServingError", 503, INTERNAL),
    ("ModelUnavailable", 503, [RateLimited, RateLimited, Unavailable, Unbilled]),
];

const PLACES: [[Place; 2]; 4] = [
    [Place::Create, Place::Call],
    [Place::Upload, Place::Upload],
    [Place::Poll, Place::Poll],
    [Place::Task, Place::Task],
];

fn class_of(error: &EditError) -> Class {
    match error {
        EditError::NotSent(_) => NotSent,
        EditError::RateLimited { .. } => RateLimited,
        EditError::Unbilled { .. } => Unbilled,
        EditError::Unavailable(_) => Unavailable,
        EditError::Ambiguous(_) => Ambiguous,
        EditError::Unreadable(_) => panic!("no error of the provider's"),
        EditError::Rejected { .. } => Rejected,
        EditError::Blocked { .. } => Blocked,
    }
}

fn check(status: u16, code: &str, message: &str, expected: [Class; 4]) {
    for (places, expected) in PLACES.into_iter().zip(expected) {
        for place in places {
            let error = classify(place, status, code, message, None);
            assert_eq!(class_of(&error), expected, "{status} {code} in {place:?}: {error}");
        }
    }
}

#[test]
fn every_documented_code_of_the_provider_has_a_class() {
    for (code, status, expected) in PAGES {
        check(*status, code, "words", *expected);
        // A code means the same in a successful answer.
        check(200, code, "words", *expected);
    }
    let pages: BTreeSet<_> = PAGES.iter().map(|(code, ..)| code).collect();
    let known: BTreeSet<_> = CODES.iter().map(|(code, _)| code).collect();
    assert_eq!(known, pages);
    assert_eq!(known.len(), CODES.len(), "a code stands in the table twice");
}

#[test]
fn a_used_up_free_quota_blocks_despite_its_throttling_code() {
    let message = "Free allocated quota exceeded.";
    check(429, "Throttling.AllocationQuota", message, ACCOUNT);
    check(
        429,
        "Throttling.AllocationQuota",
        "Allocated quota exceeded, please increase your quota limit.",
        THROTTLED,
    );
}

#[test]
fn an_undocumented_code_is_read_as_its_family() {
    for (code, expected) in [
        ("InvalidParameter.Size.TooBig", REFUSED),
        ("Throttling.Moon", THROTTLED),
        ("AccessDenied.Moon", ACCOUNT),
        ("InternalError.Moon", INTERNAL),
    ] {
        check(418, code, "", expected);
    }
    assert_eq!(Kind::of("Invalid", ""), Kind::Other);
    assert_eq!(Kind::of("", ""), Kind::Other);
}

#[test]
fn without_a_known_code_the_status_decides_and_doubt_means_paid() {
    let retired = [Blocked, Blocked, Unavailable, Rejected];
    let forbidden = [Blocked, Blocked, Blocked, Rejected];
    let refused = [Rejected, Rejected, Unavailable, Rejected];
    let doubt = [Ambiguous, NotSent, Unavailable, Rejected];
    for code in ["", "Moon.Eclipse"] {
        for (statuses, expected) in [
            ([200, 299].as_slice(), doubt),
            (&[302, 307], retired),
            (&[401, 402, 403], forbidden),
            (&[404], retired),
            (&[408], doubt),
            (&[429], [RateLimited, RateLimited, RateLimited, Rejected]),
            (&[400, 405, 409, 413, 422, 499], refused),
            (&[500, 502, 503, 504, 599], doubt),
            (&[0, 101, 600, u16::MAX], doubt),
        ] {
            for status in statuses {
                check(*status, code, "", expected);
            }
        }
    }
}

#[test]
fn an_error_has_its_code_and_reason_and_keeps_retry_after() {
    let wish = Some(Duration::from_secs(7));
    let limited = classify(Place::Create, 429, "Throttling.RateQuota", "Slow down.", wish);
    let message = "HTTP 429, Throttling.RateQuota: Slow down.".to_owned();
    assert_eq!(limited, EditError::RateLimited { retry_after: wish, message });
    let refused = classify(Place::Create, 400, "DataInspectionFailed", "Not this.", None);
    assert_eq!(refused, EditError::rejected("DataInspectionFailed", "Not this."));
    let nameless = classify(Place::Call, 400, "", "", None);
    assert_eq!(nameless, EditError::rejected("http_400", "the provider gave no reason"));
    let ended = classify(Place::Task, 200, "", "", None);
    assert_eq!(ended, EditError::rejected("task_failed", "the provider gave no reason"));
    let passing = classify(Place::Task, 200, "InternalError.Timeout", "Slow.", None);
    let (code, message) = ("InternalError.Timeout".to_owned(), "Slow.".to_owned());
    assert_eq!(passing, EditError::Unbilled { code, message, tries: TRIES });
}

#[test]
fn provider_messages_are_repeated_without_keys_urls_or_pictures() {
    for (text, expected) in [
        ("Incorrect API key provided: sk-0a1b2c.", "Incorrect API key provided: sk-…"),
        ("download https://cdn.example/a.png?sig=1 failed", "download https://cdn.example… failed"),
        ("(url:\"http://u:p@cdn.example/\")", "(url:\"http://u…"),
        ("https://cdn.example", "https://cdn.example"),
        ("bad data:image/png;base64,iVBORw0KGgo=", "bad data:image/png;base64,…"),
        ("the task-id\n  is\tnot known", "the task-id is not known"),
        ("图片 下载超时", "图片 下载超时"),
    ] {
        assert_eq!(presentable(text), expected);
    }
    let long = presentable(&"图 ".repeat(2000));
    assert_eq!(long.chars().count(), MAX_MESSAGE_CHARS);
    assert!(long.ends_with('…'));
}
