"""Row → request: `[request]` and its templates first, the row's own columns in the fields it leaves out.

Source: contract.md, "Rows" and "Templates"; names and kinds of fields are data in `shape.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Any

import msgspec

from batchfox.core.coercion import coerce
from batchfox.core.complaint import Complaint, Place, complain, show, spell
from batchfox.core.job import nearest
from batchfox.core.row import Row
from batchfox.core.sandbox import Sandbox
from batchfox.core.shape import CUSTOM_CONTENT, PROMPT_CONTENT, PROMPT_FAMILY, PROMPT_MEDIA, ROW_FIELDS
from batchfox.core.template import Template, TemplateFailure, is_template, list_columns
from batchfox.errors import JobError

CHAT_URL = "/v1/chat/completions"
ENOUGH_ROWS = 100
_HASH_BYTES = 16

_Part = Callable[[dict[str, Any]], Any]


class Renderer:
    """`[request]` compiled once. For one thread at a time.

    `fields`: the only columns that may fill a field, also such as no row fills by itself; None: `ROW_FIELDS`.
    Raises `JobError` with place and line for a template that is none, and where `[request]` mixes messages and prompt.
    """

    def __init__(self, request: dict[str, Any], *, fields: Iterable[str] | None = None) -> None:
        request = {name: value for name, value in request.items() if value is not None}
        if "messages" in request and (mixed := [name for name in PROMPT_FAMILY if name in request]):
            raise JobError(f"request.{mixed[0]}: not allowed beside request.messages; a request is one or the other")
        self._templates: list[Template] = []
        sandbox = Sandbox()
        self._base: dict[str, Any] = {}
        self._parts: list[tuple[str, _Part]] = []
        for name, value in request.items():
            part = self._compile(value, (name,), sandbox)
            if part is not None:
                self._base[name] = None
                self._parts.append((name, part))
            elif (constant := coerce(name, value)) is not None:
                self._base[name] = constant
        self._excluded = _excluded_by(request)
        self._fillable = tuple(
            name for name in dict.fromkeys(ROW_FIELDS if fields is None else fields) if name not in self._excluded
        )
        self._may_mix = "messages" in self._fillable

    @property
    def variables(self) -> dict[str, str]:
        """Variables that the templates use without a default → the key path of the first that does."""
        found: dict[str, str] = {}
        for template in self._templates:
            for name in sorted(template.required):
                found.setdefault(name, template.place)
        return found

    def render(self, row: Row) -> dict[str, Any] | Complaint:
        """The request of a readable row, or why there is none. The row is not changed, nor what `[request]` holds."""
        columns = row.columns
        request = self._base.copy()
        for name, part in self._parts:
            try:
                value = coerce(name, part(columns))
            except TemplateFailure as failure:
                return _complain_of_template(name, failure)
            if value is None:
                del request[name]
            else:
                request[name] = value
        if "custom_id" in columns and type(columns.get("body")) is dict:
            return _fill_from_batch(request, columns, self._excluded)
        for name in self._fillable:
            value = columns.get(name)
            if value is not None and (value := coerce(name, value)) is not None:
                request[name] = value
        if self._may_mix and "messages" in request:
            return _settle_family(request, self._base)
        return request

    def taken_fields(self, row: Row) -> list[str]:
        """The columns of this row that fill a field of the request, as `body.<name>` in the batch form."""
        columns = row.columns
        body = columns.get("body")
        if "custom_id" in columns and type(body) is dict:
            return [f"body.{name}" for name in body if body[name] is not None and name not in self._excluded]
        return [name for name in self._fillable if coerce(name, columns.get(name)) is not None]

    def _compile(self, value: Any, place: Place, sandbox: Sandbox) -> _Part | None:
        """What makes a value of `[request]` from columns; None where it holds no template."""
        if isinstance(value, str) and is_template(value):
            template = Template(value, spell(("request", *place)), sandbox)
            self._templates.append(template)
            return template.render
        if not isinstance(value, (dict, list)):
            return None
        steps = list(value.items()) if isinstance(value, dict) else list(enumerate(value))
        parts = [(step, part) for step, item in steps if (part := self._compile(item, (*place, step), sandbox))]
        if not parts:
            return None

        def build(columns: dict[str, Any]) -> Any:
            made = value.copy()
            for step, part in parts:
                made[step] = part(columns)
            return made

        return build


class MissingVariables:
    """Whether a variable of the templates is in none of the first 100 rows: then the job is wrong, not the rows."""

    def __init__(self, renderer: Renderer) -> None:
        self._missing = renderer.variables
        self._columns: dict[str, None] = {}
        self._rows = 0

    @property
    def is_settled(self) -> bool:
        """Whether no further row can change the verdict."""
        return not self._missing or self._rows >= ENOUGH_ROWS

    def see(self, row: Row) -> None:
        """Takes note of a row; one that could not be read does not count, nor do rows after the first 100."""
        if self.is_settled or row.problem is not None:
            return
        self._rows += 1
        if len(self._columns) < 1000:
            self._columns.update(dict.fromkeys(row.columns))
        for name in self._missing.keys() & row.columns.keys():
            del self._missing[name]

    def verdict(self) -> str | None:
        """After 100 rows, or at the end of a shorter input: what is wrong, or None."""
        if not self._missing or not self._rows:
            return None
        name, place = next(iter(self._missing.items()))
        rows = "row" if self._rows == 1 else f"{self._rows} rows"
        return (
            f'{place}: the variable "{name}" is no column of the first {rows}{nearest(name, self._columns)}; '
            f"columns: {list_columns(self._columns)}; a template that can do without it says {name} | default(…)"
        )


def request_hash(request: dict[str, Any]) -> str:
    """BLAKE2b-128, in hex, of a rendered request that passed the rules, before media handling: JSON, keys sorted.

    A local medium counts by its path as written, bytes by their base64. Source: contract.md, "The output".
    """
    return blake2b(msgspec.json.encode(request, order="sorted"), digest_size=_HASH_BYTES).hexdigest()


def _excluded_by(request: dict[str, Any]) -> frozenset[str]:
    """The fields no column may fill: those of `[request]`, and of the content that it excludes."""
    excluded = set(request)
    if "messages" in request:
        excluded.update(PROMPT_FAMILY)
    elif any(name in request for name in PROMPT_CONTENT):
        excluded.update(CUSTOM_CONTENT)
    if any(name in request for name in PROMPT_MEDIA):
        excluded.update(PROMPT_MEDIA)
    return frozenset(excluded)


def _settle_family(request: dict[str, Any], base: dict[str, Any]) -> dict[str, Any] | Complaint:
    """Columns gave messages: a prompt beside them is a mix, unless it is an empty cell."""
    for name in PROMPT_FAMILY:
        if name not in request:
            continue
        if request[name] == "" and name not in base:
            del request[name]
        else:
            source = "[request]" if name in base else "a column"
            allowed = "one of both; [input] fields = […] says which columns to take"
            return complain("family", name, f"messages from a column and {name} from {source}", allowed)
    return request


def _fill_from_batch(
    request: dict[str, Any], columns: dict[str, Any], excluded: frozenset[str]
) -> dict[str, Any] | Complaint:
    """The OpenAI batch form: every field of `body` as it is, null left out; `[request]` wins."""
    url, method = columns.get("url"), columns.get("method")
    if url is not None and url != CHAT_URL:
        return complain("batch", "url", show(url), f"{CHAT_URL}, or none")
    if method is not None and (not isinstance(method, str) or method.upper() != "POST"):
        return complain("batch", "method", show(method), "POST, or none")
    for name, value in columns["body"].items():
        if value is not None and name not in excluded:
            request[name] = value
    return request


def _complain_of_template(name: str, failure: TemplateFailure) -> Complaint:
    return Complaint(
        rule="template",
        field=name,
        found=str(failure),
        allowed="a template that this row can fill",
        message=f"{name}: the template cannot be rendered: {failure}",
    )
