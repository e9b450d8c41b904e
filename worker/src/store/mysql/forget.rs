//! Forgetting pictures, on MySQL and MariaDB.

use crate::store::forget::ForgetStatements;

macro_rules! entries {
    ($lock:literal) => {
        concat!(
            "SELECT c.edit_key, c.image_hash, c.mask_hash, c.edit_type, c.price_micros, c.currency, c.result_url, c.result_hash, c.bytes, \
                c.hit_count FROM ",
            keys!(),
            cache_of_j!(),
            $lock
        )
    };
}

macro_rules! of_pictures {
    ($table:literal, $column:literal) => {
        concat!(
            "SELECT c.edit_key FROM ",
            keys!(),
            " STRAIGHT_JOIN ",
            $table,
            " c FORCE INDEX (",
            $column,
            ") ON c.",
            $column,
            " = j.k"
        )
    };
}

/// The letters of a JSON list of tasks that hold their message.
macro_rules! letters_of_t {
    () => {
        "JSON_TABLE(?, '$[*]' COLUMNS (k VARCHAR(64) CHARACTER SET ascii PATH '$')) j \
        STRAIGHT_JOIN dead_letters l FORCE INDEX (task_id) ON l.task_id = j.k AND l.edit_key IS NULL "
    };
}

/// The letters of a JSON list of edits that name what was kept of them, as `l`.
macro_rules! kept_of_k {
    () => {
        concat!(
            keys!(),
            " STRAIGHT_JOIN dead_letters l FORCE INDEX (edit_key) ON l.edit_key = UNHEX(j.k) AND l.kept_blob IS NOT NULL "
        )
    };
}

pub(super) static FORGET: ForgetStatements = ForgetStatements {
    entries_of_edits: entries!(""),
    calls_of_edits: concat!(
        "SELECT c.edit_key, c.image_hash, c.mask_hash, c.edit_type, c.price_micros, c.currency, c.state, c.result_hash, c.lane, c.answer_hash FROM ",
        keys!(),
        calls_of_j!()
    ),
    edits_of_pictures: [
        of_pictures!("image_edit_cache", "image_hash"),
        of_pictures!("image_edit_cache", "mask_hash"),
        of_pictures!("image_edit_calls", "image_hash"),
        of_pictures!("image_edit_calls", "mask_hash"),
    ],
    hold_lane: "UPDATE lanes SET next_submit_at = GREATEST(COALESCE(next_submit_at, UTC_TIMESTAMP(3)), UTC_TIMESTAMP(3) + INTERVAL 15 SECOND), \
            updated_at = UTC_TIMESTAMP(3) WHERE name = ? AND one_unresolved = 1",
    lock_entries: entries!("FOR UPDATE"),
    delete_entries: concat!("DELETE c FROM ", keys!(), cache_of_j!()),
    delete_calls: concat!("DELETE c FROM ", keys!(), calls_of_j!()),
    discard_letters: concat!(
        "UPDATE ",
        keys!(),
        " STRAIGHT_JOIN dead_letters l FORCE INDEX (edit_key) ON l.edit_key = UNHEX(j.k) \
        SET l.state = 'discarded', l.decided_at = UTC_TIMESTAMP(3), l.claimed_by = NULL, l.claim_until = NULL \
        WHERE l.state IN ('open', 'retrying')"
    ),
    insert_gone: "INSERT INTO image_edit_gone (edit_key, image_hash, reason, gone_at) \
        SELECT UNHEX(j.k), j.image_hash, j.reason, UTC_TIMESTAMP(3) \
        FROM JSON_TABLE(?, '$[*]' COLUMNS (k CHAR(64) CHARACTER SET ascii PATH '$.edit_key', \
            image_hash CHAR(64) CHARACTER SET ascii PATH '$.image_hash', reason VARCHAR(16) CHARACTER SET ascii PATH '$.reason')) j \
        ON DUPLICATE KEY UPDATE image_hash = VALUES(image_hash), reason = VALUES(reason), gone_at = VALUES(gone_at)",
    delete_gone: "DELETE FROM image_edit_gone WHERE edit_key = ?",
    prune_gone: "DELETE FROM image_edit_gone WHERE gone_at < UTC_TIMESTAMP(3) - INTERVAL ? DAY LIMIT 10000",
    last_task: "SELECT COALESCE(MAX(id), 0) FROM image_edit_tasks",
    mentioning: "SELECT t.task_id FROM image_edit_tasks t WHERE t.id > ? AND t.id <= ? AND EXISTS ( \
        SELECT 1 FROM JSON_TABLE(?, '$[*]' COLUMNS (k CHAR(64) CHARACTER SET utf8mb4 PATH '$')) j WHERE INSTR(t.results, j.k) > 0)",
    update_tasks: concat!(
        "UPDATE JSON_TABLE(?, '$[*]' COLUMNS (id BIGINT PATH '$.id', results LONGTEXT CHARACTER SET utf8mb4 PATH '$.results', \
            inputs LONGTEXT CHARACTER SET utf8mb4 PATH '$.inputs')) j",
        tasks_of_j!(),
        "SET t.results = j.results, t.inputs = j.inputs, t.updated_at = UTC_TIMESTAMP(3)"
    ),
    kept_of_edits: concat!("SELECT l.kept_blob FROM ", kept_of_k!(), "FOR UPDATE"),
    unkeep: concat!("UPDATE ", kept_of_k!(), "SET l.kept_blob = NULL, l.kept_type = NULL"),
    letters_of_tasks: concat!("SELECT l.id, l.payload_blob FROM ", letters_of_t!(), "FOR UPDATE"),
    empty_letters: concat!(
        "UPDATE ",
        letters_of_t!(),
        "SET l.payload = NULL, l.payload_blob = NULL, l.decided_at = COALESCE(l.decided_at, UTC_TIMESTAMP(3)), \
            l.claimed_by = NULL, l.claim_until = NULL, l.state = IF(l.state IN ('open', 'retrying'), 'discarded', l.state)"
    ),
};
