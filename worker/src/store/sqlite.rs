//! Every SQL statement for SQLite: one file, one writer at a time, WAL so that readers never wait.
//!
//! Writers begin with BEGIN IMMEDIATE: a deferred transaction that turns into a writer fails at once with
//! SQLITE_BUSY_SNAPSHOT, whatever the busy timeout. That is also why no statement here locks rows.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::Sqlite;
use sqlx::sqlite::{SqliteArguments, SqliteConnectOptions, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::db::{Db, DbError, Row, Statements, Tx, Val, classify, impl_bound};
use super::schema::{self, SchemaState};
use super::task_row::inserts;
use crate::private;

mod cache_view;
mod cancels;
mod dropped;
mod evict;
mod forget;
mod imports;
mod inspect;
mod installation;
mod overview;
mod readings;
mod replicas;
mod spending;
mod verify;

/// The columns that [`TaskRecord::from_row`](super::TaskRecord) reads.
macro_rules! task_columns {
    () => {
        "t.id, t.task_id, t.request_hash, t.edit_type, t.status, t.total_images, t.hit_images, t.joined_images, t.paid_images, \
        t.failed_images, t.paid_micros, t.saved_micros, t.currency, t.results, t.metadata, t.reply_to, t.correlation_id, \
        t.created_at, t.completed_at, t.inputs, t.error, t.traceparent, t.tracestate, t.lost_micros"
    };
}

// After the macro that they use.
mod batch;
mod commands;
mod letters;

/// The columns that `claimed_call` reads; times from now in milliseconds.
macro_rules! call_columns {
    () => {
        "image_hash, edit_type, prompt, provider, model, params, mask_hash, variant, lane, price_micros, currency, state, attempts, \
            fence, provider_task_id, result_hash, result_type, result_width, result_height, result_bytes, \
            coalesce(lease_until > strftime('%Y-%m-%d %H:%M:%f', 'now'), 0), \
            CAST(coalesce((unixepoch(lease_until, 'subsec') - unixepoch('now', 'subsec')) * 1000, 0) AS INTEGER), \
            CAST(coalesce(max((unixepoch('now', 'subsec') - unixepoch(submitted_at, 'subsec')) * 1000, 1), 0) AS INTEGER), letter_id, \
            unanswered, held, answer_hash, answer_type, ended_at IS NOT NULL, lost_micros, lost_as"
    };
}

/// The columns that `lane_row` reads; times from now in milliseconds.
macro_rules! lane_columns {
    () => {
        "l.max_in_flight, l.submit_interval_ms, l.budget_micros, l.currency, iif(l.spent_on = date('now'), l.spent_micros, 0), \
        CAST((unixepoch(l.next_submit_at, 'subsec') - unixepoch('now', 'subsec')) * 1000 AS INTEGER), l.throttles, \
        l.blocked_by, l.blocked_code, l.blocked_message, \
        CAST((unixepoch(l.probe_at, 'subsec') - unixepoch('now', 'subsec')) * 1000 AS INTEGER), l.paused_at IS NOT NULL, \
        CAST((unixepoch('now', 'start of day', '+1 day') - unixepoch('now', 'subsec')) * 1000 AS INTEGER), l.probes, l.one_unresolved, l.unanswered"
    };
}
use lane_columns;

pub(super) static SQL: Statements = Statements {
    lookup: "SELECT c.edit_key, c.image_hash, c.result_url, c.result_hash, c.content_type, c.width, c.height, c.bytes, c.price_micros, c.currency \
        FROM json_each(?) j CROSS JOIN image_edit_cache c ON c.edit_key = unhex(j.value)",
    // The fence begins at the clock: a call that is made anew after it was forgotten never has one that an old owner holds.
    insert_calls: "INSERT INTO image_edit_calls (edit_key, image_hash, edit_type, prompt, provider, model, params, mask_hash, variant, lane, \
            price_micros, currency, state, attempts, fence, wakes, paid_calls, possible_duplicates, wake_at, created_at, updated_at) \
        SELECT unhex(j.value ->> 'edit_key'), j.value ->> 'image_hash', j.value ->> 'edit_type', j.value ->> 'prompt', j.value ->> 'provider', \
            j.value ->> 'model', j.value ->> 'params', j.value ->> 'mask_hash', j.value ->> 'variant', j.value ->> 'lane', \
            j.value ->> 'price_micros', j.value ->> 'currency', 'queued', 0, CAST(unixepoch('now', 'subsec') * 1000 AS INTEGER), 0, 0, 0, \
            strftime('%Y-%m-%d %H:%M:%f', 'now', (?1 / 1000.0) || ' seconds'), strftime('%Y-%m-%d %H:%M:%f', 'now'), strftime('%Y-%m-%d %H:%M:%f', 'now') \
        FROM json_each(?2) j",
    lock_calls: "SELECT edit_key, state, price_micros, currency, lost_micros FROM image_edit_calls \
        WHERE edit_key IN (SELECT unhex(value) FROM json_each(?)) ORDER BY edit_key",
    // One whose paid result the provider may still have is asked after again, at what it cost, and without a
    // place on its lane.
    queue_calls: "UPDATE image_edit_calls SET state = iif(lost_as IS NOT NULL AND provider_task_id IS NOT NULL, 'submitted', 'queued'), \
            attempts = 0, lane = j.value ->> 'lane', price_micros = iif(lost_as IS NULL, j.value ->> 'price_micros', price_micros), \
            currency = iif(lost_as IS NULL, j.value ->> 'currency', currency), fence = fence + 1, owner = NULL, lease_until = NULL, wake_at = strftime('%Y-%m-%d %H:%M:%f', 'now', (?2 / 1000.0) || ' seconds'), \
            wakes = 0, provider_task_id = iif(lost_as IS NULL, NULL, provider_task_id), \
            submitted_at = iif(lost_as IS NOT NULL AND provider_task_id IS NOT NULL, submitted_at, NULL), \
            ended_at = iif(lost_as IS NOT NULL AND provider_task_id IS NOT NULL, coalesce(ended_at, strftime('%Y-%m-%d %H:%M:%f', 'now')), NULL), \
            result_hash = NULL, last_error = NULL, letter_id = NULL, lost_micros = 0, fetch_host = NULL, fetch_error = NULL, \
            updated_at = strftime('%Y-%m-%d %H:%M:%f', 'now') \
        FROM json_each(?1) j WHERE image_edit_calls.edit_key = unhex(j.value ->> 'edit_key')",
    insert_waits: "INSERT INTO image_edit_waits (task_id, edit_key, position, source, created_at) \
        SELECT ?, unhex(j.value ->> 'edit_key'), j.value ->> 'position', j.value ->> 'source', strftime('%Y-%m-%d %H:%M:%f', 'now') FROM json_each(?) j",
    insert_tasks: inserts!(
        "INSERT INTO image_edit_tasks (task_id, request_hash, edit_type, prompt, model, params, inputs, status, total_images, \
            hit_images, joined_images, paid_images, failed_images, paid_micros, saved_micros, currency, results, metadata, error, \
            reply_to, correlation_id, traceparent, tracestate, event_due, created_at, updated_at, completed_at) VALUES ",
        "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0, ?, 0, ?, ?, ?, ?, ?, ?, ?, ?, ?, \
            iif(? = 1, strftime('%Y-%m-%d %H:%M:%f', 'now', (? / 1000.0) || ' seconds'), NULL), strftime('%Y-%m-%d %H:%M:%f', 'now'), \
            strftime('%Y-%m-%d %H:%M:%f', 'now'), iif(? = 1, strftime('%Y-%m-%d %H:%M:%f', 'now'), NULL))"
    ),
    count_hits: "UPDATE image_edit_cache SET hit_count = hit_count + (j.value ->> 'count'), last_hit_at = strftime('%Y-%m-%d %H:%M:%f', 'now') \
        FROM json_each(?) j WHERE image_edit_cache.edit_key = unhex(j.value ->> 'edit_key') AND image_edit_cache.result_hash IS (j.value ->> 'result')",
    find_task: concat!("SELECT ", task_columns!(), " FROM image_edit_tasks t WHERE t.task_id = ?"),
    read_back: concat!(
        "SELECT ",
        task_columns!(),
        ", (SELECT count(*) FROM cancels c WHERE c.task_id = t.task_id AND c.created_at > strftime('%Y-%m-%d %H:%M:%f', 'now', '-1 day')), (",
        dropped::was_dropped!("count(*)"),
        ") FROM image_edit_tasks t WHERE t.task_id = ?3"
    ),
    tasks_by_id: concat!(
        "SELECT ",
        task_columns!(),
        " FROM json_each(?) j CROSS JOIN image_edit_tasks t ON t.id = j.value"
    ),
    read_call: concat!(
        "SELECT ",
        call_columns!(),
        ", (SELECT starts FROM suspects WHERE suspect_key = ? AND updated_at > strftime('%Y-%m-%d %H:%M:%f', 'now', '-1 day')) \
        FROM image_edit_calls WHERE edit_key = ?"
    ),
    lock_call: concat!("SELECT ", call_columns!(), " FROM image_edit_calls WHERE edit_key = ?"),
    lock_lane: concat!("SELECT ", lane_columns!(), " FROM lanes l WHERE l.name = ?"),
    // Whoever owns them, and if nobody does: they are under way at the provider.
    lane_in_flight: "SELECT count(*) FROM image_edit_calls WHERE lane = ? AND state IN ('submitting', 'submitted', 'ambiguous') AND ended_at IS NULL",
    // What cannot be fetched; what only takes its time has no host here.
    lane_unfetched: "SELECT count(*) FROM image_edit_calls WHERE lane = ? AND state = 'submitted' AND fetch_host IS NOT NULL",
    lane_unresolved: "SELECT count(*) FROM image_edit_calls WHERE lane = ? AND state IN ('submitting', 'ambiguous') AND edit_key <> ?",
    declare_lane: "INSERT INTO lanes (name, max_in_flight, submit_interval_ms, budget_micros, currency, one_unresolved, updated_at) \
        VALUES (?, ?, ?, ?, ?, ?, strftime('%Y-%m-%d %H:%M:%f', 'now')) \
        ON CONFLICT (name) DO UPDATE SET max_in_flight = excluded.max_in_flight, submit_interval_ms = excluded.submit_interval_ms, \
            budget_micros = excluded.budget_micros, currency = coalesce(excluded.currency, lanes.currency), \
            one_unresolved = excluded.one_unresolved, \
            probes = iif(lanes.blocked_code IS 'unanswered', lanes.probes, 0), \
            probe_at = iif(lanes.blocked_by IN ('submit', 'poll') AND lanes.blocked_code IS NOT 'unanswered', \
                strftime('%Y-%m-%d %H:%M:%f', 'now'), lanes.probe_at), updated_at = excluded.updated_at",
    take_place: "UPDATE lanes SET spent_micros = iif(spent_on = date('now'), spent_micros, 0) + ?, currency = ?, spent_on = date('now'), \
            next_submit_at = strftime('%Y-%m-%d %H:%M:%f', 'now', (? / 1000.0) || ' seconds'), \
            probe_at = iif(? = 1, strftime('%Y-%m-%d %H:%M:%f', 'now', (? / 1000.0) || ' seconds'), probe_at), probes = ?, \
            blocked_by = iif(? = 1, NULL, blocked_by), updated_at = strftime('%Y-%m-%d %H:%M:%f', 'now') WHERE name = ?",
    refund: "UPDATE lanes SET spent_micros = max(spent_micros - ?, 0) WHERE name = ? \
        AND spent_on = (SELECT date(submitted_at) FROM image_edit_calls WHERE edit_key = ?)",
    uncount_paid: "UPDATE image_edit_calls SET paid_calls = max(paid_calls - 1, 0) WHERE edit_key = ? AND fence = ?",
    throttle_lane: "UPDATE lanes SET next_submit_at = max(coalesce(next_submit_at, ''), strftime('%Y-%m-%d %H:%M:%f', 'now', (? / 1000.0) || ' seconds')), \
            throttles = throttles + 1, updated_at = strftime('%Y-%m-%d %H:%M:%f', 'now') WHERE name = ?",
    // Of another cause none was made yet.
    block_lane: "UPDATE lanes SET probes = iif(blocked_by IS NOT NULL AND blocked_code IS ?, probes, 0), \
            blocked_at = iif(blocked_by IS NULL, strftime('%Y-%m-%d %H:%M:%f', 'now'), blocked_at), blocked_by = ?, \
            blocked_code = ?, blocked_message = ?, probe_at = strftime('%Y-%m-%d %H:%M:%f', 'now', (? / 1000.0) || ' seconds'), \
            updated_at = strftime('%Y-%m-%d %H:%M:%f', 'now') WHERE name = ?",
    probe_lane: "UPDATE lanes SET probe_at = min(probe_at, strftime('%Y-%m-%d %H:%M:%f', 'now', (? / 1000.0) || ' seconds')), \
            updated_at = strftime('%Y-%m-%d %H:%M:%f', 'now') WHERE name = ? AND blocked_by IN ('submit', 'poll')",
    postpone_probe: "UPDATE lanes SET probe_at = strftime('%Y-%m-%d %H:%M:%f', 'now', (? / 1000.0) || ' seconds'), \
            updated_at = strftime('%Y-%m-%d %H:%M:%f', 'now') WHERE name = ? AND blocked_code = 'unanswered' AND blocked_by IS NOT NULL",
    lane_probes: "SELECT probes FROM lanes WHERE name = ? AND blocked_by IS NOT NULL AND blocked_code = ?",
    count_unanswered: "UPDATE lanes SET \
            unanswered_since = iif(unanswered > 0, coalesce(unanswered_since, strftime('%Y-%m-%d %H:%M:%f', 'now')), \
                strftime('%Y-%m-%d %H:%M:%f', 'now')), \
            unanswered = unanswered + 1, updated_at = strftime('%Y-%m-%d %H:%M:%f', 'now') WHERE name = ?",
    lane_unanswered: "SELECT unanswered, unanswered_since FROM lanes WHERE name = ?",
    reopen_lane: "UPDATE lanes SET blocked_by = NULL, blocked_code = NULL, blocked_message = NULL, blocked_at = NULL, probes = 0, \
            probe_at = NULL, throttles = 0, unanswered = 0, unanswered_since = NULL, updated_at = strftime('%Y-%m-%d %H:%M:%f', 'now') \
        WHERE name = ? AND CASE ? WHEN 'poll' THEN blocked_by = 'poll' \
            WHEN 'answer' THEN unanswered > 0 AND (blocked_by IS NULL OR blocked_code = 'unanswered') \
            ELSE blocked_by IN ('submit', 'poll') OR throttles > 0 OR unanswered > 0 END",
    reopen_fetched: "UPDATE lanes SET blocked_by = NULL, blocked_code = NULL, blocked_message = NULL, blocked_at = NULL, probes = 0, \
            probe_at = NULL, updated_at = strftime('%Y-%m-%d %H:%M:%f', 'now') WHERE name = ? AND blocked_by = 'fetch'",
    note_unfetched: "UPDATE image_edit_calls SET ended_at = coalesce(ended_at, strftime('%Y-%m-%d %H:%M:%f', 'now')), fetch_host = ?, fetch_error = ?, \
            updated_at = strftime('%Y-%m-%d %H:%M:%f', 'now') WHERE edit_key = ? AND fence = ? AND state = 'submitted'",
    // Without an owner: what is being fetched somewhere needs no waking.
    wake_unfetched: "UPDATE image_edit_calls SET wake_at = strftime('%Y-%m-%d %H:%M:%f', 'now'), wakes = 0 \
        WHERE lane = ? AND state = 'submitted' AND ended_at IS NOT NULL AND owner IS NULL",
    pause_lane: "UPDATE lanes SET paused_at = coalesce(paused_at, strftime('%Y-%m-%d %H:%M:%f', 'now')), \
            updated_at = strftime('%Y-%m-%d %H:%M:%f', 'now') WHERE name = ?",
    resume_lane: "UPDATE lanes SET paused_at = NULL, probes = 0, \
            probe_at = iif(blocked_by IN ('submit', 'poll'), strftime('%Y-%m-%d %H:%M:%f', 'now'), probe_at), \
            blocked_by = iif(blocked_by = 'fetch', NULL, blocked_by), updated_at = strftime('%Y-%m-%d %H:%M:%f', 'now') WHERE name = ?",
    lanes: concat!(
        "SELECT ",
        lane_columns!(),
        ", l.name, \
            (SELECT count(*) FROM image_edit_calls c WHERE c.lane = l.name AND c.state IN ('queued', 'claimed')), \
            (SELECT count(*) FROM image_edit_calls c WHERE c.lane = l.name AND c.state IN ('submitting', 'submitted', 'ambiguous') AND c.ended_at IS NULL), \
            (SELECT CAST((unixepoch('now', 'subsec') - unixepoch(min(c.updated_at), 'subsec')) * 1000 AS INTEGER) \
                FROM image_edit_calls c WHERE c.lane = l.name AND c.state IN ('queued', 'claimed')), \
            (SELECT count(*) FROM image_edit_calls c WHERE c.lane = l.name AND c.state = 'submitted' AND c.fetch_host IS NOT NULL), \
            (SELECT c.fetch_host FROM image_edit_calls c WHERE c.lane = l.name AND c.state = 'submitted' AND c.fetch_host IS NOT NULL ORDER BY c.updated_at DESC LIMIT 1), \
            (SELECT c.fetch_error FROM image_edit_calls c WHERE c.lane = l.name AND c.state = 'submitted' AND c.fetch_host IS NOT NULL ORDER BY c.updated_at DESC LIMIT 1), \
            (SELECT count(*) FROM image_edit_calls c WHERE c.lane = l.name AND c.state IN ('submitted', 'ambiguous') \
                AND c.last_error LIKE 'the provider cannot say what became of it:%'), \
            (SELECT max(c.last_error) FROM image_edit_calls c WHERE c.lane = l.name AND c.state IN ('submitted', 'ambiguous') \
                AND c.last_error LIKE 'the provider cannot say what became of it:%') \
        FROM lanes l ORDER BY l.name"
    ),
    claim_call: "UPDATE image_edit_calls SET state = ?, owner = ?, fence = ?, \
            lease_until = strftime('%Y-%m-%d %H:%M:%f', 'now', (? / 1000.0) || ' seconds'), \
            wake_at = strftime('%Y-%m-%d %H:%M:%f', 'now', (? / 1000.0) || ' seconds'), \
            updated_at = strftime('%Y-%m-%d %H:%M:%f', 'now') \
        WHERE edit_key = ? AND state = ? AND fence = ? AND (lease_until IS NULL OR lease_until <= strftime('%Y-%m-%d %H:%M:%f', 'now'))",
    renew_lease: "UPDATE image_edit_calls SET lease_until = strftime('%Y-%m-%d %H:%M:%f', 'now', (? / 1000.0) || ' seconds'), \
            wake_at = strftime('%Y-%m-%d %H:%M:%f', 'now', (? / 1000.0) || ' seconds') \
        WHERE edit_key = ? AND fence = ? AND state IN ('claimed', 'submitting', 'submitted', 'ambiguous', 'stored')",
    begin_submit: "UPDATE image_edit_calls SET state = 'submitting', unanswered = unanswered + 1, lost_as = NULL, ended_at = NULL, fetch_host = NULL, fetch_error = NULL, price_micros = ?, currency = ?, \
            submitted_at = strftime('%Y-%m-%d %H:%M:%f', 'now'), updated_at = strftime('%Y-%m-%d %H:%M:%f', 'now') \
        WHERE edit_key = ? AND fence = ? AND state = 'claimed' AND held IS NULL",
    retract_submit: "UPDATE image_edit_calls SET state = 'claimed', unanswered = max(unanswered - 1, 0), submitted_at = NULL, \
            updated_at = strftime('%Y-%m-%d %H:%M:%f', 'now') WHERE edit_key = ? AND fence = ? AND state IN ('submitting', 'ambiguous')",
    // What was read from an answer that had been kept was counted as paid when it was kept. `state` comes
    // last, here and below: MySQL sees the columns that it has assigned already.
    record_submitted: "UPDATE image_edit_calls SET provider_task_id = ?, paid_calls = paid_calls + iif(state = 'claimed', 0, 1), \
            unanswered = max(unanswered - iif(state = 'claimed', 0, 1), 0), answer_hash = iif(state = 'claimed', answer_hash, NULL), \
            submitted_at = coalesce(submitted_at, strftime('%Y-%m-%d %H:%M:%f', 'now')), state = 'submitted', updated_at = strftime('%Y-%m-%d %H:%M:%f', 'now') \
        WHERE edit_key = ? AND fence = ? AND (state IN ('submitting', 'ambiguous') OR (state = 'claimed' AND answer_hash IS NOT NULL))",
    record_stored: "UPDATE image_edit_calls SET paid_calls = paid_calls + iif(state = 'submitting', 1, 0), \
            unanswered = max(unanswered - iif(state = 'submitting', 1, 0), 0), answer_hash = iif(state = 'submitting', NULL, answer_hash), \
            state = 'stored', result_hash = ?, result_type = ?, result_width = ?, result_height = ?, result_bytes = ?, result_check = ?, \
            updated_at = strftime('%Y-%m-%d %H:%M:%f', 'now') \
        WHERE edit_key = ? AND fence = ? AND (state IN ('submitting', 'submitted') OR (state = 'claimed' AND answer_hash IS NOT NULL))",
    store_and_close: "UPDATE image_edit_calls SET paid_calls = paid_calls + iif(state = 'submitting', 1, 0), unanswered = 0, held = NULL, \
            state = 'done', result_hash = ?, \
            result_type = ?, result_width = ?, result_height = ?, result_bytes = ?, result_check = ?, owner = NULL, lease_until = NULL, wake_at = NULL, \
            last_error = NULL, updated_at = strftime('%Y-%m-%d %H:%M:%f', 'now') \
        WHERE edit_key = ? AND fence = ? AND state IN ('submitting', 'submitted')",
    keep_answer: "UPDATE image_edit_calls SET answer_hash = ?, answer_type = ?, paid_calls = paid_calls + ? WHERE edit_key = ? AND fence = ?",
    forget_answer: "UPDATE image_edit_calls SET answer_hash = NULL, answer_type = NULL, lost_as = NULL WHERE edit_key = ? AND fence = ?",
    remember_tasks: "INSERT INTO provider_tasks (id_hash, seen_at) SELECT unhex(j.value), strftime('%Y-%m-%d %H:%M:%f', 'now') FROM json_each(?) j \
        WHERE true ON CONFLICT (id_hash) DO UPDATE SET seen_at = excluded.seen_at",
    known_tasks: "SELECT p.id_hash FROM json_each(?) j CROSS JOIN provider_tasks p ON p.id_hash = unhex(j.value)",
    forget_tasks: "DELETE FROM provider_tasks WHERE seen_at < strftime('%Y-%m-%d %H:%M:%f', 'now', (? / -1000.0) || ' seconds')",
    // What was asked for again is not there.
    requeue_call: "UPDATE image_edit_calls SET unanswered = max(unanswered - iif(state = 'submitting', 1, 0), 0), \
            answer_hash = iif(state = 'submitted', NULL, answer_hash), lost_as = iif(state = 'submitted', NULL, lost_as), state = 'queued', fence = fence + 1, owner = NULL, lease_until = NULL, provider_task_id = NULL, \
            submitted_at = NULL, result_hash = NULL, ended_at = NULL, fetch_host = NULL, fetch_error = NULL, attempts = attempts + ?, last_error = ?, wake_at = strftime('%Y-%m-%d %H:%M:%f', 'now', (? / 1000.0) || ' seconds'), wakes = 0, \
            updated_at = strftime('%Y-%m-%d %H:%M:%f', 'now') \
        WHERE edit_key = ? AND fence = ? AND state IN ('claimed', 'submitting', 'submitted', 'ambiguous', 'stored')",
    hand_over_call: "UPDATE image_edit_calls SET fence = fence + 1, owner = NULL, lease_until = NULL, last_error = coalesce(?, last_error), \
            wake_at = strftime('%Y-%m-%d %H:%M:%f', 'now', (? / 1000.0) || ' seconds'), wakes = 0, \
            updated_at = strftime('%Y-%m-%d %H:%M:%f', 'now') WHERE edit_key = ? AND fence = ? AND state IN ('submitted', 'ambiguous', 'stored')",
    count_ambiguous: "UPDATE image_edit_calls SET unanswered = unanswered + iif(state = 'submitted', 1, 0), state = 'ambiguous', possible_duplicates = possible_duplicates + iif(submitted_at IS NULL, 0, ?), \
            lost_micros = lost_micros + iif(submitted_at IS NULL OR ? = 0, 0, price_micros), \
            submitted_at = iif(? > 0, NULL, submitted_at), last_error = ?, updated_at = strftime('%Y-%m-%d %H:%M:%f', 'now') WHERE edit_key = ? AND fence = ? AND state IN ('submitting', 'submitted', 'ambiguous')",
    // Without a text it takes back its own, and no other.
    note_stuck: "UPDATE image_edit_calls SET last_error = ? WHERE (? = 1 OR last_error LIKE 'the provider cannot say what became of it:%') \
        AND edit_key = ? AND fence = ? AND state IN ('submitted', 'ambiguous')",
    upsert_cache: "INSERT INTO image_edit_cache (edit_key, image_hash, edit_type, prompt, provider, model, params, mask_hash, variant, \
            result_url, result_hash, content_type, width, height, bytes, price_micros, currency, result_check, hit_count, key_version, \
            last_hit_at, created_at, updated_at) \
        SELECT edit_key, image_hash, edit_type, prompt, provider, model, params, mask_hash, variant, \
            ?, result_hash, result_type, result_width, result_height, result_bytes, price_micros, currency, result_check, ?, ?, \
            strftime('%Y-%m-%d %H:%M:%f', 'now'), strftime('%Y-%m-%d %H:%M:%f', 'now'), strftime('%Y-%m-%d %H:%M:%f', 'now') \
            FROM image_edit_calls c WHERE c.edit_key = ? \
        ON CONFLICT (edit_key) DO UPDATE SET result_url = excluded.result_url, result_hash = excluded.result_hash, \
            content_type = excluded.content_type, width = excluded.width, height = excluded.height, bytes = excluded.bytes, \
            result_check = excluded.result_check, price_micros = excluded.price_micros, currency = excluded.currency, hit_count = image_edit_cache.hit_count + excluded.hit_count, \
            last_hit_at = excluded.last_hit_at, updated_at = excluded.updated_at",
    waits_of: "SELECT task_id, position, source FROM image_edit_waits WHERE edit_key = ? ORDER BY task_id, position",
    price_and_waits: "SELECT w.task_id, w.position, w.source, c.price_micros, c.currency, c.lost_micros, c.lost_as FROM image_edit_calls c \
        LEFT JOIN image_edit_waits w ON w.edit_key = c.edit_key WHERE c.edit_key = ? ORDER BY w.task_id, w.position",
    // With the time at which what it is followed by is said to have happened.
    lock_tasks: concat!(
        "SELECT ",
        task_columns!(),
        ", strftime('%Y-%m-%d %H:%M:%f', 'now') FROM json_each(?) j CROSS JOIN image_edit_tasks t ON t.task_id = j.value"
    ),
    update_tasks: "UPDATE image_edit_tasks SET status = j.value ->> 'status', joined_images = j.value ->> 'joined', paid_images = j.value ->> 'paid', \
            failed_images = j.value ->> 'failed', paid_micros = j.value ->> 'paid_micros', saved_micros = j.value ->> 'saved_micros', \
            lost_micros = j.value ->> 'lost_micros', results = j.value ->> 'results', error = j.value ->> 'error', \
            event_due = iif(j.value ->> 'ended_at' IS NULL, NULL, strftime('%Y-%m-%d %H:%M:%f', 'now', (?2 / 1000.0) || ' seconds')), \
            completed_at = j.value ->> 'ended_at', \
            updated_at = strftime('%Y-%m-%d %H:%M:%f', 'now') FROM json_each(?1) j WHERE image_edit_tasks.id = j.value ->> 'id'",
    delete_waits: "DELETE FROM image_edit_waits WHERE edit_key = ?",
    close_call: "UPDATE image_edit_calls SET unanswered = iif(? = 1, 0, max(unanswered - iif(state = 'submitting', 1, 0), 0)), \
            held = iif(? = 1, NULL, coalesce(?, held)), lost_as = ?, state = ?, owner = NULL, lease_until = NULL, wake_at = NULL, last_error = ?, \
            updated_at = strftime('%Y-%m-%d %H:%M:%f', 'now') WHERE edit_key = ? AND fence = ?",
    redirect_reply: "UPDATE image_edit_tasks SET reply_to = ?, correlation_id = ? WHERE task_id = ?",
    due_calls: "SELECT edit_key, lane, state, wakes FROM image_edit_calls WHERE wake_at <= strftime('%Y-%m-%d %H:%M:%f', 'now') ORDER BY wake_at LIMIT ?",
    snooze_calls: "UPDATE image_edit_calls SET wakes = wakes + 1, \
            wake_at = strftime('%Y-%m-%d %H:%M:%f', 'now', (min(?2 * (1 << min(wakes, 6)), 600000) / 1000.0) || ' seconds') \
        FROM json_each(?1) j WHERE image_edit_calls.edit_key = unhex(j.value)",
    due_events: concat!(
        "SELECT ",
        task_columns!(),
        " FROM image_edit_tasks t \
        WHERE t.event_due <= strftime('%Y-%m-%d %H:%M:%f', 'now') ORDER BY t.event_due LIMIT ?"
    ),
    snooze_events: "UPDATE image_edit_tasks SET event_due = strftime('%Y-%m-%d %H:%M:%f', 'now', (?2 / 1000.0) || ' seconds') \
        WHERE id IN (SELECT value FROM json_each(?1))",
    letters: &letters::SQL,
    suspect_starts: "SELECT starts FROM suspects WHERE suspect_key = ? AND updated_at > strftime('%Y-%m-%d %H:%M:%f', 'now', '-1 day')",
    start_suspect: "INSERT INTO suspects (suspect_key, starts, updated_at) VALUES (?, 1, strftime('%Y-%m-%d %H:%M:%f', 'now')) \
        ON CONFLICT (suspect_key) DO UPDATE SET \
            starts = iif(updated_at > strftime('%Y-%m-%d %H:%M:%f', 'now', '-1 day'), starts, 0) + 1, updated_at = excluded.updated_at",
    end_suspect: "UPDATE suspects SET starts = max(starts - 1, 0) WHERE suspect_key = ?",
    clear_suspect: "DELETE FROM suspects WHERE suspect_key = ?",
    forget_suspects: "DELETE FROM suspects WHERE updated_at < strftime('%Y-%m-%d %H:%M:%f', 'now', '-2 days')",
    our_tables: "SELECT name FROM sqlite_schema WHERE type = 'table'",
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

/// A SQLite file.
pub(super) struct SqliteDb {
    pool: SqlitePool,
    /// Writers of this process take turns here: SQLite itself makes them poll, up to a tenth of a second apart.
    turns: Arc<Semaphore>,
}

impl SqliteDb {
    /// Opens the file, creating it and its folder where they are missing.
    ///
    /// # Errors
    /// [`DbError::Unavailable`] where the folder cannot be made.
    pub(super) fn open(path: &Path) -> Result<Self, DbError> {
        if let Some(folder) = path.parent() {
            private::make_folder(folder)
                .map_err(|error| DbError::Unavailable(format!("{}: {error}", folder.display())))?;
        }
        private::secure_sqlite(path);
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            // A commit that was answered is on disk: the protocol acknowledges messages after it.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(20))
            .statement_cache_capacity(256);
        let pool = SqlitePoolOptions::new()
            .max_connections(8)
            .acquire_timeout(Duration::from_secs(30))
            .connect_lazy_with(options);
        Ok(Self { pool, turns: Arc::new(Semaphore::new(1)) })
    }

    /// The pool, for the embedded broker that lives in the same file.
    pub(super) fn pool(&self) -> SqlitePool {
        self.pool.clone()
    }
}

pub(super) fn error(error: sqlx::Error) -> DbError {
    classify(error, |code| match (code, code & 0xff) {
        // SQLITE_CONSTRAINT_UNIQUE, SQLITE_CONSTRAINT_PRIMARYKEY
        (2067 | 1555, _) => DbError::Duplicate,
        // SQLITE_BUSY, SQLITE_LOCKED, and what extends them.
        (_, 5 | 6) => DbError::Conflict,
        // SQLITE_NOMEM, SQLITE_INTERRUPT, SQLITE_IOERR, SQLITE_FULL, SQLITE_CANTOPEN
        (_, 7 | 9 | 10 | 13 | 14) => DbError::Unavailable,
        _ => DbError::Failed,
    })
}

impl_bound!(Sqlite, SqliteArguments);

#[async_trait]
impl Tx for sqlx::Transaction<'static, Sqlite> {
    async fn run(&mut self, sql: &'static str, values: &[Val<'_>]) -> Result<u64, DbError> {
        Ok(bound(sql, values).execute(&mut **self).await.map_err(error)?.rows_affected())
    }

    async fn rows(&mut self, sql: &'static str, values: &[Val<'_>]) -> Result<Vec<Row>, DbError> {
        let rows = bound(sql, values).fetch_all(&mut **self).await.map_err(error)?;
        Ok(rows.into_iter().map(Row::Sqlite).collect())
    }

    async fn commit(self: Box<Self>) -> Result<(), DbError> {
        (*self).commit().await.map_err(error)
    }
}

