//! The list of tasks: spans, pages, and incomplete lists.

use super::*;
use crate::editor::{AGE_ERROR, ListedTask};

/// A list of the tasks with these ids, created so many seconds ago by this machine's clock, `PAGE` to a page.
fn pages(tasks: &[(&str, u64)], page: usize) -> Vec<(u16, String)> {
    let now = u64::try_from(chrono::Utc::now().timestamp_millis()).unwrap();
    let line = |(id, age): &(&str, u64)| json!({"task_id": id, "model_name": WANX, "gmt_create": now - age * 1000, "status": "RUNNING"});
    let total_page = tasks.len().div_ceil(page);
    let body = |data: Vec<Value>| {
        json!({"total": tasks.len(), "total_page": total_page, "data": data, "request_id": "r"}).to_string()
    };
    let chunks = tasks.chunks(page).map(|chunk| (200, body(chunk.iter().map(line).collect())));
    // The first answer only provides the provider's time.
    std::iter::once((200, body(vec![]))).chain(chunks).collect()
}

async fn listed(
    answers: Vec<(u16, String)>,
    model: &str,
    since: Duration,
) -> (Result<Option<Listed>, EditError>, Vec<Asked>) {
    let answers: Vec<_> = answers.iter().map(|(status, body)| (*status, body.as_str())).collect();
    let server = Server::start(&answers).await;
    let settings = Settings { ask_list: Some(Duration::from_secs(7)), ..server.settings() };
    let editor = DashScope::new(settings, styles()).unwrap();
    (editor.list_submitted(model, since).await, server.asked())
}

const SINCE: Duration = Duration::from_secs(600);

#[tokio::test]
async fn every_page_of_the_span_is_read_with_the_tasks_ages() {
    let tasks = [("a", 10), ("b", 20), ("c", 30), ("d", 600), ("e", 650)];
    let (answer, asked) = listed(pages(&tasks, 2), WANX, SINCE).await;
    let Listed { tasks: found, settles } = answer.unwrap().unwrap();
    assert_eq!(settles, Duration::from_secs(7));
    assert_eq!(found.len(), tasks.len());
    for (ListedTask { provider_task_id, age }, (id, seconds)) in found.iter().zip(tasks) {
        assert_eq!(provider_task_id, id);
        assert!(age.unwrap().abs_diff(Duration::from_secs(seconds)) <= AGE_ERROR, "{id}: {age:?}");
    }
    assert_eq!(asked.len(), 1 + 3);
    let query: BTreeMap<_, _> =
        url::form_urlencoded::parse(asked[3].uri.query().unwrap().as_bytes()).into_owned().collect();
    assert_eq!(asked[3].uri.path(), "/api/v1/tasks/");
    assert_eq!((query["model_name"].as_str(), query["page_no"].as_str()), (WANX, "3"));
    // China time, from a minute before the submit.
    let time = |name: &str| chrono::NaiveDateTime::parse_from_str(&query[name], "%Y%m%d%H%M%S").unwrap();
    let china = chrono::Utc::now().naive_utc() + chrono::TimeDelta::hours(8);
    let (from, to) = ((china - time("start_time")).num_seconds(), (china - time("end_time")).num_seconds());
    assert!((655..=665).contains(&from) && (-3..=3).contains(&to), "{from} {to}");
}

#[tokio::test]
async fn an_empty_list_is_an_answer_and_excludes_other_models() {
    let (answer, _) = listed(pages(&[], 10), WANX, SINCE).await;
    assert_eq!(answer.unwrap().unwrap().tasks, []);
    let mut theirs = pages(&[("a", 1)], 10);
    theirs[1].1 = theirs[1].1.replace(WANX, "wan2.5-i2i-preview");
    assert_eq!(listed(theirs, WANX, SINCE).await.0.unwrap().unwrap().tasks, []);
    let mut dateless = pages(&[("a", 1)], 10);
    dateless[1].1 = dateless[1].1.replace("gmt_create", "created");
    assert_eq!(listed(dateless, WANX, SINCE).await.0.unwrap().unwrap().tasks[0].age, None);
}

#[tokio::test]
async fn a_list_that_may_have_a_gap_is_refused() {
    let mut shifted = pages(&[("a", 1), ("b", 2), ("c", 3)], 2);
    shifted[2].1 = shifted[2].1.replace("\"c\"", "\"b\"");
    let mut broken = pages(&[("a", 1), ("b", 2), ("c", 3)], 2);
    broken[2] = (500, r#"{"code":"InternalError","message":"x"}"#.to_owned());
    let short = vec![(200, json!({"total": 3, "total_page": 1, "data": []}).to_string())];
    let odd = vec![(200, r#"{"output":{}}"#.to_owned())];
    let inside = vec![(
        200,
        r#"{"code":"InvalidParameter","message":"x","data":[],"total":0,"total_page":0}"#.to_owned(),
    )];
    for answers in [shifted, broken, short, odd, inside] {
        let error = listed(answers.clone(), WANX, SINCE).await.0.unwrap_err();
        assert!(matches!(error, EditError::Unavailable(_)), "{answers:?}: {error}");
    }
    let throttled = vec![(429, r#"{"code":"Throttling","message":"x"}"#.to_owned())];
    let error = listed(throttled, WANX, SINCE).await.0.unwrap_err();
    assert!(matches!(error, EditError::RateLimited { .. }), "{error}");
}

#[tokio::test]
async fn the_list_is_skipped_for_synchronous_calls_old_submits_and_when_off() {
    for (model, hours) in [("qwen-image-2.0", 0), (WANX, 24)] {
        let since = Duration::from_secs(hours * 3600);
        let (answer, asked) = listed(pages(&[], 10), model, since).await;
        assert_eq!((answer.unwrap(), asked.len()), (None, 0), "{model}");
    }
    let server = Server::start(&[(200, "{}")]).await;
    assert_eq!(server.editor().list_submitted(WANX, SINCE).await.unwrap(), None);
    assert!(server.asked().is_empty());
}
