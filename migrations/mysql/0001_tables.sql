-- The truth of Retouch: cache entries, tasks, calls, waits, lanes, dead letters (MySQL 8, MariaDB 10.6+).
-- All text compares byte for byte. Times are UTC with milliseconds, written by statements, never by themselves.
-- Params and results are canonical JSON text, money is integer millionths: docs/decisions/0006.

CREATE TABLE IF NOT EXISTS image_edit_cache (
  id            BIGINT       NOT NULL AUTO_INCREMENT PRIMARY KEY,
  edit_key      BINARY(32)   NOT NULL,
  image_hash    CHAR(64)     CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  edit_type     VARCHAR(32)  NOT NULL,
  prompt        MEDIUMTEXT   NOT NULL,
  provider      VARCHAR(32)  NOT NULL,
  model         VARCHAR(128) NOT NULL,
  params        LONGTEXT     NOT NULL CHECK (JSON_VALID(params)),
  mask_hash     CHAR(64)     CHARACTER SET ascii COLLATE ascii_bin NULL,
  variant       VARCHAR(64)  NULL,
  result_url    TEXT         NOT NULL COMMENT 'a reference: relative for our own blobs, absolute only if imported',
  result_hash   CHAR(64)     CHARACTER SET ascii COLLATE ascii_bin NULL COMMENT 'digest of our blob; NULL only if imported',
  content_type  VARCHAR(64)  NOT NULL,
  width         INT          NOT NULL,
  height        INT          NOT NULL,
  bytes         BIGINT       NOT NULL,
  price_micros  BIGINT       NOT NULL COMMENT 'what the call cost, in millionths of the currency',
  currency      CHAR(3)      CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  hit_count     BIGINT       NOT NULL COMMENT 'images served: hit, joined and paid',
  last_hit_at   DATETIME(3)  NOT NULL,
  created_at    DATETIME(3)  NOT NULL,
  updated_at    DATETIME(3)  NOT NULL,
  UNIQUE KEY edit_key (edit_key),
  KEY image_hash (image_hash),
  KEY last_hit_at (last_hit_at)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS image_edit_tasks (
  id             BIGINT       NOT NULL AUTO_INCREMENT PRIMARY KEY,
  task_id        VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  request_hash   BINARY(32)   NOT NULL COMMENT 'digest of the message content: another one is a task_conflict',
  edit_type      VARCHAR(32)  NOT NULL,
  prompt         MEDIUMTEXT   NOT NULL,
  model          VARCHAR(128) NOT NULL,
  params         LONGTEXT     NOT NULL CHECK (JSON_VALID(params)),
  inputs         LONGTEXT     NOT NULL COMMENT 'where each image came from, by position' CHECK (JSON_VALID(inputs)),
  status         VARCHAR(16)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  total_images   INT          NOT NULL,
  hit_images     INT          NOT NULL,
  joined_images  INT          NOT NULL,
  paid_images    INT          NOT NULL,
  failed_images  INT          NOT NULL,
  paid_micros    BIGINT       NOT NULL,
  saved_micros   BIGINT       NOT NULL,
  currency       CHAR(3)      CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  results        LONGTEXT     NOT NULL COMMENT 'by position' CHECK (JSON_VALID(results)),
  metadata       TEXT         NULL,
  error          TEXT         NULL COMMENT 'the first error, for people',
  reply_to       VARCHAR(255) NULL,
  correlation_id VARCHAR(255) NULL,
  event_due      DATETIME(3)  NULL COMMENT 'when the event is to be sent (again); NULL: confirmed, or not ended',
  created_at     DATETIME(3)  NOT NULL,
  updated_at     DATETIME(3)  NOT NULL,
  completed_at   DATETIME(3)  NULL,
  UNIQUE KEY task_id (task_id),
  KEY event_due (event_due),
  KEY created_at (created_at)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS image_edit_calls (
  edit_key            BINARY(32)   NOT NULL PRIMARY KEY,
  image_hash          CHAR(64)     CHARACTER SET ascii COLLATE ascii_bin NOT NULL COMMENT 'the input blob',
  edit_type           VARCHAR(32)  NOT NULL,
  prompt              MEDIUMTEXT   NOT NULL,
  provider            VARCHAR(32)  NOT NULL,
  model               VARCHAR(128) NOT NULL,
  params              LONGTEXT     NOT NULL CHECK (JSON_VALID(params)),
  mask_hash           CHAR(64)     CHARACTER SET ascii COLLATE ascii_bin NULL COMMENT 'the mask blob',
  variant             VARCHAR(64)  NULL,
  lane                VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  price_micros        BIGINT       NOT NULL,
  currency            CHAR(3)      CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  state               VARCHAR(16)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  attempts            INT          NOT NULL COMMENT 'tries that failed; waiting burns none',
  owner               VARCHAR(64)  NULL,
  lease_until         DATETIME(3)  NULL,
  fence               BIGINT       NOT NULL COMMENT 'grows with every claim; guards every step',
  wake_at             DATETIME(3)  NULL COMMENT 'when the sweep looks after it; NULL: nothing alive',
  wakes               INT          NOT NULL,
  provider_task_id    VARCHAR(512) NULL,
  submitted_at        DATETIME(3)  NULL,
  result_hash         CHAR(64)     CHARACTER SET ascii COLLATE ascii_bin NULL,
  result_type         VARCHAR(64)  NULL,
  result_width        INT          NULL,
  result_height       INT          NULL,
  result_bytes        BIGINT       NULL,
  paid_calls          INT          NOT NULL,
  possible_duplicates INT          NOT NULL,
  last_error          TEXT         NULL,
  created_at          DATETIME(3)  NOT NULL,
  updated_at          DATETIME(3)  NOT NULL,
  KEY wake_at (wake_at),
  KEY lane_state (lane, state)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS image_edit_waits (
  edit_key   BINARY(32)  NOT NULL,
  task_id    VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  position   INT         NOT NULL,
  source     VARCHAR(8)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL COMMENT 'paid: its image started the call; joined: it came later',
  created_at DATETIME(3) NOT NULL,
  PRIMARY KEY (edit_key, task_id, position),
  KEY task_id (task_id)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS lanes (
  name          VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
  max_in_flight INT          NULL COMMENT 'calls at a time over all replicas; NULL: no limit',
  updated_at    DATETIME(3)  NOT NULL
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS dead_letters (
  id           BIGINT       NOT NULL AUTO_INCREMENT PRIMARY KEY,
  letter_key   BINARY(32)   NOT NULL COMMENT 'so that archiving twice writes once',
  queue        VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  reason       VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  message      TEXT         NOT NULL,
  payload      LONGBLOB     NULL,
  payload_blob CHAR(64)     CHARACTER SET ascii COLLATE ascii_bin NULL COMMENT 'where a large payload is, instead',
  headers      LONGTEXT     NOT NULL CHECK (JSON_VALID(headers)),
  attempts     INT          NOT NULL,
  task_id      VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NULL,
  edit_key     BINARY(32)   NULL,
  state        VARCHAR(16)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  first_at     DATETIME(3)  NOT NULL,
  last_at      DATETIME(3)  NOT NULL,
  UNIQUE KEY letter_key (letter_key),
  KEY state_reason (state, reason),
  KEY task_id (task_id)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
