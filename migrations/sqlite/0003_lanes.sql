-- Lanes in full: limits over all replicas, what is spent, and whether they take calls.

ALTER TABLE lanes ADD COLUMN submit_interval_ms INTEGER NULL;  -- at least this long between two submits; NULL: no limit
ALTER TABLE lanes ADD COLUMN next_submit_at TEXT NULL;  -- not before this time; a provider that asks to slow down moves it on
ALTER TABLE lanes ADD COLUMN throttles INTEGER NOT NULL DEFAULT 0;  -- times in a row that the provider asked to slow down
ALTER TABLE lanes ADD COLUMN budget_micros INTEGER NULL;  -- most that may be spent in one UTC day; NULL: no limit
ALTER TABLE lanes ADD COLUMN currency TEXT NULL;  -- of budget and spending
ALTER TABLE lanes ADD COLUMN spent_micros INTEGER NOT NULL DEFAULT 0;  -- on the day spent_on, what is under way included
ALTER TABLE lanes ADD COLUMN spent_on TEXT NULL;
ALTER TABLE lanes ADD COLUMN blocked_by TEXT NULL;  -- submit, poll or budget; NULL: it is open
ALTER TABLE lanes ADD COLUMN blocked_code TEXT NULL;
ALTER TABLE lanes ADD COLUMN blocked_message TEXT NULL;
ALTER TABLE lanes ADD COLUMN blocked_at TEXT NULL;
ALTER TABLE lanes ADD COLUMN probes INTEGER NOT NULL DEFAULT 0;  -- calls that found it still blocked
ALTER TABLE lanes ADD COLUMN probe_at TEXT NULL;  -- when one call may try again
ALTER TABLE lanes ADD COLUMN paused_at TEXT NULL;  -- by a person
