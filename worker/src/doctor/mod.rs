//! What `retouch doctor` looks at, a file for each subject.
//!
//! What must stay true: nothing is paid for, nothing is left behind, no secret is told; whatever does not answer, it ends
//! within 20 s, because the subjects are looked at side by side and every question has a deadline; and a check that needs what
//! failed is skipped by name, never left out.

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

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// As it should be.
    Good,
    /// It works, and somebody should look at it.
    Warning,
    /// It does not work.
    Failed,
    /// It could not be looked at, or does not apply.
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

    /// For the eye.
    pub(crate) const fn mark(self) -> char {
        match self {
            Self::Good => '✓',
            Self::Warning => '!',
            Self::Failed => '✗',
            Self::Skipped => '–',
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Check {
    /// What: `schema`.
    pub(crate) name: String,
    /// How it is.
    pub(crate) state: State,
    /// In one sentence.
    pub(crate) detail: String,
    /// What to do, where there is something to do.
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

    /// `detail; fix` as errors of ours say it, with a colon or a semicolon before the fix.
    fn failed_as_told(name: impl Into<String>, told: &str) -> Self {
        let parts = told.rsplit_once("; ").or_else(|| told.rsplit_once(": "));
        match parts {
            Some((detail, fix)) => Self::failed(name, detail, fix),
            None => Self::new(name, State::Failed, told, None),
        }
    }

    fn new(name: impl Into<String>, state: State, detail: impl Into<String>, fix: Option<String>) -> Self {
        // A line is a line, whatever a server or an operating system answers.
        let one_line = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ");
        Self { name: name.into(), state, detail: one_line(detail.into()), fix: fix.map(one_line) }
    }

    /// Whether a failure of it is a mistake in the settings.
    pub(crate) fn is_about_settings(&self) -> bool {
        self.name == settings::NAME
    }
}

/// Looks at everything.
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

/// An answer within the deadline, or none.
async fn within<T>(question: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(DEADLINE, question).await.ok()
}

fn no_answer() -> String {
    format!("no answer within {} s", DEADLINE.as_secs())
}

/// Worker and producers on RabbitMQ with a file of their own each is the one mix that only a worker refuses.
fn private_database(parts: &Parts) -> Option<String> {
    let broker = parts.broker.as_ref().ok()?;
    shares_a_database(broker, parts.database_given).err().map(|error| error.to_string())
}
