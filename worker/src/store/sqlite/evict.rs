//! Eviction, on SQLite.

use crate::store::evict::EvictStatements;

macro_rules! columns {
    () => {
        "c.edit_key, c.bytes, c.price_micros, c.currency, c.hit_count, \
        CAST((unixepoch('now', 'subsec') - unixepoch(c.created_at, 'subsec')) * 1000 AS INTEGER), \
        CAST((unixepoch('now', 'subsec') - unixepoch(c.last_hit_at, 'subsec')) * 1000 AS INTEGER), c.last_hit_at"
    };
}

pub(super) static EVICT: EvictStatements = EvictStatements {
    lock_total: "SELECT position, total, coalesce(counted_at > strftime('%Y-%m-%d %H:%M:%f', 'now', (? / -1000.0) || ' seconds'), 0) \
        FROM cache_chores WHERE name = 'evict'",
    count_all: "SELECT coalesce(sum(bytes), 0), (SELECT max(id) FROM image_edit_cache) FROM image_edit_cache WHERE result_hash IS NOT NULL",
    count_since: "SELECT coalesce(sum(iif(result_hash IS NULL, 0, bytes)), 0), max(id) FROM image_edit_cache WHERE id > ?",
    set_total: "UPDATE cache_chores SET position = ?, total = ?, \
            counted_at = iif(? = 1, strftime('%Y-%m-%d %H:%M:%f', 'now'), counted_at) WHERE name = 'evict'",
    recount: "UPDATE cache_chores SET counted_at = NULL WHERE name = 'evict'",
    take_off: "UPDATE cache_chores SET total = ? WHERE name = 'evict'",
    ids: "SELECT (SELECT min(id) FROM image_edit_cache), (SELECT max(id) FROM image_edit_cache)",
    from_id: concat!(
        "SELECT ",
        columns!(),
        " FROM (SELECT * FROM image_edit_cache WHERE id >= ? ORDER BY id LIMIT ?) c \
        WHERE c.result_hash IS NOT NULL AND c.last_hit_at <= strftime('%Y-%m-%d %H:%M:%f', 'now', (? / -1000.0) || ' seconds')"
    ),
    oldest: concat!(
        "SELECT ",
        columns!(),
        " FROM image_edit_cache c WHERE c.created_at < strftime('%Y-%m-%d %H:%M:%f', 'now', (? / -1000.0) || ' seconds') \
            AND c.last_hit_at <= strftime('%Y-%m-%d %H:%M:%f', 'now', (? / -1000.0) || ' seconds') \
        ORDER BY c.created_at LIMIT ?"
    ),
    idlest: concat!(
        "SELECT ",
        columns!(),
        " FROM image_edit_cache c WHERE c.last_hit_at < strftime('%Y-%m-%d %H:%M:%f', 'now', (? / -1000.0) || ' seconds') \
        ORDER BY c.last_hit_at LIMIT ?"
    ),
    lock_entries: concat!(
        "SELECT ",
        columns!(),
        ", c.image_hash, c.result_hash FROM json_each(?) j CROSS JOIN image_edit_cache c ON c.edit_key = unhex(j.value)"
    ),
};
