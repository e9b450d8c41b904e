//! Retries of dead letters: each is sent once, over all concurrent and repeated runs; and a further failure
//! is the same letter.

use std::time::Duration;

use futures::join;
use retouch_shared::event::TaskStatus;
use retouch_shared::key::Digest32;
use retouch_worker::store::{
    DeadLetter, DeadPayload, EditRetry, LetterFilter, LetterRef, LetterState, Properties, Reopening, Store,
};

use super::fixture::{
    Fixture, LONG, PRICE, begin, claim, counts, edit, ended, error, finish, found, miss, register, task,
    unreadable,
};

promises!(
    a_retried_edit_is_queued_and_its_tasks_end_again,
    an_edit_that_fails_again_is_the_same_letter_with_its_history,
    a_retried_edit_in_the_cache_is_answered_from_it,
    concurrent_retries_of_an_edit_send_it_once,
    an_ambiguous_edit_that_is_sent_again_counts_as_a_possible_duplicate,
    a_retry_releases_a_held_call_and_resets_its_count,
    a_letters_message_is_claimed_once_and_resumed_after_a_death,
    a_letter_that_failed_again_is_not_resent_by_older_runs,
    a_message_that_fails_again_is_the_same_letter,
    an_event_before_a_retry_does_not_confirm_the_later_one,
    letters_of_one_cause_form_one_group_across_versions,
    letters_are_found_by_every_task_that_they_concern,
    open_letters_are_never_forgotten_and_others_are_after_their_time,
    images_that_failed_at_intake_are_taken_in_again_and_no_others,
);

const OPEN: [LetterState; 2] = [LetterState::Open, LetterState::Retrying];

fn letter(name: &str, message: &str) -> DeadLetter {
    DeadLetter {
        letter_key: Digest32::of(name.as_bytes()),
        queue: "tasks".to_owned(),
        reason: "expired".to_owned(),
        message: message.to_owned(),
        payload: DeadPayload::Inline("{}".into()),
        kept: None,
        headers: [].into(),
        attempts: 1,
        task_id: None,
        edit_key: None,
        edit_type: None,
        properties: Properties { reply_to: Some("answers".to_owned()), correlation_id: None },
        again: None,
        settled: false,
    }
}

async fn open(store: &Store) -> Vec<i64> {
    store.letter_ids(&LetterFilter::of(&OPEN)).await.unwrap()
}

async fn open_edits(store: &Store) -> Vec<EditRetry> {
    let letters = store.letters(&open(store).await).await.unwrap();
    letters.iter().filter_map(EditRetry::of).collect()
}

async fn state(store: &Store, id: i64) -> (LetterState, u32) {
    let letter = store.letters(&[id]).await.unwrap().pop().unwrap();
    (letter.state, letter.retries)
}

/// Two tasks with three images of one edit, failed.
async fn failed(store: &Store, code: &str) -> retouch_worker::store::CallSpec {
    let bad = edit("bad");
    register(store, &task("a", vec![miss(&bad)])).await;
    register(store, &task("b", vec![miss(&bad), miss(&bad)])).await;
    let lease = claim(store, bad.edit_key).await.lease;
    assert!(begin(store, lease).await);
    ended(store.fail_edit(lease, &error(code, "no"), true).await.unwrap());
    bad
}

async fn a_retried_edit_is_queued_and_its_tasks_end_again(db: Fixture) {
    let store = db.store().await;
    let bad = failed(&store, "refused").await;
    let retries = open_edits(&store).await;
    assert_eq!(retries[0].tasks, ["a", "b"]);
    let done = store.reopen_edits(&retries, &Reopening::default()).await.unwrap();
    assert_eq!((done.retried.len(), done.hit, done.waiting), (1, 0, 3));
    assert_eq!(done.wake, [(bad.edit_key, "lane".to_owned())]);
    db.is_sound().await;
    let processing = found(&store, "b").await;
    assert_eq!((processing.status, processing.error), (TaskStatus::Processing, None));
    assert_eq!(claim_attempts(&store, &bad).await, 0);
    db.expire(bad.edit_key).await;
    let done = finish(&store, &bad).await;
    assert_eq!(done.len(), 2);
    assert_eq!((counts(&done[0]), counts(&done[1])), ([0, 0, 1, 0], [0, 2, 0, 0]));
    assert!(done.iter().all(|task| task.status == TaskStatus::Completed));
    assert_eq!(state(&store, retries[0].letter).await, (LetterState::Retried, 1));
    assert!(open(&store).await.is_empty());
    db.is_settled().await;
}

