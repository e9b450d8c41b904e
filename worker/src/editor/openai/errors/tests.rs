//! Every code, type and status, and its class.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde_json::json;

use super::*;

const KEY: &str = "sk-proj-abcdefgh12345678";

fn answer(status: u16, body: impl Into<Bytes>) -> Answer {
    Answer { status, retry_after: Some(Duration::from_secs(7)), ..Answer::kept("", body.into()) }
}

fn refuse(status: u16, body: &Value) -> EditError {
    refused(&answer(status, body.to_string()), KEY)
}

/// The class's name, by a match that a new variant breaks.
fn class(error: &EditError) -> &'static str {
    match error {
        EditError::NotSent(_) => "not sent",
        EditError::RateLimited { retry_after, .. } => {
            assert_eq!(*retry_after, Some(Duration::from_secs(7)));
            "rate limited"
        }
        EditError::Unbilled { .. } => "unbilled",
        EditError::Unavailable(_) => "unavailable",
        EditError::Ambiguous(_) => "ambiguous",
        EditError::Unreadable(_) => "unreadable",
        EditError::Rejected { .. } => "rejected",
        EditError::Blocked { .. } => "blocked",
    }
}

/// Status, type, code, class: documented, or observed at a gateway.
#[rustfmt::skip]
const TABLE: &[(u16, &str, &str, &str)] = &[
    (401, "invalid_request_error", "invalid_api_key", "blocked"),
    (401, "invalid_request_error", "invalid_authentication", "blocked"),
    (401, "authentication_error", "", "blocked"),
    (401, "auth_error", "401", "blocked"),
    (401, "expired_key", "", "blocked"),
    (401, "token_not_found_in_db", "", "blocked"),
    (401, "invalid_request_error", "account_deactivated", "blocked"),
    (402, "invalid_request_error", "deactivated_workspace", "blocked"),
    (401, "invalid_request_error", "invalid_organization", "blocked"),
    (401, "invalid_request_error", "invalid_project", "blocked"),
    (401, "invalid_request_error", "ip_not_authorized", "blocked"),
    (403, "permission_error", "", "blocked"),
    (403, "", "permission_denied", "blocked"),
    (403, "", "insufficient_permissions", "blocked"),
    (401, "invalid_request_error", "missing_scope", "blocked"),
    (401, "key_model_access_denied", "401", "blocked"),
    (401, "team_model_access_denied", "401", "blocked"),
    (403, "request_forbidden", "unsupported_country_region_territory", "blocked"),
    (404, "invalid_request_error", "model_not_found", "blocked"),
    (503, "new_api_error", "model_not_found", "blocked"),
    (400, "", "model_not_available", "blocked"),
    (400, "", "model_deprecated", "blocked"),
    (503, "new_api_error", "get_channel_failed", "blocked"),
    (429, "insufficient_quota", "insufficient_quota", "blocked"),
    (429, "insufficient_quota", "something_new", "blocked"),
    (400, "image_generation_user_error", "billing_hard_limit_reached", "blocked"),
    (429, "billing_not_active", "billing_not_active", "blocked"),
    (429, "insufficient_quota", "credit_balance_exhausted", "blocked"),
    (429, "insufficient_quota", "organization_spend_limit_exceeded", "blocked"),
    (429, "insufficient_quota", "organization_usage_limit_exceeded", "blocked"),
    (429, "insufficient_quota", "project_spend_limit_exceeded", "blocked"),
    (403, "new_api_error", "insufficient_user_quota", "blocked"),
    (403, "new_api_error", "pre_consume_token_quota_failed", "blocked"),
    (400, "budget_exceeded", "400", "blocked"),
    (402, "", "", "blocked"),
    (403, "", "", "blocked"),
    (200, "", "insufficient_quota", "blocked"),
    (429, "requests", "rate_limit_exceeded", "rate limited"),
    (429, "rate_limit_error", "slow_down", "rate limited"),
    (503, "rate_limit_error", "slow_down", "rate limited"),
    (429, "rate_limit_error", "", "rate limited"),
    (429, "throttling_error", "429", "rate limited"),
    (429, "requests", "", "rate limited"),
    (429, "tokens", "", "rate limited"),
    (429, "", "", "rate limited"),
    (429, "", "something_new", "rate limited"),
    (400, "image_generation_user_error", "moderation_blocked", "rejected"),
    (400, "invalid_request_error", "content_policy_violation", "rejected"),
    (403, "invalid_request_error", "content_policy_violation", "rejected"),
    (400, "", "content_filter", "rejected"),
    (400, "image_generation_user_error", "", "rejected"),
    (500, "new_api_error", "sensitive_words_detected", "rejected"),
    (400, "invalid_request_error", "invalid_value", "rejected"),
    (400, "invalid_request_error", "invalid_type", "rejected"),
    (400, "invalid_request_error", "invalid_prompt", "rejected"),
    (400, "invalid_request_error", "invalid_size", "rejected"),
    (400, "invalid_request_error", "invalid_image", "rejected"),
    (400, "invalid_request_error", "invalid_image_file", "rejected"),
    (400, "invalid_request_error", "invalid_image_format", "rejected"),
    (400, "invalid_request_error", "invalid_mask_image_format", "rejected"),
    (400, "packy_image_generation_user_error", "invalid_input_fidelity_model", "rejected"),
    (400, "invalid_request_error", "image_too_large", "rejected"),
    (400, "invalid_request_error", "image_too_small", "rejected"),
    (400, "invalid_request_error", "unsupported_image_format", "rejected"),
    (400, "invalid_request_error", "unsupported_file_mimetype", "rejected"),
    (400, "invalid_request_error", "missing_required_parameter", "rejected"),
    (400, "invalid_request_error", "unknown_parameter", "rejected"),
    (400, "invalid_request_error", "unsupported_parameter", "rejected"),
    (400, "invalid_request_error", "unsupported_value", "rejected"),
    (400, "invalid_request_error", "invalid_something_new", "rejected"),
    (413, "", "", "rejected"),
    (422, "", "", "rejected"),
    (408, "", "", "ambiguous"),
    (409, "", "conflict", "ambiguous"),
    (500, "server_error", "server_error", "ambiguous"),
    (502, "", "invalid_something_new", "ambiguous"),
    (503, "service_unavailable_error", "server_is_overloaded", "ambiguous"),
    (504, "", "", "ambiguous"),
    (200, "", "something_new", "ambiguous"),
];

