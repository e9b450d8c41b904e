//! Lanes in this process: the order in which calls ask the store whether they may be sent. The store holds
//! the limits over all replicas; this only keeps a process from asking with every call at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};

use crate::delay::Pace;
use crate::store::{Closure, Pass};

/// Time between two tries at a lane that is full because of other replicas.
pub(crate) const FULL: Pace = Pace { first: Duration::from_millis(100), most: Duration::from_millis(400) };
/// Time between two tries at a closed lane: work resumes soon after a person opens it.
const CLOSED: Duration = Duration::from_secs(2);
/// Delay after a 429 without Retry-After; the provider recovers "usually within a minute".
const THROTTLED: Pace = Pace { first: Duration::from_secs(2), most: Duration::from_secs(60) };
/// Bounds of a provider's Retry-After; "after 0 s" would lead to requests without a pause.
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

/// Results of one lane that are fetched at a time outside its places.
const FETCHES: usize = 16;

/// The waiting room of one lane in this process.
#[derive(Debug)]
pub(crate) struct Gate {
    /// Held by the call that asks the store; the others queue for it.
    pub(crate) turn: tokio::sync::Mutex<()>,
    /// Permits for results that are fetched outside the lane's places.
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
    /// A call of this process has left the lane: wakes the waiting one.
    pub(crate) fn freed(&self) {
        self.freed.notify_one();
    }

    /// Waits for a place that is expected `within`, or until one is freed here.
    pub(crate) async fn place(&self, within: Duration) {
        tokio::select! {
            () = self.freed.notified() => {}
            () = tokio::time::sleep(within) => {}
        }
    }

    /// Logs once that the lane is closed; returns the time until the next try.
    pub(crate) fn closed(&self, lane: &str, closure: &Closure) -> Duration {
        let mut known = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        if known.as_ref() != Some(&closure.code) {
            let (code, reason) = (&closure.code, &closure.message);
            tracing::error!(lane, code, reason, "the lane takes no calls; its edits stay queued");
            *known = Some(closure.code.clone());
        }
        closure.probe_in.unwrap_or(CLOSED).min(CLOSED).max(Duration::from_millis(50))
    }

    /// Logs once that a closed lane is open again.
    pub(crate) fn open(&self, lane: &str) {
        let known = self.closed.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(code) = known {
            tracing::info!(lane, was = code, "the lane takes calls again");
        }
    }

    /// Whether this process has seen the lane closed.
    pub(crate) fn was_closed(&self) -> bool {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

/// How long the whole lane waits after a 429; the provider's Retry-After, within bounds, comes first.
pub(crate) fn slow_down(pass: Pass, retry_after: Option<Duration>) -> Duration {
    retry_after.map_or_else(|| THROTTLED.delay(pass.throttles, rand::random()), wished)
}

/// When a blocked lane is tried again: `first`, doubled after every failed probe.
pub(crate) fn probe_after(first: Duration, probes: u32) -> Duration {
    let pace = Pace { first, most: first.saturating_mul(20) };
    pace.delay(probes, rand::random())
}

/// The provider's Retry-After within bounds.
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
    fn a_throttled_lane_waits_longer_each_time_up_to_a_minute() {
        for (throttles, least, most) in [(0, 1.0, 2.0), (1, 2.0, 4.0), (4, 16.0, 32.0), (100, 30.0, 60.0)] {
            let pause = slow_down(pass(throttles), None).as_secs_f64();
            assert!((least..=most).contains(&pause), "{throttles}: {pause}");
        }
    }

    #[test]
    fn retry_after_is_honoured_within_a_second_and_ten_minutes() {
        for (wish, seconds) in [(0, 1), (7, 7), (600, 600), (86_400, 600)] {
            assert_eq!(slow_down(pass(9), Some(Duration::from_secs(wish))).as_secs(), seconds, "{wish}");
        }
    }

    #[test]
    fn a_blocked_lane_is_probed_ever_less_often_without_end() {
        let first = Duration::from_secs(30);
        for (probes, most) in [(0, 30), (1, 60), (3, 240), (9, 600), (1000, 600)] {
            let pause = probe_after(first, probes).as_secs_f64();
            assert!((f64::from(most) / 2.0..=f64::from(most)).contains(&pause), "{probes}: {pause}");
        }
    }

    #[tokio::test]
    async fn a_place_freed_in_this_process_ends_the_wait() {
        let gates = Gates::default();
        let gate = gates.of("lane");
        gates.of("lane").freed();
        tokio::time::timeout(Duration::from_secs(5), gate.place(Duration::from_secs(3600))).await.unwrap();
    }
}
