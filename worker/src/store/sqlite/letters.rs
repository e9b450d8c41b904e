//! The statements of dead letters for SQLite: reading them in groups, sending them again, forgetting them.

use super::super::db::LetterStatements;

/// The letters that a filter names, as `l`. One parameter: the filter as a JSON object.
macro_rules! letters_of_f {
    () => {
        "json_each(?1, '$.states') s CROSS JOIN dead_letters l ON l.state = s.value \
            AND (?1 ->> '$.reason' IS NULL OR l.reason = ?1 ->> '$.reason') \
            AND (?1 ->> '$.group' IS NULL OR l.group_text = ?1 ->> '$.group') \
            AND (?1 ->> '$.edit_type' IS NULL OR l.edit_type = ?1 ->> '$.edit_type') \
            AND (?1 ->> '$.ago_ms' IS NULL OR l.last_at >= strftime('%Y-%m-%d %H:%M:%f', 'now', ((?1 ->> '$.ago_ms') / -1000.0) || ' seconds')) \
            AND (?1 ->> '$.since' IS NULL OR l.last_at >= ?1 ->> '$.since') \
            AND (?1 ->> '$.task' IS NULL OR l.task_id = ?1 ->> '$.task' \
                OR instr(',' || (l.headers ->> '$.\"x-retouch-tasks\"') || ',', ',' || (?1 ->> '$.task') || ',') > 0) "
    };
}

/// The letters of a JSON list of ids, as `l`.
macro_rules! letters_of_j {
    () => {
        "json_each(?) j CROSS JOIN dead_letters l ON l.id = j.value "
    };
}

/// Nobody is sending it again.
macro_rules! is_free {
    () => {
        "(state = 'open' OR (state = 'retrying' AND claim_until <= strftime('%Y-%m-%d %H:%M:%f', 'now')))"
    };
}

