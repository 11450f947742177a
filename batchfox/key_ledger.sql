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
