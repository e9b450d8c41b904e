-- For submits that were not answered, where the provider's list of its tasks is asked: docs/decisions/0007.

CREATE TABLE provider_tasks (
  id_hash BLOB NOT NULL PRIMARY KEY,  -- digest of an id of the provider that is accounted for, whatever became of its call
  seen_at TEXT NOT NULL
) STRICT;
CREATE INDEX provider_tasks_seen_at ON provider_tasks (seen_at);

ALTER TABLE lanes ADD COLUMN one_unresolved INTEGER NOT NULL DEFAULT 0;  -- nothing is sent while it is not known what became of what was sent before
