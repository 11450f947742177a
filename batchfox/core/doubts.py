"""Names that may be mistyped and that nothing refuses: models that nobody lists, fields that the API may not know."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any

from batchfox.core.complaint import show
from batchfox.core.nearest import nearest
from batchfox.core.rulebook import RuleBook
from batchfox.core.shape import WANTS

MOST_MODELS = 5


def doubts(request: dict[str, Any], models: Iterable[str], listed: Collection[str], book: RuleBook) -> Iterator[str]:
    """Notes on a job. `models`: those that its requests name; `listed`: those of the price list, none where there is
    no list."""
    for name in request:
        if name not in WANTS and (meant := nearest(name, WANTS)):
            yield f"request.{name}: no field that is known here{meant}; it is sent as it is"
    doubted = 0
    for model in sorted(models):
        if doubted < MOST_MODELS and (said := _doubt(model, listed, book)):
            doubted += 1
            yield said


def _doubt(model: str, listed: Collection[str], book: RuleBook) -> str:
    shown = show(model)
    if listed and model not in listed:
        hint = nearest(model, listed)
        return f"the price list does not name the model {shown}{hint}; `batchfox models` lists what the key may use"
    if not listed and book.facts_of(model) is None:
        return f"no rule is known for the model {shown}{_nearest_known(model, book)}: the API decides what it takes"
    return ""


def _nearest_known(model: str, book: RuleBook) -> str:
    """The model, or the family, whose name is likest: of a family its first word counts."""
    if hint := nearest(model.lower(), [facts.match for facts in book.models if not facts.match.endswith("*")]):
        return hint
    families = {facts.match.split("-")[0]: facts.match for facts in book.models if facts.match.endswith("*")}
    hint = nearest(model.lower().partition("-")[0], families)
    return next((hint.replace(name, families[name]) for name in families if f'"{name}"' in hint), "")
