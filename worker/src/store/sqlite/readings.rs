//! What is read for `/metrics`, for SQLite. Every query runs over an index that holds only what is not over.

use crate::store::readings::ReadingsStatements;

pub(in crate::store) static READINGS: ReadingsStatements = ReadingsStatements {
    // Only calls that are not over have a `wake_at`.
    calls: "SELECT lane, state, count(*), coalesce(sum(lease_until > strftime('%Y-%m-%d %H:%M:%f', 'now')), 0) \
        FROM image_edit_calls WHERE wake_at IS NOT NULL GROUP BY lane, state",
    oldest: "SELECT c.lane, CAST((unixepoch('now', 'subsec') - unixepoch(min(w.created_at), 'subsec')) * 1000 AS INTEGER) \
        FROM image_edit_waits w CROSS JOIN image_edit_calls c ON c.edit_key = w.edit_key \
        WHERE c.state IN ('queued', 'claimed') GROUP BY c.lane",
    dead: "SELECT reason, count(*) FROM dead_letters WHERE state = 'open' GROUP BY reason",
    events_due: "SELECT count(*) FROM image_edit_tasks WHERE event_due IS NOT NULL",
};
