//! Forgetting: rows first, so that nothing new can be answered with the picture; then its mentions in tasks; then its blobs.
//!
//! What must stay true: run again after it was broken off, it does what is left. What a task does that is taken in while it runs
//! is as if it had been sent afterwards: intake that holds the picture in memory registers it before the rows go, and then it is
//! among what goes, or after that, and then it was sent again; a picture that it keeps meanwhile is guarded by its mark.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use retouch_shared::event::decimal;
use retouch_shared::key::{Digest32, EditKey, ImageHash};
use serde::Serialize;

use super::drop;
use crate::blobs::Blobs;
use crate::store::{Found, Mentions, Picking, Scrubbed, Store};

/// Edits that are forgotten, and tasks that are rewritten, in one transaction.
const EDITS: usize = 500;
const TASKS: usize = 50;
/// New edits of a picture may be registered while its edits are looked for: it is looked again, so often at most.
const ROUNDS: usize = 5;
/// How long blobs may take that somebody else is deleting.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is to be forgotten.
#[derive(Debug, Clone)]
pub enum Wanted {
    /// One edit.
    Edit(EditKey),
    /// One picture, whatever was made of it.
    Picture(ImageHash),
    /// All pictures of these tasks, and where they came from.
    Tasks {
        /// Their ids.
        ids: BTreeSet<String>,
        /// The pictures that they brought in.
        pictures: BTreeSet<ImageHash>,
    },
}

/// What was forgotten, or would be.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Entries of the cache.
    pub entries: u64,
    /// Bytes of their results.
    pub bytes: u64,
    /// Calls that were waiting to be sent.
    pub calls_not_sent: u64,
    /// Calls that had been sent: paid, their results dropped.
    pub calls_sent: u64,
    /// What those cost, by currency.
    pub paid_in_vain: BTreeMap<String, String>,
    /// Images that were waiting, and failed.
    pub images_failed: u64,
    /// Tasks that ended by it.
    pub tasks_ended: u64,
    /// What was taken out of tasks and their letters.
    pub mentions: Scrubbed,
    /// Dead letters of its calls, discarded.
    pub letters_discarded: u64,
    /// Blobs that are gone.
    pub blobs_deleted: u64,
    /// Blobs that stay, because something else names them.
    pub blobs_kept: u64,
}

impl Report {
    /// Whether there is nothing of it.
    pub fn is_empty(&self) -> bool {
        self.entries + self.calls_not_sent + self.calls_sent + self.mentions.tasks + self.blobs_deleted == 0
    }

    fn add(&mut self, edits: &[Found], paid: &mut BTreeMap<String, i64>) {
        for edit in edits {
            if let Some(entry) = &edit.entry {
                self.entries += 1;
                self.bytes += entry.bytes;
            }
            if edit.sent() {
                self.calls_sent += 1;
                *paid.entry(edit.price.currency.clone()).or_default() += edit.price.micros;
            } else if edit.alive() {
                self.calls_not_sent += 1;
            }
        }
        let paid = paid.iter().filter(|(_, micros)| **micros > 0);
        self.paid_in_vain = paid.map(|(currency, micros)| (currency.clone(), decimal(*micros))).collect();
    }
}

impl Wanted {
    fn picking(&self) -> Picking {
        match self {
            Self::Edit(key) => Picking::Edits([*key].into()),
            Self::Picture(picture) => Picking::Pictures([*picture].into()),
            Self::Tasks { pictures, .. } => Picking::Pictures(pictures.clone()),
        }
    }

    fn mentions(&self) -> Mentions {
        match self {
            Self::Edit(_) => Mentions::default(),
            Self::Picture(picture) => Mentions { pictures: [*picture].into(), ..Mentions::default() },
            Self::Tasks { ids, pictures } => {
                Mentions { pictures: pictures.clone(), tasks: ids.clone(), ..Mentions::default() }
            }
        }
    }
}

/// What would be forgotten; nothing is changed. `looked` is told how many of how many task rows were looked through.
///
/// # Errors
/// The database cannot be asked.
pub async fn preview(store: &Store, wanted: &Wanted, looked: impl Fn(i64, i64)) -> Result<Report> {
    let mut report = Report::default();
    let edits = store.find_edits(&wanted.picking()).await?;
    report.add(&edits, &mut BTreeMap::new());
    let mut mentions = wanted.mentions();
    add_single(&mut mentions, wanted, &edits);
    let last = store.last_task().await?;
    report.mentions.tasks = mentioning(store, &mentions, last, looked).await?.len() as u64;
    let named: BTreeSet<Digest32> = edits.iter().flat_map(Found::blobs).collect();
    report.blobs_deleted = named.len() as u64;
    Ok(report)
}

