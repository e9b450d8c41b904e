//! Forgetting pictures, on SQLite.

use crate::store::forget::ForgetStatements;

const ENTRIES: &str = "SELECT c.edit_key, c.image_hash, c.mask_hash, c.edit_type, c.price_micros, c.currency, c.result_url, c.result_hash, \
        c.bytes, c.hit_count FROM json_each(?) j CROSS JOIN image_edit_cache c ON c.edit_key = unhex(j.value)";

macro_rules! of_pictures {
    ($table:literal, $column:literal) => {
        concat!(
            "SELECT c.edit_key FROM json_each(?) j CROSS JOIN ",
            $table,
            " c ON c.",
            $column,
            " = j.value"
        )
    };
}

pub(super) static FORGET: ForgetStatements = ForgetStatements {
    entries_of_edits: ENTRIES,
    calls_of_edits: "SELECT c.edit_key, c.image_hash, c.mask_hash, c.edit_type, c.price_micros, c.currency, c.state, c.result_hash, c.lane, c.answer_hash \
        FROM json_each(?) j CROSS JOIN image_edit_calls c ON c.edit_key = unhex(j.value)",
    edits_of_pictures: [
        of_pictures!("image_edit_cache", "image_hash"),
        of_pictures!("image_edit_cache", "mask_hash"),
        of_pictures!("image_edit_calls", "image_hash"),
        of_pictures!("image_edit_calls", "mask_hash"),
    ],
    hold_lane: "UPDATE lanes SET next_submit_at = max(coalesce(next_submit_at, ''), strftime('%Y-%m-%d %H:%M:%f', 'now', '15 seconds')), \
            updated_at = strftime('%Y-%m-%d %H:%M:%f', 'now') WHERE name = ? AND one_unresolved = 1",
    lock_entries: ENTRIES,
    delete_entries: "DELETE FROM image_edit_cache WHERE edit_key IN (SELECT unhex(value) FROM json_each(?))",
    delete_calls: "DELETE FROM image_edit_calls WHERE edit_key IN (SELECT unhex(value) FROM json_each(?))",
    discard_letters: "UPDATE dead_letters SET state = 'discarded', decided_at = strftime('%Y-%m-%d %H:%M:%f', 'now'), claimed_by = NULL, \
            claim_until = NULL WHERE edit_key IN (SELECT unhex(value) FROM json_each(?)) AND state IN ('open', 'retrying')",
    insert_gone: "INSERT INTO image_edit_gone (edit_key, image_hash, reason, gone_at) \
        SELECT unhex(j.value ->> 'edit_key'), j.value ->> 'image_hash', j.value ->> 'reason', strftime('%Y-%m-%d %H:%M:%f', 'now') \
        FROM json_each(?) j WHERE true \
        ON CONFLICT (edit_key) DO UPDATE SET image_hash = excluded.image_hash, reason = excluded.reason, gone_at = excluded.gone_at",
    delete_gone: "DELETE FROM image_edit_gone WHERE edit_key = ?",
    prune_gone: "DELETE FROM image_edit_gone WHERE gone_at < strftime('%Y-%m-%d %H:%M:%f', 'now', '-' || ? || ' days')",
    last_task: "SELECT coalesce(max(id), 0) FROM image_edit_tasks",
    mentioning: "SELECT t.task_id FROM image_edit_tasks t WHERE t.id > ? AND t.id <= ? \
        AND EXISTS (SELECT 1 FROM json_each(?) j WHERE instr(t.results, j.value) > 0)",
    update_tasks: "UPDATE image_edit_tasks SET results = j.value ->> 'results', inputs = j.value ->> 'inputs', \
            updated_at = strftime('%Y-%m-%d %H:%M:%f', 'now') FROM json_each(?) j WHERE image_edit_tasks.id = j.value ->> 'id'",
    kept_of_edits: "SELECT kept_blob FROM dead_letters WHERE edit_key IN (SELECT unhex(value) FROM json_each(?)) AND kept_blob IS NOT NULL",
    unkeep: "UPDATE dead_letters SET kept_blob = NULL, kept_type = NULL \
        WHERE edit_key IN (SELECT unhex(value) FROM json_each(?)) AND kept_blob IS NOT NULL",
    letters_of_tasks: "SELECT id, payload_blob FROM dead_letters WHERE task_id IN (SELECT value FROM json_each(?)) AND edit_key IS NULL",
    empty_letters: "UPDATE dead_letters SET payload = NULL, payload_blob = NULL, \
            decided_at = iif(state IN ('open', 'retrying'), strftime('%Y-%m-%d %H:%M:%f', 'now'), decided_at), claimed_by = NULL, \
            claim_until = NULL, state = iif(state IN ('open', 'retrying'), 'discarded', state) \
        WHERE task_id IN (SELECT value FROM json_each(?)) AND edit_key IS NULL",
};