async fn claim_attempts(store: &Store, call: &retouch_worker::store::CallSpec) -> u32 {
    claim(store, call.edit_key).await.attempts
}

async fn an_edit_that_fails_again_is_the_same_letter_with_its_history(db: Fixture) {
    let store = db.store().await;
    let bad = failed(&store, "refused").await;
    let id = open_edits(&store).await[0].letter;
    for round in 1..=2 {
        let retries = open_edits(&store).await;
        store.reopen_edits(&retries, &Reopening::default()).await.unwrap();
        let lease = claim(&store, bad.edit_key).await.lease;
        let done = store.fail_edit(lease, &error("worse", "no again"), true).await.unwrap();
        assert_eq!(ended(done).len(), 2);
        assert_eq!(state(&store, id).await, (LetterState::Open, round));
    }
    assert_eq!(db.number("SELECT COUNT(*) FROM dead_letters").await, 1);
    let history = store.letter_history(id).await.unwrap();
    let told: Vec<_> = history.iter().map(|past| (past.number, past.reason.as_str())).collect();
    assert_eq!(told, [(1, "refused"), (2, "worse")]);
    // Another task's failure later is another letter.
    register(&store, &task("c", vec![miss(&bad)])).await;
    let lease = claim(&store, bad.edit_key).await.lease;
    ended(store.fail_edit(lease, &error("refused", "no"), true).await.unwrap());
    assert_eq!(db.number("SELECT COUNT(*) FROM dead_letters").await, 2);
    db.is_settled().await;
}

async fn a_retried_edit_in_the_cache_is_answered_from_it(db: Fixture) {
    let store = db.store().await;
    let bad = failed(&store, "refused").await;
    register(&store, &task("c", vec![miss(&bad)])).await;
    finish(&store, &bad).await;
    let done = store.reopen_edits(&open_edits(&store).await, &Reopening::default()).await.unwrap();
    assert_eq!((done.hit, done.waiting, done.ended.len(), done.wake.len()), (3, 0, 2, 0));
    assert_eq!(counts(&done.ended[1]), [2, 0, 0, 0]);
    assert_eq!((done.ended[1].saved_micros, done.ended[1].status), (2 * PRICE, TaskStatus::Completed));
    assert_eq!(db.hit_count(bad.edit_key).await, 4);
    db.is_settled().await;
}

async fn concurrent_retries_of_an_edit_send_it_once(db: Fixture) {
    let store = db.store().await;
    failed(&store, "refused").await;
    let (other, retries) = (db.open(), open_edits(&store).await);
    let reopening = Reopening::default();
    let (one, two) =
        join!(store.reopen_edits(&retries, &reopening), other.reopen_edits(&retries, &reopening));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(one.retried.len() + two.retried.len(), 1);
    assert_eq!(one.waiting + two.waiting, 3);
    assert_eq!(state(&store, retries[0].letter).await, (LetterState::Retried, 1));
    db.is_sound().await;
}

async fn an_ambiguous_edit_that_is_sent_again_counts_as_a_possible_duplicate(db: Fixture) {
    let store = db.store().await;
    let bad = failed(&store, "ambiguous").await;
    assert_eq!(db.of_call("possible_duplicates", bad.edit_key).await, 0);
    store.reopen_edits(&open_edits(&store).await, &Reopening::default()).await.unwrap();
    assert_eq!(db.of_call("possible_duplicates", bad.edit_key).await, 1);
    finish(&store, &bad).await;
    db.is_settled().await;
}

