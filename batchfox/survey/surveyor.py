"""Looks over all rows of a job without sending any: what `batchfox validate` says."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from batchfox.bodies import is_remote
from batchfox.core.carry import Carry
from batchfox.core.complaint import Complaint
from batchfox.core.doubts import doubts
from batchfox.core.drift import Sums
from batchfox.core.first_look import FirstLook, refuse_constants
from batchfox.core.job import Job
from batchfox.core.lifecycle import Life
from batchfox.core.outcome import COLUMNS, EXTRA
from batchfox.core.prepare import Invalid, Preparer
from batchfox.core.render import Renderer
from batchfox.core.row import Row
from batchfox.core.rulebook import RuleBook
from batchfox.core.rules import check
from batchfox.core.shape import media_of
from batchfox.errors import InputError, JobError, OutputError
from batchfox.fit.workers import demand_packages
from batchfox.guarding import unmeasured_limits
from batchfox.jobfile import secret_of
from batchfox.loading import Loader
from batchfox.media import MediaDoor
from batchfox.output import is_dated
from batchfox.runs import figures_before
from batchfox.source import open_with_ids
from batchfox.stale import is_stale
from batchfox.survey.findings import Findings, Survey
from batchfox.survey.forecast import Forecast, PriceList
from batchfox.survey.past import Past, open_past
from batchfox.survey.preflight import Media
from batchfox.survey.seen import Digests, Ids
from batchfox.twins import digest_of_content, has_own_media, hash_of
from batchfox.words import count

MOST_NAMES = 5
MOST_FIELDS = 50


class Surveyor:
    """One pass over a job's rows. Raises `UserError` for a job that a run would refuse whatever its rows."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.renderer = Renderer(job.request, fields=job.input.fields)
        self._book = RuleBook.build(job.rules)
        refuse_constants(self.renderer, self._book)
        secret = secret_of(job)
        carry = Carry(job.input.keep, {*COLUMNS, EXTRA}, hide=secret.hide)
        self._preparer = Preparer(carry, self.renderer, self._book, secret=secret)
        self.source = open_with_ids(job, with_digest=True, secret=secret)
        demand_packages(job.media)
        self._loader = Loader(MediaDoor(job.media), job.media, self._book)
        self._look = FirstLook(self.renderer, job.input, id_column=self.source.id_column, off=self._book.off)

    def batches(self) -> Iterator[list[Row]]:
        """The input's rows, a few at a time. Raises `JobError` where the first 100 show a mistake of the job."""
        batches = self.source.batches()
        first: list[Row] = []
        for batch in batches:
            first += batch
            for row in batch:
                self._look.see(row)
            if self._look.is_settled:
                break
        if (verdict := self._look.verdict()) is not None:
            raise JobError(self.source.secret.hide(verdict))
        if first:
            yield first
        del first
        yield from batches

    def prepare(self, row: Row, *, with_files: bool = True) -> Life | Invalid | list[Complaint]:
        """The row as a run would send it, its local media looked at; or why it would not be sent."""
        prepared = self._preparer.prepare(row)
        if isinstance(prepared, Invalid) or prepared.request is None or not with_files:
            return prepared
        if is_remote(media_of(prepared.request)):
            return prepared
        complaints = self._loader.examine(prepared.request)
        refusals = [complaint for complaint in complaints if complaint.severity == "refusal"]
        return refusals or prepared

    def survey(self, root: Path | None, listed: PriceList | None = None, media: Media | None = None) -> Survey:
        """Every row against the rules. `root`: the output, which may have done some of them. `media`: collects those of
        the requests that are to be sent."""
        found = Survey(id_column=self.source.id_column)
        pass_ = _Pass(self, found, listed or PriceList(), media)
        with contextlib.ExitStack() as stack:
            ids, pass_.digests = stack.enter_context(Ids()), stack.enter_context(Digests())
            past = pass_.past = self._open_past(stack, root, found)
            for batch in self.batches():
                for row, before, answered in zip(batch, past.look_up(batch), past.answered(batch), strict=True):
                    found.rows += 1
                    _compare(past, row, found)
                    if not (self.source.id_column is not None and _is_duplicate(ids, row, found)):
                        pass_.see(row, before, answered)
            if not found.refused:
                _compare(past, None, found)
        pass_.end()
        found.notes = list(self._notes(found, listed or PriceList(), root))
        return found

    def _open_past(self, stack: contextlib.ExitStack, root: Path | None, found: Survey) -> Past:
        has_ids = self.source.id_column is not None
        if root is not None:
            try:
                return stack.enter_context(open_past(self.job, root, self.source.id_column))
            except OutputError as error:
                found.refused.append(str(error))
            except JobError as error:
                found.refused.append(str(error))
                with contextlib.suppress(JobError):  # --retry stale may be the way on: what would it take?
                    return stack.enter_context(open_past(self.job, root, self.source.id_column, asks_stale=True))
        return Past(None, None, has_ids=has_ids)

    def digest_of(self, life: Life) -> bytes | None:
        """What `[input] dedupe` goes by; None where it is off, or local media cannot be read."""
        if not self.job.input.dedupe or life.request is None:
            return None
        return digest_of_content(self._loader.door, life.request) if has_own_media(life.request) else hash_of(life)

    def warnings_of(self, row: Row, request: dict[str, Any]) -> list[Complaint]:
        return [complaint for complaint in check(request, self._book, final=False) if complaint.is_warning]

    def _notes(self, found: Survey, listed: PriceList, root: Path | None) -> Iterator[str]:
        for name, rows in found.passed_over.items():
            yield f"the column {name} is passed over in {count(rows, 'row')}: {self.renderer.reason_to_pass_over(name)}"
        for _, values in self._look.warnings():
            if "named_in" in values:
                yield f'{values["named_in"]}: "{values["column"]}" is {values["found"]}'
        yield from doubts(self.job.request, found.by_model, listed.prices, self._book)
        limit, cast = self.job.limits.credits, found.forecast
        if limit is not None and cast.credits is not None and cast.credits > limit:
            yield "the estimate is above limits.credits: the run may stop before all rows are sent"
        guard = self.job.guard
        past = Sums()
        with contextlib.suppress(OSError):  # no output, which is told elsewhere
            past = past if root is None else figures_before(root, guard.runs, guard.since)
        yield from (f"{key}: {note}" for key, note in unmeasured_limits(self.job, past))
        if is_dated(self.job.output.path):
            yield (
                "the output path has a date: each day's folder is complete by itself, so every row is sent each time; "
                "sending only what is new needs one growing output and [input] id"
            )
        if found.id_column is None and found.rows:
            yield (
                "rows have no id: they are known by their position, so the input must not change below what is done; "
                '[input] id = "COLUMN" lifts that'
            )
        if found.streamed:
            yield f"{count(found.streamed, 'row')} streamed: each holds a connection of its own until it is answered"


