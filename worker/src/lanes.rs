//! Lanes in this process: who asks the store next whether a call may be sent, and who wakes whom. The limits themselves
//! are the store's and hold over all replicas; this only keeps a process from asking with every call at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};

use crate::delay::Pace;
use crate::store::{Closure, Pass};

/// How long a lane that is full because of other replicas is left alone between two looks.
pub(crate) const FULL: Pace = Pace { first: Duration::from_millis(100), most: Duration::from_millis(400) };
/// A closed lane is looked at this often: when a person opens it, work goes on soon.
const CLOSED: Duration = Duration::from_secs(2);
/// When the provider asks to slow down and does not say for how long; it recovers "usually within a minute".
const THROTTLED: Pace = Pace { first: Duration::from_secs(2), most: Duration::from_secs(60) };
/// The shortest and the longest that a provider can make a lane wait; "after 0 s" would be asked without a pause.
const RETRY_AFTER: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(10 * 60)];

/// The gates of all lanes.
#[derive(Debug, Default)]
pub(crate) struct Gates(Mutex<HashMap<String, Arc<Gate>>>);

impl Gates {
    /// The gate of one lane.
    pub(crate) fn of(&self, lane: &str) -> Arc<Gate> {
        let mut gates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(gates.entry(lane.to_owned()).or_default())
    }
}

/// Results of one lane that are fetched at a time beside its places.
const FETCHES: usize = 16;

/// Where the calls of one lane wait in this process.
#[derive(Debug)]
pub(crate) struct Gate {
    /// Held by the call that asks the store; the others stand in line.
    pub(crate) turn: tokio::sync::Mutex<()>,
    /// Places for results that are fetched beside the lane's own.
    pub(crate) fetches: Arc<Semaphore>,
    freed: Notify,
    closed: Mutex<Option<String>>,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            turn: tokio::sync::Mutex::default(),
            fetches: Arc::new(Semaphore::new(FETCHES)),
            freed: Notify::new(),
            closed: Mutex::default(),
        }
    }
}

impl Gate {
    /// A call of this process has left the lane: whoever waits need not wait any longer.
    pub(crate) fn freed(&self) {
        self.freed.notify_one();
    }

    /// Waits for a place that is said to come `within`, or earlier if one is freed here.
    pub(crate) async fn place(&self, within: Duration) {
        tokio::select! {
            () = self.freed.notified() => {}
            () = tokio::time::sleep(within) => {}
        }
    }

    /// Says once that the lane is closed; returns when to look again.
    pub(crate) fn closed(&self, lane: &str, closure: &Closure) -> Duration {
        let mut known = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        if known.as_ref() != Some(&closure.code) {
            let (code, reason) = (&closure.code, &closure.message);
            tracing::error!(lane, code, reason, "the lane takes no calls; its edits stay queued");
            *known = Some(closure.code.clone());
        }
        closure.probe_in.unwrap_or(CLOSED).min(CLOSED).max(Duration::from_millis(50))
    }

    /// Says once that a lane that was closed takes calls again.
    pub(crate) fn open(&self, lane: &str) {
        let known = self.closed.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(code) = known {
            tracing::info!(lane, was = code, "the lane takes calls again");
        }
    }

    /// Whether this process has seen it closed.
    pub(crate) fn was_closed(&self) -> bool {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

/// How long the whole lane waits after the provider asked to slow down; its own wish, within reason, comes first.
pub(crate) fn slow_down(pass: Pass, retry_after: Option<Duration>) -> Duration {
    retry_after.map_or_else(|| THROTTLED.delay(pass.throttles, rand::random()), wished)
}

/// When a blocked lane is tried again: `first` doubled with every probe that failed.
pub(crate) fn probe_after(first: Duration, probes: u32) -> Duration {
    let pace = Pace { first, most: first.saturating_mul(20) };
    pace.delay(probes, rand::random())
}

/// The provider's wish, within reason.
pub(crate) fn wished(retry_after: Duration) -> Duration {
    let [least, most] = RETRY_AFTER;
    retry_after.clamp(least, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(throttles: u32) -> Pass {
        Pass { throttles, ..Pass::default() }
    }

    #[test]
    fn a_lane_that_is_asked_to_slow_down_waits_longer_each_time_and_a_minute_at_most() {
        for (throttles, least, most) in [(0, 1.0, 2.0), (1, 2.0, 4.0), (4, 16.0, 32.0), (100, 30.0, 60.0)] {
            let pause = slow_down(pass(throttles), None).as_secs_f64();
            assert!((least..=most).contains(&pause), "{throttles}: {pause}");
        }
    }

    #[test]
    fn the_providers_wish_is_honoured_within_a_second_and_ten_minutes() {
        for (wish, seconds) in [(0, 1), (7, 7), (600, 600), (86_400, 600)] {
            assert_eq!(slow_down(pass(9), Some(Duration::from_secs(wish))).as_secs(), seconds, "{wish}");
        }
    }

    #[test]
    fn a_blocked_lane_is_probed_less_and_less_often_and_never_given_up() {
        let first = Duration::from_secs(30);
        for (probes, most) in [(0, 30), (1, 60), (3, 240), (9, 600), (1000, 600)] {
            let pause = probe_after(first, probes).as_secs_f64();
            assert!((f64::from(most) / 2.0..=f64::from(most)).contains(&pause), "{probes}: {pause}");
        }
    }

    #[tokio::test]
    async fn a_place_that_is_freed_here_is_not_waited_for() {
        let gates = Gates::default();
        let gate = gates.of("lane");
        gates.of("lane").freed();
        tokio::time::timeout(Duration::from_secs(5), gate.place(Duration::from_secs(3600))).await.unwrap();
    }
}
