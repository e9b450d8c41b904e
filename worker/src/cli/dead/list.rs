//! `retouch dead list`: what failed, in groups of one cause each.

use clap::Args;
use comfy_table::Table;
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use serde::Serialize;

use super::super::say::say;
use super::super::{Ending, Failure};
use super::pick::{Filter, States};
use super::{json_time, time};
use crate::app::open_store;
use crate::config::Settings;
use crate::store::{Letter, LetterFilter, LetterGroup, Store};
use crate::words::counted;

/// Longest message in a table, in characters.
const WIDE: usize = 70;
/// Letters that are read at a time.
const PAGE: usize = 1000;

/// Show what failed, in groups of one cause each
///
/// Letters of one reason whose messages differ only in ids, numbers, URLs and quoted values are one group, the largest first.
///
/// Example: retouch dead list --since 2h
#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    filter: Filter,
    /// What became of them
    #[arg(long, value_enum, default_value = "open")]
    state: States,
    /// One line a letter instead of groups
    #[arg(long)]
    each: bool,
}

/// A group in `--json`.
#[derive(Serialize)]
struct ShownGroup {
    reason: String,
    message: String,
    count: u64,
    first_at: String,
    last_at: String,
    sample_id: i64,
}

/// A letter in `--json`.
#[derive(Serialize)]
struct ShownLetter {
    id: i64,
    reason: String,
    message: String,
    state: &'static str,
    queue: String,
    edit_type: Option<String>,
    task_id: Option<String>,
    edit_key: Option<String>,
    attempts: u32,
    retries: u32,
    first_at: String,
    last_at: String,
}

impl List {
    pub(super) async fn run(self, settings: &Settings, json: bool) -> Result<Ending, Failure> {
        let store = open_store(settings).await.map_err(Failure::Unreachable)?;
        let filter = self.filter.of(self.state);
        if self.each {
            print_letters(&letters(&store, &filter).await?, json);
        } else {
            let groups = store.letter_groups(&filter).await.map_err(Failure::unreachable)?;
            print_groups(&groups, json);
        }
        store.close().await;
        Ok(Ending::Done)
    }
}

async fn letters(store: &Store, filter: &LetterFilter) -> Result<Vec<Letter>, Failure> {
    let mut letters = Vec::new();
    for ids in store.letter_ids(filter).await.map_err(Failure::unreachable)?.chunks(PAGE) {
        letters.extend(store.letters(ids).await.map_err(Failure::unreachable)?);
    }
    // The newest first: that is what somebody looks for.
    letters.sort_by_key(|letter| std::cmp::Reverse((letter.last_at, letter.id)));
    Ok(letters)
}

fn print_groups(groups: &[LetterGroup], json: bool) {
    if json {
        let shown = groups.iter().map(|group| ShownGroup {
            reason: group.reason.clone(),
            message: group.message.clone(),
            count: group.count,
            first_at: json_time(group.first_at),
            last_at: json_time(group.last_at),
            sample_id: group.sample_id,
        });
        // Plain data always serialises.
        say(serde_json::to_string_pretty(&shown.collect::<Vec<_>>()).unwrap_or_default());
        return;
    }
    if groups.is_empty() {
        say("no dead letters");
        return;
    }
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY);
    table.set_header(["count", "reason", "message", "failed again", "first", "last", "sample"]);
    for group in groups {
        let again = if group.failed_again == 0 { "–".to_owned() } else { group.failed_again.to_string() };
        table.add_row([
            group.count.to_string(),
            group.reason.clone(),
            cut(&group.message),
            again,
            time(group.first_at),
            time(group.last_at),
            group.sample_id.to_string(),
        ]);
    }
    say(table);
    let all: u64 = groups.iter().map(|group| group.count).sum();
    say(format!(
        "{} in {}; `retouch dead show ID` says more, `retouch dead retry --group ID` what a retry would cost",
        counted(all, "letter"),
        counted(groups.len() as u64, "group")
    ));
}

fn print_letters(letters: &[Letter], json: bool) {
    if json {
        let shown = letters.iter().map(|letter| ShownLetter {
            id: letter.id,
            reason: letter.reason.clone(),
            message: letter.message.clone(),
            state: letter.state.as_str(),
            queue: letter.queue.clone(),
            edit_type: letter.edit_type.clone(),
            task_id: letter.task_id.clone(),
            edit_key: letter.edit_key.map(|key| key.to_string()),
            attempts: letter.attempts,
            retries: letter.retries,
            first_at: json_time(letter.first_at),
            last_at: json_time(letter.last_at),
        });
        // Plain data always serialises.
        say(serde_json::to_string_pretty(&shown.collect::<Vec<_>>()).unwrap_or_default());
        return;
    }
    if letters.is_empty() {
        say("no dead letters");
        return;
    }
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY);
    table.set_header(["id", "state", "reason", "message", "edit type", "task", "retries", "last"]);
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "–".to_owned());
    for letter in letters {
        table.add_row([
            letter.id.to_string(),
            letter.state.as_str().to_owned(),
            letter.reason.clone(),
            cut(&letter.message),
            or_dash(&letter.edit_type),
            or_dash(&letter.task_id),
            letter.retries.to_string(),
            time(letter.last_at),
        ]);
    }
    say(table);
}

fn cut(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    match line.char_indices().nth(WIDE) {
        None => line.to_owned(),
        Some((end, _)) => format!("{}…", &line[..end]),
    }
}
