//! Forgetting: whatever state a call is in, it is over and its old owner changes nothing; nothing mentions the picture; sent again
//! it is a new edit.

use std::collections::BTreeSet;
use std::time::Duration;

use retouch_shared::event::ImageStatus;
use retouch_shared::key::Digest32;
use retouch_worker::store::{
    Claim, DeadLetter, DeadPayload, FORGOTTEN, Finished, Mentions, Picking, Properties, Registered, Store,
};

use super::fixture::{
    Fixture, LONG, begin, cached, claim, counts, edit, finish, found, hit, make, miss, register, result_of,
    task, unreadable, url_of,
};

promises!(
    a_forgotten_call_in_any_state_ignores_its_old_owner,
    a_forgotten_picture_sent_again_is_a_new_edit,
    a_hit_whose_row_was_deleted_meanwhile_writes_nothing,
    tasks_and_letters_no_longer_mention_a_forgotten_picture,
    edits_of_a_picture_are_found_by_picture_and_by_mask,
);

/// How far a call has come when it is forgotten.
const STAGES: [&str; 5] = ["queued", "claimed", "submitting", "submitted", "stored"];

async fn a_forgotten_call_in_any_state_ignores_its_old_owner(db: Fixture) {
    let store = db.store().await;
    for stage in STAGES {
        let call = edit(stage);
        register(&store, &task(stage, vec![miss(&call)])).await;
        let mut lease = None;
        if stage != "queued" {
            let claimed = claim(&store, call.edit_key).await.lease;
            lease = Some(claimed);
            if stage != "claimed" {
                assert!(begin(&store, claimed).await);
            }
            if stage == "submitted" || stage == "stored" {
                assert!(store.record_submitted(claimed, "id").await.unwrap());
            }
            if stage == "stored" {
                assert!(store.record_stored(claimed, &result_of(&call), Duration::ZERO).await.unwrap());
            }
        }
        let forgotten = store.forget_edits(&[call.edit_key]).await.unwrap();
        assert_eq!(forgotten.waited, BTreeSet::from([(stage.to_owned(), 0)]), "{stage}");
        assert_eq!(forgotten.ended.len(), 1, "{stage}");
        let sent = !matches!(stage, "queued" | "claimed");
        assert_eq!(forgotten.edits[0].sent(), sent, "{stage}");
        let row = found(&store, stage).await;
        assert_eq!(counts(&row), [0, 0, 0, 1], "{stage}");
        assert_eq!(row.images[0].error.as_ref().unwrap().code, FORGOTTEN);
        assert_eq!(row.images[0].image_hash, None);
        if let Some(lease) = lease {
            assert!(!store.renew_lease(lease, LONG).await.unwrap(), "{stage}");
            assert!(!store.record_submitted(lease, "late").await.unwrap(), "{stage}");
            assert!(!store.record_stored(lease, &result_of(&call), Duration::ZERO).await.unwrap(), "{stage}");
            let finished = store.finish_edit(lease, "url").await.unwrap();
            assert!(matches!(finished, Finished::LostLease), "{stage}");
        }
        assert!(cached(&store, call.edit_key).await.is_none(), "{stage}");
        assert!(matches!(store.claim_call(call.edit_key, "x", LONG).await.unwrap(), Claim::Done));
        db.is_settled().await;
    }
    let named = "SELECT COUNT(*) FROM image_edit_gone WHERE reason = 'forgotten' AND image_hash IS NULL";
    assert_eq!(db.number(named).await, 5);
}

async fn a_forgotten_picture_sent_again_is_a_new_edit(db: Fixture) {
    let store = db.store().await;
    let call = edit("picture");
    register(&store, &task("first", vec![miss(&call)])).await;
    let old = claim(&store, call.edit_key).await.lease;
    assert!(begin(&store, old).await);
    assert!(store.record_submitted(old, "id").await.unwrap());
    store.forget_edits(&[call.edit_key]).await.unwrap();
    deleted(&store).await;
    again(&db).await;
    register(&store, &task("second", vec![miss(&call)])).await;
    let new = claim(&store, call.edit_key).await.lease;
    assert!(new.fence > old.fence);
    assert!(begin(&store, new).await);
    // The old owner comes with the result of the forgotten call.
    assert!(!store.record_stored(old, &result_of(&call), Duration::ZERO).await.unwrap());
    assert!(store.record_submitted(new, "id-2").await.unwrap());
    assert!(store.record_stored(new, &result_of(&call), Duration::ZERO).await.unwrap());
    let finished = store.finish_edit(new, &url_of(&result_of(&call))).await.unwrap();
    assert!(matches!(finished, Finished::Ended(tasks) if tasks.len() == 1));
    assert_eq!(db.number("SELECT COUNT(*) FROM image_edit_gone").await, 0);
    assert!(cached(&store, call.edit_key).await.is_some());
    db.is_settled().await;
}

