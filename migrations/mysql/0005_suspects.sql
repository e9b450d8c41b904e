-- Work that did not come to an end: what was begun again after a process died, and has not ended since. Whatever kills
-- every process that begins it is found here.

CREATE TABLE IF NOT EXISTS suspects (
  suspect_key BINARY(32)  NOT NULL PRIMARY KEY COMMENT 'digest of a queue and a message, or of an edit',
  starts      INT         NOT NULL COMMENT 'that never ended',
  updated_at  DATETIME(3) NOT NULL
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
