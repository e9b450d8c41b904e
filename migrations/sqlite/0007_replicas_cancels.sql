-- Who works, what is cancelled before it came, and what `retouch top` sums up.

CREATE TABLE replicas (
  owner TEXT NOT NULL PRIMARY KEY,  -- of its leases: unique to the process
  name TEXT NOT NULL,  -- for people
  version TEXT NOT NULL,
  doing TEXT NOT NULL CHECK (json_valid(doing)),
  started_at TEXT NOT NULL,
  seen_at TEXT NOT NULL  -- its last report: long ago means that it is dead
) STRICT;
CREATE INDEX replicas_seen_at ON replicas (seen_at);

CREATE TABLE cancels (
  task_id TEXT NOT NULL PRIMARY KEY,  -- a task that was cancelled before it was taken in
  created_at TEXT NOT NULL
) STRICT;
CREATE INDEX cancels_created_at ON cancels (created_at);

CREATE INDEX image_edit_tasks_ended ON image_edit_tasks
  (completed_at, currency, hit_images, joined_images, paid_images, failed_images, paid_micros, saved_micros);
