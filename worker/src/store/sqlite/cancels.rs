//! Cancels, on SQLite.

use crate::store::cancels::CancelStatements;

pub(super) static CANCELS: CancelStatements = CancelStatements {
    edits_of: "SELECT DISTINCT edit_key FROM image_edit_waits WHERE task_id = ? ORDER BY edit_key",
    stop_waiting: "DELETE FROM image_edit_waits WHERE edit_key = ? AND task_id = ?",
    still_waiting: "SELECT count(*), coalesce(sum(source = 'paid'), 0) FROM image_edit_waits WHERE edit_key = ?",
    is_waited_for: "SELECT position FROM image_edit_waits WHERE edit_key = ? LIMIT 1",
    pass_on_payment: "UPDATE image_edit_waits SET source = 'paid' WHERE rowid = \
        (SELECT rowid FROM image_edit_waits WHERE edit_key = ? ORDER BY task_id, position LIMIT 1)",
    close_unwanted: "UPDATE image_edit_calls SET state = 'done', fence = fence + 1, owner = NULL, lease_until = NULL, wake_at = NULL, \
            last_error = 'nobody waits for it any more', updated_at = strftime('%Y-%m-%d %H:%M:%f', 'now') WHERE edit_key = ?",
    take_loss: "UPDATE image_edit_calls SET lost_micros = 0 WHERE edit_key = ?",
    remember: "INSERT INTO cancels (task_id, created_at) VALUES (?, strftime('%Y-%m-%d %H:%M:%f', 'now')) \
        ON CONFLICT (task_id) DO UPDATE SET created_at = excluded.created_at",
    forget_one: "DELETE FROM cancels WHERE task_id = ?",
    forget: "DELETE FROM cancels WHERE created_at < strftime('%Y-%m-%d %H:%M:%f', 'now', (? / -1000.0) || ' seconds')",
};
