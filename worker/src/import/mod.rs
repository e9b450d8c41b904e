//! `retouch cache import`: results of an older system become cache entries, while both systems run.
//!
//! The older rows are read twice. The first pass judges and counts them, so that an edit with many rows is
//! one entry with the sum of their hits; the second imports each edit at its last row, which is the newest.
//! Every batch is one transaction: an interrupted run is simply run again, and skips finished entries.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use futures::stream::{self, StreamExt};
use retouch_shared::key::{Digest32, EditKey};

use crate::app::App;
use crate::store::older::{Extent, Layout, OlderImage, OlderSystem, Shape};
use crate::store::{Change, ImportEntry, Standing};

mod judge;
mod links;
mod report;

pub use judge::{Rules, Skip};
pub use report::{Merged, PromptExample, Report, Skipped, TakenFor, TodaysRoute};

/// Treatment of older rows' links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// Stored without a check.
    Trust,
    /// Their pictures are copied into our blobs.
    Copy,
    /// Only tested; nothing is written.
    Check,
}

/// Settings of an import.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// Links.
    pub links: Links,
    /// Links followed at a time.
    pub concurrency: usize,
    /// Report without writing.
    pub dry_run: bool,
}

/// Progress of an import.
#[derive(Debug, Clone, Copy)]
pub enum Progress {
    /// Rows to read in total.
    Rows(u64),
    /// Further rows judged.
    Judged(u64),
    /// Entries to import in total.
    Entries(u64),
    /// Further entries done.
    Done(u64),
}

/// An edit of the older rows.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    /// Rows of it that the second pass has not reached.
    left: u64,
    hits: u64,
}

/// One import.
pub struct Import<'a> {
    app: &'a Arc<App>,
    older: &'a OlderSystem,
    layout: &'a Layout,
    rules: Rules<'a>,
    manner: Manner,
    report: Report,
    seen: HashMap<EditKey, Seen>,
    /// The edit of each link of a picture: the first one that names it.
    links: HashMap<Digest32, EditKey>,
}

impl<'a> Import<'a> {
    /// Prepares an import; reads nothing yet.
    pub fn new(
        app: &'a Arc<App>,
        (older, layout): (&'a OlderSystem, &'a Layout),
        rules: Rules<'a>,
        manner: Manner,
    ) -> Self {
        let (report, seen, links) = (Report::default(), HashMap::new(), HashMap::new());
        Self { app, older, layout, rules, manner, report, seen, links }
    }

    /// Runs it.
    ///
    /// # Errors
    /// A database or the blob store is unavailable; finished entries stay.
    pub async fn run(mut self, progress: impl Fn(Progress)) -> Result<Report> {
        let extent = self.older.extent(self.layout).await?;
        progress(Progress::Rows(extent.rows));
        self.count(&extent, &progress).await?;
        progress(Progress::Entries(self.seen.len() as u64));
        self.take_in(&extent, &progress).await?;
        let merged = self.older.merged_prompts(self.layout).await?;
        self.report.merged_prompts = merged.map(Merged::of);
        Ok(self.report)
    }

    /// The first pass.
    async fn count(&mut self, extent: &Extent, progress: &impl Fn(Progress)) -> Result<()> {
        let mut after: Option<String> = None;
        loop {
            let batch = self.older.batch(self.layout, extent, after.as_deref()).await?;
            self.report.rows += batch.rows;
            for image in &batch.images {
                self.report.images += 1;
                let judged = self.judge(image);
                self.report.judged(image, &judged);
                match judged {
                    Ok(entry) => self.count_entry(image, &entry),
                    Err(skip) => self.report.skip(&image.place, &skip),
                }
            }
            progress(Progress::Judged(batch.rows));
            after = match batch.after {
                Some(after) => Some(after),
                None => return Ok(()),
            };
        }
    }

    fn count_entry(&mut self, image: &OlderImage, entry: &ImportEntry) {
        let seen = self.seen.entry(entry.edit_key).or_default();
        seen.left += 1;
        seen.hits = seen.hits.saturating_add(entry.hits);
        // In tables of tasks, repeated edits are normal; a cache has each edit once.
        if seen.left > 1 && self.layout.shape == Shape::Cache {
            self.report.skip(&image.place, &Skip::same_edit(entry));
        }
    }

