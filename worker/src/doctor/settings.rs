//! Checks the settings themselves: whether they can be read, exist, and go together.

use anyhow::Error;

use super::{Check, private_database};
use crate::app::open_editors;
use crate::config::Parts;

pub(super) const NAME: &str = "settings";
/// Checks that need readable settings.
const OTHERS: [&str; 8] =
    ["database", "lanes", "broker", "blobs", "editors", "address guard", "http", "public url"];

/// Unreadable settings: a file that is not TOML, an unknown name.
pub(super) fn unreadable(error: &Error) -> Vec<Check> {
    let mut checks = vec![wrong(&format!("{error:#}"))];
    checks.extend(OTHERS.map(|name| Check::skipped(name, "skipped: it needs the settings")));
    checks
}

/// One check for each fault, or one for all settings.
pub(super) fn check(parts: &Parts) -> Vec<Check> {
    let mut wrongs: Vec<String> = parts.faults().iter().map(|error| format!("{error:#}")).collect();
    wrongs.extend(private_database(parts));
    if let (Ok(offer), Ok((public_url, given))) = (&parts.offer, &parts.public_url) {
        let opened = open_editors(offer, given.then_some(public_url));
        wrongs.extend(opened.err().map(|error| format!("{error:#}")));
    }
    if wrongs.is_empty() {
        return vec![Check::good(NAME, "environment and file can be read and go together")];
    }
    wrongs.iter().map(|told| wrong(told)).collect()
}

fn wrong(told: &str) -> Check {
    Check::failed(NAME, told, "README.md lists the settings")
}
