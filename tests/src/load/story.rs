//! The log of one task, from its message to its event, found as a person finds it: by its id, and by the keys of its edits.

use std::collections::BTreeSet;

use serde_json::Value;

/// How many tasks are looked at: the log of one whose worker died is no good example.
const LOOK_AT: usize = 50;

/// The log of one of these tasks, from the middle on the first whose message and event are in it.
pub(super) fn story(said: &[String], ids: &[String]) -> Vec<String> {
    let search = |id: &String| {
        let mut lines: BTreeSet<&str> = with(said, id).into_iter().collect();
        let keys: BTreeSet<String> = lines.iter().filter_map(|line| edit_key(line)).collect();
        keys.iter().for_each(|key| lines.extend(with(said, key)));
        let told = |part: &str| lines.iter().any(|line| line.contains(part));
        let whole = told("task taken in") && told("the picture is there") && told("event sent");
        // Each line begins with its time.
        whole.then(|| lines.into_iter().map(str::to_owned).collect())
    };
    ids[ids.len() / 2..].iter().take(LOOK_AT).find_map(search).unwrap_or_default()
}

fn with<'a>(said: &'a [String], part: &str) -> Vec<&'a str> {
    said.iter().flat_map(|said| said.lines()).filter(|line| line.contains(part)).collect()
}

fn edit_key(line: &str) -> Option<String> {
    let line: Value = serde_json::from_str(line).ok()?;
    line["edit_key"].as_str().map(str::to_owned)
}
