//! Blobs that are to go, on SQLite.

use crate::store::dropped::DroppedStatements;

/// Which of a JSON list of digests are in one indexed column.
macro_rules! named {
    ($table:literal, $column:literal, $but:literal) => {
        concat!(
            "SELECT j.value FROM json_each(?) j CROSS JOIN ",
            $table,
            " c ON c.",
            $column,
            " = j.value ",
            $but
        )
    };
}

/// Whether one of a JSON list of marks was dropped within so many milliseconds.
macro_rules! was_dropped {
    ($what:literal) => {
        concat!(
            "SELECT ",
            $what,
            " FROM dropped_blobs WHERE mark IN (SELECT unhex(value) FROM json_each(?1)) \
            AND (deleted_at IS NULL OR deleted_at > strftime('%Y-%m-%d %H:%M:%f', 'now', (?2 / -1000.0) || ' seconds'))"
        )
    };
}
pub(super) use was_dropped;

pub(super) static DROPPED: DroppedStatements = DroppedStatements {
    drop: "INSERT INTO dropped_blobs (mark, hash, dropped_at) \
        SELECT unhex(j.value ->> 'mark'), j.value ->> 'hash', strftime('%Y-%m-%d %H:%M:%f', 'now') FROM json_each(?) j WHERE true \
        ON CONFLICT (mark) DO UPDATE SET claimed_until = iif(deleted_at IS NULL, claimed_until, NULL), hash = excluded.hash, \
            dropped_at = excluded.dropped_at, deleted_at = NULL",
    pending: "SELECT hash FROM dropped_blobs WHERE deleted_at IS NULL \
            AND (claimed_until IS NULL OR claimed_until < strftime('%Y-%m-%d %H:%M:%f', 'now')) ORDER BY dropped_at LIMIT ?",
    claim: "UPDATE dropped_blobs SET claimed_until = strftime('%Y-%m-%d %H:%M:%f', 'now', (?2 / 1000.0) || ' seconds') \
        WHERE mark IN (SELECT unhex(value) FROM json_each(?1))",
    still: "SELECT count(*) FROM dropped_blobs WHERE mark IN (SELECT unhex(value) FROM json_each(?)) AND deleted_at IS NULL",
    named: [
        named!("image_edit_calls", "image_hash", "WHERE c.state <> 'done'"),
        named!("image_edit_calls", "mask_hash", "WHERE c.state <> 'done'"),
        named!("image_edit_calls", "result_hash", "WHERE c.state NOT IN ('done', 'failed')"),
        named!("image_edit_cache", "result_hash", ""),
        named!("dead_letters", "payload_blob", ""),
        named!("image_edit_calls", "answer_hash", ""),
        named!("dead_letters", "kept_blob", ""),
    ],
    keep: "DELETE FROM dropped_blobs WHERE mark IN (SELECT unhex(value) FROM json_each(?)) AND deleted_at IS NULL",
    deleted: "UPDATE dropped_blobs SET deleted_at = strftime('%Y-%m-%d %H:%M:%f', 'now'), hash = NULL, claimed_until = NULL \
        WHERE mark IN (SELECT unhex(value) FROM json_each(?)) AND deleted_at IS NULL",
    give_back: "UPDATE dropped_blobs SET claimed_until = NULL \
        WHERE mark IN (SELECT unhex(value) FROM json_each(?)) AND deleted_at IS NULL",
    was_dropped: concat!(was_dropped!("1"), " LIMIT 1"),
    forget: "DELETE FROM dropped_blobs WHERE deleted_at < strftime('%Y-%m-%d %H:%M:%f', 'now', (? / -1000.0) || ' seconds')",
    take_chore: "SELECT position FROM cache_chores WHERE name = ? AND due_at <= strftime('%Y-%m-%d %H:%M:%f', 'now')",
    end_chore: "UPDATE cache_chores SET position = ?, due_at = strftime('%Y-%m-%d %H:%M:%f', 'now', (? / 1000.0) || ' seconds') WHERE name = ?",
};
