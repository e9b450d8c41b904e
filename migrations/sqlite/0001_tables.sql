-- The truth of Retouch: cache entries, tasks, calls, waits, lanes, dead letters (SQLite).
-- The same tables as for MySQL. Times are UTC with milliseconds as 'YYYY-MM-DD HH:MM:SS.SSS'.
-- Params and results are canonical JSON text, money is integer millionths: docs/decisions/0006.

CREATE TABLE image_edit_cache (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  edit_key BLOB NOT NULL,
  image_hash TEXT NOT NULL,
  edit_type TEXT NOT NULL,
  prompt TEXT NOT NULL,
  provider TEXT NOT NULL,
  model TEXT NOT NULL,
  params TEXT NOT NULL CHECK (json_valid(params)),
  mask_hash TEXT NULL,
  variant TEXT NULL,
  result_url TEXT NOT NULL,  -- a reference: relative for our own blobs, absolute only if imported
  result_hash TEXT NULL,  -- digest of our blob; NULL only if imported
  content_type TEXT NOT NULL,
  width INTEGER NOT NULL,
  height INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  price_micros INTEGER NOT NULL,  -- what the call cost, in millionths of the currency
  currency TEXT NOT NULL,
  hit_count INTEGER NOT NULL,  -- images served: hit, joined and paid
  last_hit_at TEXT NOT NULL,
  created_at TEXT NOT NULL,
  updated_at TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX image_edit_cache_edit_key ON image_edit_cache (edit_key);
CREATE INDEX image_edit_cache_image_hash ON image_edit_cache (image_hash);
CREATE INDEX image_edit_cache_last_hit_at ON image_edit_cache (last_hit_at);

CREATE TABLE image_edit_tasks (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  task_id TEXT NOT NULL,
  request_hash BLOB NOT NULL,  -- digest of the message content: another one is a task_conflict
  edit_type TEXT NOT NULL,
  prompt TEXT NOT NULL,
  model TEXT NOT NULL,
  params TEXT NOT NULL CHECK (json_valid(params)),
  inputs TEXT NOT NULL CHECK (json_valid(inputs)),  -- where each image came from, by position
  status TEXT NOT NULL,
  total_images INTEGER NOT NULL,
  hit_images INTEGER NOT NULL,
  joined_images INTEGER NOT NULL,
  paid_images INTEGER NOT NULL,
  failed_images INTEGER NOT NULL,
  paid_micros INTEGER NOT NULL,
  saved_micros INTEGER NOT NULL,
  currency TEXT NOT NULL,
  results TEXT NOT NULL CHECK (json_valid(results)),  -- by position
  metadata TEXT NULL,
  error TEXT NULL,  -- the first error, for people
  reply_to TEXT NULL,
  correlation_id TEXT NULL,
  event_due TEXT NULL,  -- when the event is to be sent (again); NULL: confirmed, or not ended
  created_at TEXT NOT NULL,
  updated_at TEXT NOT NULL,
  completed_at TEXT NULL
) STRICT;
CREATE UNIQUE INDEX image_edit_tasks_task_id ON image_edit_tasks (task_id);
CREATE INDEX image_edit_tasks_event_due ON image_edit_tasks (event_due);
CREATE INDEX image_edit_tasks_created_at ON image_edit_tasks (created_at);

CREATE TABLE image_edit_calls (
  edit_key BLOB NOT NULL PRIMARY KEY,
  image_hash TEXT NOT NULL,  -- the input blob
  edit_type TEXT NOT NULL,
  prompt TEXT NOT NULL,
  provider TEXT NOT NULL,
  model TEXT NOT NULL,
  params TEXT NOT NULL CHECK (json_valid(params)),
  mask_hash TEXT NULL,  -- the mask blob
  variant TEXT NULL,
  lane TEXT NOT NULL,
  price_micros INTEGER NOT NULL,
  currency TEXT NOT NULL,
  state TEXT NOT NULL,
  attempts INTEGER NOT NULL,  -- tries that failed; waiting burns none
  owner TEXT NULL,
  lease_until TEXT NULL,
  fence INTEGER NOT NULL,  -- grows with every claim; guards every step
  wake_at TEXT NULL,  -- when the sweep looks after it; NULL: nothing alive
  wakes INTEGER NOT NULL,
  provider_task_id TEXT NULL,
  submitted_at TEXT NULL,
  result_hash TEXT NULL,
  result_type TEXT NULL,
  result_width INTEGER NULL,
  result_height INTEGER NULL,
  result_bytes INTEGER NULL,
  paid_calls INTEGER NOT NULL,
  possible_duplicates INTEGER NOT NULL,
  last_error TEXT NULL,
  created_at TEXT NOT NULL,
  updated_at TEXT NOT NULL
) STRICT;
CREATE INDEX image_edit_calls_wake_at ON image_edit_calls (wake_at);
CREATE INDEX image_edit_calls_lane_state ON image_edit_calls (lane, state);

CREATE TABLE image_edit_waits (
  edit_key BLOB NOT NULL,
  task_id TEXT NOT NULL,
  position INTEGER NOT NULL,
  source TEXT NOT NULL,  -- paid: its image started the call; joined: it came later
  created_at TEXT NOT NULL,
  PRIMARY KEY (edit_key, task_id, position)
) STRICT;
CREATE INDEX image_edit_waits_task_id ON image_edit_waits (task_id);

CREATE TABLE lanes (
  name TEXT NOT NULL PRIMARY KEY,
  max_in_flight INTEGER NULL,  -- calls at a time over all replicas; NULL: no limit
  updated_at TEXT NOT NULL
) STRICT;

CREATE TABLE dead_letters (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  letter_key BLOB NOT NULL,  -- so that archiving twice writes once
  queue TEXT NOT NULL,
  reason TEXT NOT NULL,
  message TEXT NOT NULL,
  payload BLOB NULL,
  payload_blob TEXT NULL,  -- where a large payload is, instead
  headers TEXT NOT NULL CHECK (json_valid(headers)),
  attempts INTEGER NOT NULL,
  task_id TEXT NULL,
  edit_key BLOB NULL,
  state TEXT NOT NULL,
  first_at TEXT NOT NULL,
  last_at TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX dead_letters_letter_key ON dead_letters (letter_key);
CREATE INDEX dead_letters_state_reason ON dead_letters (state, reason);
CREATE INDEX dead_letters_task_id ON dead_letters (task_id);
