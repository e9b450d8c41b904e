//! The report of an import, for people and programs.

use std::collections::BTreeMap;

use retouch_shared::task::Params;
use serde::Serialize;

use super::Skip;
use super::judge::cut;
use crate::store::older::{MergedPrompts, OlderImage};
use crate::store::{Change, ImportEntry};

/// Examples of each reason.
const EXAMPLES: usize = 3;
/// Prompts shown for each older edit type.
const PROMPTS: usize = 2;
/// Merged prompts shown.
const MERGED: usize = 20;

/// The changes, made or simulated.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Rows read.
    pub rows: u64,
    /// Results in them.
    pub images: u64,
    /// New entries.
    pub new: u64,
    /// Entries whose picture was copied into our blobs.
    pub upgraded: u64,
    /// Entries whose link has changed.
    pub relinked: u64,
    /// Entries that the older system has served more often since.
    pub counted: u64,
    /// Unchanged entries.
    pub same: u64,
    /// Entries that were made here, and take precedence.
    pub made_here: u64,
    /// Entries that were only a link, which is dead now.
    pub removed: u64,
    /// Added hits of the older system.
    pub hits_added: u64,
    /// Links that led to a picture, or to any content if they were only tested.
    pub alive: u64,
    /// Bytes of copied pictures.
    pub copied_bytes: u64,
    /// The edit of each older edit type's rows.
    pub edit_types: BTreeMap<String, TakenFor>,
    /// By reason.
    pub skipped: BTreeMap<&'static str, Skipped>,
    /// Prompts that the older system could not tell apart; `None` without a table of requested prompts.
    pub merged_prompts: Option<Merged>,
}

/// The edit of an older edit type's rows: the one that a task with it requests today.
#[derive(Debug, Default, Serialize)]
pub struct TakenFor {
    /// Today's route; `None` if no row of it can be an entry.
    pub route: Option<TodaysRoute>,
    /// Importable results.
    pub results: u64,
    /// Sample prompts.
    pub examples: Vec<PromptExample>,
    /// Other results, by reason.
    pub refused: BTreeMap<&'static str, Skipped>,
}

/// The current route of an edit type.
#[derive(Debug, Serialize)]
pub struct TodaysRoute {
    /// Its name.
    pub edit_type: String,
    /// The provider kind.
    pub editor: String,
    /// The provider's model id.
    pub model: String,
    /// With the route's defaults.
    pub params: Params,
}

/// A prompt of an older row, and the prompt of its edit.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct PromptExample {
    /// The row's prompt.
    pub given: String,
    /// The prompt in the edit key, in the route's template.
    pub keyed: String,
}

/// Rows that were skipped for one reason.
#[derive(Debug, Default, Serialize)]
pub struct Skipped {
    /// Number of rows.
    pub count: u64,
    /// Sample rows.
    pub examples: Vec<String>,
}

/// See [`MergedPrompts`].
#[derive(Debug, Serialize)]
pub struct Merged {
    /// Prompts that equalled another one.
    pub prompts: u64,
    /// The table whose prompts were compared.
    pub table: String,
    /// The collation of the comparison.
    pub collation: String,
    /// The length that the older unique key compares, in characters; `None`: all of them.
    pub characters: Option<u32>,
    /// Groups of equal prompts.
    pub groups: usize,
    /// Sample groups: edit type, two spellings, size.
    pub examples: Vec<(String, String, String, u64)>,
}

impl Merged {
    pub(super) fn of(merged: MergedPrompts) -> Self {
        let MergedPrompts { table, collation, characters, groups } = merged;
        let prompts = groups.iter().map(|group| group.count).sum();
        let count = groups.len();
        let example = |group: crate::store::older::MergedGroup| {
            let [one, other] = group.spellings;
            (group.edit_type, cut(&one), cut(&other), group.count)
        };
        let examples = groups.into_iter().take(MERGED).map(example).collect();
        Self { prompts, table, collation, characters, groups: count, examples }
    }
}

impl TakenFor {
    fn takes(&mut self, prompt: &str, entry: &ImportEntry) {
        self.results += 1;
        self.route.get_or_insert_with(|| TodaysRoute {
            edit_type: entry.edit_type.clone(),
            editor: entry.provider.clone(),
            model: entry.model.clone(),
            params: entry.params.clone(),
        });
        let example = PromptExample { given: cut(prompt), keyed: cut(&entry.prompt) };
        if self.examples.len() < PROMPTS && !self.examples.contains(&example) {
            self.examples.push(example);
        }
    }
}

impl Skipped {
    fn note(&mut self, place: &str, skip: &Skip) {
        self.count += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(format!("{place}: {}", skip.detail));
        }
    }
}

impl Report {
    pub(super) fn skip(&mut self, place: &str, skip: &Skip) {
        self.skipped.entry(skip.reason).or_default().note(place, skip);
    }

    /// Notes the edit of a row, or why it is not an entry.
    pub(super) fn judged(&mut self, image: &OlderImage, judged: &Result<ImportEntry, Skip>) {
        let older = image.edit_type.clone().unwrap_or_default();
        let taken = self.edit_types.entry(older).or_default();
        match judged {
            Ok(entry) => taken.takes(&image.prompt, entry),
            Err(skip) => taken.refused.entry(skip.reason).or_default().note(&image.place, skip),
        }
    }

    pub(super) fn took(&mut self, place: &str, entry: &ImportEntry, change: Change, hits: u64) {
        self.hits_added += hits;
        let gone =
            |reason, what: &str| Skip::new(reason, format!("its entry {} was {what} here", entry.edit_key));
        match change {
            Change::New => self.new += 1,
            Change::Upgraded => self.upgraded += 1,
            Change::Relinked => self.relinked += 1,
            Change::Counted => self.counted += 1,
            Change::Same => self.same += 1,
            Change::MadeHere => self.made_here += 1,
            Change::Forgotten => self.skip(place, &gone("forgotten", "forgotten")),
            Change::Evicted => self.skip(place, &gone("evicted", "evicted")),
        }
    }

    /// Rows skipped for one of these reasons.
    pub fn skipped_for(&self, reasons: &[&str]) -> u64 {
        let of = |reason: &&str| self.skipped.get(*reason).map_or(0, |skipped| skipped.count);
        reasons.iter().map(of).sum()
    }
}
