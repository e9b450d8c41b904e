//! The editor against a small local server: its requests, and its reading of answers.

use std::io::Cursor;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes as Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use image::{DynamicImage, GrayImage, ImageFormat, Luma, RgbImage};
use serde_json::{Value, json};

use super::*;
use crate::media;

const KEY: &str = "sk-test-0123456789";

/// The server's requests, and its only reply.
#[derive(Clone)]
struct Server {
    asked: Arc<Mutex<Vec<Asked>>>,
    answer: Arc<(u16, Option<u64>, String)>,
}

#[derive(Clone)]
struct Asked {
    uri: Uri,
    headers: HeaderMap,
    body: Body,
}

async fn answer(State(server): State<Server>, uri: Uri, headers: HeaderMap, body: Body) -> Response {
    server.asked.lock().unwrap().push(Asked { uri, headers, body });
    let (status, retry_after, body) = &*server.answer;
    let mut response = (StatusCode::from_u16(*status).unwrap(), body.clone()).into_response();
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, (*seconds).into());
    }
    response
}

impl Server {
    /// Listens until the test ends.
    async fn start(status: u16, retry_after: Option<u64>, body: String) -> (Self, Url) {
        let server = Self { asked: Arc::default(), answer: Arc::new((status, retry_after, body)) };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = Url::parse(&format!("http://{}/v1", listener.local_addr().unwrap())).unwrap();
        let limit = axum::extract::DefaultBodyLimit::disable();
        let router = Router::new().fallback(answer).layer(limit).with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        (server, base)
    }

    /// The only request.
    fn asked(&self) -> Asked {
        let asked = self.asked.lock().unwrap();
        assert_eq!(asked.len(), 1, "sent exactly once");
        asked[0].clone()
    }
}

fn editor(base_url: Url) -> OpenAi {
    let key = ApiKey::Text(KEY.to_owned());
    let result_hosts = AllowHosts::default();
    OpenAi::new(Settings { key, base_url, timeout: Duration::from_secs(10), result_hosts }).unwrap()
}

fn picture(image: &DynamicImage, format: ImageFormat) -> Picture {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    let bytes = Bytes::from(bytes.into_inner());
    let media = media::inspect(&bytes).unwrap();
    Picture { bytes, media }
}

fn request(params: &Value, mask: Option<Picture>) -> EditRequest {
    let spec = EditSpec {
        edit_type: "touch_up".to_owned(),
        prompt: "a red hat — été".to_owned(),
        model: "gpt-image-1.5".to_owned(),
        params: params.to_string().parse().unwrap(),
        mask: mask.as_ref().map(Picture::measure),
    };
    EditRequest { spec, image: picture(&RgbImage::new(8, 4).into(), ImageFormat::Jpeg), mask }
}

/// Submits a minimal edit to a server with this answer.
async fn submitted(status: u16, retry_after: Option<u64>, body: &Value) -> Result<Submitted, EditError> {
    let (server, base) = Server::start(status, retry_after, body.to_string()).await;
    let answer = editor(base).submit(request(&json!({}), None)).await;
    server.asked();
    answer
}

/// One part of a multipart body: its headers and its content.
fn parts(asked: &Asked) -> Vec<(String, Vec<u8>)> {
    let content_type = asked.headers[header::CONTENT_TYPE].to_str().unwrap();
    let boundary = content_type.strip_prefix("multipart/form-data; boundary=").unwrap();
    let find = |from: &[u8], what: &[u8]| from.windows(what.len()).position(|window| window == what);
    let delimiter = format!("--{boundary}");
    let mut rest = &asked.body[..];
    let mut parts = Vec::new();
    while let Some(at) = find(rest, delimiter.as_bytes()) {
        rest = &rest[at + delimiter.len()..];
        let Some(end) = find(rest, delimiter.as_bytes()) else { break };
        let part = &rest[2..end - 2]; // line ends on both sides
        let head = find(part, b"\r\n\r\n").unwrap();
        parts.push((String::from_utf8(part[..head].to_vec()).unwrap(), part[head + 4..].to_vec()));
    }
    parts
}

