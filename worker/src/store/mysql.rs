//! Every SQL statement for MySQL 8 and MariaDB 10.6+.
//!
//! READ COMMITTED on every connection: the last look at the cache in `register` must see what was committed while
//! it waited for the call row's lock, which REPEATABLE READ's snapshot would hide.

use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::mysql::{MySqlConnectOptions, MySqlPoolOptions, MySqlSslMode};
use sqlx::{ConnectOptions, Connection as _, Executor};

use connection::Connection;
use pool::Pool;

use super::db::{Db, DbError, Statements, Tx, classify, vals};
use super::schema::{self, SchemaState};
use super::task_row::inserts;

mod cache_view;
mod cancels;
mod connection;
mod imports;
mod inspect;
mod installation;
mod overview;
mod pool;
mod readings;
mod replicas;
mod spending;

/// The columns that [`TaskRecord::from_row`](super::TaskRecord) reads.
macro_rules! task_columns {
    () => {
        "t.id, t.task_id, t.request_hash, t.edit_type, t.status, t.total_images, t.hit_images, t.joined_images, t.paid_images, \
        t.failed_images, t.paid_micros, t.saved_micros, t.currency, t.results, t.metadata, t.reply_to, t.correlation_id, \
        CAST(t.created_at AS CHAR), CAST(t.completed_at AS CHAR), t.inputs, t.error, t.traceparent, t.tracestate, t.lost_micros"
    };
}

// After the macro that they use.
mod batch;
mod commands;
mod letters;

/// A JSON list of edit keys as a table `j` with one column `k`.
macro_rules! keys {
    () => {
        "JSON_TABLE(?, '$[*]' COLUMNS (k CHAR(64) CHARACTER SET ascii PATH '$')) j"
    };
}

/// Joined in the list's order, row by row through the named index, so that locks are taken in that order and on
/// no other row: left to itself the optimizer scans a small table, and waits for every lock on it.
macro_rules! calls_of_j {
    () => {
        " STRAIGHT_JOIN image_edit_calls c FORCE INDEX (PRIMARY) ON c.edit_key = UNHEX(j.k) "
    };
}
macro_rules! cache_of_j {
    () => {
        " STRAIGHT_JOIN image_edit_cache c FORCE INDEX (edit_key) ON c.edit_key = UNHEX(j.k) "
    };
}
macro_rules! tasks_of_j {
    () => {
        " STRAIGHT_JOIN image_edit_tasks t FORCE INDEX (PRIMARY) ON t.id = j.id "
    };
}

/// The columns that `claimed_call` reads; times from now in milliseconds.
macro_rules! call_columns {
    () => {
        "image_hash, edit_type, prompt, provider, model, params, mask_hash, variant, lane, price_micros, currency, state, attempts, \
            fence, provider_task_id, result_hash, result_type, result_width, result_height, result_bytes, \
            CAST(COALESCE(lease_until > UTC_TIMESTAMP(3), 0) AS SIGNED), \
            CAST(COALESCE(TIMESTAMPDIFF(MICROSECOND, UTC_TIMESTAMP(3), lease_until) DIV 1000, 0) AS SIGNED), \
            CAST(COALESCE(GREATEST(TIMESTAMPDIFF(MICROSECOND, submitted_at, UTC_TIMESTAMP(3)) DIV 1000, 1), 0) AS SIGNED), letter_id, \
            unanswered, held, answer_hash, answer_type, ended_at IS NOT NULL, lost_micros, lost_as"
    };
}

/// The columns that `lane_row` reads; times from now in milliseconds.
macro_rules! lane_columns {
    () => {
        "l.max_in_flight, l.submit_interval_ms, l.budget_micros, l.currency, IF(l.spent_on = UTC_DATE(), l.spent_micros, 0), \
        CAST(TIMESTAMPDIFF(MICROSECOND, UTC_TIMESTAMP(3), l.next_submit_at) DIV 1000 AS SIGNED), l.throttles, \
        l.blocked_by, l.blocked_code, l.blocked_message, \
        CAST(TIMESTAMPDIFF(MICROSECOND, UTC_TIMESTAMP(3), l.probe_at) DIV 1000 AS SIGNED), l.paused_at IS NOT NULL, \
        CAST(TIMESTAMPDIFF(MICROSECOND, UTC_TIMESTAMP(3), UTC_DATE() + INTERVAL 1 DAY) DIV 1000 AS SIGNED), l.probes, CAST(l.one_unresolved AS SIGNED), \
        l.unanswered"
    };
}
use lane_columns;

// After the macros that they use.
mod dropped;
mod evict;
mod forget;
mod verify;

