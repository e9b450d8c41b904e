//! What the cache holds, for people, on SQLite. The index `image_edit_tasks_ended` holds all of the tasks that is summed up.

use crate::store::cache_view::CacheViewStatements;

macro_rules! entry_columns {
    () => {
        "SELECT c.edit_key, c.image_hash, c.edit_type, c.prompt, c.provider, c.model, c.params, c.mask_hash, c.variant, c.result_url, \
        c.result_hash, c.content_type, c.width, c.height, c.bytes, c.price_micros, c.currency, c.hit_count, \
        c.last_hit_at, c.created_at, c.key_version, c.imported_hits, c.verified_at, c.result_check FROM "
    };
}

macro_rules! sums {
    () => {
        "SELECT t.currency, sum(t.hit_images), sum(t.joined_images), sum(t.paid_images), sum(t.failed_images), sum(t.paid_micros), \
        sum(t.saved_micros), sum(t.lost_micros)"
    };
}

pub(super) static CACHE_VIEW: CacheViewStatements = CacheViewStatements {
    shares: "SELECT key_version, provider, model, count(*), count(imported_hits), sum(bytes), sum(hit_count) \
        FROM image_edit_cache GROUP BY key_version, provider, model ORDER BY key_version DESC, 4 DESC, provider, model",
    answered: concat!(
        sums!(),
        ", count(*), sum(t.total_images), date(t.completed_at) AS ended_on, t.edit_type \
        FROM image_edit_tasks t INDEXED BY image_edit_tasks_ended \
        WHERE t.completed_at IS NULL OR t.completed_at >= date('now', (? * -1) || ' days') \
        GROUP BY ended_on, t.edit_type, t.currency ORDER BY ended_on DESC, t.edit_type, t.currency"
    ),
    answered_today: concat!(
        sums!(),
        " FROM image_edit_tasks t INDEXED BY image_edit_tasks_ended WHERE t.completed_at >= date('now') \
        GROUP BY t.currency ORDER BY t.currency"
    ),
    most_served: concat!(
        entry_columns!(),
        "(SELECT id FROM image_edit_cache ORDER BY hit_count DESC, id LIMIT ?) m JOIN image_edit_cache c ON c.id = m.id \
        ORDER BY c.hit_count DESC, c.id"
    ),
    entry_of_edit: concat!(entry_columns!(), "image_edit_cache c WHERE c.edit_key = ?"),
    entries_of_image: concat!(
        entry_columns!(),
        "image_edit_cache c WHERE c.image_hash = ? ORDER BY c.id DESC LIMIT ?"
    ),
    entries_of_result: concat!(
        entry_columns!(),
        "image_edit_cache c WHERE c.result_hash = ? ORDER BY c.id DESC LIMIT ?"
    ),
    recent_of_edit: concat!(
        entry_columns!(),
        "(SELECT id FROM image_edit_cache ORDER BY id DESC LIMIT ?) r JOIN image_edit_cache c ON c.id = r.id \
        WHERE c.edit_type = ? AND c.provider = ? AND c.model = ? AND c.prompt = ? AND c.params = ? ORDER BY c.id DESC LIMIT ?"
    ),
    gone: "SELECT edit_key, image_hash, reason, gone_at FROM image_edit_gone \
        WHERE edit_key = ? OR image_hash = ? ORDER BY gone_at DESC LIMIT 1000",
    calls: "SELECT edit_key, image_hash, edit_type, model, lane, state, last_error, updated_at FROM image_edit_calls \
        WHERE edit_key = ? OR image_hash = ? ORDER BY updated_at DESC LIMIT 1000",
    result_type: "SELECT content_type FROM image_edit_cache WHERE result_hash = ? \
        UNION ALL SELECT result_type FROM image_edit_calls WHERE result_hash = ? LIMIT 1",
};
