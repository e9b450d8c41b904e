//! What money was spent on, on MySQL and MariaDB.

use crate::store::spending::SpendingStatements;

/// As on SQLite.
macro_rules! in_flight_micros {
    () => {
        "IF(c.state IN ('submitting', 'submitted', 'ambiguous', 'stored') AND c.submitted_at IS NOT NULL \
        AND c.lost_as IS NULL, c.price_micros, 0)"
    };
}
pub(super) use in_flight_micros;

pub(super) static SPENDING: SpendingStatements = SpendingStatements {
    add: "INSERT INTO spending (spent_on, lane, model, currency, outcome, calls, micros) VALUES (UTC_DATE(), ?, ?, ?, ?, ?, ?) \
        ON DUPLICATE KEY UPDATE calls = calls + VALUES(calls), micros = micros + VALUES(micros)",
    add_unanswered: "INSERT INTO spending (spent_on, lane, model, currency, outcome, calls, micros) \
        SELECT UTC_DATE(), c.lane, c.model, c.currency, ?, 1, c.price_micros FROM image_edit_calls c \
        WHERE c.edit_key = ? AND c.fence = ? AND c.state IN ('submitting', 'submitted', 'ambiguous') \
            AND c.submitted_at IS NOT NULL AND c.price_micros > 0 \
        ON DUPLICATE KEY UPDATE calls = spending.calls + 1, micros = spending.micros + VALUES(micros)",
    add_forgotten: "INSERT INTO spending (spent_on, lane, model, currency, outcome, calls, micros) \
        SELECT s.spent_on, s.lane, s.model, s.currency, s.outcome, s.n, s.m FROM \
            (SELECT UTC_DATE() AS spent_on, c.lane, c.model, c.currency, ? AS outcome, COUNT(*) AS n, \
                CAST(SUM(c.price_micros) AS SIGNED) AS m \
            FROM JSON_TABLE(?, '$[*]' COLUMNS (k CHAR(64) CHARACTER SET ascii PATH '$')) j \
            STRAIGHT_JOIN image_edit_calls c FORCE INDEX (PRIMARY) ON c.edit_key = UNHEX(j.k) \
            WHERE c.price_micros > 0 AND c.lost_as IS NULL AND c.state IN ('submitting', 'submitted', 'ambiguous', 'stored') \
            GROUP BY c.lane, c.model, c.currency) s \
        ON DUPLICATE KEY UPDATE calls = spending.calls + s.n, micros = spending.micros + s.m",
    since: "SELECT CAST(spent_on AS CHAR), lane, model, currency, outcome, calls, micros FROM spending \
        WHERE spent_on >= UTC_DATE() - INTERVAL ? DAY ORDER BY spent_on DESC, lane, model, currency, outcome",
    in_flight: concat!(
        "SELECT c.lane, c.model, c.currency, CAST(c.state IN ('submitted', 'stored') AS SIGNED) AS accepted, COUNT(*), \
            CAST(SUM(c.price_micros) AS SIGNED) FROM image_edit_calls c FORCE INDEX (wake_at) WHERE c.wake_at IS NOT NULL AND ",
        in_flight_micros!(),
        " > 0 GROUP BY c.lane, c.model, c.currency, accepted ORDER BY c.lane, c.model, c.currency, accepted DESC"
    ),
};
