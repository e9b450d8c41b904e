//! What money was spent on, on SQLite.

use crate::store::spending::SpendingStatements;

/// The price of a call that is spent and in no row of `spending` yet, otherwise 0. With `lost_as`, its payment was
/// counted already; without the time of its submit, a submit without an answer was counted when the call was
/// queued again.
macro_rules! in_flight_micros {
    () => {
        "iif(c.state IN ('submitting', 'submitted', 'ambiguous', 'stored') AND c.submitted_at IS NOT NULL \
        AND c.lost_as IS NULL, c.price_micros, 0)"
    };
}
pub(super) use in_flight_micros;

pub(super) static SPENDING: SpendingStatements = SpendingStatements {
    add: "INSERT INTO spending (spent_on, lane, model, currency, outcome, calls, micros) VALUES (date('now'), ?, ?, ?, ?, ?, ?) \
        ON CONFLICT (spent_on, lane, model, currency, outcome) DO UPDATE SET calls = calls + excluded.calls, micros = micros + excluded.micros",
    add_unanswered: "INSERT INTO spending (spent_on, lane, model, currency, outcome, calls, micros) \
        SELECT date('now'), lane, model, currency, ?, 1, price_micros FROM image_edit_calls \
        WHERE edit_key = ? AND fence = ? AND state IN ('submitting', 'submitted', 'ambiguous') \
            AND submitted_at IS NOT NULL AND price_micros > 0 \
        ON CONFLICT (spent_on, lane, model, currency, outcome) DO UPDATE SET calls = calls + 1, micros = micros + excluded.micros",
    add_forgotten: "INSERT INTO spending (spent_on, lane, model, currency, outcome, calls, micros) \
        SELECT date('now'), lane, model, currency, ?, count(*), sum(price_micros) FROM image_edit_calls \
        WHERE edit_key IN (SELECT unhex(value) FROM json_each(?)) AND price_micros > 0 AND lost_as IS NULL \
            AND state IN ('submitting', 'submitted', 'ambiguous', 'stored') GROUP BY lane, model, currency \
        ON CONFLICT (spent_on, lane, model, currency, outcome) \
            DO UPDATE SET calls = calls + excluded.calls, micros = micros + excluded.micros",
    since: "SELECT spent_on, lane, model, currency, outcome, calls, micros FROM spending \
        WHERE spent_on >= date('now', (? * -1) || ' days') ORDER BY spent_on DESC, lane, model, currency, outcome",
    in_flight: concat!(
        "SELECT c.lane, c.model, c.currency, c.state IN ('submitted', 'stored') AS accepted, count(*), sum(c.price_micros) \
        FROM image_edit_calls c WHERE c.wake_at IS NOT NULL AND ",
        in_flight_micros!(),
        " > 0 GROUP BY c.lane, c.model, c.currency, accepted ORDER BY c.lane, c.model, c.currency, accepted DESC"
    ),
};
