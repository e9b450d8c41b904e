//! Migrations: from nothing, repeated, concurrent; foreign tables stay untouched.

use futures::future::join_all;
use retouch_worker::store::{LanePolicy, SchemaState, StoreError};

use super::fixture::{Fixture, edit};

promises!(
    a_database_without_tables_is_a_failure_and_never_a_miss,
    an_empty_database_is_migrated_and_then_current,
    migrating_again_changes_nothing,
    foreign_tables_with_our_names_are_reported_and_untouched,
    a_database_of_a_newer_program_is_ahead_and_untouched,
    a_database_of_an_older_program_is_behind_and_is_brought_up,
    programs_that_migrate_at_the_same_time_all_find_it_current,
);

fn three() -> LanePolicy {
    LanePolicy { max_in_flight: Some(3), ..LanePolicy::default() }
}

const STEPS: &str = "SELECT COUNT(*) FROM retouch_migrations WHERE success";

async fn a_database_without_tables_is_a_failure_and_never_a_miss(db: Fixture) {
    let store = db.open();
    let answer = store.lookup(&[edit("picture").edit_key]).await;
    assert!(matches!(answer, Err(StoreError::Failed(_))), "{answer:?}");
}

async fn an_empty_database_is_migrated_and_then_current(db: Fixture) {
    let store = db.open();
    assert_eq!(store.schema_state().await.unwrap(), SchemaState::Empty);
    assert_eq!(store.migrate().await.unwrap(), SchemaState::Current);
    assert_eq!(store.schema_state().await.unwrap(), SchemaState::Current);
    for table in ["cache", "tasks", "calls", "waits"] {
        assert_eq!(db.number(&format!("SELECT COUNT(*) FROM image_edit_{table}")).await, 0);
    }
}

async fn migrating_again_changes_nothing(db: Fixture) {
    let store = db.store().await;
    store.declare_lane("kept", &three()).await.unwrap();
    let steps = db.number(STEPS).await;
    assert_eq!(store.migrate().await.unwrap(), SchemaState::Current);
    assert_eq!(db.open().migrate().await.unwrap(), SchemaState::Current);
    assert_eq!(db.number(STEPS).await, steps);
    assert_eq!(db.number("SELECT max_in_flight FROM lanes WHERE name = 'kept'").await, 3);
}

async fn foreign_tables_with_our_names_are_reported_and_untouched(db: Fixture) {
    let store = db.open();
    // Connects, which makes the file.
    assert_eq!(store.schema_state().await.unwrap(), SchemaState::Empty);
    db.execute("CREATE TABLE image_edit_cache (image_hash VARCHAR(64) PRIMARY KEY, result_url TEXT)").await;
    db.execute("CREATE TABLE customers (id INT PRIMARY KEY)").await;
    db.execute("INSERT INTO image_edit_cache VALUES ('theirs', 'https://theirs.example/1.png')").await;
    let foreign = SchemaState::Foreign { tables: vec!["image_edit_cache".to_owned()] };
    assert_eq!(store.migrate().await.unwrap(), foreign);
    assert_eq!(store.schema_state().await.unwrap(), foreign);
    assert!(foreign.to_string().contains("image_edit_cache"), "{foreign}");
    assert_eq!(db.text("SELECT image_hash FROM image_edit_cache").await, "theirs");
    let tables = if db.is_sqlite() {
        "SELECT COUNT(*) FROM sqlite_schema WHERE type = 'table'"
    } else {
        "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE()"
    };
    assert_eq!(db.number(tables).await, 2);
}

async fn a_database_of_a_newer_program_is_ahead_and_untouched(db: Fixture) {
    let store = db.store().await;
    db.execute(
        "INSERT INTO retouch_migrations (version, description, success, checksum, execution_time) \
         VALUES (999, 'to come', TRUE, x'00', 0)",
    )
    .await;
    let steps = db.number(STEPS).await;
    let state = store.migrate().await.unwrap();
    let SchemaState::Ahead { at: 999, knows } = state else { panic!("{state:?}") };
    assert!(state.to_string().contains(&knows.to_string()), "{state}");
    assert_eq!(db.number(STEPS).await, steps);
}

