"""`stream = "auto"`: a request is streamed where its reasoning exists nowhere else.

Source: seed 004, "Known limitation": what a thinking model reasons is told by the stream alone, and never part of a
task's result. Which models think by themselves is data, in `rulebook.py`.
"""

from __future__ import annotations

from typing import Any

from batchfox.core.rulebook import RuleBook

AUTO = "auto"


def choose_stream(request: dict[str, Any], book: RuleBook) -> dict[str, Any]:
    """The request with `stream` true, or without it, where it said "auto"; any other as it is.

    A `reasoning` that is asked for, or forbidden, goes before what is known of the model.
    """
    if request.get("stream") != AUTO:
        return request
    wanted = request.get("reasoning")
    facts = book.facts_of(request.get("model"))
    is_streamed = wanted if isinstance(wanted, bool) else facts is not None and facts.thinks
    rest = {name: value for name, value in request.items() if name != "stream"}
    return rest | {"stream": True} if is_streamed else rest
