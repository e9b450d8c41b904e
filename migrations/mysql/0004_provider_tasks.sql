-- For submits that were not answered, where the provider's list of its tasks is asked: docs/decisions/0007.
-- As in 0003: MySQL commits each statement by itself, so each bears to be run again.

CREATE TABLE IF NOT EXISTS provider_tasks (
  id_hash BINARY(32)  NOT NULL PRIMARY KEY COMMENT 'digest of an id of the provider that is accounted for, whatever became of its call',
  seen_at DATETIME(3) NOT NULL,
  KEY seen_at (seen_at)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

SET @retouch_lanes = IF(
  (SELECT COUNT(*) FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'lanes' AND column_name = 'one_unresolved') = 0,
  'ALTER TABLE lanes
    ADD COLUMN one_unresolved BOOLEAN NOT NULL DEFAULT 0 COMMENT ''nothing is sent while it is not known what became of what was sent before''',
  'DO 0');
PREPARE retouch_lanes FROM @retouch_lanes;
EXECUTE retouch_lanes;
DEALLOCATE PREPARE retouch_lanes;
