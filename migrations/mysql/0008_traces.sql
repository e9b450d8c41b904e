-- The trace that a task belongs to (W3C Trace Context), for the headers of its event.
-- As in 0003: MySQL commits each statement by itself, so each bears to be run again.

SET @retouch_traces = IF(
  (SELECT COUNT(*) FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'image_edit_tasks' AND column_name = 'traceparent') = 0,
  'ALTER TABLE image_edit_tasks
    ADD COLUMN traceparent CHAR(55) CHARACTER SET ascii COLLATE ascii_bin NULL COMMENT ''NULL: taken in by an older worker'',
    ADD COLUMN tracestate VARCHAR(512) CHARACTER SET ascii COLLATE ascii_bin NULL COMMENT ''as the producer gave it''',
  'DO 0');
PREPARE retouch_traces FROM @retouch_traces;
EXECUTE retouch_traces;
DEALLOCATE PREPARE retouch_traces;
