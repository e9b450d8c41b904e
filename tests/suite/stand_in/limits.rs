//! How many, how fast, how long: the provider's limits and its clock.

use std::time::Duration;

use futures::future::join_all;
use reqwest::Method;
use retouch_tests::stand_in::{Limits, ModelLimits, StandIn};
use serde_json::{Value, json};

use super::client::*;

const LONG: Duration = Duration::from_secs(1000);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// Only the test moves the clock, on slow machines too.
async fn stopped() -> StandIn {
    let provider = StandIn::start().await;
    provider.set(|settings| settings.task_duration = Duration::ZERO);
    provider.stop_clock();
    provider
}

#[tokio::test]
async fn two_submits_a_second_are_accepted_and_two_tasks_run() {
    let provider = stopped().await;
    provider.set(|settings| settings.task_duration = LONG);
    let client = Client::new(&provider);
    let mut ids = Vec::new();
    for _ in 0..2 {
        for _ in 0..2 {
            ids.push(client.create(&simple(&photo(1))).await);
        }
        let response = client.creating(&simple(&photo(1))).send().await.unwrap();
        assert_eq!(response.status(), 429);
        assert!(!response.headers().contains_key("retry-after"), "not documented");
        assert_eq!(json_of(response).await["code"], "Throttling.RateQuota");
        provider.advance(SECOND);
    }
    let statuses = async || join_all(ids.iter().map(|id| client.status(id))).await;
    assert_eq!(statuses().await, ["RUNNING", "RUNNING", "PENDING", "PENDING"]);
    provider.advance(LONG);
    assert_eq!(statuses().await, ["SUCCEEDED", "SUCCEEDED", "RUNNING", "RUNNING"]);
    provider.advance(LONG);
    assert_eq!(statuses().await, ["SUCCEEDED"; 4]);
    let ledger = provider.ledger();
    assert_eq!((ledger.most_running(), ledger.most_open()), (2, 4));
    assert_eq!((ledger.received.len(), ledger.creates(), ledger.billed()), (6, 4, 4));
    assert_eq!(ledger.refused("Throttling.RateQuota"), 2);
    assert_eq!(ledger.most_submits_in_a_second(), 3);
}

#[tokio::test]
async fn a_client_exactly_at_the_limit_is_not_refused() {
    let provider = stopped().await;
    let client = Client::new(&provider);
    for _ in 0..6 {
        client.create(&simple(&photo(1))).await;
        provider.advance(Duration::from_millis(490));
    }
}

#[tokio::test]
async fn the_limits_hold_over_all_keys_of_the_account() {
    let provider = stopped().await;
    let [first, second, stranger] = [StandIn::KEY, StandIn::SECOND_KEY, StandIn::STRANGERS_KEY]
        .map(|key| Client::with_key(&provider, key));
    let id = first.create(&simple(&photo(1))).await;
    second.create(&simple(&photo(1))).await;
    let body = simple(&photo(1));
    assert_eq!(refused(first.creating(&body)).await.0, 429);
    assert_eq!(refused(second.creating(&body)).await.0, 429);
    stranger.create(&body).await;
    // And so are its tasks.
    first.ended(&id).await;
    assert_eq!(second.status(&id).await, "SUCCEEDED");
    assert_eq!(stranger.status(&id).await, "UNKNOWN");
    let cancel = stranger.request(Method::POST, &format!("/tasks/{id}/cancel"));
    assert_eq!(refused(cancel).await, (400, "UnsupportedOperation".to_owned()));
}

#[tokio::test]
async fn each_model_has_its_own_configurable_limits() {
    let provider = stopped().await;
    let client = Client::new(&provider);
    let pro = message("qwen-image-2.0-pro", &photo(1), "red");
    let status = async |body: &Value| client.posting(MESSAGES, body).send().await.unwrap().status().as_u16();
    assert_eq!([status(&pro).await, status(&pro).await, status(&pro).await], [200, 200, 429]);
    provider.advance(30 * SECOND);
    assert_eq!(status(&pro).await, 429, "two a minute");
    provider.advance(30 * SECOND);
    assert_eq!(status(&pro).await, 200);

    provider.set(|settings| {
        settings.limits = Limits::of(MODEL, ModelLimits::new(1, 1));
        settings.retry_after = Some(7);
    });
    client.create(&simple(&photo(1))).await;
    let response = client.creating(&simple(&photo(1))).send().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["retry-after"]),
        (429, &"7".parse().unwrap())
    );

    provider.set(|settings| (settings.limits, settings.task_duration) = (Limits::Off, LONG));
    let body = simple(&photo(1));
    let ids = join_all((0..10).map(|_| client.create(&body))).await;
    assert_eq!(join_all(ids.iter().map(|id| client.status(id))).await, ["RUNNING"; 10]);
}

#[tokio::test]
async fn queries_lists_and_cancellations_are_twenty_a_second_each() {
    let provider = stopped().await;
    let client = Client::new(&provider);
    for (method, path) in
        [(Method::GET, "/tasks/none"), (Method::GET, "/tasks/"), (Method::POST, "/tasks/none/cancel")]
    {
        let mut statuses = Vec::new();
        for _ in 0..21 {
            statuses.push(client.request(method.clone(), path).send().await.unwrap().status().as_u16());
        }
        assert!(!statuses[..20].contains(&429), "{path}: {statuses:?}");
        assert_eq!(statuses[20], 429, "{path}");
    }
    let ledger = provider.ledger();
    assert_eq!((ledger.polls, ledger.lists, ledger.cancels), (21, 21, 21));
}

