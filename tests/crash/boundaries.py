"""Where a run can be cut in two, by name: the function of the product at whose beginning or end that is.

A boundary that names what does not exist any more, or a parameter that is gone, is an error, never a boundary that is
passed over: see `Boundary.original` and `install`.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import json
import os
import signal
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, NoReturn

from batchfox.core.event import Accepted, Answered
from batchfox.simulator import digest_of

WAITING, SENDING, RUNNING, SETTLED = range(4)  # as checkpoint.sql numbers a row's states

Call = dict[str, Any]


def _always(_: Any) -> bool:
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Boundary:
    """`owner`: "module" or "module:Class". `when` sees the call's arguments by name, before it; `then` its result."""

    owner: str
    attribute: str
    side: Literal["before", "after"]
    when: Callable[[Call], bool] = _always
    then: Callable[[Any], bool] = _always
    # POSTs on the wire at this boundary with one row in flight; None where that is not settled.
    on_the_wire: int | None = None

    def place(self) -> Any:
        """The module or class. Raises where it is not there."""
        module, _, name = self.owner.partition(":")
        found = import_module(module)
        return getattr(found, name) if name else found

    def original(self) -> Any:
        """The function. Raises where it is not there."""
        return getattr(self.place(), self.attribute)


class Connection(sqlite3.Connection):
    """SQLite's connection, with a name for the boundary inside a transaction."""

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        return self.commit_now(sql) if sql == "COMMIT" else super().execute(sql, *values)

    def commit_now(self, sql: str) -> sqlite3.Cursor:
        return super().execute(sql)


# What a call does.


def _records(state: int) -> Callable[[Call], bool]:
    """Does the group hold a row in this state?"""

    def look(call: Call) -> bool:
        group = call["group"]
        new, known = {row[2] for row in group.rows}, {record[0] for record in group.records.values()}
        settled = {SETTLED} if group.outcomes else set()
        return state in new | known | settled

    return look


def _puts(name: str) -> Callable[[Call], bool]:
    def look(call: Call) -> bool:
        return name in call.get("values", ())

    return look


def _into(folder: str, *, is_over: bool | None = None) -> Callable[[Call], bool]:
    """Is a file put into this folder, over another or as a new one?"""

    def look(call: Call) -> bool:
        final: Path = call["final"]
        return final.parent.name == folder and is_over in (None, final.exists())

    return look


def _is(name: str) -> Callable[[Call], bool]:
    """Is it the folder of this name that is made, or synced?"""

    def look(call: Call) -> bool:
        found: Path = next(iter(call.values()))
        return found.name == name

    return look


def _in_tmp(call: Call) -> bool:
    found: Path = call["self"]
    return found.parent.name == "tmp"


def _half_written(call: Call) -> bool:
    """A table of a part is in the file, the footer is not."""
    return bool(call["table"].num_rows)


def _pair(name: str, owner: str, attribute: str, **more: Any) -> dict[str, Boundary]:
    sides: tuple[Literal["before"], Literal["after"]] = ("before", "after")
    return {f"{side} {name}": Boundary(owner=owner, attribute=attribute, side=side, **more) for side in sides}


_CHECKPOINT = "batchfox.checkpoint:Checkpoint"
_FILING = "batchfox.filing:Filing"
_API = "batchfox.api:Api"
_PARTS = "batchfox.parts"

