//! Which letters a command is about: by id, by group, or by filter.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use chrono::{DateTime, NaiveDate, NaiveDateTime, Utc};
use clap::{Args, ValueEnum};

use super::super::Failure;
use super::no_letter;
use crate::store::{LetterFilter, LetterState, Since, Store};

/// What is left out does not matter.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Filter {
    /// Only with this reason code
    #[arg(long, value_name = "REASON")]
    pub(super) reason: Option<String>,
    /// Only of this edit type
    #[arg(long, value_name = "TYPE")]
    pub(super) edit_type: Option<String>,
    /// Only what failed since then: 30m, 2h, 3d, or a time such as 2026-11-23T08:00:00Z
    #[arg(long, value_name = "WHEN", value_parser = since)]
    pub(super) since: Option<Since>,
    /// Only what concerns this task
    #[arg(long, value_name = "TASK_ID")]
    pub(super) task: Option<String>,
}

/// What became of the letters that are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum States {
    Open,
    Retried,
    Discarded,
    All,
}

impl States {
    fn states(self) -> &'static [LetterState] {
        match self {
            // Whoever is sending it again may have died: until it is sent it is open.
            Self::Open => &[LetterState::Open, LetterState::Retrying],
            Self::Retried => &[LetterState::Retried],
            Self::Discarded => &[LetterState::Discarded],
            Self::All => &LetterState::ALL,
        }
    }
}

impl Filter {
    pub(super) fn of(&self, states: States) -> LetterFilter {
        LetterFilter {
            reason: self.reason.clone(),
            edit_type: self.edit_type.clone(),
            since: self.since,
            task: self.task.clone(),
            ..LetterFilter::of(states.states())
        }
    }
}

/// Which open letters to decide about.
#[derive(Debug, Args)]
pub(super) struct Pick {
    /// Letters by their ids
    #[arg(value_name = "ID")]
    ids: Vec<i64>,
    #[command(flatten)]
    filter: Filter,
    /// Only of the group of this message, as `retouch dead list` shows it
    #[arg(long, value_name = "TEXT")]
    message: Option<String>,
    /// All that are of the same group as this letter
    #[arg(long, value_name = "ID", conflicts_with_all = ["reason", "message"])]
    group: Option<i64>,
    /// All open letters
    #[arg(long, conflicts_with_all = ["ids", "group"])]
    all: bool,
}

impl Pick {
    /// The letters' ids. Those that were named are taken as they are, so that it can be said why one is no longer open.
    pub(super) async fn ids(&self, store: &Store) -> Result<Vec<i64>, Failure> {
        let Filter { reason, edit_type, since, task } = &self.filter;
        let filtered =
            [reason, edit_type, task, &self.message].iter().any(|set| set.is_some()) || since.is_some();
        if !self.ids.is_empty() {
            if filtered || self.group.is_some() {
                return Err(Failure::Usage(anyhow::anyhow!("give either ids or a filter, not both")));
            }
            return self.named(store).await;
        }
        if !filtered && self.group.is_none() && !self.all {
            let which = "which letters? Give their ids, --group ID, a filter such as --reason, or --all";
            return Err(Failure::Usage(anyhow::anyhow!(which)));
        }
        let mut filter = self.filter.of(States::Open);
        filter.group.clone_from(&self.message);
        if let Some(id) = self.group {
            let sample = store.letters(&[id]).await.map_err(Failure::unreachable)?.pop();
            let sample = sample.ok_or_else(|| no_letter(id))?;
            filter.reason = Some(sample.reason);
            filter.group = Some(sample.message);
        }
        store.letter_ids(&filter).await.map_err(Failure::unreachable)
    }

    async fn named(&self, store: &Store) -> Result<Vec<i64>, Failure> {
        let mut ids = self.ids.clone();
        ids.sort_unstable();
        ids.dedup();
        let found = store.letters(&ids).await.map_err(Failure::unreachable)?;
        match ids.iter().find(|id| !found.iter().any(|letter| letter.id == **id)) {
            Some(id) => Err(no_letter(*id)),
            None => Ok(ids),
        }
    }
}

/// A duration before now, or a time.
pub(crate) fn since(text: &str) -> Result<Since> {
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Ok(Since::At(at.with_timezone(&Utc)));
    }
    for format in ["%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"] {
        if let Ok(at) = NaiveDateTime::parse_from_str(text, format) {
            return Ok(Since::At(at.and_utc()));
        }
    }
    if let Some(at) =
        NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().and_then(|day| day.and_hms_opt(0, 0, 0))
    {
        return Ok(Since::At(at.and_utc()));
    }
    let wrong = "must be a duration such as 30m, 2h or 3d, or a time such as 2026-11-23T08:00:00Z (UTC)";
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).context(wrong)?;
    let number: u64 = number.parse().ok().context(wrong)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        _ => bail!(wrong),
    };
    let seconds = number.checked_mul(seconds).filter(|seconds| *seconds < 1 << 33).context(wrong)?;
    Ok(Since::Ago(Duration::from_secs(seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_duration_or_a_time() {
        for (text, ago) in [("90s", 90), ("30m", 1800), ("2h", 7200), ("3d", 259_200), ("1w", 604_800)] {
            assert_eq!(since(text).unwrap(), Since::Ago(Duration::from_secs(ago)), "{text}");
        }
        for (text, at) in [
            ("2026-11-23T08:00:00Z", "2026-11-23T08:00:00Z"),
            ("2026-11-23T10:00:00+02:00", "2026-11-23T08:00:00Z"),
            ("2026-11-23 08:00", "2026-11-23T08:00:00Z"),
            ("2026-11-23", "2026-11-23T00:00:00Z"),
        ] {
            assert_eq!(since(text).unwrap(), Since::At(at.parse().unwrap()), "{text}");
        }
        for text in ["", "2", "h", "2y", "-2h", "yesterday", "é", "99999999999999d"] {
            assert!(since(text).is_err(), "{text}");
        }
    }
}
