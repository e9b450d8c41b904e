//! Several processes on one file: interrupted, at the same time, one after the other.

use std::collections::BTreeSet;

use nix::sys::signal::Signal;
use retouch_tests::laptop::{Laptop, counts, images};
use retouch_tests::pictures::{picture, same_pixels};
use retouch_tests::wait;
use retouch_worker::editor::double;
use serde_json::{Value, json};

/// A folder `in` with so many pictures.
fn pictures(count: u64) -> Laptop {
    let laptop = Laptop::new();
    for seed in 0..count {
        laptop.picture(&format!("in/{seed:02}.png"), seed);
    }
    laptop
}

/// Every result is right, in the order of the pictures.
fn all_right(laptop: &Laptop, report: &Value) {
    for (seed, output) in (0..).zip(images(report, "output")) {
        let expected = double::expected(&picture(seed)).unwrap();
        assert!(same_pixels(&laptop.read(&output), &expected), "{output}");
    }
}

/// The pictures that the double was asked for, each once.
fn asked_once(laptop: &Laptop) -> usize {
    let calls = laptop.calls();
    let pictures: BTreeSet<String> = calls.iter().map(|call| call["image_hash"].to_string()).collect();
    assert_eq!(pictures.len(), calls.len(), "a picture was paid for twice");
    calls.len()
}

#[tokio::test]
async fn an_interrupted_edit_goes_on_where_it_was_and_pays_for_nothing_twice() {
    let laptop = pictures(5);
    laptop.write("retouch.toml", "[lanes.double]\nconcurrency = 1");
    let edit = ["edit", "in", "-t", "double", "--param", "gate=go", "--json"];
    let interrupted = laptop.retouch(&edit).start();
    laptop.called(1).await;
    interrupted.signal(Signal::SIGINT);
    // What is under way is finished, and nothing else is begun.
    wait::until("its last words", async || {
        laptop.open_gate("go");
        interrupted.status()
    })
    .await;
    let status = interrupted.exit().await;
    assert_eq!(status.code(), Some(130), "{}", interrupted.stderr());
    let report: Value = serde_json::from_str(&interrupted.stdout()).unwrap();
    assert_eq!((&report["status"], counts(&report)), (&"processing".into(), [0, 0, 1, 0]));
    assert_eq!(images(&report, "output")[0], "retouched/00-double.png", "what is finished is written");
    let said =
        "retouch: interrupted: 1 of 5 pictures done; 4 edits not sent. The same command goes on from here\n";
    assert_eq!(interrupted.stderr(), said);
    assert_eq!(asked_once(&laptop), 1);

    // Shut until all of it is looked up: what ends before that would be a hit.
    std::fs::remove_file(laptop.path("double/go")).unwrap();
    let repeated = laptop.retouch(&edit).env("RUST_LOG", "retouch_worker=info").start();
    let waiting = async || (repeated.stderr().matches("waiting for an edit").count() == 4).then_some(());
    wait::until("four waits", waiting).await;
    laptop.open_gate("go");
    assert_eq!(repeated.exit().await.code(), Some(0), "{}", repeated.stderr());
    let report: Value = serde_json::from_str(&repeated.stdout()).unwrap();
    // The others wait on calls that the interrupted task had begun.
    assert_eq!(counts(&report), [1, 4, 0, 0]);
    let taken_over = json!({"edits": 4, "costs": [{"amount": "0.56", "currency": "CNY"}]});
    assert_eq!(report["taken_over"], taken_over, "and are paid for by this command");
    assert_eq!((&report["cost"]["paid"], &report["cost"]["saved"]), (&json!("0.56"), &json!("0.14")));
    assert_eq!(asked_once(&laptop), 5);
    all_right(&laptop, &report);
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let laptop = pictures(1);
    let edit = laptop.retouch(&["edit", "in", "-t", "double", "--param", "gate=never"]).start();
    laptop.called(1).await;
    // Until it is gone: two signals may be one if nobody looked in between.
    let ended = wait::until("the end", async || {
        edit.signal(Signal::SIGINT);
        edit.status()
    });
    assert_eq!(ended.await.code(), Some(130));
}

#[tokio::test]
async fn two_edits_at_the_same_time_pay_once_and_both_get_their_pictures() {
    let laptop = pictures(6);
    let edit = |out| {
        laptop.retouch(&["edit", "in", "-t", "double", "--param", "gate=go", "--json", "-o", out]).start()
    };
    let both = [edit("one"), edit("two")];
    laptop.called(6).await;
    laptop.open_gate("go");
    let mut paid = 0;
    for process in &both {
        let status = process.exit().await;
        assert!(status.success(), "{}{}", process.stdout(), process.stderr());
        let report: Value = serde_json::from_str(&process.stdout()).unwrap();
        all_right(&laptop, &report);
        paid += counts(&report)[2];
    }
    assert_eq!((paid, asked_once(&laptop)), (6, 6));
}

#[tokio::test]
async fn two_edits_into_the_same_folder_leave_whole_pictures_only() {
    let laptop = pictures(12);
    let edit = || laptop.retouch(&["edit", "in", "-t", "invert", "--json"]).start();
    for process in [edit(), edit(), edit()] {
        let status = process.exit().await;
        assert!(status.success(), "{}{}", process.stdout(), process.stderr());
        all_right(&laptop, &serde_json::from_str(&process.stdout()).unwrap());
    }
    assert_eq!(laptop.list("retouched").len(), 12, "{:?}", laptop.list("retouched"));
}