async fn a_letters_message_is_claimed_once_and_resumed_after_a_death(db: Fixture) {
    let store = db.store().await;
    store.archive(&letter("one", "it expired")).await.unwrap();
    let (other, ids) = (db.open(), open(&store).await);
    let wanted = any(&ids);
    let (a, b) = join!(store.claim_letters(&wanted, "a", LONG), other.claim_letters(&wanted, "b", LONG));
    let (a, b) = (a.unwrap(), b.unwrap());
    assert_eq!(a.len() + b.len(), 1, "one of them");
    let claimed = a.into_iter().chain(b).next().unwrap();
    assert_eq!(claimed.retry, LetterRef { id: ids[0], retry: Some(1) });
    assert_eq!(claimed.properties.reply_to.as_deref(), Some("answers"));
    assert!(store.letters(&ids).await.unwrap()[0].held);
    assert_eq!(store.discard_letters(&ids).await.unwrap(), 0, "it is being sent");
    // Its claimer died.
    db.execute("UPDATE dead_letters SET claim_until = '2020-01-01 00:00:00.000'").await;
    assert_eq!(open(&store).await, ids, "still to be sent");
    let again = store.claim_letters(&any(&ids), "c", LONG).await.unwrap();
    assert_eq!(again[0].retry, claimed.retry, "the same retry");
    store.letters_sent(&ids, "a").await.unwrap();
    assert_eq!(state(&store, ids[0]).await, (LetterState::Retrying, 1), "it is not theirs any more");
    store.letters_sent(&ids, "c").await.unwrap();
    assert_eq!(state(&store, ids[0]).await, (LetterState::Retried, 1));
    assert!(store.claim_letters(&any(&ids), "d", LONG).await.unwrap().is_empty());
    assert_eq!(db.number("SELECT COUNT(*) FROM dead_letter_retries").await, 1);
}

/// Whichever retry it is.
fn any(ids: &[i64]) -> Vec<LetterRef> {
    ids.iter().map(|id| LetterRef { id: *id, retry: None }).collect()
}

async fn a_letter_that_failed_again_is_not_resent_by_older_runs(db: Fixture) {
    let store = db.store().await;
    store.archive(&letter("one", "it expired")).await.unwrap();
    let ids = open(&store).await;
    let seen = [store.letters(&ids).await.unwrap()[0].next_retry()];
    let claimed = store.claim_letters(&seen, "a", LONG).await.unwrap();
    assert_eq!(claimed[0].retry, seen[0]);
    store.archive(&DeadLetter { again: Some(seen[0]), ..letter("two", "no") }).await.unwrap();
    assert_eq!(state(&store, ids[0]).await, (LetterState::Open, 1));
    assert!(store.claim_letters(&seen, "b", LONG).await.unwrap().is_empty(), "that retry is over");
    let next = [store.letters(&ids).await.unwrap()[0].next_retry()];
    assert_eq!(store.claim_letters(&next, "b", LONG).await.unwrap().len(), 1, "a run that sees it now may");
}

async fn a_message_that_fails_again_is_the_same_letter(db: Fixture) {
    let store = db.store().await;
    store.archive(&letter("one", "it expired")).await.unwrap();
    let ids = open(&store).await;
    // It may fail before it is noted as sent.
    for noted in [false, true] {
        let retry = store.claim_letters(&any(&ids), "a", LONG).await.unwrap()[0].retry;
        if noted {
            store.letters_sent(&ids, "a").await.unwrap();
        }
        assert!(store.retry_goes_on(retry).await.unwrap());
        let again = DeadLetter { again: Some(retry), reason: "rejected".to_owned(), ..letter("two", "no") };
        store.archive(&again).await.unwrap();
        store.archive(&again).await.unwrap();
        store.letters_sent(&ids, "a").await.unwrap();
        assert_eq!(state(&store, ids[0]).await, (LetterState::Open, retry.retry.unwrap()));
        assert!(!store.retry_goes_on(retry).await.unwrap());
    }
    assert_eq!(db.number("SELECT COUNT(*) FROM dead_letters").await, 1);
    // A deleted letter is no reason to lose a failure.
    let gone = LetterRef { id: 4711, retry: Some(1) };
    store.archive(&DeadLetter { again: Some(gone), ..letter("three", "no") }).await.unwrap();
    assert_eq!(db.number("SELECT COUNT(*) FROM dead_letters").await, 2);
}

