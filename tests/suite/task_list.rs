//! `retouch task list`: registered tasks, the newest first, a page at a time.

use retouch_tests::laptop::Laptop;
use serde_json::{Value, json};

fn ids(page: &Value) -> Vec<String> {
    let tasks = page["tasks"].as_array().unwrap().iter();
    tasks.map(|task| task["task_id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn tasks_are_listed_the_newest_first_by_status_type_and_age() {
    let laptop = Laptop::new();
    laptop.picture("cat.png", 1);
    laptop.picture("dog.png", 2);
    laptop.write("small.png", retouch_tests::pictures::picture_as(3, 8, 8, image::ImageFormat::Png));
    assert_eq!(laptop.retouch(&["task", "list"]).run().await.stdout, "no tasks\n");
    let id = |report: &Value| report["task_id"].as_str().unwrap().to_owned();
    let bought = id(&laptop.report(&["edit", "cat.png", "-t", "double"]).await);
    let crop = ["-t", "crop", "--param", "width=32", "--param", "height=32"];
    let (_, cut) = laptop.ended(&[&["edit", "dog.png", "small.png"], &crop[..]].concat()).await;
    let cut = id(&cut);
    let all = laptop.report(&["task", "list"]).await;
    assert_eq!(ids(&all), [&*cut, &*bought]);
    let task = &all["tasks"][1];
    assert_eq!(
        (&task["status"], &task["images"], &task["paid"]),
        (&json!("completed"), &json!(1), &json!(1))
    );
    assert_eq!(task["cost"], json!({"paid": "0.14", "saved": "0", "lost": "0", "currency": "CNY"}));
    for (filter, expected) in [
        (&["--status", "partial"][..], vec![cut.as_str()]),
        (&["--edit-type", "double"], vec![bought.as_str()]),
        (&["--since", "1h"], vec![cut.as_str(), &bought]),
        (&["--since", "2099-01-01"], vec![]),
        (&["--limit", "1"], vec![cut.as_str()]),
        (&["--before", &cut], vec![bought.as_str()]),
    ] {
        let page = laptop.report(&[&["task", "list"], filter].concat()).await;
        assert_eq!(ids(&page), expected, "{filter:?}");
        assert_eq!(page["next"].is_string(), filter[0] == "--limit", "{filter:?}");
    }
    let shown = laptop.retouch(&["task", "list"]).run().await.stdout;
    assert!(shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
    assert!(
        shown.contains("  partial, crop, ") && shown.contains("  1 image, 1 paid; 0.14 CNY\n"),
        "{shown}"
    );
    let unknown = laptop.retouch(&["task", "list", "--before", "unknown"]).run().await;
    assert_eq!(unknown.status.code(), Some(2), "{}", unknown.stderr);
}

#[tokio::test]
async fn an_edit_names_its_task_so_that_it_can_be_cancelled() {
    let laptop = Laptop::new();
    laptop.picture("cat.png", 1);
    let done = laptop.retouch(&["edit", "cat.png", "-t", "double"]).run().await;
    let id = done.stdout.lines().find_map(|line| line.strip_prefix("task ")).expect(&done.stdout);
    let cancel = laptop.retouch(&["task", "cancel", id]).run().await;
    assert!(cancel.stdout.contains("had already ended as completed"), "{}{}", cancel.stdout, cancel.stderr);
}
