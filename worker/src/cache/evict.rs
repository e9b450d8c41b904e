//! Eviction: what the cache can best do without.
//!
//! An entry is worth what it has saved, for each byte and for each moment that it took to: its images × its price, over its size,
//! over the time since it was made and since it answered last. Dividing by time is the ageing: what was popular once sinks while
//! it is idle, and what is new starts high and has to prove itself (hyperbolic caching, Blankstein et al., 2017, with the idle time
//! added, because popularity drifts). Unlike GreedyDual it needs no number that is kept with every row and written at every hit. Among
//! those of equal worth, free ones for example, the least recently hit goes first.
//!
//! Nothing is sorted that is as large as the table: some hundred rows from random places are compared, and the tenth of them
//! that is worth least goes; again and again, that is as good as sorting all of them. Prices of different currencies are compared as
//! numbers.

use std::cmp::Ordering;
use std::time::Duration;

use anyhow::Result;

use crate::config::CacheLimits;
use crate::store::{Aged, Candidate, Store};

/// Places in the table that are looked at together, and rows at each.
const PLACES: usize = 16;
const EACH: u32 = 32;
/// Of these the worst that goes, one in so many.
const WORST: usize = 10;
/// Rows that are evicted by their age together.
const TOGETHER: u32 = 100;

/// What an entry is worth: higher is kept longer.
fn worth(candidate: &Candidate) -> f64 {
    // What a float loses of such numbers does not matter.
    #[expect(clippy::cast_precision_loss, reason = "compared, not summed")]
    let (saved, bytes) =
        (candidate.price.micros as f64 * candidate.hits as f64, candidate.bytes.max(1) as f64);
    saved / bytes / (candidate.age + candidate.idle + Duration::from_millis(1)).as_secs_f64()
}

/// Those first that are worth least.
pub fn rank(candidates: &mut [Candidate]) {
    let least = |a: &Candidate, b: &Candidate| {
        let by_worth = worth(a).partial_cmp(&worth(b)).unwrap_or(Ordering::Equal);
        by_worth.then(b.idle.cmp(&a.idle))
    };
    candidates.sort_by(least);
}

/// Takes a small step towards the limits; returns what went, nothing when there is nothing to do.
///
/// # Errors
/// The database cannot be asked.
pub async fn step(store: &Store, limits: &CacheLimits) -> Result<Vec<Candidate>> {
    for (by, age) in [(Aged::Hit, limits.max_idle), (Aged::Made, limits.max_age)] {
        let Some(age) = age else { continue };
        let aged = store.aged_entries(by, age, limits.keep, TOGETHER).await?;
        if !aged.is_empty() {
            let gone = store.evict(&aged, None).await?.gone;
            if !gone.is_empty() {
                return Ok(gone);
            }
        }
    }
    let Some(most) = limits.max_bytes else { return Ok(Vec::new()) };
    if store.cache_bytes().await? <= most {
        return Ok(Vec::new());
    }
    let mut candidates = sample(store, PLACES, EACH, limits.keep).await?;
    rank(&mut candidates);
    candidates.truncate(candidates.len().div_ceil(WORST));
    if candidates.is_empty() {
        tracing::debug!("the cache is over its limit, and all of it was served too lately to go");
        return Ok(Vec::new());
    }
    Ok(store.evict(&candidates, Some(most)).await?.gone)
}

async fn sample(store: &Store, places: usize, each: u32, keep: Duration) -> Result<Vec<Candidate>> {
    let points: Vec<f64> = (0..places).map(|_| rand::random_range(0.0..1.0)).collect();
    Ok(store.sample_entries(&points, each, keep).await?)
}

/// Places and rows of the sample that a preview is made of: a hundred thousand rows.
const PREVIEW_PLACES: u32 = 200;
const PREVIEW_EACH: u32 = 500;

/// What would go.
#[derive(Debug, Default)]
pub struct Preview {
    /// Because of their age or their last hit; no more of them than [`Preview::MOST`].
    pub aged: Vec<Candidate>,
    /// To make room; those of a large sample.
    pub for_room: Vec<Candidate>,
    /// Bytes of all entries.
    pub total: u64,
}

impl Preview {
    /// As many aged entries are looked at.
    pub const MOST: u32 = 100_000;
}

/// What would go, without anything going.
///
/// # Errors
/// The database cannot be asked.
pub async fn preview(store: &Store, limits: &CacheLimits) -> Result<Preview> {
    let mut preview = Preview { total: store.cache_bytes().await?, ..Preview::default() };
    let mut seen = std::collections::BTreeSet::new();
    for (by, age) in [(Aged::Hit, limits.max_idle), (Aged::Made, limits.max_age)] {
        let Some(age) = age else { continue };
        for candidate in store.aged_entries(by, age, limits.keep, Preview::MOST).await? {
            if seen.insert(candidate.edit_key) {
                preview.aged.push(candidate);
            }
        }
    }
    let Some(most) = limits.max_bytes else { return Ok(preview) };
    let aged: u64 = preview.aged.iter().map(|candidate| candidate.bytes).sum();
    let mut over = preview.total.saturating_sub(aged).saturating_sub(most);
    let points: Vec<f64> = (0..PREVIEW_PLACES).map(|n| f64::from(n) / f64::from(PREVIEW_PLACES)).collect();
    let mut candidates = store.sample_entries(&points, PREVIEW_EACH, limits.keep).await?;
    rank(&mut candidates);
    for candidate in candidates {
        if over == 0 {
            break;
        }
        if seen.insert(candidate.edit_key) {
            over = over.saturating_sub(candidate.bytes);
            preview.for_room.push(candidate);
        }
    }
    Ok(preview)
}
