//! One run of the parts that were asked for, and its report.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::Row as _;

use super::plan::{Part, Plan};
use super::report::{Cell, Report, Section};
use super::{costs, designs, growth, hits, latency, memory, overhead};
use crate::env::Env;
use crate::wait;

/// Runs it.
pub async fn run(plan: &Plan) -> Report {
    let begun = Instant::now();
    let mut report = Report::default();
    machine(plan, &mut report).await;
    let mut loads = Section::new("load", "The machine's load in the last minute, before and after each part");
    for part in &plan.parts {
        say(&format!("{}…", part.name()));
        let (before, began) = (costs::load(), Instant::now());
        measure(*part, plan, &mut report).await;
        loads.rows.push(vec![
            ("part", Cell::Text(part.name().to_owned())),
            ("load_before", Cell::Number(before)),
            ("load_after", Cell::Number(costs::load())),
            ("seconds", Cell::Number(began.elapsed().as_secs_f64())),
        ]);
        say(&format!("{}: {:.0} s", part.name(), began.elapsed().as_secs_f64()));
    }
    report.sections.push(loads);
    report.machine.insert("seconds".to_owned(), json!(begun.elapsed().as_secs()));
    report
}

async fn measure(part: Part, plan: &Plan, report: &mut Report) {
    match part {
        Part::Hits => hits::measure(plan, report).await,
        Part::Overhead => overhead::measure(plan, report).await,
        Part::Latency => latency::measure(plan, report).await,
        Part::Memory => memory::measure(plan, report).await,
        Part::Growth => growth::measure(plan, report).await,
        Part::Designs => designs::measure(plan, report).await,
    }
}

/// The machine, its versions and its load.
async fn machine(plan: &Plan, report: &mut Report) {
    let env = Env::new().await;
    let settings = "SELECT VERSION(), CAST(@@innodb_flush_log_at_trx_commit AS CHAR), CAST(@@innodb_buffer_pool_size DIV 1048576 AS CHAR)";
    let row = sqlx::query(settings).fetch_one(&env.pool().await).await.unwrap();
    let broker = env.management().call(reqwest::Method::GET, &["overview"], "").await.unwrap();
    let broker: Value = serde_json::from_str(&broker).unwrap();
    let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let (processors, memory) = (text("/proc/cpuinfo"), text("/proc/meminfo"));
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split(':').nth(1).unwrap_or_default().trim().to_owned()
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    let facts = json!({
        "processor": field(&processors, "model name"), "cores": cores, "memory": field(&memory, "MemTotal"),
        "mariadb": row.get::<String, _>(0), "innodb_flush_log_at_trx_commit": row.get::<String, _>(1),
        "buffer_pool_mib": row.get::<String, _>(2), "rabbitmq": broker["rabbitmq_version"], "build": build,
        "rounds": plan.rounds, "quick": plan.quick, "at": chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
    });
    assert_eq!(facts["innodb_flush_log_at_trx_commit"], "1", "commits must be durable");
    report.machine = facts.as_object().cloned().unwrap_or_default();
}

/// Reports progress.
pub fn say(line: &str) {
    eprintln!("bench: {line}");
}

/// Long enough for any wait here, on a busy machine.
pub const LONG: Duration = Duration::from_secs(300);

/// Waits until no work of Retouch is left: events sent, messages acknowledged.
pub async fn settled(env: &Env) {
    let mut left = String::new();
    let clean = wait::poll(LONG, async || {
        left = env.leftovers().await;
        left.is_empty().then_some(())
    });
    assert!(clean.await.is_some(), "left behind: {left}");
}
