//! The checks of `retouch doctor`, one file per subject.
//!
//! Invariant: a check pays nothing, leaves nothing behind and reveals no secret. The command ends within 20 s
//! even if servers hang, because subjects run concurrently and every question has a deadline. A check that
//! depends on a failed one is skipped by name, never left out.

use std::time::Duration;

use crate::config::{Parts, shares_a_database};

mod addresses;
mod blobs;
mod broker;
pub(crate) mod database;
mod editors;
mod http;
mod installation;
mod lanes;
mod settings;

/// For one question. No subject asks more than three in a row.
const DEADLINE: Duration = Duration::from_secs(5);

/// Result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Good.
    Good,
    /// Works, but needs attention.
    Warning,
    /// Broken.
    Failed,
    /// Could not be checked, or does not apply.
    Skipped,
}

impl State {
    /// In `--json`.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }

    /// The mark in the terminal.
    pub(crate) const fn mark(self) -> char {
        match self {
            Self::Good => '✓',
            Self::Warning => '!',
            Self::Failed => '✗',
            Self::Skipped => '–',
        }
    }
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Check {
    /// Its name, e.g. `schema`.
    pub(crate) name: String,
    /// Its result.
    pub(crate) state: State,
    /// One sentence.
    pub(crate) detail: String,
    /// The fix, if there is one.
    pub(crate) fix: Option<String>,
}

impl Check {
    fn good(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(name, State::Good, detail, None)
    }

    fn warning(name: impl Into<String>, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(name, State::Warning, detail, Some(fix.into()))
    }

    fn failed(name: impl Into<String>, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(name, State::Failed, detail, Some(fix.into()))
    }

    fn skipped(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(name, State::Skipped, detail, None)
    }

    /// Splits `detail; fix`, as our errors are written, at the colon or semicolon before the fix.
    fn failed_as_told(name: impl Into<String>, told: &str) -> Self {
        let parts = told.rsplit_once("; ").or_else(|| told.rsplit_once(": "));
        match parts {
            Some((detail, fix)) => Self::failed(name, detail, fix),
            None => Self::new(name, State::Failed, told, None),
        }
    }

    fn new(name: impl Into<String>, state: State, detail: impl Into<String>, fix: Option<String>) -> Self {
        // Messages of servers and operating systems may have several lines.
        let one_line = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ");
        Self { name: name.into(), state, detail: one_line(detail.into()), fix: fix.map(one_line) }
    }

    /// Whether its failure is a mistake in the settings.
    pub(crate) fn is_about_settings(&self) -> bool {
        self.name == settings::NAME
    }
}

/// Runs all checks.
pub(crate) async fn examine() -> Vec<Check> {
    let parts = match Parts::load() {
        Ok(parts) => parts,
        Err(error) => return settings::unreadable(&error),
    };
    let mut checks = settings::check(&parts);
    let (database, broker, kept, editors, addresses, http, public_url) = tokio::join!(
        database::check(&parts),
        broker::check(&parts),
        blobs::check(&parts),
        editors::check(&parts),
        addresses::check(&parts),
        http::check(&parts),
        http::public_url(&parts),
    );
    let (database, store) = database;
    let (kept, opened) = kept;
    let (lanes, results, installation) = tokio::join!(
        lanes::check(&parts, store.as_ref()),
        blobs::results(store.as_ref(), opened.as_ref()),
        installation::check(&parts, store.as_ref()),
    );
    checks.extend(database);
    checks.push(lanes);
    checks.extend(broker);
    checks.push(installation);
    checks.extend(kept);
    checks.push(results);
    checks.extend(editors);
    checks.extend(addresses);
    checks.extend([http, public_url].into_iter().flatten());
    checks
}

/// The answer, or `None` after the deadline.
async fn within<T>(question: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(DEADLINE, question).await.ok()
}

fn no_answer() -> String {
    format!("no answer within {} s", DEADLINE.as_secs())
}

/// Worker and producers on RabbitMQ with a SQLite file each: the one combination that only a worker refuses.
fn private_database(parts: &Parts) -> Option<String> {
    let broker = parts.broker.as_ref().ok()?;
    shares_a_database(broker, parts.database_given).err().map(|error| error.to_string())
}
