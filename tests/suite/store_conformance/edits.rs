//! Edits: different ones are kept apart, and text is returned unchanged.

use retouch_shared::key::Digest32;
use retouch_worker::store::{CallSpec, Store};

use super::fixture::{Fixture, cached, claim, edit, finish, found, keyed, miss, register, result_of, task};

promises!(
    edits_that_differ_in_one_respect_are_kept_apart,
    text_comes_back_as_it_went_in,
    the_longest_prompt_comes_back_as_it_went_in,
    text_that_does_not_fit_is_refused_and_never_cut,
);

/// Edits of which each differs from the first in one respect, some of them hard to see for a database.
fn look_alikes() -> Vec<CallSpec> {
    let change = |change: fn(&mut CallSpec)| {
        let mut call = edit("picture");
        call.prompt = "Cat".to_owned();
        change(&mut call);
        keyed(call)
    };
    vec![
        change(|_| {}),
        change(|call| call.prompt = "cat".to_owned()),
        change(|call| call.prompt = "Cat ".to_owned()),
        change(|call| call.prompt = "Cát".to_owned()),
        change(|call| call.prompt = "\u{1F408}".to_owned()),
        change(|call| call.prompt = "\u{1F415}".to_owned()),
        change(|call| call.prompt = String::new()),
        change(|call| call.edit_type = "Remove_watermark".to_owned()),
        change(|call| call.model = "M-1".to_owned()),
        change(|call| call.provider = "triple".to_owned()),
        change(|call| call.params = r#"{"seed":8}"#.parse().unwrap()),
        change(|call| call.params = r#"{"seed":7,"n":1}"#.parse().unwrap()),
        change(|call| call.params = r#"{"seed":"7"}"#.parse().unwrap()),
        change(|call| call.params = "{}".parse().unwrap()),
        change(|call| call.mask_hash = Some(Digest32::of(b"mask"))),
        change(|call| call.variant = Some("b".to_owned())),
        change(|call| call.variant = Some("B".to_owned())),
        change(|call| call.image_hash = Digest32::of(b"another picture")),
    ]
}

async fn edits_that_differ_in_one_respect_are_kept_apart(db: Fixture) {
    let store = db.store().await;
    let edits = look_alikes();
    let (_, wake) = register(&store, &task("t", edits.iter().map(miss).collect())).await;
    assert_eq!(wake.len(), edits.len());
    for call in &edits {
        finish(&store, call).await;
    }
    let keys: Vec<_> = edits.iter().map(|call| call.edit_key).collect();
    let found = store.lookup(&keys).await.unwrap();
    for call in &edits {
        assert_eq!(found[&call.edit_key].result_hash, Some(result_of(call).hash), "{call:?}");
        assert_eq!(db.hit_count(call.edit_key).await, 1);
    }
    db.is_settled().await;
}

/// Takes an edit from the task to the cache, and looks at its text on the way.
async fn comes_back(db: &Fixture, store: &Store, task_id: &str, call: &CallSpec) {
    let mut new = task(task_id, vec![miss(call)]);
    new.prompt.clone_from(&call.prompt);
    new.metadata = Some(serde_json::json!({ "text": call.prompt.chars().take(1000).collect::<String>() }));
    register(store, &new).await;
    assert_eq!(found(store, task_id).await.metadata, new.metadata);
    assert_eq!(claim(store, call.edit_key).await.spec, *call);
    db.expire(call.edit_key).await;
    finish(store, call).await;
    let prompts = [
        format!("SELECT prompt FROM image_edit_cache WHERE edit_key = x'{}'", call.edit_key),
        format!("SELECT prompt FROM image_edit_tasks WHERE task_id = '{task_id}'"),
    ];
    for query in prompts {
        assert_eq!(db.text(&query).await, call.prompt);
    }
    assert!(cached(store, call.edit_key).await.is_some());
}

async fn text_comes_back_as_it_went_in(db: Fixture) {
    let store = db.store().await;
    all_texts_come_back(&db, &store).await;
}

async fn all_texts_come_back(db: &Fixture, store: &Store) {
    let texts = [
        "",
        " outer space ",
        "emoji \u{1F642}\u{1F468}\u{200D}\u{1F469}\u{200D}\u{1F467} and a flag \u{1F1E8}\u{1F1F3}",
        "中文, ελληνικά, עברית, Zażółć",
        r#"quotes " ' ` and \ back \n slashes \u0041 %s ? :name $1"#,
        "lines\nand\ttabs\r\n",
        r#"{"looks": ["like", "JSON"]}"#,
        "null",
        "12345678901234567890",
        "control \u{1}\u{1b}\u{7f}\u{85}\u{2028} characters",
        "'); DROP TABLE lanes; --",
    ];
    for (n, text) in texts.into_iter().enumerate() {
        let mut call = edit(&format!("picture {n}"));
        call.prompt = text.to_owned();
        call.variant = (!text.is_empty()).then(|| text.chars().take(64).collect());
        call.params = serde_json::Map::from_iter([(text.to_owned(), text.into())]).into();
        comes_back(db, store, &format!("task-{n}"), &keyed(call)).await;
    }
    db.is_settled().await;
}

/// A text column of `JSON_TABLE` has the character set of the database unless told otherwise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_survives_every_character_set_of_the_database() {
    let db = Fixture::mariadb().await;
    db.execute("ALTER DATABASE CHARACTER SET latin1").await;
    let store = db.store().await;
    all_texts_come_back(&db, &store).await;
}

async fn the_longest_prompt_comes_back_as_it_went_in(db: Fixture) {
    let store = db.store().await;
    for (n, text) in ["\u{1F642}", "\"", "é", "x"].into_iter().enumerate() {
        let mut call = edit(&format!("picture {n}"));
        call.prompt = text.repeat(32_000);
        comes_back(&db, &store, &format!("task-{n}"), &keyed(call)).await;
    }
    db.is_settled().await;
}

async fn text_that_does_not_fit_is_refused_and_never_cut(db: Fixture) {
    let store = db.store().await;
    let mut call = edit("picture");
    call.variant = Some("v".repeat(65));
    let call = keyed(call);
    let refused = store.register(&task("t", vec![miss(&call)])).await;
    if db.is_sqlite() {
        // It has no widths, and keeps it whole.
        refused.unwrap();
        assert_eq!(claim(&store, call.edit_key).await.spec, call);
        return;
    }
    let error = refused.unwrap_err();
    assert!(matches!(error, retouch_worker::store::StoreError::Failed(_)), "{error}");
    assert!(store.find_task("t").await.unwrap().is_none());
}
