//! Every fault strikes its target, as often as scripted, and the books stay right whatever the client is
//! told.

use std::time::Duration;

use futures::future::join_all;
use reqwest::Method;
use retouch_tests::pictures::same_pixels;
use retouch_tests::stand_in::{
    Chaos, Fault, Limits, OnCreate, OnRequest, OnResult, OnTask, Refusal, StandIn, Told, expected,
};
use serde_json::{Value, json};

use super::client::*;

async fn unlimited() -> (StandIn, Client) {
    let provider = StandIn::start().await;
    // Done as soon as accepted: no test depends on how fast it is.
    provider.set(|settings| (settings.limits, settings.task_duration) = (Limits::Off, Duration::ZERO));
    let client = Client::new(&provider);
    (provider, client)
}

fn refuse(refusal: Refusal, created: bool) -> Fault {
    Fault::Create(OnCreate::Refuse { refusal, created })
}

#[tokio::test]
async fn a_create_whose_connection_ends_is_done_or_not_done_as_asked() {
    for created in [true, false] {
        let (provider, client) = unlimited().await;
        let fault = provider.arm(Fault::Create(OnCreate::Drop { created }));
        let picture = photo(1);
        let error = client.creating(&simple(&picture)).send().await.unwrap_err();
        assert!(error.status().is_none() && !error.is_connect(), "{error:?}");
        assert_eq!(fault.fired(), 1);
        provider.advance(Duration::from_secs(1));
        let (ledger, identity) = (provider.ledger(), simple_asked().identity(&picture));
        assert_eq!((ledger.received_of(&identity), ledger.creates_of(&identity)), (1, usize::from(created)));
        assert_eq!(ledger.billed_of(&identity), u64::from(created));
        assert_eq!(ledger.received[0].told, Told::Dropped);
        // And once only.
        client.create(&simple(&picture)).await;
        assert_eq!(fault.fired(), 1);
    }
}

#[tokio::test]
async fn a_500_on_a_create_is_scripted_and_found_in_the_list() {
    for created in [true, false] {
        let (provider, client) = unlimited().await;
        provider.arm(refuse(Refusal::internal_error(), created));
        assert_eq!(refused(client.creating(&simple(&photo(1)))).await, (500, "InternalError".to_owned()));
        let (_, list) = said(client.request(Method::GET, &format!("/tasks/?model_name={MODEL}"))).await;
        assert_eq!(list["total"], u64::from(created));
        provider.advance(Duration::from_secs(1));
        let ledger = provider.ledger();
        assert_eq!((ledger.creates(), ledger.billed()), (usize::from(created), u64::from(created)));
        assert_eq!(ledger.received[0].told, Told::Refused(500, "InternalError".to_owned()));
    }
}

#[tokio::test]
async fn any_status_code_and_message_can_be_had_and_costs_nothing() {
    let (provider, client) = unlimited().await;
    let table = [
        Refusal::throttled(),
        Refusal::throttled().retry_after(3),
        Refusal::overdue(),
        Refusal::free_quota(),
        Refusal::new(400, "DataInspectionFailed", "Output data may contain inappropriate content."),
        Refusal::new(403, "Model.AccessDenied", "Model access denied."),
        Refusal::new(408, "RequestTimeOut", "Request timed out."),
        Refusal::new(503, "ModelUnavailable", "Model is unavailable."),
        // HTTP 200 with a code and no output.
        Refusal::new(200, "InternalError", "Something went wrong."),
    ];
    for refusal in &table {
        let fault = provider.arm(refuse(refusal.clone(), false));
        let response = client.creating(&simple(&photo(1))).send().await.unwrap();
        assert_eq!(response.status().as_u16(), refusal.status);
        let after = response.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(after, refusal.retry_after.map(|seconds| seconds.to_string()));
        let answer = json_of(response).await;
        assert_eq!([&answer["code"], &answer["message"]], [&refusal.code, &refusal.message]);
        assert!(answer.get("output").is_none());
        assert_eq!(fault.fired(), 1);
    }
    provider.advance(Duration::from_secs(1));
    assert_eq!((provider.ledger().creates(), provider.ledger().billed()), (0, 0));
}

