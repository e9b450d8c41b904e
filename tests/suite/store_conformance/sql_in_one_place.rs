//! Statements stay together, one file a dialect; and time is the database's.

use std::path::{Path, PathBuf};

/// Where SQL may be: the store, and the embedded broker, which lives in the same file as the SQLite store.
const ALLOWED: &[&str] = &["worker/src/store/", "worker/src/broker/embedded"];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// What of a statement is in this line.
fn statement(line: &str) -> Option<&'static str> {
    let code = line.trim_start();
    if code.starts_with("//") {
        return None;
    }
    let words: Vec<_> =
        code.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|w| !w.is_empty()).collect();
    let follows = |first: &str, second: &str| {
        let next = |at: usize| words.get(at + 1).is_some_and(|word| *word == second);
        words.iter().enumerate().any(|(at, word)| *word == first && next(at))
    };
    let update = words.iter().position(|word| *word == "UPDATE");
    if words.contains(&"SELECT") {
        Some("SELECT")
    } else if follows("INSERT", "INTO") {
        Some("INSERT INTO")
    } else if follows("DELETE", "FROM") {
        Some("DELETE FROM")
    } else if update.is_some_and(|at| words[at..].contains(&"SET")) {
        Some("UPDATE … SET")
    } else {
        None
    }
}

#[test]
fn there_is_no_sql_outside_the_store() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut files = Vec::new();
    for folder in ["worker/src", "shared/src"] {
        sources(&root.join(folder), &mut files);
    }
    let mut strays = Vec::new();
    let mut statements = 0;
    for file in files {
        let name = file.strip_prefix(root).unwrap().display().to_string();
        for (number, line) in std::fs::read_to_string(&file).unwrap().lines().enumerate() {
            match statement(line) {
                Some(_) if ALLOWED.iter().any(|allowed| name.starts_with(allowed)) => statements += 1,
                Some(what) => strays.push(format!("{name}:{}: {what}", number + 1)),
                None => {}
            }
        }
    }
    assert!(strays.is_empty(), "SQL outside the store:\n{}", strays.join("\n"));
    assert!(statements > 20, "the search itself finds nothing");
}

/// Where a worker may look at its own clock, and why an hour more or less does no harm there.
const CLOCKS: &[(&str, &str)] = &[
    (
        "worker/src/editor/http.rs",
        "reads a Retry-After that is a date, where the answer has no date of its own; clamped",
    ),
    ("worker/src/metrics/recorder.rs", "says to Prometheus when the process began"),
    ("worker/src/broker/supervise.rs", "says to people since when a consumer is lost"),
    ("worker/src/doctor/database/facts.rs", "compares it with the database's, and tells people"),
    (
        "worker/src/blobs/incoming.rs",
        "finds files that were begun a day ago and never finished; nothing names them",
    ),
    (
        "worker/src/blobs/mod.rs",
        "finds blobs that nothing names for a week at least; whether one may go is decided by rows and marks",
    ),
    ("worker/src/editor/double.rs", "the test double, which no release has"),
];

/// So a worker whose clock is an hour off claims, renews, sweeps and spends like any other.
#[test]
fn no_lease_and_no_limit_depends_on_the_clock_of_a_worker() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut files = Vec::new();
    sources(&root.join("worker/src"), &mut files);
    let mut found: Vec<String> = Vec::new();
    for file in files {
        let name = file.strip_prefix(root).unwrap().display().to_string();
        let text = std::fs::read_to_string(&file).unwrap();
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let reads = |line: &str| {
            ["Utc::now", "Local::now", "SystemTime::now"].iter().any(|clock| line.contains(clock))
        };
        if !name.contains("tests") && code.filter(|line| reads(line)).count() > 0 {
            found.push(name);
        }
    }
    found.sort();
    let mut known: Vec<_> = CLOCKS.iter().map(|(file, _)| (*file).to_owned()).collect();
    known.sort();
    assert_eq!(found, known, "a clock is read elsewhere, or no longer");
}
