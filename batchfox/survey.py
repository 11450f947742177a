"""Looks over a job's rows without sending any: what `batchfox validate` says, and `run --dry-run` prints."""

from __future__ import annotations

import itertools
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from batchfox.checkpoint import Checkpoint
from batchfox.core.carry import Carry
from batchfox.core.complaint import Complaint
from batchfox.core.first_look import FirstLook, refuse_constants
from batchfox.core.job import Job
from batchfox.core.outcome import COLUMNS, EXTRA
from batchfox.core.prepare import Invalid, Preparer
from batchfox.core.prices import USUAL_COMPLETION
from batchfox.core.render import Renderer
from batchfox.core.row import Row
from batchfox.core.rulebook import RuleBook
from batchfox.core.rules import check
from batchfox.core.shape import media_of
from batchfox.errors import JobError
from batchfox.kept import encode_columns
from batchfox.media import MediaDoor
from batchfox.source import open_with_ids

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST_LINES = 5
CHARACTERS_A_TOKEN = 4
TOKENS_A_MEDIUM = {"image": 1_000, "video": 20_000, "audio": 5_000, "file": 3_000}


class Finding(msgspec.Struct, kw_only=True):
    """One kind of complaint: how many rows have it, and where the first ones are."""

    rule: str
    severity: str
    rows: int
    places: list[str]
    example: str


class Survey(msgspec.Struct, kw_only=True):
    """What `validate` found. `tokens`: a rough count of prompt tokens, and of completion tokens at most."""

    rows: int = 0
    valid: int = 0
    invalid: int = 0
    done_before: int = 0
    duplicates: int = 0
    differing: list[str] = msgspec.field(default_factory=list)
    differing_rows: int = 0
    requests: int = 0
    by_model: dict[str, int] = msgspec.field(default_factory=dict)
    by_shape: dict[str, int] = msgspec.field(default_factory=dict)
    media: dict[str, int] = msgspec.field(default_factory=dict)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    fields: list[str] = msgspec.field(default_factory=list)
    id_column: str | None = None
    minutes: float | None = None
    findings: list[Finding] = msgspec.field(default_factory=list)
    notes: list[str] = msgspec.field(default_factory=list)


class Surveyor:
    """One pass over a job's rows."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self.renderer = Renderer(job.request, fields=job.input.fields)
        self.book = RuleBook.build(job.rules)
        refuse_constants(self.renderer, self.book)
        self.preparer = Preparer(Carry(job.input.keep, {*COLUMNS, EXTRA}), self.renderer, self.book)
        self.source = open_with_ids(job, with_digest=False)
        self.door = MediaDoor(job.media)

    def rows(self) -> Iterator[Row]:
        """The input's rows. Raises `JobError` where a template's variable is in none of the first 100."""
        look = FirstLook(self.renderer, self._job.input, id_column=self.source.id_column, off=self.book.off)
        rows = itertools.chain.from_iterable(self.source.batches())
        first: list[Row] = []
        for row in rows:
            first.append(row)
            look.see(row)
            if look.is_settled:
                break
        if (verdict := look.verdict()) is not None:
            raise JobError(verdict)
        yield from itertools.chain(first, rows)

    def first_requests(self, most: int = 3) -> Iterator[str]:
        """The first rows' requests as JSON, or why there is none; media that are local files as their paths."""
        for row in itertools.islice(self.rows(), most):
            prepared = self.preparer.prepare(row)
            if isinstance(prepared, Invalid):
                said: dict[str, Any] = {"row_id": row.id, "status": "invalid", "reason": prepared.error.message}
            else:
                said = {"row_id": row.id, "request": prepared.request}
            yield msgspec.json.format(msgspec.json.encode(said), indent=2).decode()

    def survey(self, root: Path | None) -> Survey:
        """Every row against the rules. `root`: the output, whose finished rows are counted as done."""
        found = Survey(id_column=self.source.id_column)
        findings: dict[tuple[str, str], Finding] = {}
        taken: Counter[str] = Counter()
        with _Ids() as ids, _Finished(root, self.source.id_column is not None) as finished:
            for row in self.rows():
                found.rows += 1
                if self.source.id_column is not None and (earlier := ids.see(row)) is not None:
                    found.duplicates += 1
                    if earlier:
                        found.differing_rows += 1
                        if len(found.differing) < MOST_LINES:
                            found.differing.append(row.id)
                    continue
                if finished.has(row):
                    found.done_before += 1
                    continue
                if row.problem is None and len(taken) < 50:
                    taken.update(self.renderer.taken_fields(row))
                self._look(row, found, findings)
        found.requests = found.valid
        found.fields = list(taken)
        found.findings = sorted(findings.values(), key=lambda finding: (finding.severity, -finding.rows))
        pace = self._job.limits.requests_per_minute
        found.minutes = found.requests / pace if pace else None
        found.notes = list(self._notes(found))
        return found

    def _look(self, row: Row, found: Survey, findings: dict[tuple[str, str], Finding]) -> None:
        prepared = self.preparer.prepare(row)
        if isinstance(prepared, Invalid):
            found.invalid += 1
            _note(findings, prepared.error.code or "invalid", "refusal", row, prepared.error.message or "")
            return
        request = prepared.request or {}
        for complaint in check(request, self.book, final=False):
            _note(findings, complaint.rule, complaint.severity, row, complaint.message)
        media = media_of(request)
        if any(not _is_remote(medium.value) for medium in media):
            sent = self.door.send(request)
            if isinstance(sent, Complaint):
                found.invalid += 1
                _note(findings, sent.rule, "refusal", row, sent.message)
                return
        found.valid += 1
        model, shape = prepared.group.rsplit("|", 1)
        found.by_model[model] = found.by_model.get(model, 0) + 1
        found.by_shape[shape] = found.by_shape.get(shape, 0) + 1
        for medium in media:
            found.media[medium.kind] = found.media.get(medium.kind, 0) + 1
            found.prompt_tokens += TOKENS_A_MEDIUM.get(medium.kind, 0)
        found.prompt_tokens += _characters(request) // CHARACTERS_A_TOKEN
        most = request.get("max_tokens")
        found.completion_tokens += most if isinstance(most, int) else USUAL_COMPLETION

    def _notes(self, found: Survey) -> Iterator[str]:
        from batchfox.output import is_dated

        if is_dated(self._job.output.path):
            yield (
                "the output path has a date: each day's folder is complete by itself, so every row is sent each time; "
                "sending only what is new needs one growing output and [input] id"
            )
        if found.id_column is None and found.rows:
            yield (
                "rows have no id: they are known by their position, so the input must not change below what is done; "
                '[input] id = "COLUMN" lifts that'
            )
        if self._job.request.get("stream"):
            yield "stream = true: answers are polled; the reasoning that only a stream carries is not collected yet"


