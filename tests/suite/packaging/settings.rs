//! docs/operations.md lists every setting that the program reads, and no other.

use std::collections::BTreeSet;

use retouch_tests::program::Program;

use super::{is_a_setting, known, text};

/// The names in the first column of the table under a heading.
fn listed(page: &str, heading: &str) -> Vec<String> {
    let page = text(page);
    let (_, section) = page.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no {heading}"));
    let section = section.split("\n## ").next().unwrap();
    let cells = section.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    let names = cells.flat_map(|cell| cell.split('`').step_by(2).map(str::to_owned).collect::<Vec<_>>());
    let is_name =
        |name: &String| name.contains('_') && name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
    names.filter(is_name).collect()
}

#[test]
fn the_table_of_settings_lists_exactly_the_programs_settings() {
    let listed = listed("docs/operations.md", "## Settings");
    let names: BTreeSet<_> = listed.iter().cloned().collect();
    assert_eq!(names.len(), listed.len(), "one is listed twice");
    let (aws, ours): (BTreeSet<_>, BTreeSet<_>) =
        names.into_iter().partition(|name| name.starts_with("AWS_"));
    assert_eq!(ours, known());
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_ENDPOINT_URL"] {
        assert!(aws.contains(name), "{name}");
    }
    assert!(aws.iter().all(|name| is_a_setting(name)), "{aws:?}");
}

#[test]
fn the_readme_lists_no_setting_that_there_is_not() {
    let listed = listed("README.md", "## Settings");
    assert!(listed.len() >= 8, "{listed:?}");
    assert!(listed.iter().all(|name| is_a_setting(name)), "{listed:?}");
}

#[tokio::test]
async fn help_names_every_setting() {
    let help = Program::new(&["--help"]).run().await.stdout;
    for name in known().iter().filter(|name| !name.ends_with("_FILE")) {
        assert!(help.contains(name.as_str()), "{name}");
    }
    assert!(help.contains("(or …_FILE"));
}
