//! What sending letters again would come to, without sending them: which images are hits by now, which would be paid for, and
//! about how much.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use anyhow::Result;
use retouch_shared::event::{ImageStatus, decimal};
use retouch_shared::key::{EditIdentity, EditKey};
use retouch_shared::task::{Source, Task};
use serde::Serialize;

use super::advice;
use super::gone::gone_blobs;
use super::letter::{decoded, payloads};
use super::send::{cannot, routes};
use crate::app::App;
use crate::store::{EditRetry, IMAGES, Letter, LetterCall, Money, TaskRecord};
use crate::suspects::POISON;

/// Letters looked at together.
const BATCH: usize = 200;

/// What a retry would come to.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Preview {
    /// Letters that would be sent again.
    pub(crate) letters: u64,
    /// Images that they are about.
    pub(crate) images: u64,
    /// Images that are hits by now.
    pub(crate) free_hits: u64,
    /// Images whose edit costs nothing: it is made here.
    pub(crate) free_local: u64,
    /// Images that are answered by a call that is under way, or is counted for another image.
    pub(crate) free_shared: u64,
    /// Images whose source has to be loaded before anything is known; paid at most, and counted as such below.
    pub(crate) unknown: u64,
    /// Calls that would be paid, by model and currency.
    pub(crate) paid: Vec<Paid>,
    /// Calls among them whose answer was kept: it is read again first, free, and only what still cannot be
    /// read is sent again.
    pub(crate) kept_answers: u64,
    /// Calls among them that ask for what was paid for again first, free, and pay again only if the provider
    /// no longer has it.
    pub(crate) paid_results: u64,
    /// Calls among them that may have been paid before.
    pub(crate) possible_duplicates: u64,
    /// Letters about which nothing is left to do: their images were answered meanwhile.
    pub(crate) nothing_left: u64,
    /// Letters that fail again as long as nothing else was changed.
    pub(crate) fails_again: BTreeMap<String, u64>,
    /// Letters that cannot be sent again, by why.
    pub(crate) cannot: BTreeMap<&'static str, u64>,
}

/// Calls of one model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Paid {
    pub(crate) model: String,
    pub(crate) calls: u64,
    /// Decimal text.
    pub(crate) cost: String,
    pub(crate) currency: String,
    /// Of these calls, those that may turn out to be hits.
    pub(crate) at_most: u64,
    /// Of these calls, those that may have been paid already.
    pub(crate) possible_duplicates: u64,
    /// What those may cost a second time, as decimal text.
    pub(crate) possibly_twice: String,
}

/// Sums while letters are looked at.
#[derive(Default)]
struct Sums {
    preview: Preview,
    /// Whether each call is paid without a question for what was paid before.
    anew: bool,
    /// Calls that are counted: each edit is paid for once.
    counted: HashSet<EditKey>,
    /// By model and currency.
    by_model: BTreeMap<(String, String), Sum>,
}

/// Calls of one model.
#[derive(Default)]
struct Sum {
    calls: u64,
    /// Those that may turn out to be hits.
    at_most: u64,
    micros: i64,
    possible_duplicates: u64,
    twice_micros: i64,
}

/// Looks at letters without changing anything; `anew` as in [`send`](super::send).
///
/// # Errors
/// The store or the blob store cannot be asked.
pub(crate) async fn preview(app: &App, ids: &[i64], anew: bool) -> Result<Preview> {
    let mut sums = Sums { anew, ..Sums::default() };
    for ids in ids.chunks(BATCH) {
        let letters = app.store.letters(ids).await?;
        let (mut edits, mut messages) = (Vec::new(), Vec::new());
        for letter in &letters {
            if let Some(why) = cannot(app, letter) {
                *sums.preview.cannot.entry(why).or_default() += 1;
            } else if let Some(retry) = EditRetry::of(letter) {
                edits.push(retry);
            } else {
                messages.push(letter);
            }
        }
        sums.edits(app, &edits).await?;
        for messages in messages.chunks(BATCH / 4) {
            sums.messages(app, messages).await?;
        }
    }
    let paid = sums.by_model.into_iter().map(|((model, currency), sum)| Paid {
        model,
        calls: sum.calls,
        cost: decimal(sum.micros),
        currency,
        at_most: sum.at_most,
        possible_duplicates: sum.possible_duplicates,
        possibly_twice: decimal(sum.twice_micros),
    });
    sums.preview.paid = paid.collect();
    Ok(sums.preview)
}

