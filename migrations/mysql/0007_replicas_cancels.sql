-- Who works, what is cancelled before it came, and what `retouch top` sums up.
-- As in 0003: MySQL commits each statement by itself, so each bears to be run again.

CREATE TABLE IF NOT EXISTS replicas (
  owner      VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY COMMENT 'of its leases: unique to the process',
  name       VARCHAR(128) NOT NULL COMMENT 'for people',
  version    VARCHAR(32)  NOT NULL,
  doing      TEXT         NOT NULL CHECK (JSON_VALID(doing)),
  started_at DATETIME(3)  NOT NULL,
  seen_at    DATETIME(3)  NOT NULL COMMENT 'its last report: long ago means that it is dead',
  KEY seen_at (seen_at)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS cancels (
  task_id    VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY COMMENT 'a task that was cancelled before it was taken in',
  created_at DATETIME(3) NOT NULL,
  KEY created_at (created_at)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

SET @retouch_ended = IF(
  (SELECT COUNT(*) FROM information_schema.statistics
    WHERE table_schema = DATABASE() AND table_name = 'image_edit_tasks' AND index_name = 'ended') = 0,
  'ALTER TABLE image_edit_tasks ADD KEY ended
    (completed_at, currency, hit_images, joined_images, paid_images, failed_images, paid_micros, saved_micros)',
  'DO 0');
PREPARE retouch_ended FROM @retouch_ended;
EXECUTE retouch_ended;
DEALLOCATE PREPARE retouch_ended;
