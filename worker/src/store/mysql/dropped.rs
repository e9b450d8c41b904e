//! Blobs that are to go, on MySQL and MariaDB.

use crate::store::dropped::DroppedStatements;

/// A JSON list of marks as `d`, row by row through the primary key.
macro_rules! marks_of_j {
    () => {
        concat!(keys!(), " STRAIGHT_JOIN dropped_blobs d FORCE INDEX (PRIMARY) ON d.mark = UNHEX(j.k) ")
    };
}

pub(super) use marks_of_j;

/// Which of a JSON list of digests are in one indexed column. The lock waits for rows that are being written.
macro_rules! named {
    ($table:literal, $column:literal, $but:literal) => {
        concat!(
            "SELECT j.k FROM ",
            keys!(),
            " STRAIGHT_JOIN ",
            $table,
            " c FORCE INDEX (",
            $column,
            ") ON c.",
            $column,
            " = j.k ",
            $but,
            " FOR UPDATE"
        )
    };
}

/// Whether one of a JSON list of marks was dropped within so many milliseconds.
macro_rules! was_dropped {
    ($what:literal) => {
        concat!(
            "SELECT ",
            $what,
            " FROM ",
            $crate::store::mysql::dropped::marks_of_j!(),
            "WHERE d.deleted_at IS NULL OR d.deleted_at > UTC_TIMESTAMP(3) - INTERVAL ? * 1000 MICROSECOND"
        )
    };
}
pub(super) use was_dropped;

pub(super) static DROPPED: DroppedStatements = DroppedStatements {
    // `claimed_until` first: MySQL sees the columns that it has assigned already.
    drop: "INSERT INTO dropped_blobs (mark, hash, dropped_at) SELECT UNHEX(j.mark), j.hash, UTC_TIMESTAMP(3) \
        FROM JSON_TABLE(?, '$[*]' COLUMNS (mark CHAR(64) CHARACTER SET ascii PATH '$.mark', hash CHAR(64) CHARACTER SET ascii PATH '$.hash')) j \
        ON DUPLICATE KEY UPDATE claimed_until = IF(dropped_blobs.deleted_at IS NULL, dropped_blobs.claimed_until, NULL), \
            hash = VALUES(hash), dropped_at = VALUES(dropped_at), deleted_at = NULL",
    pending: "SELECT hash FROM dropped_blobs WHERE deleted_at IS NULL AND (claimed_until IS NULL OR claimed_until < UTC_TIMESTAMP(3)) \
        ORDER BY dropped_at LIMIT ? FOR UPDATE SKIP LOCKED",
    claim: concat!(
        "UPDATE ",
        marks_of_j!(),
        "SET d.claimed_until = UTC_TIMESTAMP(3) + INTERVAL ? * 1000 MICROSECOND"
    ),
    still: concat!("SELECT COUNT(*) FROM ", marks_of_j!(), "WHERE d.deleted_at IS NULL"),
    named: [
        named!("image_edit_calls", "image_hash", "WHERE c.state <> 'done'"),
        named!("image_edit_calls", "mask_hash", "WHERE c.state <> 'done'"),
        named!("image_edit_calls", "result_hash", "WHERE c.state NOT IN ('done', 'failed')"),
        named!("image_edit_cache", "result_hash", ""),
        named!("dead_letters", "payload_blob", ""),
        named!("image_edit_calls", "answer_hash", ""),
        named!("dead_letters", "kept_blob", ""),
    ],
    keep: concat!("DELETE d FROM ", marks_of_j!(), "WHERE d.deleted_at IS NULL"),
    deleted: concat!(
        "UPDATE ",
        marks_of_j!(),
        "SET d.deleted_at = UTC_TIMESTAMP(3), d.hash = NULL, d.claimed_until = NULL WHERE d.deleted_at IS NULL"
    ),
    give_back: concat!("UPDATE ", marks_of_j!(), "SET d.claimed_until = NULL WHERE d.deleted_at IS NULL"),
    was_dropped: concat!(was_dropped!("1"), " LIMIT 1"),
    forget: "DELETE FROM dropped_blobs WHERE deleted_at < UTC_TIMESTAMP(3) - INTERVAL ? * 1000 MICROSECOND LIMIT 10000",
    take_chore: "SELECT position FROM cache_chores WHERE name = ? AND due_at <= UTC_TIMESTAMP(3) FOR UPDATE SKIP LOCKED",
    end_chore: "UPDATE cache_chores SET position = ?, due_at = UTC_TIMESTAMP(3) + INTERVAL ? * 1000 MICROSECOND WHERE name = ?",
};
