//! What an import did, for people and programs.

use std::collections::BTreeMap;

use retouch_shared::task::Params;
use serde::Serialize;

use super::Skip;
use super::judge::cut;
use crate::store::older::{MergedPrompts, OlderImage};
use crate::store::{Change, ImportEntry};

/// Examples of each reason.
const EXAMPLES: usize = 3;
/// Prompts of each older edit type that are told.
const PROMPTS: usize = 2;
/// Merged prompts that are told.
const MERGED: usize = 20;

/// What was done, or would be.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Rows that were read.
    pub rows: u64,
    /// Results that they name.
    pub images: u64,
    /// Entries that are new.
    pub new: u64,
    /// Entries whose link's picture is in our blobs now.
    pub upgraded: u64,
    /// Entries whose link leads elsewhere now.
    pub relinked: u64,
    /// Entries that the older system has served more often since.
    pub counted: u64,
    /// Entries that were there as they are.
    pub same: u64,
    /// Entries that were made here, and are better.
    pub made_here: u64,
    /// Entries that were nothing but a link, which is dead now.
    pub removed: u64,
    /// Hits of the older system that were added.
    pub hits_added: u64,
    /// Links that were followed and led to a picture, or to something where they were only tested.
    pub alive: u64,
    /// Of the pictures that were copied.
    pub copied_bytes: u64,
    /// What the rows of each older edit type are taken for.
    pub edit_types: BTreeMap<String, TakenFor>,
    /// By reason.
    pub skipped: BTreeMap<&'static str, Skipped>,
    /// Prompts that the older system could not tell apart; none where no table says which were asked for.
    pub merged_prompts: Option<Merged>,
}

/// What the rows of an older edit type are taken for: the edit that a task with it asks for today.
#[derive(Debug, Default, Serialize)]
pub struct TakenFor {
    /// Today's; none where no row of it can be an entry.
    pub route: Option<TodaysRoute>,
    /// Results that can be entries.
    pub results: u64,
    /// Some of their prompts.
    pub examples: Vec<PromptExample>,
    /// Results that cannot, by reason.
    pub refused: BTreeMap<&'static str, Skipped>,
}

/// An edit type as it is made today.
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

/// A prompt of an older row, and the prompt of the edit that it is taken for.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct PromptExample {
    /// As the row has it.
    pub given: String,
    /// As it goes into the edit key: with the route's text around it.
    pub keyed: String,
}

/// Rows that were skipped for one reason.
#[derive(Debug, Default, Serialize)]
pub struct Skipped {
    /// How many.
    pub count: u64,
    /// Some of them.
    pub examples: Vec<String>,
}

/// See [`MergedPrompts`].
#[derive(Debug, Serialize)]
pub struct Merged {
    /// Prompts that were one prompt with another.
    pub prompts: u64,
    /// The table whose prompts were compared.
    pub table: String,
    /// By which collation.
    pub collation: String,
    /// The characters that the older unique key compares; none: all of them.
    pub characters: Option<u32>,
    /// Groups of them.
    pub groups: usize,
    /// Some of them: edit type, two spellings, how many there are.
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

    /// Notes what a row is taken for, or why it cannot be an entry.
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

    /// How many were skipped for one of these reasons.
    pub fn skipped_for(&self, reasons: &[&str]) -> u64 {
        let of = |reason: &&str| self.skipped.get(*reason).map_or(0, |skipped| skipped.count);
        reasons.iter().map(of).sum()
    }
}