impl Sums {
    async fn edits(&mut self, app: &App, edits: &[EditRetry]) -> Result<()> {
        let keys: Vec<EditKey> = edits.iter().map(|retry| retry.edit_key).collect();
        let calls = app.store.calls_of_letters(&keys).await?;
        let routes = routes(app, &calls);
        let calls: HashMap<EditKey, LetterCall> =
            calls.into_iter().map(|call| (call.edit_key, call)).collect();
        let hits = hits(app, &keys).await?;
        let ids: BTreeSet<&str> = edits.iter().flat_map(|retry| &retry.tasks).map(String::as_str).collect();
        let tasks = app.store.tasks_of_letters(&ids).await?;
        let tasks: HashMap<&str, &TaskRecord> =
            tasks.iter().map(|task| (task.task_id.as_str(), task)).collect();
        for retry in edits {
            let Some(call) = calls.get(&retry.edit_key) else {
                *self.preview.cannot.entry("its call is not in the database any more").or_default() += 1;
                continue;
            };
            let tasks = retry.tasks.iter().filter_map(|id| tasks.get(id.as_str()));
            let failed = tasks.flat_map(|task| &task.images).filter(|image| {
                image.status == ImageStatus::Failed && image.image_hash == Some(call.image_hash)
            });
            let images = failed.count() as u64;
            self.preview.letters += 1;
            self.preview.images += images;
            if images == 0 {
                self.preview.nothing_left += 1;
                continue;
            }
            if hits.contains(&retry.edit_key) {
                self.preview.free_hits += images;
                continue;
            }
            let price = routes.get(&retry.edit_key).map_or(&call.price, |(_, price)| price);
            let first = self.pay(retry.edit_key, &call.model, price, images, call.alive);
            if first && call.paid_result && !self.anew {
                self.preview.paid_results += 1;
                self.maybe_free(&call.model, &price.currency);
            } else if first && call.answer && !call.paid_result {
                self.preview.kept_answers += 1;
                self.maybe_free(&call.model, &price.currency);
            }
            if first && call.may_be_paid(retry) {
                self.preview.possible_duplicates += 1;
                let sum = self.by_model.entry((call.model.clone(), price.currency.clone())).or_default();
                sum.possible_duplicates += 1;
                sum.twice_micros += price.micros;
            }
        }
        Ok(())
    }

    /// Images of one edit that is no hit; whether they have a call of their own that costs something.
    fn pay(&mut self, key: EditKey, model: &str, price: &Money, images: u64, alive: bool) -> bool {
        let first = !alive && price.micros > 0 && self.counted.insert(key);
        let free =
            if price.micros > 0 { &mut self.preview.free_shared } else { &mut self.preview.free_local };
        *free += images - u64::from(first);
        if first {
            let sum = self.by_model.entry((model.to_owned(), price.currency.clone())).or_default();
            sum.calls += 1;
            sum.micros += price.micros;
        }
        first
    }

    /// The call that was counted last may cost nothing.
    fn maybe_free(&mut self, model: &str, currency: &str) {
        if let Some(sum) = self.by_model.get_mut(&(model.to_owned(), currency.to_owned())) {
            sum.at_most += 1;
        }
    }

