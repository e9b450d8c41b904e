//! Verifying, on SQLite.

use crate::store::verify::VerifyStatements;

pub(super) static VERIFY: VerifyStatements = VerifyStatements {
    before: "SELECT strftime('%Y-%m-%d %H:%M:%f', 'now', (? / -1000.0) || ' seconds')",
    count: "SELECT count(*) FROM image_edit_cache WHERE result_hash IS NOT NULL \
        AND (verified_at IS NULL OR verified_at <= ?)",
    // NULL comes first.
    next: "SELECT edit_key, result_hash, bytes FROM image_edit_cache WHERE result_hash IS NOT NULL \
            AND (verified_at IS NULL OR verified_at <= ?) \
        ORDER BY verified_at, id LIMIT ?",
    verified: "UPDATE image_edit_cache SET verified_at = strftime('%Y-%m-%d %H:%M:%f', 'now') \
        WHERE edit_key IN (SELECT unhex(value) FROM json_each(?))",
    set_bytes: "UPDATE image_edit_cache SET bytes = ? WHERE edit_key = ? AND result_hash = ?",
};
