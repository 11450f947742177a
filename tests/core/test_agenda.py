"""The agenda against a naive model: a dictionary of due times, sorted whenever somebody asks."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from batchfox.core.agenda import Agenda

_keys = st.integers(0, 7).map(lambda number: bytes([number]))
_times = st.one_of(st.integers(0, 20).map(float), st.floats(0.0, 100.0))
_steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), _keys, _times),
        st.tuples(st.just("drop"), _keys, st.just(0.0)),
        st.tuples(st.just("take"), st.integers(0, 4), _times),
    ),
    max_size=120,
)


@settings(max_examples=300)
@given(_steps)
def test_it_does_what_a_sorted_dictionary_does(steps: list[tuple[str, bytes | int, float]]) -> None:
    agenda = Agenda()
    model: dict[bytes, tuple[float, int]] = {}
    for serial, (what, which, time) in enumerate(steps):
        if what == "put":
            assert isinstance(which, bytes)
            agenda.put(which, time)
            model[which] = (time, serial)  # of two that are due at the same time, the one put first goes first
        elif what == "drop":
            assert isinstance(which, bytes)
            agenda.drop(which)
            model.pop(which, None)
        else:
            assert isinstance(which, int)
            due = sorted((entry, key) for key, entry in model.items() if entry[0] <= time)[:which]
            assert agenda.take_due(time, which) == [key for _, key in due]
            for _, key in due:
                del model[key]
        assert len(agenda) == len(model)
        assert agenda.next_due() == min((entry[0] for entry in model.values()), default=None)
        assert all((bytes([key]) in agenda) == (bytes([key]) in model) for key in range(8))


def test_putting_a_key_again_replaces_its_time_both_ways() -> None:
    agenda = Agenda()
    agenda.put(b"a", 5.0)
    agenda.put(b"a", 9.0)
    assert agenda.take_due(8.0, 10) == []
    agenda.put(b"a", 1.0)
    assert agenda.take_due(8.0, 10) == [b"a"]
    assert agenda.take_due(100.0, 10) == []


def test_entries_that_were_replaced_do_not_pile_up() -> None:
    # A task that is polled for a day is put thousands of times.
    agenda = Agenda()
    for turn in range(100_000):
        agenda.put(bytes([turn % 3]), float(100_000 - turn))
    assert len(agenda) == 3
    assert len(agenda._heap) < 200
