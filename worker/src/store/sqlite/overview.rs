//! What `retouch top` reads, on SQLite. The index `image_edit_tasks_ended` holds all that is summed up.

use super::lane_columns;
use crate::store::overview::OverviewStatements;

macro_rules! sums {
    () => {
        "SELECT t.currency, sum(t.hit_images), sum(t.joined_images), sum(t.paid_images), sum(t.failed_images), sum(t.paid_micros), \
        sum(t.saved_micros), sum(t.lost_micros)"
    };
}

pub(super) static OVERVIEW: OverviewStatements = OverviewStatements {
    clock: "SELECT CAST(unixepoch('now') / 60 AS INTEGER), strftime('%Y-%m-%d %H:%M:%f', 'now')",
    ended_by_minute: concat!(
        sums!(),
        ", CAST(unixepoch(t.completed_at) / 60 AS INTEGER) AS ended_in FROM image_edit_tasks t INDEXED BY image_edit_tasks_ended \
        WHERE t.completed_at >= strftime('%Y-%m-%d %H:%M:%f', 'now', (? * -60) || ' seconds') \
        GROUP BY ended_in, t.currency ORDER BY ended_in"
    ),
    ended_lately: concat!(
        sums!(),
        " FROM image_edit_tasks t INDEXED BY image_edit_tasks_ended \
        WHERE t.completed_at > strftime('%Y-%m-%d %H:%M:%f', 'now', (? / -1000.0) || ' seconds') GROUP BY t.currency ORDER BY t.currency"
    ),
    lanes_at_a_glance: concat!(
        "SELECT ",
        lane_columns!(),
        ", l.name, \
            (SELECT count(*) FROM image_edit_calls c WHERE c.lane = l.name AND c.state IN ('queued', 'claimed')), \
            (SELECT count(*) FROM image_edit_calls c WHERE c.lane = l.name AND c.state IN ('submitting', 'submitted', 'ambiguous') AND c.ended_at IS NULL), \
            NULL, \
            (SELECT count(*) FROM image_edit_calls c WHERE c.lane = l.name AND c.state = 'submitted' AND c.fetch_host IS NOT NULL), \
            (SELECT c.fetch_host FROM image_edit_calls c WHERE c.lane = l.name AND c.state = 'submitted' AND c.fetch_host IS NOT NULL ORDER BY c.updated_at DESC LIMIT 1), \
            (SELECT c.fetch_error FROM image_edit_calls c WHERE c.lane = l.name AND c.state = 'submitted' AND c.fetch_host IS NOT NULL ORDER BY c.updated_at DESC LIMIT 1), \
            (SELECT count(*) FROM image_edit_calls c WHERE c.lane = l.name AND c.state IN ('submitted', 'ambiguous') \
                AND c.last_error LIKE 'the provider cannot say what became of it:%'), \
            (SELECT max(c.last_error) FROM image_edit_calls c WHERE c.lane = l.name AND c.state IN ('submitted', 'ambiguous') \
                AND c.last_error LIKE 'the provider cannot say what became of it:%') \
        FROM lanes l ORDER BY l.name"
    ),
    last_failures: "SELECT id, reason, substr(message, 1, 400), queue, task_id, state, \
            CAST((unixepoch('now', 'subsec') - unixepoch(last_at, 'subsec')) * 1000 AS INTEGER) \
        FROM dead_letters ORDER BY id DESC LIMIT ?",
    open_failures: "SELECT count(*) FROM (SELECT 1 FROM dead_letters WHERE state = 'open' LIMIT ?)",
};
