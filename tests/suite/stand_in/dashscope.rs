//! DashScope's documented image edits.

use image::{ImageFormat, RgbImage};
use reqwest::Method;
use retouch_tests::picture_server::PictureServer;
use retouch_tests::pictures::{self, picture_as, same_pixels};
use retouch_tests::stand_in::{Asked, FUNCTIONS, Limits, StandIn, expected, expected_nth};
use serde_json::{Value, json};

use super::client::*;

async fn unlimited() -> (StandIn, Client) {
    let provider = StandIn::start().await;
    provider.set(|settings| settings.limits = Limits::Off);
    let client = Client::new(&provider);
    (provider, client)
}

/// Parameters that a function knows.
fn own_params(function: &str) -> Value {
    match function {
        "stylization_all" | "description_edit" => json!({ "strength": 0.7 }),
        "expand" => json!({ "top_scale": 1.5, "left_scale": 2.0 }),
        "super_resolution" => json!({ "upscale_factor": 2 }),
        "doodle" => json!({ "is_sketch": true }),
        _ => json!({ "seed": 7 }),
    }
}

#[tokio::test]
async fn each_of_the_ten_functions_makes_a_distinct_billed_picture() {
    let (provider, client) = unlimited().await;
    let picture = photo(1);
    let mut seen = Vec::new();
    for function in FUNCTIONS {
        let params = own_params(function);
        let mut body = body(&picture, function, "a prompt", params.clone());
        let mut asked =
            Asked::new(MODEL).function(function).prompt("a prompt").params(params.as_object().unwrap());
        if function == "description_edit_with_mask" {
            body["input"]["mask_image_url"] = data_uri(&photo(2)).into();
            asked = asked.mask(&photo(2));
        }
        let answer = client.edit(&body).await;
        assert_eq!(answer["output"]["task_status"], "SUCCEEDED", "{answer}");
        assert_eq!(answer["output"]["task_metrics"], json!({ "TOTAL": 1, "SUCCEEDED": 1, "FAILED": 0 }));
        assert_eq!(answer["usage"], json!({ "image_count": 1 }));
        for time in ["submit_time", "scheduled_time", "end_time"] {
            assert_eq!(answer["output"][time].as_str().unwrap().len(), "2025-02-21 17:56:31.786".len());
        }
        assert!(client.is_right(&answer, &picture, &asked).await, "{function}");
        assert_eq!(provider.ledger().billed_of(&asked.identity(&picture)), 1);
        seen.push(expected(&picture, &asked));
    }
    let ledger = provider.ledger();
    assert_eq!((ledger.creates(), ledger.billed(), ledger.fen()), (10, 10, 140));
    assert!(ledger.paid_again().is_empty());
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 10, "two functions make the same picture");
}

#[test]
fn only_a_change_of_the_edit_changes_the_picture() {
    let picture = photo(1);
    let plain = || Asked::new(MODEL).function("description_edit").prompt("red");
    let others = [
        Asked::new("wan2.5-i2i-preview").function("description_edit").prompt("red"),
        plain().function("stylization_all"),
        plain().prompt("blue"),
        plain().param("seed", 1),
        plain().param("strength", 0.4),
        plain().mask(&photo(2)),
        plain().and_image(&photo(2)),
    ];
    for other in &others {
        assert!(!same_pixels(&expected(&picture, &plain()), &expected(&picture, other)), "{other:?}");
        assert_ne!(plain().identity(&picture), other.identity(&picture));
    }
    let same = [
        plain().param("strength", 0.5),
        plain().param("watermark", false).param("n", 1),
        plain().param("upscale_factor", 3),
        plain().param("result_format", "message"),
    ];
    for same in &same {
        assert!(same_pixels(&expected(&picture, &plain()), &expected(&picture, same)), "{same:?}");
        assert_eq!(plain().identity(&picture), same.identity(&picture));
    }
    assert_ne!(plain().identity(&picture), plain().identity(&photo(2)));
}

