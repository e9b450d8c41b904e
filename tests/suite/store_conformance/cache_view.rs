//! Views of the cache for people: exact sums, unchanged entries, and no effect of reading.

use retouch_shared::key::{Digest32, EditIdentity, KEY_VERSION_NUMBER};
use retouch_worker::store::{Answered, CallSpec, CallState, Tally};

use super::fixture::{
    Fixture, LONG, PRICE, cached, claim, edit, finish, hit, keyed, make, miss, register, result_of, task,
    unreadable, url_of,
};

promises!(
    images_and_money_are_summed_by_day_and_edit_type,
    only_the_days_that_are_asked_for_are_read,
    entries_are_counted_by_key_version_and_model,
    a_row_has_its_keys_version_unless_another_program_made_it,
    records_are_found_by_edit_picture_and_result,
    other_pictures_with_the_very_same_edit_are_found_and_no_others,
);

fn identity(call: &CallSpec) -> EditIdentity<'_> {
    EditIdentity {
        image_hash: call.image_hash,
        edit_type: &call.edit_type,
        prompt: &call.prompt,
        provider: &call.provider,
        model: &call.model,
        params: &call.params,
        mask_hash: call.mask_hash,
        variant: call.variant.as_deref(),
    }
}

/// A day's line, or that of what is under way.
fn line(answered: &[Answered], day: Option<&str>, edit_type: &str) -> Answered {
    let found: Vec<_> =
        answered.iter().filter(|one| one.day.as_deref() == day && one.edit_type == edit_type).collect();
    let [one] = found.as_slice() else { panic!("{answered:?}") };
    (*one).clone()
}

async fn images_and_money_are_summed_by_day_and_edit_type(db: Fixture) {
    let store = db.store().await;
    let call = edit("picture");
    register(&store, &task("one", vec![miss(&call), miss(&call), unreadable()])).await;
    finish(&store, &call).await;
    let result = cached(&store, call.edit_key).await.unwrap();
    let other = retouch_worker::store::NewTask {
        edit_type: "expand".to_owned(),
        ..task("two", vec![hit(&call, &result)])
    };
    register(&store, &other).await;
    register(&store, &task("three", vec![hit(&call, &result), miss(&edit("wanted")), miss(&edit("too"))]))
        .await;

    let answered = store.answered(2).await.unwrap();
    assert_eq!(answered.len(), 3, "{answered:?}");
    let today = answered.iter().find_map(|one| one.day.clone()).unwrap();
    let cny = || Tally { currency: "CNY".to_owned(), ..Tally::default() };
    let one = line(&answered, Some(&today), "remove_watermark");
    assert_eq!((one.tasks, one.images), (1, 3));
    let tally = Tally { joined: 1, paid: 1, failed: 1, paid_micros: PRICE, saved_micros: PRICE, ..cny() };
    assert_eq!(one.tally, tally);
    let two = line(&answered, Some(&today), "expand");
    assert_eq!((two.tasks, two.images, two.tally), (1, 1, Tally { hit: 1, saved_micros: PRICE, ..cny() }));
    let open = line(&answered, None, "remove_watermark");
    assert_eq!((open.tasks, open.images, open.tally.hit), (1, 3, 1));

    let sum = |of: fn(&Tally) -> u64| answered.iter().map(|one| of(&one.tally)).sum::<u64>();
    let plain = async |column: &str| {
        let sql = format!("SELECT CAST(SUM({column}) AS SIGNED) FROM image_edit_tasks");
        u64::try_from(db.number(&sql).await).unwrap()
    };
    assert_eq!(sum(|tally| tally.hit), plain("hit_images").await);
    assert_eq!(sum(|tally| tally.joined), plain("joined_images").await);
    assert_eq!(sum(|tally| tally.paid), plain("paid_images").await);
    assert_eq!(sum(|tally| tally.failed), plain("failed_images").await);
    let [of_today] = store.answered_today().await.unwrap().try_into().unwrap();
    assert_eq!((of_today.hit, of_today.joined, of_today.paid, of_today.failed), (1, 1, 1, 1));
}

async fn only_the_days_that_are_asked_for_are_read(db: Fixture) {
    let store = db.store().await;
    for (id, ended) in [("long ago", "2020-01-01 23:59:59.999"), ("today", "2999-01-01 00:00:00.000")] {
        register(&store, &task(&id.replace(' ', "-"), vec![unreadable()])).await;
        let when = format!(
            "UPDATE image_edit_tasks SET completed_at = '{ended}' WHERE task_id = '{}'",
            id.replace(' ', "-")
        );
        assert_eq!(db.execute(&when).await, 1);
    }
    let days = |answered: Vec<Answered>| answered.into_iter().filter_map(|one| one.day).collect::<Vec<_>>();
    assert_eq!(days(store.answered(1).await.unwrap()), ["2999-01-01"]);
    assert_eq!(days(store.answered(36_500).await.unwrap()), ["2999-01-01", "2020-01-01"]);
}

