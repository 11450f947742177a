"""Row → a life ready to be sent, or the outcome `invalid`. Nothing is touched and nothing is sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from batchfox.core.carry import Carry
from batchfox.core.event import ApiError
from batchfox.core.lifecycle import Life
from batchfox.core.outcome import Outcome
from batchfox.core.prices import Price, estimate
from batchfox.core.render import Renderer, hash_and_size
from batchfox.core.row import Row, key_of_id, key_of_line, key_of_position
from batchfox.core.rules import Complaint, RuleBook, check, rewrite
from batchfox.core.secret import NO_SECRET, Secret
from batchfox.core.shape import media_of, shape_of
from batchfox.core.stream_choice import choose_stream
from batchfox.core.tokens import expected_tokens

UNREADABLE = "unreadable_row"


class Invalid(msgspec.Struct, frozen=True, kw_only=True):
    """A row that breaks a rule or could not be read, with what travels to the output of it all the same."""

    row: Row
    kept: dict[str, Any]
    error: ApiError
    model: str | None = None


class Preparer:
    """Carries, renders and checks rows. One instance a run."""

    def __init__(
        self,
        carry: Carry,
        renderer: Renderer,
        book: RuleBook,
        prices: dict[str, Price] | None = None,
        warn: Callable[[Row, Complaint], None] | None = None,
        secret: Secret = NO_SECRET,
        counts_tokens: bool = False,
    ) -> None:
        """`warn`: told of what a rule warns of in a row that is sent all the same. `secret`: is in no reason and no
        model's name, though a row holds it by mistake. `counts_tokens`: a life says what it may take of them."""
        self._carry = carry
        self._renderer = renderer
        self._book = book
        self._prices = prices or {}
        self._warn = warn
        self._secret = secret
        self._counts_tokens = counts_tokens

    def prepare(self, row: Row) -> Life | Invalid:
        """The row's life, WAITING and not yet offered to the fleet; or why there is none."""
        prepared = self._prepare(row)
        if isinstance(prepared, Invalid):
            return _without(self._secret, prepared)
        if prepared.model is not None and self._secret.is_in(prepared.model):
            prepared.model, prepared.group = map(self._secret.hide, (prepared.model, prepared.group))
        return prepared

    def _prepare(self, row: Row) -> Life | Invalid:
        kept = self._carry.select(row.columns)
        if row.problem is not None:
            return Invalid(row=row, kept=kept, error=ApiError(code=UNREADABLE, type="invalid_row", message=row.problem))
        request = self._renderer.render(row)
        if isinstance(request, Complaint):
            return Invalid(row=row, kept=kept, error=_error_of([request]))
        request = choose_stream(rewrite(request), self._book)
        found = check(request, self._book, final=False)
        refusals = [complaint for complaint in found if complaint.severity == "refusal"]
        model = request.get("model")
        if refusals:
            model = model if isinstance(model, str) else None
            return Invalid(row=row, kept=kept, error=_error_of(refusals), model=model)
        if found and self._warn is not None:
            for complaint in found:
                self._warn(row, complaint)
        shape = shape_of(request)
        request_hash, size = hash_and_size(request)
        return Life(
            key=row.key,
            index=row.index,
            id=row.id,
            kept=kept,
            request=request,
            group=f"{model}|{shape}",
            tokens=float(sum(expected_tokens(request, media_of(request)))) if self._counts_tokens else 0.0,
            listed=estimate(self._prices, model, shape, request.get("max_tokens")) or 0.0,
            model=model,
            request_hash=request_hash,
            size=size,
            is_sync=bool(request.get("sync")),
            is_streamed=bool(request.get("stream")),
        )


def _without(secret: Secret, invalid: Invalid) -> Invalid:
    error, model = hide_in_error(secret, invalid.error), invalid.model
    return msgspec.structs.replace(invalid, error=error, model=None if model is None else secret.hide(model))


def hide_in_error(secret: Secret, error: ApiError) -> ApiError:
    """What was said, without the key."""
    code, kind, message = (
        None if text is None else secret.hide(text) for text in (error.code, error.type, error.message)
    )
    return ApiError(code=code, type=kind, message=message)


def _error_of(complaints: list[Complaint]) -> ApiError:
    """The first complaint names the error; all of them are told."""
    message = "; ".join(complaint.message for complaint in complaints[:5])
    if len(complaints) > 5:
        message += f"; and {len(complaints) - 5} more"
    return ApiError(code=complaints[0].rule, type="invalid_row", message=message)


def outcome_of(invalid: Invalid, *, unix_s: float, run_id: str, run_date: str) -> Outcome:
    """The output row of a row that was never sent."""
    return Outcome(
        row_index=invalid.row.index,
        row_id=invalid.row.id,
        status="invalid",
        error=invalid.error,
        model=invalid.model,
        finished_at=unix_s,
        run_id=run_id,
        run_date=run_date,
    )


def key_of_outcome(row: dict[str, Any], *, has_ids: bool) -> bytes:
    """The key of an output row, by its columns `row_index`, `row_id` and `error_code`. A row without an id was named by
    its line, and an id may look like that too."""
    if not has_ids:
        return key_of_position(row["row_index"])
    if row["error_code"] == UNREADABLE and row["row_id"].startswith("line:"):
        return key_of_line(int(row["row_id"][5:]))
    return key_of_id(row["row_id"])
