//! Worker processes of which all but the first are stopped or killed in turn, and replaced.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::paid::Paid;
use crate::program::Running;
use crate::services::Port;
use crate::site::working;

/// The provider's lane as wide as the load needs; its own limits are two a second and two at a time.
const LANES: &str =
    "[lanes.\"dashscope.wanx2.1-imageedit\"]\nconcurrency = 8\nmax_in_flight = 32\nper_second = 1000\n";
/// Of so many one is killed instead of stopped.
const KILL_EVERY: u64 = 3;
/// More than a worker's grace period and what it needs to give the rest back.
const STOP: Duration = Duration::from_secs(60);

/// One process.
struct Member {
    worker: Running,
    since: Instant,
    _port: Port,
}

/// A running process.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// The first slot's process is never replaced.
    pub slot: usize,
    /// Its process id.
    pub pid: i32,
    /// Since its start.
    pub age: Duration,
}

/// What became of those that ended.
#[derive(Debug, Clone, Default)]
pub struct Ends {
    /// By SIGTERM.
    pub stopped: u64,
    /// By SIGKILL.
    pub killed: u64,
    /// The longest that a stop took.
    pub slowest: Duration,
    /// Those that ended otherwise than they should, with the end of what they said.
    pub odd: Vec<String>,
}

/// The processes.
pub struct Fleet {
    paid: Arc<Paid>,
    /// `None` while one is replaced.
    slots: Mutex<Vec<Option<Member>>>,
    ends: Mutex<Ends>,
    /// What those said that have ended.
    said: Mutex<Vec<String>>,
}

impl Fleet {
    /// Starts them.
    pub async fn start(paid: &Arc<Paid>, workers: usize) -> Self {
        let fleet = Self {
            paid: Arc::clone(paid),
            slots: Mutex::default(),
            ends: Mutex::default(),
            said: Mutex::default(),
        };
        for _ in 0..workers {
            let member = fleet.member().await;
            fleet.slots.lock().unwrap().push(Some(member));
        }
        fleet
    }

    async fn member(&self) -> Member {
        let port = Port::free().unwrap();
        let address = format!("127.0.0.1:{}", port.number());
        // Metrics without scrapes, which must not make it grow either.
        let variables = [("RETOUCH_HTTP", address.as_str()), ("RETOUCH_LEASE_SECONDS", "5")];
        let set = |program: crate::program::Program, (name, value): &(&str, &str)| program.env(name, value);
        let program = self.paid.program(&["worker"], LANES);
        let worker = variables.iter().fold(program, set).start();
        working(&worker).await;
        Member { worker, since: Instant::now(), _port: port }
    }

    /// Ends the next one and replaces it; not the first. One call after the other.
    pub async fn replace(&self, nth: u64) {
        let count = self.slots.lock().unwrap().len();
        if count < 2 {
            return;
        }
        let slot = 1 + usize::try_from(nth).unwrap() % (count - 1);
        let Some(mut member) = self.slots.lock().unwrap()[slot].take() else { return };
        if nth % KILL_EVERY == 1 {
            member.worker.kill9();
            self.ends.lock().unwrap().killed += 1;
        } else {
            self.stop(&mut member).await;
        }
        self.said.lock().unwrap().push(member.worker.stderr());
        drop(member);
        let next = self.member().await;
        self.slots.lock().unwrap()[slot] = Some(next);
    }

    async fn stop(&self, member: &mut Member) {
        let asked = Instant::now();
        member.worker.terminate();
        let ended = tokio::time::timeout(STOP, member.worker.ended()).await;
        let mut ends = self.ends.lock().unwrap();
        ends.stopped += 1;
        ends.slowest = ends.slowest.max(asked.elapsed());
        let status = member.worker.status();
        if ended.is_err() || status.is_none_or(|status| !status.success()) {
            let said = member.worker.stderr();
            let tail: Vec<_> = said.lines().rev().take(5).collect();
            ends.odd.push(format!("told to stop: {status:?}: {}", tail.join(" | ")));
        }
    }

    /// Those that run.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        let slots = self.slots.lock().unwrap();
        let running = slots.iter().enumerate().filter_map(|(slot, member)| Some((slot, member.as_ref()?)));
        running
            .map(|(slot, member)| Seen { slot, pid: member.worker.pid(), age: member.since.elapsed() })
            .collect()
    }

    /// How those ended that did.
    #[must_use]
    pub fn ends(&self) -> Ends {
        self.ends.lock().unwrap().clone()
    }

    /// Stops all of them, which must go well for each, and returns what all said.
    pub async fn end(self) -> (Ends, Vec<String>) {
        let members: Vec<_> = self.slots.lock().unwrap().drain(..).flatten().collect();
        for mut member in members {
            if let Some(status) = member.worker.status() {
                self.ends.lock().unwrap().odd.push(format!("not told to stop: {status}"));
            }
            self.stop(&mut member).await;
            self.said.lock().unwrap().push(member.worker.stderr());
        }
        (self.ends.into_inner().unwrap(), self.said.into_inner().unwrap())
    }
}
