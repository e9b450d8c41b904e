//! The names of queues and exchanges, and the wait ladder. Every name starts with the namespace, so that
//! several installations share one broker.

use std::time::Duration;

/// The wait ladder: one queue a rung, each with one fixed delay, because a message with a long delay at the
/// head of a queue holds back shorter ones.
pub const RUNGS: [Duration; 7] = [
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(30),
    Duration::from_secs(2 * 60),
    Duration::from_secs(10 * 60),
    Duration::from_secs(30 * 60),
    Duration::from_secs(2 * 60 * 60),
];

/// The shortest rung that waits at least `delay`; the longest where none does.
pub fn rung_for(delay: Duration) -> Duration {
    RUNGS.into_iter().find(|rung| *rung >= delay).unwrap_or(RUNGS[RUNGS.len() - 1])
}

/// The delivery limit of every work queue, given explicitly because its default differs by broker version.
pub const DELIVERY_LIMIT: u32 = 20;

/// All names under one namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    namespace: String,
}

/// The namespace that is used when none is set.
pub const DEFAULT_NAMESPACE: &str = "retouch";
/// The routing key of tasks on the exchange.
pub const TASKS_KEY: &str = "tasks";
/// The routing key of dead messages.
pub const DEAD_KEY: &str = "dead";

/// Not usable as a namespace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the namespace {0:?} must be 1-40 of [A-Za-z0-9._-]")]
pub struct BadNamespace(String);

impl Topology {
    /// The names under `namespace`.
    ///
    /// # Errors
    /// [`BadNamespace`] unless it is 1-40 of `[A-Za-z0-9._-]`.
    pub fn new(namespace: &str) -> Result<Self, BadNamespace> {
        let fits = (1..=40).contains(&namespace.len())
            && namespace.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if fits {
            Ok(Self { namespace: namespace.to_owned() })
        } else {
            Err(BadNamespace(namespace.to_owned()))
        }
    }

    /// The direct exchange that producers publish to, and that expired wait messages return to.
    pub fn exchange(&self) -> &str {
        &self.namespace
    }

    /// The topic exchange of events.
    pub fn events_exchange(&self) -> String {
        format!("{}.events", self.namespace)
    }

    /// The exchange for messages that cannot be worked on.
    pub fn dead_exchange(&self) -> String {
        format!("{}.dead", self.namespace)
    }

    /// The queue of tasks, bound with [`TASKS_KEY`].
    pub fn tasks_queue(&self) -> String {
        format!("{}.tasks", self.namespace)
    }

    /// The queue of dead messages, drained into the `dead_letters` table.
    pub fn dead_queue(&self) -> String {
        format!("{}.dead", self.namespace)
    }

    /// The exchange that records the database of the namespace, by its alternate exchange:
    /// [`Topology::installation_of`] that database. Nothing is published to either.
    pub fn installation_exchange(&self) -> String {
        format!("{}.installation", self.namespace)
    }

    /// The exchange that exists while the namespace belongs to the database with this id.
    pub fn installation_of(&self, id: &str) -> String {
        format!("{}.{id}", self.installation_exchange())
    }

    /// The queue of one lane's edits, bound with [`Topology::edits_key`].
    pub fn edits_queue(&self, lane: &str) -> String {
        format!("{}.edits.{lane}", self.namespace)
    }

    /// The routing key of one lane's edits.
    pub fn edits_key(lane: &str) -> String {
        format!("edits.{lane}")
    }

    /// Whether this is the name of a queue that workers consume, or of a rung of the wait ladder.
    pub fn owns(&self, queue: &str) -> bool {
        let own = queue.strip_prefix(&self.namespace).and_then(|name| name.strip_prefix('.'));
        own.is_some_and(|name| {
            matches!(name, TASKS_KEY | DEAD_KEY) || name.starts_with("edits.") || name.starts_with("wait.")
        })
    }

    /// The fanout exchange and the queue of one rung (they share the name).
    pub fn wait(&self, rung: Duration) -> String {
        format!("{}.wait.{}s", self.namespace, rung.as_secs())
    }
}

impl Default for Topology {
    fn default() -> Self {
        Self { namespace: DEFAULT_NAMESPACE.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_is_rounded_up_to_a_rung() {
        for (asked, rung) in [(0, 1), (1, 1), (2, 5), (31, 120), (7200, 7200), (99_999, 7200)] {
            assert_eq!(rung_for(Duration::from_secs(asked)), Duration::from_secs(rung), "{asked} s");
        }
    }

    #[test]
    fn the_workers_own_queues_are_told_from_those_of_producers() {
        let topology = Topology::new("ns").unwrap();
        let own = [
            topology.tasks_queue(),
            topology.dead_queue(),
            topology.edits_queue("a"),
            topology.wait(RUNGS[2]),
        ];
        assert!(own.iter().all(|queue| topology.owns(queue)), "{own:?}");
        for others in ["ns.replies", "ns", "tasks", "other.tasks", "amq.gen-1", ""] {
            assert!(!topology.owns(others), "{others}");
        }
    }

    #[test]
    fn a_namespace_that_would_not_fit_a_queue_name_is_refused() {
        for bad in ["", "a b", "é", "a/b", &"x".repeat(41)] {
            assert!(Topology::new(bad).is_err(), "{bad:?}");
        }
        assert_eq!(Topology::new("t.1").unwrap().edits_queue("local"), "t.1.edits.local");
    }
}
