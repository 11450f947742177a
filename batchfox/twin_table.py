"""The checkpoint's table of requests that were answered, by what rows with the same request share.

Made where a job asks for it (`[input] dedupe`); an older batchfox passes it over. An entry may outlive its row, when
that is retried: who follows one looks whether the row is the one that was meant.
"""

from __future__ import annotations

import sqlite3

# Digest of a request; of the row that was sent the part, the position, and `SHORT` bytes of its request's hash.
SHORT = 4
CREATE = """CREATE TABLE IF NOT EXISTS twin (
    digest BLOB PRIMARY KEY, part INTEGER NOT NULL, row_index INTEGER NOT NULL, hash BLOB NOT NULL
) WITHOUT ROWID"""
_MOST_NAMED = 500
# Digest, position, the first bytes of the hash.
Shared = tuple[bytes, int, bytes]


def put_shared(db: sqlite3.Connection, part: int, rows: list[Shared]) -> None:
    """Rows of a part that were sent and completed."""
    db.execute(CREATE)
    entries = sorted((digest, part, row_index, short) for digest, row_index, short in rows)
    db.executemany("INSERT OR REPLACE INTO twin VALUES (?, ?, ?, ?)", entries)


def forget_shared(db: sqlite3.Connection, part: int, rows: list[tuple[int, bytes]]) -> None:
    """What these rows of a part were answered is given to no other row any more, nor to themselves: position, and the
    hash of the request. (With media of its own a request's digest is another than its hash: then a row that got the
    answer of another may get it again.)"""
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'twin'").fetchone():
        return
    db.executemany("DELETE FROM twin WHERE digest = ?", [(digest,) for _, digest in rows])
    for start in range(0, len(rows), _MOST_NAMED):
        some = [row_index for row_index, _ in rows[start : start + _MOST_NAMED]]
        db.execute(f"DELETE FROM twin WHERE part = ? AND row_index IN ({','.join('?' * len(some))})", (part, *some))
