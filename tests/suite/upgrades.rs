//! Schemas and programs of different age: docs/operations.md on upgrading and going back.

use retouch_tests::env::Env;
use retouch_tests::site::{Site, working};
use retouch_tests::tasks::{seed, task};
use serde_json::json;
use sqlx::AssertSqlSafe;

/// As if a newer program had migrated: one version more than this program knows.
const NEWER: &str = "INSERT INTO retouch_migrations (version, description, success, checksum, execution_time) \
                     SELECT version + 1, 'newer', TRUE, checksum, 0 FROM retouch_migrations ORDER BY version DESC LIMIT 1";
const NEWEST: &str = "SELECT MAX(version) FROM retouch_migrations";

#[tokio::test]
async fn a_running_worker_survives_a_migration_of_its_tables() {
    let site = Site::on_servers().await;
    let [worker] = site.workers().await;
    site.execute(NEWER).await;
    site.publish(&task("task", json!({}), &[seed(1)])).await;
    assert_eq!(site.ended("task").await.status, "completed");
    assert!(worker.status().is_none());
}

#[tokio::test]
async fn an_older_program_starts_once_the_newer_version_is_forgotten() {
    let site = Site::on_servers().await;
    let known = site.number(NEWEST).await;
    site.execute(NEWER).await;
    for command in ["worker", "migrate"] {
        let refused = site.program(&[command]).run().await;
        assert!(!refused.status.success());
        assert!(refused.stderr.contains("run a newer `retouch`"), "{command}: {}", refused.stderr);
    }
    site.execute(&format!("DELETE FROM retouch_migrations WHERE version > {known}")).await;
    working(&site.worker().start()).await;
}

#[tokio::test]
async fn migrations_that_were_forgotten_are_passed_over_when_they_come_again() {
    let env = Env::new().await;
    let migrate = async || env.program(&["migrate", "--json"]).run().await;
    assert!(migrate().await.status.success());
    let pool = env.pool().await;
    let newest: i64 = sqlx::query_scalar(NEWEST).fetch_one(&pool).await.unwrap();
    for kept in (1..newest).rev() {
        let forget = format!("DELETE FROM retouch_migrations WHERE version > {kept}");
        sqlx::query(AssertSqlSafe(forget)).execute(&pool).await.unwrap();
        let again = migrate().await;
        assert_eq!(again.stdout.trim(), r#"{"changed":true,"status":"current"}"#, "{kept}: {}", again.stderr);
    }
    working(&env.program(&["worker"]).start()).await;
}