/// For single statements. One that writes takes its turn like a transaction, and like it a connection only then: whoever has the
/// turn may be waiting for one.
struct Plain {
    pool: SqlitePool,
    turns: Arc<Semaphore>,
}

#[async_trait]
impl Tx for Plain {
    async fn run(&mut self, sql: &'static str, values: &[Val<'_>]) -> Result<u64, DbError> {
        let _turn = turn(&self.turns).await?;
        Ok(bound(sql, values).execute(&self.pool).await.map_err(error)?.rows_affected())
    }

    async fn rows(&mut self, sql: &'static str, values: &[Val<'_>]) -> Result<Vec<Row>, DbError> {
        let rows = bound(sql, values).fetch_all(&self.pool).await.map_err(error)?;
        Ok(rows.into_iter().map(Row::Sqlite).collect())
    }

    // Each statement has committed itself.
    async fn commit(self: Box<Self>) -> Result<(), DbError> {
        Ok(())
    }
}

async fn turn(turns: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, DbError> {
    Arc::clone(turns).acquire_owned().await.map_err(|error| DbError::Unavailable(error.to_string()))
}

/// A transaction and its turn, which it gives up last.
struct Writing {
    tx: sqlx::Transaction<'static, Sqlite>,
    _turn: OwnedSemaphorePermit,
}

#[async_trait]
impl Tx for Writing {
    async fn run(&mut self, sql: &'static str, values: &[Val<'_>]) -> Result<u64, DbError> {
        self.tx.run(sql, values).await
    }

    async fn rows(&mut self, sql: &'static str, values: &[Val<'_>]) -> Result<Vec<Row>, DbError> {
        self.tx.rows(sql, values).await
    }

    async fn commit(self: Box<Self>) -> Result<(), DbError> {
        Box::new(self.tx).commit().await
    }
}

