"""Which rows of a lost part are marked as maybe paid for."""

from __future__ import annotations

from batchfox.checkpoint import NO_PART
from batchfox.core import blocks
from batchfox.core.outcome import STATUSES
from batchfox.core.row import key_of_position
from batchfox.doctor.paid_before import holds_unclear, paid_before, paid_before_by_position


def bitmap(*places: int) -> bytes:
    found = bytearray(blocks.BITMAP_BYTES)
    for at in places:
        blocks.mark(found, at)
    return bytes(found)


def test_of_rows_with_ids_those_that_are_gone_and_cost_something() -> None:
    known = [(bytes([at]), at % len(STATUSES)) for at in range(10)]
    found = [bytes([at]) for at in (0, 3, 6, 200)]
    marks = list(paid_before(known, found))
    assert [(key[0], STATUSES[key[0] % 5]) for key, *_ in marks] == [
        (4, "timed_out"),
        (5, "completed"),
        (8, "in_doubt"),
        (9, "timed_out"),
    ]
    assert {mark[1:] for mark in marks} == {(NO_PART, 1, 1, 0)}
    assert list(paid_before(known, [key for key, _ in known])) == []
    assert list(paid_before([], found)) == []


def test_of_rows_without_ids_those_that_completed_and_others_only_where_some_may_have_cost_something() -> None:
    known = [(0, bitmap(0, 1, 2, 9_999), bitmap(2)), (3, bitmap(5, 6), bitmap(6))]
    found = [(0, bitmap(0), bitmap())]

    def marked(is_any_unclear: bool) -> list[bytes]:
        return [key for key, *_ in paid_before_by_position(known, found, is_any_unclear=is_any_unclear)]

    assert marked(False) == [key_of_position(at) for at in (1, 9_999, 30_005)]
    assert marked(True) == [key_of_position(at) for at in (1, 2, 9_999, 30_005, 30_006)]
    assert list(paid_before_by_position(known, known, is_any_unclear=True)) == []


def test_a_parts_counts_tell_whether_some_may_have_cost_something() -> None:
    assert not holds_unclear('{"completed": 3, "failed": 2, "invalid": 1, "in_doubt": 0}')
    assert holds_unclear('{"completed": 3, "in_doubt": 1}')
    assert holds_unclear('{"timed_out": 1}')
    assert holds_unclear("no JSON"), "what cannot be read tells nothing"
