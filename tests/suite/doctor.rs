//! `retouch doctor` on set-ups with one fault each: it names the fault and the fix, still checks everything
//! else, ends in time, reveals no secret and leaves nothing behind.

use std::time::{Duration, Instant};

use retouch_tests::env::Env;
use retouch_tests::program::Program;
use retouch_tests::proxy::Proxy;
use retouch_tests::stand_in::StandIn;
use serde_json::Value;

mod database;
mod editors;
mod own_servers;
mod servers;
mod settings;

/// Its limit even if servers hang.
const AT_MOST: Duration = Duration::from_secs(20);

/// Its report.
struct Report {
    code: i32,
    checks: Vec<Value>,
}

/// Runs `program`, which must be `doctor --json`.
async fn examine(program: Program) -> Report {
    let begun = Instant::now();
    let done = program.run().await;
    let took = begun.elapsed();
    assert!(took < AT_MOST + Duration::from_secs(5), "it took {took:?}");
    let checks = serde_json::from_str(&done.stdout);
    let checks: Vec<Value> = checks.unwrap_or_else(|error| panic!("{error}: {}{}", done.stdout, done.stderr));
    for secret in ["hunter2", StandIn::KEY, "sk-wrong"] {
        assert!(!done.stdout.contains(secret) && !done.stderr.contains(secret), "{}", done.stdout);
    }
    for check in &checks {
        let text = |field: &str| check[field].as_str().unwrap_or_default();
        let state = text("state");
        assert!(!text("check").is_empty() && !text("detail").is_empty(), "{check}");
        assert_eq!(check["fix"].is_string(), state == "failed" || state == "warning", "{check}");
    }
    Report { code: done.status.code().unwrap(), checks }
}

impl Report {
    /// Asserts the state of the check of this name whose detail contains `says`, and prints a line for
    /// docs/operations/doctor.md.
    fn names(&self, fault: &str, name: &str, state: &str, says: &str) {
        let fits = |check: &&Value| {
            check["check"] == name
                && check["state"] == state
                && check["detail"].as_str().is_some_and(|detail| detail.contains(says))
        };
        let Some(check) = self.checks.iter().find(fits) else {
            panic!("{fault}: no {name} that is {state} and says {says:?} in {:#?}", self.checks);
        };
        println!("doctor | {fault} | {state} | {name}: {}; {}", check["detail"], check["fix"]);
        let code = if self.failed().is_empty() {
            0
        } else if self.failed().contains(&"settings") {
            2
        } else {
            3
        };
        assert_eq!(self.code, code, "{fault}");
    }

    /// The names of failed checks.
    fn failed(&self) -> Vec<&str> {
        let failed = self.checks.iter().filter(|check| check["state"] == "failed");
        failed.filter_map(|check| check["check"].as_str()).collect()
    }

    /// The state of a check.
    fn state(&self, name: &str) -> &str {
        let found = self.checks.iter().find(|check| check["check"] == name);
        found.and_then(|check| check["state"].as_str()).unwrap_or("absent")
    }
}

/// On this test's servers.
fn doctor(env: &Env) -> Program {
    env.program(&["doctor", "--json"])
}

/// With the schema that the program needs.
async fn migrated() -> Env {
    let env = Env::new().await;
    let done = env.program(&["migrate"]).run().await;
    assert!(done.status.success(), "{}", done.stderr);
    env
}

