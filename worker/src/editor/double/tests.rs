//! Promises of the double; two instances over one folder stand for two processes.

use std::collections::BTreeSet;
use std::io::Cursor;

use image::{DynamicImage, ImageFormat, Rgba, RgbaImage};

use super::*;
use crate::editor::Picture;

/// A folder of its own for each test, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let name = format!("retouch-double-{}", uuid::Uuid::now_v7());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn double(&self) -> Double {
        Double::new(self.0.clone())
    }

    fn lines(&self, file: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.0.join(file)).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn open(&self, gate: &str) {
        fs::write(self.0.join(gate), "").unwrap();
    }

    /// Returns once the double has recorded a request: from then on it can only be waiting.
    async fn asked(&self) {
        let calls = self.0.join("calls.jsonl");
        until(|| fs::metadata(&calls).is_ok_and(|file| file.len() > 0)).await;
    }
}

async fn until(holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(30), "it never came about");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn request(edit_type: &str, params: &str) -> EditRequest {
    let image = RgbaImage::from_fn(4, 3, |x, y| {
        let (x, y) = (u8::try_from(x).unwrap(), u8::try_from(y).unwrap());
        Rgba([x * 60, y * 100, 7, 255 - x])
    });
    let mut out = Cursor::new(Vec::new());
    DynamicImage::from(image).write_to(&mut out, ImageFormat::Png).unwrap();
    let bytes = Bytes::from(out.into_inner());
    let media = inspect(&bytes).unwrap();
    let spec = EditSpec {
        edit_type: edit_type.to_owned(),
        prompt: String::new(),
        model: "any".to_owned(),
        params: params.parse().unwrap(),
        mask: None,
    };
    EditRequest { spec, image: Picture { bytes, media }, mask: None }
}

fn accepted(submitted: Submitted) -> String {
    match submitted {
        Submitted::Accepted { provider_task_id, .. } => provider_task_id,
        Submitted::Done(_) => panic!("double_async accepts"),
    }
}

