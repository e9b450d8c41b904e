//! Verifying: every entry's blob is read and compared with its row; what is wrong is mended or made a miss.
//!
//! What must stay true: a store that cannot be asked changes nothing; and a store that has none of the first entries' blobs is
//! taken for the wrong one, not for one that lost them all.

use std::time::Duration;

use anyhow::{Result, bail};
use futures::stream::{self, StreamExt};
use retouch_shared::key::EditKey;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::finish_deleting;
use crate::blobs::{BlobError, Blobs};
use crate::store::{Store, ToVerify, Verified};

/// Entries that are taken up together, and blobs that are read at a time.
const TOGETHER: u32 = 64;
const AT_A_TIME: usize = 8;
/// So many entries at the start, none of which has its blob, are a wrong place.
const SUSPICIOUS: usize = 3;

/// How to go about it.
#[derive(Debug, Clone)]
pub struct How {
    /// At most so many blobs a second.
    pub rate: Option<u32>,
    /// Go on although no blob at all is there.
    pub all_missing: bool,
}

/// What was found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Entries that were looked at.
    pub verified: u64,
    /// Those that were as their row says.
    pub good: u64,
    /// No blob: the entry is removed, and made again when it is asked for.
    pub missing: u64,
    /// A blob of other bytes: the same, and the blob is deleted.
    pub damaged: u64,
    /// The row said another size: corrected.
    pub wrong_size: u64,
    /// Somebody else changed the entry meanwhile.
    pub changed: u64,
    /// Bytes that were read.
    pub bytes: u64,
}

impl Tally {
    /// Entries that were not as they should be.
    pub fn wrong(&self) -> u64 {
        self.missing + self.damaged + self.wrong_size
    }
}

/// What one blob is.
enum Is {
    Good(u64),
    Missing,
    Damaged,
}

/// Verifies what was not verified after the moment `before`, until that is all or `stop` is cancelled. `progress` is told after each.
///
/// # Errors
/// The database or the blob store cannot be asked, or has none of the blobs; what was verified by then stays so.
pub async fn verify(
    store: &Store,
    blobs: &Blobs,
    before: &str,
    how: &How,
    stop: &CancellationToken,
    progress: impl Fn(&Tally),
) -> Result<Tally> {
    let mut tally = Tally::default();
    while !stop.is_cancelled() {
        let entries = store.next_to_verify(before, TOGETHER).await?;
        if entries.is_empty() {
            break;
        }
        let read = read_all(blobs, entries, how.rate, stop).await?;
        let all_missing = read.iter().all(|(_, is)| matches!(is, Is::Missing));
        if tally.verified == 0 && read.len() >= SUSPICIOUS && all_missing && !how.all_missing {
            bail!(
                "none of the first {} blobs is there; nothing was changed: is RETOUCH_BLOBS the place where they were kept? \
                 With --all-missing their entries are removed, and paid for again when they are asked for",
                read.len()
            );
        }
        let mut good = Vec::new();
        for (entry, is) in read {
            count(store, &entry, is, &mut tally, &mut good).await?;
            progress(&tally);
        }
        store.mark_verified(&good).await?;
    }
    finish_deleting(store, blobs).await?;
    Ok(tally)
}

/// Reads blobs, no faster than it may.
async fn read_all(
    blobs: &Blobs,
    entries: Vec<ToVerify>,
    rate: Option<u32>,
    stop: &CancellationToken,
) -> Result<Vec<(ToVerify, Is)>> {
    let pause = rate.map(|rate| Duration::from_secs(1) / rate.max(1));
    let paced = stream::iter(entries).then(|entry| async move {
        if let Some(pause) = pause {
            tokio::time::sleep(pause).await;
        }
        entry
    });
    let wanted = paced.take_until(stop.cancelled());
    let read = wanted.map(|entry| async move {
        let is = match blobs.get(entry.hash).await {
            Ok(bytes) => Is::Good(bytes.len() as u64),
            Err(BlobError::Missing(_)) => Is::Missing,
            Err(BlobError::Corrupt(_)) => Is::Damaged,
            Err(error @ BlobError::Unavailable(_)) => return Err(error),
        };
        Ok((entry, is))
    });
    let read: Vec<Result<_, BlobError>> = read.buffered(AT_A_TIME).collect().await;
    Ok(read.into_iter().collect::<Result<_, _>>()?)
}

async fn count(
    store: &Store,
    entry: &ToVerify,
    is: Is,
    tally: &mut Tally,
    good: &mut Vec<EditKey>,
) -> Result<()> {
    tally.verified += 1;
    let wrong = match is {
        Is::Good(bytes) => {
            tally.bytes += bytes;
            if bytes == entry.bytes {
                tally.good += 1;
            } else {
                store.correct_bytes(entry, bytes).await?;
                tally.wrong_size += 1;
            }
            good.push(entry.edit_key);
            return Ok(());
        }
        Is::Missing => &mut tally.missing,
        Is::Damaged => &mut tally.damaged,
    };
    match store.remove_unusable(entry).await? {
        Verified::Removed => *wrong += 1,
        Verified::Changed => {
            tally.changed += 1;
            // Looked at again next time.
            good.push(entry.edit_key);
        }
    }
    Ok(())
}
