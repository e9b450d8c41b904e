//! The official SDKs, unchanged, work with the stand-in as with the providers; and their known habits show in
//! its books.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use retouch_tests::pictures::same_pixels;
use retouch_tests::program::Program;
use retouch_tests::python;
use retouch_tests::stand_in::{
    Asked, Fault, Limits, ModelLimits, OnCreate, OnRequest, Refusal, StandIn, Told, expected,
};
use serde_json::{Value, json};

use super::client::{Client, MODEL, data_uri, photo, simple_asked};

async fn dashscope(provider: &StandIn, steps: Value) -> Program {
    let program = python::sdk("dashscope_steps.py", &[&steps.to_string()]).await;
    program.env("DASHSCOPE_HTTP_BASE_URL", provider.dashscope_url()).env("DASHSCOPE_API_KEY", StandIn::KEY)
}

/// What each step was answered.
async fn answers(program: Program) -> Vec<Value> {
    let done = program.run().await;
    assert!(done.status.success(), "{}", done.stderr);
    done.stdout.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
}

async fn provider() -> (StandIn, Client) {
    let provider = StandIn::start().await;
    // The SDK waits a second between two queries; what is done at once needs no second one.
    provider.set(|settings| (settings.task_duration, settings.limits) = (Duration::ZERO, Limits::Off));
    let client = Client::new(&provider);
    (provider, client)
}

fn edit(image: &str) -> Value {
    json!({ "model": MODEL, "function": "remove_watermark", "prompt": "clean", "base_image_url": image })
}

#[tokio::test]
async fn the_dashscope_sdk_creates_waits_calls_and_lists() {
    let (provider, client) = provider().await;
    let (one, two) = (photo(1), photo(2));
    let steps = json!([
        ["ImageSynthesis.async_call", edit(&data_uri(&one))],
        ["ImageSynthesis.wait", { "task": { "answer": 0 } }],
        ["ImageSynthesis.call", edit(&data_uri(&two))],
        ["ImageSynthesis.list", { "model_name": MODEL, "status": "SUCCEEDED" }],
    ]);
    let answers = answers(dashscope(&provider, steps).await).await;
    assert_eq!(
        (&answers[0]["status_code"], &answers[0]["output"]["task_status"]),
        (&json!(200), &json!("PENDING"))
    );
    for (answer, picture) in [(&answers[1], &one), (&answers[2], &two)] {
        assert_eq!(answer["output"]["task_status"], "SUCCEEDED", "{answer}");
        assert_eq!(answer["usage"]["image_count"], 1);
        assert!(client.is_right(answer, picture, &simple_asked()).await);
    }
    assert_eq!(answers[3]["output"]["total"], 2);
    assert_eq!((provider.ledger().creates(), provider.ledger().billed()), (2, 2));
}

#[tokio::test]
async fn the_dashscope_sdk_polls_until_a_running_task_has_ended() {
    let (provider, client) = provider().await;
    provider.set(|settings| settings.task_duration = Duration::from_millis(500));
    let picture = photo(1);
    let steps = json!([["ImageSynthesis.call", edit(&data_uri(&picture))]]);
    let answers = answers(dashscope(&provider, steps).await).await;
    assert!(client.is_right(&answers[0], &picture, &simple_asked()).await);
    assert_eq!(provider.ledger().polls, 2);
}

#[tokio::test]
async fn the_dashscope_sdk_cancels_pending_tasks_only() {
    let (provider, _) = provider().await;
    provider.set(|settings| {
        settings.task_duration = Duration::from_secs(1000);
        settings.limits = Limits::of(MODEL, ModelLimits::new(10, 1));
    });
    let steps = json!([
        ["ImageSynthesis.async_call", edit(&data_uri(&photo(1)))],
        ["ImageSynthesis.async_call", edit(&data_uri(&photo(2)))],
        ["ImageSynthesis.cancel", { "task": { "answer": 0 } }],
        ["ImageSynthesis.cancel", { "task": { "answer": 1 } }],
        ["ImageSynthesis.fetch", { "task": { "answer": 1 } }],
    ]);
    let answers = answers(dashscope(&provider, steps).await).await;
    assert_eq!(
        (&answers[2]["status_code"], &answers[2]["code"]),
        (&json!(400), &json!("UnsupportedOperation"))
    );
    assert_eq!(answers[3]["status_code"], 200);
    assert_eq!(answers[4]["output"]["task_status"], "CANCELED");
}

