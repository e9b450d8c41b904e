-- The trace that a task belongs to (W3C Trace Context), for the headers of its event.

ALTER TABLE image_edit_tasks ADD COLUMN traceparent TEXT NULL;  -- NULL: taken in by an older worker
ALTER TABLE image_edit_tasks ADD COLUMN tracestate TEXT NULL;  -- as the producer gave it
