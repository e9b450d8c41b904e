-- Sends without an answer, answers and results that are kept as they came, money by what it bought, and which
-- installation this is.

ALTER TABLE image_edit_calls ADD COLUMN unanswered INTEGER NOT NULL DEFAULT 0;  -- submits without an answer: counted before each is sent, taken back by its answer
ALTER TABLE image_edit_calls ADD COLUMN held TEXT NULL;  -- why it is not sent again without a decision of a person: a reason code
ALTER TABLE image_edit_calls ADD COLUMN answer_hash TEXT NULL;  -- blob of a whole answer that could not be read
ALTER TABLE image_edit_calls ADD COLUMN answer_type TEXT NULL;  -- its Content-Type
ALTER TABLE image_edit_calls ADD COLUMN ended_at TEXT NULL;  -- when the provider said that its work has ended: from then on it takes no place on its lane
ALTER TABLE image_edit_calls ADD COLUMN fetch_host TEXT NULL;  -- host of a result that cannot be fetched
ALTER TABLE image_edit_calls ADD COLUMN fetch_error TEXT NULL;  -- why it cannot be fetched
ALTER TABLE image_edit_calls ADD COLUMN result_check TEXT NULL;  -- why the result could not be decoded; NULL: it was, or was not looked at
ALTER TABLE image_edit_calls ADD COLUMN lost_micros INTEGER NOT NULL DEFAULT 0;  -- perhaps spent on submits without an answer since it was queued by a task
ALTER TABLE image_edit_calls ADD COLUMN lost_as TEXT NULL;  -- reason code under which its payment was counted as money for nothing, while the provider (provider_task_id) or the kept answer may still have what it bought
CREATE INDEX image_edit_calls_answer_hash ON image_edit_calls (answer_hash);

ALTER TABLE image_edit_cache ADD COLUMN result_check TEXT NULL;  -- why the result could not be decoded; NULL: it was, or was not looked at
ALTER TABLE image_edit_tasks ADD COLUMN lost_micros INTEGER NOT NULL DEFAULT 0;  -- spent, or perhaps spent, for its images, and bought nothing
DROP INDEX image_edit_tasks_ended;
CREATE INDEX image_edit_tasks_ended ON image_edit_tasks
  (completed_at, currency, hit_images, joined_images, paid_images, failed_images, paid_micros, saved_micros, lost_micros, total_images, edit_type);
ALTER TABLE lanes ADD COLUMN unanswered INTEGER NOT NULL DEFAULT 0;  -- submits in a row that were not answered
ALTER TABLE lanes ADD COLUMN unanswered_since TEXT NULL;  -- when the first of them was given up

ALTER TABLE dead_letters ADD COLUMN kept_blob TEXT NULL;  -- blob of what was paid for and could not be used
ALTER TABLE dead_letters ADD COLUMN kept_type TEXT NULL;  -- its content type
CREATE INDEX dead_letters_kept_blob ON dead_letters (kept_blob);

CREATE TABLE spending (
  spent_on TEXT NOT NULL,  -- UTC day on which it was known what the money bought
  lane TEXT NOT NULL,
  model TEXT NOT NULL,
  currency TEXT NOT NULL,
  outcome TEXT NOT NULL,  -- result, unwanted, ambiguous, or the reason code of what bought nothing
  calls INTEGER NOT NULL,
  micros INTEGER NOT NULL,
  PRIMARY KEY (spent_on, lane, model, currency, outcome)
) STRICT;

CREATE TABLE installation (
  only_row INTEGER NOT NULL PRIMARY KEY,  -- 1: there is one row at most
  id TEXT NOT NULL,  -- what this database and its namespace at the broker have in common
  created_at TEXT NOT NULL
) STRICT;