#[tokio::test]
async fn the_dashscope_sdk_uploads_local_pictures_to_oss() {
    let (provider, client) = provider().await;
    let (picture, mask) = (photo(1), photo(2));
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (image, masked) = (path("a.png", &picture), path("mask.png", &mask));
    let steps = json!([
        ["ImageSynthesis.call", {
            "model": MODEL, "function": "description_edit_with_mask", "prompt": "red",
            "base_image_url": image, "mask_image_url": format!("file://{masked}"), "seed": 7,
        }],
    ]);
    let answers = answers(dashscope(&provider, steps).await).await;
    let asked =
        Asked::new(MODEL).function("description_edit_with_mask").prompt("red").param("seed", 7).mask(&mask);
    assert!(client.is_right(&answers[0], &picture, &asked).await, "{}", answers[0]);
    assert_eq!(provider.ledger().uploads, 2);
}

#[tokio::test]
async fn the_dashscope_sdk_holds_conversations_with_messages_style_models() {
    let (provider, client) = provider().await;
    let picture = photo(1);
    let conversation = |text: &str, model: &str| {
        let content = json!([{ "image": data_uri(&picture) }, { "text": text }]);
        json!({ "model": model, "messages": [{ "role": "user", "content": content }], "seed": 3, "watermark": false })
    };
    let steps = json!([
        ["MultiModalConversation.call", conversation("red", "qwen-image-2.0")],
        ["MultiModalConversation.call", conversation("red", "qwen-image-edit")],
    ]);
    let answers = answers(dashscope(&provider, steps).await).await;
    let url = &answers[0]["output"]["choices"][0]["message"]["content"][0]["image"];
    let asked = Asked::new("qwen-image-2.0").prompt("red").param("seed", 3);
    assert!(same_pixels(&client.bytes(url).await, &expected(&picture, &asked)));
    assert_eq!((&answers[1]["status_code"], &answers[1]["code"]), (&json!(404), &json!("ModelNotFound")));
}

#[tokio::test]
async fn the_dashscope_sdk_pays_twice_after_a_dropped_connection() {
    let (provider, client) = provider().await;
    let lost = provider.arm(Fault::Create(OnCreate::Drop { created: true }));
    let picture = photo(1);
    let steps = json!([["ImageSynthesis.call", edit(&data_uri(&picture))]]);
    let answers = answers(dashscope(&provider, steps).await).await;
    assert!(client.is_right(&answers[0], &picture, &simple_asked()).await);
    let (ledger, identity) = (provider.ledger(), simple_asked().identity(&picture));
    assert_eq!((lost.fired(), ledger.creates_of(&identity), ledger.billed_of(&identity)), (1, 2, 2));
    let told: Vec<_> = ledger.received.iter().map(|create| &create.told).collect();
    assert_eq!(told, [&Told::Dropped, &Told::Accepted]);
}

#[tokio::test]
async fn the_dashscope_sdk_gives_up_on_429_and_500() {
    let (provider, _) = provider().await;
    let throttled = Refusal::throttled();
    provider.arm(Fault::Create(OnCreate::Refuse { refusal: throttled, created: false }));
    provider.arm(Fault::Poll(OnRequest::Refuse(Refusal::internal_error())));
    let steps = json!([
        ["ImageSynthesis.async_call", edit(&data_uri(&photo(1)))],
        ["ImageSynthesis.call", edit(&data_uri(&photo(1)))],
    ]);
    let answers = answers(dashscope(&provider, steps).await).await;
    assert_eq!(
        (&answers[0]["status_code"], &answers[0]["code"]),
        (&json!(429), &json!("Throttling.RateQuota"))
    );
    // Paid, and lost to the caller.
    assert_eq!(answers[1]["status_code"], 500, "{}", answers[1]);
    let ledger = provider.ledger();
    assert_eq!((ledger.received.len(), ledger.billed(), ledger.polls), (2, 1, 1));
}

