-- The durable memory of one output: state, not history (that is the log's).
-- A row's way: intent recorded (sending) -> task id recorded (running) -> outcome recorded (settled) -> assigned to a
-- part -> part renamed into place -> filed: its record here goes, its key stays among the finished.

CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value BLOB
) WITHOUT ROWID;

CREATE TABLE run (
    run_id      TEXT PRIMARY KEY,
    run_date    TEXT NOT NULL,
    started_at  REAL NOT NULL,
    beat_at     REAL NOT NULL,
    ended_at    REAL,
    exit_status INTEGER,
    is_finished INTEGER NOT NULL DEFAULT 0,  -- every row of the input had its outcome: the next run is a new one
    progress    BLOB                         -- JSON: counts, tokens, credits
);

CREATE TABLE row (
    slot     INTEGER PRIMARY KEY,
    key      BLOB NOT NULL,
    state    INTEGER NOT NULL,               -- 0 waiting, 1 sending, 2 running, 3 settled
    record   BLOB,                           -- msgpack: what a later run needs to go on with it
    kept     BLOB,                           -- msgpack: the input columns that travel to the output
    outcome  BLOB,                           -- msgpack, once settled
    part     INTEGER,                        -- of versions before 3: now in `assigned`
    old_part INTEGER                         -- the part that holds the outcome this one will replace
);
CREATE INDEX row_part ON row (part) WHERE part IS NOT NULL;

CREATE TABLE part (
    number   INTEGER PRIMARY KEY,
    is_filed INTEGER NOT NULL,
    rows     INTEGER NOT NULL,
    counts   TEXT NOT NULL                   -- JSON: rows by status
);

-- Finished keys of an input with ids. status: the position in outcome.STATUSES.
CREATE TABLE finished (
    key       BLOB PRIMARY KEY,
    status    INTEGER NOT NULL,
    row_index INTEGER NOT NULL,
    hash      BLOB
) WITHOUT ROWID;

-- Finished positions of an input without ids: one bit a row, blocks of 10,000.
CREATE TABLE finished_block (
    block      INTEGER PRIMARY KEY,
    done       BLOB NOT NULL,
    incomplete BLOB NOT NULL                 -- of those done, the ones whose status is not completed
);

-- Digest of the raw rows of each block, as far as it was read: an input without ids must not change below that.
CREATE TABLE block (
    block  INTEGER PRIMARY KEY,
    rows   INTEGER NOT NULL,
    digest BLOB NOT NULL
);

-- Finished rows that `--retry` gives fresh attempts, and (part -1) rows that were maybe paid for and whose part was
-- lost; gone once their new outcome is filed.
CREATE TABLE retry (
    key        BLOB PRIMARY KEY,
    part       INTEGER NOT NULL,
    submits    INTEGER NOT NULL,
    unresolved INTEGER NOT NULL,
    doubled    INTEGER NOT NULL
) WITHOUT ROWID;

-- Uploaded media by content: `suffix` is the ending of the name they were uploaded under.
CREATE TABLE upload (
    digest      BLOB NOT NULL,
    suffix      TEXT NOT NULL,
    url         TEXT NOT NULL,
    uploaded_at REAL NOT NULL,
    PRIMARY KEY (digest, suffix)
) WITHOUT ROWID;

-- Settled rows on their way into a part that is not filed yet. A table of its own: a row that got its number would be
-- written anew with all that it holds.
CREATE TABLE assigned (
    slot INTEGER PRIMARY KEY,
    part INTEGER NOT NULL
);
