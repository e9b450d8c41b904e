//! The stand-in's clock: it runs as real time does, never backwards; it can be moved ahead, and stopped.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use chrono::{DateTime, FixedOffset, TimeDelta, Utc};

/// The time of all events at the provider.
#[derive(Debug)]
pub(super) struct Clock {
    started: (Instant, DateTime<Utc>),
    moved: Mutex<Moved>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Moved {
    ahead: Duration,
    /// The elapsed time when it was stopped.
    stopped: Option<Duration>,
}

impl Clock {
    pub(super) fn new() -> Self {
        Self { started: (Instant::now(), Utc::now()), moved: Mutex::default() }
    }

    pub(super) fn now(&self) -> DateTime<Utc> {
        // Not the system's clock each time: an adjustment of it would upset the limits.
        let (instant, date) = self.started;
        let moved = *self.moved.lock().unwrap();
        date + (moved.stopped.unwrap_or_else(|| instant.elapsed()) + moved.ahead)
    }

    pub(super) fn advance(&self, by: Duration) {
        self.moved.lock().unwrap().ahead += by;
    }

    pub(super) fn stop(&self) {
        let elapsed = self.started.0.elapsed();
        self.moved.lock().unwrap().stopped.get_or_insert(elapsed);
    }
}

/// China time, which DashScope writes its times in.
pub(super) fn china() -> FixedOffset {
    FixedOffset::east_opt(8 * 60 * 60).unwrap()
}

/// `2025-02-21 17:56:31.786`, as in a task.
pub(super) fn written(at: DateTime<Utc>) -> String {
    at.with_timezone(&china()).format("%Y-%m-%d %H:%M:%S%.3f").to_string()
}

/// How long from one to the other; zero when it is the other way round.
pub(super) fn between(from: DateTime<Utc>, to: DateTime<Utc>) -> Duration {
    (to - from).to_std().unwrap_or_default()
}

/// For arithmetic with dates.
pub(super) fn delta(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}