    /// The entry of a row. A link holds one picture: if two edits of an image name the same link, it belongs
    /// to the first, which the older system served for both.
    fn judge(&mut self, image: &OlderImage) -> Result<ImportEntry, Skip> {
        let entry = self.rules.judge(image)?;
        let link = Digest32::of(format!("{} {}", entry.image_hash, entry.result_url).as_bytes());
        let owner = *self.links.entry(link).or_insert(entry.edit_key);
        if owner != entry.edit_key {
            return Err(Skip::shared_link(&entry));
        }
        Ok(entry)
    }

    /// The second pass.
    async fn take_in(&mut self, extent: &Extent, progress: &impl Fn(Progress)) -> Result<()> {
        let mut after: Option<String> = None;
        loop {
            let batch = self.older.batch(self.layout, extent, after.as_deref()).await?;
            let judged: Vec<_> = batch.images.iter().map(|image| (image, self.judge(image))).collect();
            let mut entries = Vec::new();
            for (image, entry) in judged {
                // The first pass has reported skipped rows.
                let Ok(entry) = entry else { continue };
                // A row that has changed since the first pass is left to the next run.
                let Some(seen) = self.seen.get_mut(&entry.edit_key) else { continue };
                seen.left = seen.left.saturating_sub(1);
                if seen.left == 0 {
                    entries.push((image.place.clone(), ImportEntry { hits: seen.hits, ..entry }));
                    self.seen.remove(&entries[entries.len() - 1].1.edit_key);
                }
            }
            self.apply(entries, progress).await?;
            after = match batch.after {
                Some(after) => Some(after),
                None => return Ok(()),
            };
        }
    }

    async fn apply(
        &mut self,
        entries: Vec<(String, ImportEntry)>,
        progress: &impl Fn(Progress),
    ) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let began = Instant::now();
        let keys: Vec<EditKey> = entries.iter().map(|(_, entry)| entry.edit_key).collect();
        let standing = self.app.store.import_standing(&keys).await?;
        let none = Standing::default();
        let of = |entry: &ImportEntry| standing.get(&entry.edit_key).unwrap_or(&none);
        let follows =
            self.manner.links == Links::Check || (self.manner.links == Links::Copy && !self.manner.dry_run);
        let (wanted, mut ready): (Vec<_>, Vec<_>) =
            entries.into_iter().partition(|(_, entry)| follows && wants_picture(of(entry)));
        progress(Progress::Done(ready.len() as u64));
        let mut dead = Vec::new();
        let (app, links) = (self.app, self.manner.links);
        let mut followed = stream::iter(wanted)
            .map(|(place, entry)| async move {
                let followed = links::follow(app, &entry.result_url, links).await;
                (place, entry, followed)
            })
            .buffer_unordered(self.manner.concurrency);
        while let Some((place, mut entry, followed)) = followed.next().await {
            progress(Progress::Done(1));
            let known = of(&entry).entry.as_ref();
            match followed? {
                Ok(kept) => {
                    self.report.alive += 1;
                    if let Some(kept) = kept {
                        self.report.copied_bytes += kept.bytes;
                        entry.result_url = crate::blobs::reference(kept.hash);
                        entry.result = Some(kept);
                    }
                    ready.push((place, entry));
                }
                Err(skip) => {
                    self.report.skip(&place, &skip);
                    if skip.is_final && known.is_some_and(|known| known.result_url == entry.result_url) {
                        dead.push((entry.edit_key, entry.result_url.clone()));
                    }
                }
            }
        }
        drop(followed);
        let writes = !self.manner.dry_run && links != Links::Check;
        if writes && !dead.is_empty() {
            self.report.removed += self.app.store.drop_dead_links(&dead).await?;
        }
        let changes = if writes {
            let entries: Vec<_> = ready.iter().map(|(_, entry)| entry.clone()).collect();
            self.app.store.import_entries(&entries, began).await?
        } else {
            ready.iter().map(|(_, entry)| self.would_be(of(entry), entry)).collect()
        };
        for ((place, entry), (change, hits)) in ready.iter().zip(changes) {
            self.report.took(place, entry, change, hits);
        }
        Ok(())
    }

    /// The change that an import would make to an entry.
    fn would_be(&self, standing: &Standing, entry: &ImportEntry) -> (Change, u64) {
        let (change, hits) = standing.change(entry);
        let upgrades =
            self.manner.links == Links::Copy && standing.entry.is_some() && wants_picture(standing);
        (if upgrades { Change::Upgraded } else { change }, hits)
    }
}

/// Whether there is no entry yet, or only a link.
fn wants_picture(standing: &Standing) -> bool {
    match &standing.entry {
        Some(known) => !known.is_kept && known.imported_hits.is_some(),
        None => standing.gone.is_none(),
    }
}
