"""What the input asks for: every row read again and its request rendered again, whatever is on record of it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from batchfox.audit.recorded import Recorded
from batchfox.audit.rolls import Rolls
from batchfox.audit.written import Tell
from batchfox.columns import mend
from batchfox.core.blocks import ROWS_PER_BLOCK, BlockDigest
from batchfox.core.carry import Carry
from batchfox.core.job import Job
from batchfox.core.lifecycle import Life
from batchfox.core.prepare import Preparer
from batchfox.core.render import Renderer
from batchfox.core.row import Row
from batchfox.core.rulebook import RuleBook
from batchfox.core.secret import Secret
from batchfox.paths import STDIN
from batchfox.source import Source, open_source


class Asked(msgspec.Struct, kw_only=True):
    """What was read of the input. `changed`: blocks (first and last row) that are not what they were."""

    rows: int = 0
    changed: list[tuple[int, int]] = msgspec.field(default_factory=list)


def open_input(paths: Sequence[str], id_column: str | None, secret: Secret) -> Source:
    """The input, its rows named as the output names them: without `secret`, should an id hold it. Raises
    `InputError`."""
    return open_source(paths, id_column=id_column, with_digest=id_column is None, secret=secret)


def is_readable_again(paths: Sequence[str]) -> bool:
    """Standard input cannot be read a second time."""
    return STDIN not in paths


def make_preparer(job: Job) -> Preparer:
    """Renders rows as the run did. Raises `JobError`."""
    carries_nothing = Carry([], ())
    return Preparer(carries_nothing, Renderer(job.request, fields=job.input.fields), RuleBook.build(job.rules))


def read_input(source: Source, preparer: Preparer | None, rolls: Rolls, recorded: Recorded, tell: Tell) -> Asked:
    """Puts every row on the rolls, with the hash of its request where `preparer` is there to render it. Raises
    `InputError`."""
    asked = Asked()
    comparison = None if recorded.has_ids else _Comparison(recorded.blocks)
    for batch in source.batches():
        rolls.put("read", ((row.key, row.index, mend(row.id), _hash_of(row, preparer)) for row in batch), 4)
        asked.rows += len(batch)
        if comparison is not None:
            for row in batch:
                comparison.see(row)
        tell("reading the input", asked.rows)
    if comparison is not None:
        asked.changed = comparison.end()
    return asked


def _hash_of(row: Row, preparer: Preparer | None) -> bytes | None:
    prepared = None if preparer is None else preparer.prepare(row)
    return bytes.fromhex(prepared.request_hash) if isinstance(prepared, Life) and prepared.request_hash else None


class _Comparison:
    """All blocks of an input without ids beside what they were; `core.blocks.Comparison` stops at the first."""

    def __init__(self, known: dict[int, tuple[int, bytes]]) -> None:
        self._known = known
        self._met: set[int] = set()
        self._changed: list[tuple[int, int]] = []
        self._digest = BlockDigest()

    def see(self, row: Row) -> None:
        self._digest.add(row.index, row.digest)
        rows, digest = self._known.get(self._digest.block, (0, b""))
        if self._digest.rows == rows:
            self._met.add(self._digest.block)
            if self._digest.digest() != digest:
                self._note(self._digest.block, rows)

    def end(self) -> list[tuple[int, int]]:
        """The blocks that changed; those that are cut short among them."""
        for block, (rows, _) in self._known.items():
            if block not in self._met and rows:
                self._note(block, rows)
        return sorted(self._changed)

    def _note(self, block: int, rows: int) -> None:
        first = block * ROWS_PER_BLOCK
        self._changed.append((first, first + rows - 1))