#[tokio::test]
async fn an_edit_is_one_multipart_post_that_every_gateway_reads() {
    let body = json!({ "created": 1, "data": [{ "b64_json": BASE64_STANDARD.encode("picture") }] });
    let (server, base) = Server::start(200, None, body.to_string()).await;
    let mut mask = GrayImage::new(8, 4);
    mask.put_pixel(3, 2, Luma([255]));
    let mask = picture(&mask.into(), ImageFormat::Png);
    let request = request(&json!({ "size": "1024x1024", "output_compression": 50, "hd": true }), Some(mask));
    let image = request.image.bytes.clone();

    let answer = editor(base).submit(request).await;

    let Ok(Submitted::Done(bytes)) = answer else { panic!("{answer:?}") };
    assert_eq!(bytes, "picture");
    let asked = server.asked();
    assert_eq!(asked.uri.path(), "/v1/images/edits");
    assert_eq!(asked.headers[header::AUTHORIZATION], format!("Bearer {KEY}"));
    let length = asked.headers[header::CONTENT_LENGTH].to_str().unwrap();
    assert_eq!(length, asked.body.len().to_string(), "not in chunks");
    let parts = parts(&asked);
    let fields: Vec<_> =
        parts[..6].iter().map(|(head, body)| (head.as_str(), str::from_utf8(body).unwrap())).collect();
    let field = |name: &str| format!("Content-Disposition: form-data; name=\"{name}\"");
    assert_eq!(
        fields,
        [
            (field("model").as_str(), "gpt-image-1.5"),
            (&field("prompt"), "a red hat — été"),
            (&field("n"), "1"),
            (&field("hd"), "true"),
            (&field("output_compression"), "50"),
            (&field("size"), "1024x1024"),
        ]
    );
    let file = |name: &str, file: &str, mime: &str| {
        format!(
            "Content-Disposition: form-data; name=\"{name}\"; filename=\"{file}\"\r\nContent-Type: {mime}"
        )
    };
    assert_eq!(parts.len(), 8);
    assert_eq!(parts[6], (file("image", "image.jpg", "image/jpeg"), image.to_vec()));
    assert_eq!(parts[7].0, file("mask", "mask.png", "image/png"));
    let mask = image::load_from_memory(&parts[7].1).unwrap().into_rgba8();
    for (x, y, pixel) in mask.enumerate_pixels() {
        assert_eq!(pixel[3] == 0, (x, y) == (3, 2), "{x} {y}: transparent where ours is white");
    }
}

#[tokio::test]
async fn a_pictures_url_becomes_the_id_of_an_accepted_call() {
    let url = "https://oaidalleapiprodscus.blob.core.windows.net/private/img.png?se=1&sig=a%2Bb%3D";
    let answer = submitted(200, None, &json!({ "data": [{ "url": url }] })).await;
    let Ok(Submitted::Accepted { provider_task_id, at_hand: Some(at_hand) }) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(provider_task_id, format!("url:{url}"));

    let other = editor(Url::parse(DEFAULT_BASE_URL).unwrap());
    let polled = other.poll(&provider_task_id, Duration::ZERO).await;
    let Ok(Polled::Done(Output::Url(found))) = polled else { panic!("{polled:?}") };
    assert_eq!(found, at_hand);
    assert_eq!((found.url.as_str(), found.lives), (url, Duration::from_secs(3600)));
    let host = Url::parse(&found.url).unwrap();
    assert!(other.result_hosts().lists(&host.host().unwrap()));

    let unknown = other.poll("0385dc79", Duration::ZERO).await;
    assert!(matches!(unknown, Err(EditError::Ambiguous(_))), "{unknown:?}");
}

