//! Blobs seen a moment ago, for stores where asking costs a round trip.
//!
//! Invariant: it is bounded; no entry is older than [`FOR`]; and blobs that this process deletes or misses
//! are removed. Deletions by other processes need no notice: the row goes first, so that no lookup follows.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use retouch_shared::key::Digest32;

/// Longest age of an entry.
const FOR: Duration = Duration::from_secs(60);
/// Most entries; about 10 MB.
const MOST: usize = 100_000;

#[derive(Debug, Default)]
pub(super) struct Seen {
    sizes: Mutex<HashMap<Digest32, (Instant, u64)>>,
}

impl Seen {
    /// Notes that a blob exists with this size.
    pub(super) fn note(&self, hash: Digest32, size: u64) {
        let mut sizes = self.sizes.lock().unwrap_or_else(PoisonError::into_inner);
        if sizes.len() >= MOST {
            sizes.retain(|_, (at, _)| at.elapsed() < FOR);
        }
        if sizes.len() < MOST {
            sizes.insert(hash, (Instant::now(), size));
        }
    }

    /// Its size, if it was seen a moment ago.
    pub(super) fn size(&self, hash: Digest32) -> Option<u64> {
        let sizes = self.sizes.lock().unwrap_or_else(PoisonError::into_inner);
        sizes.get(&hash).filter(|(at, _)| at.elapsed() < FOR).map(|(_, size)| *size)
    }

    pub(super) fn forget(&self, hash: Digest32) {
        self.sizes.lock().unwrap_or_else(PoisonError::into_inner).remove(&hash);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seen_blob_is_known_until_it_is_forgotten() {
        let (seen, hash) = (Seen::default(), Digest32::of(b"a"));
        assert_eq!(seen.size(hash), None);
        seen.note(hash, 7);
        assert_eq!(seen.size(hash), Some(7));
        seen.forget(hash);
        assert_eq!(seen.size(hash), None);
    }
}