    async fn messages(&mut self, app: &App, letters: &[&Letter]) -> Result<()> {
        let payloads = payloads(app, letters).await?;
        let ids: BTreeSet<&str> = letters.iter().filter_map(|letter| letter.task_id.as_deref()).collect();
        let known = app.store.tasks_of_letters(&ids).await?;
        let known: HashMap<&str, &TaskRecord> =
            known.iter().map(|task| (task.task_id.as_str(), task)).collect();
        for letter in letters {
            let Some(payload) = payloads.get(&letter.id) else {
                *self.preview.cannot.entry("its payload is gone from the blob store").or_default() += 1;
                continue;
            };
            self.preview.letters += 1;
            if advice::fails_again(&letter.reason) {
                *self.preview.fails_again.entry(letter.reason.clone()).or_default() += 1;
                continue;
            }
            let Some(task) = decoded(payload) else { continue };
            let known = letter.task_id.as_deref().and_then(|id| known.get(id)).copied();
            let Some(positions) = asked_for(letter, &task, known) else {
                self.preview.nothing_left += 1;
                continue;
            };
            self.task(app, letter, &task, &positions).await?;
        }
        Ok(())
    }

    async fn task(&mut self, app: &App, letter: &Letter, task: &Task, positions: &[usize]) -> Result<()> {
        self.preview.images += positions.len() as u64;
        let Ok(route) = app.settings.offer.resolve(&task.edit_type, task.model.as_deref()) else {
            // It fails again here; a worker may know better.
            self.preview.unknown += positions.len() as u64;
            return Ok(());
        };
        let mut keys = Vec::new();
        for position in positions {
            let key = match task.images.get(*position) {
                // Whatever it kills must not kill this.
                Some(source) if letter.reason != POISON => key_of(app, task, source).await,
                _ => None,
            };
            keys.push(key);
        }
        let hits = hits(app, &keys.iter().flatten().copied().collect::<Vec<_>>()).await?;
        for key in keys {
            match key {
                Some(key) if hits.contains(&key) => self.preview.free_hits += 1,
                Some(key) => drop(self.pay(key, &route.model, &route.price, 1, false)),
                None if route.price.micros == 0 => self.preview.unknown += 1,
                None => {
                    self.preview.unknown += 1;
                    let model = (route.model.clone(), route.price.currency.clone());
                    let sum = self.by_model.entry(model).or_default();
                    sum.calls += 1;
                    sum.at_most += 1;
                    sum.micros += route.price.micros;
                }
            }
        }
        Ok(())
    }
}

/// The images that would be worked on; none where the task has no use for the message any more.
fn asked_for(letter: &Letter, task: &Task, known: Option<&TaskRecord>) -> Option<Vec<usize>> {
    let Some(known) = known else { return Some((0..task.images.len()).collect()) };
    let images = letter.headers.get(IMAGES)?;
    let named: Vec<usize> = images.split(',').filter_map(|at| at.parse().ok()).collect();
    let failed = known.images.iter().filter(|image| image.status == ImageStatus::Failed);
    let positions: Vec<usize> =
        failed.map(|image| image.position as usize).filter(|at| named.contains(at)).collect();
    (!positions.is_empty()).then_some(positions)
}

/// The edit key of a picture that is at hand: in the message, or among our blobs. Nothing is fetched.
async fn key_of(app: &App, task: &Task, source: &Source) -> Option<EditKey> {
    let at_hand = |source: &Source| !matches!(source, Source::Url { .. });
    let route = app.settings.offer.resolve(&task.edit_type, task.model.as_deref()).ok()?;
    if !at_hand(source) || task.mask.as_ref().is_some_and(|mask| !at_hand(mask)) {
        return None;
    }
    let picture = app.sources.load(source).await.ok()?;
    let mask_hash = match &task.mask {
        Some(mask) => Some(app.sources.load(mask).await.ok()?.hash),
        None => None,
    };
    let params = task.params.clone().with_defaults(&route.params);
    let prompt = route.effective_prompt(&task.prompt).ok()?;
    let identity = EditIdentity {
        image_hash: picture.hash,
        edit_type: &task.edit_type,
        prompt: &prompt,
        provider: route.editor.name,
        model: &route.model,
        params: &params,
        mask_hash,
        variant: task.variant.as_deref(),
    };
    Some(identity.key())
}

/// Those of these edits that are hits now, their bytes included.
async fn hits(app: &App, keys: &[EditKey]) -> Result<HashSet<EditKey>> {
    let found = app.store.lookup(keys).await?;
    let gone = gone_blobs(&app.blobs, found.values()).await?;
    Ok(found.into_keys().filter(|key| !gone.contains_key(key)).collect())
}
