//! The adapter against a small server of this file's: what goes over the wire, and what is made of the answers.

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

/// Answers in order, the last one for ever, and remembers what was asked.
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
            timeout: DEFAULT_TIMEOUT,
            result_hosts: AllowHosts::default(),
            public_url: None,
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
    let media = Media { format: Format::Jpeg, width: 1024, height: 768 };
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
        Ok(Submitted::Accepted { provider_task_id }) => provider_task_id,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_image_edit_is_one_post_with_the_function_the_picture_and_n_1() {
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
async fn a_function_that_the_parameters_name_is_no_parameter_at_the_provider() {
    let request = request(WANX, "nicer", r#"{"function":"super_resolution","upscale_factor":2}"#);
    let (_, asked) = submit(&[(200, CREATED)], request).await;
    let body = asked[0].json();
    assert_eq!(body["input"]["function"], "super_resolution");
    assert_eq!(body["parameters"], json!({ "n": 1, "upscale_factor": 2 }));
}

#[tokio::test]
async fn an_i2i_edit_has_a_list_of_pictures_and_its_negative_prompt_beside_the_prompt() {
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
async fn a_message_is_never_asynchronous_and_its_picture_becomes_the_id_that_is_committed() {
    let message = MESSAGE.replace("RESULT", RESULT);
    let request = request("qwen-image-2.0", "x", r#"{"negative_prompt":" ","prompt_extend":false}"#);
    let server = Server::start(&[(200, &message)]).await;
    let id = accepted(server.editor().submit(request).await);
    let asked = server.asked();
    assert_eq!(asked[0].uri.path(), "/api/v1/services/aigc/multimodal-generation/generation");
    assert_eq!(asked[0].header("x-dashscope-async"), None);
    let content = json!([{ "image": data_uri(b"a picture") }, { "text": "Let it snow,\n\"thick\" 雪" }]);
    let body = asked[0].json();
    assert_eq!(body["input"], json!({ "messages": [{ "role": "user", "content": content }] }));
    assert_eq!(body["parameters"], json!({ "n": 1, "negative_prompt": " ", "prompt_extend": false }));
    assert_eq!(id, format!("url:{RESULT}"));
    // Any process that has the id has the picture; nobody is asked.
    let polled = server.editor().poll(&id, Duration::ZERO).await.unwrap();
    let Polled::Done(Output::Url { url, lives }) = polled else { panic!("{polled:?}") };
    assert_eq!((url.as_str(), lives), (RESULT, Duration::from_secs(86_400)));
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

const POLICY: &str = r#"{"request_id":"r","data":{"policy":"p0","signature":"s0","upload_dir":"dashscope-instant/a/b","upload_host":"SERVER",
 "expire_in_seconds":300,"max_file_size_mb":100,"capacity_limit_mb":999999999,"oss_access_key_id":"id0","x_oss_object_acl":"private","x_oss_forbid_overwrite":"true"}}"#;

async fn by_oss(answers: &[(u16, &str)]) -> (Result<Submitted, EditError>, Vec<Asked>) {
    let server = Server::start(answers).await;
    let settings = Settings { input: Input::Oss, ..server.settings() };
    let mut request = request(WANX, "description_edit_with_mask", "{}");
    request.mask = Some(picture(b"a mask"));
    let submitted = DashScope::new(settings, styles()).unwrap().submit(request).await;
    (submitted, server.asked())
}

#[tokio::test]
async fn by_oss_the_pictures_are_uploaded_first_and_the_key_stays_at_the_api() {
    let (submitted, asked) = by_oss(&[(200, POLICY), (200, ""), (200, ""), (200, CREATED)]).await;
    accepted(submitted);
    let [policy, image, mask, create] = asked.as_slice() else { panic!("{} requests", asked.len()) };
    assert_eq!(policy.uri.to_string(), format!("/api/v1/uploads?action=getPolicy&model={WANX}"));
    assert_eq!(policy.header("authorization"), Some("Bearer sk-very-secret"));
    assert_eq!(create.header("x-dashscope-ossresourceresolve"), Some("enable"));
    let input = &create.json()["input"];
    for (upload, bytes, named) in
        [(image, "a picture", &input["base_image_url"]), (mask, "a mask", &input["mask_image_url"])]
    {
        assert_eq!((upload.header("authorization"), upload.uri.path()), (None, "/"));
        let form = String::from_utf8(upload.body.to_vec()).unwrap();
        let key = named.as_str().unwrap().strip_prefix("oss://dashscope-instant/a/b/").unwrap();
        assert!(key.ends_with(".jpg"), "{key}");
        let fields = [
            ("OSSAccessKeyId", "id0"),
            ("Signature", "s0"),
            ("policy", "p0"),
            ("key", &format!("dashscope-instant/a/b/{key}")),
            ("x-oss-object-acl", "private"),
            ("x-oss-forbid-overwrite", "true"),
            ("success_action_status", "200"),
        ];
        let mut last = 0;
        for (name, value) in fields {
            let at = form.find(&format!("name=\"{name}\"\r\n\r\n{value}\r\n"));
            last = last.max(at.unwrap_or_else(|| panic!("{name} is not in {form}")));
        }
        let file = form.find("name=\"file\"").unwrap();
        assert!(file > last && form.contains(bytes), "the file comes last: {form}");
    }
}

#[tokio::test]
async fn no_failure_of_an_upload_is_ambiguous_and_none_is_followed_by_a_submit() {
    let foreign = POLICY.replace("SERVER", "https://bucket.evil.example");
    for (answers, expected) in [
        ([(500, r#"{"code":"InternalError","message":"x"}"#), (200, "")], "not sent"),
        ([(200, "<html>"), (200, "")], "not sent"),
        ([(200, r#"{"data":{"policy":"p0"}}"#), (200, "")], "not sent"),
        ([(401, r#"{"code":"InvalidApiKey","message":"x"}"#), (200, "")], "blocked: InvalidApiKey"),
        ([(429, r#"{"code":"Throttling","message":"x"}"#), (200, "")], "rate limited"),
        ([(200, POLICY), (403, "<Error><Code>AccessDenied</Code></Error>")], "not sent"),
        ([(200, POLICY), (500, "")], "not sent"),
        ([(200, &foreign), (200, "")], "blocked: upload_host"),
    ] {
        let (submitted, asked) = by_oss(&answers).await;
        let error = submitted.unwrap_err().to_string();
        assert!(error.starts_with(expected), "{answers:?}: {error}");
        assert!(asked.iter().all(|asked| !asked.uri.path().contains("aigc")), "{answers:?}");
        assert!(!error.contains("p0") && !error.contains(KEY), "{error}");
    }
}

#[tokio::test]
async fn an_answer_to_a_submit_is_an_id_an_error_or_ambiguous() {
    for (status, body, expected) in [
        (
            200,
            r#"{"code":"InvalidParameter","message":"bad seed","request_id":"r"}"#,
            "InvalidParameter: bad seed",
        ),
        (200, r#"{"code":"Moon","message":"?","output":null}"#, "ambiguous: HTTP 200, Moon"),
        (200, r#"{"output":{},"request_id":"r"}"#, "ambiguous: answered 200 without"),
        (200, r#"{"output":{"task_id":""},"code":null}"#, "ambiguous: answered 200 without"),
        (200, r#"{"output":{"task_id":".."}}"#, "ambiguous: answered 200 without"),
        (200, "<html>welcome</html>", "ambiguous: answered 200 without"),
        (200, "", "ambiguous"),
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
    // SDKs show empty codes beside good results.
    let good = CREATED.replace("\"request_id\"", "\"code\":\"\",\"message\":null,\"request_id\"");
    accepted(submit(&[(200, &good)], request(WANX, "colorization", "{}")).await.0);
}

#[tokio::test]
async fn what_would_be_refused_is_refused_again_before_it_is_sent() {
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
async fn a_key_that_cannot_be_read_blocks_and_a_server_that_is_gone_took_nothing() {
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

async fn poll(status: u16, body: &str, age: u64) -> String {
    let server = Server::start(&[(status, body)]).await;
    match server.editor().poll("a425c46f", Duration::from_secs(age)).await {
        Ok(Polled::Done(Output::Url { url, lives })) => {
            assert_eq!(lives, LIVES);
            url
        }
        Ok(Polled::Done(Output::Bytes(_))) => panic!("bytes"),
        Ok(Polled::Pending { after }) => format!("pending {}", after.as_secs()),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn a_poll_asks_for_one_task_whatever_is_in_its_id() {
    let server = Server::start(&[(200, "{}")]).await;
    for (id, path) in
        [("0385dc79-5ff8", "0385dc79-5ff8"), ("a/../b?c#d%2e 雪", "a%2F..%2Fb%3Fc%23d%252e%20%E9%9B%AA")]
    {
        let _ = server.editor().poll(id, Duration::ZERO).await;
        let asked = server.asked().pop().unwrap();
        assert_eq!((asked.method.as_str(), asked.uri.to_string()), ("GET", format!("/api/v1/tasks/{path}")));
        assert_eq!(asked.header("authorization"), Some("Bearer sk-very-secret"));
        assert!(asked.body.is_empty());
    }
}

#[tokio::test]
async fn a_task_under_way_is_asked_for_often_at_first() {
    for word in ["PENDING", "RUNNING", "SUSPENDED"] {
        let body = format!(r#"{{"request_id":"r","output":{{"task_id":"a","task_status":"{word}"}}}}"#);
        assert_eq!(poll(200, &body, 0).await, "pending 3");
        assert_eq!(poll(200, &body, 29).await, "pending 3");
        assert_eq!(poll(200, &body, 30).await, "pending 9");
        assert!(poll(200, &body, 86_401).await.starts_with("ambiguous: not finished"));
    }
}

const SUCCEEDED: &str = r#"{"request_id":"eeef0935-…","output":{"task_id":"a425c46f-…","task_status":"SUCCEEDED",
 "submit_time":"2025-02-21 17:56:31.786","scheduled_time":"2025-02-21 17:56:31.821","end_time":"2025-02-21 17:56:42.530",
 "results":[{"url":"RESULT"}],
 "task_metrics":{"TOTAL":1,"SUCCEEDED":1,"FAILED":0}},
 "usage":{"image_count":1}}"#;
const PARTIAL: &str = r#"{"output":{"task_status":"SUCCEEDED","results":[{"code":"InternalError.Timeout","message":"An internal timeout error has occured"},{"url":"RESULT"}]},"usage":{"image_count":1}}"#;
const CHOICES: &str = r#"{"output":{"task_status":"SUCCEEDED","finished":true,"choices":[{"finish_reason":"stop","message":{"role":"assistant","content":[{"type":"text","text":"x"},{"type":"image","image":"RESULT"}]}}]},"usage":{"output_image_count":1}}"#;
const FAILED: &str = r#"{"request_id":"e5d70b02-…","output":{"task_id":"86ecf553-…","task_status":"FAILED","code":"CODE","message":"words",
 "task_metrics":{"TOTAL":4,"SUCCEEDED":0,"FAILED":4}}}"#;

#[tokio::test]
async fn the_first_picture_of_a_finished_task_is_its_result() {
    for body in [SUCCEEDED, PARTIAL, CHOICES] {
        assert_eq!(poll(200, &body.replace("RESULT", RESULT), 5).await, RESULT);
    }
}

#[tokio::test]
async fn a_task_that_failed_is_refused_or_worth_a_new_submit_by_its_code() {
    let server = |body: String| async move {
        let server = Server::start(&[(200, &body)]).await;
        server.editor().poll("a", Duration::ZERO).await.unwrap_err()
    };
    for (code, unbilled) in [
        ("InvalidParameter", false),
        ("DataInspectionFailed", false),
        ("Moon.Eclipse", false),
        ("InternalError", true),
        ("InternalError.Timeout", true),
        ("Throttling", true),
        ("Arrearage", true),
    ] {
        let error = server(FAILED.replace("CODE", code)).await;
        assert_eq!(matches!(error, EditError::Unbilled { .. }), unbilled, "{error:?}");
        assert_eq!(matches!(error, EditError::Rejected { .. }), !unbilled, "{error:?}");
        assert_eq!(error.to_string(), format!("{code}: words"));
    }
    let all = r#"{"output":{"task_status":"SUCCEEDED","results":[{"code":"InternalError.Timeout","message":"slow"}]}}"#;
    assert_eq!(server(all.to_owned()).await.to_string(), "InternalError.Timeout: slow");
    let canceled = r#"{"output":{"task_status":"CANCELED"}}"#;
    let canceled = server(canceled.to_owned()).await;
    assert!(matches!(&canceled, EditError::Rejected { code, .. } if code == "canceled"), "{canceled:?}");
}

#[tokio::test]
async fn a_task_that_is_not_known_is_asked_for_again_and_later_ambiguous() {
    let unknown = r#"{"request_id":"…","output":{"task_id":"…","task_status":"UNKNOWN"}}"#;
    let empty = r#"{"output":{"task_status":"SUCCEEDED","results":[]}}"#;
    for (status, body) in [(200, unknown), (404, "{}"), (404, r#"{"code":"NotFound"}"#), (200, empty)] {
        assert!(poll(status, body, 599).await.starts_with("unavailable"), "{body}");
        assert!(poll(status, body, 600).await.starts_with("ambiguous"), "{body}");
    }
}

#[tokio::test]
async fn no_refusal_of_a_poll_ends_an_edit_that_may_be_paid() {
    for (status, body, expected) in [
        (200, "not json", "unavailable"),
        (200, r#"{"output":{"task_status":"DREAMING"}}"#, "unavailable: the task's status is \"DREAMING\""),
        (200, r#"{"code":"Throttling","message":"x"}"#, "rate limited"),
        (200, r#"{"code":"InvalidParameter","message":"x"}"#, "unavailable"),
        (400, r#"{"code":"InvalidParameter","message":"x"}"#, "unavailable"),
        (401, r#"{"code":"InvalidApiKey","message":"x"}"#, "blocked"),
        (429, r#"{"code":"Throttling.RateQuota","message":"x"}"#, "rate limited"),
        (500, r#"{"code":"InternalError","message":"x"}"#, "unavailable"),
        (503, "", "unavailable"),
    ] {
        assert!(poll(status, body, 60).await.starts_with(expected), "{status} {body}");
    }
    assert!(poll(500, "", 86_401).await.starts_with("ambiguous"));
}

#[tokio::test]
async fn results_may_be_on_the_providers_hosts_the_base_urls_and_the_operators() {
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
        assert!(hosts.lists(&Host::Domain(&host)), "{host}");
    }
    assert!(hosts.lists(&server.base_url.host().unwrap()));
    for foreign in ["evil.example", "aliyuncs.com.evil.example", "evilaliyuncs.com"] {
        assert!(!hosts.lists(&Host::Domain(foreign)), "{foreign}");
    }
    let list = |text: &str| Settings { result_hosts: text.parse().unwrap(), ..server.settings() };
    let further = format!("{},cdn.example", default_result_hosts(&server.base_url));
    let hosts = DashScope::new(list(&further), styles()).unwrap().result_hosts();
    assert!(hosts.lists(&Host::Domain("cdn.example")) && hosts.lists(&Host::Domain(A_RESULT_HOST)));
    // A list that would lose paid results is refused at start.
    let refused = DashScope::new(list("cdn.example"), styles()).unwrap_err().to_string();
    assert!(refused.contains("aliyuncs.com"), "{refused}");
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
