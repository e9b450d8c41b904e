//! Every table, and what bounds it.

/// What may be in a table once every task has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bound {
    /// A row for each of some things that came in.
    Work,
    /// So many, whatever came in.
    Most(u64),
    /// A row for each process that was not stopped in good order, and for those that run.
    Processes,
    /// A row for each death, at most.
    Deaths,
}

/// Name, bound, and the bound in words.
pub(super) const TABLES: &[(&str, Bound, &str)] = &[
    ("image_edit_tasks", Bound::Work, "a row a task: what became of it, for producers; nothing removes it"),
    ("image_edit_calls", Bound::Work, "a row a distinct edit: what was paid for it; nothing removes it"),
    ("image_edit_cache", Bound::Work, "a row a distinct result: what is never paid for again"),
    (
        "dead_letters",
        Bound::Work,
        "a row a failure: open ones stay, decided ones go after RETOUCH_DEAD_RETENTION_DAYS",
    ),
    ("dead_letter_retries", Bound::Most(0), "a row a retry by a person; goes with its letter"),
    ("image_edit_waits", Bound::Most(0), "an image that waits; goes when its edit ends"),
    ("suspects", Bound::Deaths, "what a death interrupted; goes when it ends"),
    ("provider_tasks", Bound::Work, "an accepted call of the last 48 hours"),
    ("replicas", Bound::Processes, "a running worker; one that was killed goes after an hour"),
    ("cancels", Bound::Most(0), "a cancelled task that never came; goes with age"),
    ("image_edit_gone", Bound::Most(0), "an entry that left the cache; goes after 90 days"),
    (
        "dropped_blobs",
        Bound::Deaths,
        "a blob that was deleted, or a result whose call was lost; goes after a day",
    ),
    ("cache_chores", Bound::Most(2), "a row a chore"),
    ("lanes", Bound::Most(16), "a row a lane, as configured"),
    ("installation", Bound::Most(1), "the database's own id"),
    ("spending", Bound::Most(99), "a row a day, lane, model, currency and outcome"),
    ("broker_messages", Bound::Most(0), "the embedded broker's"),
    ("retouch_migrations", Bound::Most(99), "a row a version of the schema"),
];

/// The entry of a table.
pub(super) fn find(name: &str) -> Option<&'static (&'static str, Bound, &'static str)> {
    TABLES.iter().find(|(known, ..)| *known == name)
}
