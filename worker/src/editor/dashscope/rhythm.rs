//! The schedule of polls: at the ages at which tasks ended recently, within the account's limit of queries.
//!
//! A fixed interval finds a picture half an interval late, after many useless polls. Tasks of one account
//! take similar times, and the provider reports when one ended; so a task is polled at the ages at which the
//! last ones had ended, and at the fixed interval while that is far off. The polls of all tasks of this
//! process share the account's limit of queries.
//!
//! Invariant: no pause is longer than twice the fixed interval; the memory is bounded.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Number of remembered tasks.
const LATELY: usize = 32;
/// Added to the expected end: the provider's clock starts after our request leaves.
const MARGIN: Duration = Duration::from_millis(20);
/// Least time between two polls of one task.
const LEAST: Duration = Duration::from_millis(50);
/// … and as a fraction of its age, so that a task of a minute is not polled a thousand times.
const LEAST_PART: f64 = 0.02;
/// Until this age the fixed interval is the configured one, later a multiple of it.
const BRISK: Duration = Duration::from_secs(30);
const SLOWER: u32 = 3;
/// An expected end within this many pauses is waited for in one.
const AHEAD: u32 = 2;
/// A task younger than this is not polled unless one has recently ended so soon.
const YOUNG: Duration = Duration::from_secs(1);
/// Pause of all polls after a 429.
const THROTTLED: Duration = Duration::from_secs(1);

/// The schedule of one account in this process.
#[derive(Debug)]
pub(super) struct Rhythm {
    /// Longest interval at first.
    most: Duration,
    /// Between two polls of any tasks.
    spacing: Duration,
    /// Ages of the last tasks at their end.
    ended: Mutex<VecDeque<Duration>>,
    /// When the next poll may be sent.
    free: Mutex<Instant>,
}

impl Rhythm {
    pub(super) fn new(most: Duration, spacing: Duration) -> Self {
        Self { most, spacing, ended: Mutex::default(), free: Mutex::new(Instant::now()) }
    }

    /// Waits until a poll may be sent; first come, first served.
    pub(super) async fn turn(&self) {
        let turn = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            let turn = Instant::now().max(*free);
            *free = turn + self.spacing;
            turn
        };
        tokio::time::sleep_until(turn).await;
    }

    /// Notes a 429.
    pub(super) fn throttled(&self) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        *free = (*free).max(Instant::now() + THROTTLED);
    }

    /// The pause before the next poll of a task of this age.
    pub(super) fn pause(&self, age: Duration) -> Duration {
        let fixed = if age < BRISK { self.most } else { self.most * SLOWER };
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let looks = ended.iter().map(|end| *end + MARGIN);
        let least = LEAST.max(age.mul_f64(LEAST_PART));
        if let Some(next) = looks.clone().filter(|look| *look > age).min() {
            let pause = (next - age).max(least);
            return if pause <= fixed * AHEAD { pause } else { fixed };
        }
        // Older than all recent ones: it may end at any moment, and the longer it runs, the longer it may
        // still take.
        looks.max().map_or(fixed, |last| ((age - last) / 2).max(least).min(fixed))
    }

    /// The delay before the first poll of a task of this age, if waiting is worthwhile.
    pub(super) fn too_early(&self, age: Duration) -> Option<Duration> {
        let pause = self.pause(age);
        let known = !self.ended.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
        (known && age < YOUNG && age + pause >= YOUNG).then_some(pause)
    }

    /// Notes a task found ended at this age; `took` is its duration by the provider.
    pub(super) fn ended(&self, age: Duration, took: Option<Duration>) {
        // Without a reported duration the next task is polled a little earlier: this one may have ended long
        // before.
        let end = took.unwrap_or_else(|| age.saturating_sub(MARGIN).mul_f64(1.0 - LEAST_PART)).min(age);
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.truncate(LATELY - 1);
        ended.push_front(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Duration = Duration::from_secs(3);

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// The ages of the polls of a task that ends at `end`, and the delay of its discovery.
    fn asked(rhythm: &Rhythm, end: Duration) -> (Vec<Duration>, Duration) {
        let (mut ages, mut age) = (Vec::new(), Duration::ZERO);
        while age < end {
            ages.push(age);
            age += rhythm.pause(age);
        }
        (ages, age - end)
    }

    #[test]
    fn without_an_ended_task_polls_have_the_fixed_interval() {
        let rhythm = Rhythm::new(MOST, ms(50));
        for (age, pause) in [(0, 3), (29, 3), (30, 9), (3600, 9)] {
            assert_eq!(rhythm.pause(Duration::from_secs(age)), Duration::from_secs(pause), "{age}");
        }
    }

    #[test]
    fn polls_follow_the_durations_of_recent_tasks() {
        let rhythm = Rhythm::new(MOST, ms(50));
        rhythm.ended(ms(6000), Some(ms(5000)));
        let (ages, late) = asked(&rhythm, ms(5004));
        assert_eq!((ages.len(), late), (1, ms(16)), "{ages:?}");
        assert_eq!(rhythm.too_early(ms(30)), Some(ms(4990)));
        assert_eq!(rhythm.too_early(ms(1000)), None, "it may be an old task of another worker");
        // Between 5 and 15 s, as the provider documents.
        for n in 0..32 {
            rhythm.ended(ms(20_000), Some(ms(5000 + (n * 7919) % 10_000)));
        }
        for end in (5000..15_000).step_by(97) {
            let (ages, late) = asked(&rhythm, ms(end));
            assert!(ages.len() <= 38 && late < ms(1200), "{end}: {late:?}, {ages:?}");
        }
    }

    #[test]
    fn a_long_task_is_polled_at_fiftieths_of_its_age() {
        let rhythm = Rhythm::new(MOST, ms(50));
        for n in 0..32 {
            rhythm.ended(ms(120_000), Some(ms(100_000 + n)));
        }
        assert_eq!(rhythm.pause(ms(100_010)), ms(100_010).mul_f64(LEAST_PART));
        assert_eq!(rhythm.pause(ms(10_000)), MOST, "far from any end: one may be quick");
        assert_eq!(
            rhythm.pause(ms(100_060)),
            ms(100_060).mul_f64(LEAST_PART),
            "older than any, but not by much"
        );
        assert_eq!(rhythm.pause(ms(200_000)), MOST * SLOWER, "twice as old as any");
    }

    #[test]
    fn without_reported_durations_polls_move_earlier_until_too_early() {
        let rhythm = Rhythm::new(MOST, ms(50));
        let mut lates = Vec::new();
        for _ in 0..60 {
            let (ages, late) = asked(&rhythm, ms(4000));
            rhythm.ended(*ages.last().unwrap() + rhythm.pause(*ages.last().unwrap()), None);
            lates.push(late);
        }
        assert_eq!(lates[0], ms(2000), "asked after at 0, 3 and 6 s");
        assert!(lates[40..].iter().all(|late| *late <= ms(100)), "{lates:?}");
        assert!(rhythm.ended.lock().unwrap().len() <= LATELY);
    }

    #[tokio::test]
    async fn all_polls_together_keep_the_limit_of_the_account() {
        let (rhythm, began) = (Rhythm::new(MOST, ms(50)), Instant::now());
        futures::future::join_all((0..5).map(|_| rhythm.turn())).await;
        assert!(began.elapsed() >= ms(200));
        rhythm.throttled();
        rhythm.turn().await;
        assert!(began.elapsed() >= THROTTLED);
    }
}