async fn a_database_of_an_older_program_is_behind_and_is_brought_up(db: Fixture) {
    let store = db.store().await;
    store.declare_lane("kept", &three()).await.unwrap();
    db.execute("DELETE FROM retouch_migrations WHERE version > 1").await;
    if db.is_sqlite() {
        db.execute("DROP TABLE broker_messages").await;
        db.execute("DROP TABLE broker_queues").await;
        db.execute("DROP TABLE provider_tasks").await;
        db.execute("DROP TABLE suspects").await;
        for column in ["traceparent", "tracestate"] {
            db.execute(&format!("ALTER TABLE image_edit_tasks DROP COLUMN {column}")).await;
        }
        for index in [
            "cache_mask_hash",
            "cache_result_hash",
            "cache_created_at",
            "cache_verified_at",
            "calls_image_hash",
            "calls_mask_hash",
            "calls_result_hash",
        ] {
            db.execute(&format!("DROP INDEX image_edit_{index}")).await;
        }
        db.execute("DROP INDEX dead_letters_payload_blob").await;
        db.execute("DROP TABLE dropped_blobs").await;
        db.execute("DROP TABLE cache_chores").await;
        for column in ["key_version", "imported_hits", "verified_at"] {
            db.execute(&format!("ALTER TABLE image_edit_cache DROP COLUMN {column}")).await;
        }
        db.execute("DROP TABLE image_edit_gone").await;
        db.execute("DROP TABLE replicas").await;
        db.execute("DROP TABLE cancels").await;
        db.execute("DROP TABLE dead_letter_retries").await;
        db.execute("ALTER TABLE image_edit_calls DROP COLUMN letter_id").await;
        for index in ["state_group", "state_decided", "edit_key"] {
            db.execute(&format!("DROP INDEX dead_letters_{index}")).await;
        }
        for column in
            ["group_text", "edit_type", "properties", "retries", "claimed_by", "claim_until", "decided_at"]
        {
            db.execute(&format!("ALTER TABLE dead_letters DROP COLUMN {column}")).await;
        }
        for index in ["image_edit_calls_answer_hash", "dead_letters_kept_blob", "image_edit_tasks_ended"] {
            db.execute(&format!("DROP INDEX {index}")).await;
        }
        for (table, columns) in [
            (
                "image_edit_calls",
                &[
                    "unanswered",
                    "held",
                    "answer_hash",
                    "answer_type",
                    "ended_at",
                    "fetch_host",
                    "fetch_error",
                    "result_check",
                    "lost_micros",
                    "lost_as",
                ][..],
            ),
            ("image_edit_cache", &["result_check"]),
            ("image_edit_tasks", &["lost_micros"]),
            ("dead_letters", &["kept_blob", "kept_type"]),
        ] {
            for column in columns {
                db.execute(&format!("ALTER TABLE {table} DROP COLUMN {column}")).await;
            }
        }
        db.execute("DROP TABLE spending").await;
        db.execute("DROP TABLE installation").await;
        // As it was then; MySQL's migration looks for itself.
        db.execute(
            "CREATE TABLE old (name TEXT PRIMARY KEY, max_in_flight INTEGER, updated_at TEXT NOT NULL) STRICT; \
             INSERT INTO old SELECT name, max_in_flight, updated_at FROM lanes; \
             DROP TABLE lanes; ALTER TABLE old RENAME TO lanes",
        )
        .await;
    }
    let state = store.schema_state().await.unwrap();
    let SchemaState::Behind { at: 1, needs } = state else { panic!("{state:?}") };
    assert_eq!(store.migrate().await.unwrap(), SchemaState::Current);
    assert_eq!(db.number("SELECT MAX(version) FROM retouch_migrations").await, needs);
    assert_eq!(db.number("SELECT max_in_flight FROM lanes WHERE name = 'kept'").await, 3);
}

async fn programs_that_migrate_at_the_same_time_all_find_it_current(db: Fixture) {
    let programs: Vec<_> = (0..8).map(|_| db.open()).collect();
    let states = join_all(programs.iter().map(|store| store.migrate())).await;
    for state in states {
        assert_eq!(state.unwrap(), SchemaState::Current);
    }
}

/// MySQL commits each statement of a migration, so a crash leaves half of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_that_a_crash_cut_short_is_made_up_for() {
    let db = Fixture::mariadb().await;
    let store = db.store().await;
    db.execute("DELETE FROM retouch_migrations WHERE version > 1").await;
    db.execute("UPDATE retouch_migrations SET success = FALSE").await;
    db.execute("DROP TABLE dead_letters").await;
    let state = store.schema_state().await.unwrap();
    assert!(matches!(state, SchemaState::Behind { at: 0, .. }), "{state:?}");
    assert_eq!(store.migrate().await.unwrap(), SchemaState::Current);
    assert_eq!(db.number("SELECT COUNT(*) FROM dead_letters").await, 0);
}
