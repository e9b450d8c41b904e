//! The benchmark in its shortest form: every contender without Python does its work, and the report is
//! complete. It measures nothing; `tests/bench` does, and docs/performance.md has its figures.

use retouch_tests::program::{Program, beside};
use serde_json::Value;

/// The columns of each section.
const SECTIONS: [(&str, usize, &[&str]); 10] = [
    (
        "hits",
        4,
        &[
            "contender",
            "tasks_a_second",
            "tasks",
            "to_floor",
            "to_plain_python",
            "worker_cpu",
            "database_cpu",
            "broker_cpu",
            "pictures_cpu",
        ],
    ),
    ("overhead", 9, &["mode", "in_flight", "most_in_flight", "calls", "median_ms", "p99_ms"]),
    ("latency", 2, &["misses_waiting", "hits", "median_ms", "p99_ms"]),
    ("memory", 3, &["worker", "resident_mib", "cpu_per_cent"]),
    (
        "growth_rows",
        2,
        &["cache_rows", "lookup_of_1_ms", "lookup_of_64_ms", "commit_of_1_ms", "commit_of_64_ms", "sweep_ms"],
    ),
    ("growth_workers", 2, &["workers", "tasks_a_second"]),
    ("growth_images", 2, &["images_a_task", "tasks_a_second", "images_a_second"]),
    ("growth_one_entry", 2, &["workers", "tasks_a_second", "lock_waits_in_1000", "deadlocks"]),
    (
        "designs",
        6,
        &[
            "images",
            "design",
            "asked",
            "lookups",
            "median_ms",
            "p99_ms",
            "hit_rate_per_cent",
            "write_ms",
            "megabytes",
        ],
    ),
    ("load", 6, &["part", "load_before", "load_after", "seconds"]),
];

fn rows<'a>(report: &'a Value, section: &str) -> &'a Vec<Value> {
    report["sections"][section]["rows"].as_array().unwrap_or_else(|| panic!("no section {section}"))
}

#[tokio::test]
async fn every_contender_of_the_benchmark_works_and_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("report.json");
    let program = Program::other(beside("bench"), &["all", "--quick", "--json"]).arg(&file);
    let servers =
        [retouch_tests::env::AMQP_URL, retouch_tests::env::RABBITMQ_HTTP_URL, retouch_tests::env::MYSQL_URL];
    let program =
        servers.iter().fold(program, |program, name| program.env(name, std::env::var(name).unwrap()));
    let running = program.start();
    running.ended().await;
    let status = running.exit().await;
    assert!(status.success(), "{status}\n{}\n{}", running.stdout(), running.stderr());

    let report: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    for (section, count, fields) in SECTIONS {
        let rows = rows(&report, section);
        assert_eq!(rows.len(), count, "{section}: {rows:#?}");
        for row in rows {
            let row = row.as_object().unwrap();
            let mut named: Vec<&str> = row.keys().map(String::as_str).collect();
            let mut wanted = fields.to_vec();
            named.sort_unstable();
            wanted.sort_unstable();
            assert_eq!(named, wanted, "{section}");
        }
    }
    let contenders: Vec<_> =
        rows(&report, "hits").iter().map(|row| row["contender"].as_str().unwrap()).collect();
    assert_eq!(contenders, ["Retouch", "floor", "floor without events", "Retouch × 2"]);
    // The trace repeats pictures at other positions: only some lookups find all of them.
    let rate = |asked: &str| {
        let row = rows(&report, "designs").iter().find(|row| row["asked"] == asked);
        row.unwrap_or_else(|| panic!("nothing is asked {asked}"))["hit_rate_per_cent"].as_f64().unwrap()
    };
    let all = rate("by edit key");
    assert!(all > 0.0);
    for asked in ["JSON_CONTAINS over all rows", "full-text index", "any of eight columns"] {
        assert_eq!(rate(asked), all, "{asked}");
    }
    for asked in ["generated column: first picture only", "the same position's column"] {
        assert!(rate(asked) < all, "{asked}");
    }
    let text = running.stdout();
    for section in ["All-hit tasks", "Overhead", "Resident memory", "Limits"] {
        assert!(text.contains(section), "{text}");
    }
}
