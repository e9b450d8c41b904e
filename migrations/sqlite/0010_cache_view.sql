-- What people ask of the cache, without reading tables whole: images by day and edit type, what a picture is the result of, and
-- the calls of a picture.

DROP INDEX image_edit_tasks_ended;
CREATE INDEX image_edit_tasks_ended ON image_edit_tasks
  (completed_at, currency, hit_images, joined_images, paid_images, failed_images, paid_micros, saved_micros, total_images, edit_type);
CREATE INDEX image_edit_cache_result_hash ON image_edit_cache (result_hash, bytes);
CREATE INDEX image_edit_calls_image_hash ON image_edit_calls (image_hash);