#[tokio::test]
async fn a_held_create_is_done_although_its_client_left() {
    let (provider, client) = unlimited().await;
    let held = provider.arm(Fault::Create(OnCreate::Hold { created: false }).times(2));
    let body = simple(&photo(1));
    let gone = tokio::spawn(client.creating(&body).send());
    let patient = tokio::spawn(client.creating(&body).send());
    held.held(2).await;
    assert_eq!(provider.ledger().creates(), 0);
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    held.release();
    assert_eq!(patient.await.unwrap().unwrap().status(), 200);
    retouch_tests::wait::until("both to be created", async || {
        (provider.ledger().creates() == 2).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_task_ends_as_scripted_and_bills_only_made_pictures() {
    let (provider, client) = unlimited().await;
    let picture = photo(1);
    let output = async |fault: OnTask, n: u64| {
        let fault = provider.arm(Fault::Task(fault));
        let answer = client.edit(&body(&picture, "remove_watermark", "clean", json!({ "n": n }))).await;
        assert_eq!(fault.fired(), 1);
        answer["output"].clone()
    };
    let refusal = Refusal::new(400, "DataInspectionFailed", "Output data may contain inappropriate content.");
    let failed = output(OnTask::Fail(refusal.clone()), 4).await;
    assert_eq!(
        [&failed["task_status"], &failed["code"], &failed["message"]],
        ["FAILED", &refusal.code, &refusal.message]
    );
    assert_eq!(failed["task_metrics"], json!({ "TOTAL": 4, "SUCCEEDED": 0, "FAILED": 4 }));
    assert_eq!(output(OnTask::Cancel, 1).await["task_status"], "CANCELED");
    assert_eq!(provider.ledger().billed(), 0);

    let timeout = Refusal::new(500, "InternalError.Timeout", "An internal timeout error has occured.");
    for (n, total) in [(1, 2), (2, 2)] {
        let partial = output(OnTask::Partial(timeout.clone()), n).await;
        assert_eq!(partial["task_status"], "SUCCEEDED");
        assert_eq!(partial["results"][0], json!({ "code": timeout.code, "message": timeout.message }));
        assert_eq!(partial["task_metrics"], json!({ "TOTAL": total, "SUCCEEDED": 1, "FAILED": 1 }));
        let made = client.bytes(&partial["results"][1]["url"]).await;
        assert_eq!(same_pixels(&made, &expected(&picture, &simple_asked())), n == 1);
    }
    assert_eq!(provider.ledger().billed(), 2);

    provider.arm(Fault::Task(OnTask::Never));
    provider.arm(Fault::Task(OnTask::Slow(Duration::from_secs(100))));
    let [never, slow] = [client.create(&simple(&picture)).await, client.create(&simple(&picture)).await];
    provider.advance(Duration::from_secs(50));
    assert_eq!([client.status(&never).await, client.status(&slow).await], ["RUNNING", "RUNNING"]);
    provider.advance(Duration::from_secs(50));
    assert_eq!([client.status(&never).await, client.status(&slow).await], ["RUNNING", "SUCCEEDED"]);
    provider.advance(Duration::from_secs(24 * 60 * 60));
    assert_eq!(client.status(&never).await, "UNKNOWN");
}

#[tokio::test]
async fn a_synchronous_call_is_billed_whether_or_not_the_answer_arrives() {
    let (provider, client) = unlimited().await;
    let message = message("qwen-image-2.0", &photo(1), "red");
    let call = || client.posting(MESSAGES, &message);
    provider.arm(Fault::Create(OnCreate::Drop { created: true }));
    assert!(call().send().await.is_err());
    provider.arm(Fault::Create(OnCreate::Drop { created: false }));
    assert!(call().send().await.is_err());
    // A client that leaves in the middle of the work.
    provider.set(|settings| settings.task_duration = Duration::from_secs(1000));
    let leaving = tokio::spawn(call().send());
    retouch_tests::wait::until("the call", async || (provider.ledger().creates() == 2).then_some(())).await;
    leaving.abort();
    assert!(leaving.await.unwrap_err().is_cancelled());
    assert_eq!(provider.ledger().billed(), 1);
    provider.advance(Duration::from_secs(1000));
    assert_eq!(provider.ledger().billed(), 2);
    provider.set(|settings| settings.task_duration = Duration::ZERO);
    let refusal = Refusal::new(400, "DataInspectionFailed", "no");
    provider.arm(Fault::Task(OnTask::Fail(refusal)));
    assert_eq!(refused(call()).await, (400, "DataInspectionFailed".to_owned()));
    assert_eq!(provider.ledger().billed(), 2);
}

#[tokio::test]
async fn faults_of_surrounding_requests_do_not_harm_the_task() {
    let (provider, client) = unlimited().await;
    let id = client.create(&simple(&photo(1))).await;
    let query = || client.request(Method::GET, &format!("/tasks/{id}"));
    let table = [
        (Fault::Poll as fn(OnRequest) -> Fault, Method::GET, format!("/tasks/{id}")),
        (Fault::List, Method::GET, "/tasks/".to_owned()),
        (Fault::Cancel, Method::POST, format!("/tasks/{id}/cancel")),
        (Fault::Upload, Method::GET, format!("/uploads?action=getPolicy&model={MODEL}")),
    ];
    for (fault, method, path) in table {
        let request = || client.request(method.clone(), &path);
        for status in [429, 500, 503] {
            provider.arm(fault(OnRequest::Refuse(Refusal::new(status, "SystemError", "as asked"))));
            assert_eq!(refused(request()).await, (status, "SystemError".to_owned()));
        }
        provider.arm(fault(OnRequest::Drop));
        assert!(request().send().await.is_err());
        let held = provider.arm(fault(OnRequest::Hold));
        let waiting = tokio::spawn(request().send());
        held.held(1).await;
        held.release();
        waiting.await.unwrap().unwrap();
    }
    assert_eq!(said(query()).await.1["output"]["task_status"], "SUCCEEDED");
    assert_eq!(provider.ledger().billed(), 1);
}

#[tokio::test]
async fn a_download_goes_wrong_as_asked_and_can_be_tried_again() {
    let (provider, client) = unlimited().await;
    let picture = photo(1);
    let answer = client.edit(&simple(&picture)).await;
    let url = answer["output"]["results"][0]["url"].as_str().unwrap();
    let whole = client.download(url).await.bytes().await.unwrap();
    let get = async |fault: OnResult| {
        let fault = provider.arm(Fault::Result(fault));
        let response = client.http.get(url).send().await;
        assert_eq!(fault.fired(), 1);
        response
    };
    for (status, code) in [(403, "AccessDenied"), (404, "NoSuchKey"), (500, "InternalError")] {
        let response = get(OnResult::Status(status)).await.unwrap();
        assert_eq!(response.status().as_u16(), status);
        assert!(response.text().await.unwrap().contains(&format!("<Code>{code}</Code>")));
    }
    let truncated = get(OnResult::Truncated).await.unwrap().bytes().await.unwrap();
    assert_eq!(truncated, whole.slice(..whole.len() / 2), "an honest length, half a picture");
    let cut = get(OnResult::CutOff).await.unwrap();
    assert_eq!(cut.content_length(), Some(whole.len() as u64));
    assert!(cut.bytes().await.is_err());
    let html = get(OnResult::Html).await.unwrap();
    assert_eq!(
        (html.status().as_u16(), &html.headers()["content-type"]),
        (200, &"text/html; charset=utf-8".parse().unwrap())
    );
    assert!(get(OnResult::Drop).await.is_err());
    assert_eq!(client.download(url).await.bytes().await.unwrap(), whole);
    assert_eq!(provider.ledger().downloads, 9);
}

#[tokio::test]
async fn a_key_an_account_and_a_model_can_be_shut_and_opened() {
    let (provider, client) = unlimited().await;
    let body = simple(&photo(1));
    provider.disable_key();
    assert_eq!(refused(client.creating(&body)).await, (401, "InvalidApiKey".to_owned()));
    assert_eq!(refused(client.request(Method::GET, "/tasks/x")).await, (401, "InvalidApiKey".to_owned()));
    provider.enable_key();
    provider.arrears(true);
    assert_eq!(refused(client.creating(&body)).await, (400, "Arrearage".to_owned()));
    provider.arrears(false);
    provider.retire(MODEL);
    assert_eq!(refused(client.creating(&body)).await, (404, "ModelNotFound".to_owned()));
    provider.revive(MODEL);
    client.create(&body).await;
}

#[tokio::test]
async fn a_fault_strikes_its_model_the_scripted_number_of_times() {
    let (provider, client) = unlimited().await;
    let fault = provider.arm(refuse(Refusal::throttled(), false).times(2).of_model("wan2.5-i2i-preview"));
    let wan =
        json!({ "model": "wan2.5-i2i-preview", "input": { "prompt": "x", "images": [data_uri(&photo(1))] } });
    let wrong = json!({ "model": "wan2.5-i2i-preview", "input": { "prompt": "x", "images": [] } });
    client.create(&simple(&photo(1))).await;
    assert_eq!(refused(client.creating(&wrong)).await.0, 400);
    assert_eq!(fault.fired(), 0);
    let status = async || client.creating(&wan).send().await.unwrap().status().as_u16();
    assert_eq!([status().await, status().await, status().await], [429, 429, 200]);
    assert_eq!(fault.fired(), 2);
    let always = provider.arm(refuse(Refusal::throttled(), false).always());
    assert_eq!([status().await, status().await], [429, 429]);
    always.clear();
    assert_eq!(status().await, 200);
    provider.arm(refuse(Refusal::throttled(), false).always());
    provider.clear_faults();
    assert_eq!(status().await, 200);
}

#[tokio::test]
async fn chaos_with_the_same_seed_brings_the_same_faults() {
    let pictures: Vec<_> = (0..40).map(photo).collect();
    let run = async |seed: u64, backwards: bool| {
        let (provider, client) = unlimited().await;
        let struck = provider.chaos(seed, Chaos::ambiguous(0.1));
        let bodies: Vec<Value> = pictures.iter().map(|picture| simple(picture)).collect();
        let send =
            async |body: &Value| client.creating(body).send().await.map_or(0, |said| said.status().as_u16());
        let mut statuses = match backwards {
            true => join_all(bodies.iter().rev().map(send)).await,
            false => join_all(bodies.iter().map(send)).await,
        };
        if backwards {
            statuses.reverse();
        }
        assert!(struck.fired() > 0);
        (statuses, provider.ledger().creates())
    };
    let first = run(1, false).await;
    assert_eq!(first, run(1, true).await);
    assert_ne!(first.0, run(2, false).await.0);
    for status in [0, 200, 429, 500] {
        assert!(first.0.contains(&status), "no {status}: {first:?}");
    }
}
