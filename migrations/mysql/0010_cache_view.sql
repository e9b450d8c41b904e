-- What people ask of the cache, without reading tables whole: images by day and edit type, what a picture is the result of, and
-- the calls of a picture. As in 0003: MySQL commits each statement by itself, so each bears to be run again.

-- The same name, so that programs that force it go on; wider at its end, so that what they read is where it was.
SET @retouch_ended = IF(
  (SELECT COUNT(*) FROM information_schema.statistics
    WHERE table_schema = DATABASE() AND table_name = 'image_edit_tasks' AND index_name = 'ended' AND column_name = 'edit_type') = 0,
  'ALTER TABLE image_edit_tasks DROP KEY ended, ADD KEY ended
    (completed_at, currency, hit_images, joined_images, paid_images, failed_images, paid_micros, saved_micros, total_images, edit_type)',
  'DO 0');
PREPARE retouch_ended FROM @retouch_ended;
EXECUTE retouch_ended;
DEALLOCATE PREPARE retouch_ended;

SET @retouch_result_hash = IF(
  (SELECT COUNT(*) FROM information_schema.statistics
    WHERE table_schema = DATABASE() AND table_name = 'image_edit_cache' AND index_name = 'result_hash') = 0,
  'ALTER TABLE image_edit_cache ADD KEY result_hash (result_hash, bytes)',
  'DO 0');
PREPARE retouch_result_hash FROM @retouch_result_hash;
EXECUTE retouch_result_hash;
DEALLOCATE PREPARE retouch_result_hash;

SET @retouch_call_image = IF(
  (SELECT COUNT(*) FROM information_schema.statistics
    WHERE table_schema = DATABASE() AND table_name = 'image_edit_calls' AND index_name = 'image_hash') = 0,
  'ALTER TABLE image_edit_calls ADD KEY image_hash (image_hash)',
  'DO 0');
PREPARE retouch_call_image FROM @retouch_call_image;
EXECUTE retouch_call_image;
DEALLOCATE PREPARE retouch_call_image;
