//! Entries from an older system beside our own.

use std::time::Instant;

use retouch_shared::event::AnswerSource;
use retouch_shared::key::{EditKey, KEY_VERSION_NUMBER};
use retouch_worker::store::{Change, ImportEntry, Store, StoreError, StoredResult};

use super::fixture::{
    Fixture, PRICE, cached, edit, finish, found, hit, miss, price, register, result_of, task, url_of,
};

promises! {
    importing_again_adds_only_new_hits,
    an_entry_that_was_made_here_is_left_alone,
    a_link_is_upgraded_and_never_downgraded,
    a_result_that_is_made_here_replaces_a_link,
    forgotten_or_evicted_entries_are_not_imported_again,
    a_dead_link_is_taken_out_and_nothing_else,
    an_answer_from_a_link_says_nothing_of_what_is_not_known,
    two_thousand_entries_with_every_kind_of_text_are_one_import,
    an_entry_whose_picture_is_being_deleted_is_not_written,
    an_imported_entry_says_which_version_of_the_key_it_has,
}

/// An older system's link for the edit of a picture.
fn link(picture: &str, hits: u64) -> ImportEntry {
    let call = edit(picture);
    ImportEntry {
        edit_key: call.edit_key,
        image_hash: call.image_hash,
        edit_type: call.edit_type,
        prompt: call.prompt,
        provider: call.provider,
        model: call.model,
        params: call.params,
        price: price(),
        hits,
        result_url: format!("https://old.example/{picture}.png"),
        result: None,
    }
}

/// The same with its picture in our blobs.
fn copy(picture: &str, hits: u64) -> ImportEntry {
    let result = StoredResult { width: 32, height: 24, bytes: 99, ..result_of(&edit(picture)) };
    ImportEntry { result_url: url_of(&result), result: Some(result), ..link(picture, hits) }
}

async fn import(store: &Store, entry: &ImportEntry) -> (Change, u64) {
    store.import_entries(std::slice::from_ref(entry), Instant::now()).await.unwrap()[0]
}

/// How often it was served, and how much of that the older system says.
async fn hits(db: &Fixture, key: EditKey) -> [i64; 2] {
    let imported =
        format!("SELECT COALESCE(imported_hits, -1) FROM image_edit_cache WHERE edit_key = x'{key}'");
    [db.hit_count(key).await, db.number(&imported).await]
}

async fn importing_again_adds_only_new_hits(db: Fixture) {
    let store = db.store().await;
    let entry = link("one", 7);
    assert_eq!(import(&store, &entry).await, (Change::New, 7));
    assert_eq!(hits(&db, entry.edit_key).await, [7, 7]);
    let before = db.text("SELECT CONCAT(updated_at, id) FROM image_edit_cache").await;
    assert_eq!(import(&store, &entry).await, (Change::Same, 0));
    assert_eq!(db.text("SELECT CONCAT(updated_at, id) FROM image_edit_cache").await, before);
    // Served here twice, and three times more by the older system.
    let call = edit("one");
    let result = cached(&store, call.edit_key).await.unwrap();
    register(&store, &task("t", vec![hit(&call, &result), hit(&call, &result)])).await;
    assert_eq!(import(&store, &link("one", 10)).await, (Change::Counted, 3));
    assert_eq!(hits(&db, entry.edit_key).await, [12, 10]);
    // A backup of the older system counts less: nothing is taken back.
    assert_eq!(import(&store, &link("one", 4)).await, (Change::Same, 0));
    assert_eq!(hits(&db, entry.edit_key).await, [12, 10]);
    assert_eq!(found(&store, "t").await.saved_micros, 2 * PRICE);
}