/// Runs the OpenAI SDK on pictures that are written to files for it.
async fn openai(provider: &StandIn, images: &[&[u8]], mask: Option<&[u8]>, more: Value) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: String, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let mut arguments = more;
    let images: Vec<_> =
        images.iter().enumerate().map(|(at, bytes)| path(format!("{at}.png"), bytes)).collect();
    arguments["image"] = if let [one] = &images[..] { json!(one) } else { json!(images) };
    if let Some(mask) = mask {
        arguments["mask"] = path("mask.png".to_owned(), mask).into();
    }
    let program = python::sdk("openai_edit.py", &[&arguments.to_string()]).await;
    let program = program.env("OPENAI_BASE_URL", provider.openai_url()).env("OPENAI_API_KEY", StandIn::KEY);
    answers(program).await.remove(0)
}

fn decoded(answer: &Value) -> Vec<u8> {
    BASE64.decode(answer["data"][0]["b64_json"].as_str().unwrap_or_else(|| panic!("{answer}"))).unwrap()
}

#[tokio::test]
async fn the_openai_sdk_edits_one_picture_and_several_with_a_mask() {
    let (provider, _) = provider().await;
    let (one, two, mask) = (photo(1), photo(2), photo(3));
    let more = json!({ "model": "gpt-image-1.5", "prompt": "red" });
    let answer = openai(&provider, &[&one], None, more).await;
    let asked = Asked::new("gpt-image-1.5").prompt("red");
    assert!(same_pixels(&decoded(&answer), &expected(&one, &asked)));
    let more =
        json!({ "model": "gpt-image-1-mini", "prompt": "blue", "quality": "low", "size": "1024x1024" });
    let answer = openai(&provider, &[&one, &two], Some(&mask), more).await;
    let asked =
        Asked::new("gpt-image-1-mini").prompt("blue").param("quality", "low").param("size", "1024x1024");
    assert!(same_pixels(&decoded(&answer), &expected(&one, &asked.and_image(&two).mask(&mask))));
    assert_eq!(provider.ledger().billed(), 2);
}

#[tokio::test]
async fn the_openai_sdk_may_pay_for_three_sends() {
    let (provider, _) = provider().await;
    let refusal = Refusal::internal_error();
    provider.arm(Fault::Create(OnCreate::Refuse { refusal, created: true }));
    provider.arm(Fault::Create(OnCreate::Drop { created: true }));
    let more = json!({ "model": "gpt-image-1.5", "prompt": "red" });
    let answer = openai(&provider, &[&photo(1)], None, more).await;
    decoded(&answer);
    let ledger = provider.ledger();
    assert_eq!((ledger.received.len(), ledger.billed()), (3, 3));
}

#[tokio::test]
async fn the_openai_sdk_recognises_refusals_by_their_class_and_code() {
    let (provider, _) = provider().await;
    let more = json!({ "model": "gpt-image-1.5", "prompt": "red" });
    let refusal = Refusal::moderation_blocked();
    provider.arm(Fault::Create(OnCreate::Refuse { refusal, created: false }));
    let answer = openai(&provider, &[&photo(1)], None, more.clone()).await;
    assert_eq!(answer, json!({ "raised": "BadRequestError", "status": 400, "code": "moderation_blocked" }));
    provider.disable_key();
    let answer = openai(&provider, &[&photo(1)], None, more).await;
    assert_eq!(answer, json!({ "raised": "AuthenticationError", "status": 401, "code": "invalid_api_key" }));
    assert_eq!(provider.ledger().received.len(), 2, "neither is sent again");
}