#[test]
fn the_table_has_every_known_code_and_every_possible_class() {
    let mut classes = BTreeSet::new();
    for (status, kind, code, expected) in TABLE {
        let error = json!({ "message": "No.", "type": kind, "code": code, "param": null });
        for body in [json!({ "error": error }), error.clone(), json!({ "detail": { "error": error } })] {
            let refused = refuse(*status, &body);
            assert_eq!(class(&refused), *expected, "{status} {kind} {code}: {refused:?}");
            assert!(refused.to_string().contains("No."), "{refused}");
        }
        classes.insert(*expected);
    }
    // A request that was sent and answered is none of the other three.
    assert_eq!(Vec::from_iter(classes), ["ambiguous", "blocked", "rate limited", "rejected"]);
    for (word, verdict) in KNOWN {
        let covered = TABLE.iter().any(|(_, kind, code, _)| [*kind, *code].contains(&word));
        assert!(covered, "{word} is {verdict:?}, and no line of the table says so");
    }
}

#[test]
fn every_status_has_a_class_of_its_own() {
    for status in 100..=999 {
        let expected = match status {
            300..=399 | 401..=405 | 407 | 410 | 421 => "blocked",
            425 | 429 => "rate limited",
            0..=299 | 408 | 409 | 499 | 500..=u16::MAX => "ambiguous",
            400..=498 => "rejected",
        };
        let refused = refused(&answer(status, ""), KEY);
        assert_eq!(class(&refused), expected, "{status}");
        assert!(refused.to_string().contains(&status.to_string()) || status < 400, "{refused}");
    }
}

