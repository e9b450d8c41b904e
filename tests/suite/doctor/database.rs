//! A database that cannot be reached, has another schema, or is not to be written to.

use retouch_tests::env::Env;
use sqlx::AssertSqlSafe;

use super::{doctor, examine, migrated};

async fn execute(env: &Env, sql: &str) {
    sqlx::query(AssertSqlSafe(sql.to_owned())).execute(&env.pool().await).await.unwrap();
}

#[tokio::test]
async fn a_database_that_cannot_be_reached_is_named_with_the_reason() {
    let env = Env::new().await;
    let url = |from: &str, to: &str| env.mysql_url().replace(from, to);
    let report = examine(doctor(&env).env("DATABASE_URL", url("root@", "root:hunter2@"))).await;
    report.names("wrong database password", "database", "failed", "Access denied");
    assert_eq!(
        (report.state("schema"), report.state("broker"), report.state("blobs")),
        ("skipped", "ok", "ok")
    );
    let report = examine(doctor(&env).env("DATABASE_URL", "mysql://root:hunter2@127.0.0.1:1/retouch")).await;
    report.names("database down", "database", "failed", "127.0.0.1:1/retouch");
    let report = examine(doctor(&env).env("DATABASE_URL", url(env.namespace(), "nowhere"))).await;
    report.names("no such database", "database", "failed", "Unknown database");
    let report = examine(doctor(&env).env("DATABASE_URL", "mysql://root@nowhere.invalid/retouch")).await;
    report.names("no such database host", "database", "failed", "nowhere.invalid");
}

#[tokio::test]
async fn a_wrong_schema_is_named_with_its_command() {
    let env = Env::new().await;
    let report = examine(doctor(&env)).await;
    report.names("schema missing", "schema", "failed", "no tables of Retouch yet");
    let fix = report.checks.iter().find(|check| check["check"] == "schema").unwrap()["fix"].clone();
    assert_eq!(fix, "run `retouch migrate`");
    assert_eq!((report.state("lanes"), report.state("database writes")), ("skipped", "skipped"));
    let done = env.program(&["migrate"]).run().await;
    assert!(done.status.success(), "{}", done.stderr);
    execute(&env, "UPDATE retouch_migrations SET version = 99 ORDER BY version DESC LIMIT 1").await;
    examine(doctor(&env)).await.names("schema newer", "schema", "failed", "is at schema 99");
    execute(&env, "DELETE FROM retouch_migrations WHERE version > 1").await;
    examine(doctor(&env)).await.names("schema older", "schema", "failed", "is at schema 1,");
}

#[tokio::test]
async fn a_database_that_may_not_be_written_or_compares_inexactly_is_named() {
    let env = migrated().await;
    let name = env.namespace().to_owned();
    execute(&env, &format!("CREATE USER '{name}'@'%' IDENTIFIED BY 'hunter2'")).await;
    execute(&env, &format!("GRANT SELECT ON {name}.* TO '{name}'@'%'")).await;
    let url = env.mysql_url().replace("root@", &format!("{name}:hunter2@"));
    let report = examine(doctor(&env).env("DATABASE_URL", url)).await;
    execute(&env, &format!("DROP USER '{name}'@'%'")).await;
    report.names("database user may only read", "database writes", "failed", "command denied to user");
    execute(
        &env,
        "ALTER TABLE image_edit_tasks MODIFY edit_type VARCHAR(32) COLLATE utf8mb4_general_ci NOT NULL",
    )
    .await;
    let report = examine(doctor(&env)).await;
    report.names(
        "inexact collation",
        "character set",
        "failed",
        "image_edit_tasks.edit_type (utf8mb4_general_ci)",
    );
}

#[tokio::test]
async fn a_lane_that_takes_no_calls_is_named() {
    let env = migrated().await;
    execute(
        &env,
        "INSERT INTO lanes (name, one_unresolved, updated_at) VALUES ('local', 0, UTC_TIMESTAMP(3))",
    )
    .await;
    let pause = env.program(&["lanes", "pause", "local"]).run().await;
    assert!(pause.status.success(), "{}", pause.stderr);
    examine(doctor(&env)).await.names("lane paused", "lanes", "warning", "local is paused");
    let blocked = "UPDATE lanes SET paused_at = NULL, blocked_by = 'submit', blocked_code = 'Arrearage', \
                   blocked_message = 'pay', blocked_at = UTC_TIMESTAMP(3), probe_at = UTC_TIMESTAMP(3)";
    execute(&env, blocked).await;
    examine(doctor(&env)).await.names("lane blocked", "lanes", "failed", "local is blocked: Arrearage: pay");
}
