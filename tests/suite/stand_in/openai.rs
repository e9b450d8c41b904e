//! OpenAI's edits, as documented.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use image::ImageFormat;
use reqwest::RequestBuilder;
use retouch_tests::picture_server::PictureServer;
use retouch_tests::pictures::{picture_as, same_pixels};
use retouch_tests::stand_in::{Asked, Fault, OnCreate, OnTask, Refusal, StandIn, expected, expected_nth};
use serde_json::{Value, json};

use super::client::{photo, said};

const MODEL: &str = "gpt-image-1.5";

/// A form; values that are no text are files.
fn edit(provider: &StandIn, fields: &[(&str, &[u8])]) -> RequestBuilder {
    let boundary = "a-boundary-that-is-in-no-picture";
    let mut body = Vec::new();
    for (name, value) in fields {
        let file = if std::str::from_utf8(value).is_ok() { "" } else { "; filename=\"a.png\"" };
        let head = format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n");
        body.extend(head.into_bytes());
        body.extend(*value);
        body.extend(b"\r\n");
    }
    body.extend(format!("--{boundary}--\r\n").into_bytes());
    retouch_worker::tls::init();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let post = http.post(format!("{}/images/edits", provider.openai_url())).bearer_auth(StandIn::KEY);
    post.header("content-type", format!("multipart/form-data; boundary={boundary}")).body(body)
}

fn picture_in(answer: &Value, nth: usize) -> Vec<u8> {
    BASE64.decode(answer["data"][nth]["b64_json"].as_str().unwrap_or_else(|| panic!("{answer}"))).unwrap()
}

#[tokio::test]
async fn an_edit_answers_with_the_pictures_themselves() {
    let provider = StandIn::start().await;
    let (one, two, mask) = (photo(1), photo(2), photo(3));
    let fields: [(&str, &[u8]); 8] = [
        ("model", MODEL.as_bytes()),
        ("image[]", &one),
        ("image[]", &two),
        ("mask", &mask),
        ("prompt", b"red"),
        ("n", b"2"),
        ("quality", b"high"),
        ("user", b"user-1"),
    ];
    let (status, answer) = said(edit(&provider, &fields)).await;
    assert_eq!(status, 200, "{answer}");
    let asked = Asked::new(MODEL).prompt("red").param("quality", "high").and_image(&two).mask(&mask);
    for nth in 0..2 {
        assert!(same_pixels(&picture_in(&answer, nth), &expected_nth(&one, &asked, nth)));
    }
    assert_eq!((&answer["quality"], &answer["output_format"]), (&json!("high"), &json!("png")));
    let sum = |name: &str| answer["usage"][name].as_u64().unwrap();
    assert_eq!(sum("total_tokens"), sum("input_tokens") + sum("output_tokens"));
    assert_eq!(provider.ledger().billed_of(&asked.identity(&one)), 2);
}

#[tokio::test]
async fn urls_are_answered_where_the_model_or_a_setting_says_so() {
    let provider = StandIn::start().await;
    let picture = picture_as(1, 256, 256, ImageFormat::Png);
    let get = async |answer: &Value| {
        reqwest::get(answer["data"][0]["url"].as_str().unwrap()).await.unwrap().bytes().await.unwrap()
    };
    let old: [(&str, &[u8]); 4] =
        [("model", b"dall-e-2"), ("image", &picture), ("prompt", b"red"), ("response_format", b"url")];
    let (_, answer) = said(edit(&provider, &old)).await;
    assert!(same_pixels(&get(&answer).await, &expected(&picture, &Asked::new("dall-e-2").prompt("red"))));
    let mut inline = old;
    inline[3].1 = b"b64_json";
    picture_in(&said(edit(&provider, &inline)).await.1, 0);
    let mut new = old;
    new[0].1 = MODEL.as_bytes();
    assert_eq!(said(edit(&provider, &new)).await.1["error"]["code"], "unknown_parameter");
    provider.set(|settings| settings.openai_urls = true);
    let (_, answer) = said(edit(&provider, &new[..3])).await;
    assert!(same_pixels(&get(&answer).await, &expected(&picture, &Asked::new(MODEL).prompt("red"))));
}

