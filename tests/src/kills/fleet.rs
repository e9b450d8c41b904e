//! Worker processes that die again and again, each by a random or chosen fate, and are replaced at once.

use std::collections::{BTreeMap, VecDeque};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use retouch_worker::failpoint::STEPS;
use tokio::sync::broadcast;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::paid::Paid;
use crate::program::{Program, Running};

/// How a worker dies.
#[derive(Debug, Clone, PartialEq)]
pub enum Fate {
    /// By `kill -9`, so long after its start.
    After(Duration),
    /// At the n-th hit of this point; by `kill -9` if it is not hit within this time.
    At(String, u32, Duration),
}

/// All fail-points, in the order of a life.
#[must_use]
pub fn points() -> Vec<String> {
    STEPS.iter().flat_map(|step| [format!("{step}:before"), format!("{step}:after")]).collect()
}

/// Half of the fates at points, each in its turn, half at random moments, some during startup. No worker
/// lives longer than `longest`.
#[must_use]
pub fn fates(count: usize, seed: u64, longest: Duration) -> VecDeque<Fate> {
    let mut dice = StdRng::seed_from_u64(seed);
    let mut points = points().into_iter().cycle().skip(usize::try_from(seed % 48).unwrap_or(0));
    let fate = |nth: usize| {
        if nth.is_multiple_of(2) {
            let hits = *[1, 1, 2, 5].choose(&mut dice).unwrap();
            return Fate::At(points.next().unwrap(), hits, longest);
        }
        Fate::After(dice.random_range(longest / 15..longest))
    };
    (0..count).map(fate).collect()
}

/// What killed how many.
#[derive(Debug, Clone, Default)]
pub struct Deaths {
    /// By `kill -9` from outside.
    pub killed: u64,
    /// By the point where they died.
    pub at: BTreeMap<String, u64>,
    /// Workers that ended otherwise, with the end of their log: a mistake of the worker or of the test.
    pub odd: Vec<String>,
}

impl Deaths {
    /// Fates that were met, however it went.
    #[must_use]
    pub fn met(&self) -> usize {
        usize::try_from(self.all()).unwrap() + self.odd.len()
    }

    /// Deaths at points that are certainly between the commit before a submit and the commit of its answer.
    /// An answer with an address is being fetched by then, so some deaths at `fetch_result` count too.
    #[must_use]
    pub fn while_sending(&self) -> u64 {
        let points = ["begin_submit:after", "send:before", "send:after", "record_submitted:before"];
        points.iter().filter_map(|point| self.at.get(*point)).sum()
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> u64 {
        self.killed + self.at.values().sum::<u64>()
    }
}

/// What the slots share.
struct Shared {
    fates: Mutex<VecDeque<Fate>>,
    deaths: Mutex<Deaths>,
    died: broadcast::Sender<usize>,
    settings: PathBuf,
    spare: CancellationToken,
}

/// The processes: as many at a time as there are slots.
pub struct Fleet {
    shared: Arc<Shared>,
    slots: JoinSet<()>,
    end: CancellationToken,
}

impl Fleet {
    /// Starts them. After the last fate, or [`Fleet::spare`], workers live on.
    #[must_use]
    pub fn start(paid: &Arc<Paid>, toml: &str, slots: usize, fates: VecDeque<Fate>) -> Self {
        let settings = paid.site.env.folder().join("fleet.toml");
        std::fs::write(&settings, toml).unwrap();
        let (fates, deaths) = (Mutex::new(fates), Mutex::default());
        let (died, spare) = (broadcast::channel(1024).0, CancellationToken::new());
        let shared = Arc::new(Shared { fates, deaths, died, settings, spare });
        let end = CancellationToken::new();
        let mut fleet = Self { shared, slots: JoinSet::new(), end };
        for slot in 0..slots {
            let (paid, shared, end) = (Arc::clone(paid), Arc::clone(&fleet.shared), fleet.end.clone());
            fleet.slots.spawn(async move { keep_slot(&paid, &shared, slot, &end).await });
        }
        fleet
    }

    /// Tells the slot of every death.
    #[must_use]
    pub fn died(&self) -> broadcast::Receiver<usize> {
        self.shared.died.subscribe()
    }

    /// The deaths up to now.
    #[must_use]
    pub fn deaths(&self) -> Deaths {
        self.shared.deaths.lock().unwrap().clone()
    }

    /// Ends all deaths, also those of workers that have not met their fate yet.
    pub fn spare(&self) {
        self.shared.fates.lock().unwrap().clear();
        self.shared.spare.cancel();
    }

    /// Ends the processes.
    pub async fn end(mut self) {
        self.end.cancel();
        while let Some(slot) = self.slots.join_next().await {
            slot.unwrap();
        }
    }
}

async fn keep_slot(paid: &Paid, shared: &Shared, slot: usize, end: &CancellationToken) {
    while !end.is_cancelled() {
        let fate = shared.fates.lock().unwrap().pop_front();
        let lives_on = fate.is_none();
        let mut worker = start(paid, shared, fate.as_ref());
        let within = match &fate {
            Some(Fate::After(within) | Fate::At(_, _, within)) => *within,
            None => Duration::from_secs(3600),
        };
        tokio::select! {
            () = worker.ended() => {}
            () = tokio::time::sleep(within) => {}
            () = end.cancelled() => return,
            // A point that was not reached yet is no longer waited for.
            () = shared.spare.cancelled(), if !lives_on => {}
        }
        bury(shared, &mut worker, fate);
        // Fails only without a receiver.
        let _ = shared.died.send(slot);
    }
}

fn start(paid: &Paid, shared: &Shared, fate: Option<&Fate>) -> Running {
    let program: Program = paid
        .program(&["worker"], "")
        .env("RETOUCH_CONFIG", &shared.settings)
        .env("RETOUCH_LEASE_SECONDS", "1")
        // A crash here is never the fault of the work, however often it was under way.
        .env("RETOUCH_POISON_KILLS", "1000000")
        .env("RETOUCH_PATIENCE_SECONDS", "3")
        .env("RUST_LOG", "warn");
    match fate {
        Some(Fate::At(point, hits, _)) => {
            program.env("RETOUCH_TEST_FAILPOINTS", format!("{point}=kill@{hits}")).start()
        }
        Some(Fate::After(_)) | None => program.start(),
    }
}

/// Kills a live worker, and records the cause of death.
fn bury(shared: &Shared, worker: &mut Running, fate: Option<Fate>) {
    let status = worker.status();
    worker.kill9();
    let mut deaths = shared.deaths.lock().unwrap();
    match (status, fate) {
        (None, _) => deaths.killed += 1,
        (Some(status), Some(Fate::At(point, ..))) if status.signal() == Some(Signal::SIGABRT as i32) => {
            *deaths.at.entry(point).or_default() += 1;
        }
        (Some(status), fate) => {
            let said = worker.stderr();
            let tail: Vec<_> = said.lines().rev().take(5).collect();
            deaths.odd.push(format!("{status}, meant to die {fate:?}: {}", tail.join(" | ")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_is_the_fate_of_a_worker() {
        let mut met = std::collections::BTreeSet::new();
        for fate in fates(2 * points().len(), 12, Duration::from_secs(3)) {
            if let Fate::At(point, ..) = fate {
                met.insert(point);
            }
        }
        assert_eq!(met.len(), points().len());
    }
}
