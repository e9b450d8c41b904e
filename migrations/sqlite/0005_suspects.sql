-- Work that did not come to an end: what was begun again after a process died, and has not ended since. Whatever kills
-- every process that begins it is found here.

CREATE TABLE suspects (
  suspect_key BLOB NOT NULL PRIMARY KEY,  -- digest of a queue and a message, or of an edit
  starts INTEGER NOT NULL,  -- that never ended
  updated_at TEXT NOT NULL
) STRICT;