TABLE: dict[str, Boundary] = {
    # An output is made.
    **_pair("the output is opened", "batchfox.execution", "open_output"),
    **{
        f"after {name}/ is made": Boundary(owner="pathlib:Path", attribute="mkdir", side="after", when=_is(name))
        for name in ("out", "data", "_batchfox", "tmp", "superseded")
    },
    **_pair("the lock is held", "fcntl", "flock"),
    **_pair("the checkpoint is opened", _CHECKPOINT, "__init__"),
    "while the checkpoint is an empty file": Boundary(owner=_CHECKPOINT, attribute="_prepare", side="before"),
    "while the checkpoint has no tables": Boundary(owner="batchfox.checkpoint", attribute="_schema", side="before"),
    **_pair("the job is on record", "batchfox.execution", "fix_job"),
    "before job.toml is written": Boundary(owner="batchfox.opening", attribute="job_toml", side="before"),
    **_pair("recovery", _FILING, "recover"),
    **_pair("the run is begun", "batchfox.history", "begin_run"),
    # A row's way to its outcome.
    **_pair("a known row is taken up", "batchfox.pool:Pool", "adopt"),
    **_pair("an intent is recorded", _CHECKPOINT, "commit", when=_records(SENDING), on_the_wire=0),
    "before a POST": Boundary(owner=_API, attribute="submit", side="before", on_the_wire=0),
    "after a POST": Boundary(
        owner=_API, attribute="submit", side="after", then=lambda event: isinstance(event, Accepted), on_the_wire=1
    ),
    "before a task id is recorded": Boundary(
        owner=_CHECKPOINT, attribute="commit", side="before", when=_records(RUNNING), on_the_wire=1
    ),
    "after a task id is recorded": Boundary(
        owner=_CHECKPOINT, attribute="commit", side="after", when=_records(RUNNING), on_the_wire=0
    ),
    **_pair("a poll", _API, "poll", on_the_wire=0),
    "after the answer": Boundary(
        owner=_API, attribute="poll", side="after", then=lambda event: isinstance(event, Answered), on_the_wire=0
    ),
    **_pair("an outcome is recorded", _CHECKPOINT, "commit", when=_records(SETTLED), on_the_wire=0),
    "inside a transaction": Boundary(owner="boundaries:Connection", attribute="commit_now", side="before"),
    # A part.
    "after rows are written ahead": Boundary(owner=_FILING, attribute="write_ahead", side="after"),
    "before rows are assigned to a part": Boundary(owner=_FILING, attribute="file", side="before"),
    "after rows are assigned to a part": Boundary(owner=_FILING, attribute="_finish", side="before"),
    **_pair("the types are fixed", _CHECKPOINT, "put", when=_puts("types")),
    "while a part is written": Boundary(
        owner="pyarrow.parquet:ParquetWriter", attribute="write_table", side="after", when=_half_written
    ),
    **_pair("a part is renamed", _PARTS, "put_in_place", when=_into("data", is_over=False)),
    "before the folder is synced": Boundary(
        owner="batchfox.durable", attribute="sync_folder", side="before", when=_is("data")
    ),
    **_pair("a part is filed", _FILING, "_mark_filed"),
    **_pair("the rest is filed", "batchfox.pool:Pool", "file_rest"),
    **_pair("the run's end", "batchfox.history", "end_run"),
    # A retried row's swap.
    **_pair("rows are marked", "batchfox.marking", "mark"),
    "before a part's rows are marked": Boundary(owner="batchfox.retry", attribute="_entries", side="before"),
    **_pair("old outcomes are taken out", _FILING, "_take_out_old"),
    **_pair("old outcomes are kept", _PARTS, "put_in_place", when=_into("superseded")),
    **_pair("an old part is renamed over", _PARTS, "put_in_place", when=_into("data", is_over=True)),
    "after a leftover is removed": Boundary(owner="pathlib:Path", attribute="unlink", side="after", when=_in_tmp),
    # --fresh.
    **_pair("the old output is moved", "batchfox.opening", "move_aside"),
}


# In the child.


class Trace:
    """What the child did, line by line, in a file that outlives its SIGKILL."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def note(self, **fact: Any) -> None:
        os.write(self._file, json.dumps(fact).encode() + b"\n")


class Knife:
    """Counts how often a boundary is reached, and ends the process by SIGKILL the nth time."""

    def __init__(self, name: str, nth: int, trace: Trace) -> None:
        self._name = name
        self._nth = nth
        self._trace = trace
        self._numbers = itertools.count(1)
        self.seen = 0

    def reach(self) -> None:
        number = next(self._numbers)
        self.seen = max(self.seen, number)
        if number == self._nth:
            self._fall()

    def _fall(self) -> NoReturn:
        self._trace.note(killed=self._name)
        os.kill(os.getpid(), signal.SIGKILL)
        while True:
            time.sleep(1.0)


def install(name: str, nth: int, trace: Trace) -> Knife:
    """Puts a boundary into this process. Raises where what it names is not there."""
    boundary = TABLE[name]
    knife = Knife(name, nth, trace)
    if boundary.owner == "boundaries:Connection":
        setattr(sqlite3, "connect", functools.partial(sqlite3.connect, factory=Connection))  # noqa: B010
    setattr(boundary.place(), boundary.attribute, _wrapped(boundary, knife))
    return knife


def _wrapped(boundary: Boundary, knife: Knife) -> Callable[..., Any]:
    original = boundary.original()
    signature = inspect.signature(original) if boundary.when is not _always else None

    def is_it(*values: Any, **named: Any) -> bool:
        call = signature.bind(*values, **named).arguments if signature is not None else {}
        if not boundary.when(call):
            return False
        if boundary.side == "before":
            knife.reach()
        return True

    def look_at(result: Any) -> None:
        if boundary.side == "after" and boundary.then(result):
            knife.reach()

    @functools.wraps(original)
    def call(*values: Any, **named: Any) -> Any:
        is_met = is_it(*values, **named)
        result = original(*values, **named)
        if is_met:
            look_at(result)
        return result

    @functools.wraps(original)
    async def call_async(*values: Any, **named: Any) -> Any:
        is_met = is_it(*values, **named)
        result = await original(*values, **named)
        if is_met:
            look_at(result)
        return result

    return call_async if inspect.iscoroutinefunction(original) else call


def trace_posts(trace: Trace) -> None:
    """Notes the digest of every request before it leaves."""
    from batchfox.api import Api

    submit = Api.submit

    async def traced(self: Api, body: bytes, *, is_sync: bool) -> Any:
        trace.note(posted=digest_of(json.loads(body)))
        return await submit(self, body, is_sync=is_sync)

    Api.submit = traced  # type: ignore[method-assign]