#[test]
fn codes_are_the_providers_or_the_status() {
    for (status, body, code) in [
        (400, json!({ "error": { "message": "x", "code": "odd", "type": "t" } }), "odd"),
        (400, json!({ "error": { "message": "x", "code": null, "type": "image_x" } }), "image_x"),
        (400, json!({ "error": { "message": "x", "code": "400", "type": "None" } }), "http_400"),
        (400, json!({ "error": { "message": "x", "code": "It is not that." } }), "http_400"),
        (400, json!({ "error": { "message": "x", "code": 1301 } }), "1301"),
        (400, json!({ "error": "bad_thing", "message": "x" }), "bad_thing"),
        (400, json!({ "error": "it is x" }), "http_400"),
        (422, json!({ "detail": [{ "loc": ["body", "image"], "msg": "x" }] }), "http_422"),
        (400, json!(["x"]), "http_400"),
    ] {
        let refused = refuse(status, &body);
        let EditError::Rejected { code: found, message } = &refused else { panic!("{refused:?}") };
        assert_eq!(found, code, "{body}");
        assert!(message.contains('x'), "{body}: {message}");
    }
}

#[test]
fn an_empty_account_is_recognised_without_its_code() {
    let message = "litellm.RateLimitError: OpenAIException - You exceeded your current quota, please check";
    for kind in ["throttling_error", "None"] {
        let refused = refuse(429, &json!({ "error": { "message": message, "type": kind, "code": "429" } }));
        let EditError::Blocked { code, .. } = &refused else { panic!("{refused:?}") };
        assert_eq!(code, "insufficient_quota");
    }
}

#[test]
fn an_answer_that_is_not_json_is_quoted_on_one_line() {
    let page = format!("<html>\r\n<body>\0Bad   gateway {}", "é".repeat(5000));
    let said = refused(&answer(502, page), KEY).to_string();
    assert!(said.contains("<html> <body> Bad gateway éé"), "{said}");
    assert!(said.ends_with('…') && said.chars().count() < MAX_MESSAGE_CHARS + 60, "{said}");
    let at_the_limit = refuse(400, &json!({ "message": "x".repeat(MAX_MESSAGE_CHARS) })).to_string();
    assert!(!at_the_limit.contains('…'));
    assert!(refused(&answer(404, "Not Found"), KEY).to_string().contains("is the base URL right?"));
    assert!(refused(&answer(301, ""), KEY).to_string().contains("redirect"));
    refused(&answer(500, vec![0xff; 5000]), KEY);
}

#[test]
fn no_part_of_a_key_is_repeated() {
    for message in [
        format!("Incorrect API key provided: {KEY}. You can find"),
        "Incorrect API key provided: sk-proj-********5678. You can find".to_owned(),
        "Incorrect API key provided: abcd****5678. You can find".to_owned(),
        "Received API Key = sk-...5678, Key Hash = x".to_owned(),
        format!("{{\"authorization\":\"Bearer {KEY}\"}} You can find"),
        "header was 'Bearer abcd5678' of x".to_owned(),
        format!("key={}", &KEY[..20]),
    ] {
        for body in [json!({ "error": { "message": message } }), json!({ "error": message })] {
            let said = refuse(401, &body).to_string();
            assert!(!said.contains("5678") && !said.contains("abcd") && said.contains("[key]"), "{said}");
        }
    }
    let code = refuse(401, &json!({ "error": { "message": "x", "code": KEY } })).to_string();
    assert!(!code.contains("abcd"), "{code}");
    let kept = refuse(400, &json!({ "message": "the task-id of the mask-size at risk-level" })).to_string();
    assert!(kept.contains("the task-id of the mask-size at risk-level"), "{kept}");
}
