-- The life of the cache: what a row was made with, when its blob was last looked at, and what became of rows that are gone.

ALTER TABLE image_edit_cache ADD COLUMN key_version INTEGER NOT NULL DEFAULT 1;  -- of the edit key: which fields it is made of, and how
ALTER TABLE image_edit_cache ADD COLUMN imported_hits INTEGER NULL;  -- how often the older system had served it at the last import; NULL: made here
ALTER TABLE image_edit_cache ADD COLUMN verified_at TEXT NULL;  -- when its blob was last read and compared; NULL: never

CREATE TABLE image_edit_gone (
  edit_key BLOB NOT NULL PRIMARY KEY,  -- of a row that the cache no longer has
  image_hash TEXT NULL,  -- NULL: forgotten, so not kept here either
  reason TEXT NOT NULL,  -- evicted, forgotten, blob_missing
  gone_at TEXT NOT NULL
) STRICT;
CREATE INDEX image_edit_gone_image_hash ON image_edit_gone (image_hash);
CREATE INDEX image_edit_gone_gone_at ON image_edit_gone (gone_at);
