"""A run's figures: those of its earlier executions and of this one, added up, and this one's alone.

What a run counts goes on over its resumes, so each figure is kept twice: by its own name of the whole run, and under
`here` of this execution.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# The fleet goes on counting these from where the run was.
CARRIED = ("submits", "credits_spent", "credits_standing", "in_doubt_resubmitted")
# These begin at 0 in each execution.
ADDED = (
    "polls",
    "throttles",
    "polls_throttled",
    "in_doubt_held",
    "prompt_tokens",
    "completion_tokens",
    "maybe_billed_twice",
    "elapsed_s",
)


def of_run(figures: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """`figures` as they stand in this execution, made those of the run. `before`: the run's when this one began."""
    here = {name: figures[name] - before.get(name, 0) for name in CARRIED}
    here |= {name: figures[name] for name in ADDED}
    return {**figures, **{name: figures[name] + before.get(name, 0) for name in ADDED}, "here": here}
