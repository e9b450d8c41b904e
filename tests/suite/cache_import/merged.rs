//! Prompts that an older system's collation had merged.

use retouch_tests::older::{self, CACHE, Older, TASKS_JSON};
use retouch_tests::site::Site;
use serde_json::{Value, json};

use super::import;

/// Tasks of one picture each with these prompts, all answered by the older cache from the first one's row.
async fn asked(older: &Older, prompts: &[&str]) {
    let results = json!([{"hash": older::hash(1), "url": older::link(1)}]).to_string();
    let row = |(n, prompt): (usize, &&str)| {
        vec![json!(format!("old-{n}")), json!("double"), json!(prompt), json!("completed"), json!(results)]
    };
    let rows: Vec<_> = prompts.iter().enumerate().map(row).collect();
    older.insert("image_edit_tasks", "task_id, edit_type, prompt, status, results", &rows).await;
}

fn spellings(report: &Value) -> Vec<[String; 2]> {
    let examples = report["merged_prompts"]["examples"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    examples.iter().map(|example| [text(&example[1]), text(&example[2])]).collect()
}

#[tokio::test]
async fn a_merged_picture_goes_to_its_first_prompt_only() {
    let site = Site::in_one_file().await;
    let older = Older::on_mariadb(TASKS_JSON).await;
    asked(&older, &["Un café", "un cafe", "UN CAFÉ", "un thé", " un thé "]).await;
    let (_, report) = import(&site, &older, &[]).await;
    // A shared link belongs to the first row's prompt.
    assert_eq!(
        (&report["new"], &report["skipped"]["shared_link"]["count"]),
        (&json!(1), &json!(4)),
        "{report}"
    );
    assert_eq!(site.texts("SELECT prompt FROM image_edit_cache").await, ["Un café"]);
    let merged = &report["merged_prompts"];
    assert_eq!((&merged["groups"], &merged["prompts"]), (&json!(1), &json!(3)), "{report}");
    assert_eq!(merged["collation"], "utf8mb4_general_ci");
    assert_eq!(spellings(&report), [["UN CAFÉ".to_owned(), "un cafe".to_owned()]]);
}

#[tokio::test]
async fn prompts_are_compared_by_the_older_keys_collation() {
    let site = Site::in_one_file().await;
    let older = Older::on_mariadb(CACHE).await;
    older.execute(TASKS_JSON).await;
    older.cache(0..1).await;
    let long = "x".repeat(191);
    asked(&older, &["Cat", "cat", "dog", &format!("{long} red"), &format!("{long} blue")]).await;
    let (_, report) = import(&site, &older, &[]).await;
    let merged = &report["merged_prompts"];
    assert_eq!(
        (&merged["table"], &merged["characters"]),
        (&json!("image_edit_tasks"), &json!(191)),
        "{report}"
    );
    assert_eq!((&merged["groups"], &merged["prompts"]), (&json!(2), &json!(4)), "{report}");
    // The tasks themselves are another import.
    assert_eq!((&report["new"], &report["table"]), (&json!(1), &json!("image_edit_cache")));
    let (_, tasks) = import(&site, &older, &["--table", "image_edit_tasks"]).await;
    assert_eq!(tasks["new"], 1);
}
