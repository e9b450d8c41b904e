//! What the commands of a person ask, on MySQL and MariaDB.

use super::spending::in_flight_micros;
use crate::store::commands::CommandStatements;

/// The waits of a list of tasks, row by row through the named index.
macro_rules! waits_of_tasks {
    () => {
        "JSON_TABLE(?, '$[*]' COLUMNS (k VARCHAR(64) CHARACTER SET ascii PATH '$')) j \
        STRAIGHT_JOIN image_edit_waits w FORCE INDEX (task_id) ON w.task_id = j.k"
    };
}

/// Milliseconds until a call's lease runs out; less than 1 where it has, or there is none.
macro_rules! lease_left {
    () => {
        "CAST(COALESCE(TIMESTAMPDIFF(MICROSECOND, UTC_TIMESTAMP(3), c.lease_until) DIV 1000, 0) AS SIGNED)"
    };
}

pub(super) static COMMANDS: CommandStatements = CommandStatements {
    open_waits: concat!(
        "SELECT w.task_id, w.position, w.source, w.edit_key, c.lane, c.state, ",
        lease_left!(),
        ", c.price_micros, c.currency, c.fetch_host, c.fetch_error, c.owner FROM ",
        waits_of_tasks!(),
        " STRAIGHT_JOIN image_edit_calls c FORCE INDEX (PRIMARY) ON c.edit_key = w.edit_key ORDER BY w.task_id, w.position"
    ),
    left_over: concat!(
        "SELECT c.currency, COUNT(*), CAST(SUM(IF(c.state IN ('submitted', 'stored'), 0, c.price_micros)) AS SIGNED), \
            CAST(SUM(c.lost_micros + ",
        in_flight_micros!(),
        ") AS SIGNED), CAST(SUM(NOT EXISTS (SELECT 1 FROM image_edit_waits v WHERE v.edit_key = c.edit_key)) AS SIGNED) \
        FROM image_edit_calls c FORCE INDEX (wake_at) WHERE c.wake_at IS NOT NULL AND c.edit_key NOT IN (SELECT w.edit_key FROM ",
        waits_of_tasks!(),
        ") GROUP BY c.currency ORDER BY c.currency"
    ),
    sent_calls: concat!(
        "SELECT c.edit_key, c.state, c.provider, CAST(c.provider_task_id IS NOT NULL AS SIGNED), CAST(c.ended_at IS NOT NULL AS SIGNED), ",
        lease_left!(),
        ", c.owner, w.task_id FROM image_edit_calls c LEFT JOIN image_edit_waits w ON w.edit_key = c.edit_key \
        WHERE c.lane = ? AND c.state IN ('submitting', 'submitted', 'ambiguous') ORDER BY c.submitted_at, c.edit_key, w.task_id"
    ),
    spent_by_open: concat!(
        "SELECT w.task_id, CAST(SUM(c.lost_micros) AS SIGNED), CAST(SUM(",
        in_flight_micros!(),
        ") AS SIGNED) FROM ",
        waits_of_tasks!(),
        " STRAIGHT_JOIN image_edit_calls c FORCE INDEX (PRIMARY) ON c.edit_key = w.edit_key WHERE w.source = 'paid' GROUP BY w.task_id"
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
    call: "SELECT state, CAST(COALESCE(lease_until > UTC_TIMESTAMP(3), 0) AS SIGNED), price_micros, unanswered, held, answer_hash, answer_type, CAST(lost_as IS NOT NULL AND provider_task_id IS NOT NULL AS SIGNED) \
        FROM image_edit_calls WHERE edit_key = ?",
};