#[tokio::test]
async fn a_prompt_is_silently_cut_after_800_characters() {
    let (provider, client) = unlimited().await;
    // Characters, not bytes.
    let seen = "画".repeat(800);
    let long = format!("{seen} and make it blue");
    let picture = photo(1);
    let answer = client.edit(&body(&picture, "description_edit", &long, json!({}))).await;
    let asked = |prompt: &str| Asked::new(MODEL).function("description_edit").prompt(prompt);
    assert!(client.is_right(&answer, &picture, &asked(&seen)).await);
    assert!(client.is_right(&answer, &picture, &asked(&long)).await, "a test need not cut by itself");
    client.edit(&body(&picture, "description_edit", &seen, json!({}))).await;
    let again = provider.ledger().paid_again();
    assert_eq!(again.into_values().collect::<Vec<_>>(), [2], "two prompts, one edit to the provider");
}

#[tokio::test]
async fn a_wrong_create_is_refused_with_its_documented_code_free() {
    let (provider, client) = unlimited().await;
    let picture = photo(1);
    let with = |field: &str, value: Value| {
        let mut body = simple(&picture);
        body["input"][field] = value;
        body
    };
    let params = |function: &str, params: Value| body(&picture, function, "clean", params);
    let image = |bytes: &[u8]| with("base_image_url", data_uri(bytes).into());
    let mut masked = body(&picture, "description_edit_with_mask", "x", json!({}));
    masked["input"]["mask_image_url"] = data_uri(&picture_as(2, 512, 513, ImageFormat::Png)).into();
    let table = [
        (json!({ "model": MODEL }), 400, "BadRequest.EmptyInput"),
        (json!({ "model": "wanx9", "input": { "prompt": "" } }), 404, "ModelNotFound"),
        (json!({ "input": { "prompt": "" } }), 404, "ModelNotFound"),
        (with("function", "recolour".into()), 400, "InvalidParameter"),
        (with("function", Value::Null), 400, "InvalidParameter"),
        (with("prompt", Value::Null), 400, "InvalidParameter"),
        (with("base_image_url", Value::Null), 400, "InvalidParameter"),
        (with("base_image_url", "ftp://example/a.png".into()), 400, "InvalidURL"),
        (with("base_image_url", "oss://dashscope-instant/a/b.png".into()), 400, "InvalidURL"),
        (with("base_image_url", "data:image/png,abc".into()), 400, "InvalidParameter"),
        (params("description_edit_with_mask", json!({})), 400, "InvalidParameter"),
        (masked, 400, "InvalidParameter"),
        (params("description_edit", json!({ "strength": 1.5 })), 400, "InvalidParameter"),
        (params("expand", json!({ "top_scale": 0.9 })), 400, "InvalidParameter"),
        (params("super_resolution", json!({ "upscale_factor": 5 })), 400, "InvalidParameter"),
        (params("super_resolution", json!({ "upscale_factor": 1.5 })), 400, "InvalidParameter"),
        (params("doodle", json!({ "is_sketch": "yes" })), 400, "InvalidParameter"),
        (params("doodle", json!({ "seed": -1 })), 400, "InvalidParameter"),
        (params("doodle", json!({ "n": 5 })), 400, "InvalidParameter"),
        (params("doodle", json!({ "n": 0 })), 400, "InvalidParameter"),
        (image(&picture_as(1, 511, 600, ImageFormat::Png)), 400, "InvalidImageResolution"),
        (
            image(&pictures::encode(&RgbImage::new(4097, 512), ImageFormat::Png)),
            400,
            "InvalidImageResolution",
        ),
        (image(&picture_as(1, 8, 8, ImageFormat::Gif)), 400, "InvalidImage.FileFormat"),
        (image(b"no picture"), 400, "InvalidImage.FileFormat"),
    ];
    for (body, status, code) in &table {
        assert_eq!(refused(client.creating(body)).await, (*status, (*code).to_owned()), "{code}");
    }
    let received = provider.ledger().received;
    assert_eq!(received.len(), table.len());
    assert!(received.iter().all(|create| create.task_id.is_none()));
    assert_eq!(provider.ledger().billed(), 0);
}

