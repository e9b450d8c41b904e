//! What the commands of a person ask, on SQLite.

use super::spending::in_flight_micros;
use crate::store::commands::CommandStatements;

/// Milliseconds until a call's lease runs out; less than 1 where it has, or there is none.
macro_rules! lease_left {
    () => {
        "CAST(round(coalesce((unixepoch(c.lease_until, 'subsec') - unixepoch('now', 'subsec')) * 1000, 0)) AS INTEGER)"
    };
}

pub(super) static COMMANDS: CommandStatements = CommandStatements {
    open_waits: concat!(
        "SELECT w.task_id, w.position, w.source, w.edit_key, c.lane, c.state, ",
        lease_left!(),
        ", c.price_micros, c.currency, c.fetch_host, c.fetch_error, c.owner \
        FROM json_each(?) j CROSS JOIN image_edit_waits w ON w.task_id = j.value \
        CROSS JOIN image_edit_calls c ON c.edit_key = w.edit_key ORDER BY w.task_id, w.position"
    ),
    sent_calls: concat!(
        "SELECT c.edit_key, c.state, c.provider, c.provider_task_id IS NOT NULL, c.ended_at IS NOT NULL, ",
        lease_left!(),
        ", c.owner, w.task_id FROM image_edit_calls c LEFT JOIN image_edit_waits w ON w.edit_key = c.edit_key \
        WHERE c.lane = ? AND c.state IN ('submitting', 'submitted', 'ambiguous') ORDER BY c.submitted_at, c.edit_key, w.task_id"
    ),
    left_over: concat!(
        "SELECT c.currency, count(*), sum(iif(c.state IN ('submitted', 'stored'), 0, c.price_micros)), sum(c.lost_micros + ",
        in_flight_micros!(),
        "), sum(NOT EXISTS (SELECT 1 FROM image_edit_waits w WHERE w.edit_key = c.edit_key)) FROM image_edit_calls c \
        WHERE c.wake_at IS NOT NULL AND c.edit_key NOT IN \
            (SELECT w.edit_key FROM json_each(?) j CROSS JOIN image_edit_waits w ON w.task_id = j.value) \
        GROUP BY c.currency ORDER BY c.currency"
    ),
    spent_by_open: concat!(
        "SELECT w.task_id, sum(c.lost_micros), sum(",
        in_flight_micros!(),
        ") FROM json_each(?) j CROSS JOIN image_edit_waits w ON w.task_id = j.value \
        CROSS JOIN image_edit_calls c ON c.edit_key = w.edit_key WHERE w.source = 'paid' GROUP BY w.task_id"
    ),
    // The key of the last task is the next page's beginning: what comes meanwhile moves no page.
    tasks: concat!(
        "SELECT ",
        task_columns!(),
        " FROM image_edit_tasks t WHERE (? IS NULL OR t.status = ?) AND (? IS NULL OR t.edit_type = ?) \
            AND (? IS NULL OR t.created_at >= strftime('%Y-%m-%d %H:%M:%f', 'now', (? / -1000.0) || ' seconds')) \
            AND (? IS NULL OR t.created_at >= ?) \
            AND (? IS NULL OR t.id < (SELECT b.id FROM image_edit_tasks b WHERE b.task_id = ?)) ORDER BY t.id DESC LIMIT ?"
    ),
    call: "SELECT state, coalesce(lease_until > strftime('%Y-%m-%d %H:%M:%f', 'now'), 0), price_micros, unanswered, held, answer_hash, answer_type, lost_as IS NOT NULL AND provider_task_id IS NOT NULL \
        FROM image_edit_calls WHERE edit_key = ?",
};
