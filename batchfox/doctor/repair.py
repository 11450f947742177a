"""`batchfox doctor DIR --repair`: a checkpoint that agrees with the parts, and nothing thrown away.

However the checkpoint and the parts came apart, the way back is one: what is done is what the parts hold, and all else
is kept as far as it can be read. A crash on the way leaves the old state or the new one (`swap`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from batchfox import parts
from batchfox.doctor.census import Census
from batchfox.doctor.inspection import Inspector
from batchfox.doctor.rebuild import Account, id_column_of, rebuild
from batchfox.doctor.remark import Remark
from batchfox.doctor.salvage import Remains
from batchfox.durable import make_folder, rename
from batchfox.folders import Folders
from batchfox.output import hold
from batchfox.swap import building_path, swap_in
from batchfox.words import count


def repair(root: Path) -> tuple[list[str], list[Remark]]:
    """Mends what can be mended. Returns what was done, and what is to be said of the output afterwards.

    Raises `OutputBusyError` while a run holds the output, `OutputError` where it cannot be written.
    """
    inspector = Inspector(root)
    elsewhere = None if inspector.path.parent == inspector.folders.own else str(inspector.path)
    with hold(root, checkpoint=elsewhere):
        remarks = list(inspector.look())
        if any(remark.is_in_the_way for remark in remarks) or not any(remark.is_mendable for remark in remarks):
            return [], remarks
        done = list(_mend(inspector))
    return done, list(Inspector(root).look())


def _mend(inspector: Inspector) -> Iterator[str]:
    folders, path, job = inspector.folders, inspector.path, inspector.job
    with contextlib.ExitStack() as stack:
        remains = stack.enter_context(contextlib.closing(Remains(path, folders.tmp)))
        id_column = id_column_of(remains, job, folders.data)
        census = stack.enter_context(
            contextlib.closing(Census(folders.data, has_ids=bool(id_column), types=remains.types()))
        )
        recorded = remains.parts()
        yield from _move_unreadable(folders, census)
        building = building_path(path)
        for suffix in ("", "-wal", "-shm"):
            building.with_name(building.name + suffix).unlink(missing_ok=True)
        account = rebuild(building, census, remains, job=job, id_column=id_column)
        aside = swap_in(path)
        yield f"{path}: made anew" + (f"; the old one is kept as {aside.name}" if aside is not None else "")
        is_older = any(part.rows for number, part in census.parts.items() if number not in recorded)
        yield from _tell(account, is_whole=remains.is_whole and not is_older, has_ids=bool(id_column))
        for number, (is_filed, rows) in sorted(recorded.items()):
            if is_filed and number not in census.parts:
                yield f"{parts.part_name(number)}: the {count(rows, 'row')} in it will be sent, and paid for, again"
        if account.maybe_paid:
            yield f"{count(account.maybe_paid, 'row')} of those sent again will say so (maybe_billed_twice)"


def _move_unreadable(folders: Folders, census: Census) -> Iterator[str]:
    """Parts that cannot be read leave `data/`, and are kept."""
    damaged = folders.own / "damaged"
    for number in sorted(census.unreadable):
        make_folder(damaged)
        name = parts.part_name(number)
        target, copies = damaged / name, 1
        while target.exists():
            copies += 1
            target = damaged / f"{copies}-{name}"
        rename(folders.data / name, target)
        yield f"{name}: moved to {target}"


def _tell(account: Account, *, is_whole: bool, has_ids: bool) -> Iterator[str]:
    """What the new checkpoint knows, and what nobody knows any more."""
    yield f"recovered: {count(account.done, 'row')} in {count(account.parts, 'part')} are done and are not sent again"
    saved = account.saved
    words = [
        f"{count(saved[name], noun)} {what}"
        for name, noun, what in (
            ("in_flight", "task", "in flight, to be asked about and not paid for again"),
            ("recorded", "outcome", "that no part holds yet"),
            ("in_doubt", "submit", "in doubt"),
            ("waiting", "row", "waiting for another attempt"),
        )
        if saved[name]
    ]
    if words:
        yield f"recovered: {'; '.join(words)}"
    if not is_whole:
        yield (
            "not recovered: rows that were in flight, or answered and in no part yet, and that the old checkpoint does "
            "not tell of any more; the next run sends them, and pays for them, again"
        )
    if not account.is_run_known:
        yield "not recovered: what the run spent on rows that are in no part; limits.credits counts without it"
    if not has_ids and not account.is_input_compared:
        yield (
            "not recovered: the digests of the input; a change of the input in rows that are done cannot be detected "
            "any more"
        )
