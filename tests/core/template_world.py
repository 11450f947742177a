"""A template rendered over one row's columns, for the tests of templates and of the sandbox they run in."""

from __future__ import annotations

from typing import Any

from batchfox.core.sandbox import Sandbox
from batchfox.core.template import Template

COLUMNS: dict[str, Any] = {
    "title": "a <cat> & 'dog'",
    "n": 3,
    "x": 1.5,
    "yes": True,
    "null": None,
    "tags": ["a", "b"],
    "holes": ["a", None],
    "meta": {"kind": "k", "null": None, "items": "own", "deep": {"er": 1}, "_id": 7},
    "data": b"\x89PNG",
    "sneaky": "{{ 7*7 }}{% for i in range(9) %}x{% endfor %}{# c #}",
    "image url": "https://e.com/a.png",
}


def template(text: str) -> Template:
    return Template(text, "request.prompt", Sandbox())


def render(text: str, columns: dict[str, Any] | None = None) -> Any:
    return template(text).render(COLUMNS if columns is None else columns)