async fn an_entry_that_was_made_here_is_left_alone(db: Fixture) {
    let store = db.store().await;
    let call = edit("one");
    register(&store, &task("t", vec![miss(&call)])).await;
    finish(&store, &call).await;
    let made = cached(&store, call.edit_key).await;
    for entry in [link("one", 9), copy("one", 9)] {
        assert_eq!(import(&store, &entry).await, (Change::MadeHere, 0));
        assert_eq!(cached(&store, call.edit_key).await, made);
        assert_eq!(hits(&db, call.edit_key).await, [1, -1]);
    }
    db.is_settled().await;
}

async fn a_link_is_upgraded_and_never_downgraded(db: Fixture) {
    let store = db.store().await;
    assert_eq!(import(&store, &link("one", 1)).await, (Change::New, 1));
    let moved = ImportEntry { result_url: "https://new.example/1.png".to_owned(), ..link("one", 1) };
    assert_eq!(import(&store, &moved).await, (Change::Relinked, 0));
    let key = moved.edit_key;
    assert_eq!(cached(&store, key).await.unwrap().result_url, moved.result_url);
    let kept = copy("one", 2);
    assert_eq!(import(&store, &kept).await, (Change::Upgraded, 1));
    let upgraded = cached(&store, key).await.unwrap();
    let result = kept.result.clone().unwrap();
    assert_eq!((upgraded.result_url, upgraded.result_hash), (kept.result_url, Some(result.hash)));
    assert_eq!((upgraded.width, upgraded.height, upgraded.bytes), (32, 24, 99));
    assert_eq!(upgraded.content_type, "image/png");
    assert_eq!(import(&store, &link("one", 3)).await, (Change::Counted, 1));
    assert_eq!(cached(&store, key).await.unwrap().result_hash, Some(result.hash));
    assert_eq!(hits(&db, key).await, [3, 3]);
}

/// A call that was under way while the import came.
async fn a_result_that_is_made_here_replaces_a_link(db: Fixture) {
    let store = db.store().await;
    let call = edit("one");
    register(&store, &task("t", vec![miss(&call)])).await;
    assert_eq!(import(&store, &link("one", 5)).await, (Change::New, 5));
    finish(&store, &call).await;
    assert_eq!(cached(&store, call.edit_key).await.unwrap().result_hash, Some(result_of(&call).hash));
    assert_eq!(import(&store, &copy("one", 6)).await, (Change::Counted, 1));
    assert_eq!(cached(&store, call.edit_key).await.unwrap().result_hash, Some(result_of(&call).hash));
    assert_eq!(hits(&db, call.edit_key).await, [7, 6]);
    db.is_settled().await;
}

async fn forgotten_or_evicted_entries_are_not_imported_again(db: Fixture) {
    let store = db.store().await;
    for (reason, change, rows) in [
        ("forgotten", Change::Forgotten, 0),
        ("evicted", Change::Evicted, 0),
        // The older system may still have it.
        ("blob_missing", Change::New, 1),
    ] {
        let entry = copy(reason, 3);
        db.execute(&format!(
            "INSERT INTO image_edit_gone (edit_key, image_hash, reason, gone_at) \
             VALUES (x'{}', NULL, '{reason}', '2026-01-01 00:00:00.000')",
            entry.edit_key
        ))
        .await;
        let standing = store.import_standing(&[entry.edit_key]).await.unwrap();
        let foretold = standing.get(&entry.edit_key).cloned().unwrap_or_default().change(&entry);
        assert_eq!(import(&store, &entry).await, foretold);
        assert_eq!(foretold.0, change);
        assert_eq!(db.number("SELECT COUNT(*) FROM image_edit_cache").await, rows);
    }
}

