//! What the commands of a person ask, on MySQL and MariaDB.

use crate::store::commands::CommandStatements;

/// The waits of a list of tasks, row by row through the named index.
macro_rules! waits_of_tasks {
    () => {
        "JSON_TABLE(?, '$[*]' COLUMNS (k VARCHAR(64) CHARACTER SET ascii PATH '$')) j \
        STRAIGHT_JOIN image_edit_waits w FORCE INDEX (task_id) ON w.task_id = j.k"
    };
}

pub(super) static COMMANDS: CommandStatements = CommandStatements {
    open_waits: concat!(
        "SELECT w.task_id, w.position, w.source, w.edit_key, c.lane, c.state, \
            CAST(COALESCE(c.lease_until > UTC_TIMESTAMP(3), 0) AS SIGNED), c.price_micros, c.currency, c.fetch_host, c.fetch_error FROM ",
        waits_of_tasks!(),
        " STRAIGHT_JOIN image_edit_calls c FORCE INDEX (PRIMARY) ON c.edit_key = w.edit_key ORDER BY w.task_id, w.position"
    ),
    left_over: concat!(
        "SELECT c.currency, COUNT(*), CAST(SUM(IF(c.state IN ('submitted', 'stored'), 0, c.price_micros)) AS SIGNED) \
        FROM image_edit_calls c FORCE INDEX (wake_at) WHERE c.wake_at IS NOT NULL AND c.edit_key NOT IN (SELECT w.edit_key FROM ",
        waits_of_tasks!(),
        ") GROUP BY c.currency ORDER BY c.currency"
    ),
    // The key of the last task is the next page's beginning: what comes meanwhile moves no page.
    tasks: concat!(
        "SELECT ",
        task_columns!(),
        " FROM image_edit_tasks t WHERE (? IS NULL OR t.status = ?) AND (? IS NULL OR t.edit_type = ?) \
            AND (? IS NULL OR t.created_at >= UTC_TIMESTAMP(3) - INTERVAL ? * 1000 MICROSECOND) \
            AND (? IS NULL OR t.created_at >= ?) \
            AND (? IS NULL OR t.id < (SELECT b.id FROM image_edit_tasks b WHERE b.task_id = ?)) ORDER BY t.id DESC LIMIT ?"
    ),
    call: "SELECT state, CAST(COALESCE(lease_until > UTC_TIMESTAMP(3), 0) AS SIGNED), price_micros, unanswered, held, answer_hash, answer_type \
        FROM image_edit_calls WHERE edit_key = ?",
};
