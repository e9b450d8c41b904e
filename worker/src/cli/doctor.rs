//! `retouch doctor`: looks at everything that a worker needs, and says what is wrong and how to mend it.

use clap::Args;
use serde_json::json;

use super::say::say;
use super::{Ending, Failure};
use crate::doctor::{Check, State, examine};

/// Look at everything that a worker needs, and say what is wrong and how to mend it
///
/// Settings, database, broker, blobs, providers, addresses: a line each. It ends within 20 seconds, pays for nothing, and
/// leaves nothing behind. Exit codes: 0 nothing failed (warnings do not count), 2 the settings are off, 3 anything else.
///
/// Example: retouch doctor --json
#[derive(Debug, Args)]
pub(super) struct Doctor {}

impl Doctor {
    pub(super) async fn run(self, json: bool) -> Result<Ending, Failure> {
        let checks = examine().await;
        if json {
            // Plain data always serialises.
            say(serde_json::to_string_pretty(&checks.iter().map(shown).collect::<Vec<_>>())
                .unwrap_or_default());
        } else {
            checks.iter().for_each(|check| say(line(check)));
            say(summary(&checks));
        }
        let failed = |check: &&Check| check.state == State::Failed;
        Ok(match checks.iter().find(failed) {
            None => Ending::Done,
            Some(_) if checks.iter().filter(failed).any(|check| check.is_about_settings()) => Ending::Told(2),
            Some(_) => Ending::Told(3),
        })
    }
}

fn shown(check: &Check) -> serde_json::Value {
    let Check { name, state, detail, fix } = check;
    json!({"check": name, "state": state.word(), "detail": detail, "fix": fix})
}

fn line(check: &Check) -> String {
    let Check { name, state, detail, fix } = check;
    let mark = state.mark();
    match fix {
        Some(fix) => format!("{mark} {name}: {detail}; {fix}"),
        None => format!("{mark} {name}: {detail}"),
    }
}

fn summary(checks: &[Check]) -> String {
    let count = |state| checks.iter().filter(|check| check.state == state).count();
    let (ok, warned) = (count(State::Good), count(State::Warning));
    let (failed, skipped) = (count(State::Failed), count(State::Skipped));
    format!("{ok} good, {warned} to look at, {failed} wrong, {skipped} skipped")
}
