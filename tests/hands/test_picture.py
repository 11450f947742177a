"""The picture of a run at the widths of terminals, with and without colours."""

from __future__ import annotations

import io
import re
from typing import Any

import msgspec
import pytest
from rich.console import Console

from batchfox.core.vitals import Shown, Vitals
from batchfox.picture import draw

FIGURES: dict[str, Any] = {
    "fed": {"rows": 600_000, "duplicates": 0, "completed_before": 1_000},
    "by_status": {"completed": 401_000, "failed": 1_200, "invalid": 34},
    "here": {"elapsed_s": 7_200.0},
    "in_flight": 2_000,
    "on_the_wire": 12,
    "in_doubt_resubmitted": 17,
    "in_doubt_held": 0,
    "per_minute": 3_412.0,
    "throttles": 23,
    "tokens_of_minute": 812_000.0,
    "credits_spent": 12_345.678,
    "credits_reserved": 20.0,
    "credits_standing": 1.5,
    "submits": 403_000,
    "polls": 1_900_000,
    "prompt_tokens": 412_000_000,
    "completion_tokens": 38_000_000,
    "stopped": None,
    "paused_s": None,
    "outage": None,
    "tail": None,
}
SHOWN = Shown(
    title="captions of a very long name that says all",
    total_rows=1_000_000,
    limit_per_minute=6_000,
    tokens_limit=1_000_000,
    in_flight_limit=2_000,
    credits_limit=50_000,
    cooling_s=12.0,
    recent_per_s=56.8,
    sent_per_s=57.0,
    binds="server",
    p50_s=3.21,
    p95_s=12.0,
    rates=[float(n % 7) for n in range(20)],
    medians=[3.0 + n % 3 for n in range(20)],
    tail_s=40.0,
)


def drawn(width: int, *, color: bool = False, shown: Shown = SHOWN, **changes: Any) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=True, no_color=not color, legacy_windows=False)
    console.print(draw(FIGURES | changes, shown, width=width, age_s=2.0))
    return out.getvalue()


@pytest.mark.parametrize(("width", "lines"), [(80, 9), (200, 5)])
def test_all_of_it_at_a_glance_and_no_line_is_broken(width: int, lines: int) -> None:
    text = drawn(width)
    plain = Console(file=io.StringIO(), width=width)
    with plain.capture() as capture:
        plain.print(draw(FIGURES, SHOWN, width=width, age_s=2.0))
    shown = capture.get().splitlines()
    assert len(shown) <= lines, shown
    assert max(map(len, shown)) <= width
    whole = "\n".join(shown)
    for word in (
        *(
            "40%",
            "403,234 of 1,000,000 rows",
            "401,000 done",
            "1,234 failed",
            "2,000 of 2,000 in flight",
            "17 in doubt",
        ),
        *("56.8 rows/s", "limit: server", "3,412/min of 6,000", "throttled 23x", "cooling down 10 s"),
        *("812,000 of 1,000,000 tokens/min", "p50 3.2 s, p95 12.0 s", "12,345.68 of 50,000.00 (+21.50 reserved)"),
        *("412,000,000 in", "2:00:00 gone", "about 2:54:"),
    ):
        assert word in whole, (word, whole)
    assert "\x1b[3" not in text, "NO_COLOR: bold and dim at most"
    assert "\x1b[3" in drawn(width, color=True)


def test_the_state_is_said_first_whatever_the_colours() -> None:
    outage = {"what": "submits", "since": 0.0, "tries": 3, "kind": "unreached", "message": "no route"}
    states: dict[str, dict[str, Any]] = {
        "cooling down 10 s": {},
        "paused 1:05": {"paused_s": 63.0},
        "the API is away": {"outage": outage},
        "stopping": {"stopped": "ctl", "leaves_in_s": 3.0},
        "rows fail": {"by_status": {"completed": 90, "failed": 10}},
    }
    for word, changes in states.items():
        first = drawn(80, **changes).splitlines()[0]
        assert f"● {word}" in first, (word, first)
    dead = Console(file=io.StringIO(), width=80)
    with dead.capture() as capture:
        dead.print(draw(FIGURES, SHOWN, width=80, is_dead=True))
    assert "● died" in capture.get()


def test_no_text_is_lost_on_a_light_ground() -> None:
    """Yellow, green, cyan, white and bright text have to bring a ground of their own; the bar is no text."""
    said = drawn(80, color=True) + drawn(80, color=True, stopped="ctl", leaves_in_s=3.0)
    dead = Console(file=io.StringIO(), width=80, force_terminal=True)
    with dead.capture() as capture:
        dead.print(draw(FIGURES, SHOWN, width=80, is_dead=True))
    pieces = re.findall(r"\x1b\[([0-9;]*)m([^\x1b\n]*)", said + capture.get())
    grounds = {
        code for codes, text in pieces for code in codes.split(";") if code.startswith("4") and text.strip(" ━╸╺")
    }
    assert grounds == {"43", "41"}, "care and bad"
    for codes, text in pieces:
        given = set(codes.split(";"))
        is_pale = bool(given & {"32", "33", "36", "37", *map(str, range(90, 98))})
        assert not is_pale or given & grounds or not text.strip(" ━╸╺"), (codes, text)


def test_a_cool_down_is_counted_down_and_waited_for_whatever_else_is_wrong() -> None:
    """ "rows fail" takes the first place; a minute without a submit has to be seen, and is a part of the time left."""
    shown = msgspec.structs.replace(SHOWN, binds="cool-down", cooling_s=602.0, rates=[])
    failing: dict[str, Any] = {"by_status": {"completed": 90_000, "failed": 10_000}}
    text = drawn(80, shown=shown, **failing)
    assert "● rows fail" in text
    assert "limit: cool-down" in text
    assert "(after a 429, 600 s to go)" in text
    soon = Vitals(FIGURES, msgspec.structs.replace(shown, cooling_s=0.0)).left_s
    late = Vitals(FIGURES, shown).left_s
    assert soon is not None
    assert late == pytest.approx(soon + 602.0)