async fn entries_are_counted_by_key_version_and_model(db: Fixture) {
    let store = db.store().await;
    for picture in ["a", "b", "c"] {
        let call = edit(picture);
        register(&store, &task(picture, vec![miss(&call)])).await;
        finish(&store, &call).await;
    }
    let (a, b) = (edit("a").edit_key, edit("b").edit_key);
    let newer = format!("UPDATE image_edit_cache SET key_version = 9, hit_count = 7 WHERE edit_key = x'{a}'");
    db.execute(&newer).await;
    db.execute(&format!("UPDATE image_edit_cache SET imported_hits = 3 WHERE edit_key = x'{b}'")).await;
    let shares = store.cache_shares().await.unwrap();
    let told: Vec<_> = shares
        .iter()
        .map(|share| {
            (
                share.key_version,
                share.model.as_str(),
                share.entries,
                share.imported,
                share.bytes,
                share.served,
            )
        })
        .collect();
    assert_eq!(told, [(9, "m-1", 1, 0, 12_345, 7), (KEY_VERSION_NUMBER, "m-1", 2, 1, 2 * 12_345, 2)]);
    let top = store.most_served(2).await.unwrap();
    assert_eq!((top.len(), top[0].result.edit_key, top[0].hit_count, top[0].key_version), (2, a, 7, 9));
}

async fn a_row_has_its_keys_version_unless_another_program_made_it(db: Fixture) {
    let store = db.store().await;
    let ours = edit("ours");
    let theirs = CallSpec { edit_key: Digest32::of(b"made another way"), ..edit("theirs") };
    for (call, version) in [(ours, KEY_VERSION_NUMBER), (theirs, 0)] {
        register(&store, &task(&call.edit_key.to_hex(), vec![miss(&call)])).await;
        finish(&store, &call).await;
        let entry = store.known_of_edit(call.edit_key).await.unwrap().entries.remove(0);
        assert_eq!(entry.key_version, version);
        assert_eq!(entry.identity().key() == call.edit_key, version == KEY_VERSION_NUMBER);
    }
}

async fn records_are_found_by_edit_picture_and_result(db: Fixture) {
    let store = db.store().await;
    let made = edit("picture");
    let wanted = keyed(CallSpec { variant: Some("b".to_owned()), ..edit("picture") });
    let gone = keyed(CallSpec { variant: Some("c".to_owned()), ..edit("picture") });
    let forgotten = keyed(CallSpec { variant: Some("d".to_owned()), ..edit("picture") });
    let other = edit("other");
    register(&store, &task("t", vec![miss(&made), miss(&wanted), miss(&other)])).await;
    finish(&store, &made).await;
    finish(&store, &other).await;
    let lease = claim(&store, wanted.edit_key).await.lease;
    for (key, image, reason) in [
        (gone.edit_key, format!("'{}'", gone.image_hash), "evicted"),
        (forgotten.edit_key, "NULL".to_owned(), "forgotten"),
    ] {
        db.execute(&format!(
            "INSERT INTO image_edit_gone (edit_key, image_hash, reason, gone_at) \
             VALUES (x'{key}', {image}, '{reason}', '2026-11-25 10:00:00.000')"
        ))
        .await;
    }

    let picture = store.known_of_image(made.image_hash).await.unwrap();
    let [entry] = picture.entries.as_slice() else { panic!("{picture:?}") };
    assert_eq!(entry.identity().key(), made.edit_key);
    assert_eq!((entry.hit_count, entry.imported_hits, entry.verified_at), (1, None, None));
    assert_eq!(entry.result, cached(&store, made.edit_key).await.unwrap());
    let [one] = picture.gone.as_slice() else { panic!("{picture:?}") };
    assert_eq!((one.edit_key, one.reason.as_str()), (gone.edit_key, "evicted"));
    let calls: Vec<_> = picture.calls.iter().map(|call| (call.edit_key, call.state)).collect();
    assert_eq!(calls.len(), 2);
    assert!(
        calls.contains(&(wanted.edit_key, CallState::Claimed))
            && calls.contains(&(made.edit_key, CallState::Done))
    );

    let one = store.known_of_edit(wanted.edit_key).await.unwrap();
    assert!(one.entries.is_empty() && one.gone.is_empty());
    assert_eq!(one.calls[0].state, CallState::Claimed);
    let reason = |known: &retouch_worker::store::Known| known.gone[0].reason.clone();
    let known = store.known_of_edit(forgotten.edit_key).await.unwrap();
    assert_eq!(
        (reason(&known), known.gone[0].image_hash, known.calls.len()),
        ("forgotten".to_owned(), None, 0)
    );

    let results = store.entries_of_result(result_of(&made).hash).await.unwrap();
    assert_eq!(results.iter().map(|entry| entry.image_hash).collect::<Vec<_>>(), [made.image_hash]);
    // Reading has no effect on the call.
    assert!(store.renew_lease(lease, LONG).await.unwrap());
}

async fn other_pictures_with_the_very_same_edit_are_found_and_no_others(db: Fixture) {
    let store = db.store().await;
    let same = edit("same edit");
    let variant = keyed(CallSpec { variant: Some("b".to_owned()), ..edit("another take") });
    let prompt = keyed(CallSpec { prompt: "make it plain!".to_owned(), ..edit("another prompt") });
    register(&store, &task("t", vec![miss(&same), miss(&variant), miss(&prompt)])).await;
    for call in [&same, &variant, &prompt] {
        let lease = make(&store, call).await;
        store.finish_edit(lease, &url_of(&result_of(call))).await.unwrap();
    }
    let wanted = edit("a new picture");
    let found = store.recent_of_edit(&identity(&wanted), 10).await.unwrap();
    assert_eq!(found.iter().map(|entry| entry.image_hash).collect::<Vec<_>>(), [same.image_hash]);
}
