-- What the runs of one key share. Times of `run` and `bucket` are of the machine's monotonic clock.
CREATE TABLE IF NOT EXISTS run (
    name TEXT PRIMARY KEY,           -- of the file that the run holds locked while it lives
    per_minute REAL,                 -- its [limits] requests_per_minute
    free_until REAL NOT NULL         -- until then it goes by its own limiter
) STRICT;
CREATE TABLE IF NOT EXISTS bucket (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    room REAL NOT NULL,
    at REAL NOT NULL,
    per_minute REAL,
    shared_until REAL NOT NULL
) STRICT;
-- Tokens of a sliding minute, by output: a run takes over what an earlier execution has told there.
CREATE TABLE IF NOT EXISTS tokens (
    account TEXT PRIMARY KEY,        -- a hash of the output
    holder TEXT NOT NULL,            -- the lock of the run
    per_minute REAL NOT NULL,        -- its [limits] tokens_per_minute
    may REAL NOT NULL,               -- so many may count for it in any minute, until it tells again
    at REAL NOT NULL                 -- when it told
) STRICT;
-- Credits that are gone (spent, or in doubt), by the quarter of an hour (unix seconds) in which that was known.
CREATE TABLE IF NOT EXISTS gone (quarter INTEGER PRIMARY KEY, credits REAL NOT NULL) STRICT;
-- What each run has told of itself, over all its executions.
CREATE TABLE IF NOT EXISTS account (
    name TEXT PRIMARY KEY,           -- a hash of output and run
    holder TEXT NOT NULL,            -- the lock of its last execution
    told REAL NOT NULL,              -- of its credits that are gone, those that stand in `gone`
    held REAL NOT NULL,              -- set aside for its rows that are on their way, and for the next ones
    at REAL NOT NULL                 -- when it was last heard of, unix seconds
) STRICT;
