//! What everything holds at one moment: processes, queues, tables.

use std::collections::BTreeMap;
use std::time::Duration;

use super::fleet::Fleet;
use crate::broker::Queue;
use crate::paid::Paid;

/// One process.
#[derive(Debug, Clone, Copy)]
pub struct Process {
    /// The first one is never replaced.
    pub slot: usize,
    /// Since its start.
    pub age: Duration,
    /// Resident memory, in KiB.
    pub memory: u64,
    /// Open file descriptors.
    pub files: u64,
}

/// One moment.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Since the first message.
    pub at: Duration,
    /// Those that ran.
    pub processes: Vec<Process>,
    /// Messages in each queue, those that a worker has included.
    pub queues: BTreeMap<String, u64>,
    /// Rows of each table.
    pub tables: BTreeMap<String, u64>,
}

impl Sample {
    /// Takes one.
    pub async fn take(paid: &Paid, fleet: &Fleet, at: Duration) -> Self {
        let processes = fleet.seen().into_iter().filter_map(|seen| {
            // One may end between the list and the look.
            let status = std::fs::read_to_string(format!("/proc/{}/status", seen.pid)).ok()?;
            let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
            let memory = memory.trim().trim_end_matches(" kB").parse().ok()?;
            let files = std::fs::read_dir(format!("/proc/{}/fd", seen.pid)).ok()?.count() as u64;
            Some(Process { slot: seen.slot, age: seen.age, memory, files })
        });
        let processes = processes.collect();
        let prefix = format!("{}.", paid.site.env.namespace());
        let depth = |Queue { name, ready, unacknowledged }: Queue| {
            (name.trim_start_matches(&prefix).to_owned(), ready + unacknowledged)
        };
        let queues = paid.site.env.queues().await.into_iter().map(depth).collect();
        Self { at, processes, queues, tables: rows(paid).await }
    }

    /// Messages in all queues.
    #[must_use]
    pub fn depth(&self) -> u64 {
        self.queues.values().sum()
    }

    /// The process that is never replaced.
    #[must_use]
    pub fn first(&self) -> Option<Process> {
        self.processes.iter().find(|process| process.slot == 0).copied()
    }
}

async fn rows(paid: &Paid) -> BTreeMap<String, u64> {
    let names =
        "SELECT CAST(table_name AS CHAR) FROM information_schema.tables WHERE table_schema = DATABASE()";
    let names = paid.site.texts(names).await;
    let counts: Vec<_> = names
        .iter()
        .map(|name| format!("SELECT CAST(CONCAT('{name} ', COUNT(*)) AS CHAR) FROM {name}"))
        .collect();
    let rows = paid.site.texts(&counts.join(" UNION ALL ")).await;
    let row = |row: &String| {
        let (name, count) = row.split_once(' ').unwrap();
        (name.to_owned(), count.parse().unwrap())
    };
    rows.iter().map(row).collect()
}