pub(super) static SQL: Statements = Statements {
    lookup: concat!(
        "SELECT c.edit_key, c.image_hash, c.result_url, c.result_hash, c.content_type, c.width, c.height, c.bytes, c.price_micros, c.currency \
        FROM ",
        keys!(),
        cache_of_j!()
    ),
    // The fence begins at the clock: a call that is made anew after it was forgotten never has one that an old owner holds.
    insert_calls: "INSERT INTO image_edit_calls (edit_key, image_hash, edit_type, prompt, provider, model, params, mask_hash, variant, lane, \
            price_micros, currency, state, attempts, fence, wakes, paid_calls, possible_duplicates, wake_at, created_at, updated_at) \
        SELECT UNHEX(j.k), j.image_hash, j.edit_type, j.prompt, j.provider, j.model, j.params, j.mask_hash, j.variant, j.lane, \
            j.price_micros, j.currency, 'queued', 0, CAST(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(3)) DIV 1000 AS SIGNED), 0, 0, 0, \
            UTC_TIMESTAMP(3) + INTERVAL ? * 1000 MICROSECOND, UTC_TIMESTAMP(3), UTC_TIMESTAMP(3) \
        FROM JSON_TABLE(?, '$[*]' COLUMNS (k CHAR(64) CHARACTER SET ascii PATH '$.edit_key', \
            image_hash VARCHAR(255) CHARACTER SET utf8mb4 PATH '$.image_hash', \
            edit_type VARCHAR(255) CHARACTER SET utf8mb4 PATH '$.edit_type', prompt LONGTEXT CHARACTER SET utf8mb4 PATH '$.prompt', \
            provider VARCHAR(255) CHARACTER SET utf8mb4 PATH '$.provider', model VARCHAR(255) CHARACTER SET utf8mb4 PATH '$.model', \
            params LONGTEXT CHARACTER SET utf8mb4 PATH '$.params', mask_hash VARCHAR(255) CHARACTER SET utf8mb4 PATH '$.mask_hash', \
            variant VARCHAR(255) CHARACTER SET utf8mb4 PATH '$.variant', lane VARCHAR(255) CHARACTER SET utf8mb4 PATH '$.lane', \
            price_micros BIGINT PATH '$.price_micros', currency VARCHAR(255) CHARACTER SET utf8mb4 PATH '$.currency')) j",
    lock_calls: concat!(
        "SELECT c.edit_key, c.state, c.price_micros, c.currency, c.lost_micros FROM ",
        keys!(),
        calls_of_j!(),
        "FOR UPDATE"
    ),
    // One whose paid result the provider may still have is asked after again, at what it cost, and without a
    // place on its lane.
    // In whatever order MySQL assigns: what the conditions ask is the same before and after.
    queue_calls: concat!(
        "UPDATE JSON_TABLE(?, '$[*]' COLUMNS (k CHAR(64) CHARACTER SET ascii PATH '$.edit_key', \
            lane VARCHAR(255) CHARACTER SET utf8mb4 PATH '$.lane', price_micros BIGINT PATH '$.price_micros', \
            currency VARCHAR(255) CHARACTER SET utf8mb4 PATH '$.currency')) j",
        calls_of_j!(),
        "SET c.state = IF(c.lost_as IS NOT NULL AND c.provider_task_id IS NOT NULL, 'submitted', 'queued'), c.attempts = 0, c.lane = j.lane, \
            c.price_micros = IF(c.lost_as IS NULL, j.price_micros, c.price_micros), c.currency = IF(c.lost_as IS NULL, j.currency, c.currency), \
            c.fence = c.fence + 1, c.owner = NULL, c.lease_until = NULL, \
            c.wake_at = UTC_TIMESTAMP(3) + INTERVAL ? * 1000 MICROSECOND, c.wakes = 0, \
            c.provider_task_id = IF(c.lost_as IS NULL, NULL, c.provider_task_id), \
            c.submitted_at = IF(c.lost_as IS NOT NULL AND c.provider_task_id IS NOT NULL, c.submitted_at, NULL), \
            c.ended_at = IF(c.lost_as IS NOT NULL AND c.provider_task_id IS NOT NULL, COALESCE(c.ended_at, UTC_TIMESTAMP(3)), NULL), \
            c.result_hash = NULL, c.last_error = NULL, c.fetch_host = NULL, c.fetch_error = NULL, \
            c.letter_id = NULL, c.lost_micros = 0, c.updated_at = UTC_TIMESTAMP(3)"
    ),
    insert_waits: "INSERT INTO image_edit_waits (task_id, edit_key, position, source, created_at) \
        SELECT ?, UNHEX(j.k), j.position, j.source, UTC_TIMESTAMP(3) \
        FROM JSON_TABLE(?, '$[*]' COLUMNS (k CHAR(64) CHARACTER SET ascii PATH '$.edit_key', position INT PATH '$.position', \
            source VARCHAR(255) CHARACTER SET utf8mb4 PATH '$.source')) j",
    insert_tasks: inserts!(
        "INSERT INTO image_edit_tasks (task_id, request_hash, edit_type, prompt, model, params, inputs, status, total_images, \
            hit_images, joined_images, paid_images, failed_images, paid_micros, saved_micros, currency, results, metadata, error, \
            reply_to, correlation_id, traceparent, tracestate, event_due, created_at, updated_at, completed_at) VALUES ",
        "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0, ?, 0, ?, ?, ?, ?, ?, ?, ?, ?, ?, \
            IF(? = 1, UTC_TIMESTAMP(3) + INTERVAL ? * 1000 MICROSECOND, NULL), UTC_TIMESTAMP(3), UTC_TIMESTAMP(3), IF(? = 1, UTC_TIMESTAMP(3), NULL))"
    ),
    count_hits: concat!(
        "UPDATE JSON_TABLE(?, '$[*]' COLUMNS (k CHAR(64) CHARACTER SET ascii PATH '$.edit_key', n BIGINT PATH '$.count', \
            result CHAR(64) CHARACTER SET ascii PATH '$.result')) j",
        cache_of_j!(),
        "AND c.result_hash <=> j.result SET c.hit_count = c.hit_count + j.n, c.last_hit_at = UTC_TIMESTAMP(3)"
    ),
    find_task: concat!("SELECT ", task_columns!(), " FROM image_edit_tasks t WHERE t.task_id = ?"),
    read_back: concat!(
        "SELECT ",
        task_columns!(),
        ", (SELECT COUNT(*) FROM cancels c WHERE c.task_id = t.task_id AND c.created_at > UTC_TIMESTAMP(3) - INTERVAL 1 DAY), (",
        dropped::was_dropped!("COUNT(*)"),
        ") FROM image_edit_tasks t WHERE t.task_id = ?"
    ),
    tasks_by_id: concat!(
        "SELECT ",
        task_columns!(),
        " FROM JSON_TABLE(?, '$[*]' COLUMNS (id BIGINT PATH '$')) j",
        tasks_of_j!()
    ),
    read_call: concat!(
        "SELECT ",
        call_columns!(),
        ", (SELECT starts FROM suspects WHERE suspect_key = ? AND updated_at > UTC_TIMESTAMP(3) - INTERVAL 1 DAY) \
        FROM image_edit_calls WHERE edit_key = ?"
    ),
    lock_call: concat!("SELECT ", call_columns!(), " FROM image_edit_calls WHERE edit_key = ? FOR UPDATE"),
    lock_lane: concat!("SELECT ", lane_columns!(), " FROM lanes l WHERE l.name = ? FOR UPDATE"),
    // Whoever owns them, and if nobody does: they are under way at the provider.
    lane_in_flight: "SELECT COUNT(*) FROM image_edit_calls WHERE lane = ? AND state IN ('submitting', 'submitted', 'ambiguous') AND ended_at IS NULL",
    // What cannot be fetched; what only takes its time has no host here.
    lane_unfetched: "SELECT COUNT(*) FROM image_edit_calls WHERE lane = ? AND state = 'submitted' AND fetch_host IS NOT NULL",
    lane_unresolved: "SELECT COUNT(*) FROM image_edit_calls WHERE lane = ? AND state IN ('submitting', 'ambiguous') AND edit_key <> ?",
    declare_lane: "INSERT INTO lanes (name, max_in_flight, submit_interval_ms, budget_micros, currency, one_unresolved, updated_at) \
        VALUES (?, ?, ?, ?, ?, ?, UTC_TIMESTAMP(3)) \
        ON DUPLICATE KEY UPDATE max_in_flight = VALUES(max_in_flight), submit_interval_ms = VALUES(submit_interval_ms), \
            budget_micros = VALUES(budget_micros), currency = COALESCE(VALUES(currency), lanes.currency), \
            one_unresolved = VALUES(one_unresolved), \
            probes = IF(lanes.blocked_code <=> 'unanswered', lanes.probes, 0), \
            probe_at = IF(lanes.blocked_by IN ('submit', 'poll') AND NOT lanes.blocked_code <=> 'unanswered', UTC_TIMESTAMP(3), \
                lanes.probe_at), updated_at = UTC_TIMESTAMP(3)",
    // `spent_micros` before `spent_on`: MySQL sees the columns that it has assigned already.
    take_place: "UPDATE lanes SET spent_micros = IF(spent_on = UTC_DATE(), spent_micros, 0) + ?, currency = ?, spent_on = UTC_DATE(), \
            next_submit_at = UTC_TIMESTAMP(3) + INTERVAL ? * 1000 MICROSECOND, \
            probe_at = IF(? = 1, UTC_TIMESTAMP(3) + INTERVAL ? * 1000 MICROSECOND, probe_at), probes = ?, \
            blocked_by = IF(? = 1, NULL, blocked_by), updated_at = UTC_TIMESTAMP(3) WHERE name = ?",
    refund: "UPDATE lanes SET spent_micros = GREATEST(spent_micros - ?, 0) WHERE name = ? \
        AND spent_on = (SELECT DATE(submitted_at) FROM image_edit_calls WHERE edit_key = ?)",
    uncount_paid: "UPDATE image_edit_calls SET paid_calls = GREATEST(paid_calls - 1, 0) WHERE edit_key = ? AND fence = ?",
    throttle_lane: "UPDATE lanes SET next_submit_at = GREATEST(COALESCE(next_submit_at, UTC_TIMESTAMP(3)), \
            UTC_TIMESTAMP(3) + INTERVAL ? * 1000 MICROSECOND), throttles = throttles + 1, updated_at = UTC_TIMESTAMP(3) WHERE name = ?",
    // `probes` first: of another cause none was made yet, and MySQL sees the columns that it has assigned
    // already.
    block_lane: "UPDATE lanes SET probes = IF(blocked_by IS NOT NULL AND blocked_code <=> ?, probes, 0), \
            blocked_at = IF(blocked_by IS NULL, UTC_TIMESTAMP(3), blocked_at), blocked_by = ?, blocked_code = ?, \
            blocked_message = ?, probe_at = UTC_TIMESTAMP(3) + INTERVAL ? * 1000 MICROSECOND, \
            updated_at = UTC_TIMESTAMP(3) WHERE name = ?",
    probe_lane: "UPDATE lanes SET probe_at = LEAST(probe_at, UTC_TIMESTAMP(3) + INTERVAL ? * 1000 MICROSECOND), \
            updated_at = UTC_TIMESTAMP(3) WHERE name = ? AND blocked_by IN ('submit', 'poll')",
    postpone_probe: "UPDATE lanes SET probe_at = UTC_TIMESTAMP(3) + INTERVAL ? * 1000 MICROSECOND, \
            updated_at = UTC_TIMESTAMP(3) WHERE name = ? AND blocked_code = 'unanswered' AND blocked_by IS NOT NULL",
    lane_probes: "SELECT probes FROM lanes WHERE name = ? AND blocked_by IS NOT NULL AND blocked_code = ?",
    // The time before the count: MySQL sees the columns that it has assigned already.
    count_unanswered: "UPDATE lanes SET unanswered_since = IF(unanswered > 0, COALESCE(unanswered_since, UTC_TIMESTAMP(3)), UTC_TIMESTAMP(3)), \
            unanswered = unanswered + 1, updated_at = UTC_TIMESTAMP(3) WHERE name = ?",
    lane_unanswered: "SELECT unanswered, CAST(unanswered_since AS CHAR) FROM lanes WHERE name = ?",
    reopen_lane: "UPDATE lanes SET blocked_by = NULL, blocked_code = NULL, blocked_message = NULL, blocked_at = NULL, probes = 0, \
            probe_at = NULL, throttles = 0, unanswered = 0, unanswered_since = NULL, updated_at = UTC_TIMESTAMP(3) \
        WHERE name = ? AND CASE ? WHEN 'poll' THEN blocked_by = 'poll' \
            WHEN 'answer' THEN unanswered > 0 AND (blocked_by IS NULL OR blocked_code = 'unanswered') \
            ELSE blocked_by IN ('submit', 'poll') OR throttles > 0 OR unanswered > 0 END",
    reopen_fetched: "UPDATE lanes SET blocked_by = NULL, blocked_code = NULL, blocked_message = NULL, blocked_at = NULL, probes = 0, \
            probe_at = NULL, updated_at = UTC_TIMESTAMP(3) WHERE name = ? AND blocked_by = 'fetch'",
    note_unfetched: "UPDATE image_edit_calls SET ended_at = COALESCE(ended_at, UTC_TIMESTAMP(3)), fetch_host = ?, fetch_error = ?, \
            updated_at = UTC_TIMESTAMP(3) WHERE edit_key = ? AND fence = ? AND state = 'submitted'",
    // Without an owner: what is being fetched somewhere needs no waking.
    wake_unfetched: "UPDATE image_edit_calls SET wake_at = UTC_TIMESTAMP(3), wakes = 0 \
        WHERE lane = ? AND state = 'submitted' AND ended_at IS NOT NULL AND owner IS NULL",
    pause_lane: "UPDATE lanes SET paused_at = COALESCE(paused_at, UTC_TIMESTAMP(3)), updated_at = UTC_TIMESTAMP(3) WHERE name = ?",
    resume_lane: "UPDATE lanes SET paused_at = NULL, probes = 0, probe_at = IF(blocked_by IN ('submit', 'poll'), UTC_TIMESTAMP(3), probe_at), \
            blocked_by = IF(blocked_by = 'fetch', NULL, blocked_by), updated_at = UTC_TIMESTAMP(3) WHERE name = ?",
    lanes: concat!(
        "SELECT ",
        lane_columns!(),
        ", l.name, \
            (SELECT COUNT(*) FROM image_edit_calls c WHERE c.lane = l.name AND c.state IN ('queued', 'claimed')), \
            (SELECT COUNT(*) FROM image_edit_calls c WHERE c.lane = l.name AND c.state IN ('submitting', 'submitted', 'ambiguous') AND c.ended_at IS NULL), \
            (SELECT CAST(TIMESTAMPDIFF(MICROSECOND, MIN(c.updated_at), UTC_TIMESTAMP(3)) DIV 1000 AS SIGNED) \
                FROM image_edit_calls c WHERE c.lane = l.name AND c.state IN ('queued', 'claimed')), \
            (SELECT COUNT(*) FROM image_edit_calls c WHERE c.lane = l.name AND c.state = 'submitted' AND c.fetch_host IS NOT NULL), \
            (SELECT c.fetch_host FROM image_edit_calls c WHERE c.lane = l.name AND c.state = 'submitted' AND c.fetch_host IS NOT NULL ORDER BY c.updated_at DESC LIMIT 1), \
            (SELECT c.fetch_error FROM image_edit_calls c WHERE c.lane = l.name AND c.state = 'submitted' AND c.fetch_host IS NOT NULL ORDER BY c.updated_at DESC LIMIT 1), \
            (SELECT COUNT(*) FROM image_edit_calls c WHERE c.lane = l.name AND c.state IN ('submitted', 'ambiguous') \
                AND c.last_error LIKE 'the provider cannot say what became of it:%'), \
            (SELECT MAX(c.last_error) FROM image_edit_calls c WHERE c.lane = l.name AND c.state IN ('submitted', 'ambiguous') \
                AND c.last_error LIKE 'the provider cannot say what became of it:%') \
        FROM lanes l ORDER BY l.name"
    ),
    claim_call: "UPDATE image_edit_calls SET state = ?, owner = ?, fence = ?, \
            lease_until = UTC_TIMESTAMP(3) + INTERVAL ? * 1000 MICROSECOND, wake_at = UTC_TIMESTAMP(3) + INTERVAL ? * 1000 MICROSECOND, \
            updated_at = UTC_TIMESTAMP(3) \
        WHERE edit_key = ? AND state = ? AND fence = ? AND (lease_until IS NULL OR lease_until <= UTC_TIMESTAMP(3))",
    renew_lease: "UPDATE image_edit_calls SET lease_until = UTC_TIMESTAMP(3) + INTERVAL ? * 1000 MICROSECOND, \
            wake_at = UTC_TIMESTAMP(3) + INTERVAL ? * 1000 MICROSECOND \
        WHERE edit_key = ? AND fence = ? AND state IN ('claimed', 'submitting', 'submitted', 'ambiguous', 'stored')",
    begin_submit: "UPDATE image_edit_calls SET state = 'submitting', unanswered = unanswered + 1, lost_as = NULL, ended_at = NULL, fetch_host = NULL, fetch_error = NULL, price_micros = ?, currency = ?, \
            submitted_at = UTC_TIMESTAMP(3), updated_at = UTC_TIMESTAMP(3) WHERE edit_key = ? AND fence = ? AND state = 'claimed' AND held IS NULL",
    retract_submit: "UPDATE image_edit_calls SET state = 'claimed', unanswered = GREATEST(unanswered - 1, 0), submitted_at = NULL, updated_at = UTC_TIMESTAMP(3) \
        WHERE edit_key = ? AND fence = ? AND state IN ('submitting', 'ambiguous')",
    // What was read from an answer that had been kept was counted as paid when it was kept. `state` comes
    // last, here and below: MySQL sees the columns that it has assigned already.
    record_submitted: "UPDATE image_edit_calls SET provider_task_id = ?, paid_calls = paid_calls + IF(state = 'claimed', 0, 1), \
            unanswered = GREATEST(unanswered - IF(state = 'claimed', 0, 1), 0), answer_hash = IF(state = 'claimed', answer_hash, NULL), \
            submitted_at = COALESCE(submitted_at, UTC_TIMESTAMP(3)), state = 'submitted', updated_at = UTC_TIMESTAMP(3) \
        WHERE edit_key = ? AND fence = ? AND (state IN ('submitting', 'ambiguous') OR (state = 'claimed' AND answer_hash IS NOT NULL))",
    record_stored: "UPDATE image_edit_calls SET paid_calls = paid_calls + IF(state = 'submitting', 1, 0), \
            unanswered = GREATEST(unanswered - IF(state = 'submitting', 1, 0), 0), answer_hash = IF(state = 'submitting', NULL, answer_hash), \
            state = 'stored', result_hash = ?, result_type = ?, result_width = ?, result_height = ?, result_bytes = ?, result_check = ?, \
            updated_at = UTC_TIMESTAMP(3) \
        WHERE edit_key = ? AND fence = ? AND (state IN ('submitting', 'submitted') OR (state = 'claimed' AND answer_hash IS NOT NULL))",
    store_and_close: "UPDATE image_edit_calls SET paid_calls = paid_calls + IF(state = 'submitting', 1, 0), unanswered = 0, held = NULL, \
            state = 'done', result_hash = ?, \
            result_type = ?, result_width = ?, result_height = ?, result_bytes = ?, result_check = ?, owner = NULL, lease_until = NULL, wake_at = NULL, \
            last_error = NULL, updated_at = UTC_TIMESTAMP(3) WHERE edit_key = ? AND fence = ? AND state IN ('submitting', 'submitted')",
    keep_answer: "UPDATE image_edit_calls SET answer_hash = ?, answer_type = ?, paid_calls = paid_calls + ? WHERE edit_key = ? AND fence = ?",
    forget_answer: "UPDATE image_edit_calls SET answer_hash = NULL, answer_type = NULL, lost_as = NULL WHERE edit_key = ? AND fence = ?",
    remember_tasks: concat!(
        "INSERT INTO provider_tasks (id_hash, seen_at) SELECT UNHEX(j.k), UTC_TIMESTAMP(3) FROM ",
        keys!(),
        " ON DUPLICATE KEY UPDATE seen_at = VALUES(seen_at)"
    ),
    known_tasks: concat!(
        "SELECT p.id_hash FROM ",
        keys!(),
        " STRAIGHT_JOIN provider_tasks p FORCE INDEX (PRIMARY) ON p.id_hash = UNHEX(j.k)"
    ),
    forget_tasks: "DELETE FROM provider_tasks WHERE seen_at < UTC_TIMESTAMP(3) - INTERVAL ? * 1000 MICROSECOND",
    // What was asked for again is not there.
    requeue_call: "UPDATE image_edit_calls SET unanswered = GREATEST(unanswered - IF(state = 'submitting', 1, 0), 0), \
            answer_hash = IF(state = 'submitted', NULL, answer_hash), lost_as = IF(state = 'submitted', NULL, lost_as), state = 'queued', fence = fence + 1, owner = NULL, lease_until = NULL, provider_task_id = NULL, submitted_at = NULL, \
            result_hash = NULL, ended_at = NULL, fetch_host = NULL, fetch_error = NULL, attempts = attempts + ?, last_error = ?, wake_at = UTC_TIMESTAMP(3) + INTERVAL ? * 1000 MICROSECOND, wakes = 0, updated_at = UTC_TIMESTAMP(3) \
        WHERE edit_key = ? AND fence = ? AND state IN ('claimed', 'submitting', 'submitted', 'ambiguous', 'stored')",
    hand_over_call: "UPDATE image_edit_calls SET fence = fence + 1, owner = NULL, lease_until = NULL, last_error = COALESCE(?, last_error), \
            wake_at = UTC_TIMESTAMP(3) + INTERVAL ? * 1000 MICROSECOND, wakes = 0, updated_at = UTC_TIMESTAMP(3) \
        WHERE edit_key = ? AND fence = ? AND state IN ('submitted', 'ambiguous', 'stored')",
    count_ambiguous: "UPDATE image_edit_calls SET unanswered = unanswered + IF(state = 'submitted', 1, 0), state = 'ambiguous', possible_duplicates = possible_duplicates + IF(submitted_at IS NULL, 0, ?), \
            lost_micros = lost_micros + IF(submitted_at IS NULL OR ? = 0, 0, price_micros), \
            submitted_at = IF(? > 0, NULL, submitted_at), last_error = ?, updated_at = UTC_TIMESTAMP(3) WHERE edit_key = ? AND fence = ? AND state IN ('submitting', 'submitted', 'ambiguous')",
    // Without a text it takes back its own, and no other.
    note_stuck: "UPDATE image_edit_calls SET last_error = ? WHERE (? = 1 OR last_error LIKE 'the provider cannot say what became of it:%') \
        AND edit_key = ? AND fence = ? AND state IN ('submitted', 'ambiguous')",
    upsert_cache: "INSERT INTO image_edit_cache (edit_key, image_hash, edit_type, prompt, provider, model, params, mask_hash, variant, \
            result_url, result_hash, content_type, width, height, bytes, price_micros, currency, result_check, hit_count, key_version, \
            last_hit_at, created_at, updated_at) \
        SELECT edit_key, image_hash, edit_type, prompt, provider, model, params, mask_hash, variant, \
            ?, result_hash, result_type, result_width, result_height, result_bytes, price_micros, currency, result_check, ?, ?, \
            UTC_TIMESTAMP(3), UTC_TIMESTAMP(3), UTC_TIMESTAMP(3) FROM image_edit_calls c WHERE c.edit_key = ? \
        ON DUPLICATE KEY UPDATE result_url = VALUES(result_url), result_hash = VALUES(result_hash), content_type = VALUES(content_type), \
            width = VALUES(width), height = VALUES(height), bytes = VALUES(bytes), result_check = VALUES(result_check), price_micros = VALUES(price_micros), \
            currency = VALUES(currency), hit_count = image_edit_cache.hit_count + VALUES(hit_count), last_hit_at = UTC_TIMESTAMP(3), \
            updated_at = UTC_TIMESTAMP(3)",
    waits_of: "SELECT task_id, position, source FROM image_edit_waits WHERE edit_key = ? ORDER BY task_id, position",
    price_and_waits: "SELECT w.task_id, w.position, w.source, c.price_micros, c.currency, c.lost_micros, c.lost_as FROM image_edit_calls c \
        LEFT JOIN image_edit_waits w ON w.edit_key = c.edit_key WHERE c.edit_key = ? ORDER BY w.task_id, w.position",
    // With the time at which what it is followed by is said to have happened.
    lock_tasks: concat!(
        "SELECT ",
        task_columns!(),
        ", CAST(UTC_TIMESTAMP(3) AS CHAR) FROM JSON_TABLE(?, '$[*]' COLUMNS (k VARCHAR(64) CHARACTER SET ascii PATH '$')) j \
        STRAIGHT_JOIN image_edit_tasks t FORCE INDEX (task_id) ON t.task_id = j.k FOR UPDATE"
    ),
    update_tasks: concat!(
        "UPDATE JSON_TABLE(?, '$[*]' COLUMNS (id BIGINT PATH '$.id', status VARCHAR(255) CHARACTER SET utf8mb4 PATH '$.status', \
            joined INT PATH '$.joined', paid INT PATH '$.paid', failed INT PATH '$.failed', paid_micros BIGINT PATH '$.paid_micros', \
            saved_micros BIGINT PATH '$.saved_micros', lost_micros BIGINT PATH '$.lost_micros', results LONGTEXT CHARACTER SET utf8mb4 PATH '$.results', \
            error LONGTEXT CHARACTER SET utf8mb4 PATH '$.error', ended_at VARCHAR(32) CHARACTER SET ascii PATH '$.ended_at')) j",
        tasks_of_j!(),
        "SET t.status = j.status, t.joined_images = j.joined, t.paid_images = j.paid, t.failed_images = j.failed, \
            t.paid_micros = j.paid_micros, t.saved_micros = j.saved_micros, t.lost_micros = j.lost_micros, t.results = j.results, t.error = j.error, \
            t.event_due = IF(j.ended_at IS NULL, NULL, UTC_TIMESTAMP(3) + INTERVAL ? * 1000 MICROSECOND), \
            t.completed_at = j.ended_at, t.updated_at = UTC_TIMESTAMP(3)"
    ),
    delete_waits: "DELETE FROM image_edit_waits WHERE edit_key = ?",
    close_call: "UPDATE image_edit_calls SET unanswered = IF(? = 1, 0, GREATEST(unanswered - IF(state = 'submitting', 1, 0), 0)), \
            held = IF(? = 1, NULL, COALESCE(?, held)), lost_as = ?, state = ?, owner = NULL, lease_until = NULL, wake_at = NULL, last_error = ?, \
            updated_at = UTC_TIMESTAMP(3) \
        WHERE edit_key = ? AND fence = ?",
    redirect_reply: "UPDATE image_edit_tasks SET reply_to = ?, correlation_id = ? WHERE task_id = ?",
    due_calls: "SELECT edit_key, lane, state, wakes FROM image_edit_calls WHERE wake_at <= UTC_TIMESTAMP(3) ORDER BY wake_at LIMIT ? \
        FOR UPDATE SKIP LOCKED",
    // `wake_at` first: MySQL sees the columns that it has assigned already.
    snooze_calls: concat!(
        "UPDATE ",
        keys!(),
        calls_of_j!(),
        "SET c.wake_at = UTC_TIMESTAMP(3) + INTERVAL LEAST(? * (1 << LEAST(c.wakes, 6)), 600000) * 1000 MICROSECOND, c.wakes = c.wakes + 1"
    ),
    due_events: concat!(
        "SELECT ",
        task_columns!(),
        " FROM image_edit_tasks t WHERE t.event_due <= UTC_TIMESTAMP(3) ORDER BY t.event_due LIMIT ? \
        FOR UPDATE SKIP LOCKED"
    ),
    snooze_events: concat!(
        "UPDATE JSON_TABLE(?, '$[*]' COLUMNS (id BIGINT PATH '$')) j",
        tasks_of_j!(),
        "SET t.event_due = UTC_TIMESTAMP(3) + INTERVAL ? * 1000 MICROSECOND"
    ),
    letters: &letters::SQL,
    suspect_starts: "SELECT starts FROM suspects WHERE suspect_key = ? AND updated_at > UTC_TIMESTAMP(3) - INTERVAL 1 DAY",
    // `starts` before `updated_at`: MySQL sees the columns that it has assigned already.
    start_suspect: "INSERT INTO suspects (suspect_key, starts, updated_at) VALUES (?, 1, UTC_TIMESTAMP(3)) \
        ON DUPLICATE KEY UPDATE starts = IF(updated_at > UTC_TIMESTAMP(3) - INTERVAL 1 DAY, starts, 0) + 1, updated_at = UTC_TIMESTAMP(3)",
    end_suspect: "UPDATE suspects SET starts = GREATEST(starts - 1, 0) WHERE suspect_key = ?",
    clear_suspect: "DELETE FROM suspects WHERE suspect_key = ?",
    forget_suspects: "DELETE FROM suspects WHERE updated_at < UTC_TIMESTAMP(3) - INTERVAL 2 DAY",
    our_tables: "SELECT CAST(table_name AS CHAR) FROM information_schema.tables WHERE table_schema = DATABASE()",
    readings: &readings::READINGS,
    inspect: &inspect::INSPECT,
    cache_view: &cache_view::CACHE_VIEW,
    cancels: &cancels::CANCELS,
    commands: &commands::COMMANDS,
    replicas: &replicas::REPLICAS,
    installation: &installation::INSTALLATION,
    batch: &batch::BATCH,
    overview: &overview::OVERVIEW,
    dropped: &dropped::DROPPED,
    evict: &evict::EVICT,
    forget: &forget::FORGET,
    verify: &verify::VERIFY,
    imports: &imports::IMPORTS,
    spending: &spending::SPENDING,
};

