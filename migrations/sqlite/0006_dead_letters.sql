-- Dead letters to be worked through: groups, retries, how often something failed again.

ALTER TABLE dead_letters ADD COLUMN group_text TEXT NULL;  -- the message without what differs from letter to letter; NULL: not worked out yet
ALTER TABLE dead_letters ADD COLUMN edit_type TEXT NULL;
ALTER TABLE dead_letters ADD COLUMN properties TEXT NULL;  -- whom to answer, as JSON; for what is sent again
ALTER TABLE dead_letters ADD COLUMN retries INTEGER NOT NULL DEFAULT 0;  -- times it was sent again
ALTER TABLE dead_letters ADD COLUMN claimed_by TEXT NULL;  -- who is sending it again
ALTER TABLE dead_letters ADD COLUMN claim_until TEXT NULL;
ALTER TABLE dead_letters ADD COLUMN decided_at TEXT NULL;  -- when it was retried or discarded
CREATE INDEX dead_letters_state_group ON dead_letters (state, reason, group_text);
CREATE INDEX dead_letters_state_decided ON dead_letters (state, decided_at);
CREATE INDEX dead_letters_edit_key ON dead_letters (edit_key);

CREATE TABLE dead_letter_retries (
  letter_id INTEGER NOT NULL,
  number INTEGER NOT NULL,  -- from 1
  failed_at TEXT NOT NULL,  -- the failure that was retried
  reason TEXT NOT NULL,
  message TEXT NOT NULL,
  attempts INTEGER NOT NULL,
  retried_at TEXT NOT NULL,
  PRIMARY KEY (letter_id, number)
) STRICT;

ALTER TABLE image_edit_calls ADD COLUMN letter_id INTEGER NULL;  -- the dead letter that asked for it, to be opened again should it fail
