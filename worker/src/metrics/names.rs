//! Every metric: name, type, labels and help text. docs/operations/metrics.md has the same list as a table,
//! and a test compares the two.

/// The Prometheus type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows while the process lives.
    Counter,
    /// A current value.
    Gauge,
    /// Durations, in buckets.
    Histogram,
}

impl Kind {
    /// The word of the exposition format.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Declared {
    /// Including its base unit.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// The names of its labels, without `le`.
    pub labels: &'static [&'static str],
    /// The help text.
    pub help: &'static str,
}

macro_rules! declare {
    ($($name:ident = $kind:ident $text:literal [$($label:literal),*] $help:literal;)*) => {
        $(
            #[doc = $help]
            pub(crate) const $name: Declared =
                Declared { name: $text, kind: Kind::$kind, labels: &[$($label),*], help: $help };
        )*
        /// All of them, in the order of the documentation.
        pub const DECLARED: &[Declared] = &[$($name),*];
    };
}

declare! {
    IMAGES = Counter "retouch_images_total" ["source"]
        "Images answered, by source: hit (from the cache), joined (by another image's call), paid (by its own call), failed.";
    TASKS_ACCEPTED = Counter "retouch_tasks_accepted_total" []
        "Tasks taken in; the same task again is not counted again.";
    TASKS = Counter "retouch_tasks_total" ["status"]
        "Tasks that ended, by status: completed, partial, failed.";
    PAID_CALLS = Counter "retouch_paid_calls_total" ["model", "currency"]
        "Calls that ended and are charged. Free ones count too, with a price of 0.";
    PAID_MONEY = Counter "retouch_paid_money_total" ["model", "currency"]
        "Money that bought a picture, in whole units of the currency.";
    LOST_MONEY = Counter "retouch_lost_money_total" ["model", "currency", "reason"]
        "Money that bought nothing, by reason code; ambiguous: submits without an answer, which the provider may have charged.";
    SAVED_MONEY = Counter "retouch_saved_money_total" ["model", "currency"]
        "What hit and joined images would have cost, in whole units of the currency.";
    AMBIGUOUS_CALLS = Counter "retouch_ambiguous_calls_total" ["lane"]
        "Submits without an answer, so that their acceptance was unknown.";
    POSSIBLE_DUPLICATES = Counter "retouch_possible_duplicates_total" ["lane"]
        "Ambiguous calls that were sent once more, and may be paid twice.";
    INTAKE_DURATION = Histogram "retouch_intake_duration_seconds" ["outcome"]
        "Time that intake worked on a task message, by what became of it: done, delayed, dead, handed_back.";
    CALL_PHASE_DURATION = Histogram "retouch_call_phase_duration_seconds" ["lane", "phase"]
        "Time that a call spent in one phase: lane_wait, submit, run (at the provider, until a poll brings the result), fetch, store, finish (of the last two, each try).";
    CALL_DURATION = Histogram "retouch_call_duration_seconds" ["lane"]
        "Time of a whole call that ended well, from its claim (or its submit, where another process sent it) to the finish.";
    DELIVERIES = Counter "retouch_deliveries_total" ["queue", "outcome"]
        "Messages worked on, by queue and what became of them: done, delayed, dead, handed_back.";
    REDELIVERIES = Counter "retouch_redeliveries_total" ["queue"]
        "Messages that had been delivered before: a worker died or lost its connection with them.";
    LOST_ACKS = Counter "retouch_lost_acks_total" ["queue"]
        "Acknowledgements that the broker did not hear; the message comes again and nothing is paid again.";
    DATABASE_ERRORS = Counter "retouch_database_errors_total" ["kind"]
        "Statements that did not work: conflict (tried again), unavailable (the work is held), failed (needs attention).";
    BLOB_ERRORS = Counter "retouch_blob_errors_total" ["kind"]
        "Blobs that could not be had or kept: unavailable (the work is held), corrupt or missing (made again).";
    CONSUMER_UP = Gauge "retouch_consumer_up" ["queue"]
        "1 while this worker consumes the queue, 0 while it does not.";
    QUEUE_READY = Gauge "retouch_queue_messages_ready" ["queue"]
        "Messages that wait in a queue. The same on every worker: use max, not sum.";
    CALLS = Gauge "retouch_calls" ["lane", "state"]
        "Calls that are not over, by state. The same on every worker: use max, not sum.";
    LEASES = Gauge "retouch_leases" ["lane"]
        "Calls that some worker holds a lease on. The same on every worker: use max, not sum.";
    OLDEST_QUEUED = Gauge "retouch_oldest_queued_seconds" ["lane"]
        "How long the longest waiting image has been waiting for a call that was not sent yet; 0 when none waits. The same on every worker.";
    DEAD_LETTERS = Gauge "retouch_dead_letters" ["reason"]
        "Open dead letters, by reason. The same on every worker: use max, not sum.";
    EVENTS_DUE = Gauge "retouch_events_due" []
        "Ended tasks whose event the broker has not confirmed yet. The same on every worker.";
    TODAY_IMAGES = Gauge "retouch_today_images" ["source"]
        "Images answered of tasks that ended on this UTC day, by source, as the database has them. The same on every worker: use max, not sum.";
    TODAY_PAID = Gauge "retouch_today_paid_money" ["currency"]
        "Money paid for the images of tasks that ended on this UTC day, as the database has it. The same on every worker: use max, not sum.";
    TODAY_SAVED = Gauge "retouch_today_saved_money" ["currency"]
        "What hit and joined images of tasks that ended on this UTC day would have cost, as the database has it. The same on every worker: use max, not sum.";
    TODAY_LOST = Gauge "retouch_today_lost_money" ["currency"]
        "Money spent, or perhaps spent, for nothing for the images of tasks that ended on this UTC day, as the database has it. The same on every worker: use max, not sum.";
    SPENT_TODAY = Gauge "retouch_spent_today_money" ["lane", "currency", "outcome"]
        "Money of calls whose outcome was known on this UTC day: result, unwanted (a picture that no image waited for), ambiguous (perhaps charged), or why it bought nothing. The same on every worker.";
    LANE_STATE = Gauge "retouch_lane_state" ["lane", "state"]
        "1 for the state that the lane is in, 0 for the others: open, blocked (by its provider or its budget), paused (by a person).";
    UNFETCHED_RESULTS = Gauge "retouch_unfetched_results" ["lane"]
        "Paid results that cannot be fetched now; `retouch lanes` says from which host and why. The same on every worker: use max, not sum.";
    LANE_SPENT = Gauge "retouch_lane_spent_money" ["lane", "currency"]
        "Money spent on this UTC day, what is under way included, in whole units of the currency.";
    LANE_BUDGET = Gauge "retouch_lane_budget_money" ["lane", "currency"]
        "Most that the lane may spend in a UTC day; absent where there is no limit.";
    SCRAPE_ERRORS = Counter "retouch_scrape_errors_total" ["source"]
        "Times that figures could not be had for /metrics, by where they come from: database, broker. They are absent then.";
    BUILD_INFO = Gauge "retouch_build_info" ["version", "database", "broker"]
        "Always 1; what runs here.";
    PROCESS_START = Gauge "process_start_time_seconds" []
        "When this process began, in seconds since 1970.";
    PROCESS_MEMORY = Gauge "process_resident_memory_bytes" []
        "Memory that this process holds; on Linux only.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_conventions_of_prometheus() {
        let mut seen = std::collections::BTreeSet::new();
        for Declared { name, kind, labels, help } in DECLARED {
            assert!(seen.insert(name), "{name} is there twice");
            assert!(name.starts_with("retouch_") || name.starts_with("process_"), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
            assert!(*kind != Kind::Histogram || name.ends_with("_seconds"), "{name}");
            for wrong in ["_ms", "_millis", "_micros", "_minutes", "_kb", "_percent"] {
                assert!(!name.contains(wrong), "{name} is not in base units");
            }
            let word = |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            assert!(word(name) && labels.iter().all(|label| word(label) && *label != "le"), "{name}");
            assert!(help.ends_with('.') && !help.contains('\n'), "{name}");
        }
    }
}
