//! Batches, on MySQL and MariaDB.

use crate::store::batch::BatchStatements;

/// A JSON list of task ids as a table `j` with one column `k`, joined in the list's order.
macro_rules! tasks_of_ids {
    () => {
        " FROM JSON_TABLE(?, '$[*]' COLUMNS (k VARCHAR(64) CHARACTER SET ascii PATH '$')) j \
        STRAIGHT_JOIN image_edit_tasks t FORCE INDEX (task_id) ON t.task_id = j.k"
    };
}

pub(super) static BATCH: BatchStatements = BatchStatements {
    find_tasks: concat!("SELECT ", task_columns!(), tasks_of_ids!()),
    insert_tasks: "INSERT INTO image_edit_tasks (task_id, request_hash, edit_type, prompt, model, params, inputs, status, total_images, \
            hit_images, joined_images, paid_images, failed_images, paid_micros, saved_micros, currency, results, metadata, \
            reply_to, correlation_id, traceparent, tracestate, event_due, created_at, updated_at, completed_at) \
        SELECT j.task_id, UNHEX(j.request_hash), j.edit_type, j.prompt, j.model, j.params, j.inputs, 'completed', j.hit, \
            j.hit, 0, 0, 0, 0, j.saved_micros, j.currency, j.results, j.metadata, \
            j.reply_to, j.correlation_id, j.traceparent, j.tracestate, \
            UTC_TIMESTAMP(3) + INTERVAL ? * 1000 MICROSECOND, UTC_TIMESTAMP(3), UTC_TIMESTAMP(3), UTC_TIMESTAMP(3) \
        FROM JSON_TABLE(?, '$[*]' COLUMNS (task_id VARCHAR(255) CHARACTER SET ascii PATH '$.task_id', \
            request_hash CHAR(64) CHARACTER SET ascii PATH '$.request_hash', edit_type VARCHAR(255) CHARACTER SET utf8mb4 PATH '$.edit_type', \
            prompt LONGTEXT CHARACTER SET utf8mb4 PATH '$.prompt', model VARCHAR(255) CHARACTER SET utf8mb4 PATH '$.model', \
            params LONGTEXT CHARACTER SET utf8mb4 PATH '$.params', inputs LONGTEXT CHARACTER SET utf8mb4 PATH '$.inputs', \
            hit INT PATH '$.hit', saved_micros BIGINT PATH '$.saved_micros', currency VARCHAR(255) CHARACTER SET utf8mb4 PATH '$.currency', \
            results LONGTEXT CHARACTER SET utf8mb4 PATH '$.results', metadata LONGTEXT CHARACTER SET utf8mb4 PATH '$.metadata', \
            reply_to LONGTEXT CHARACTER SET utf8mb4 PATH '$.reply_to', correlation_id LONGTEXT CHARACTER SET utf8mb4 PATH '$.correlation_id', \
            traceparent VARCHAR(255) CHARACTER SET utf8mb4 PATH '$.traceparent', tracestate LONGTEXT CHARACTER SET utf8mb4 PATH '$.tracestate')) j",
    written: concat!(
        "SELECT t.task_id, t.id, CAST(t.created_at AS CHAR), CAST(t.completed_at AS CHAR)",
        tasks_of_ids!()
    ),
    cancelled: "SELECT c.task_id FROM JSON_TABLE(?, '$[*]' COLUMNS (k VARCHAR(64) CHARACTER SET ascii PATH '$')) j \
        STRAIGHT_JOIN cancels c FORCE INDEX (PRIMARY) ON c.task_id = j.k WHERE c.created_at > UTC_TIMESTAMP(3) - INTERVAL 1 DAY",
    events_sent: "UPDATE JSON_TABLE(?, '$[*]' COLUMNS (k VARCHAR(64) CHARACTER SET ascii PATH '$.task_id', \
            status VARCHAR(255) CHARACTER SET utf8mb4 PATH '$.status', failed INT PATH '$.failed')) j \
        STRAIGHT_JOIN image_edit_tasks t FORCE INDEX (task_id) ON t.task_id = j.k AND t.status = j.status AND t.failed_images = j.failed \
        SET t.event_due = NULL",
};
