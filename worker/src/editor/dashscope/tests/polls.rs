//! Reading of answers to polls; the finished and failed bodies are from the provider's pages.

use super::*;

async fn poll(status: u16, body: &str, age: u64) -> String {
    let server = Server::start(&[(status, body)]).await;
    match server.editor().poll("a425c46f", Duration::from_secs(age)).await {
        Ok(Polled::Done(Output::Url(ResultUrl { url, lives }))) => {
            assert_eq!(lives, LIVES);
            url
        }
        Ok(Polled::Done(Output::Bytes(_))) => panic!("bytes"),
        Ok(Polled::Pending { after }) => format!("pending {}", after.as_secs()),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn a_poll_asks_for_one_task_with_any_id() {
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
async fn the_next_task_is_first_polled_at_its_expected_end() {
    let pending = r#"{"output":{"task_id":"b","task_status":"RUNNING"}}"#;
    let server = Server::start(&[(200, &SUCCEEDED.replace("RESULT", RESULT)), (200, pending)]).await;
    let editor = server.editor();
    // It took 10.744 s by the provider's clock, and was found a little later.
    let done = editor.poll("a", Duration::from_secs(12)).await;
    assert!(matches!(done, Ok(Polled::Done(_))), "{done:?}");
    let after = async |age| match editor.poll("b", Duration::from_millis(age)).await {
        Ok(Polled::Pending { after }) => after.as_millis(),
        other => panic!("{other:?}"),
    };
    assert_eq!(after(100).await, 3000, "no request was sent");
    assert_eq!(server.asked().len(), 1);
    let pause = after(6000).await;
    assert!((4700..=4764).contains(&pause), "until 10.764 s, less what this took: {pause}");
    assert_eq!(server.asked().len(), 2);
}

#[tokio::test]
async fn the_first_picture_of_a_finished_task_is_its_result() {
    let wrapped = format!(r#"{{"code":0,"data":{SUCCEEDED}}}"#);
    let flat = r#"{"task_status":"SUCCEEDED","result_url":"RESULT"}"#;
    let marked = format!("\u{feff} {SUCCEEDED}");
    for body in [SUCCEEDED, PARTIAL, CHOICES, &wrapped, flat, &marked] {
        assert_eq!(poll(200, &body.replace("RESULT", RESULT), 5).await, RESULT);
    }
}

#[tokio::test]
async fn a_failed_task_is_refused_or_retried_by_its_code() {
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
async fn an_unknown_task_is_polled_again_and_later_ambiguous() {
    let unknown = r#"{"request_id":"…","output":{"task_id":"…","task_status":"UNKNOWN"}}"#;
    let empty = r#"{"output":{"task_status":"SUCCEEDED","results":[]}}"#;
    for (status, body, later) in [
        (200, unknown, "ambiguous"),
        (404, "{}", "ambiguous"),
        (404, r#"{"code":"NotFound"}"#, "ambiguous"),
        // It was made: another submit would be answered the same.
        (200, empty, "unreadable"),
    ] {
        assert!(poll(status, body, 599).await.starts_with("unavailable"), "{body}");
        assert!(poll(status, body, 600).await.starts_with(later), "{body}");
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
