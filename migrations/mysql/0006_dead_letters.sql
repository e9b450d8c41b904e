-- Dead letters to be worked through: groups, retries, how often something failed again.
-- As in 0003: MySQL commits each statement by itself, so each bears to be run again.

SET @retouch_letters = IF(
  (SELECT COUNT(*) FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'dead_letters' AND column_name = 'decided_at') = 0,
  'ALTER TABLE dead_letters
    ADD COLUMN group_text VARCHAR(255) NULL COMMENT ''the message without what differs from letter to letter; NULL: not worked out yet'',
    ADD COLUMN edit_type VARCHAR(32) NULL,
    ADD COLUMN properties LONGTEXT NULL COMMENT ''whom to answer, as JSON; for what is sent again'',
    ADD COLUMN retries INT NOT NULL DEFAULT 0 COMMENT ''times it was sent again'',
    ADD COLUMN claimed_by VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NULL COMMENT ''who is sending it again'',
    ADD COLUMN claim_until DATETIME(3) NULL,
    ADD COLUMN decided_at DATETIME(3) NULL COMMENT ''when it was retried or discarded'',
    ADD KEY state_group (state, reason, group_text),
    ADD KEY state_decided (state, decided_at),
    ADD KEY edit_key (edit_key)',
  'DO 0');
PREPARE retouch_letters FROM @retouch_letters;
EXECUTE retouch_letters;
DEALLOCATE PREPARE retouch_letters;

CREATE TABLE IF NOT EXISTS dead_letter_retries (
  letter_id  BIGINT      NOT NULL,
  number     INT         NOT NULL COMMENT 'from 1',
  failed_at  DATETIME(3) NOT NULL COMMENT 'the failure that was retried',
  reason     VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  message    TEXT        NOT NULL,
  attempts   INT         NOT NULL,
  retried_at DATETIME(3) NOT NULL,
  PRIMARY KEY (letter_id, number)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

SET @retouch_letters = IF(
  (SELECT COUNT(*) FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'image_edit_calls' AND column_name = 'letter_id') = 0,
  'ALTER TABLE image_edit_calls
    ADD COLUMN letter_id BIGINT NULL COMMENT ''the dead letter that asked for it, to be opened again should it fail''',
  'DO 0');
PREPARE retouch_letters FROM @retouch_letters;
EXECUTE retouch_letters;
DEALLOCATE PREPARE retouch_letters;