#[tokio::test]
async fn a_good_set_up_is_called_good_and_nothing_is_left_behind() {
    let (env, provider) = (migrated().await, StandIn::start().await);
    let with_keys = |program: Program| {
        program
            .env("DASHSCOPE_API_KEY", StandIn::KEY)
            .env("DASHSCOPE_BASE_URL", provider.dashscope_url())
            .env("OPENAI_API_KEY", StandIn::KEY)
            .env("OPENAI_BASE_URL", provider.openai_url())
            .env("RETOUCH_PUBLIC_URL", provider.openai_url())
    };
    let report = examine(with_keys(doctor(&env))).await;
    assert_eq!((report.code, report.failed()), (0, vec![]), "{:#?}", report.checks);
    for name in [
        "settings",
        "database",
        "database version",
        "schema",
        "isolation",
        "sql_mode",
        "character set",
        "max_allowed_packet",
        "clock",
        "database writes",
        "lanes",
        "broker",
        "broker version",
        "queues",
        "broker rights",
        "broker alarms",
        "installation",
        "blobs",
        "editor dashscope",
        "editor openai",
        "address guard",
        "address guard dashscope",
        "http",
        "public url",
    ] {
        assert_eq!(report.state(name), "ok", "{name}: {:#?}", report.checks);
    }
    assert_eq!(report.state("consumer timeout"), "skipped");
    let ledger = provider.ledger();
    assert_eq!((ledger.billed(), ledger.lists), (0, 1), "a question, and no call");
    assert_eq!(env.queues().await, [], "no queue");
    let shelves = std::fs::read_dir(env.folder().join("blobs/sha256")).unwrap();
    let files = shelves.map(|shelf| std::fs::read_dir(shelf.unwrap().path()).unwrap().count()).sum::<usize>();
    assert_eq!(files, 0, "no blob");
    let rows: i64 =
        sqlx::query_scalar("SELECT COUNT(*) FROM suspects").fetch_one(&env.pool().await).await.unwrap();
    assert_eq!(rows, 0, "no row");

    // For people: a line each, with marks, and a sum.
    let text = with_keys(env.program(&["doctor"])).run().await;
    assert!(text.stdout.contains("✓ schema: the database is up to date\n"), "{}", text.stdout);
    assert!(text.stdout.lines().last().unwrap().contains(" 0 wrong, "), "{}", text.stdout);
}

#[tokio::test]
async fn doctor_ends_in_time_when_servers_hang() {
    let env = migrated().await;
    let (database, database_url) = Proxy::before(&env.mysql_url()).await;
    let (broker, broker_url) = Proxy::before(env.amqp_url()).await;
    let provider = StandIn::start().await;
    let (_web, web_url) = {
        let (proxy, url) = Proxy::before(&provider.dashscope_url()).await;
        proxy.stall();
        (proxy, url)
    };
    database.stall();
    broker.stall();
    let program = doctor(&env)
        .env("DATABASE_URL", database_url)
        .env("AMQP_URL", broker_url)
        .env("DASHSCOPE_API_KEY", StandIn::KEY)
        .env("DASHSCOPE_BASE_URL", &web_url)
        .env("RETOUCH_PUBLIC_URL", &web_url)
        .env("RETOUCH_BLOBS", "s3://bucket/prefix")
        .env("AWS_ENDPOINT", web_url.trim_end_matches("/api/v1"))
        .env("AWS_ALLOW_HTTP", "true")
        .env("AWS_ACCESS_KEY_ID", "id")
        .env("AWS_SECRET_ACCESS_KEY", "hunter2");
    let report = examine(program).await;
    assert_eq!(report.code, 3);
    for name in ["database", "broker", "blobs", "editor dashscope"] {
        report.names("nothing answers", name, "failed", "no answer");
    }
    for name in ["schema", "lanes", "queues", "broker rights", "results"] {
        assert_eq!(report.state(name), "skipped", "{name}");
    }
    assert_eq!(report.state("settings"), "ok");
}

#[tokio::test]
async fn on_a_laptop_it_reports_the_applicable_checks() {
    let laptop = retouch_tests::laptop::Laptop::new();
    let report = examine(laptop.retouch(&["doctor", "--json"])).await;
    assert_eq!(report.code, 0, "{:#?}", report.checks);
    report.names("nothing yet", "database", "ok", "it and its folder are made");
    report.names("nothing yet", "broker", "ok", "embedded");
    assert_eq!(laptop.list(".local"), [] as [&str; 0], "nothing was made");
    laptop.picture("cat.png", 1);
    laptop.report(&["edit", "cat.png", "-t", "blur"]).await;
    let report = examine(laptop.retouch(&["doctor", "--json"])).await;
    assert_eq!(report.code, 0, "{:#?}", report.checks);
    report.names("after an edit", "database version", "ok", "SQLite 3.");
    report.names("after an edit", "schema", "ok", "up to date");
    report.names("after an edit", "results", "ok", "the newest 1");
    let check = laptop.retouch(&["topology", "check"]).run().await;
    assert!(check.stdout.contains("there is nothing to compare"), "{}", check.stdout);
}
