//! Verifying, on MySQL and MariaDB.

use crate::store::verify::VerifyStatements;

pub(super) static VERIFY: VerifyStatements = VerifyStatements {
    before: "SELECT CAST(UTC_TIMESTAMP(3) - INTERVAL ? * 1000 MICROSECOND AS CHAR)",
    count: "SELECT COUNT(*) FROM image_edit_cache WHERE result_hash IS NOT NULL \
        AND (verified_at IS NULL OR verified_at <= CAST(? AS DATETIME(3)))",
    // NULL comes first.
    next: "SELECT edit_key, result_hash, bytes FROM image_edit_cache WHERE result_hash IS NOT NULL \
            AND (verified_at IS NULL OR verified_at <= CAST(? AS DATETIME(3))) ORDER BY verified_at, id LIMIT ?",
    verified: concat!("UPDATE ", keys!(), cache_of_j!(), "SET c.verified_at = UTC_TIMESTAMP(3)"),
    set_bytes: "UPDATE image_edit_cache SET bytes = ? WHERE edit_key = ? AND result_hash = ?",
};
