//! Batches, on SQLite.

use crate::store::batch::BatchStatements;

pub(super) static BATCH: BatchStatements = BatchStatements {
    find_tasks: concat!(
        "SELECT ",
        task_columns!(),
        " FROM json_each(?) j CROSS JOIN image_edit_tasks t ON t.task_id = j.value"
    ),
    insert_tasks: "INSERT INTO image_edit_tasks (task_id, request_hash, edit_type, prompt, model, params, inputs, status, total_images, \
            hit_images, joined_images, paid_images, failed_images, paid_micros, saved_micros, currency, results, metadata, \
            reply_to, correlation_id, traceparent, tracestate, event_due, created_at, updated_at, completed_at) \
        SELECT j.value ->> 'task_id', unhex(j.value ->> 'request_hash'), j.value ->> 'edit_type', j.value ->> 'prompt', j.value ->> 'model', \
            j.value ->> 'params', j.value ->> 'inputs', 'completed', j.value ->> 'hit', j.value ->> 'hit', 0, 0, 0, 0, \
            j.value ->> 'saved_micros', j.value ->> 'currency', j.value ->> 'results', j.value ->> 'metadata', j.value ->> 'reply_to', \
            j.value ->> 'correlation_id', j.value ->> 'traceparent', j.value ->> 'tracestate', \
            strftime('%Y-%m-%d %H:%M:%f', 'now', (?1 / 1000.0) || ' seconds'), strftime('%Y-%m-%d %H:%M:%f', 'now'), \
            strftime('%Y-%m-%d %H:%M:%f', 'now'), strftime('%Y-%m-%d %H:%M:%f', 'now') \
        FROM json_each(?2) j",
    written: "SELECT t.task_id, t.id, t.created_at, t.completed_at \
        FROM json_each(?) j CROSS JOIN image_edit_tasks t ON t.task_id = j.value",
    cancelled: "SELECT c.task_id FROM json_each(?) j CROSS JOIN cancels c ON c.task_id = j.value \
        WHERE c.created_at > strftime('%Y-%m-%d %H:%M:%f', 'now', '-1 day')",
    events_sent: "UPDATE image_edit_tasks SET event_due = NULL FROM json_each(?) j \
        WHERE image_edit_tasks.task_id = j.value ->> 'task_id' AND image_edit_tasks.status = j.value ->> 'status' \
            AND image_edit_tasks.failed_images = j.value ->> 'failed'",
};