pub(super) static SQL: LetterStatements = LetterStatements {
    insert: "INSERT INTO dead_letters (letter_key, queue, reason, message, group_text, payload, payload_blob, kept_blob, kept_type, headers, properties, attempts, \
            task_id, edit_key, edit_type, state, decided_at, first_at, last_at) \
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, iif(? = 1, 'discarded', 'open'), \
            iif(? = 1, strftime('%Y-%m-%d %H:%M:%f', 'now'), NULL), strftime('%Y-%m-%d %H:%M:%f', 'now'), strftime('%Y-%m-%d %H:%M:%f', 'now')) \
        ON CONFLICT (letter_key) DO UPDATE SET last_at = excluded.last_at",
    fail_again: "UPDATE dead_letters SET state = 'open', claimed_by = NULL, claim_until = NULL, decided_at = NULL, queue = ?, reason = ?, \
            message = ?, group_text = ?, payload = ?, payload_blob = ?, kept_blob = coalesce(?, kept_blob), kept_type = coalesce(?, kept_type), headers = ?, properties = coalesce(?, properties), attempts = ?, \
            task_id = coalesce(?, task_id), edit_key = coalesce(?, edit_key), edit_type = coalesce(?, edit_type), \
            last_at = strftime('%Y-%m-%d %H:%M:%f', 'now') \
        WHERE id = ? AND state IN ('retrying', 'retried') AND retries = coalesce(?, retries)",
    exists: "SELECT id FROM dead_letters WHERE id = ?",
    // Two failures of one edit come one after the other: the call's row is locked.
    open_of_edit: "SELECT id, headers, kept_blob FROM dead_letters \
        WHERE edit_key = ? AND reason = ? AND state = 'open' ORDER BY id DESC LIMIT 1",
    join_open: "UPDATE dead_letters SET headers = ?, attempts = ?, last_at = strftime('%Y-%m-%d %H:%M:%f', 'now') WHERE id = ? AND state = 'open'",
    ungrouped: "SELECT l.id, l.message FROM json_each(?) s CROSS JOIN dead_letters l ON l.state = s.value WHERE l.group_text IS NULL LIMIT ?",
    set_groups: "UPDATE dead_letters SET group_text = j.value ->> 'group', edit_type = coalesce(edit_type, \
            (SELECT c.edit_type FROM image_edit_calls c WHERE c.edit_key = dead_letters.edit_key), \
            (SELECT t.edit_type FROM image_edit_tasks t WHERE t.task_id = dead_letters.task_id)) \
        FROM json_each(?) j WHERE dead_letters.id = j.value ->> 'id'",
    groups: concat!(
        "SELECT l.reason, coalesce(l.group_text, ''), count(*), min(l.first_at), max(l.last_at), max(l.id), sum(l.retries > 0) FROM ",
        letters_of_f!(),
        "GROUP BY l.reason, l.group_text ORDER BY count(*) DESC, max(l.last_at) DESC"
    ),
    ids: concat!("SELECT l.id FROM ", letters_of_f!(), "ORDER BY l.id"),
    by_ids: concat!(
        "SELECT l.id, l.queue, l.reason, l.message, coalesce(l.group_text, ''), l.headers, l.attempts, l.retries, l.task_id, l.edit_key, \
            l.edit_type, l.state, l.first_at, l.last_at, l.decided_at, l.payload_blob, l.properties, l.letter_key, \
            l.state = 'retrying' AND NOT ",
        is_free!(),
        ", l.kept_blob, l.kept_type FROM ",
        letters_of_j!()
    ),
    payloads: concat!("SELECT l.id, l.payload FROM ", letters_of_j!()),
    history: "SELECT number, failed_at, reason, message, attempts, retried_at FROM dead_letter_retries WHERE letter_id = ? ORDER BY number",
    claimable: concat!(
        "SELECT l.id, l.queue, l.headers, l.properties, l.payload, l.payload_blob, l.retries, l.state = 'open', \
            l.letter_key, l.task_id FROM ",
        letters_of_j!(),
        "WHERE ",
        is_free!()
    ),
    lock_free: concat!("SELECT l.id FROM ", letters_of_j!(), "WHERE ", is_free!()),
    note_retries: concat!(
        "INSERT INTO dead_letter_retries (letter_id, number, failed_at, reason, message, attempts, retried_at) \
        SELECT l.id, l.retries + 1, l.last_at, l.reason, l.message, l.attempts, strftime('%Y-%m-%d %H:%M:%f', 'now') FROM ",
        letters_of_j!(),
        "WHERE l.state = 'open' ON CONFLICT (letter_id, number) DO UPDATE SET retried_at = excluded.retried_at"
    ),
    count_retries: "UPDATE dead_letters SET retries = retries + 1 WHERE state = 'open' AND id IN (SELECT value FROM json_each(?))",
    claim: "UPDATE dead_letters SET state = 'retrying', claimed_by = ?2, \
            claim_until = strftime('%Y-%m-%d %H:%M:%f', 'now', (?3 / 1000.0) || ' seconds') WHERE id IN (SELECT value FROM json_each(?1))",
    sent: "UPDATE dead_letters SET state = 'retried', decided_at = strftime('%Y-%m-%d %H:%M:%f', 'now'), claim_until = NULL \
        WHERE id IN (SELECT value FROM json_each(?1)) AND state = 'retrying' AND claimed_by = ?2",
    give_back: "UPDATE dead_letters SET claim_until = strftime('%Y-%m-%d %H:%M:%f', 'now') \
        WHERE id IN (SELECT value FROM json_each(?1)) AND state = 'retrying' AND claimed_by = ?2",
    retried: "UPDATE dead_letters SET state = 'retried', decided_at = strftime('%Y-%m-%d %H:%M:%f', 'now'), claimed_by = NULL, claim_until = NULL \
        WHERE id IN (SELECT value FROM json_each(?))",
    discard: concat!(
        "UPDATE dead_letters SET state = 'discarded', decided_at = strftime('%Y-%m-%d %H:%M:%f', 'now'), claimed_by = NULL, claim_until = NULL \
        WHERE id IN (SELECT value FROM json_each(?)) AND ",
        is_free!()
    ),
    of_retry: "SELECT id FROM dead_letters WHERE id = ? AND retries = ? AND state IN ('retrying', 'retried')",
    over: "SELECT id FROM dead_letters WHERE state IN ('retried', 'discarded') \
        AND decided_at < strftime('%Y-%m-%d %H:%M:%f', 'now', (- ?) || ' days') ORDER BY id LIMIT ?",
    forget_retries: "DELETE FROM dead_letter_retries WHERE letter_id IN (SELECT value FROM json_each(?))",
    forget: "DELETE FROM dead_letters WHERE id IN (SELECT value FROM json_each(?)) AND state IN ('retried', 'discarded')",
    calls_of: "SELECT c.edit_key, c.image_hash, c.edit_type, c.model, c.lane, c.price_micros, c.currency, c.provider, c.state, \
            c.submitted_at IS NOT NULL, c.prompt, c.params, c.provider_task_id, c.paid_calls, c.possible_duplicates, c.held, c.answer_hash IS NOT NULL, \
            c.lost_as IS NOT NULL AND c.provider_task_id IS NOT NULL \
        FROM json_each(?) j CROSS JOIN image_edit_calls c ON c.edit_key = unhex(j.value)",
    tasks_of: concat!(
        "SELECT ",
        task_columns!(),
        " FROM json_each(?) j CROSS JOIN image_edit_tasks t ON t.task_id = j.value"
    ),
    forget_paid: "UPDATE image_edit_calls SET lost_as = NULL, provider_task_id = NULL, answer_hash = NULL, answer_type = NULL \
        WHERE edit_key IN (SELECT unhex(value) FROM json_each(?)) AND state = 'failed' AND lost_as IS NOT NULL AND provider_task_id IS NOT NULL",
    // A person's decision: its sends are counted from 0, but for the one that is under way.
    mark_calls: "UPDATE image_edit_calls SET letter_id = j.value ->> 'letter', \
            possible_duplicates = possible_duplicates + (j.value ->> 'duplicates'), held = NULL, \
            unanswered = iif(state IN ('submitting', 'ambiguous'), min(unanswered, 1), 0) \
        FROM json_each(?) j WHERE image_edit_calls.edit_key = unhex(j.value ->> 'edit_key')",
    insert_waits: "INSERT INTO image_edit_waits (task_id, edit_key, position, source, created_at) \
        SELECT j.value ->> 'task_id', unhex(j.value ->> 'edit_key'), j.value ->> 'position', j.value ->> 'source', \
            strftime('%Y-%m-%d %H:%M:%f', 'now') FROM json_each(?) j",
    update_tasks: "UPDATE image_edit_tasks SET status = j.value ->> 'status', hit_images = j.value ->> 'hit', \
            failed_images = j.value ->> 'failed', saved_micros = j.value ->> 'saved_micros', results = j.value ->> 'results', \
            error = j.value ->> 'error', \
            event_due = iif(j.value ->> 'ended' = 1, strftime('%Y-%m-%d %H:%M:%f', 'now', (?2 / 1000.0) || ' seconds'), NULL), \
            completed_at = iif(j.value ->> 'ended' = 1, strftime('%Y-%m-%d %H:%M:%f', 'now'), NULL), \
            updated_at = strftime('%Y-%m-%d %H:%M:%f', 'now') FROM json_each(?1) j WHERE image_edit_tasks.id = j.value ->> 'id'",
    route_task: "UPDATE image_edit_tasks SET model = ?, params = ?, currency = ? \
        WHERE task_id = ? AND hit_images + joined_images + paid_images = 0",
};
