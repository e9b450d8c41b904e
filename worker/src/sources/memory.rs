//! The bound on bytes of pictures that intake holds.
//!
//! What must stay true: nobody waits for a share while holding one of the same memory, or everyone could wait for everyone.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

const KIB: usize = 1024;

/// So many bytes of pictures at once. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Memory {
    /// A permit a KiB.
    free: Arc<Semaphore>,
    all: u32,
}

/// A part of a [`Memory`], until it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    permit: Option<OwnedSemaphorePermit>,
}

impl Memory {
    /// Room for so many bytes. A picture that is larger than all of it waits until it is alone.
    pub(crate) fn of(bytes: usize) -> Self {
        let all = permits(bytes).max(1);
        Self { free: Arc::new(Semaphore::new(all as usize)), all }
    }

    /// Waits its turn for room for so many bytes.
    pub(crate) async fn share(&self, bytes: usize) -> Share {
        let wanted = permits(bytes).min(self.all);
        // The semaphore is never closed.
        Share { permit: Arc::clone(&self.free).acquire_many_owned(wanted).await.ok() }
    }
}

impl Share {
    /// Of nothing: for what is not counted.
    pub(super) fn none() -> Self {
        Self { permit: None }
    }

    /// No more than so many bytes are needed after all.
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

/// A terabyte: far from where the semaphore's count ends.
const MOST: u32 = 1 << 30;

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_picture_waits_for_room_and_what_is_not_needed_or_done_with_is_given_back() {
        let memory = Memory::of(100 * KIB);
        let mut first = memory.share(70 * KIB).await;
        assert!(memory.share(40 * KIB).now_or_never().is_none());
        first.shrink(60 * KIB);
        let second = memory.share(40 * KIB).now_or_never().expect("room");
        assert!(memory.share(1).now_or_never().is_none());
        drop((first, second));
        // Larger than all there is: alone.
        let huge = memory.share(1000 * KIB).now_or_never().expect("room");
        assert!(memory.share(1).now_or_never().is_none());
        drop(huge);
        assert!(memory.share(1).now_or_never().is_some());
    }
}
