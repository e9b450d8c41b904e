//! The adapter against a small local server: its requests, and its reading of answers.

mod lists;
mod polls;
mod uploads;

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::IntoResponse;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use retouch_shared::key::Digest32;
use serde_json::{Value, json};

use super::*;
use crate::editor::Picture;
use crate::media::{Format, Media};

const KEY: &str = "sk-very-secret";
const WANX: &str = "wanx2.1-imageedit";
const RESULT: &str =
    "https://dashscope-result-sh.oss-cn-shanghai.aliyuncs.com/1d/x.png?Expires=1740&Signature=a%2Bb";

#[derive(Debug, Clone)]
struct Asked {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

impl Asked {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// Replies in order, the last one for ever, and records requests.
#[derive(Debug, Clone)]
struct Server {
    base_url: Url,
    asked: Arc<Mutex<Vec<Asked>>>,
    answers: Arc<Mutex<Vec<(u16, String)>>>,
}

impl Server {
    async fn start(answers: &[(u16, &str)]) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("http://{}/api/v1", listener.local_addr().unwrap()).parse().unwrap();
        let answers = answers.iter().rev().map(|(status, body)| (*status, (*body).to_owned())).collect();
        let server = Self { base_url, asked: Arc::default(), answers: Arc::new(Mutex::new(answers)) };
        let router = Router::new().fallback(answer).layer(axum::extract::DefaultBodyLimit::disable());
        let router = router.with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        server
    }

    fn settings(&self) -> Settings {
        Settings {
            key: ApiKey::Text(KEY.to_owned()),
            base_url: self.base_url.clone(),
            workspace: None,
            input: Input::Data,
            poll: DEFAULT_POLL,
            poll_spacing: DEFAULT_POLL_SPACING,
            timeout: DEFAULT_TIMEOUT,
            result_hosts: AllowHosts::default(),
            public_url: None,
            result_max: None,
            ask_list: None,
        }
    }

