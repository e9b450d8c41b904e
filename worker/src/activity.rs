//! Current work of this process, counted for people: no decision depends on it.

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use serde::{Deserialize, Serialize};

/// Phase of a call in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Waiting for a place in its lane.
    Waiting,
    /// At the provider, not yet accepted or answered.
    Sending,
    /// At the provider, polled from time to time.
    Polling,
    /// On its way into our blobs and tables.
    Keeping,
}

/// The counts.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    intake: AtomicU32,
    calls: [AtomicU32; 4],
}

/// Calls by phase.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Calls {
    /// Waiting for a place in their lane.
    pub waiting: u32,
    /// Not yet accepted or answered.
    pub sending: u32,
    /// Polled from time to time.
    pub polling: u32,
    /// On their way into our blobs and tables.
    pub keeping: u32,
}

impl Activity {
    /// Counts a task in intake, until this is dropped.
    pub(crate) fn intake(&self) -> TakingIn<'_> {
        self.intake.fetch_add(1, Ordering::Relaxed);
        TakingIn(&self.intake)
    }

    /// Counts a call at work, until this is dropped.
    pub(crate) fn call(&self) -> CallAt<'_> {
        self.calls[Phase::Waiting as usize].fetch_add(1, Ordering::Relaxed);
        CallAt { activity: self, phase: AtomicU8::new(Phase::Waiting as u8) }
    }

    /// Tasks in intake.
    pub(crate) fn tasks(&self) -> u32 {
        self.intake.load(Ordering::Relaxed)
    }

    /// Calls at work, by phase.
    pub(crate) fn calls(&self) -> Calls {
        let [waiting, sending, polling, keeping] =
            [0, 1, 2, 3].map(|phase: usize| self.calls[phase].load(Ordering::Relaxed));
        Calls { waiting, sending, polling, keeping }
    }
}

/// See [`Activity::intake`].
pub(crate) struct TakingIn<'a>(&'a AtomicU32);

impl Drop for TakingIn<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// See [`Activity::call`].
pub(crate) struct CallAt<'a> {
    activity: &'a Activity,
    phase: AtomicU8,
}

impl CallAt<'_> {
    /// Moves the call to a phase.
    pub(crate) fn at(&self, phase: Phase) {
        let before = self.phase.swap(phase as u8, Ordering::Relaxed);
        self.activity.calls[phase as usize].fetch_add(1, Ordering::Relaxed);
        self.activity.calls[usize::from(before)].fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for CallAt<'_> {
    fn drop(&mut self) {
        let phase = self.phase.load(Ordering::Relaxed);
        self.activity.calls[usize::from(phase)].fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_counted_in_its_current_phase_only() {
        let activity = Activity::default();
        let (call, other) = (activity.call(), activity.call());
        call.at(Phase::Sending);
        call.at(Phase::Polling);
        assert_eq!(activity.calls(), Calls { waiting: 1, polling: 1, ..Calls::default() });
        drop((call, other));
        assert_eq!(activity.calls(), Calls::default());
        let taking_in = activity.intake();
        assert_eq!(activity.tasks(), 1);
        drop(taking_in);
        assert_eq!(activity.tasks(), 0);
    }
}