#[tokio::test]
async fn refusals_keep_their_code_and_never_the_key() {
    let error =
        |code: &str| json!({ "error": { "message": format!("No, {KEY}."), "type": "x", "code": code } });
    let limited = submitted(429, Some(9), &error("rate_limit_exceeded")).await.unwrap_err();
    let nine = Some(Duration::from_secs(9));
    assert!(
        matches!(&limited, EditError::RateLimited { retry_after, .. } if *retry_after == nine),
        "{limited:?}"
    );
    let broke = submitted(429, Some(9), &error("insufficient_quota")).await.unwrap_err();
    assert!(matches!(&broke, EditError::Blocked { code, .. } if code == "insufficient_quota"), "{broke:?}");
    let refused = submitted(400, None, &error("moderation_blocked")).await.unwrap_err();
    assert!(
        matches!(&refused, EditError::Rejected { code, .. } if code == "moderation_blocked"),
        "{refused:?}"
    );
    let broken = submitted(500, None, &error("server_error")).await.unwrap_err();
    assert!(matches!(&broken, EditError::Ambiguous(_)), "{broken:?}");
    let empty = submitted(200, None, &json!({ "data": [] })).await.unwrap_err();
    assert!(matches!(&empty, EditError::Unreadable(_)), "{empty:?}");
    for error in [limited, broke, refused, broken] {
        assert!(!format!("{error:?} {error}").contains("0123"), "{error:?}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let moved = submitted(307, None, &json!({})).await;
    assert!(matches!(moved, Err(EditError::Blocked { .. })), "{moved:?}");
}

#[tokio::test]
async fn a_request_refused_by_the_check_is_never_sent() {
    let (server, base) = Server::start(200, None, String::new()).await;
    let editor = editor(base);
    let mut damaged = picture(&GrayImage::new(8, 4).into(), ImageFormat::Png);
    damaged.bytes = damaged.bytes.slice(..damaged.bytes.len() - 20);
    for request in [request(&json!({ "n": 2 }), None), request(&json!({}), Some(damaged))] {
        let refused = editor.submit(request).await;
        assert!(matches!(refused, Err(EditError::Rejected { .. })), "{refused:?}");
    }
    let no_key = OpenAi { key: ApiKey::File("/nowhere/key".into()), ..editor };
    let refused = no_key.submit(request(&json!({}), None)).await;
    assert!(matches!(&refused, Err(EditError::Blocked { code, .. }) if code == "no_key"), "{refused:?}");
    assert!(server.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_request_without_a_listening_server_is_not_sent() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    drop(listener);
    let refused = editor(base).submit(request(&json!({}), None)).await;
    assert!(matches!(refused, Err(EditError::NotSent(_))), "{refused:?}");
}

#[test]
fn a_gateways_base_url_keeps_its_path_and_its_query() {
    for (base, expected) in [
        (DEFAULT_BASE_URL, "https://api.openai.com/v1/images/edits"),
        ("http://litellm:4000", "http://litellm:4000/images/edits"),
        ("https://api.deepinfra.com/v1/openai/", "https://api.deepinfra.com/v1/openai/images/edits"),
        (
            "https://a.example/openai/v1?api-version=preview#x",
            "https://a.example/openai/v1/images/edits?api-version=preview",
        ),
    ] {
        assert_eq!(endpoint(&Url::parse(base).unwrap(), "images/edits").unwrap().as_str(), expected);
    }
}

#[test]
fn settings_that_cannot_work_are_refused_at_the_start_without_a_secret() {
    let new = |base: &str, hosts: &str| {
        let (key, base_url) = (ApiKey::Text(KEY.to_owned()), Url::parse(base).unwrap());
        let result_hosts = hosts.parse().unwrap();
        OpenAi::new(Settings { key, base_url, timeout: DEFAULT_TIMEOUT, result_hosts })
    };
    for (base, hosts, why) in
        [("ftp://a.example/v1", "", "http://"), ("https://user:secret@a.example/v1", "", "must not hold")]
    {
        let refused = new(base, hosts).unwrap_err().to_string();
        assert!(refused.contains(why) && !refused.contains("secret"), "{refused}");
    }
    for base in ["http://127.0.0.1:4000", "http://[::1]:4000/v1", "https://a.example/v1"] {
        let base_url = Url::parse(base).unwrap();
        let editor = new(base, "cdn.example").unwrap();
        assert!(editor.result_hosts().lists(&base_url.host().unwrap()), "{base}");
        for host in [RESULT_HOST, "cdn.example"] {
            assert!(editor.result_hosts().lists(&url::Host::Domain(host)), "{base} {host}");
        }
        let rented = url::Host::Domain("evil.blob.core.windows.net");
        assert!(!editor.result_hosts().lists(&rented));
        assert!(!format!("{editor:?}").contains("0123"), "the key is never shown");
    }
}

#[test]
fn no_model_is_known_without_a_price() {
    assert_eq!(known_models(), []);
    assert_eq!(editor(Url::parse(DEFAULT_BASE_URL).unwrap()).kind(), "openai");
}