class _Pass:
    """Sums up what becomes of each row."""

    def __init__(self, surveyor: Surveyor, found: Survey, listed: PriceList, media: Media | None) -> None:
        self._media = media
        self.digests: Digests | None = None
        self.past: Past | None = None
        self._surveyor = surveyor
        self._found = found
        self._listed = listed
        self._findings = Findings()
        self._fields: dict[str, None] = {}
        found.forecast, found.stale_forecast = Forecast.begin(listed), Forecast.begin(listed)

    def see(self, row: Row, before: str | None, answered: bytes | None) -> None:
        """A row that is no duplicate. `before`: how an earlier run ended it; it is checked all the same, but the files
        of a completed row may be gone. `answered`: what its request was then."""
        found, is_done = self._found, before == "completed"
        if before is not None:
            found.before[before] = found.before.get(before, 0) + 1
        if row.problem is None:
            self._see_columns(row)
        prepared = self._surveyor.prepare(row, with_files=not is_done)
        if isinstance(prepared, Life):
            request = prepared.request or {}
            self._findings.note_all(row, self._surveyor.warnings_of(row, request), is_done=is_done)
            found.mended += before == "invalid"
            if before is not None and is_stale(prepared, answered):
                found.stale += 1
                found.stale_forecast.add(request, media_of(request), self._listed)
            if before is None:
                self._add(prepared, request)
                if self._media is not None:
                    self._media.note(row, request)
            return
        if isinstance(prepared, Invalid):
            error = prepared.error
            self._findings.note(row, error.code or "invalid", error.message or "", is_done=is_done)
        else:
            self._findings.note_all(row, prepared, is_done=is_done)
        found.invalid += before is None

    def _see_columns(self, row: Row) -> None:
        if len(self._fields) < MOST_FIELDS:
            self._fields.update(dict.fromkeys(self._surveyor.renderer.taken_fields(row)))
        for name in self._surveyor.renderer.passed_over(row):
            self._found.passed_over[name] = self._found.passed_over.get(name, 0) + 1

    def _add(self, life: Life, request: dict[str, Any]) -> None:
        """A request that is to be made."""
        found, media = self._found, media_of(request)
        found.valid += 1
        digest = self._surveyor.digest_of(life)
        if digest is not None and self._is_answered(digest):
            found.same_request += 1
            return
        found.streamed += life.is_streamed
        model, shape = life.group.rsplit("|", 1)
        found.by_model[model] = found.by_model.get(model, 0) + 1
        found.by_shape[shape] = found.by_shape.get(shape, 0) + 1
        for medium in media:
            found.media[medium.kind] = found.media.get(medium.kind, 0) + 1
        found.forecast.add(request, media, self._listed)

    def _is_answered(self, digest: bytes) -> bool:
        """Is a row with this request sent before, so that its answer is this row's too?"""
        assert self.digests is not None
        assert self.past is not None
        return not self.digests.add(digest) or self.past.has_answer(digest)

    def end(self) -> None:
        self._found.requests = self._found.valid - self._found.same_request
        self._found.fields = list(self._fields)
        self._found.findings = self._findings.sorted()
        for finding in self._found.findings:
            finding.example = self._surveyor.source.secret.hide(finding.example)
        self._found.forecast.end(self._surveyor.job, self._found.requests)
        self._found.stale_forecast.end(self._surveyor.job, self._found.stale)


def _compare(past: Past, row: Row | None, found: Survey) -> None:
    """A row, or the input's end, beside what was there before."""
    try:
        if row is None:
            past.end()
        else:
            past.compare(row)
    except InputError as error:
        found.refused.append(str(error))


def _is_duplicate(ids: Ids, row: Row, found: Survey) -> bool:
    differs = ids.see(row)
    if differs is None:
        return False
    found.duplicates += 1
    if differs:
        found.differing_rows += 1
        if len(found.differing) < MOST_NAMES:
            found.differing.append(row.id)
    return True
