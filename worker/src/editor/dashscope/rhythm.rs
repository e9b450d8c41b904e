//! When a task is asked after: where tasks have ended lately, and never more often than the account may ask.
//!
//! A fixed rhythm finds a picture half its period late, and asks in vain long before. Tasks of one account take similar times, and
//! the provider says when one ended; so one that is under way is asked after at the ages at which the last ones had ended, and in
//! the fixed rhythm where that is far off. The questions of all tasks of this process share the account's limit of queries.
//!
//! What must stay true: no pause is longer than twice that of the fixed rhythm; what is remembered is bounded.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Tasks whose times are remembered.
const LATELY: usize = 32;
/// Behind the end of a task: the request goes out before the provider begins to count.
const MARGIN: Duration = Duration::from_millis(20);
/// Between two questions after one task.
const LEAST: Duration = Duration::from_millis(50);
/// … and the part of its age, so that a task of a minute is not asked after a thousand times.
const LEAST_PART: f64 = 0.02;
/// In the first seconds the fixed rhythm is the set one, later so many times slower.
const BRISK: Duration = Duration::from_secs(30);
const SLOWER: u32 = 3;
/// An end that lies no further ahead than so many pauses is waited for in one.
const AHEAD: u32 = 2;
/// So young a task is not asked after where none has ended so soon lately.
const YOUNG: Duration = Duration::from_secs(1);
/// Told to ask less often, nobody asks for so long.
const THROTTLED: Duration = Duration::from_secs(1);

/// The rhythm of one account in this process.
#[derive(Debug)]
pub(super) struct Rhythm {
    /// Between two questions at the most, at first.
    most: Duration,
    /// Between two questions after whatever tasks.
    spacing: Duration,
    /// How old the last tasks were when they ended.
    ended: Mutex<VecDeque<Duration>>,
    /// When the next question may be sent.
    free: Mutex<Instant>,
}

impl Rhythm {
    pub(super) fn new(most: Duration, spacing: Duration) -> Self {
        Self { most, spacing, ended: Mutex::default(), free: Mutex::new(Instant::now()) }
    }

    /// Waits until a question may be sent; in the order in which they come.
    pub(super) async fn turn(&self) {
        let turn = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            let turn = Instant::now().max(*free);
            *free = turn + self.spacing;
            turn
        };
        tokio::time::sleep_until(turn).await;
    }

    /// The provider wants fewer questions.
    pub(super) fn throttled(&self) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        *free = (*free).max(Instant::now() + THROTTLED);
    }

    /// How long to wait before a task of this age is asked after again.
    pub(super) fn pause(&self, age: Duration) -> Duration {
        let fixed = if age < BRISK { self.most } else { self.most * SLOWER };
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let looks = ended.iter().map(|end| *end + MARGIN);
        let least = LEAST.max(age.mul_f64(LEAST_PART));
        if let Some(next) = looks.clone().filter(|look| *look > age).min() {
            let pause = (next - age).max(least);
            return if pause <= fixed * AHEAD { pause } else { fixed };
        }
        // Older than any lately: it may end at any moment, and the longer it has not, the longer it may take.
        looks.max().map_or(fixed, |last| ((age - last) / 2).max(least).min(fixed))
    }

    /// How long to wait before a task of this age is asked after for the first time, where it is worth waiting.
    pub(super) fn too_early(&self, age: Duration) -> Option<Duration> {
        let pause = self.pause(age);
        let known = !self.ended.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
        (known && age < YOUNG && age + pause >= YOUNG).then_some(pause)
    }

    /// A task was found ended at this age; `took` is what the provider says of it.
    pub(super) fn ended(&self, age: Duration, took: Option<Duration>) {
        // Not told, it is looked for a little earlier the next time: it may have ended long before it was found.
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

    /// At what ages a task is asked after that is found ended at `end`, and how late it is found.
    fn asked(rhythm: &Rhythm, end: Duration) -> (Vec<Duration>, Duration) {
        let (mut ages, mut age) = (Vec::new(), Duration::ZERO);
        while age < end {
            ages.push(age);
            age += rhythm.pause(age);
        }
        (ages, age - end)
    }

    #[test]
    fn without_a_task_that_has_ended_the_rhythm_is_the_fixed_one() {
        let rhythm = Rhythm::new(MOST, ms(50));
        for (age, pause) in [(0, 3), (29, 3), (30, 9), (3600, 9)] {
            assert_eq!(rhythm.pause(Duration::from_secs(age)), Duration::from_secs(pause), "{age}");
        }
    }

    #[test]
    fn a_task_is_found_when_tasks_like_it_have_ended_and_not_asked_after_much_more_often() {
        let rhythm = Rhythm::new(MOST, ms(50));
        rhythm.ended(ms(6000), Some(ms(5000)));
        let (ages, late) = asked(&rhythm, ms(5004));
        assert_eq!((ages.len(), late), (1, ms(16)), "{ages:?}");
        assert_eq!(rhythm.too_early(ms(30)), Some(ms(4990)));
        assert_eq!(rhythm.too_early(ms(1000)), None, "it may be somebody else's, left long ago");
        // Between 5 and 15 s, as the provider's documents say.
        for n in 0..32 {
            rhythm.ended(ms(20_000), Some(ms(5000 + (n * 7919) % 10_000)));
        }
        for end in (5000..15_000).step_by(97) {
            let (ages, late) = asked(&rhythm, ms(end));
            assert!(ages.len() <= 38 && late < ms(1200), "{end}: {late:?}, {ages:?}");
        }
    }

    #[test]
    fn a_long_task_is_not_asked_after_more_often_than_at_every_fiftieth_of_its_age() {
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
    fn where_the_provider_does_not_say_when_a_task_ended_it_is_looked_for_earlier_until_it_is_not_there_yet()
    {
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
    async fn all_questions_together_keep_the_limit_of_the_account() {
        let (rhythm, began) = (Rhythm::new(MOST, ms(50)), Instant::now());
        futures::future::join_all((0..5).map(|_| rhythm.turn())).await;
        assert!(began.elapsed() >= ms(200));
        rhythm.throttled();
        rhythm.turn().await;
        assert!(began.elapsed() >= THROTTLED);
    }
}
