-- Sends without an answer, answers and results that are kept as they came, money by what it bought, and which
-- installation this is. As in 0003: MySQL commits each statement by itself, so each bears to be run again.

SET @retouch_edges = IF(
  (SELECT COUNT(*) FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'image_edit_calls' AND column_name = 'unanswered') = 0,
  'ALTER TABLE image_edit_calls
    ADD COLUMN unanswered INT NOT NULL DEFAULT 0 COMMENT ''submits without an answer: counted before each is sent, taken back by its answer'',
    ADD COLUMN held VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NULL COMMENT ''why it is not sent again without a decision of a person: a reason code'',
    ADD COLUMN answer_hash CHAR(64) CHARACTER SET ascii COLLATE ascii_bin NULL COMMENT ''blob of a whole answer that could not be read'',
    ADD COLUMN answer_type VARCHAR(128) NULL COMMENT ''its Content-Type'',
    ADD COLUMN ended_at DATETIME(3) NULL COMMENT ''when the provider said that its work has ended: from then on it takes no place on its lane'',
    ADD COLUMN fetch_host VARCHAR(255) NULL COMMENT ''host of a result that cannot be fetched'',
    ADD COLUMN fetch_error TEXT NULL COMMENT ''why it cannot be fetched'',
    ADD COLUMN result_check TEXT NULL COMMENT ''why the result could not be decoded; NULL: it was, or was not looked at'',
    ADD COLUMN lost_micros BIGINT NOT NULL DEFAULT 0 COMMENT ''perhaps spent on submits without an answer since it was queued by a task'',
    ADD COLUMN lost_as VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NULL COMMENT ''reason code under which its payment was counted as money for nothing, while the provider (provider_task_id) or the kept answer may still have what it bought'',
    ADD KEY answer_hash (answer_hash)',
  'DO 0');
PREPARE retouch_edges FROM @retouch_edges;
EXECUTE retouch_edges;
DEALLOCATE PREPARE retouch_edges;

SET @retouch_edges = IF(
  (SELECT COUNT(*) FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'image_edit_cache' AND column_name = 'result_check') = 0,
  'ALTER TABLE image_edit_cache
    ADD COLUMN result_check TEXT NULL COMMENT ''why the result could not be decoded; NULL: it was, or was not looked at''',
  'DO 0');
PREPARE retouch_edges FROM @retouch_edges;
EXECUTE retouch_edges;
DEALLOCATE PREPARE retouch_edges;

SET @retouch_edges = IF(
  (SELECT COUNT(*) FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'image_edit_tasks' AND column_name = 'lost_micros') = 0,
  'ALTER TABLE image_edit_tasks
    ADD COLUMN lost_micros BIGINT NOT NULL DEFAULT 0 COMMENT ''spent, or perhaps spent, for its images, and bought nothing'',
    DROP KEY ended, ADD KEY ended
      (completed_at, currency, hit_images, joined_images, paid_images, failed_images, paid_micros, saved_micros, lost_micros, total_images, edit_type)',
  'DO 0');
PREPARE retouch_edges FROM @retouch_edges;
EXECUTE retouch_edges;
DEALLOCATE PREPARE retouch_edges;

SET @retouch_edges = IF(
  (SELECT COUNT(*) FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'lanes' AND column_name = 'unanswered') = 0,
  'ALTER TABLE lanes
    ADD COLUMN unanswered INT NOT NULL DEFAULT 0 COMMENT ''submits in a row that were not answered'',
    ADD COLUMN unanswered_since DATETIME(3) NULL COMMENT ''when the first of them was given up''',
  'DO 0');
PREPARE retouch_edges FROM @retouch_edges;
EXECUTE retouch_edges;
DEALLOCATE PREPARE retouch_edges;

SET @retouch_edges = IF(
  (SELECT COUNT(*) FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'dead_letters' AND column_name = 'kept_blob') = 0,
  'ALTER TABLE dead_letters
    ADD COLUMN kept_blob CHAR(64) CHARACTER SET ascii COLLATE ascii_bin NULL COMMENT ''blob of what was paid for and could not be used'',
    ADD COLUMN kept_type VARCHAR(128) NULL COMMENT ''its content type'',
    ADD KEY kept_blob (kept_blob)',
  'DO 0');
PREPARE retouch_edges FROM @retouch_edges;
EXECUTE retouch_edges;
DEALLOCATE PREPARE retouch_edges;

CREATE TABLE IF NOT EXISTS spending (
  spent_on DATE         NOT NULL COMMENT 'UTC day on which it was known what the money bought',
  lane     VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  model    VARCHAR(128) NOT NULL,
  currency CHAR(3)      CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  outcome  VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL COMMENT 'result, unwanted, ambiguous, or the reason code of what bought nothing',
  calls    BIGINT       NOT NULL,
  micros   BIGINT       NOT NULL,
  PRIMARY KEY (spent_on, lane, model, currency, outcome)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS installation (
  only_row   INT         NOT NULL PRIMARY KEY COMMENT '1: there is one row at most',
  id         CHAR(36)    CHARACTER SET ascii COLLATE ascii_bin NOT NULL COMMENT 'what this database and its namespace at the broker have in common',
  created_at DATETIME(3) NOT NULL
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
