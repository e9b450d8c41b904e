//! Retry delays. The only file that names the `backoff` crate, so that it can be replaced here. The delay is
//! a pure function; jitter is passed in.

use std::time::Duration;

use backoff::SystemClock;
use backoff::backoff::Backoff as _;
use backoff::exponential::ExponentialBackoff;

/// How delays grow: doubling from `first` up to `most`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Delay before the second attempt.
    pub first: Duration,
    /// Upper limit.
    pub most: Duration,
}

impl Pace {
    /// For connections and other resources that the whole worker waits for. Kept short: work resumes within
    /// 10 s of the end of an outage of any length.
    pub const RECONNECT: Self = Self { first: Duration::from_millis(500), most: Duration::from_secs(5) };

    /// The delay after `attempt` failures (0 is the first). `jitter` of `0.0..=1.0` picks from the upper half, so that
    /// replicas that failed together do not come back together.
    pub fn delay(self, attempt: u32, jitter: f64) -> Duration {
        // After 64 doublings any first delay has reached any limit.
        let mut backoff = self.exponential();
        let mut delay = self.first;
        for _ in 0..=attempt.min(64) {
            delay = backoff.next_backoff().unwrap_or(self.most);
        }
        delay.min(self.most).mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
    }

    fn exponential(self) -> ExponentialBackoff<SystemClock> {
        ExponentialBackoff {
            current_interval: self.first,
            initial_interval: self.first,
            // The jitter comes from the caller.
            randomization_factor: 0.0,
            multiplier: 2.0,
            max_interval: self.most,
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        }
    }
}

/// Counts failures in a row.
#[derive(Debug)]
pub struct Backoff {
    pace: Pace,
    attempt: u32,
}

impl Backoff {
    /// No failure yet.
    pub const fn new(pace: Pace) -> Self {
        Self { pace, attempt: 0 }
    }

    /// Counts a failure and returns the delay before the next attempt.
    pub fn next_delay(&mut self) -> Duration {
        let delay = self.pace.delay(self.attempt, rand::random());
        self.attempt = self.attempt.saturating_add(1);
        delay
    }

    /// Counts a success: the next failure is the first again.
    pub const fn reset(&mut self) {
        self.attempt = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_a_limit_and_jitter_halves_at_most() {
        let seconds = |attempt, jitter| Pace::RECONNECT.delay(attempt, jitter).as_secs_f64();
        for (attempt, full) in [(0, 0.5), (1, 1.0), (2, 2.0), (3, 4.0), (4, 5.0), (u32::MAX, 5.0)] {
            assert!((seconds(attempt, 1.0) - full).abs() < 0.001, "{attempt}");
            assert!((seconds(attempt, 0.0) - full / 2.0).abs() < 0.001, "{attempt}");
        }
    }

    #[test]
    fn a_success_starts_over() {
        let mut backoff = Backoff::new(Pace::RECONNECT);
        for _ in 0..10 {
            backoff.next_delay();
        }
        assert!(backoff.next_delay() >= Duration::from_millis(2500));
        backoff.reset();
        assert!(backoff.next_delay() <= Duration::from_millis(500));
    }
}
