//! The statements of dead letters for MySQL 8 and MariaDB: reading them in groups, sending them again, forgetting them.
//!
//! Assignments of an update over more than one table have no order there: what is counted by a state is counted in a
//! statement of its own, before the state changes.

use super::super::db::LetterStatements;

/// The letters that a filter names, as `l`. One parameter: the filter as a JSON object.
macro_rules! letters_of_f {
    () => {
        "JSON_TABLE(?, '$' COLUMNS (reason VARCHAR(255) CHARACTER SET ascii PATH '$.reason', \
            grouped VARCHAR(255) CHARACTER SET utf8mb4 PATH '$.group', edit_type VARCHAR(255) CHARACTER SET utf8mb4 PATH '$.edit_type', \
            ago BIGINT PATH '$.ago_ms', since VARCHAR(32) CHARACTER SET ascii PATH '$.since', \
            task VARCHAR(64) CHARACTER SET ascii PATH '$.task', task_text VARCHAR(64) CHARACTER SET utf8mb4 PATH '$.task', \
            NESTED PATH '$.states[*]' COLUMNS (state VARCHAR(16) CHARACTER SET ascii PATH '$'))) f \
        STRAIGHT_JOIN dead_letters l ON l.state = f.state AND (f.reason IS NULL OR l.reason = f.reason) \
            AND (f.grouped IS NULL OR l.group_text = f.grouped) AND (f.edit_type IS NULL OR l.edit_type = f.edit_type) \
            AND (f.ago IS NULL OR l.last_at >= UTC_TIMESTAMP(3) - INTERVAL f.ago * 1000 MICROSECOND) \
            AND (f.since IS NULL OR l.last_at >= CAST(f.since AS DATETIME(3))) \
            AND (f.task IS NULL OR l.task_id = f.task \
                OR FIND_IN_SET(f.task_text, JSON_UNQUOTE(JSON_EXTRACT(l.headers, '$.\"x-retouch-tasks\"'))) > 0) "
    };
}

/// The letters of a JSON list of ids, as `l`.
macro_rules! letters_of_j {
    () => {
        "JSON_TABLE(?, '$[*]' COLUMNS (id BIGINT PATH '$')) j STRAIGHT_JOIN dead_letters l FORCE INDEX (PRIMARY) ON l.id = j.id "
    };
}

/// Nobody is sending it again.
macro_rules! is_free {
    () => {
        "(l.state = 'open' OR (l.state = 'retrying' AND l.claim_until <= UTC_TIMESTAMP(3)))"
    };
}

