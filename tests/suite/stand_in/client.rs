//! A client of the stand-in without retries or other behaviour of its own.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use image::ImageFormat;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use retouch_tests::pictures::{picture_as, same_pixels};
use retouch_tests::stand_in::{Asked, StandIn, expected};
use retouch_tests::wait::until;
use serde_json::{Value, json};

pub(super) const MODEL: &str = "wanx2.1-imageedit";
pub(super) const IMAGE2IMAGE: &str = "/services/aigc/image2image/image-synthesis";
pub(super) const MESSAGES: &str = "/services/aigc/multimodal-generation/generation";

/// The smallest picture that the strictest model takes.
pub(super) fn photo(seed: u64) -> Vec<u8> {
    picture_as(seed, 512, 512, ImageFormat::Png)
}

pub(super) fn data_uri(bytes: &[u8]) -> String {
    format!("data:image/png;base64,{}", BASE64.encode(bytes))
}

/// A create of wanx2.1-imageedit.
#[expect(clippy::needless_pass_by_value, reason = "`json!({…})` reads better than with a reference")]
pub(super) fn body(picture: &[u8], function: &str, prompt: &str, params: Value) -> Value {
    json!({
        "model": MODEL,
        "input": { "function": function, "prompt": prompt, "base_image_url": data_uri(picture) },
        "parameters": params,
    })
}

/// The simplest of them, and its edit.
pub(super) fn simple(picture: &[u8]) -> Value {
    body(picture, "remove_watermark", "clean", json!({}))
}

pub(super) fn simple_asked() -> Asked {
    Asked::new(MODEL).function("remove_watermark").prompt("clean")
}

/// A message with a picture and a text.
pub(super) fn message(model: &str, picture: &[u8], text: &str) -> Value {
    json!({
        "model": model,
        "input": { "messages": [{ "role": "user", "content": [{ "image": data_uri(picture) }, { "text": text }] }] },
        "parameters": {},
    })
}

#[derive(Debug)]
pub(super) struct Client {
    pub(super) http: reqwest::Client,
    base: String,
    key: String,
}

impl Client {
    pub(super) fn new(provider: &StandIn) -> Self {
        Self::with_key(provider, StandIn::KEY)
    }

    pub(super) fn with_key(provider: &StandIn, key: &str) -> Self {
        retouch_worker::tls::init();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { http, base: provider.dashscope_url(), key: key.to_owned() }
    }

    pub(super) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base)).bearer_auth(&self.key)
    }

    /// A create of a task.
    pub(super) fn creating(&self, body: &Value) -> RequestBuilder {
        self.posting(IMAGE2IMAGE, body).header("x-dashscope-async", "enable")
    }

    pub(super) fn posting(&self, path: &str, body: &Value) -> RequestBuilder {
        let json = self.request(Method::POST, path).header("content-type", "application/json; charset=utf-8");
        json.body(body.to_string())
    }

    /// Creates a task, which must be accepted, and returns its id.
    pub(super) async fn create(&self, body: &Value) -> String {
        let (status, answer) = said(self.creating(body)).await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(answer["output"]["task_status"], "PENDING");
        answer["output"]["task_id"].as_str().unwrap().to_owned()
    }

    pub(super) async fn poll(&self, id: &str) -> Value {
        let (status, answer) = said(self.request(Method::GET, &format!("/tasks/{id}"))).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    pub(super) async fn status(&self, id: &str) -> String {
        self.poll(id).await["output"]["task_status"].as_str().unwrap().to_owned()
    }

    /// Polls until the task has ended.
    pub(super) async fn ended(&self, id: &str) -> Value {
        until("the task's end", async || {
            let answer = self.poll(id).await;
            let open = ["PENDING", "RUNNING"].contains(&answer["output"]["task_status"].as_str().unwrap());
            (!open).then_some(answer)
        })
        .await
    }

    /// Creates a task, lets it end, and returns what the query then says.
    pub(super) async fn edit(&self, body: &Value) -> Value {
        let id = self.create(body).await;
        self.ended(&id).await
    }

    pub(super) async fn download(&self, url: &str) -> Response {
        self.http.get(url).send().await.unwrap()
    }

    /// The bytes behind a URL in an answer.
    pub(super) async fn bytes(&self, url: &Value) -> Vec<u8> {
        let response = self.download(url.as_str().unwrap()).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "image/png");
        response.bytes().await.unwrap().to_vec()
    }

    /// Whether the first result of a task is this edit of this picture.
    pub(super) async fn is_right(&self, answer: &Value, picture: &[u8], asked: &Asked) -> bool {
        let made = self.bytes(&answer["output"]["results"][0]["url"]).await;
        same_pixels(&made, &expected(picture, asked))
    }
}

/// Status and JSON of an answer.
pub(super) async fn said(request: RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    (response.status().as_u16(), json_of(response).await)
}

pub(super) async fn json_of(response: Response) -> Value {
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
}

/// Status and code of a refusal.
pub(super) async fn refused(request: RequestBuilder) -> (u16, String) {
    let (status, answer) = said(request).await;
    assert!(answer["output"].is_null() && answer["request_id"].is_string(), "{answer}");
    (status, answer["code"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned())
}
