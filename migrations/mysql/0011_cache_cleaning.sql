-- Cleaning the cache: blobs that are to go, work that one replica at a time does, and the indexes to find what names a picture.
-- As in 0003: MySQL commits each statement by itself, so each bears to be run again.

CREATE TABLE IF NOT EXISTS dropped_blobs (
  mark          BINARY(32)  NOT NULL PRIMARY KEY COMMENT 'digest made of the blob''s: it stays for a day, and tells nobody which blob it was',
  hash          CHAR(64)    CHARACTER SET ascii COLLATE ascii_bin NULL COMMENT 'the blob; NULL once it is gone',
  dropped_at    DATETIME(3) NOT NULL,
  claimed_until DATETIME(3) NULL COMMENT 'somebody is deleting it',
  deleted_at    DATETIME(3) NULL COMMENT 'NULL: it is to be deleted; otherwise who found it there before this must keep it again',
  KEY deleted_at (deleted_at, dropped_at)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS cache_chores (
  name       VARCHAR(32)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY COMMENT 'evict, sweep_blobs',
  due_at     DATETIME(3)  NOT NULL COMMENT 'when somebody may go on with it: whoever does moves it on first',
  position   VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin NOT NULL COMMENT 'how far it has come',
  total      BIGINT       NOT NULL COMMENT 'evict: bytes of all rows up to the id in position',
  counted_at DATETIME(3)  NULL COMMENT 'evict: when the total was last counted from nothing'
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

INSERT IGNORE INTO cache_chores (name, due_at, position, total, counted_at)
  VALUES ('evict', '2000-01-01', '', 0, NULL), ('sweep_blobs', '2000-01-01', '', 0, NULL);

SET @retouch_cleaning = IF(
  (SELECT COUNT(*) FROM information_schema.statistics
    WHERE table_schema = DATABASE() AND table_name = 'image_edit_cache' AND index_name = 'mask_hash') = 0,
  'ALTER TABLE image_edit_cache ADD KEY mask_hash (mask_hash), ADD KEY created_at (created_at),
    ADD KEY verified_at (verified_at)',
  'DO 0');
PREPARE retouch_cleaning FROM @retouch_cleaning;
EXECUTE retouch_cleaning;
DEALLOCATE PREPARE retouch_cleaning;

SET @retouch_cleaning = IF(
  (SELECT COUNT(*) FROM information_schema.statistics
    WHERE table_schema = DATABASE() AND table_name = 'image_edit_calls' AND index_name = 'result_hash') = 0,
  'ALTER TABLE image_edit_calls ADD KEY mask_hash (mask_hash), ADD KEY result_hash (result_hash)',
  'DO 0');
PREPARE retouch_cleaning FROM @retouch_cleaning;
EXECUTE retouch_cleaning;
DEALLOCATE PREPARE retouch_cleaning;

SET @retouch_cleaning = IF(
  (SELECT COUNT(*) FROM information_schema.statistics
    WHERE table_schema = DATABASE() AND table_name = 'dead_letters' AND index_name = 'payload_blob') = 0,
  'ALTER TABLE dead_letters ADD KEY payload_blob (payload_blob)',
  'DO 0');
PREPARE retouch_cleaning FROM @retouch_cleaning;
EXECUTE retouch_cleaning;
DEALLOCATE PREPARE retouch_cleaning;
