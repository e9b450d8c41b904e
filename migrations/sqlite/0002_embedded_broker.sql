-- The embedded broker: queues in the SQLite file. Times are milliseconds since 1970, because they are compared and
-- added to at every claim.

CREATE TABLE broker_queues (
  name TEXT PRIMARY KEY NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE broker_messages (
  id INTEGER PRIMARY KEY AUTOINCREMENT,  -- the order of publishing
  queue TEXT NOT NULL REFERENCES broker_queues (name) ON DELETE CASCADE,
  payload BLOB NOT NULL,
  headers TEXT NOT NULL CHECK (json_valid(headers)),
  reply_to TEXT NULL,
  correlation_id TEXT NULL,
  message_id TEXT NULL,
  owner TEXT NULL,  -- the claim that holds it; NULL: nobody
  visible_at INTEGER NOT NULL,  -- free: not delivered before; held: nobody else's before
  returns INTEGER NOT NULL DEFAULT 0,  -- deliveries that were not acknowledged
  death_reason TEXT NULL,  -- on the dead queue: why the broker moved it there, and from where
  death_queue TEXT NULL
) STRICT;
CREATE INDEX broker_messages_free ON broker_messages (queue, visible_at, id) WHERE owner IS NULL;
CREATE INDEX broker_messages_held ON broker_messages (visible_at) WHERE owner IS NOT NULL;