pub(super) static SQL: LetterStatements = LetterStatements {
    insert: "INSERT INTO dead_letters (letter_key, queue, reason, message, group_text, payload, payload_blob, kept_blob, kept_type, headers, properties, attempts, \
            task_id, edit_key, edit_type, state, decided_at, first_at, last_at) \
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, IF(? = 1, 'discarded', 'open'), IF(? = 1, UTC_TIMESTAMP(3), NULL), \
            UTC_TIMESTAMP(3), UTC_TIMESTAMP(3)) \
        ON DUPLICATE KEY UPDATE last_at = UTC_TIMESTAMP(3)",
    fail_again: "UPDATE dead_letters SET state = 'open', claimed_by = NULL, claim_until = NULL, decided_at = NULL, queue = ?, reason = ?, \
            message = ?, group_text = ?, payload = ?, payload_blob = ?, kept_blob = COALESCE(?, kept_blob), kept_type = COALESCE(?, kept_type), headers = ?, properties = COALESCE(?, properties), attempts = ?, \
            task_id = COALESCE(?, task_id), edit_key = COALESCE(?, edit_key), edit_type = COALESCE(?, edit_type), last_at = UTC_TIMESTAMP(3) \
        WHERE id = ? AND state IN ('retrying', 'retried') AND retries = COALESCE(?, retries)",
    exists: "SELECT id FROM dead_letters WHERE id = ?",
    // Two failures of one edit come one after the other: the call's row is locked.
    open_of_edit: "SELECT id, headers, kept_blob FROM dead_letters FORCE INDEX (edit_key) \
        WHERE edit_key = ? AND reason = ? AND state = 'open' ORDER BY id DESC LIMIT 1",
    join_open: "UPDATE dead_letters SET headers = ?, attempts = ?, last_at = UTC_TIMESTAMP(3) WHERE id = ? AND state = 'open'",
    ungrouped: "SELECT l.id, l.message FROM JSON_TABLE(?, '$[*]' COLUMNS (k VARCHAR(16) CHARACTER SET ascii PATH '$')) s \
        STRAIGHT_JOIN dead_letters l FORCE INDEX (state_group) ON l.state = s.k WHERE l.group_text IS NULL LIMIT ?",
    set_groups: "UPDATE JSON_TABLE(?, '$[*]' COLUMNS (id BIGINT PATH '$.id', grouped VARCHAR(255) CHARACTER SET utf8mb4 PATH '$.group')) j \
        STRAIGHT_JOIN dead_letters l FORCE INDEX (PRIMARY) ON l.id = j.id \
        SET l.group_text = j.grouped, l.edit_type = COALESCE(l.edit_type, \
            (SELECT c.edit_type FROM image_edit_calls c WHERE c.edit_key = l.edit_key), \
            (SELECT t.edit_type FROM image_edit_tasks t WHERE t.task_id = l.task_id))",
    groups: concat!(
        "SELECT l.reason, COALESCE(l.group_text, ''), COUNT(*), CAST(MIN(l.first_at) AS CHAR), CAST(MAX(l.last_at) AS CHAR), \
            MAX(l.id), CAST(SUM(l.retries > 0) AS SIGNED) FROM ",
        letters_of_f!(),
        "GROUP BY l.reason, l.group_text ORDER BY COUNT(*) DESC, MAX(l.last_at) DESC"
    ),
    ids: concat!("SELECT l.id FROM ", letters_of_f!(), "ORDER BY l.id"),
    by_ids: concat!(
        "SELECT l.id, l.queue, l.reason, l.message, COALESCE(l.group_text, ''), l.headers, l.attempts, l.retries, l.task_id, l.edit_key, \
            l.edit_type, l.state, CAST(l.first_at AS CHAR), CAST(l.last_at AS CHAR), CAST(l.decided_at AS CHAR), l.payload_blob, \
            l.properties, l.letter_key, CAST(NOT ",
        is_free!(),
        " AND l.state = 'retrying' AS SIGNED), l.kept_blob, l.kept_type FROM ",
        letters_of_j!()
    ),
    payloads: concat!("SELECT l.id, l.payload FROM ", letters_of_j!()),
    history: "SELECT number, CAST(failed_at AS CHAR), reason, message, attempts, CAST(retried_at AS CHAR) \
        FROM dead_letter_retries WHERE letter_id = ? ORDER BY number",
    claimable: concat!(
        "SELECT l.id, l.queue, l.headers, l.properties, l.payload, l.payload_blob, l.retries, CAST(l.state = 'open' AS SIGNED), \
            l.letter_key, l.task_id FROM ",
        letters_of_j!(),
        "WHERE ",
        is_free!(),
        " FOR UPDATE SKIP LOCKED"
    ),
    lock_free: concat!("SELECT l.id FROM ", letters_of_j!(), "WHERE ", is_free!(), " FOR UPDATE"),
    note_retries: concat!(
        "INSERT INTO dead_letter_retries (letter_id, number, failed_at, reason, message, attempts, retried_at) \
        SELECT l.id, l.retries + 1, l.last_at, l.reason, l.message, l.attempts, UTC_TIMESTAMP(3) FROM ",
        letters_of_j!(),
        "WHERE l.state = 'open' ON DUPLICATE KEY UPDATE retried_at = VALUES(retried_at)"
    ),
    count_retries: concat!(
        "UPDATE ",
        letters_of_j!(),
        "SET l.retries = l.retries + 1 WHERE l.state = 'open'"
    ),
    claim: concat!(
        "UPDATE ",
        letters_of_j!(),
        "SET l.state = 'retrying', l.claimed_by = ?, l.claim_until = UTC_TIMESTAMP(3) + INTERVAL ? * 1000 MICROSECOND"
    ),
    sent: concat!(
        "UPDATE ",
        letters_of_j!(),
        "SET l.state = 'retried', l.decided_at = UTC_TIMESTAMP(3), l.claim_until = NULL \
        WHERE l.state = 'retrying' AND l.claimed_by = ?"
    ),
    give_back: concat!(
        "UPDATE ",
        letters_of_j!(),
        "SET l.claim_until = UTC_TIMESTAMP(3) WHERE l.state = 'retrying' AND l.claimed_by = ?"
    ),
    retried: concat!(
        "UPDATE ",
        letters_of_j!(),
        "SET l.state = 'retried', l.decided_at = UTC_TIMESTAMP(3), l.claimed_by = NULL, l.claim_until = NULL"
    ),
    discard: concat!(
        "UPDATE ",
        letters_of_j!(),
        "SET l.state = 'discarded', l.decided_at = UTC_TIMESTAMP(3), l.claimed_by = NULL, l.claim_until = NULL WHERE ",
        is_free!()
    ),
    of_retry: "SELECT id FROM dead_letters WHERE id = ? AND retries = ? AND state IN ('retrying', 'retried')",
    over: "SELECT id FROM dead_letters WHERE state IN ('retried', 'discarded') AND decided_at < UTC_TIMESTAMP(3) - INTERVAL ? DAY \
        ORDER BY id LIMIT ?",
    forget_retries: "DELETE r FROM JSON_TABLE(?, '$[*]' COLUMNS (id BIGINT PATH '$')) j \
        STRAIGHT_JOIN dead_letter_retries r FORCE INDEX (PRIMARY) ON r.letter_id = j.id",
    forget: concat!("DELETE l FROM ", letters_of_j!(), "WHERE l.state IN ('retried', 'discarded')"),
    calls_of: "SELECT c.edit_key, c.image_hash, c.edit_type, c.model, c.lane, c.price_micros, c.currency, c.provider, c.state, \
            CAST(c.submitted_at IS NOT NULL AS SIGNED), c.prompt, c.params, c.provider_task_id, c.paid_calls, c.possible_duplicates, c.held, c.answer_hash IS NOT NULL, \
            c.lost_as IS NOT NULL AND c.provider_task_id IS NOT NULL \
        FROM JSON_TABLE(?, '$[*]' COLUMNS (k CHAR(64) CHARACTER SET ascii PATH '$')) j \
        STRAIGHT_JOIN image_edit_calls c FORCE INDEX (PRIMARY) ON c.edit_key = UNHEX(j.k)",
    tasks_of: concat!(
        "SELECT ",
        task_columns!(),
        " FROM JSON_TABLE(?, '$[*]' COLUMNS (k VARCHAR(64) CHARACTER SET ascii PATH '$')) j \
        STRAIGHT_JOIN image_edit_tasks t FORCE INDEX (task_id) ON t.task_id = j.k"
    ),
    forget_paid: "UPDATE JSON_TABLE(?, '$[*]' COLUMNS (k CHAR(64) CHARACTER SET ascii PATH '$')) j \
        STRAIGHT_JOIN image_edit_calls c FORCE INDEX (PRIMARY) ON c.edit_key = UNHEX(j.k) \
        SET c.lost_as = NULL, c.provider_task_id = NULL, c.answer_hash = NULL, c.answer_type = NULL \
        WHERE c.state = 'failed' AND c.lost_as IS NOT NULL AND c.provider_task_id IS NOT NULL",
    // A person's decision: its sends are counted from 0, but for the one that is under way.
    mark_calls: "UPDATE JSON_TABLE(?, '$[*]' COLUMNS (k CHAR(64) CHARACTER SET ascii PATH '$.edit_key', letter BIGINT PATH '$.letter', \
            duplicates INT PATH '$.duplicates')) j \
        STRAIGHT_JOIN image_edit_calls c FORCE INDEX (PRIMARY) ON c.edit_key = UNHEX(j.k) \
        SET c.letter_id = j.letter, c.possible_duplicates = c.possible_duplicates + j.duplicates, c.held = NULL, \
            c.unanswered = IF(c.state IN ('submitting', 'ambiguous'), LEAST(c.unanswered, 1), 0)",
    insert_waits: "INSERT INTO image_edit_waits (task_id, edit_key, position, source, created_at) \
        SELECT j.task_id, UNHEX(j.k), j.position, j.source, UTC_TIMESTAMP(3) \
        FROM JSON_TABLE(?, '$[*]' COLUMNS (task_id VARCHAR(255) CHARACTER SET utf8mb4 PATH '$.task_id', \
            k CHAR(64) CHARACTER SET ascii PATH '$.edit_key', position INT PATH '$.position', \
            source VARCHAR(255) CHARACTER SET utf8mb4 PATH '$.source')) j",
    update_tasks: "UPDATE JSON_TABLE(?, '$[*]' COLUMNS (id BIGINT PATH '$.id', status VARCHAR(255) CHARACTER SET utf8mb4 PATH '$.status', \
            hit INT PATH '$.hit', failed INT PATH '$.failed', saved_micros BIGINT PATH '$.saved_micros', \
            results LONGTEXT CHARACTER SET utf8mb4 PATH '$.results', error LONGTEXT CHARACTER SET utf8mb4 PATH '$.error', \
            ended INT PATH '$.ended')) j STRAIGHT_JOIN image_edit_tasks t FORCE INDEX (PRIMARY) ON t.id = j.id \
        SET t.status = j.status, t.hit_images = j.hit, t.failed_images = j.failed, t.saved_micros = j.saved_micros, \
            t.results = j.results, t.error = j.error, \
            t.event_due = IF(j.ended = 1, UTC_TIMESTAMP(3) + INTERVAL ? * 1000 MICROSECOND, NULL), \
            t.completed_at = IF(j.ended = 1, UTC_TIMESTAMP(3), NULL), t.updated_at = UTC_TIMESTAMP(3)",
    route_task: "UPDATE image_edit_tasks SET model = ?, params = ?, currency = ? \
        WHERE task_id = ? AND hit_images + joined_images + paid_images = 0",
};
