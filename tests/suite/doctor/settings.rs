//! Faulty settings, and faults of this machine: folder, port.

use std::net::TcpListener;

use retouch_tests::env::Env;

use super::{doctor, examine};

#[tokio::test]
async fn settings_that_cannot_be_read_or_do_not_go_together_are_named() {
    let env = Env::new().await;
    let file = env.folder().join("retouch.toml");
    let with_file = |text: &str| {
        std::fs::write(&file, text).unwrap();
        doctor(&env).env("RETOUCH_CONFIG", &file)
    };
    let report = examine(with_file("lease_second = 7\n")).await;
    report.names("unknown setting in the file", "settings", "failed", "lease_second: unknown field");
    assert_eq!((report.code, report.state("database")), (2, "skipped"));
    let report = examine(with_file("[lanes.local]\nspeed = 1\n")).await;
    report.names("unknown setting of a lane", "settings", "failed", "lanes.local.speed");
    let report = examine(doctor(&env).env("RETOUCH_LEASE", "7")).await;
    report.names("unknown variable", "settings", "failed", "RETOUCH_LEASE is not a setting");
    // Two at once, and the rest is still checked.
    let program = doctor(&env).env("RETOUCH_HTTP", "8080").env("DASHSCOPE_API_KEY_FILE", "/nowhere/key");
    let report = examine(program).await;
    report.names("HTTP without an address", "settings", "failed", "RETOUCH_HTTP must be ADDRESS:PORT");
    report.names("key file that is not there", "settings", "failed", "DASHSCOPE_API_KEY_FILE: /nowhere/key");
    assert_eq!((report.code, report.state("broker"), report.state("database")), (2, "ok", "ok"));
    assert_eq!(report.state("editors"), "skipped");
}

#[tokio::test]
async fn an_illegal_mix_of_databases_and_brokers_is_named() {
    let env = Env::new().await;
    let report = examine(doctor(&env).without("DATABASE_URL")).await;
    report.names(
        "RabbitMQ with a private SQLite",
        "settings",
        "failed",
        "DATABASE_URL must be set when AMQP_URL is",
    );
    assert_eq!((report.code, report.state("broker")), (2, "ok"));
    let report = examine(doctor(&env).without("AMQP_URL").without("RETOUCH_BLOBS")).await;
    report.names("MySQL without RabbitMQ", "settings", "failed", "AMQP_URL must be set");
    report.names("MySQL without blobs", "settings", "failed", "RETOUCH_BLOBS must be set");
    assert_eq!((report.state("broker"), report.state("database")), ("skipped", "ok"));
}

#[tokio::test]
async fn a_foreign_programs_port_is_named_and_a_workers_is_not() {
    let env = Env::new().await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let report = examine(doctor(&env).env("RETOUCH_HTTP", &address)).await;
    report.names("port taken", "http", "failed", &format!("cannot listen on {address}"));
    // Not given, while services are: they would be told an address of this machine.
    report.names("public URL missing", "public url", "warning", "leads nowhere from other machines");
}

#[tokio::test]
async fn blobs_that_cannot_be_kept_are_named() {
    let env = super::migrated().await;
    // Even root cannot write there.
    let report = examine(doctor(&env).env("RETOUCH_BLOBS", "file:///proc/self")).await;
    report.names("blobs folder not writable", "blobs", "failed", "/proc/self");
    let report = examine(doctor(&env).env("RETOUCH_BLOBS", "file:///proc/nowhere/blobs")).await;
    report.names("blobs folder that cannot be made", "blobs", "failed", "it cannot be made");
    let report =
        examine(doctor(&env).env("RETOUCH_BLOBS", format!("file://{}/new", env.folder().display()))).await;
    report.names("blobs folder that is not there yet", "blobs", "warning", "there is no folder");
    let bucket = doctor(&env)
        .env("RETOUCH_BLOBS", "s3://bucket/prefix")
        .env("AWS_ENDPOINT", "http://127.0.0.1:1")
        .env("AWS_ALLOW_HTTP", "true")
        .env("AWS_ACCESS_KEY_ID", "id")
        .env("AWS_SECRET_ACCESS_KEY", "hunter2");
    let report = examine(bucket).await;
    report.names("S3 endpoint refusing", "blobs", "failed", "s3://bucket/prefix");
    // Another folder than the one that the database's results are in.
    let hash = "a".repeat(64);
    let row = format!(
        "INSERT INTO image_edit_cache (edit_key, image_hash, edit_type, prompt, provider, model, params, result_url, result_hash, \
         content_type, width, height, bytes, price_micros, currency, hit_count, last_hit_at, created_at, updated_at) VALUES \
         (UNHEX(REPEAT('ab', 32)), '{hash}', 'blur', '', 'local', 'local-2', '{{}}', 'x', '{hash}', 'image/png', 1, 1, 1, 0, 'CNY', 1, \
         UTC_TIMESTAMP(3), UTC_TIMESTAMP(3), UTC_TIMESTAMP(3))"
    );
    sqlx::query(sqlx::AssertSqlSafe(row)).execute(&env.pool().await).await.unwrap();
    let report = examine(doctor(&env)).await;
    report.names("another blobs folder", "results", "failed", "none of the newest 1");
}
