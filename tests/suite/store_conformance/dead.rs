//! Dead letters: each failure is kept once, with its reason.

use std::collections::BTreeMap;

use retouch_shared::event::{ImageStatus, TaskStatus};
use retouch_shared::key::Digest32;
use retouch_worker::store::{DeadLetter, DeadPayload, Properties};

use super::fixture::{
    Fixture, cached, claim, counts, edit, ended, error, finish, miss, register, task, unreadable,
};

promises!(
    a_dead_letter_that_is_archived_twice_is_kept_once,
    a_dead_letter_of_foreign_text_is_kept,
    a_large_dead_letter_is_kept_whole,
    failing_an_edit_fails_its_images_and_keeps_one_letter,
    a_task_that_comes_after_a_failed_edit_starts_a_new_call,
    images_that_cannot_be_read_leave_one_dead_letter_a_task,
);

fn letter(payload: DeadPayload) -> DeadLetter {
    DeadLetter {
        letter_key: Digest32::of(b"letter"),
        queue: "tasks".to_owned(),
        reason: "bad_message".to_owned(),
        message: "not JSON".to_owned(),
        payload,
        kept: None,
        headers: BTreeMap::from([("x-retouch-attempt".to_owned(), "3".to_owned())]),
        attempts: 3,
        task_id: None,
        edit_key: None,
        edit_type: None,
        properties: Properties::default(),
        again: None,
        settled: false,
    }
}

async fn a_dead_letter_that_is_archived_twice_is_kept_once(db: Fixture) {
    let store = db.store().await;
    let letter = letter(DeadPayload::Blob(Digest32::of(b"payload")));
    store.archive(&letter).await.unwrap();
    store.archive(&DeadLetter { reason: "another".to_owned(), ..letter.clone() }).await.unwrap();
    assert_eq!(db.number("SELECT COUNT(*) FROM dead_letters").await, 1);
    assert_eq!(db.text("SELECT reason FROM dead_letters").await, "bad_message", "the first word stays");
    assert_eq!(db.text("SELECT state FROM dead_letters").await, "open");
    assert_eq!(db.text("SELECT payload_blob FROM dead_letters").await, Digest32::of(b"payload").to_hex());
    store.archive(&DeadLetter { letter_key: Digest32::of(b"other"), ..letter }).await.unwrap();
    assert_eq!(db.number("SELECT COUNT(*) FROM dead_letters").await, 2);
}

/// The content of a dead letter comes from outside, and must not make storing it fail.
async fn a_dead_letter_of_foreign_text_is_kept(db: Fixture) {
    let store = db.store().await;
    let foreign = "\u{1F480} ключ\0 ".repeat(20_000);
    let mut letter = letter(DeadPayload::Inline(vec![0, 159, 146, 150, 255].into()));
    letter.queue.clone_from(&foreign);
    letter.reason.clone_from(&foreign);
    letter.message.clone_from(&foreign);
    letter.headers = BTreeMap::from([(foreign.clone(), foreign.clone())]);
    letter.task_id = Some(foreign);
    store.archive(&letter).await.unwrap();
    assert_eq!(db.bytes("SELECT payload FROM dead_letters").await, [0, 159, 146, 150, 255]);
    assert!(db.text("SELECT message FROM dead_letters").await.starts_with("\u{1F480} ключ"));
    assert_eq!(db.number("SELECT COUNT(*) FROM dead_letters WHERE task_id IS NULL").await, 1);
}

async fn a_large_dead_letter_is_kept_whole(db: Fixture) {
    let store = db.store().await;
    let payload: Vec<u8> = (0..10 * 1024 * 1024u32).map(|n| (n % 251) as u8).collect();
    store.archive(&letter(DeadPayload::Inline(payload.clone().into()))).await.unwrap();
    assert!(db.bytes("SELECT payload FROM dead_letters").await == payload);
}

async fn failing_an_edit_fails_its_images_and_keeps_one_letter(db: Fixture) {
    let store = db.store().await;
    let (bad, good) = (edit("bad"), edit("good"));
    register(&store, &task("a", vec![miss(&bad), miss(&good)])).await;
    register(&store, &task("b", vec![miss(&bad), miss(&bad)])).await;
    let lease = claim(&store, bad.edit_key).await.lease;
    let failed = store.fail_edit(lease, &error("content_refused", "not this picture"), true).await.unwrap();
    let failed = ended(failed);
    assert_eq!(failed.len(), 1, "the other one waits for its second image");
    assert_eq!((failed[0].status, counts(&failed[0])), (TaskStatus::Failed, [0, 0, 0, 2]));
    for image in &failed[0].images {
        assert_eq!((image.status, image.image_hash), (ImageStatus::Failed, Some(bad.image_hash)));
        assert_eq!(image.error, Some(error("content_refused", "not this picture")));
    }
    assert_eq!(db.state(bad.edit_key).await, "failed");
    assert!(cached(&store, bad.edit_key).await.is_none());
    assert_eq!(db.number("SELECT COUNT(*) FROM dead_letters").await, 1);
    assert_eq!(db.text("SELECT reason FROM dead_letters").await, "content_refused");
    assert_eq!(db.text("SELECT queue FROM dead_letters").await, "edits.lane");
    assert!(db.text("SELECT headers FROM dead_letters").await.contains("a,b"));
    assert_eq!(db.bytes("SELECT edit_key FROM dead_letters").await, bad.edit_key.as_bytes());
    let done = finish(&store, &good).await;
    assert_eq!((done[0].status, counts(&done[0])), (TaskStatus::Partial, [0, 0, 1, 1]));
    db.is_settled().await;
}

async fn a_task_that_comes_after_a_failed_edit_starts_a_new_call(db: Fixture) {
    let store = db.store().await;
    let call = edit("picture");
    for attempt in ["first", "second"] {
        let (_, wake) = register(&store, &task(attempt, vec![miss(&call)])).await;
        assert_eq!(wake, [call.edit_key], "{attempt}");
        let claimed = claim(&store, call.edit_key).await;
        assert_eq!(claimed.attempts, 0);
        ended(store.fail_edit(claimed.lease, &error("refused", "no"), true).await.unwrap());
    }
    assert_eq!(db.number("SELECT COUNT(*) FROM dead_letters").await, 1, "one of the edit, for this reason");
    let tasks = db.text("SELECT headers FROM dead_letters").await;
    assert!(tasks.contains("first,second"), "a retry begins the images of both: {tasks}");
    let (_, wake) = register(&store, &task("third", vec![miss(&call)])).await;
    assert_eq!(wake, [call.edit_key]);
    let ended = finish(&store, &call).await;
    assert_eq!(counts(&ended[0]), [0, 0, 1, 0]);
    db.is_settled().await;
}

async fn images_that_cannot_be_read_leave_one_dead_letter_a_task(db: Fixture) {
    let store = db.store().await;
    let mut new = task("t", vec![unreadable(), unreadable(), miss(&edit("picture"))]);
    new.payload = DeadPayload::Inline("the message".into());
    register(&store, &new).await;
    assert_eq!(db.bytes("SELECT payload FROM dead_letters").await, b"the message");
    assert_eq!(db.text("SELECT reason FROM dead_letters WHERE task_id = 't'").await, "source_not_found");
    let message = db.text("SELECT message FROM dead_letters").await;
    assert_eq!(message, "image 0: 404 Not Found\nimage 1: 404 Not Found");
    store.register(&new).await.unwrap();
    assert_eq!(db.number("SELECT COUNT(*) FROM dead_letters").await, 1);
}
