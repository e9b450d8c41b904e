//! What is read for `/metrics`, for MySQL 8 and MariaDB 10.6+. Every query runs over an index that holds only what is not over.

use crate::store::readings::ReadingsStatements;

pub(in crate::store) static READINGS: ReadingsStatements = ReadingsStatements {
    // Only calls that are not over have a `wake_at`.
    calls: "SELECT lane, state, COUNT(*), CAST(COALESCE(SUM(lease_until > UTC_TIMESTAMP(3)), 0) AS SIGNED) \
        FROM image_edit_calls FORCE INDEX (wake_at) WHERE wake_at IS NOT NULL GROUP BY lane, state",
    oldest: "SELECT c.lane, CAST(TIMESTAMPDIFF(MICROSECOND, MIN(w.created_at), UTC_TIMESTAMP(3)) DIV 1000 AS SIGNED) \
        FROM image_edit_waits w STRAIGHT_JOIN image_edit_calls c FORCE INDEX (PRIMARY) ON c.edit_key = w.edit_key \
        WHERE c.state IN ('queued', 'claimed') GROUP BY c.lane",
    dead: "SELECT reason, COUNT(*) FROM dead_letters WHERE state = 'open' GROUP BY reason",
    events_due: "SELECT COUNT(*) FROM image_edit_tasks WHERE event_due IS NOT NULL",
};