async fn a_hit_whose_row_was_deleted_meanwhile_writes_nothing(db: Fixture) {
    let store = db.store().await;
    let call = edit("picture");
    register(&store, &task("first", vec![miss(&call)])).await;
    finish(&store, &call).await;
    let result = cached(&store, call.edit_key).await.unwrap();
    let stale = task("second", vec![hit(&call, &result)]);
    store.forget_edits(&[call.edit_key]).await.unwrap();
    assert!(matches!(store.register(&stale).await.unwrap(), Registered::Gone));
    assert!(store.find_task("second").await.unwrap().is_none());
    db.is_settled().await;
}

async fn tasks_and_letters_no_longer_mention_a_forgotten_picture(db: Fixture) {
    let store = db.store().await;
    let (call, other) = (edit("picture"), edit("other"));
    let images = vec![miss(&call), unreadable(), miss(&other)];
    register(&store, &task("first", images)).await;
    finish(&store, &call).await;
    finish(&store, &other).await;
    archive(&store, "first").await;
    let before = found(&store, "first").await;
    let forgotten = store.forget_edits(&[call.edit_key]).await.unwrap();
    let mentions = Mentions { pictures: [call.image_hash].into(), ..Mentions::default() };
    let (ids, next) = store.tasks_that_mention(&mentions, 0, forgotten.last_task).await.unwrap();
    assert_eq!((ids.len(), next), (1, None));
    let scrubbed = store.scrub_tasks(&ids, &mentions).await.unwrap();
    assert_eq!((scrubbed.tasks, scrubbed.images), (1, 1));
    assert!(scrubbed.letters >= 1);
    let row = found(&store, "first").await;
    assert_eq!(counts(&row), counts(&before), "what happened has happened");
    assert_eq!(row.images[0].status, ImageStatus::Failed);
    assert_eq!(row.images[0].result_url, None);
    assert_eq!(row.images[1].error, before.images[1].error);
    assert_eq!(row.images[2], before.images[2]);
    assert_eq!(row.inputs[0], FORGOTTEN);
    assert_eq!(row.inputs[2], before.inputs[2]);
    let mentioned = format!(
        "SELECT COUNT(*) FROM image_edit_tasks WHERE results LIKE '%{0}%' OR results LIKE '%{1}%'",
        call.image_hash,
        result_of(&call).hash
    );
    assert_eq!(db.number(&mentioned).await, 0);
    assert_eq!(db.number("SELECT COUNT(*) FROM dead_letters WHERE payload IS NOT NULL").await, 0);
    let again = store.tasks_that_mention(&mentions, 0, forgotten.last_task).await.unwrap();
    assert_eq!(again.0.len(), 0);
}

async fn edits_of_a_picture_are_found_by_picture_and_by_mask(db: Fixture) {
    let store = db.store().await;
    let mask = Digest32::of(b"mask");
    let masked =
        super::fixture::keyed(retouch_worker::store::CallSpec { mask_hash: Some(mask), ..edit("masked") });
    let (done, waiting) = (edit("done"), edit("waiting"));
    register(&store, &task("t", vec![miss(&masked), miss(&done), miss(&waiting)])).await;
    finish(&store, &done).await;
    make(&store, &masked).await;
    for (picture, expected) in [
        (mask, &masked),
        (masked.image_hash, &masked),
        (done.image_hash, &done),
        (waiting.image_hash, &waiting),
    ] {
        let edits = store.find_edits(&Picking::Pictures([picture].into())).await.unwrap();
        assert_eq!(edits.len(), 1);
        assert_eq!(edits[0].edit_key, expected.edit_key);
        assert_eq!(edits[0].entry.is_some(), expected.edit_key == done.edit_key);
    }
    assert!(store.find_edits(&Picking::Pictures([Digest32::of(b"?")].into())).await.unwrap().is_empty());
}

/// As if all marked blobs had been deleted, and that some time ago.
async fn deleted(store: &Store) {
    let (_, hashes) = store.claim_dropped(1000).await.unwrap();
    store.blobs_deleted(&hashes).await.unwrap();
}

async fn again(db: &Fixture) {
    db.execute("UPDATE dropped_blobs SET deleted_at = '2020-01-01 00:00:00.000'").await;
}

async fn archive(store: &Store, task_id: &str) {
    let letter = DeadLetter {
        letter_key: Digest32::of(task_id.as_bytes()),
        queue: "tasks".to_owned(),
        reason: "task_conflict".to_owned(),
        message: "no".to_owned(),
        payload: DeadPayload::Inline("a picture".into()),
        kept: None,
        headers: std::collections::BTreeMap::new(),
        attempts: 1,
        task_id: Some(task_id.to_owned()),
        edit_key: None,
        edit_type: None,
        properties: Properties::default(),
        again: None,
        settled: false,
    };
    store.archive(&letter).await.unwrap();
}
