//! The settings by themselves: whether they can be read, exist, and go together.

use anyhow::Error;

use super::{Check, private_database};
use crate::app::open_editors;
use crate::config::Parts;

pub(super) const NAME: &str = "settings";
/// All that is looked at with settings that can be read.
const OTHERS: [&str; 8] =
    ["database", "lanes", "broker", "blobs", "editors", "address guard", "http", "public url"];

/// Nothing of them can be read: a file that is not TOML, a name that is none.
pub(super) fn unreadable(error: &Error) -> Vec<Check> {
    let mut checks = vec![wrong(&format!("{error:#}"))];
    checks.extend(OTHERS.map(|name| Check::skipped(name, "skipped: it needs the settings")));
    checks
}

/// A line for each that is wrong, or one for all.
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
