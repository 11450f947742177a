"""Row → request: `[request]` and its templates first, the row's own columns in the fields it leaves out.

Source: contract.md, "Rows" and "Templates"; names and kinds of fields are data in `shape.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from typing import Any

import msgspec

from batchfox.core.coercion import coerce
from batchfox.core.complaint import Complaint, Place, complain, show, spell
from batchfox.core.row import Row
from batchfox.core.sandbox import Sandbox
from batchfox.core.shape import CUSTOM_CONTENT, PROMPT_CONTENT, PROMPT_FAMILY, PROMPT_MEDIA, ROW_FIELDS
from batchfox.core.template import Template, TemplateFailure, is_template
from batchfox.errors import JobError

CHAT_URL = "/v1/chat/completions"
BATCH_HINT = 'the id of a line of an OpenAI batch file is custom_id: id = "custom_id", or --id custom_id'
_HASH_BYTES = 16

_CONTENT = (*PROMPT_CONTENT, *CUSTOM_CONTENT)

_Part = Callable[[dict[str, Any]], Any]


class Renderer:
    """`[request]` compiled once. For one thread at a time.

    `fields`: the only columns that may fill a field, also such as no row fills by itself; None: `ROW_FIELDS`.
    `names`: what `[request]` sets; `constants`: what of it holds no template.
    `excluded`: the fields that no column may fill; `fillable`: those that one may.
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
        self.constants = {name: value for name, value in self._base.items() if value is not None}
        self.names = frozenset(request)
        self.excluded = _excluded_by(request)
        takeable = tuple(dict.fromkeys(ROW_FIELDS if fields is None else fields))
        self.fillable = tuple(name for name in takeable if name not in self.excluded)
        read = frozenset(name for template in self._templates for name in template.names)
        self._reasons = {name: reason for name, reason in _reasons(request) if name in takeable and name not in read}
        self._may_mix = "messages" in self.fillable

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
        if is_batch_line(columns):
            return _fill_from_batch(request, columns, self.excluded)
        for name in self.fillable:
            value = columns.get(name)
            if value is not None and (value := coerce(name, value)) is not None:
                request[name] = value
        if self._may_mix and "messages" in request:
            return _settle_family(request, self._base)
        if "custom_id" in columns and "body" in columns and not any(name in request for name in _CONTENT):
            return complain("batch", "body", show(columns["body"]), "an object: the request of an OpenAI batch line")
        return request

    def taken_fields(self, row: Row) -> list[str]:
        """The columns of this row that fill a field of the request, as `body.<name>` in the batch form."""
        columns = row.columns
        if is_batch_line(columns):
            body = columns["body"]
            return [f"body.{name}" for name in body if body[name] is not None and name not in self.excluded]
        return [name for name in self.fillable if coerce(name, columns.get(name)) is not None]

    def may_give(self, row: Row, name: str) -> bool:
        """Does the row have a column that may fill this field, whatever is in it?"""
        columns = row.columns
        return name in columns["body"] if is_batch_line(columns) else name in self.fillable and name in columns

    def passed_over(self, row: Row) -> dict[str, str]:
        """The row's content that `[request]` keeps out of the request, with the reason."""
        columns = row.columns
        if is_batch_line(columns):
            columns = columns["body"]
        return {name: reason for name, reason in self._reasons.items() if columns.get(name) not in (None, "", [])}

    def reason_to_pass_over(self, name: str) -> str:
        return self._reasons[name]

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


def is_batch_line(columns: dict[str, Any]) -> bool:
    """Is it a line of the OpenAI batch form: `custom_id`, and the request as `body`?"""
    return "custom_id" in columns and type(columns.get("body")) is dict


def hash_and_size(request: dict[str, Any]) -> tuple[str, int]:
    """`request_hash`, and how many bytes of JSON the request is before media handling."""
    text = msgspec.json.encode(request, order="sorted")
    return blake2b(text, digest_size=_HASH_BYTES).hexdigest(), len(text)


def request_hash(request: dict[str, Any]) -> str:
    """BLAKE2b-128, in hex, of a rendered request that passed the rules, before media handling: JSON, keys sorted.

    A local medium counts by its path as written, bytes by their base64. Source: contract.md, "The output".
    """
    return hash_and_size(request)[0]


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


def _reasons(request: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The content that a row may not bring since `[request]` has another, which excludes it; each with the reason."""
    for name in sorted(_excluded_by(request) - request.keys()):
        family = PROMPT_MEDIA if name in PROMPT_MEDIA and "messages" not in request else PROMPT_FAMILY
        given = [other for other in (*family, *CUSTOM_CONTENT) if other in request]
        yield name, f"[request] has {given[0]}"


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
