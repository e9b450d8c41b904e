//! Eviction, on MySQL and MariaDB.

use crate::store::evict::EvictStatements;

macro_rules! columns {
    () => {
        "c.edit_key, c.bytes, c.price_micros, c.currency, c.hit_count, \
        CAST(TIMESTAMPDIFF(MICROSECOND, c.created_at, UTC_TIMESTAMP(3)) DIV 1000 AS SIGNED), \
        CAST(TIMESTAMPDIFF(MICROSECOND, c.last_hit_at, UTC_TIMESTAMP(3)) DIV 1000 AS SIGNED), CAST(c.last_hit_at AS CHAR)"
    };
}

pub(super) static EVICT: EvictStatements = EvictStatements {
    lock_total: "SELECT position, total, CAST(COALESCE(counted_at > UTC_TIMESTAMP(3) - INTERVAL ? * 1000 MICROSECOND, 0) AS SIGNED) \
        FROM cache_chores WHERE name = 'evict' FOR UPDATE",
    count_all: "SELECT CAST(COALESCE(SUM(bytes), 0) AS SIGNED), (SELECT MAX(id) FROM image_edit_cache) \
        FROM image_edit_cache FORCE INDEX (result_hash) WHERE result_hash IS NOT NULL",
    count_since: "SELECT CAST(COALESCE(SUM(IF(result_hash IS NULL, 0, bytes)), 0) AS SIGNED), MAX(id) FROM image_edit_cache WHERE id > ?",
    set_total: "UPDATE cache_chores SET position = ?, total = ?, counted_at = IF(? = 1, UTC_TIMESTAMP(3), counted_at) WHERE name = 'evict'",
    recount: "UPDATE cache_chores SET counted_at = NULL WHERE name = 'evict'",
    take_off: "UPDATE cache_chores SET total = ? WHERE name = 'evict'",
    ids: "SELECT MIN(id), MAX(id) FROM image_edit_cache",
    from_id: concat!(
        "SELECT ",
        columns!(),
        " FROM (SELECT * FROM image_edit_cache WHERE id >= ? ORDER BY id LIMIT ?) c \
        WHERE c.result_hash IS NOT NULL AND c.last_hit_at <= UTC_TIMESTAMP(3) - INTERVAL ? * 1000 MICROSECOND"
    ),
    oldest: concat!(
        "SELECT ",
        columns!(),
        " FROM image_edit_cache c WHERE c.created_at < UTC_TIMESTAMP(3) - INTERVAL ? * 1000 MICROSECOND \
            AND c.last_hit_at <= UTC_TIMESTAMP(3) - INTERVAL ? * 1000 MICROSECOND ORDER BY c.created_at LIMIT ?"
    ),
    idlest: concat!(
        "SELECT ",
        columns!(),
        " FROM image_edit_cache c WHERE c.last_hit_at < UTC_TIMESTAMP(3) - INTERVAL ? * 1000 MICROSECOND ORDER BY c.last_hit_at LIMIT ?"
    ),
    lock_entries: concat!(
        "SELECT ",
        columns!(),
        ", c.image_hash, c.result_hash FROM ",
        keys!(),
        cache_of_j!(),
        "FOR UPDATE"
    ),
};
