-- Cleaning the cache: blobs that are to go, work that one replica at a time does, and the indexes to find what names a picture.

CREATE TABLE dropped_blobs (
  mark BLOB NOT NULL PRIMARY KEY,  -- digest made of the blob's: it stays for a day, and tells nobody which blob it was
  hash TEXT NULL,  -- the blob; NULL once it is gone
  dropped_at TEXT NOT NULL,
  claimed_until TEXT NULL,  -- somebody is deleting it
  deleted_at TEXT NULL  -- NULL: it is to be deleted; otherwise who found it there before this must keep it again
) STRICT;
CREATE INDEX dropped_blobs_deleted_at ON dropped_blobs (deleted_at, dropped_at);

CREATE TABLE cache_chores (
  name TEXT NOT NULL PRIMARY KEY,  -- evict, sweep_blobs
  due_at TEXT NOT NULL,  -- when somebody may go on with it: whoever does moves it on first
  position TEXT NOT NULL,  -- how far it has come
  total INTEGER NOT NULL,  -- evict: bytes of all rows up to the id in position
  counted_at TEXT NULL  -- evict: when the total was last counted from nothing
) STRICT;
INSERT INTO cache_chores (name, due_at, position, total, counted_at)
  VALUES ('evict', '2000-01-01 00:00:00.000', '', 0, NULL), ('sweep_blobs', '2000-01-01 00:00:00.000', '', 0, NULL);

CREATE INDEX image_edit_cache_mask_hash ON image_edit_cache (mask_hash);
CREATE INDEX image_edit_cache_created_at ON image_edit_cache (created_at);
CREATE INDEX image_edit_cache_verified_at ON image_edit_cache (verified_at);
CREATE INDEX image_edit_calls_mask_hash ON image_edit_calls (mask_hash);
CREATE INDEX image_edit_calls_result_hash ON image_edit_calls (result_hash);
CREATE INDEX dead_letters_payload_blob ON dead_letters (payload_blob);
