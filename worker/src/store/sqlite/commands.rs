//! What the commands of a person ask, on SQLite.

use crate::store::commands::CommandStatements;

pub(super) static COMMANDS: CommandStatements = CommandStatements {
    open_waits: "SELECT w.task_id, w.position, w.source, w.edit_key, c.lane, c.state, \
            coalesce(c.lease_until > strftime('%Y-%m-%d %H:%M:%f', 'now'), 0), c.price_micros, c.currency, c.fetch_host, c.fetch_error \
        FROM json_each(?) j CROSS JOIN image_edit_waits w ON w.task_id = j.value \
        CROSS JOIN image_edit_calls c ON c.edit_key = w.edit_key ORDER BY w.task_id, w.position",
    left_over: "SELECT c.currency, count(*), sum(iif(c.state IN ('submitted', 'stored'), 0, c.price_micros)) FROM image_edit_calls c \
        WHERE c.wake_at IS NOT NULL AND c.edit_key NOT IN \
            (SELECT w.edit_key FROM json_each(?) j CROSS JOIN image_edit_waits w ON w.task_id = j.value) \
        GROUP BY c.currency ORDER BY c.currency",
    // The key of the last task is the next page's beginning: what comes meanwhile moves no page.
    tasks: concat!(
        "SELECT ",
        task_columns!(),
        " FROM image_edit_tasks t WHERE (? IS NULL OR t.status = ?) AND (? IS NULL OR t.edit_type = ?) \
            AND (? IS NULL OR t.created_at >= strftime('%Y-%m-%d %H:%M:%f', 'now', (? / -1000.0) || ' seconds')) \
            AND (? IS NULL OR t.created_at >= ?) \
            AND (? IS NULL OR t.id < (SELECT b.id FROM image_edit_tasks b WHERE b.task_id = ?)) ORDER BY t.id DESC LIMIT ?"
    ),
    call: "SELECT state, coalesce(lease_until > strftime('%Y-%m-%d %H:%M:%f', 'now'), 0), price_micros, unanswered, held, answer_hash, answer_type \
        FROM image_edit_calls WHERE edit_key = ?",
};
