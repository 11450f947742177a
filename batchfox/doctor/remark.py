"""One thing that the doctor has to say: what, where, and what to do next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from batchfox.words import count


class Remark(msgspec.Struct, frozen=True, kw_only=True):
    """`is_problem`: something is wrong (else it is good to know). `is_mendable`: `--repair` mends it. `is_in_the_way`:
    as long as it is so, nothing is repaired."""

    what: str
    where: str = ""
    next: str = ""
    is_problem: bool = True
    is_mendable: bool = False
    is_in_the_way: bool = False


def note(what: str, where: str = "", next: str = "") -> Remark:  # noqa: A002 - the word of the record
    """Good to know, and nothing wrong."""
    return Remark(what=what, where=where, next=next, is_problem=False)


def describe(about: str, remarks: Sequence[Remark]) -> Iterator[str]:
    """Plain lines: how many problems, then each of them, then what is good to know."""
    problems = [remark for remark in remarks if remark.is_problem]
    yield f"{about}: {count(len(problems), 'problem') if problems else 'nothing wrong'}"
    for remark in (*problems, *(remark for remark in remarks if not remark.is_problem)):
        kind = "problem" if remark.is_problem else "note"
        where = f"{remark.where}: " if remark.where else ""
        yield f"  {kind}: {where}{remark.what}"
        if remark.next:
            yield f"    next: {remark.next}"
