//! A prefetch that fits a bound on memory: AMQP counts messages, not bytes.
//!
//! The size of a message is known only on arrival. A consumer therefore begins with as few as fit at the
//! largest size, quadruples the prefetch after a whole window of small messages, and reduces it at the first
//! large one.

use retouch_shared::wire::MAX_MESSAGE_BYTES;

/// Small messages to see after a large one before the prefetch grows: in mixed traffic the next large one is
/// near.
const CAUTIOUS_WINDOW: u32 = 256;
/// Factor of each growth.
const GROWTH: u16 = 4;

/// The prefetch of one consumer.
#[derive(Debug)]
pub(super) struct Prefetch {
    /// Upper limit, for small messages.
    most: u16,
    /// Lower limit, for the largest messages; at least one.
    least: u16,
    max_bytes: usize,
    current: u16,
    /// Messages of this window, and the largest of them.
    seen: u32,
    largest: usize,
    window: u32,
}

impl Prefetch {
    /// At most `most` messages, and as far as possible at most `max_bytes` of them.
    pub(super) fn new(most: u16, max_bytes: usize) -> Self {
        // A prefetch of 0 means "without a limit".
        let most = most.max(1);
        let least = fitting(max_bytes, MAX_MESSAGE_BYTES, 1, most);
        Self { most, least, max_bytes, current: least, seen: 0, largest: 0, window: u32::from(least) }
    }

    /// A prefetch independent of message size.
    pub(super) fn fixed(messages: u16) -> Self {
        Self::new(messages, usize::MAX)
    }

    pub(super) fn current(&self) -> u16 {
        self.current
    }

    /// Notes the size of a delivered message; returns the new prefetch if it changes.
    pub(super) fn note(&mut self, bytes: usize) -> Option<u16> {
        self.seen += 1;
        self.largest = self.largest.max(bytes);
        let fitting = fitting(self.max_bytes, self.largest, self.least, self.most);
        if fitting < self.current {
            return self.change(fitting, CAUTIOUS_WINDOW);
        }
        if self.seen < self.window {
            return None;
        }
        let grown = fitting.min(self.current.saturating_mul(GROWTH));
        let window = if fitting < self.most { CAUTIOUS_WINDOW } else { u32::from(grown) };
        self.change(grown, window)
    }

    /// Begins a new window.
    fn change(&mut self, prefetch: u16, window: u32) -> Option<u16> {
        (self.seen, self.largest, self.window) = (0, 0, window);
        let changed = prefetch != self.current;
        self.current = prefetch;
        changed.then_some(prefetch)
    }
}

fn fitting(bytes: usize, of_each: usize, least: u16, most: u16) -> u16 {
    u16::try_from(bytes / of_each.max(1)).unwrap_or(u16::MAX).clamp(least, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    /// The changes after these sizes.
    fn changes(prefetch: &mut Prefetch, sizes: impl IntoIterator<Item = usize>) -> Vec<u16> {
        sizes.into_iter().filter_map(|bytes| prefetch.note(bytes)).collect()
    }

    #[test]
    fn small_messages_raise_the_prefetch_and_large_ones_never() {
        let mut prefetch = Prefetch::new(256, 256 * MIB);
        assert_eq!(prefetch.current(), 16, "before any is known");
        assert_eq!(changes(&mut prefetch, [1000; 80]), [64, 256]);
        assert_eq!(changes(&mut prefetch, [1000; 5000]), [0u16; 0]);
        assert_eq!(changes(&mut prefetch, [15 * MIB]), [17]);
        assert_eq!(changes(&mut prefetch, [15 * MIB; 5000]), [0u16; 0]);
        // Mixed traffic: the next large one is near.
        assert_eq!(changes(&mut prefetch, [[1000; 100].as_slice(), &[16 * MIB]].concat()), [16]);
        assert_eq!(changes(&mut prefetch, [1000; 255]), [0u16; 0]);
        assert_eq!(changes(&mut prefetch, [1000; 65]), [64, 256]);
    }

    #[test]
    fn prefetched_messages_fit_the_bound_at_any_size() {
        for (bound, least) in [(32 * MIB, 2), (8 * MIB, 1), (1 << 40, 256)] {
            let mut prefetch = Prefetch::new(256, bound);
            assert_eq!(prefetch.current(), least);
            for bytes in [100, MIB, 3 * MIB, 16 * MIB, 10, 5 * MIB] {
                changes(&mut prefetch, [bytes; 600]);
                let ahead = usize::from(prefetch.current()) * bytes;
                assert!(ahead <= bound.max(bytes), "{bound} {bytes}: {ahead}");
            }
        }
        assert_eq!(Prefetch::fixed(7).current(), 7);
        assert_eq!(Prefetch::fixed(0).current(), 1);
    }
}