#[tokio::test]
async fn a_task_is_unknown_and_its_picture_gone_after_24_hours() {
    let provider = stopped().await;
    let client = Client::new(&provider);
    let answer = client.edit(&simple(&photo(1))).await;
    let id = answer["output"]["task_id"].as_str().unwrap();
    let url = answer["output"]["results"][0]["url"].as_str().unwrap();
    assert!(url.contains("?Expires="));
    provider.advance(24 * HOUR - 60 * SECOND);
    assert_eq!(client.status(id).await, "SUCCEEDED");
    assert_eq!(client.download(url).await.status(), 200);
    provider.advance(120 * SECOND);
    let unknown = client.poll(id).await;
    assert_eq!(unknown["output"], json!({ "task_id": id, "task_status": "UNKNOWN" }));
    let gone = client.download(url).await;
    assert_eq!(
        (gone.status().as_u16(), &gone.headers()["content-type"]),
        (403, &"application/xml".parse().unwrap())
    );
    assert!(gone.text().await.unwrap().contains("<Code>AccessDenied</Code>"));
    assert_eq!(client.status("never-was").await, "UNKNOWN");
    let forged = url.replace("Expires=", "Expires=9");
    assert_eq!(client.download(&forged).await.status(), 403, "the signature is of the time too");
}

#[tokio::test]
async fn a_list_shows_model_time_and_status_without_the_request() {
    let provider = stopped().await;
    provider.set(|settings| (settings.task_duration, settings.limits) = (LONG, Limits::Off));
    let client = Client::new(&provider);
    let began = provider.clock();
    let first = client.create(&simple(&photo(1))).await;
    provider.advance(LONG);
    for _ in 0..12 {
        client.create(&simple(&photo(2))).await;
    }
    let wan =
        json!({ "model": "wan2.5-i2i-preview", "input": { "prompt": "x", "images": [data_uri(&photo(1))] } });
    client.create(&wan).await;
    let list = async |query: &str| said(client.request(Method::GET, &format!("/tasks/{query}"))).await.1;

    let all = list("").await;
    assert_eq!([&all["total"], &all["total_page"], &all["page_no"], &all["page_size"]], [14, 2, 1, 10]);
    assert_eq!(all["data"].as_array().unwrap().len(), 10);
    assert_eq!(list("?page_no=2").await["data"].as_array().unwrap().len(), 4);
    assert_eq!(list("?page_size=3").await["total_page"], 5);
    assert_eq!(list("?model_name=wan2.5-i2i-preview").await["total"], 1);
    assert_eq!(list("?status=RUNNING").await["total"], 13);
    let ended = list("?status=SUCCEEDED").await;
    let line = &ended["data"][0];
    assert_eq!((&ended["total"], &line["task_id"]), (&json!(1), &json!(first)));
    assert_eq!(line["user_api_unique_key"], format!("apikey:v1:aigc:image2image:image-synthesis:{MODEL}"));
    assert_eq!(line["end_time"].as_i64().unwrap() - line["start_time"].as_i64().unwrap(), 1_000_000);
    assert!(list("?status=RUNNING").await["data"][0].get("end_time").is_none());
    assert_eq!(list(&format!("?task_id={first}")).await["total"], 1);
    // The list does not show the request.
    assert!(!all.to_string().contains("clean"));

    let time = |after: i64| {
        let at = began + chrono::TimeDelta::seconds(after);
        (at + chrono::TimeDelta::hours(8)).format("%Y%m%d%H%M%S").to_string()
    };
    let window = format!("?start_time={}&end_time={}", time(-5), time(500));
    assert_eq!(list(&window).await["total"], 1);
    let window = format!("?start_time={}&end_time={}", time(500), time(1500));
    assert_eq!(list(&window).await["total"], 13);
    let too_long = format!("?start_time={}&end_time={}", time(0), time(86_401));
    assert_eq!(list(&too_long).await["code"], "InvalidParameter");
    assert_eq!(list("?start_time=yesterday").await["code"], "InvalidParameter");
    provider.advance(25 * HOUR);
    assert_eq!(list("").await["total"], 0);
}

#[tokio::test]
async fn only_pending_tasks_can_be_cancelled() {
    let provider = stopped().await;
    provider.set(|settings| {
        (settings.task_duration, settings.limits) = (LONG, Limits::of(MODEL, ModelLimits::new(9, 1)))
    });
    let client = Client::new(&provider);
    let running = client.create(&simple(&photo(1))).await;
    let pending = client.create(&simple(&photo(1))).await;
    let cancel = |id: &str| client.request(Method::POST, &format!("/tasks/{id}/cancel"));
    let (status, answer) = said(cancel(&running)).await;
    assert_eq!((status, &answer["code"]), (400, &json!("UnsupportedOperation")));
    let words = "Failed to cancel the task, please confirm if the task is in PENDING status.";
    assert_eq!(answer["message"], words);
    let (status, answer) = said(cancel(&pending)).await;
    assert_eq!((status, answer.as_object().unwrap().len()), (200, 1), "only a request_id");
    assert_eq!(client.status(&pending).await, "CANCELED");
    assert_eq!(refused(cancel(&pending)).await.0, 400);
    provider.advance(LONG);
    let ledger = provider.ledger();
    assert_eq!((ledger.billed(), ledger.cancelled), (1, vec![pending]));
}
