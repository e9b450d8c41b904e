//! Every reason that the program can write says what to do about it, the same in the program and in the docs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use retouch_worker::dead::advice::{ADVICE, fix_for};
use retouch_worker::store::{CANCELLED, FORGOTTEN};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

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

/// What comes before a reason code where one is written down.
const BEFORE: &[&str] = &[
    "code: \"",
    "reason: \"",
    "rejected(\"",
    ".fail(\"",
    "code = \"",
    "=> \"",
    "const POISON: &str = \"",
    "rejected(\n                \"",
];
/// Codes that close a lane, and end no edit; and words that are no reasons.
const NO_REASONS: &[&str] =
    &["budget_spent", "paused", "no_key", "no_api_key", "upload_host", "foreign_host", "result_host"];

/// The codes in the files that write reasons, those of the test double and of tests left out.
fn codes() -> BTreeSet<String> {
    let mut files = Vec::new();
    for folder in ["sources", "edit", "editor", "config", "routes", "intake"] {
        sources(&root().join("worker/src").join(folder), &mut files);
    }
    for file in
        ["worker/src/intake.rs", "worker/src/suspects.rs", "worker/src/media.rs", "shared/src/task.rs"]
    {
        files.push(root().join(file));
    }
    let mut codes = BTreeSet::new();
    for file in files
        .iter()
        .filter(|file| !file.display().to_string().contains("tests") && !file.ends_with("double.rs"))
    {
        let text = std::fs::read_to_string(file).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        // The provider's own words, classified there.
        let words_of_others = file.ends_with("errors.rs") || file.ends_with("models.rs");
        for before in BEFORE.iter().filter(|before| **before != "=> \"" || !words_of_others) {
            for (at, _) in code.match_indices(before) {
                let rest = &code[at + before.len()..];
                let word = rest.split('"').next().unwrap_or_default();
                let is_code = word.contains(|c: char| c == '_' || c.is_ascii_lowercase())
                    && word.len() > 3
                    && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
                // A word that something else is called by stands alone; codes are told by who returns them.
                let told = *before != "=> \"" || in_code_function(code, at);
                if is_code && told {
                    codes.insert(word.to_owned());
                }
            }
        }
    }
    codes
}

/// Whether a place is in a function that returns reason codes.
fn in_code_function(code: &str, at: usize) -> bool {
    let before = code[..at].rfind("fn ").map_or("", |start| &code[start..at]);
    before.starts_with("fn code(") || before.starts_with("fn reason(")
}

#[test]
fn every_reason_that_the_program_can_write_has_advice() {
    let known: BTreeSet<&str> = ADVICE.iter().map(|advice| advice.reason).collect();
    assert_eq!(known.len(), ADVICE.len(), "a reason has two advices");
    let codes = codes();
    assert!(codes.len() > 20, "the search itself finds nothing: {codes:?}");
    let missing: Vec<_> = codes
        .iter()
        .filter(|code| !known.contains(code.as_str()) && !NO_REASONS.contains(&code.as_str()))
        .collect();
    assert!(missing.is_empty(), "no advice for {missing:?}");
    // What the broker says, and what producers are told.
    for reason in ["delivery_limit", "expired", "rejected", "maxlen", "unknown", "poison", "ambiguous"] {
        assert!(known.contains(reason), "{reason}");
    }
    let contract = std::fs::read_to_string(root().join("docs/contract.md")).unwrap();
    let table = contract.split("### Error codes of images").nth(1).unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    for code in rows.flat_map(|row| row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2)) {
        // A person's wish is no failure.
        assert!(
            known.contains(code) || [CANCELLED, FORGOTTEN].contains(&code),
            "{code} of docs/contract.md has no advice"
        );
    }
}

#[test]
fn the_docs_say_about_every_reason_what_the_program_says() {
    let docs = std::fs::read_to_string(root().join("docs/operations/dead-letters.md")).unwrap();
    for advice in ADVICE {
        let row = format!("| `{}` | {} |", advice.reason, advice.fix);
        assert!(docs.contains(&row), "docs/operations/dead-letters.md lacks:\n{row}");
    }
    assert!(fix_for("DataInspectionFailed").contains("the provider's own word"));
}