/// Waits a minute for whoever else migrates this database. 64 characters at most.
const LOCK_MIGRATIONS: &str =
    "SELECT CAST(GET_LOCK(CONCAT('retouch-migrate-', MD5(DATABASE())), 60) AS SIGNED)";
/// A migration that was begun and not ended is run again from its beginning.
const FORGET_UNFINISHED: &str = "DELETE FROM retouch_migrations WHERE NOT success";

/// A MySQL or MariaDB database.
pub(super) struct MySqlDb {
    pool: Pool,
}

/// How long a server may take to answer.
const CONNECT: Duration = Duration::from_secs(10);

/// So long a connection that was given back is taken to be there still.
const FRESH: Duration = Duration::from_millis(100);

/// Connects once and hangs up.
///
/// # Errors
/// Why it cannot be done.
pub(super) async fn reach(url: &str) -> Result<(), DbError> {
    let connected = tokio::time::timeout(CONNECT, options(url)?.connect()).await;
    let connected = connected.map_err(|_| DbError::Unavailable(format!("no answer within {CONNECT:?}")))?;
    connected.map_err(|failed| untrusted(error(failed)))?.close().await.map_err(error)
}

/// Whoever names an authority wants it to be asked: by default sqlx takes any certificate, and does without one.
pub(super) fn options(url: &str) -> Result<MySqlConnectOptions, DbError> {
    let options = MySqlConnectOptions::from_str(url).map_err(|error| DbError::Failed(error.to_string()))?;
    let asks = |names: [&str; 2]| {
        url::Url::parse(url)
            .is_ok_and(|url| url.query_pairs().any(|(name, _)| names.contains(&&*name.to_ascii_lowercase())))
    };
    let only_ca = asks(["ssl-ca", "sslca"]) && !asks(["ssl-mode", "sslmode"]);
    Ok(if only_ca { options.ssl_mode(MySqlSslMode::VerifyIdentity) } else { options })
}