async fn a_dead_link_is_taken_out_and_nothing_else(db: Fixture) {
    let store = db.store().await;
    let call = edit("made");
    register(&store, &task("t", vec![miss(&call)])).await;
    finish(&store, &call).await;
    let entries = [link("dead", 1), link("moved", 1), copy("copied", 1), link("made", 1)];
    store.import_entries(&entries, Instant::now()).await.unwrap();
    let mut links: Vec<_> = entries.iter().map(|entry| (entry.edit_key, entry.result_url.clone())).collect();
    links[1].1 = "https://old.example/before.png".to_owned();
    links[3].1 = cached(&store, call.edit_key).await.unwrap().result_url;
    assert_eq!(store.drop_dead_links(&links).await.unwrap(), 1);
    assert_eq!(cached(&store, entries[0].edit_key).await, None);
    for entry in &entries[1..] {
        assert!(cached(&store, entry.edit_key).await.is_some());
    }
}

async fn an_answer_from_a_link_says_nothing_of_what_is_not_known(db: Fixture) {
    let store = db.store().await;
    let call = edit("one");
    import(&store, &link("one", 0)).await;
    let result = cached(&store, call.edit_key).await.unwrap();
    let (answered, _) = register(&store, &task("t", vec![hit(&call, &result)])).await;
    let image = &answered.images[0];
    assert_eq!(image.source, Some(AnswerSource::Hit));
    assert_eq!((image.width, image.height, &image.content_type), (None, None, &None));
    let base = url::Url::parse("https://us.example/blobs/").unwrap();
    let event = answered.event(|reference| retouch_worker::app::resolve(&base, reference)).unwrap();
    assert_eq!(event.images[0].result_url.as_deref(), Some("https://old.example/one.png"));
    let event = serde_json::to_value(&event).unwrap();
    for unknown in ["width", "height", "content_type"] {
        assert!(event["images"][0].get(unknown).is_none(), "{event}");
    }
    assert_eq!(hits(&db, call.edit_key).await, [1, 0]);
}

async fn two_thousand_entries_with_every_kind_of_text_are_one_import(db: Fixture) {
    let store = db.store().await;
    let entry = |n: u64| ImportEntry {
        prompt: format!("\u{1F408} Çat's \"{n}\"\n\\ {}", "x".repeat(1000)),
        ..link(&format!("picture {n}"), n)
    };
    let entries: Vec<_> = (0..2000).map(entry).collect();
    let done = store.import_entries(&entries, Instant::now()).await.unwrap();
    assert!(done.iter().zip(0..).all(|(done, n)| *done == (Change::New, n)));
    assert_eq!(db.number("SELECT COUNT(*) FROM image_edit_cache").await, 2000);
    let prompt = format!("SELECT prompt FROM image_edit_cache WHERE edit_key = x'{}'", entries[7].edit_key);
    assert_eq!(db.text(&prompt).await, entries[7].prompt);
    let again = store.import_entries(&entries, Instant::now()).await.unwrap();
    assert!(again.iter().all(|done| *done == (Change::Same, 0)));
}

async fn an_entry_whose_picture_is_being_deleted_is_not_written(db: Fixture) {
    let store = db.store().await;
    let entry = copy("one", 7);
    let hash = entry.result.as_ref().unwrap().hash;
    store.drop_blobs(&[hash].into()).await.unwrap();
    let held = store.import_entries(std::slice::from_ref(&entry), Instant::now()).await;
    assert!(matches!(held, Err(StoreError::Unavailable(_))), "{held:?}");
    assert_eq!(db.number("SELECT COUNT(*) FROM image_edit_cache").await, 0);
    // A link names no blob.
    assert_eq!(import(&store, &link("one", 7)).await, (Change::New, 7));
}

async fn an_imported_entry_says_which_version_of_the_key_it_has(db: Fixture) {
    let store = db.store().await;
    // Not by the column's default, which is the first version's. (SQLite changes none.)
    if !db.is_sqlite() {
        db.execute("ALTER TABLE image_edit_cache ALTER COLUMN key_version SET DEFAULT 9").await;
    }
    import(&store, &link("one", 7)).await;
    let version = db.number("SELECT key_version FROM image_edit_cache").await;
    assert_eq!(version, i64::from(KEY_VERSION_NUMBER));
}
