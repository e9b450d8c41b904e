//! A database that cannot be asked is an error that says so, never an empty answer.

use std::time::{Duration, Instant};

use retouch_shared::event::TaskStatus;
use retouch_worker::store::{
    ClosedBy, Closure, DatabaseLocation, DeadLetter, DeadPayload, LanePolicy, Lease, Properties, Store,
    StoreError,
};

use super::fixture::{LONG, edit, error, miss, result_of, task};

/// Asks for everything there is; returns how each was answered.
async fn ask_everything(store: &Store) -> Vec<(&'static str, Result<(), StoreError>)> {
    let call = edit("picture");
    let key = call.edit_key;
    let lease = Lease { edit_key: key, fence: 1 };
    let letter = DeadLetter {
        letter_key: key,
        queue: "tasks".to_owned(),
        reason: "x".to_owned(),
        message: String::new(),
        payload: DeadPayload::Inline("{}".into()),
        kept: None,
        headers: [].into(),
        attempts: 1,
        task_id: None,
        edit_key: None,
        edit_type: None,
        properties: Properties::default(),
        again: None,
        settled: false,
    };
    let (new, result, refused) = (task("t", vec![miss(&call)]), result_of(&call), error("refused", "no"));
    let closure = Closure {
        by: ClosedBy::Submit,
        code: "x".to_owned(),
        message: String::new(),
        probe_in: Some(Duration::ZERO),
    };
    macro_rules! ask {
        ($($name:ident($($argument:expr),*);)*) => {{
            let answers = futures::join!($(async { store.$name($($argument),*).await.map(drop) }),*);
            let ($($name),*) = answers;
            vec![$((stringify!($name), $name)),*]
        }};
    }
    ask! {
        lookup(&[key]);
        register(&new);
        find_task("t");
        redirect_reply("t", None, None);
        claim_call(key, "x", LONG);
        renew_lease(lease, LONG);
        begin_submit(lease, &call.price);
        retract_submit(lease);
        record_submitted(lease, "id");
        record_stored(lease, &result, Duration::ZERO);
        requeue_call(lease, true, "why", Duration::ZERO);
        hand_over_call(lease, None, Duration::ZERO);
        count_ambiguous(lease, true, "why");
        finish_edit(lease, "url");
        store_and_finish(lease, &call, &result, Instant::now(), "url");
        fail_edit(lease, &refused, true);
        event_sent("t", TaskStatus::Failed, 1);
        take_due_calls(10);
        take_due_events(10);
        archive(&letter);
        declare_lane("lane", &LanePolicy::default());
        throttle_lane("lane", Duration::ZERO);
        block_lane("lane", &closure);
        reopen_lane("lane", false);
        pause_lane("lane");
        resume_lane("lane");
        suspect_starts(key);
        start_suspect(key);
        end_suspect(key);
        clear_suspect(key);
        forget_suspects();
        lanes();
        schema_state();
        migrate();
    }
}

fn all_unavailable(answers: Vec<(&'static str, Result<(), StoreError>)>) {
    for (name, answer) in answers {
        assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{name}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_not_there_is_unavailable_to_every_question() {
    let port = retouch_tests::services::Port::free().unwrap();
    let url = format!("mysql://root@127.0.0.1:{}/retouch", port.number());
    let store = Store::open(&DatabaseLocation::MySql(url), 30).unwrap();
    all_unavailable(ask_everything(&store).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_cannot_be_opened_is_unavailable_to_every_question() {
    let folder = tempfile::tempdir().unwrap();
    // A folder stands where the file should be.
    let path = folder.path().join("retouch.db");
    std::fs::create_dir(&path).unwrap();
    let store = Store::open(&DatabaseLocation::Sqlite(path), 8).unwrap();
    all_unavailable(ask_everything(&store).await);
}

#[test]
fn a_url_that_means_nothing_is_refused_at_once() {
    let location = DatabaseLocation::MySql("mysql://host:not-a-port/".to_owned());
    assert!(matches!(Store::open(&location, 1), Err(StoreError::Failed(_))));
}

mod own_servers {
    use retouch_tests::services::MariaDb;
    use retouch_tests::wait::until;

    use super::super::fixture::{counts, edit, finish, found, miss, register, task};
    use super::*;

    async fn on(server: &MariaDb) -> Store {
        let base = Store::open(&DatabaseLocation::MySql(server.url("mysql")), 30).unwrap();
        // Any database will do that is empty of tables of our names.
        base.migrate().await.unwrap();
        base
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_server_that_went_away_is_unavailable_and_loses_nothing() {
        let mut server = MariaDb::start().await.unwrap();
        let store = on(&server).await;
        let (known, waiting) = (edit("known"), edit("waiting"));
        register(&store, &task("first", vec![miss(&known)])).await;
        finish(&store, &known).await;
        register(&store, &task("second", vec![miss(&waiting)])).await;
        server.kill9();
        all_unavailable(ask_everything(&store).await);
        server.restart().await.unwrap();
        // The pool finds its way back by itself.
        let found_again =
            until("the store answers again", async || store.lookup(&[known.edit_key]).await.ok());
        assert_eq!(found_again.await.len(), 1, "what was committed is there after a power cut");
        let ended = finish(&store, &waiting).await;
        assert_eq!(counts(&ended[0]), [0, 0, 1, 0]);
        assert_eq!(found(&store, "first").await.status, TaskStatus::Completed);
        store.close().await;
    }
}