/// Forgets it. When this returns no row and no blob holds it, and no answer will, unless it was sent again.
///
/// # Errors
/// The database or the blob store cannot be asked; run again it goes on.
pub async fn forget(
    store: &Store,
    blobs: &Blobs,
    wanted: &Wanted,
    looked: impl Fn(i64, i64),
) -> Result<Report> {
    let (mut report, mut paid) = (Report::default(), BTreeMap::new());
    let mut mentions = wanted.mentions();
    let mut named = BTreeSet::new();
    // Kept for a call that never came, or left by an earlier run.
    for picture in &mentions.pictures {
        if blobs.exists(*picture, None).await? {
            named.insert(*picture);
        }
    }
    let mut last = store.last_task().await?;
    for _ in 0..ROUNDS {
        let found = store.find_edits(&wanted.picking()).await?;
        if found.is_empty() {
            break;
        }
        let keys: Vec<EditKey> = found.iter().map(|edit| edit.edit_key).collect();
        for keys in keys.chunks(EDITS) {
            let forgotten = store.forget_edits(keys).await?;
            report.add(&forgotten.edits, &mut paid);
            report.images_failed += forgotten.waited.len() as u64;
            report.tasks_ended += forgotten.ended.len() as u64;
            report.letters_discarded += forgotten.letters;
            named.extend(forgotten.edits.iter().flat_map(Found::blobs));
            add_single(&mut mentions, wanted, &forgotten.edits);
            mentions.waited.extend(forgotten.waited);
            last = last.max(forgotten.last_task);
        }
        if matches!(wanted, Wanted::Edit(_)) {
            break;
        }
    }
    let mut tasks = mentioning(store, &mentions, last, looked).await?;
    tasks.extend(mentions.waited.iter().map(|(task_id, _)| task_id.clone()));
    let tasks: Vec<String> = tasks.into_iter().collect();
    for some in tasks.chunks(TASKS) {
        let scrubbed = store.scrub_tasks(&some.iter().cloned().collect(), &mentions).await?;
        report.mentions.tasks += scrubbed.tasks;
        report.mentions.images += scrubbed.images;
        report.mentions.letters += scrubbed.letters;
    }
    // Once more: an earlier run may have been broken off after the rows went.
    store.drop_blobs(&named).await?;
    until_deleted(store, blobs, &named).await?;
    report.blobs_kept = store.named_blobs(&named).await?.len() as u64;
    report.blobs_deleted = (named.len() as u64).saturating_sub(report.blobs_kept);
    Ok(report)
}

/// A single edit is mentioned where its picture, its operation and its result are.
fn add_single(mentions: &mut Mentions, wanted: &Wanted, edits: &[Found]) {
    if !matches!(wanted, Wanted::Edit(_)) {
        return;
    }
    for edit in edits {
        if let Some(entry) = &edit.entry {
            mentions.edits.insert((edit.image_hash, edit.edit_type.clone(), entry.result_url.clone()));
        }
    }
}

async fn mentioning(
    store: &Store,
    mentions: &Mentions,
    last: i64,
    looked: impl Fn(i64, i64),
) -> Result<BTreeSet<String>> {
    let mut found = mentions.tasks.clone();
    let mut after = Some(0);
    while let Some(from) = after {
        let (some, next) = store.tasks_that_mention(mentions, from, last).await?;
        found.extend(some);
        looked(next.unwrap_or(last), last);
        after = next;
    }
    Ok(found)
}

/// Workers delete marked blobs too: whoever is at it, it is over when none of these is marked.
async fn until_deleted(store: &Store, blobs: &Blobs, named: &BTreeSet<Digest32>) -> Result<()> {
    let began = Instant::now();
    while store.still_dropped(named).await? > 0 {
        if drop::delete_some(store, blobs).await? == 0 {
            ensure!(
                began.elapsed() < PATIENCE,
                "the rows are gone; the blobs are marked to go, and whoever began to delete them has not finished: \
                 the workers go on with it"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    Ok(())
}