fn done(submitted: Submitted) -> Bytes {
    match submitted {
        Submitted::Done(bytes) => bytes,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_result_is_the_negative_with_alpha_kept() {
    let folder = Folder::new();
    let request = request("double", "{}");
    let result = done(folder.double().submit(request.clone()).await.unwrap());
    assert_eq!(result, expected(&request.image.bytes).unwrap());
    let before = image::load_from_memory(&request.image.bytes).unwrap().into_rgba8();
    let after = image::load_from_memory(&result).unwrap().into_rgba8();
    assert_eq!(before.dimensions(), after.dimensions());
    for (Rgba([r, g, b, alpha]), after) in before.pixels().zip(after.pixels()) {
        assert_eq!(after.0, [255 - r, 255 - g, 255 - b, *alpha]);
    }
}

#[tokio::test]
async fn concurrent_submits_write_one_whole_line_each() {
    let folder = Folder::new();
    let long = format!(r#"{{"note":"{}"}}"#, "ä".repeat(5_000));
    let submits = (0..64).map(|_| {
        let double = folder.double();
        let request = request("double", &long);
        tokio::spawn(async move { double.submit(request).await })
    });
    for submit in submits.collect::<Vec<_>>() {
        submit.await.unwrap().unwrap();
    }
    let lines = folder.lines("calls.jsonl");
    assert_eq!(lines.len(), 64);
    let names: BTreeSet<_> = lines.iter().map(|line| line["call"].to_string()).collect();
    assert_eq!(names.len(), 64);
    let line = &lines[0];
    assert_eq!((line["at"].as_str(), line["edit_type"].as_str()), (Some("submit"), Some("double")));
    assert_eq!(line["pid"], std::process::id());
    assert!(line["image_hash"].as_str().unwrap().parse::<Digest32>().is_ok());
    assert!(line["unix_ms"].as_i64().unwrap() > 0 && line["params"]["note"].is_string());
}

#[tokio::test]
async fn exactly_the_first_submits_fail_over_all_processes() {
    let folder = Folder::new();
    let params = r#"{"fail":"unavailable","times":5}"#;
    let submits = (0..20).map(|_| {
        let double = folder.double();
        tokio::spawn(async move { double.submit(request("double", params)).await.is_err() })
    });
    let mut failed = 0;
    for submit in submits.collect::<Vec<_>>() {
        failed += u32::from(submit.await.unwrap());
    }
    assert_eq!(failed, 5);
    let other = request("double", r#"{"fail":"unavailable","times":5,"seed":1}"#);
    assert!(folder.double().submit(other).await.is_err(), "another edit has its own count");
}

#[tokio::test]
async fn every_failure_can_be_asked_for() {
    let folder = Folder::new();
    let words = || "as the test asked".to_owned();
    let after = |retry_after| EditError::RateLimited { retry_after, message: words() };
    let table = [
        (r#"{"fail":"not_sent"}"#, EditError::NotSent(words())),
        (r#"{"fail":"rate_limited"}"#, after(None)),
        (r#"{"fail":"rate_limited","retry_after_ms":70}"#, after(Some(Duration::from_millis(70)))),
        (r#"{"fail":"unavailable"}"#, EditError::Unavailable(words())),
        (r#"{"fail":"ambiguous"}"#, EditError::Ambiguous(words())),
        (r#"{"fail":"rejected"}"#, EditError::rejected("scripted_rejection", words())),
        (r#"{"fail":"blocked"}"#, EditError::Blocked { code: "scripted_block".to_owned(), message: words() }),
    ];
    for (params, expected) in table {
        for edit_type in ["double", "double_async"] {
            let error = folder.double().submit(request(edit_type, params)).await.unwrap_err();
            assert_eq!(error, expected, "{params}");
        }
    }
}

#[tokio::test]
async fn a_gate_holds_the_edit_until_it_is_opened() {
    let folder = Folder::new();
    let double = folder.double();
    let submit = tokio::spawn(async move { double.submit(request("double", r#"{"gate":"go"}"#)).await });
    folder.asked().await;
    assert!(!submit.is_finished());
    folder.open("go");
    done(submit.await.unwrap().unwrap());
}

#[tokio::test]
async fn a_task_can_be_polled_by_another_process() {
    let folder = Folder::new();
    let request = request("double_async", r#"{"gate":"go"}"#);
    let id = accepted(folder.double().submit(request.clone()).await.unwrap());
    let other = folder.double();
    assert!(matches!(other.poll(&id, Duration::ZERO).await.unwrap(), Polled::Pending { .. }));
    folder.open("go");
    for _ in 0..2 {
        let Polled::Done(Output::Bytes(bytes)) = other.poll(&id, Duration::ZERO).await.unwrap() else {
            panic!("the gate is open");
        };
        assert_eq!(bytes, expected(&request.image.bytes).unwrap());
    }
    let polls = folder.lines("polls.jsonl");
    assert_eq!(polls.len(), 3);
    assert!(polls.iter().all(|line| line["at"] == "poll" && line["provider_task_id"] == id.as_str()));
    let again = accepted(folder.double().submit(request).await.unwrap());
    assert_ne!(id, again, "a second call is a second task");
}

#[tokio::test]
async fn an_edit_takes_the_configured_time() {
    let folder = Folder::new();
    let double = folder.double();
    let started = Instant::now();
    let id = accepted(double.submit(request("double_async", r#"{"delay_ms":150}"#)).await.unwrap());
    while !matches!(double.poll(&id, Duration::ZERO).await.unwrap(), Polled::Done(_)) {
        assert!(started.elapsed() < Duration::from_secs(30));
        tokio::time::sleep(POLL_AFTER).await;
    }
    assert!(started.elapsed() >= Duration::from_millis(150));
    let started = Instant::now();
    done(double.submit(request("double", r#"{"delay_ms":50}"#)).await.unwrap());
    assert!(started.elapsed() >= Duration::from_millis(50));
}

#[tokio::test]
async fn a_submit_gate_delays_the_answer_of_an_accepted_task() {
    let folder = Folder::new();
    let double = folder.double();
    let request = request("double_async", r#"{"submit_gate":"answer"}"#);
    let submit = tokio::spawn(async move { double.submit(request).await });
    let tasks = folder.0.join("tasks");
    let kept = || {
        fs::read_dir(&tasks).is_ok_and(|mut tasks| {
            tasks.any(|task| task.unwrap().path().extension().is_some_and(|end| end == "json"))
        })
    };
    until(kept).await;
    assert!(!submit.is_finished());
    folder.open("answer");
    accepted(submit.await.unwrap().unwrap());
}

#[tokio::test]
async fn the_first_polls_fail_if_asked_to() {
    let folder = Folder::new();
    let params = r#"{"poll_fail":"unavailable","poll_times":2}"#;
    let id = accepted(folder.double().submit(request("double_async", params)).await.unwrap());
    for _ in 0..2 {
        assert!(matches!(folder.double().poll(&id, Duration::ZERO).await, Err(EditError::Unavailable(_))));
    }
    assert!(matches!(folder.double().poll(&id, Duration::ZERO).await, Ok(Polled::Done(_))));
}

#[tokio::test]
async fn an_unknown_id_is_refused_and_reaches_no_other_file() {
    let folder = Folder::new();
    folder.open("secret.json");
    for id in ["unheard-of", "../secret", ""] {
        let error = folder.double().poll(id, Duration::ZERO).await.unwrap_err();
        assert!(matches!(error, EditError::Rejected { code, .. } if code == "unknown_task"));
    }
}

#[test]
fn a_script_that_makes_no_sense_is_refused() {
    let folder = Folder::new();
    let check = |edit_type: &str, params: &str| {
        let request = request(edit_type, params);
        match folder.double().check(&request.spec, request.image.measure()) {
            Err(EditError::Rejected { code, .. }) => Some(code),
            Err(other) => panic!("{other:?}"),
            Ok(()) => None,
        }
    };
    assert_eq!(check("grayscale", "{}").as_deref(), Some("unknown_edit_type"));
    assert_eq!(check("double", r#"{"fail":"somehow"}"#).as_deref(), Some("invalid_params"));
    assert_eq!(check("double", r#"{"poll_fail":"ambiguous"}"#).as_deref(), Some("invalid_params"));
    assert_eq!(check("double", r#"{"gate":"../x"}"#).as_deref(), Some("invalid_params"));
    assert_eq!(check("double", r#"{"seed":7,"gate":"go"}"#), None);
}
