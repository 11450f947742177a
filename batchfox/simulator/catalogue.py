"""The models that are served: what each takes, what it costs, whether it thinks. Prices are made up but plausible."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import msgspec

Capability = Literal["text", "vision", "video", "audio", "file"]

_ALL: tuple[Capability, ...] = ("text", "vision", "video", "audio", "file")
_FAMILIES: tuple[tuple[str, tuple[Capability, ...]], ...] = (
    ("claude-", ("text", "vision", "file")),
    ("gpt-", ("text", "vision")),
    ("kimi-", ("text", "vision")),
    ("gemini-", _ALL),
    ("nemotron-", ("text", "vision", "video", "audio")),
)
# What a call reserves for its completion where it names no `max_tokens`.
_USUAL_COMPLETION = 1024
# Router prices are ratios: 1 stands for 1 credit per 500,000 prompt tokens.
_TOKENS_A_CREDIT = 500_000


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """One model. `price`: fixed credits a call; else tokens times `ratio`, completion tokens dearer by their ratio."""

    id: str
    capabilities: tuple[Capability, ...]
    ratio: float = 0.0
    completion_ratio: float = 1.0
    price: float | None = None
    is_thinking: bool = False

    def credits(self, prompt_tokens: int, completion_tokens: int) -> float:
        """What a call of that many tokens costs, to the millionth."""
        if self.price is not None:
            return self.price
        tokens = prompt_tokens + completion_tokens * self.completion_ratio
        return round(tokens * self.ratio / _TOKENS_A_CREDIT, 6)

    def reservation(self, prompt_tokens: int, max_tokens: int | None) -> float:
        """What is reserved at submit: never less than the charge that follows."""
        return self.credits(prompt_tokens, _USUAL_COMPLETION if max_tokens is None else max_tokens)


def family_capabilities(model: str) -> tuple[Capability, ...]:
    """What models of this name's family take; a name of no known family takes everything."""
    return next((takes for prefix, takes in _FAMILIES if model.startswith(prefix)), _ALL)


def _model(name: str, ratio: float, completion_ratio: float, *, is_thinking: bool = False) -> Model:
    return Model(
        id=name,
        capabilities=family_capabilities(name),
        ratio=ratio,
        completion_ratio=completion_ratio,
        is_thinking=is_thinking,
    )


BUILT_IN: tuple[Model, ...] = (
    _model("claude-opus-4-7", 2.5, 5),
    _model("claude-sonnet-4-6", 1.5, 5),
    _model("claude-haiku-4-5", 0.5, 5),
    _model("gemini-2.5-pro", 0.625, 8, is_thinking=True),
    _model("gemini-2.5-flash", 0.15, 8.3),
    _model("gemini-3-flash", 0.25, 6),
    _model("gpt-5.5", 2.5, 6),
    _model("gpt-5.4", 1.25, 6),
    _model("gpt-5.4-mini", 0.375, 6),
    _model("gpt-4.1-mini", 0.2, 4),
    _model("kimi-k2.6", 0.3, 4, is_thinking=True),
    Model(id="nemotron-3-nano-omni", capabilities=family_capabilities("nemotron-"), price=0.01),
)


class Catalogue:
    """The models of one simulator: the built-in ones and those that its settings add."""

    def __init__(self, added: Iterable[str] = ()) -> None:
        self._models = {model.id: model for model in BUILT_IN}
        for name in added:
            self._models.setdefault(name, _model(name, 1.0, 4.0))

    def find(self, name: str) -> Model | None:
        """The model of that name, or None."""
        return self._models.get(name)

    def listed(self) -> dict[str, Any]:
        """The answer of the models endpoint."""
        data = [
            {"id": model.id, "object": "model", "capabilities": list(model.capabilities)}
            for model in self._models.values()
        ]
        return {"object": "list", "data": data}

    def priced(self) -> dict[str, Any]:
        """The answer of the pricing endpoint: `quota_type` 1 is a fixed price a call, 0 goes by tokens and ratios."""
        data = [
            {
                "model_name": model.id,
                "quota_type": 0 if model.price is None else 1,
                "model_ratio": model.ratio,
                "model_price": model.price or 0,
                "completion_ratio": model.completion_ratio,
                "enable_groups": ["default"],
            }
            for model in self._models.values()
        ]
        return {"success": True, "data": data, "group_ratio": {"default": 1}}