async fn an_event_before_a_retry_does_not_confirm_the_later_one(db: Fixture) {
    let store = db.store().await;
    let (bad, worse) = (edit("bad"), edit("worse"));
    register(&store, &task("t", vec![miss(&edit("good")), miss(&bad), miss(&worse)])).await;
    finish(&store, &edit("good")).await;
    for call in [&bad, &worse] {
        let lease = claim(&store, call.edit_key).await.lease;
        store.fail_edit(lease, &error("refused", "no"), true).await.unwrap();
    }
    let before = found(&store, "t").await;
    assert_eq!((before.status, before.failed), (TaskStatus::Partial, 2));
    let mut retries = open_edits(&store).await;
    retries.retain(|retry| retry.edit_key == bad.edit_key);
    store.reopen_edits(&retries, &Reopening::default()).await.unwrap();
    let after = finish(&store, &bad).await.pop().unwrap();
    assert_eq!((after.status, after.failed), (TaskStatus::Partial, 1));
    let due = "SELECT COUNT(*) FROM image_edit_tasks WHERE event_due IS NOT NULL";
    store.event_sent("t", before.status, before.failed).await.unwrap();
    assert_eq!(db.number(due).await, 1);
    store.event_sent("t", after.status, after.failed).await.unwrap();
    assert_eq!(db.number(due).await, 0);
}

async fn letters_of_one_cause_form_one_group_across_versions(db: Fixture) {
    let store = db.store().await;
    for n in 0..20 {
        let message = format!("https://a.example/{n}.png answered {n} to \"{n}\"");
        store.archive(&letter(&format!("letter {n}"), &message)).await.unwrap();
    }
    store.archive(&letter("other", "something else")).await.unwrap();
    db.execute("UPDATE dead_letters SET group_text = NULL WHERE id > 3").await;
    let groups = store.letter_groups(&LetterFilter::of(&OPEN)).await.unwrap();
    let told: Vec<_> = groups.iter().map(|group| (group.count, group.message.as_str())).collect();
    assert_eq!(told, [(20, "<url> answered <n> to <value>"), (1, "something else")]);
    let of_group = LetterFilter {
        group: Some("https://b.example/x answered 7 to \"y\"".to_owned()),
        ..LetterFilter::of(&OPEN)
    };
    assert_eq!(store.letter_ids(&of_group).await.unwrap().len(), 20);
    // What cannot be the value of a column names nothing; it is not the same as no filter.
    for reason in ["ключ", "", &"x".repeat(300)] {
        let filter = LetterFilter { reason: Some(reason.to_owned()), ..LetterFilter::of(&OPEN) };
        assert!(store.letter_ids(&filter).await.unwrap().is_empty(), "{reason}");
    }
    let since = |since| LetterFilter { since: Some(since), ..LetterFilter::of(&OPEN) };
    let hour = retouch_worker::store::Since::Ago(Duration::from_secs(3600));
    assert_eq!(store.letter_ids(&since(hour)).await.unwrap().len(), 21);
    let later = retouch_worker::store::Since::At(groups[0].last_at + chrono::TimeDelta::days(1));
    assert!(store.letter_ids(&since(later)).await.unwrap().is_empty());
}

async fn letters_are_found_by_every_task_that_they_concern(db: Fixture) {
    let store = db.store().await;
    failed(&store, "refused").await;
    for (task, letters) in [("a", 1), ("b", 1), ("a,b", 0), ("c", 0)] {
        let filter = LetterFilter { task: Some(task.to_owned()), ..LetterFilter::of(&OPEN) };
        assert_eq!(store.letter_ids(&filter).await.unwrap().len(), letters, "{task}");
    }
    let of_type =
        |edit_type: &str| LetterFilter { edit_type: Some(edit_type.to_owned()), ..LetterFilter::of(&OPEN) };
    assert_eq!(store.letter_ids(&of_type("remove_watermark")).await.unwrap().len(), 1);
    assert!(store.letter_ids(&of_type("other")).await.unwrap().is_empty());
}

async fn open_letters_are_never_forgotten_and_others_are_after_their_time(db: Fixture) {
    let store = db.store().await;
    for name in ["open", "discarded", "retried"] {
        store.archive(&letter(name, name)).await.unwrap();
    }
    let ids = open(&store).await;
    assert_eq!(store.discard_letters(&ids[1..2]).await.unwrap(), 1);
    store.claim_letters(&any(&ids[2..]), "a", LONG).await.unwrap();
    store.letters_sent(&ids[2..], "a").await.unwrap();
    assert_eq!(store.forget_letters(1, 10).await.unwrap(), 0, "not a day old");
    let old = "'2020-01-01 00:00:00.000'";
    db.execute(&format!("UPDATE dead_letters SET first_at = {old}, last_at = {old}")).await;
    db.execute(&format!("UPDATE dead_letters SET decided_at = {old} WHERE decided_at IS NOT NULL")).await;
    assert_eq!(store.forget_letters(90, 1).await.unwrap(), 1, "in small steps");
    assert_eq!(store.forget_letters(90, 10).await.unwrap(), 1);
    assert_eq!(store.forget_letters(90, 10).await.unwrap(), 0);
    assert_eq!(open(&store).await, ids[..1]);
    assert_eq!(db.number("SELECT COUNT(*) FROM dead_letter_retries").await, 0);
}

