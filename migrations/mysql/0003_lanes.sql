-- Lanes in full: limits over all replicas, what is spent, and whether they take calls. A provider's id can be a signed URL.
-- All columns in one statement, and only where they are not there yet: MySQL commits each statement by itself, and has no
-- ADD COLUMN IF NOT EXISTS.

SET @retouch_lanes = IF(
  (SELECT COUNT(*) FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'lanes' AND column_name = 'paused_at') = 0,
  'ALTER TABLE lanes
    ADD COLUMN submit_interval_ms BIGINT NULL COMMENT ''at least this long between two submits; NULL: no limit'',
    ADD COLUMN next_submit_at DATETIME(3) NULL COMMENT ''not before this time; a provider that asks to slow down moves it on'',
    ADD COLUMN throttles INT NOT NULL DEFAULT 0 COMMENT ''times in a row that the provider asked to slow down'',
    ADD COLUMN budget_micros BIGINT NULL COMMENT ''most that may be spent in one UTC day; NULL: no limit'',
    ADD COLUMN currency CHAR(3) CHARACTER SET ascii COLLATE ascii_bin NULL COMMENT ''of budget and spending'',
    ADD COLUMN spent_micros BIGINT NOT NULL DEFAULT 0 COMMENT ''on the day spent_on, what is under way included'',
    ADD COLUMN spent_on DATE NULL,
    ADD COLUMN blocked_by VARCHAR(8) CHARACTER SET ascii COLLATE ascii_bin NULL COMMENT ''submit, poll or budget; NULL: it is open'',
    ADD COLUMN blocked_code VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NULL,
    ADD COLUMN blocked_message TEXT NULL,
    ADD COLUMN blocked_at DATETIME(3) NULL,
    ADD COLUMN probes INT NOT NULL DEFAULT 0 COMMENT ''calls that found it still blocked'',
    ADD COLUMN probe_at DATETIME(3) NULL COMMENT ''when one call may try again'',
    ADD COLUMN paused_at DATETIME(3) NULL COMMENT ''by a person''',
  'DO 0');
PREPARE retouch_lanes FROM @retouch_lanes;
EXECUTE retouch_lanes;
DEALLOCATE PREPARE retouch_lanes;

ALTER TABLE image_edit_calls MODIFY provider_task_id TEXT NULL;
