//! Batches: many tasks in one transaction are answered as if each had come alone.

use futures::future::join_all;
use retouch_shared::event::TaskStatus;
use retouch_worker::store::{CachedResult, CallSpec, NewTask, Registered, Store};

use super::fixture::{Fixture, cached, counts, edit, finish, found, hit, miss, register, task};

promises!(
    many_tasks_of_hits_register_together_and_every_hit_is_counted_once,
    a_tasks_fields_survive_a_batch_unchanged,
    a_task_that_is_there_already_holds_up_none_of_its_batch,
    an_early_cancel_delays_no_other_task_of_the_batch,
    a_result_forgotten_since_the_lookup_answers_no_task,
    a_result_replaced_since_the_lookup_answers_no_task,
    events_that_are_sent_together_are_each_noted_for_what_they_said,
    tasks_and_edits_are_looked_up_together_and_each_finds_its_own,
);

async fn made(store: &Store, picture: &str) -> (CallSpec, CachedResult) {
    let call = edit(picture);
    register(store, &task(&format!("first of {picture}"), vec![miss(&call)])).await;
    finish(store, &call).await;
    let result = cached(store, call.edit_key).await.unwrap();
    (call, result)
}

async fn register_all(store: &Store, tasks: &[NewTask]) -> Vec<Registered> {
    let registered = join_all(tasks.iter().map(|task| store.register(task))).await;
    registered.into_iter().map(Result::unwrap).collect()
}

fn is_new(registered: &Registered) -> bool {
    matches!(registered, Registered::New { task, wake } if task.status == TaskStatus::Completed && wake.is_empty())
}

async fn many_tasks_of_hits_register_together_and_every_hit_is_counted_once(db: Fixture) {
    // Two replicas with the same entries in hand.
    let (store, other) = (db.store().await, db.open());
    let ((one, of_one), (two, of_two)) = (made(&store, "one").await, made(&store, "two").await);
    let tasks = |replica: &str| -> Vec<NewTask> {
        let images = |n| {
            if n % 2 == 0 { vec![hit(&one, &of_one), hit(&two, &of_two)] } else { vec![hit(&two, &of_two)] }
        };
        (0..300).map(|n| task(&format!("{replica}-{n}"), images(n))).collect()
    };
    let (here, there) = (tasks("here"), tasks("there"));
    let (here, there) = tokio::join!(register_all(&store, &here), register_all(&other, &there));
    for registered in here.iter().chain(&there) {
        let Registered::New { task, .. } = registered else { panic!("{registered:?}") };
        assert_eq!((task.status, counts(task)), (TaskStatus::Completed, [task.total, 0, 0, 0]));
        assert_eq!(format!("{task:?}"), format!("{:?}", Box::new(found(&store, &task.task_id).await)));
    }
    assert_eq!(db.hit_count(one.edit_key).await, 1 + 300);
    assert_eq!(db.hit_count(two.edit_key).await, 1 + 600);
    db.is_settled().await;
}

async fn a_tasks_fields_survive_a_batch_unchanged(db: Fixture) {
    let store = db.store().await;
    let (call, result) = made(&store, "picture").await;
    let texts = [
        "plain",
        "",
        "it's \"quoted\" \\ and \n\ttabbed",
        "日本語 🎨 é e\u{301}",
        "{\"a\":[1,\"\\u0000\"]}",
        "a\0b",
        "%_null",
    ];
    let tasks: Vec<NewTask> = (0..)
        .zip(texts)
        .map(|(n, text)| NewTask {
            prompt: text.replace('\0', "").repeat(20),
            metadata: Some(serde_json::json!({ text: [text, null_and_number()] })),
            params: serde_json::from_value(serde_json::json!({ "text": text, "n": 1.5 })).unwrap(),
            inputs: vec![format!("https://pictures.example/{text}")],
            reply_to: Some(text.to_owned()),
            correlation_id: Some(text.to_owned()),
            trace: retouch_worker::trace::TraceContext::read(
                Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
                Some("vendor=a"),
            ),
            ..task(&format!("t-{n}"), vec![hit(&call, &result)])
        })
        .collect();
    for (task, registered) in tasks.iter().zip(register_all(&store, &tasks).await) {
        assert!(is_new(&registered), "{registered:?}");
        let read = found(&store, &task.task_id).await;
        assert_eq!((&read.metadata, &read.inputs), (&task.metadata, &task.inputs), "{}", task.prompt);
        assert_eq!((&read.reply_to, &read.correlation_id), (&task.reply_to, &task.correlation_id));
        assert_eq!((read.trace.as_ref(), read.request_hash), (task.trace.as_ref(), task.request_hash));
        let of_task = |column: &str| {
            format!("SELECT {column} FROM image_edit_tasks WHERE task_id = '{}'", task.task_id)
        };
        assert_eq!(db.text(&of_task("prompt")).await, task.prompt);
        assert_eq!(db.text(&of_task("params")).await, task.params.canonical());
        assert_eq!(db.text(&of_task("model")).await, task.model);
    }
    db.is_settled().await;
}