#[tokio::test]
async fn account_and_headers_are_checked_before_the_request() {
    let (provider, client) = unlimited().await;
    let wrong = json!({ "model": MODEL, "input": { "function": "none" } });
    let key = (401, "InvalidApiKey".to_owned());
    let url = format!("{}{IMAGE2IMAGE}", provider.dashscope_url());
    let anonymous = client.http.post(url).header("content-type", "application/json").body(wrong.to_string());
    let (status, answer) = said(anonymous).await;
    assert_eq!(
        (status, &answer["code"], &answer["message"]),
        (401, &json!("InvalidApiKey"), &json!("No API-key provided."))
    );
    assert_eq!(refused(Client::with_key(&provider, "sk-wrong").creating(&wrong)).await, key);
    let (status, answer) = said(client.posting(IMAGE2IMAGE, &wrong)).await;
    assert_eq!((status, &answer["code"]), (403, &json!("AccessDenied")));
    assert_eq!(answer["message"], "current user api does not support synchronous calls.");
    let message = message("qwen-image-2.0", &photo(1), "red");
    let (status, answer) =
        said(client.posting(MESSAGES, &message).header("x-dashscope-async", "enable")).await;
    assert_eq!((status, &answer["code"]), (403, &json!("AccessDenied")));
    assert_eq!(answer["message"], "current user api does not support asynchronous calls.");
    let form = client.request(Method::POST, IMAGE2IMAGE).header("content-type", "text/plain").body("{}");
    assert_eq!(refused(form).await, (400, "InvalidParameter".to_owned()));
    let no_json =
        client.request(Method::POST, IMAGE2IMAGE).header("content-type", "application/json").body("{");
    assert_eq!(refused(no_json).await, (400, "InvalidParameter".to_owned()));
}

#[tokio::test]
async fn a_data_uri_has_at_most_10485760_bytes() {
    let (_provider, client) = unlimited().await;
    let head = "data:image/png;base64,";
    let uri = |length: usize| format!("{head}{}", "A".repeat(length - head.len()));
    let mut body = simple(&photo(1));
    body["input"]["base_image_url"] = uri(10_485_761).into();
    let (status, answer) = said(client.creating(&body)).await;
    assert_eq!((status, &answer["code"]), (400, &json!("InvalidParameter")));
    assert_eq!(answer["message"], "Exceeded limit on max bytes per data-uri item : 10485760");
    // Short enough, whatever else is wrong with it.
    body["input"]["base_image_url"] = uri(10_485_760).into();
    let (_, answer) = said(client.creating(&body)).await;
    assert!(!answer["message"].as_str().unwrap().contains("Exceeded limit"), "{answer}");
}

#[tokio::test]
async fn several_pictures_of_one_request_differ_and_each_is_billed() {
    let (provider, client) = unlimited().await;
    let picture = photo(1);
    let answer = client.edit(&body(&picture, "doodle", "a cat", json!({ "n": 3 }))).await;
    let asked = Asked::new(MODEL).function("doodle").prompt("a cat");
    for nth in 0..3 {
        let made = client.bytes(&answer["output"]["results"][nth]["url"]).await;
        assert!(same_pixels(&made, &expected_nth(&picture, &asked, nth)), "{nth}");
    }
    assert_eq!(answer["usage"]["image_count"], 3);
    let ledger = provider.ledger();
    assert_eq!((ledger.creates(), ledger.billed_of(&asked.identity(&picture)), ledger.fen()), (1, 3, 42));
}

