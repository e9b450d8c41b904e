//! Whole answers in shapes that providers, gateways and what stands before them really give. The work is done
//! and billed all the same.

use std::io::Write;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::answers::Wire;
use super::state::Shared;
use super::views;

/// How a whole answer with status 200 looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// The body is the picture.
    Picture,
    /// Server-sent events: a draft, then the picture, each with its name.
    Events,
    /// `data:` lines, the last of them `[DONE]`.
    Lines,
    /// Behind a byte order mark.
    Marked,
    /// Behind white space that kept the line open.
    Spaced,
    /// Compressed, and said to be.
    Gzip,
    /// Compressed, and said to be.
    Deflate,
    /// Compressed, and said to be.
    Brotli,
    /// Compressed, and said to be.
    Zstd,
    /// Base64 in the URL-safe alphabet, without padding.
    UrlSafe,
    /// Base64 without padding.
    Unpadded,
    /// A data URI where base64 or an address is due.
    DataUri,
    /// An address without a host.
    Relative,
    /// `{"images": [{"url"}]}`.
    Images,
    /// `data` is one object.
    DataObject,
    /// `data` is a list of texts.
    DataStrings,
    /// `{"code": 0, "data": …}`.
    Wrapped,
    /// An error with a code that is in no list.
    OddError,
    /// A page of a proxy.
    Html,
    /// JSON without a picture or a task.
    Odd,
}

/// What a call has made.
#[derive(Debug)]
pub(super) struct Made {
    wire: Wire,
    id: String,
    /// None of a task that is polled.
    picture: Option<(Bytes, String)>,
}

impl Made {
    pub(super) fn of(shared: &Shared, id: &str, wire: Wire, ended: bool) -> Self {
        let (state, _) = shared.now();
        let task = state.tasks.get(id).expect("it was just created");
        let made = || {
            let url = views::urls(shared, &state, task).remove(0);
            (task.work.edit.made(0).expect("a picture"), url)
        };
        Self { wire, id: id.to_owned(), picture: ended.then(made) }
    }

    fn plain(&self) -> Value {
        match (&self.picture, self.wire) {
            (None, _) => {
                json!({ "output": { "task_status": "PENDING", "task_id": self.id }, "request_id": self.id })
            }
            (Some((bytes, _)), Wire::OpenAi) => self.with(&BASE64_STANDARD.encode(bytes), "b64_json"),
            (Some((_, url)), Wire::DashScope) => self.with(url, "url"),
        }
    }

    /// Its plain answer with this text in place of the base64 or the address.
    fn with(&self, text: &str, name: &str) -> Value {
        match self.wire {
            Wire::OpenAi => json!({ "created": 1, "data": [{ name: text }] }),
            Wire::DashScope => {
                let message = json!({ "role": "assistant", "content": [{ "image": text }] });
                let choices = json!([{ "finish_reason": "stop", "message": message }]);
                json!({ "output": { "choices": choices }, "request_id": self.id })
            }
        }
    }
}

impl Shape {
    pub(super) fn answer(self, made: &Made) -> Response {
        let text = made.plain().to_string();
        let (bytes, url) = made.picture.clone().unwrap_or_default();
        match self {
            Self::Picture => ([(header::CONTENT_TYPE, "image/png")], bytes).into_response(),
            Self::Events => events(named_events(made, &bytes)),
            Self::Lines => events(format!("data: {text}\n\ndata: [DONE]\n\n")),
            Self::Html => {
                let page = "<!DOCTYPE html><title>Welcome</title><p>You have reached the gateway.";
                ([(header::CONTENT_TYPE, "text/html")], page).into_response()
            }
            Self::Gzip | Self::Deflate | Self::Brotli | Self::Zstd => self.coded(text.as_bytes()),
            Self::Marked => as_json(format!("\u{feff}{text}")),
            Self::Spaced => as_json(format!("{}{text}", " \n".repeat(2000))),
            Self::UrlSafe => said(&made.with(&BASE64_URL_SAFE_NO_PAD.encode(bytes), "b64_json")),
            Self::Unpadded => said(&made.with(&BASE64_STANDARD_NO_PAD.encode(bytes), "b64_json")),
            Self::DataUri => {
                let uri = format!("data:image/png;base64,{}", BASE64_STANDARD.encode(bytes));
                said(&made.with(&uri, "b64_json"))
            }
            Self::Relative => {
                let path = url.splitn(4, '/').nth(3).unwrap_or_default();
                said(&made.with(&format!("/{path}"), "url"))
            }
            Self::Images => said(&json!({ "images": [{ "url": url }] })),
            Self::DataObject => said(&json!({ "data": { "url": url } })),
            Self::DataStrings => said(&json!({ "data": [url] })),
            Self::Wrapped => said(&json!({ "code": 0, "message": "success", "data": made.plain() })),
            Self::OddError => said(
                &json!({ "error": { "code": "odd_failure", "message": "The moon is in the wrong house." } }),
            ),
            Self::Odd => said(&json!({ "artwork": "made", "request_id": made.id })),
        }
    }

    fn coded(self, text: &[u8]) -> Response {
        let (coding, body) = match self {
            Self::Deflate => {
                let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(text).unwrap();
                ("deflate", encoder.finish().unwrap())
            }
            Self::Brotli => {
                let mut body = Vec::new();
                brotli::CompressorWriter::new(&mut body, 4096, 4, 20).write_all(text).unwrap();
                ("br", body)
            }
            Self::Zstd => ("zstd", compress_to_vec(text, CompressionLevel::Fastest)),
            _ => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(text).unwrap();
                ("gzip", encoder.finish().unwrap())
            }
        };
        let headers = [(header::CONTENT_TYPE, "application/json"), (header::CONTENT_ENCODING, coding)];
        (headers, body).into_response()
    }
}

/// A draft, then the whole answer: OpenAI's own event, or what DashScope says at once.
fn named_events(made: &Made, bytes: &Bytes) -> String {
    let draft =
        json!({ "type": "image_edit.partial_image", "partial_image_index": 0, "b64_json": "aGVsbG8=" });
    let last = match made.wire {
        Wire::OpenAi => json!({ "type": "image_edit.completed", "b64_json": BASE64_STANDARD.encode(bytes) }),
        Wire::DashScope => made.plain(),
    };
    format!("event: image_edit.partial_image\ndata: {draft}\n\nevent: image_edit.completed\ndata: {last}\n\n")
}

fn said(body: &Value) -> Response {
    as_json(body.to_string())
}

fn as_json(body: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

fn events(body: String) -> Response {
    ([(header::CONTENT_TYPE, "text/event-stream")], body).into_response()
}
