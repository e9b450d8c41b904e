//! Entries from an older system, on SQLite.

use crate::store::imports::ImportStatements;

const STANDING: &str = "SELECT c.edit_key, c.result_hash IS NOT NULL, c.result_url, c.imported_hits \
    FROM json_each(?) j CROSS JOIN image_edit_cache c ON c.edit_key = unhex(j.value)";

pub(in crate::store) static IMPORTS: ImportStatements = ImportStatements {
    standing: STANDING,
    // A writing transaction has the whole file to itself.
    lock_standing: STANDING,
    // What is gone because its blob is missing may come back: the older system may still have it.
    gone: "SELECT g.edit_key, g.reason FROM json_each(?) j CROSS JOIN image_edit_gone g ON g.edit_key = unhex(j.value) \
        WHERE g.reason IN ('forgotten', 'evicted')",
    import: "INSERT INTO image_edit_cache (edit_key, image_hash, edit_type, prompt, provider, model, params, result_url, result_hash, \
            content_type, width, height, bytes, price_micros, currency, hit_count, imported_hits, key_version, last_hit_at, created_at, updated_at) \
        SELECT unhex(j.value ->> 'edit_key'), j.value ->> 'image_hash', j.value ->> 'edit_type', j.value ->> 'prompt', \
            j.value ->> 'provider', j.value ->> 'model', j.value ->> 'params', j.value ->> 'result_url', j.value ->> 'result_hash', \
            j.value ->> 'content_type', j.value ->> 'width', j.value ->> 'height', j.value ->> 'bytes', j.value ->> 'price_micros', \
            j.value ->> 'currency', j.value ->> 'hits', j.value ->> 'hits', j.value ->> 'key_version', strftime('%Y-%m-%d %H:%M:%f', 'now'), \
            strftime('%Y-%m-%d %H:%M:%f', 'now'), strftime('%Y-%m-%d %H:%M:%f', 'now') \
        FROM json_each(?) j WHERE true \
        ON CONFLICT (edit_key) DO UPDATE SET \
            hit_count = image_edit_cache.hit_count + max(excluded.imported_hits - image_edit_cache.imported_hits, 0), \
            result_url = iif(image_edit_cache.result_hash IS NULL, excluded.result_url, image_edit_cache.result_url), \
            content_type = iif(image_edit_cache.result_hash IS NULL, excluded.content_type, image_edit_cache.content_type), \
            width = iif(image_edit_cache.result_hash IS NULL, excluded.width, image_edit_cache.width), \
            height = iif(image_edit_cache.result_hash IS NULL, excluded.height, image_edit_cache.height), \
            bytes = iif(image_edit_cache.result_hash IS NULL, excluded.bytes, image_edit_cache.bytes), \
            result_hash = coalesce(image_edit_cache.result_hash, excluded.result_hash), \
            imported_hits = max(image_edit_cache.imported_hits, excluded.imported_hits), \
            updated_at = strftime('%Y-%m-%d %H:%M:%f', 'now') \
        WHERE image_edit_cache.imported_hits IS NOT NULL",
    drop_links: "DELETE FROM image_edit_cache WHERE id IN (\
            SELECT c.id FROM json_each(?) j CROSS JOIN image_edit_cache c ON c.edit_key = unhex(j.value ->> 'edit_key') \
            WHERE c.result_hash IS NULL AND c.imported_hits IS NOT NULL AND c.result_url = j.value ->> 'result_url')",
};
