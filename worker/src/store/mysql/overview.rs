//! What `retouch top` reads, on MySQL and MariaDB. The index `ended` holds all that is summed up.

use super::lane_columns;
use crate::store::overview::OverviewStatements;

macro_rules! sums {
    () => {
        "SELECT t.currency, CAST(SUM(t.hit_images) AS SIGNED), CAST(SUM(t.joined_images) AS SIGNED), CAST(SUM(t.paid_images) AS SIGNED), \
        CAST(SUM(t.failed_images) AS SIGNED), CAST(SUM(t.paid_micros) AS SIGNED), CAST(SUM(t.saved_micros) AS SIGNED), \
        CAST(SUM(t.lost_micros) AS SIGNED)"
    };
}

pub(super) static OVERVIEW: OverviewStatements = OverviewStatements {
    clock: "SELECT CAST(TIMESTAMPDIFF(MINUTE, '2020-01-01', UTC_TIMESTAMP(3)) AS SIGNED), CAST(UTC_TIMESTAMP(3) AS CHAR)",
    ended_by_minute: concat!(
        sums!(),
        ", CAST(TIMESTAMPDIFF(MINUTE, '2020-01-01', t.completed_at) AS SIGNED) AS ended_in \
        FROM image_edit_tasks t FORCE INDEX (ended) WHERE t.completed_at >= UTC_TIMESTAMP(3) - INTERVAL ? MINUTE \
        GROUP BY ended_in, t.currency ORDER BY ended_in"
    ),
    ended_lately: concat!(
        sums!(),
        " FROM image_edit_tasks t FORCE INDEX (ended) WHERE t.completed_at > UTC_TIMESTAMP(3) - INTERVAL ? * 1000 MICROSECOND \
        GROUP BY t.currency ORDER BY t.currency"
    ),
    lanes_at_a_glance: concat!(
        "SELECT ",
        lane_columns!(),
        ", l.name, \
            (SELECT COUNT(*) FROM image_edit_calls c FORCE INDEX (lane_state) WHERE c.lane = l.name AND c.state IN ('queued', 'claimed')), \
            (SELECT COUNT(*) FROM image_edit_calls c FORCE INDEX (lane_state) \
                WHERE c.lane = l.name AND c.state IN ('submitting', 'submitted', 'ambiguous') AND c.ended_at IS NULL), \
            CAST(NULL AS SIGNED), \
            (SELECT COUNT(*) FROM image_edit_calls c FORCE INDEX (lane_state) WHERE c.lane = l.name AND c.state = 'submitted' AND c.fetch_host IS NOT NULL), \
            (SELECT c.fetch_host FROM image_edit_calls c FORCE INDEX (lane_state) WHERE c.lane = l.name AND c.state = 'submitted' AND c.fetch_host IS NOT NULL ORDER BY c.updated_at DESC LIMIT 1), \
            (SELECT c.fetch_error FROM image_edit_calls c FORCE INDEX (lane_state) WHERE c.lane = l.name AND c.state = 'submitted' AND c.fetch_host IS NOT NULL ORDER BY c.updated_at DESC LIMIT 1), \
            (SELECT COUNT(*) FROM image_edit_calls c FORCE INDEX (lane_state) WHERE c.lane = l.name AND c.state IN ('submitted', 'ambiguous') \
                AND c.last_error LIKE 'the provider cannot say what became of it:%'), \
            (SELECT MAX(c.last_error) FROM image_edit_calls c FORCE INDEX (lane_state) WHERE c.lane = l.name AND c.state IN ('submitted', 'ambiguous') \
                AND c.last_error LIKE 'the provider cannot say what became of it:%') \
        FROM lanes l ORDER BY l.name"
    ),
    last_failures: "SELECT id, reason, LEFT(message, 400), queue, task_id, state, \
            CAST(TIMESTAMPDIFF(MICROSECOND, last_at, UTC_TIMESTAMP(3)) DIV 1000 AS SIGNED) \
        FROM dead_letters ORDER BY id DESC LIMIT ?",
    open_failures: "SELECT COUNT(*) FROM (SELECT 1 FROM dead_letters WHERE state = 'open' LIMIT ?) t",
};
