//! The bound on picture bytes in intake.
//!
//! Invariant: work that holds a share never waits for another one of the same memory, or all could wait for
//! each other.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

const KIB: usize = 1024;

/// A budget of picture bytes. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Memory {
    /// One permit a KiB.
    free: Arc<Semaphore>,
    all: u32,
}

/// A reserved part of a [`Memory`], until it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    permit: Option<OwnedSemaphorePermit>,
}

impl Memory {
    /// A budget of this many bytes. A picture larger than the whole budget waits until it is alone.
    pub(crate) fn of(bytes: usize) -> Self {
        let all = permits(bytes).max(1);
        Self { free: Arc::new(Semaphore::new(all as usize)), all }
    }

    /// Waits for a share of this many bytes.
    pub(crate) async fn share(&self, bytes: usize) -> Share {
        let wanted = permits(bytes).min(self.all);
        // The semaphore is never closed.
        Share { permit: Arc::clone(&self.free).acquire_many_owned(wanted).await.ok() }
    }
}

impl Share {
    /// An empty share, for uncounted pictures.
    pub(super) fn none() -> Self {
        Self { permit: None }
    }

    /// Reduces the share to this many bytes.
    pub(super) fn shrink(&mut self, bytes: usize) {
        if let Some(permit) = &mut self.permit {
            let spare = permit.num_permits().saturating_sub(permits(bytes) as usize);
            drop(permit.split(spare));
        }
    }
}

fn permits(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(KIB)).unwrap_or(u32::MAX).min(MOST)
}

/// A terabyte: far from the limit of the semaphore.
const MOST: u32 = 1 << 30;

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_picture_waits_for_memory_and_returns_it() {
        let memory = Memory::of(100 * KIB);
        let mut first = memory.share(70 * KIB).await;
        assert!(memory.share(40 * KIB).now_or_never().is_none());
        first.shrink(60 * KIB);
        let second = memory.share(40 * KIB).now_or_never().expect("room");
        assert!(memory.share(1).now_or_never().is_none());
        drop((first, second));
        // Larger than the budget: alone.
        let huge = memory.share(1000 * KIB).now_or_never().expect("room");
        assert!(memory.share(1).now_or_never().is_none());
        drop(huge);
        assert!(memory.share(1).now_or_never().is_some());
    }
}