def _is_remote(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(("http://", "https://", "data:"))


def _characters(value: Any) -> int:
    """Characters of text in a request, media aside."""
    if isinstance(value, str):
        return 0 if value.startswith(("data:", "http://", "https://")) else len(value)
    if isinstance(value, dict):
        return sum(_characters(item) for item in value.values())
    if isinstance(value, list):
        return sum(_characters(item) for item in value)
    return 0


def _note(findings: dict[tuple[str, str], Finding], rule: str, severity: str, row: Row, message: str) -> None:
    finding = findings.get((rule, severity))
    if finding is None:
        finding = findings[(rule, severity)] = Finding(rule=rule, severity=severity, rows=0, places=[], example=message)
    finding.rows += 1
    if len(finding.places) < MOST_LINES:
        finding.places.append(f"{row.file}:{row.line}" if row.file else f"line {row.line}")


class _Ids:
    """Ids seen so far, on disk, so that memory stays flat: is a row a duplicate, and is its content another?"""

    def __enter__(self) -> _Ids:
        self._folder = tempfile.TemporaryDirectory(prefix="batchfox-")
        self._db = sqlite3.connect(str(Path(self._folder.name) / "ids.db"), isolation_level=None)
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute("CREATE TABLE seen (key BLOB PRIMARY KEY, content BLOB) WITHOUT ROWID")
        self._db.execute("BEGIN")
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()
        self._folder.cleanup()

    def see(self, row: Row) -> bool | None:
        """None for a new id; else whether the content differs from the first row's."""
        content = blake2b(encode_columns(row.columns), digest_size=8).digest()
        found = self._db.execute("SELECT content FROM seen WHERE key = ?", (row.key,)).fetchone()
        if found is None:
            self._db.execute("INSERT INTO seen VALUES (?, ?)", (row.key, content))
            return None
        return bool(found[0] != content)


class _Finished:
    """What an existing output has done already; nothing where there is none."""

    def __init__(self, root: Path | None, has_ids: bool) -> None:
        self._root = root
        self._has_ids = has_ids
        self._checkpoint: Checkpoint | None = None

    def __enter__(self) -> _Finished:
        if self._root is not None and (path := self._root / "_batchfox" / "checkpoint.db").exists():
            self._checkpoint = Checkpoint(path, read_only=True)
            self._unfiled = self._checkpoint.unfiled()
        return self

    def __exit__(self, *_: object) -> None:
        if self._checkpoint is not None:
            self._checkpoint.close()

    def has(self, row: Row) -> bool:
        if self._checkpoint is None:
            return False
        if row.key in self._unfiled:
            return True
        if self._has_ids:
            return bool(self._checkpoint.finished_ids([row.key]))
        return bool(self._checkpoint.finished_positions([row.index]))


def describe(found: Survey) -> Iterable[str]:
    """The survey in plain lines."""
    yield f"{found.rows:,} rows: {found.valid:,} valid, {found.invalid:,} invalid" + (
        f", {found.done_before:,} done already" if found.done_before else ""
    )
    if found.duplicates:
        names = f" ({', '.join(found.differing)}{', ...' if found.differing_rows > len(found.differing) else ''})"
        yield (
            f"{found.duplicates:,} duplicates of an id are not sent; {found.differing_rows:,} of them differ in content"
            f"{names if found.differing else ''}"
        )
    fields = ", ".join(found.fields) or "none"
    yield f"id column: {found.id_column or 'none'}; columns taken as request fields: {fields}"
    for finding in found.findings:
        places = ", ".join(finding.places) + (", ..." if finding.rows > len(finding.places) else "")
        yield f"{finding.severity} {finding.rule}: {finding.rows:,} rows ({places})"
        yield f"    {finding.example}"
    if found.requests:
        models = ", ".join(f"{model} {rows:,}" for model, rows in sorted(found.by_model.items()))
        shapes = ", ".join(f"{shape} {rows:,}" for shape, rows in sorted(found.by_shape.items()))
        yield f"requests: {found.requests:,} (models: {models}; shapes: {shapes})"
        if found.media:
            yield "media: " + ", ".join(f"{count:,} {kind}" for kind, count in sorted(found.media.items()))
        yield (
            f"tokens, roughly: {found.prompt_tokens:,} in, at most {found.completion_tokens:,} out "
            "(media by rule of thumb)"
        )
    if found.minutes is not None:
        yield f"time at the job's rate: {found.minutes:,.1f} minutes or more"
    for note in found.notes:
        yield f"note: {note}"
