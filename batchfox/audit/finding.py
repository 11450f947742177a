"""What an audit has to say, as records: findings, what rows cost, and the whole."""

from __future__ import annotations

import msgspec

MOST_EXAMPLES = 5


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of thing that was found.

    `kind`: a fixed word for scripts. `number`: how many rows, parts or files; `examples`: the first of them. `where`:
    the file or folder it is about. `is_problem`: something is off; else it is good to know.
    """

    kind: str
    number: int
    what: str
    examples: list[str] = msgspec.field(default_factory=list)
    where: str = ""
    next: str = ""
    is_problem: bool = True


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What rows cost. `credits` is the sum of what is known; `unknown`: rows that were submitted and name no charge."""

    rows: int
    submits: int
    credits: float
    unknown: int = 0
    maybe_billed_twice: int = 0


class Dear(msgspec.Struct, frozen=True, kw_only=True):
    """One of the dearest rows."""

    row_id: str
    credits: float
    submits: int


class Audit(msgspec.Struct, kw_only=True):
    """What an audit found. Counts are rows.

    `input_rows` is None where the input was not read; `duplicates`: rows of it whose id came before. `unfinished`: rows
    on their way, by state. `costs`: of the rows in the parts, by status, each row once; `recorded_costs`: of outcomes
    that are in no part yet. `replaced`: outcomes that newer ones took the place of, and what they had cost beyond.
    """

    output: str
    run_id: str | None = None
    is_running: bool = False
    is_finished: bool = False
    input_rows: int | None = None
    duplicates: int = 0
    output_rows: int = 0
    parts: int = 0
    unfinished: dict[str, int] = msgspec.field(default_factory=dict)
    costs: dict[str, Cost] = msgspec.field(default_factory=dict)
    recorded_costs: dict[str, Cost] = msgspec.field(default_factory=dict)
    replaced: Cost = msgspec.field(default_factory=lambda: Cost(rows=0, submits=0, credits=0.0))
    dearest: list[Dear] = msgspec.field(default_factory=list)
    findings: list[Finding] = msgspec.field(default_factory=list)

    @property
    def problems(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.is_problem]

    @property
    def credits(self) -> float:
        """All that is known to have been paid for the rows of this output."""
        known = (*self.costs.values(), *self.recorded_costs.values(), self.replaced)
        return sum(cost.credits for cost in known)