fn null_and_number() -> serde_json::Value {
    serde_json::json!({"null": null, "number": 1e300})
}

async fn a_task_that_is_there_already_holds_up_none_of_its_batch(db: Fixture) {
    let store = db.store().await;
    let (call, result) = made(&store, "picture").await;
    let of = |id: String| task(&id, vec![hit(&call, &result)]);
    register(&store, &of("t-7".to_owned())).await;
    let other = NewTask { request_hash: retouch_shared::key::Digest32::of(b"other"), ..of("t-9".to_owned()) };
    register(&store, &other).await;
    // Nineteen, of which two are there, and one that comes twice at once.
    let mut tasks: Vec<NewTask> = (0..19).map(|n| of(format!("t-{n}"))).collect();
    tasks.push(of("t-3".to_owned()));
    let registered = register_all(&store, &tasks).await;
    for (task, registered) in tasks.iter().zip(&registered) {
        match &task.task_id[..] {
            "t-7" => assert!(matches!(registered, Registered::Same(_)), "{registered:?}"),
            "t-9" => assert!(matches!(registered, Registered::Conflict), "{registered:?}"),
            "t-3" => assert!(matches!(registered, Registered::New { .. } | Registered::Same(_))),
            _ => assert!(is_new(registered), "{registered:?}"),
        }
    }
    let new = registered.iter().filter(|registered| is_new(registered)).count();
    assert_eq!(new, 17);
    assert_eq!(db.hit_count(call.edit_key).await, 1 + 19, "counted once for each task");
}

async fn an_early_cancel_delays_no_other_task_of_the_batch(db: Fixture) {
    let store = db.store().await;
    let (call, result) = made(&store, "picture").await;
    store.cancel_task("t-5", std::time::Duration::from_secs(60)).await.unwrap();
    let tasks: Vec<NewTask> = (0..10).map(|n| task(&format!("t-{n}"), vec![hit(&call, &result)])).collect();
    for registered in register_all(&store, &tasks).await {
        let Registered::New { task, .. } = registered else { panic!("{registered:?}") };
        let expected = if task.task_id == "t-5" { TaskStatus::Failed } else { TaskStatus::Completed };
        assert_eq!(task.status, expected, "{}", task.task_id);
    }
    assert_eq!(db.hit_count(call.edit_key).await, 1 + 9);
    assert_eq!(db.number("SELECT COUNT(*) FROM cancels").await, 0, "it is used up");
    db.is_settled().await;
}

async fn a_result_forgotten_since_the_lookup_answers_no_task(db: Fixture) {
    let store = db.store().await;
    let ((gone, of_gone), (kept, of_kept)) = (made(&store, "gone").await, made(&store, "kept").await);
    let forget = format!("DELETE FROM image_edit_cache WHERE edit_key = x'{}'", gone.edit_key);
    assert_eq!(db.execute(&forget).await, 1);
    let new = edit("new");
    let tasks = [
        task("only", vec![hit(&gone, &of_gone)]),
        task("both", vec![hit(&kept, &of_kept), hit(&gone, &of_gone)]),
        task("beside a miss", vec![miss(&new), hit(&gone, &of_gone)]),
        task("kept", vec![hit(&kept, &of_kept)]),
    ];
    let registered = register_all(&store, &tasks).await;
    assert!(
        registered[..3].iter().all(|registered| matches!(registered, Registered::Gone)),
        "{registered:?}"
    );
    assert!(is_new(&registered[3]));
    assert_eq!(db.hit_count(kept.edit_key).await, 1 + 1, "only what was answered is counted");
    for id in ["only", "both", "beside a miss"] {
        assert!(store.find_task(id).await.unwrap().is_none(), "{id}");
    }
    assert_eq!(db.number("SELECT COUNT(*) FROM image_edit_waits").await, 0);

    // Looked at again it is a miss, and is made again.
    let (_, wake) = register(&store, &task("only", vec![miss(&gone)])).await;
    assert_eq!(wake, [gone.edit_key]);
    finish(&store, &gone).await;
    db.is_settled().await;
}

