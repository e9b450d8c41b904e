//! What the processes cost: processor time and memory, from /proc.

use std::collections::HashMap;
use std::time::Duration;

/// Ticks of /proc; the same on every Linux architecture that we run on.
const TICKS_A_SECOND: u64 = 100;

#[derive(Debug, Clone)]
struct Process {
    parent: i32,
    name: String,
    ticks: u64,
}

/// All processes at one moment.
#[derive(Debug, Clone)]
pub struct Moment(HashMap<i32, Process>);

impl Moment {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        let processes = entries.filter_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            // The process may have ended meanwhile.
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            Some((pid, process(&stat)?))
        });
        Self(processes.collect())
    }

    /// Processor time of a process and of all that it started and that still runs.
    #[must_use]
    pub fn tree(&self, root: i32) -> Duration {
        let members = self.0.iter().filter(|(pid, _)| self.is_below(**pid, |above| above == root));
        let ticks: u64 = members.map(|(_, process)| process.ticks).sum();
        Duration::from_millis(ticks * 1000 / TICKS_A_SECOND)
    }

    /// Processor time of a process itself.
    #[must_use]
    pub fn alone(&self, pid: i32) -> Duration {
        let ticks = self.0.get(&pid).map_or(0, |process| process.ticks);
        Duration::from_millis(ticks * 1000 / TICKS_A_SECOND)
    }

    /// Processor time of the run's own server of this name; none where the servers are not the run's own.
    #[must_use]
    pub fn server(&self, name: &str) -> Option<Duration> {
        let starter = self.starter()?;
        let server = self
            .0
            .iter()
            .find(|(pid, process)| process.name == name && self.is_below(**pid, |above| above == starter));
        server.map(|(pid, _)| self.tree(*pid))
    }

    /// `with-servers`, among our own ancestors.
    fn starter(&self) -> Option<i32> {
        let mut pid = std::process::id().cast_signed();
        while let Some(process) = self.0.get(&pid) {
            if process.name == "with-servers" {
                return Some(pid);
            }
            pid = process.parent;
        }
        None
    }

    /// Whether one of a process's ancestors, or itself, is so.
    fn is_below(&self, mut pid: i32, is: impl Fn(i32) -> bool) -> bool {
        // Entries read one after the other may form a ring.
        for _ in 0..64 {
            if is(pid) {
                return true;
            }
            match self.0.get(&pid) {
                Some(process) => pid = process.parent,
                None => return false,
            }
        }
        false
    }
}

/// A line of /proc/PID/stat: `pid (name) state ppid … utime stime …`; the name may hold anything.
fn process(stat: &str) -> Option<Process> {
    let (head, rest) = stat.rsplit_once(") ")?;
    let (_, name) = head.split_once(" (")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some(Process {
        parent: fields.get(1)?.parse().ok()?,
        name: name.to_owned(),
        ticks: ticks(11)? + ticks(12)?,
    })
}

/// Resident memory of a process in MiB.
#[must_use]
pub fn resident(pid: i32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a running process");
    kib.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}

/// The machine's load in the last minute.
#[must_use]
pub fn load() -> f64 {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap();
    load.split(' ').next().and_then(|load| load.parse().ok()).expect("a load")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_stat_is_read_for_any_process_name() {
        let line = "42 (a) b (c) S 7 42 42 0 -1 4194304 1 2 3 4 150 50 0 0 20 0 1 0 9 10 11";
        let process = process(line).unwrap();
        assert_eq!((process.parent, process.name.as_str(), process.ticks), (7, "a) b (c", 200));
    }

    #[test]
    fn this_process_is_there_has_a_parent_and_uses_memory() {
        let me = std::process::id().cast_signed();
        let now = Moment::now();
        assert!(now.0.contains_key(&me) && now.is_below(me, |above| above == now.0[&me].parent));
        assert!(resident(me) > 1.0 && load() >= 0.0);
    }
}