#[async_trait]
impl Db for SqliteDb {
    fn sql(&self) -> &'static Statements {
        &SQL
    }

    async fn begin(&self) -> Result<Box<dyn Tx>, DbError> {
        let turn = turn(&self.turns).await?;
        let tx = self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(error)?;
        Ok(Box::new(Writing { tx, _turn: turn }))
    }

    async fn plain(&self) -> Result<Box<dyn Tx>, DbError> {
        Ok(Box::new(Plain { pool: self.pool.clone(), turns: Arc::clone(&self.turns) }))
    }

    async fn schema_state(&self) -> Result<SchemaState, DbError> {
        let mut connection = self.plain().await?;
        SchemaState::read(&mut *connection, SQL.our_tables, schema::SQLITE).await
    }

    async fn migrate(&self) -> Result<SchemaState, DbError> {
        let state = self.schema_state().await?;
        if !state.wants_migration() {
            return Ok(state);
        }
        // Readers and the writer side by side. It stays with the file, and is only set once that is known to be ours.
        sqlx::query("PRAGMA journal_mode = WAL").execute(&self.pool).await.map_err(error)?;
        // One transaction around it all: sqlx itself keeps no two programs apart here.
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(error)?;
        let state = SchemaState::read(&mut tx, SQL.our_tables, schema::SQLITE).await?;
        if !state.wants_migration() {
            return Ok(state);
        }
        schema::migrate(schema::SQLITE, &mut *tx).await?;
        let state = SchemaState::read(&mut tx, SQL.our_tables, schema::SQLITE).await?;
        tx.commit().await.map_err(error)?;
        Ok(state)
    }

    async fn close(&self) {
        self.pool.close().await;
    }
}