/// A handshake that failed over the server's certificate, with what to do about it.
fn untrusted(error: DbError) -> DbError {
    match error {
        // The second is an authority of a name that is trusted, and another key.
        DbError::Unavailable(why) if why.contains("UnknownIssuer") || why.contains("BadSignature") => {
            DbError::Unavailable(format!(
                "{why}: the server's certificate is of an authority that this machine does not trust; \
             name its file in the URL: ?ssl-ca=/path/ca.pem"
            ))
        }
        DbError::Unavailable(why) if why.contains("invalid peer certificate") => {
            DbError::Unavailable(format!(
                "{why}: the server's certificate is not good for this host; use the name that it was made for"
            ))
        }
        other => other,
    }
}

impl MySqlDb {
    /// Opens a pool; connects when first used.
    ///
    /// # Errors
    /// [`DbError::Failed`] where the URL cannot be understood.
    pub(super) fn open(url: &str, connections: u32) -> Result<Self, DbError> {
        let options = options(url)?;
        // One connection keeps every statement text of ours prepared.
        let options = options.charset("utf8mb4").collation("utf8mb4_bin").statement_cache_capacity(256);
        let pool = MySqlPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(CONNECT)
            // It was asked when it was given back; only one that has lain is asked again before it is used.
            .test_before_acquire(false)
            .before_acquire(|connection, lain| {
                Box::pin(async move {
                    if lain.idle_for > FRESH {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .after_connect(|connection, _| {
                Box::pin(async move {
                    connection.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED").await?;
                    // Strict: a value that does not fit is an error, never cut.
                    connection
                        .execute("SET sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES'), innodb_lock_wait_timeout = 10")
                        .await?;
                    Ok(())
                })
            })
            .connect_lazy_with(options);
        Ok(Self { pool: Pool::new(pool) })
    }
}

pub(super) fn error(error: sqlx::Error) -> DbError {
    classify(error, |number| match number {
        // Deadlock; lock wait timeout; record changed since last read (MariaDB 11.6+).
        1213 | 1205 | 1020 => DbError::Conflict,
        1062 => DbError::Duplicate,
        // Shutting down, starting, full, read-only during a failover, too many connections or prepared statements, or we were cut off.
        1021
        | 1040
        | 1041
        | 1047
        | 1053
        | 1077..=1080
        | 1114
        | 1129
        | 1203
        | 1290
        | 1317
        | 1461
        | 1836
        | 1927
        | 1969
        | 3024
        | 3168
        | 3169
        | 4031 => DbError::Unavailable,
        _ => DbError::Failed,
    })
}

#[async_trait]
impl Db for MySqlDb {
    fn sql(&self) -> &'static Statements {
        &SQL
    }

    async fn begin(&self) -> Result<Box<dyn Tx>, DbError> {
        let mut connection = Connection::acquire(&self.pool).await?;
        connection.begin().await?;
        Ok(Box::new(connection))
    }

    async fn plain(&self) -> Result<Box<dyn Tx>, DbError> {
        Ok(Box::new(Connection::acquire(&self.pool).await?))
    }

    async fn schema_state(&self) -> Result<SchemaState, DbError> {
        let mut connection = self.plain().await?;
        SchemaState::read(&mut *connection, SQL.our_tables, schema::MYSQL).await
    }

    async fn migrate(&self) -> Result<SchemaState, DbError> {
        let mut connection = Connection::acquire(&self.pool).await?;
        // The lock is the connection's.
        connection.keep_apart();
        let locked = connection.rows(LOCK_MIGRATIONS, vals![]).await?;
        if locked.first().map(|row| row.opt_int(0)).transpose()? != Some(Some(1)) {
            return Err(DbError::Unavailable("another program is migrating this database".to_owned()));
        }
        let state = SchemaState::read(&mut connection, SQL.our_tables, schema::MYSQL).await?;
        if !state.wants_migration() {
            return Ok(state);
        }
        if state != SchemaState::Empty {
            connection.run(FORGET_UNFINISHED, vals![]).await?;
        }
        schema::migrate(schema::MYSQL, connection.raw()).await?;
        SchemaState::read(&mut connection, SQL.our_tables, schema::MYSQL).await
    }

    async fn close(&self) {
        self.pool.close().await;
    }
}
