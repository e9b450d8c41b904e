//! Refusals on the wire, in each provider's own shape.

use std::io;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use futures::stream;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

/// Whose shape an answer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wire {
    /// `{"code", "message", "request_id"}`
    DashScope,
    /// `{"error": {"message", "type", "param", "code"}}`
    OpenAi,
}

/// A request that is refused: a status, a code and words. Status 200 gives the `code` without any output that DashScope's
/// own clients guard against.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// The provider's code.
    pub code: String,
    /// The provider's words.
    pub message: String,
    /// `Retry-After` in seconds.
    #[serde(default)]
    pub retry_after: Option<u64>,
}

impl Refusal {
    /// Any status, code and message.
    #[must_use]
    pub fn new(status: u16, code: &str, message: impl Into<String>) -> Self {
        Self { status, code: code.to_owned(), message: message.into(), retry_after: None }
    }

    /// With `Retry-After: seconds`.
    #[must_use]
    pub fn retry_after(self, seconds: u64) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    /// DashScope's 429 for too many requests.
    #[must_use]
    pub fn throttled() -> Self {
        Self::new(429, "Throttling.RateQuota", "Requests rate limit exceeded, please try again later.")
    }

    /// DashScope's 429 that no waiting ends: a bill is overdue.
    #[must_use]
    pub fn overdue() -> Self {
        Self::new(429, "PostpaidBillOverdue", "The postpaid bill is overdue.")
    }

    /// DashScope's other 429 that no waiting ends: nothing is left of what was free. Only the message tells it from a rate.
    #[must_use]
    pub fn free_quota() -> Self {
        Self::new(429, "Throttling.AllocationQuota", "Free allocated quota exceeded.")
    }

    /// DashScope's 500.
    #[must_use]
    pub fn internal_error() -> Self {
        Self::new(
            500,
            "InternalError",
            "An internal error has occured, please try again later or contact service support.",
        )
    }

    /// OpenAI's 429 for too many requests.
    #[must_use]
    pub fn openai_throttled() -> Self {
        Self::new(
            429,
            "rate_limit_exceeded",
            "Rate limit reached for images per minute. Please try again later.",
        )
    }

    /// OpenAI's 429 that no waiting ends.
    #[must_use]
    pub fn insufficient_quota() -> Self {
        let words = "You exceeded your current quota, please check your plan and billing details.";
        Self::new(429, "insufficient_quota", words)
    }

    /// OpenAI's verdict on the content.
    #[must_use]
    pub fn moderation_blocked() -> Self {
        let words = "Your request was rejected as a result of our safety system.";
        Self::new(400, "moderation_blocked", words)
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(400, "InvalidParameter", message)
    }

    pub(super) fn answer(&self, wire: Wire) -> Response {
        let body = match wire {
            Wire::DashScope => {
                json!({ "code": self.code, "message": self.message, "request_id": new_id() })
            }
            Wire::OpenAi => json!({ "error": {
                "message": self.message, "type": self.kind(), "param": null, "code": self.code,
            } }),
        };
        let mut response = ok(&body);
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }

    /// OpenAI's `type`, which its SDK does not look at.
    fn kind(&self) -> &str {
        match (self.status, self.code.as_str()) {
            (_, "insufficient_quota") => "insufficient_quota",
            (_, "moderation_blocked") => "image_generation_user_error",
            (429, _) => "requests",
            (500.., _) => "server_error",
            _ => "invalid_request_error",
        }
    }
}

/// An id as DashScope writes it.
pub(super) fn new_id() -> String {
    Uuid::now_v7().to_string()
}

pub(super) fn ok(body: &Value) -> Response {
    Json(body).into_response()
}

/// No answer at all: the connection ends before a byte of one was sent. (A body that fails at once keeps even the
/// status line from being written.)
pub(super) fn dropped() -> Response {
    let end = stream::once(async { Err::<Vec<u8>, _>(io::Error::other("dropped as the test asked")) });
    Body::from_stream(end).into_response()
}

/// How OSS refuses.
pub(super) fn oss(status: u16, code: &str, message: &str) -> Response {
    let id = new_id();
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error>\n  <Code>{code}</Code>\n  <Message>{message}</Message>\n  \
         <RequestId>{id}</RequestId>\n</Error>\n"
    );
    let status = StatusCode::from_u16(status).unwrap();
    (status, [(header::CONTENT_TYPE, "application/xml")], body).into_response()
}
