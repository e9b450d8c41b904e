//! Batched acknowledgements of one channel: those requested while others are being written go in one
//! `multiple` frame up to the oldest delivery still at work, the rest one by one.
//!
//! Invariant: only deliveries whose handler asked for it are acknowledged. A delivery counts as at work from
//! hand-out until its acknowledgement or its return is on the wire.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::join_all;
use lapin::Acker;
use lapin::options::BasicAckOptions;
use lapin::types::DeliveryTag;

use crate::together::Together;

/// Acknowledgements in one batch.
const MOST: usize = 1024;

/// Unsettled deliveries of one channel.
pub(super) struct Acks {
    at_work: Mutex<BTreeSet<DeliveryTag>>,
    asked: Arc<Together<(DeliveryTag, Acker), bool>>,
}

impl Default for Acks {
    fn default() -> Self {
        Self { at_work: Mutex::default(), asked: Together::new(MOST) }
    }
}

impl Acks {
    /// A delivery is handed out.
    pub(super) fn begin(&self, tag: DeliveryTag) {
        self.at_work().insert(tag);
    }

    /// Notes that its return is on the wire.
    pub(super) fn returned(&self, tag: DeliveryTag) {
        self.at_work().remove(&tag);
    }

    /// Acknowledges a delivery. `false`: the broker did not receive it.
    pub(super) async fn ack(self: &Arc<Self>, tag: DeliveryTag, acker: Acker) -> bool {
        let acks = Arc::clone(self);
        let send = move |asked: Vec<(DeliveryTag, Acker)>| {
            let acks = Arc::clone(&acks);
            async move { acks.send(asked).await }
        };
        self.asked.ask((tag, acker), send).await.unwrap_or(false)
    }

    /// Whether the broker received each, in their order.
    async fn send(&self, asked: Vec<(DeliveryTag, Acker)>) -> Vec<bool> {
        let tags: BTreeSet<DeliveryTag> = asked.iter().map(|(tag, _)| *tag).collect();
        let together = last_together(&self.at_work(), &tags);
        let heard = asked.iter().filter(|(tag, _)| together.is_none_or(|last| *tag >= last));
        let heard = heard.map(async |(tag, acker)| {
            let options = BasicAckOptions { multiple: Some(*tag) == together };
            // On a dead channel this is Ok(false), not an error.
            (*tag, matches!(acker.ack(options).await, Ok(true)))
        });
        let heard: BTreeMap<DeliveryTag, bool> = join_all(heard).await.into_iter().collect();
        self.at_work().retain(|tag| !tags.contains(tag));
        // A `multiple` frame answers for all its tags.
        let told = |tag: DeliveryTag| together.filter(|last| tag <= *last).unwrap_or(tag);
        asked.iter().map(|(tag, _)| heard.get(&told(*tag)) == Some(&true)).collect()
    }

    fn at_work(&self) -> MutexGuard<'_, BTreeSet<DeliveryTag>> {
        self.at_work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The last tag of `asked` with no other delivery at work before it, if that covers more than one.
fn last_together(at_work: &BTreeSet<DeliveryTag>, asked: &BTreeSet<DeliveryTag>) -> Option<DeliveryTag> {
    let other = at_work.difference(asked).next().copied().unwrap_or(DeliveryTag::MAX);
    let mut together = asked.range(..other);
    let last = together.next_back().copied();
    together.next_back().and(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last(at_work: &[DeliveryTag], asked: &[DeliveryTag]) -> Option<DeliveryTag> {
        let set = |tags: &[DeliveryTag]| tags.iter().copied().collect();
        last_together(&set(at_work), &set(asked))
    }

    #[test]
    fn acks_are_batched_up_to_the_first_delivery_at_work() {
        assert_eq!(last(&[1, 2, 3], &[1, 2, 3]), Some(3));
        assert_eq!(last(&[1, 2, 3, 4, 5], &[1, 2, 4, 5]), Some(2));
        assert_eq!(last(&[1, 2, 3], &[2, 3]), None, "1 is still at work");
        assert_eq!(last(&[2, 3, 9], &[2]), None, "one alone needs no company");
        assert_eq!(last(&[], &[]), None);
    }
}
