-- The life of the cache: what a row was made with, when its blob was last looked at, and what became of rows that are gone.
-- As in 0003: MySQL commits each statement by itself, so each bears to be run again.

SET @retouch_cache_life = IF(
  (SELECT COUNT(*) FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'image_edit_cache' AND column_name = 'key_version') = 0,
  'ALTER TABLE image_edit_cache
    ADD COLUMN key_version SMALLINT NOT NULL DEFAULT 1 COMMENT ''of the edit key: which fields it is made of, and how'',
    ADD COLUMN imported_hits BIGINT NULL COMMENT ''how often the older system had served it at the last import; NULL: made here'',
    ADD COLUMN verified_at DATETIME(3) NULL COMMENT ''when its blob was last read and compared; NULL: never''',
  'DO 0');
PREPARE retouch_cache_life FROM @retouch_cache_life;
EXECUTE retouch_cache_life;
DEALLOCATE PREPARE retouch_cache_life;

CREATE TABLE IF NOT EXISTS image_edit_gone (
  edit_key   BINARY(32)  NOT NULL PRIMARY KEY COMMENT 'of a row that the cache no longer has',
  image_hash CHAR(64)    CHARACTER SET ascii COLLATE ascii_bin NULL COMMENT 'NULL: forgotten, so not kept here either',
  reason     VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL COMMENT 'evicted, forgotten, blob_missing',
  gone_at    DATETIME(3) NOT NULL,
  KEY image_hash (image_hash),
  KEY gone_at (gone_at)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