#[tokio::test]
async fn a_worker_on_the_same_file_answers_what_another_process_submits() {
    let laptop = pictures(2);
    laptop.write("fake.png", "no picture at all");
    let worker = laptop.retouch(&["worker"]).start();
    worker.line(r#""message":"working""#).await;

    let report = laptop.report(&["submit", "in", "-t", "double", "--wait"]).await;
    assert_eq!(
        (counts(&report), images(&report, "input")),
        ([0, 0, 2, 0], vec!["in/00.png".to_owned(), "in/01.png".to_owned()])
    );
    assert!(report["images"][0]["result_url"].as_str().unwrap().starts_with("file://"), "{report}");
    let again = laptop.report(&["submit", "in/01.png", "-t", "double", "--wait"]).await;
    assert_eq!(counts(&again), [1, 0, 0, 0]);
    assert_eq!(asked_once(&laptop), 2);

    // A file that is no picture is told before anything is sent.
    let refused = laptop.retouch(&["submit", "fake.png", "-t", "double"]).run().await;
    assert_eq!(refused.status.code(), Some(2));
    assert!(refused.stderr.starts_with("retouch: fake.png: not a picture"), "{}", refused.stderr);
    // What only the worker can know ends as a failed task.
    let (code, unknown) = laptop.ended(&["submit", "in/00.png", "-t", "greyscale", "--wait"]).await;
    assert_eq!((code, counts(&unknown)), (1, [0, 0, 0, 1]));
    assert_eq!(unknown["images"][0]["error"]["code"], "unknown_edit_type");

    worker.terminate();
    assert!(worker.exit().await.success());
}

#[tokio::test]
async fn a_task_is_shown_while_it_is_under_way() {
    let laptop = pictures(2);
    let submit = ["submit", "in", "-t", "double", "--param", "gate=go", "--json"];
    let published: Value = serde_json::from_str(&laptop.retouch(&submit).run().await.stdout).unwrap();
    assert_eq!(published["status"], "published");
    let id = published["task_id"].as_str().unwrap();
    // Nobody has taken it in.
    assert_eq!(laptop.retouch(&["task", id]).run().await.status.code(), Some(2));

    let worker = laptop.retouch(&["worker"]).start();
    laptop.called(2).await;
    let (code, report) = laptop.ended(&["task", id]).await;
    assert_eq!((code, &report["status"], counts(&report)), (0, &"processing".into(), [0; 4]));
    assert_eq!(images(&report, "status"), ["waiting", "waiting"]);
    let shown = laptop.retouch(&["task", id]).run().await.stdout;
    assert!(
        shown.starts_with(&format!("{id}: double, processing, 0 of 2 images answered\n… data:image/png")),
        "{shown}"
    );

    laptop.open_gate("go");
    let ended = wait::until("the end of the task", async || {
        let (_, report) = laptop.ended(&["task", id]).await;
        (report["status"] == "completed").then_some(report)
    });
    assert_eq!(counts(&ended.await), [0, 0, 2, 0]);
    let shown = laptop.retouch(&["task", id]).run().await.stdout;
    assert!(shown.starts_with(&format!("{id}: double, completed\n✓ data:image/png")), "{shown}");
    drop(worker);
}

#[tokio::test]
async fn nobody_waits_longer_for_a_task_than_asked() {
    let laptop = pictures(1);
    let done = laptop.retouch(&["submit", "in", "-t", "double", "--wait", "--timeout", "1"]).run().await;
    assert_eq!(done.status.code(), Some(3));
    let says = "has not ended within 1 s: is a `retouch worker` running? `retouch task ";
    assert!(done.stderr.contains(says), "{}", done.stderr);
    // It was taken all the same: a worker that starts later does it.
    let worker = laptop.retouch(&["worker"]).start();
    laptop.called(1).await;
    worker.line("\"message\":\"finished\"").await;
}

#[tokio::test]
async fn a_worker_logs_json_that_names_task_and_edit() {
    let laptop = pictures(1);
    let worker = laptop.retouch(&["worker"]).start();
    let report = laptop.report(&["submit", "in", "-t", "double", "--wait"]).await;
    worker.terminate();
    assert!(worker.exit().await.success());
    assert_eq!(worker.stdout(), "", "logs go to standard error");
    let text = worker.stderr();
    let logs: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let find = |message: &str| {
        logs.iter()
            .find(|log| log["message"] == message)
            .unwrap_or_else(|| panic!("no {message:?} in {text}"))
    };
    assert_eq!(find("task taken in")["span"]["task_id"], report["task_id"]);
    let key = find("calling")["span"]["edit_key"].as_str().unwrap();
    assert!(key.len() == 64 && key.bytes().all(|b| b.is_ascii_hexdigit()), "{key}");
    assert_eq!(find("finished")["span"]["edit_key"], key);
    for log in &logs {
        assert!(log["timestamp"].is_string() && log["level"].is_string(), "{log}");
    }
    // Neither the picture nor where it came from is anybody's business.
    assert!(!text.contains("base64"), "{text}");
}