async fn images_that_failed_at_intake_are_taken_in_again_and_no_others(db: Fixture) {
    let store = db.store().await;
    let (good, late) = (edit("good"), edit("late"));
    register(&store, &task("t", vec![unreadable(), miss(&good), unreadable()])).await;
    finish(&store, &good).await;
    let ids = open(&store).await;
    let retry = store.claim_letters(&any(&ids), "a", LONG).await.unwrap()[0].clone();
    assert_eq!(retry.headers["x-retouch-images"], "0,2");
    store.letters_sent(&ids, "a").await.unwrap();
    // The first is done by now, the other one is not; the second one is outside of the selection.
    let mut new = task("t", vec![miss(&late), unreadable(), miss(&late)]);
    new.again = Some(retry.retry);
    let again = store.reopen_images(&new, &[0, 2, 1]).await.unwrap().unwrap();
    assert_eq!(again.wake, [(late.edit_key, "lane".to_owned())]);
    assert_eq!((again.task.status, counts(&again.task)), (TaskStatus::Processing, [0, 0, 1, 1]));
    db.is_sound().await;
    assert_eq!(state(&store, ids[0]).await, (LetterState::Open, 1), "one of its images failed again");
    let message = db.text("SELECT message FROM dead_letters").await;
    assert_eq!(message, "image 2: 404 Not Found");
    let done = finish(&store, &late).await.pop().unwrap();
    assert_eq!((done.status, counts(&done)), (TaskStatus::Partial, [0, 0, 2, 1]));
    // Told once more it changes nothing.
    let again = store.reopen_images(&new, &[0]).await.unwrap().unwrap();
    assert_eq!(counts(&again.task), [0, 0, 2, 1]);
    assert_eq!(db.number("SELECT COUNT(*) FROM dead_letters").await, 1);
    db.is_settled().await;
}

async fn a_retry_releases_a_held_call_and_resets_its_count(db: Fixture) {
    let store = db.store().await;
    let bad = failed(&store, "ambiguous").await;
    db.execute("UPDATE image_edit_calls SET unanswered = 2").await;
    // Another task fails by it, unsent; then it has no time of a submit any more.
    register(&store, &task("later", vec![miss(&bad)])).await;
    let lease = claim(&store, bad.edit_key).await.lease;
    assert!(!begin(&store, lease).await);
    ended(store.fail_edit(lease, &error("ambiguous", "no"), true).await.unwrap());
    let done = store.reopen_edits(&open_edits(&store).await, &Reopening::default()).await.unwrap();
    assert_eq!((done.retried.len(), done.waiting, done.wake.len()), (1, 4, 1));
    assert_eq!(db.of_call("possible_duplicates", bad.edit_key).await, 1, "it may be paid twice");
    let call = claim(&store, bad.edit_key).await;
    assert_eq!((call.held.as_deref(), call.unanswered), (None, 0));
    assert!(begin(&store, call.lease).await);
    // A letter of an edit that is under way: what is sent now stays counted.
    ended(store.fail_edit(call.lease, &error("ambiguous", "no"), true).await.unwrap());
    let letters = open_edits(&store).await;
    register(&store, &task("joined", vec![miss(&bad)])).await;
    db.execute("UPDATE image_edit_calls SET held = NULL, unanswered = 1").await;
    let lease = claim(&store, bad.edit_key).await.lease;
    assert!(begin(&store, lease).await);
    assert_eq!(db.of_call("unanswered", bad.edit_key).await, 2);
    store.reopen_edits(&letters, &Reopening::default()).await.unwrap();
    assert_eq!(db.of_call("unanswered", bad.edit_key).await, 1);
}
