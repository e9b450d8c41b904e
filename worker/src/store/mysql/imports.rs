//! Entries from an older system, on MySQL and MariaDB.

use crate::store::imports::ImportStatements;

macro_rules! cache_of_j {
    () => {
        "FROM JSON_TABLE(?, '$[*]' COLUMNS (k CHAR(64) CHARACTER SET ascii PATH '$')) j \
        STRAIGHT_JOIN image_edit_cache c FORCE INDEX (edit_key) ON c.edit_key = UNHEX(j.k)"
    };
}
macro_rules! standing_columns {
    () => {
        "SELECT c.edit_key, CAST(c.result_hash IS NOT NULL AS SIGNED), c.result_url, c.imported_hits "
    };
}

pub(in crate::store) static IMPORTS: ImportStatements = ImportStatements {
    standing: concat!(standing_columns!(), cache_of_j!()),
    lock_standing: concat!(standing_columns!(), cache_of_j!(), " FOR UPDATE"),
    // What is gone because its blob is missing may come back: the older system may still have it.
    gone: "SELECT g.edit_key, CAST(g.reason AS CHAR) FROM JSON_TABLE(?, '$[*]' COLUMNS (k CHAR(64) CHARACTER SET ascii PATH '$')) j \
        STRAIGHT_JOIN image_edit_gone g FORCE INDEX (PRIMARY) ON g.edit_key = UNHEX(j.k) WHERE g.reason IN ('forgotten', 'evicted')",
    // Whoever was first meanwhile is judged by the same rules again. MySQL sees the columns that it has assigned already, so
    // `result_hash` and `imported_hits`, by which the others are decided, come last.
    import: "INSERT INTO image_edit_cache (edit_key, image_hash, edit_type, prompt, provider, model, params, result_url, result_hash, \
            content_type, width, height, bytes, price_micros, currency, hit_count, imported_hits, key_version, last_hit_at, created_at, updated_at) \
        SELECT UNHEX(j.k), j.image_hash, j.edit_type, j.prompt, j.provider, j.model, j.params, j.result_url, j.result_hash, \
            j.content_type, j.width, j.height, j.bytes, j.price_micros, j.currency, j.hits, j.hits, j.key_version, \
            UTC_TIMESTAMP(3), UTC_TIMESTAMP(3), UTC_TIMESTAMP(3) \
        FROM JSON_TABLE(?, '$[*]' COLUMNS (k CHAR(64) CHARACTER SET ascii PATH '$.edit_key', \
            image_hash VARCHAR(255) CHARACTER SET utf8mb4 PATH '$.image_hash', \
            edit_type VARCHAR(255) CHARACTER SET utf8mb4 PATH '$.edit_type', prompt LONGTEXT CHARACTER SET utf8mb4 PATH '$.prompt', \
            provider VARCHAR(255) CHARACTER SET utf8mb4 PATH '$.provider', model VARCHAR(255) CHARACTER SET utf8mb4 PATH '$.model', \
            params LONGTEXT CHARACTER SET utf8mb4 PATH '$.params', result_url LONGTEXT CHARACTER SET utf8mb4 PATH '$.result_url', \
            result_hash VARCHAR(255) CHARACTER SET utf8mb4 PATH '$.result_hash', \
            content_type VARCHAR(255) CHARACTER SET utf8mb4 PATH '$.content_type', width INT PATH '$.width', height INT PATH '$.height', \
            bytes BIGINT PATH '$.bytes', price_micros BIGINT PATH '$.price_micros', \
            currency VARCHAR(255) CHARACTER SET utf8mb4 PATH '$.currency', hits BIGINT PATH '$.hits', key_version INT PATH '$.key_version')) j \
        ON DUPLICATE KEY UPDATE \
            hit_count = image_edit_cache.hit_count + COALESCE(GREATEST(VALUES(imported_hits) - image_edit_cache.imported_hits, 0), 0), \
            result_url = IF(image_edit_cache.imported_hits IS NOT NULL AND image_edit_cache.result_hash IS NULL, \
                VALUES(result_url), image_edit_cache.result_url), \
            content_type = IF(image_edit_cache.imported_hits IS NOT NULL AND image_edit_cache.result_hash IS NULL, \
                VALUES(content_type), image_edit_cache.content_type), \
            width = IF(image_edit_cache.imported_hits IS NOT NULL AND image_edit_cache.result_hash IS NULL, \
                VALUES(width), image_edit_cache.width), \
            height = IF(image_edit_cache.imported_hits IS NOT NULL AND image_edit_cache.result_hash IS NULL, \
                VALUES(height), image_edit_cache.height), \
            bytes = IF(image_edit_cache.imported_hits IS NOT NULL AND image_edit_cache.result_hash IS NULL, \
                VALUES(bytes), image_edit_cache.bytes), \
            result_hash = IF(image_edit_cache.imported_hits IS NOT NULL, \
                COALESCE(image_edit_cache.result_hash, VALUES(result_hash)), image_edit_cache.result_hash), \
            imported_hits = GREATEST(image_edit_cache.imported_hits, VALUES(imported_hits)), \
            updated_at = UTC_TIMESTAMP(3)",
    drop_links: "DELETE c FROM JSON_TABLE(?, '$[*]' COLUMNS (k CHAR(64) CHARACTER SET ascii PATH '$.edit_key', \
            result_url LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin PATH '$.result_url')) j \
        STRAIGHT_JOIN image_edit_cache c FORCE INDEX (edit_key) ON c.edit_key = UNHEX(j.k) \
        WHERE c.result_hash IS NULL AND c.imported_hits IS NOT NULL AND c.result_url = j.result_url",
};