#[tokio::test]
async fn a_missing_picture_at_a_url_fails_the_task() {
    let (provider, client) = unlimited().await;
    let server = PictureServer::start().await;
    let picture = photo(1);
    let mut body = simple(&picture);
    body["input"]["base_image_url"] = server.png("/a.png", picture.clone()).into();
    let answer = client.edit(&body).await;
    assert!(client.is_right(&answer, &picture, &simple_asked()).await);
    body["input"]["base_image_url"] = server.url("/gone.png").into();
    let answer = client.edit(&body).await;
    assert_eq!(answer["output"]["task_status"], "FAILED");
    assert_eq!(answer["output"]["code"], "InvalidURL");
    assert_eq!(answer["output"]["task_metrics"], json!({ "TOTAL": 1, "SUCCEEDED": 0, "FAILED": 1 }));
    assert_eq!(provider.ledger().billed(), 1);
}

#[tokio::test]
async fn faults_may_be_reported_as_a_failed_task_instead() {
    let (provider, client) = unlimited().await;
    provider.set(|settings| settings.fails_late = true);
    let answer = client.edit(&body(&photo(1), "recolour", "x", json!({}))).await;
    assert_eq!(
        (&answer["output"]["task_status"], &answer["output"]["code"]),
        (&json!("FAILED"), &json!("InvalidParameter"))
    );
    assert_eq!(provider.ledger().billed(), 0);
}

#[tokio::test]
async fn a_picture_that_is_cut_short_fails_its_task() {
    let (provider, client) = unlimited().await;
    let picture = photo(1);
    let answer = client.edit(&simple(&picture[..picture.len() / 2])).await;
    assert_eq!(answer["output"]["task_status"], "FAILED");
    assert_eq!(provider.ledger().billed(), 0);
}

#[tokio::test]
async fn wan2_5_takes_several_images_at_the_same_path() {
    let (provider, client) = unlimited().await;
    let (one, two) = (photo(1), photo(2));
    let input =
        json!({ "prompt": "join", "images": [data_uri(&one), data_uri(&two)], "negative_prompt": "blur" });
    let body =
        json!({ "model": "wan2.5-i2i-preview", "input": input, "parameters": { "size": "1024*1024" } });
    let answer = client.edit(&body).await;
    let asked = Asked::new("wan2.5-i2i-preview").prompt("join").and_image(&two);
    let asked = asked.param("negative_prompt", "blur").param("size", "1024*1024");
    assert!(client.is_right(&answer, &one, &asked).await);
    assert_eq!(provider.ledger().fen(), 20);
    let mut small = body;
    small["parameters"]["size"] = "512*512".into();
    assert_eq!(refused(client.creating(&small)).await, (400, "InvalidParameter".to_owned()));
}

#[tokio::test]
async fn messages_are_answered_at_once_and_of_wan_models_also_as_tasks() {
    let (provider, client) = unlimited().await;
    let picture = photo(1);
    for model in ["qwen-image-2.0", "qwen-image-2.0-pro", "wan2.6-image", "wan2.7-image", "wan2.7-image-pro"]
    {
        let (status, answer) = said(client.posting(MESSAGES, &message(model, &picture, "red"))).await;
        assert_eq!(status, 200, "{answer}");
        let choice = &answer["output"]["choices"][0];
        assert_eq!(choice["message"]["role"], "assistant");
        let made = client.bytes(&choice["message"]["content"][0]["image"]).await;
        assert!(same_pixels(&made, &expected(&picture, &Asked::new(model).prompt("red"))), "{model}");
        assert_eq!(answer["usage"]["output_image_count"], 1);
    }
    assert_eq!(provider.ledger().fen(), 20 + 50 + 20 + 20 + 50);
    let path = "/services/aigc/image-generation/generation";
    let create = client.posting(path, &message("wan2.6-image", &picture, "blue"));
    let (_, answer) = said(create.header("x-dashscope-async", "enable")).await;
    let answer = client.ended(answer["output"]["task_id"].as_str().unwrap()).await;
    assert_eq!(answer["output"]["finished"], true);
    let content = &answer["output"]["choices"][0]["message"]["content"][0];
    assert_eq!(content["type"], "image");
    let made = client.bytes(&content["image"]).await;
    assert!(same_pixels(&made, &expected(&picture, &Asked::new("wan2.6-image").prompt("blue"))));
}