#[tokio::test]
async fn the_json_body_takes_urls() {
    let provider = StandIn::start().await;
    let server = PictureServer::start().await;
    let picture = photo(1);
    let url = server.png("/a.png", picture.clone());
    let body = json!({ "model": MODEL, "prompt": "red", "images": [{ "image_url": url }] });
    let request = edit(&provider, &[]).header("content-type", "application/json").body(body.to_string());
    // The form's header is replaced, not added to.
    let mut request = request.build().unwrap();
    request.headers_mut().insert("content-type", "application/json".parse().unwrap());
    let response = reqwest::Client::new().execute(request).await.unwrap();
    let answer: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
    assert!(same_pixels(&picture_in(&answer, 0), &expected(&picture, &Asked::new(MODEL).prompt("red"))));
}

#[tokio::test]
async fn faults_are_reported_under_error_and_cost_nothing() {
    let provider = StandIn::start().await;
    let picture = photo(1);
    let other = picture_as(1, 512, 511, ImageFormat::Png);
    let long = "x".repeat(32_001);
    let good: [(&str, &[u8]); 3] = [("model", MODEL.as_bytes()), ("image", &picture), ("prompt", b"red")];
    let with = |name: &'static str, value: &'static [u8]| {
        let mut fields = good.to_vec();
        fields.retain(|field| field.0 != name);
        fields.push((name, value));
        fields
    };
    let mut masked = good.to_vec();
    masked.push(("mask", &other));
    let mut wordy = good.to_vec();
    wordy[2].1 = long.as_bytes();
    let table = [
        (good[..2].to_vec(), 400, "missing_required_parameter"),
        (vec![good[0], good[2]], 400, "missing_required_parameter"),
        (with("model", b"gpt-image-9"), 404, "model_not_found"),
        // Shut down in October 2026.
        (with("model", b"gpt-image-1"), 404, "model_not_found"),
        (with("image", b"no picture"), 400, "invalid_image_file"),
        (with("n", b"11"), 400, "invalid_value"),
        (wordy, 400, "string_above_max_length"),
        (masked, 400, "invalid_image_file"),
    ];
    for (fields, status, code) in table {
        let (said, answer) = said(edit(&provider, &fields)).await;
        assert_eq!((said, &answer["error"]["code"]), (status, &json!(code)), "{answer}");
        assert!(answer["error"]["message"].is_string() && answer["error"]["type"].is_string());
    }
    provider.disable_key();
    let (status, answer) = said(edit(&provider, &good)).await;
    assert_eq!((status, &answer["error"]["code"]), (401, &json!("invalid_api_key")));
    provider.enable_key();
    provider.arrears(true);
    let (status, answer) = said(edit(&provider, &good)).await;
    assert_eq!((status, &answer["error"]["code"]), (429, &json!("insufficient_quota")));
    assert_eq!((provider.ledger().creates(), provider.ledger().billed()), (0, 0));
}

#[tokio::test]
async fn faults_strike_openai_edits_in_its_own_shape() {
    let provider = StandIn::start().await;
    let picture = photo(1);
    let good: [(&str, &[u8]); 3] = [("model", MODEL.as_bytes()), ("image", &picture), ("prompt", b"red")];
    let throttled = Refusal::openai_throttled().retry_after(2);
    provider.arm(Fault::Create(OnCreate::Refuse { refusal: throttled, created: false }));
    let response = edit(&provider, &good).send().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["retry-after"]),
        (429, &"2".parse().unwrap())
    );
    provider.arm(Fault::Task(OnTask::Fail(Refusal::moderation_blocked())));
    let (status, answer) = said(edit(&provider, &good)).await;
    assert_eq!((status, &answer["error"]["code"]), (400, &json!("moderation_blocked")));
    assert_eq!(provider.ledger().billed(), 0);
    provider.arm(Fault::Create(OnCreate::Drop { created: true }));
    assert!(edit(&provider, &good).send().await.is_err());
    provider.advance(std::time::Duration::from_secs(1));
    assert_eq!(provider.ledger().billed(), 1);
}
