//! Batches, on SQLite.

use crate::store::batch::BatchStatements;

pub(super) static BATCH: BatchStatements = BatchStatements {
    find_tasks: concat!(
        "SELECT ",
        task_columns!(),
        " FROM json_each(?) j CROSS JOIN image_edit_tasks t ON t.task_id = j.value"
    ),
    written: "SELECT t.task_id, t.id, t.created_at, t.completed_at, c.task_id IS NOT NULL \
        FROM json_each(?) j CROSS JOIN image_edit_tasks t ON t.task_id = j.value \
        LEFT JOIN cancels c ON c.task_id = t.task_id AND c.created_at > strftime('%Y-%m-%d %H:%M:%f', 'now', '-1 day')",
    events_sent: "UPDATE image_edit_tasks SET event_due = NULL FROM json_each(?) j \
        WHERE image_edit_tasks.task_id = j.value ->> 'task_id' AND image_edit_tasks.status = j.value ->> 'status' \
            AND image_edit_tasks.failed_images = j.value ->> 'failed'",
};