    fn editor(&self) -> DashScope {
        DashScope::new(self.settings(), styles()).unwrap()
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

async fn answer(
    State(server): State<Server>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> impl IntoResponse {
    server.asked.lock().unwrap().push(Asked { method, uri, headers, body });
    let mut answers = server.answers.lock().unwrap();
    let last = answers.len() == 1;
    let (status, body) = if last { answers.last().cloned() } else { answers.pop() }.unwrap();
    (
        StatusCode::from_u16(status).unwrap(),
        body.replace("SERVER", &server.base_url.origin().ascii_serialization()),
    )
}

fn styles() -> BTreeMap<String, Style> {
    known_models().iter().map(|known| (known.id.to_owned(), known.style.parse().unwrap())).collect()
}

fn picture(bytes: &'static [u8]) -> Picture {
    let media = Media { format: Format::Jpeg, width: 1024, height: 768, on_its_side: false };
    Picture { bytes: Bytes::from_static(bytes), media }
}

fn request(model: &str, edit_type: &str, params: &str) -> EditRequest {
    let spec = EditSpec {
        edit_type: edit_type.to_owned(),
        prompt: "Let it snow,\n\"thick\" 雪".to_owned(),
        model: model.to_owned(),
        params: params.parse().unwrap(),
        mask: None,
    };
    EditRequest { spec, image: picture(b"a picture"), mask: None }
}

fn data_uri(bytes: &[u8]) -> String {
    format!("data:image/jpeg;base64,{}", BASE64.encode(bytes))
}

const CREATED: &str = r#"{"output":{"task_status":"PENDING","task_id":"0385dc79-5ff8-4d82-bcb6-xxxxxx"},"request_id":"4909100c-7b5a-9f92-bfe5-xxxxxx"}"#;
const MESSAGE: &str = r#"{"output":{"choices":[{"finish_reason":"stop","message":{"role":"assistant","content":[{"image":"RESULT"}]}}]},"usage":{"width":1248,"image_count":1,"height":832},"request_id":"bf37ca26"}"#;

async fn submit(answers: &[(u16, &str)], request: EditRequest) -> (Result<Submitted, EditError>, Vec<Asked>) {
    let server = Server::start(answers).await;
    let submitted = server.editor().submit(request).await;
    (submitted, server.asked())
}

fn accepted(submitted: Result<Submitted, EditError>) -> String {
    match submitted {
        Ok(Submitted::Accepted { provider_task_id, at_hand: None }) => provider_task_id,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_image_edit_is_one_post_with_n_1() {
    let mut request = request(WANX, "description_edit_with_mask", r#"{"seed":7.0,"moon":"full"}"#);
    request.mask = Some(picture(b"a mask"));
    let (submitted, asked) = submit(&[(200, CREATED)], request).await;
    assert_eq!(accepted(submitted), "0385dc79-5ff8-4d82-bcb6-xxxxxx");
    let [post] = asked.as_slice() else { panic!("{} requests", asked.len()) };
    assert_eq!(
        (&post.method, post.uri.path()),
        (&Method::POST, "/api/v1/services/aigc/image2image/image-synthesis")
    );
    assert_eq!(post.header("authorization"), Some("Bearer sk-very-secret"));
    assert_eq!(post.header("content-type"), Some("application/json"));
    assert_eq!(post.header("x-dashscope-async"), Some("enable"));
    for absent in ["x-dashscope-ossresourceresolve", "x-dashscope-workspace"] {
        assert_eq!(post.header(absent), None);
    }
    let expected = json!({
        "model": WANX,
        "input": {
            "function": "description_edit_with_mask",
            "prompt": "Let it snow,\n\"thick\" 雪",
            "base_image_url": data_uri(b"a picture"),
            "mask_image_url": data_uri(b"a mask"),
        },
        "parameters": { "n": 1, "seed": 7, "moon": "full" },
    });
    assert_eq!(post.json(), expected);
}

#[tokio::test]
async fn a_function_in_the_parameters_is_not_sent_as_a_parameter() {
    let request = request(WANX, "nicer", r#"{"function":"super_resolution","upscale_factor":2}"#);
    let (_, asked) = submit(&[(200, CREATED)], request).await;
    let body = asked[0].json();
    assert_eq!(body["input"]["function"], "super_resolution");
    assert_eq!(body["parameters"], json!({ "n": 1, "upscale_factor": 2 }));
}

#[tokio::test]
async fn an_i2i_edit_has_a_list_of_pictures_and_a_negative_prompt() {
    let request = request("wan2.5-i2i-preview", "x", r#"{"negative_prompt":"rain","size":"1024*1024"}"#);
    let (submitted, asked) = submit(&[(200, CREATED)], request).await;
    accepted(submitted);
    assert_eq!(asked[0].header("x-dashscope-async"), Some("enable"));
    let body = asked[0].json();
    assert_eq!(body["input"]["images"], json!([data_uri(b"a picture")]));
    assert_eq!(body["input"]["negative_prompt"], "rain");
    assert_eq!(body["parameters"], json!({ "n": 1, "size": "1024*1024" }));
}

#[tokio::test]
async fn a_messages_picture_becomes_the_id_that_is_committed() {
    let message = MESSAGE.replace("RESULT", RESULT);
    let request = request("qwen-image-2.0", "x", r#"{"negative_prompt":" ","prompt_extend":false}"#);
    let server = Server::start(&[(200, &message)]).await;
    let submitted = server.editor().submit(request).await;
    let Ok(Submitted::Accepted { provider_task_id: id, at_hand: Some(at_hand) }) = submitted else {
        panic!("{submitted:?}")
    };
    let asked = server.asked();
    assert_eq!(asked[0].uri.path(), "/api/v1/services/aigc/multimodal-generation/generation");
    assert_eq!(asked[0].header("x-dashscope-async"), None);
    let content = json!([{ "image": data_uri(b"a picture") }, { "text": "Let it snow,\n\"thick\" 雪" }]);
    let body = asked[0].json();
    assert_eq!(body["input"], json!({ "messages": [{ "role": "user", "content": content }] }));
    assert_eq!(body["parameters"], json!({ "n": 1, "negative_prompt": " ", "prompt_extend": false }));
    assert_eq!(id, format!("url:{RESULT}"));
    // Any process with the id has the picture, without a request.
    let polled = server.editor().poll(&id, Duration::ZERO).await.unwrap();
    let Polled::Done(Output::Url(again)) = polled else { panic!("{polled:?}") };
    assert_eq!(again, at_hand);
    assert_eq!((again.url.as_str(), again.lives), (RESULT, Duration::from_secs(86_400)));
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn an_asynchronous_message_goes_to_its_own_path() {
    let (submitted, asked) = submit(&[(200, CREATED)], request("wan2.7-image", "x", "{}")).await;
    accepted(submitted);
    assert_eq!(asked[0].uri.path(), "/api/v1/services/aigc/image-generation/generation");
    assert_eq!(asked[0].header("x-dashscope-async"), Some("enable"));
    assert!(asked[0].json()["input"]["messages"].is_array());
}

#[tokio::test]
async fn a_workspace_goes_along_with_every_request() {
    let server = Server::start(&[(200, CREATED)]).await;
    let settings = Settings { workspace: Some("llm-1".to_owned()), ..server.settings() };
    let editor = DashScope::new(settings, styles()).unwrap();
    editor.submit(request(WANX, "colorization", "{}")).await.unwrap();
    let _ = editor.poll("a", Duration::ZERO).await;
    for asked in server.asked() {
        assert_eq!(asked.header("x-dashscope-workspace"), Some("llm-1"), "{}", asked.uri);
    }
}

#[tokio::test]
async fn by_url_the_provider_is_given_the_blobs_address() {
    let server = Server::start(&[(200, CREATED)]).await;
    let public_url = Some("https://pictures.example/blobs/".parse().unwrap());
    let settings = Settings { input: Input::Url, public_url, ..server.settings() };
    let editor = DashScope::new(settings, styles()).unwrap();
    editor.submit(request(WANX, "colorization", "{}")).await.unwrap();
    let reference = crate::blobs::reference(Digest32::of(b"a picture"));
    let given = server.asked()[0].json()["input"]["base_image_url"].clone();
    assert_eq!(given, format!("https://pictures.example/blobs/{reference}"));
}

#[tokio::test]
async fn an_answer_to_a_submit_is_an_id_an_error_or_ambiguous() {
    for (status, body, expected) in [
        (
            200,
            r#"{"code":"InvalidParameter","message":"bad seed","request_id":"r"}"#,
            "InvalidParameter: bad seed",
        ),
        (200, r#"{"code":"Moon","message":"?","output":null}"#, "Moon: ?"),
        (200, r#"{"output":{},"request_id":"r"}"#, "unreadable: the provider answered 200"),
        (200, r#"{"output":{"task_id":""},"code":null}"#, "unreadable: the provider answered 200"),
        (200, r#"{"output":{"task_id":".."}}"#, "unreadable: the provider answered 200"),
        (200, "<html>welcome</html>", "unreadable: the provider answered 200"),
        (200, "", "unreadable: the provider answered 200"),
        (
            401,
            r#"{"code":"InvalidApiKey","message":"No API-key provided.","request_id":"r"}"#,
            "blocked: InvalidApiKey",
        ),
        (
            403,
            r#"{"code":"AccessDenied","message":"current user api does not support synchronous calls."}"#,
            "blocked: AccessDenied",
        ),
        (400, r#"{"error":{"code":"data_inspection_failed","message":"no"}}"#, "data_inspection_failed: no"),
        (429, r#"{"code":"Throttling.RateQuota","message":"slow"}"#, "rate limited"),
        (500, r#"{"code":"InternalError","message":"x"}"#, "ambiguous: HTTP 500, InternalError"),
        (502, "<html>Bad Gateway</html>", "ambiguous: HTTP 502"),
        (503, r#"{"code":"ModelUnavailable","message":"x"}"#, "rate limited"),
        (503, "", "ambiguous"),
        (302, "", "blocked: http_302"),
        (400, r#"{"code":"InvalidURL.Timeout","message":"x"}"#, "InvalidURL.Timeout"),
    ] {
        for model in [WANX, "qwen-image-2.0"] {
            let (submitted, asked) = submit(&[(status, body)], request(model, "colorization", "{}")).await;
            let error = submitted.unwrap_err().to_string();
            assert!(error.starts_with(expected), "{status} {body}: {error}");
            assert_eq!(asked.len(), 1, "nothing is sent twice");
        }
    }
    // SDKs show empty codes beside successful results.
    let good = CREATED.replace("\"request_id\"", "\"code\":\"\",\"message\":null,\"request_id\"");
    accepted(submit(&[(200, &good)], request(WANX, "colorization", "{}")).await.0);
}

#[tokio::test]
async fn a_refusal_is_checked_again_before_the_submit() {
    let mut long = request(WANX, "description_edit", "{}");
    long.spec.prompt = "x".repeat(801);
    let (submitted, asked) = submit(&[(200, CREATED)], long).await;
    assert!(submitted.unwrap_err().to_string().starts_with("invalid_prompt"));
    let (submitted, also) = submit(&[(200, CREATED)], request("wanx9", "colorization", "{}")).await;
    let refused = submitted.unwrap_err().to_string();
    assert!(refused.starts_with("unknown_model") && refused.contains(WANX), "{refused}");
    assert!(asked.is_empty() && also.is_empty());
}

#[tokio::test]
async fn an_unreadable_key_blocks_and_an_unreachable_server_took_nothing() {
    let server = Server::start(&[(200, CREATED)]).await;
    let key = ApiKey::File("/nowhere/key".into());
    let editor = DashScope::new(Settings { key, ..server.settings() }, styles()).unwrap();
    let blocked = editor.submit(request(WANX, "colorization", "{}")).await.unwrap_err();
    assert!(matches!(&blocked, EditError::Blocked { code, .. } if code == "no_api_key"), "{blocked}");
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let base_url = format!("http://{gone}/api/v1").parse().unwrap();
    let editor = DashScope::new(Settings { base_url, ..server.settings() }, styles()).unwrap();
    let not_sent = editor.submit(request(WANX, "colorization", "{}")).await.unwrap_err();
    assert!(matches!(not_sent, EditError::NotSent(_)), "{not_sent}");
    let poll = editor.poll("a", Duration::ZERO).await.unwrap_err();
    assert!(matches!(poll, EditError::Unavailable(_)), "{poll}");
}

#[tokio::test]
async fn results_may_be_on_the_providers_and_the_configured_hosts() {
    let server = Server::start(&[(200, "{}")]).await;
    let hosts = server.editor().result_hosts();
    let provider = [
        "bj.oss-cn-beijing",
        "hz.oss-cn-hangzhou",
        "sh.oss-cn-shanghai",
        "wlcb.oss-cn-wulanchabu",
        "zjk.oss-cn-zhangjiakou",
        "sz.oss-cn-shenzhen",
        "hy.oss-cn-heyuan",
        "cd.oss-cn-chengdu",
        "gz.oss-cn-guangzhou",
        "wlcb-acdr-1.oss-cn-wulanchabu-acdr-1",
    ];
    for place in provider {
        let host = format!("dashscope-result-{place}.aliyuncs.com");
        assert!(hosts.lists(&url::Host::Domain(&host)), "{host}");
    }
    assert!(hosts.lists(&server.base_url.host().unwrap()));
    for foreign in ["evil.example", "aliyuncs.com.evil.example", "evilaliyuncs.com"] {
        assert!(!hosts.lists(&url::Host::Domain(foreign)), "{foreign}");
    }
    let list = |text: &str| Settings { result_hosts: text.parse().unwrap(), ..server.settings() };
    let hosts = DashScope::new(list("cdn.example"), styles()).unwrap().result_hosts();
    let sh = "dashscope-result-sh.oss-cn-shanghai.aliyuncs.com";
    assert!(hosts.lists(&url::Host::Domain("cdn.example")) && hosts.lists(&url::Host::Domain(sh)));
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused_at_start() {
    let server = Server::start(&[(200, "{}")]).await;
    let refused = |settings: Settings| format!("{:#}", DashScope::new(settings, styles()).unwrap_err());
    for public_url in [None, Some("file:///srv/blobs".parse().unwrap())] {
        let settings = Settings { input: Input::Url, public_url, ..server.settings() };
        assert!(refused(settings).contains("RETOUCH_PUBLIC_URL"));
    }
    let base_url = "ftp://dashscope.example/".parse().unwrap();
    assert!(refused(Settings { base_url, ..server.settings() }).contains("https://"));
    let workspace = Some("two\nlines".to_owned());
    assert!(refused(Settings { workspace, ..server.settings() }).contains("workspace"));
    assert!(!format!("{:?}", server.settings()).contains(KEY));
    for (word, input) in [("data", Input::Data), ("url", Input::Url), ("oss", Input::Oss)] {
        assert_eq!(word.parse(), Ok(input));
        assert_eq!(serde_json::from_value::<Input>(json!(word)).unwrap(), input);
    }
    assert!("OSS".parse::<Input>().unwrap_err().to_string().contains("data, url and oss"));
    assert!(DEFAULT_BASE_URL.parse::<Url>().is_ok());
}

#[test]
fn the_page_for_people_names_every_model_function_parameter_and_code() {
    let page = include_str!("../../../../docs/providers.md");
    let has = |text: &str| assert!(page.contains(text), "{text} is not in docs/providers.md");
    for known in known_models() {
        let line = page.lines().find(|line| line.starts_with(&format!("| `{}` |", known.id)));
        let line = line.unwrap_or_else(|| panic!("{} has no line", known.id));
        assert!(line.contains(known.price) && line.contains(&format!("`{}`", known.style)), "{line}");
    }
    for function in FUNCTIONS {
        has(&format!("| `{}` | {} |", function.name, function.about));
        for param in function.params.iter().chain(COMMON) {
            has(&format!("| `{}` | {} | {} | {} |", param.name, param.range, param.default, param.about));
        }
    }
    for (code, _) in errors::CODES {
        has(&format!("`{code}`"));
    }
}
