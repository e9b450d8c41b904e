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
    written: concat!(
        "SELECT t.task_id, t.id, CAST(t.created_at AS CHAR), CAST(t.completed_at AS CHAR), c.task_id IS NOT NULL",
        tasks_of_ids!(),
        " LEFT JOIN cancels c FORCE INDEX (PRIMARY) ON c.task_id = t.task_id AND c.created_at > UTC_TIMESTAMP(3) - INTERVAL 1 DAY"
    ),
    events_sent: "UPDATE JSON_TABLE(?, '$[*]' COLUMNS (k VARCHAR(64) CHARACTER SET ascii PATH '$.task_id', \
            status VARCHAR(255) CHARACTER SET utf8mb4 PATH '$.status', failed INT PATH '$.failed')) j \
        STRAIGHT_JOIN image_edit_tasks t FORCE INDEX (task_id) ON t.task_id = j.k AND t.status = j.status AND t.failed_images = j.failed \
        SET t.event_due = NULL",
};