#[tokio::test]
async fn a_message_has_one_text_and_up_to_three_images() {
    let (provider, client) = unlimited().await;
    let (image, text) = (json!({ "image": data_uri(&photo(1)) }), json!({ "text": "red" }));
    let contents = [
        json!([image]),
        json!([text]),
        json!([image, text, text]),
        json!([image, image, image, image, text]),
    ];
    for content in contents {
        let input = json!({ "messages": [{ "role": "user", "content": content }] });
        let body = json!({ "model": "qwen-image-2.0", "input": input });
        assert_eq!(refused(client.posting(MESSAGES, &body)).await, (400, "InvalidParameter".to_owned()));
    }
    let retired = message("qwen-image-edit", &photo(1), "red");
    assert_eq!(refused(client.posting(MESSAGES, &retired)).await, (404, "ModelNotFound".to_owned()));
    provider.revive("qwen-image-edit");
    assert_eq!(said(client.posting(MESSAGES, &retired)).await.0, 200);
}

#[tokio::test]
async fn an_uploaded_file_belongs_to_its_account_and_model() {
    let (provider, client) = unlimited().await;
    let policy = client.request(Method::GET, &format!("/uploads?action=getPolicy&model={MODEL}"));
    let (_, answer) = said(policy).await;
    let data = &answer["data"];
    let text = |name: &str| data[name].as_str().unwrap().to_owned();
    let key = format!("{}/a.png", text("upload_dir"));
    let fields = [
        ("OSSAccessKeyId", text("oss_access_key_id")),
        ("Signature", text("signature")),
        ("policy", text("policy")),
        ("key", key.clone()),
        ("success_action_status", "200".to_owned()),
    ];
    let form = |bytes: &[u8]| multipart(&fields, bytes);
    let upload = |bytes: &[u8]| {
        let (kind, body) = form(bytes);
        client.http.post(text("upload_host")).header("content-type", kind).body(body).send()
    };
    let picture = photo(1);
    assert_eq!(upload(&picture).await.unwrap().status(), 200);
    assert_eq!(upload(&picture).await.unwrap().status(), 409, "overwriting is forbidden");

    let mut body = simple(&picture);
    body["input"]["base_image_url"] = format!("oss://{key}").into();
    assert_eq!(refused(client.creating(&body)).await, (400, "InvalidURL".to_owned()));
    let resolve = ("x-dashscope-ossresourceresolve", "enable");
    let strangers = Client::with_key(&provider, StandIn::STRANGERS_KEY);
    let theirs = strangers.creating(&body).header(resolve.0, resolve.1);
    assert_eq!(refused(theirs).await, (403, "AccessDenied".to_owned()));
    let (_, answer) = said(client.creating(&body).header(resolve.0, resolve.1)).await;
    let answer = client.ended(answer["output"]["task_id"].as_str().unwrap()).await;
    assert!(client.is_right(&answer, &picture, &simple_asked()).await);
    assert_eq!(provider.ledger().uploads, 1);
}

/// A form with the file last, as OSS wants it.
fn multipart(fields: &[(&str, String)], file: &[u8]) -> (String, Vec<u8>) {
    let boundary = "a-boundary-that-is-in-no-picture";
    let mut body = Vec::new();
    for (name, value) in fields {
        let part =
            format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        body.extend(part.into_bytes());
    }
    let head = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.png\"\r\nContent-Type: \
         image/png\r\n\r\n"
    );
    body.extend(head.into_bytes());
    body.extend(file);
    body.extend(format!("\r\n--{boundary}--\r\n").into_bytes());
    (format!("multipart/form-data; boundary={boundary}"), body)
}