async fn a_result_replaced_since_the_lookup_answers_no_task(db: Fixture) {
    let store = db.store().await;
    let (call, before) = made(&store, "picture").await;
    let other = "ab".repeat(32);
    let replace =
        format!("UPDATE image_edit_cache SET result_hash = '{other}' WHERE edit_key = x'{}'", call.edit_key);
    assert_eq!(db.execute(&replace).await, 1);
    let now = cached(&store, call.edit_key).await.unwrap();
    let tasks = [task("before", vec![hit(&call, &before)]), task("now", vec![hit(&call, &now)])];
    let registered = register_all(&store, &tasks).await;
    assert!(matches!(registered[0], Registered::Gone), "{registered:?}");
    assert!(is_new(&registered[1]), "{registered:?}");
    assert_eq!(db.hit_count(call.edit_key).await, 1 + 1);

    // An imported result may have no digest at all.
    let imported =
        format!("UPDATE image_edit_cache SET result_hash = NULL WHERE edit_key = x'{}'", call.edit_key);
    assert_eq!(db.execute(&imported).await, 1);
    let imported = cached(&store, call.edit_key).await.unwrap();
    assert!(is_new(&store.register(&task("imported", vec![hit(&call, &imported)])).await.unwrap()));
}

async fn events_that_are_sent_together_are_each_noted_for_what_they_said(db: Fixture) {
    let store = db.store().await;
    let (call, result) = made(&store, "picture").await;
    store.event_sent("first of picture", TaskStatus::Completed, 0).await.unwrap();
    let tasks: Vec<NewTask> = (0..30).map(|n| task(&format!("t-{n}"), vec![hit(&call, &result)])).collect();
    register_all(&store, &tasks).await;
    let sent = tasks.iter().enumerate().map(|(n, task)| {
        // An event of another outcome does not confirm the current one.
        let (status, failed) = match n {
            4 => (TaskStatus::Partial, 0),
            5 => (TaskStatus::Completed, 1),
            _ => (TaskStatus::Completed, 0),
        };
        store.event_sent(&task.task_id, status, failed)
    });
    join_all(sent).await.into_iter().for_each(|sent| sent.unwrap());
    let due = db.number("SELECT COUNT(*) FROM image_edit_tasks WHERE event_due IS NOT NULL").await;
    let those =
        "SELECT COUNT(*) FROM image_edit_tasks WHERE event_due IS NOT NULL AND task_id IN ('t-4', 't-5')";
    assert_eq!((due, db.number(those).await), (2, 2));
}

async fn tasks_and_edits_are_looked_up_together_and_each_finds_its_own(db: Fixture) {
    let store = db.store().await;
    let (call, result) = made(&store, "picture").await;
    let absent = edit("absent").edit_key;
    let edits =
        join_all((0..600).map(|n| store.look_up(if n % 3 == 0 { absent } else { call.edit_key }))).await;
    for (n, found) in edits.into_iter().enumerate() {
        assert_eq!(found.unwrap(), (n % 3 != 0).then(|| result.clone()));
    }
    let ids = ["first of picture", "nothing", "first of picture"];
    let tasks = join_all(ids.map(|id| store.find_task(id))).await;
    let ids: Vec<_> = tasks.into_iter().map(|task| task.unwrap().map(|task| task.task_id)).collect();
    let first = Some("first of picture".to_owned());
    assert_eq!(ids, [first.clone(), None, first]);
}
