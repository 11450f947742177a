"""`Glance`: what a sample of rows shows of each column. Of a row it keeps digests and a short example, no more.

`guess.py` guesses by what is here; `batchfox init` shows it as a table.
"""

from __future__ import annotations

from collections import Counter
from hashlib import blake2b
from typing import Any

import msgspec

from batchfox.core.coercion import coerce
from batchfox.core.complaint import show
from batchfox.core.render import is_batch_line
from batchfox.core.row import id_text
from batchfox.core.rulebook import RuleBook
from batchfox.core.rules import check
from batchfox.core.shape import MEDIA_FIELDS, ROW_FIELDS, Kind
from batchfox.core.sight import Way, ends_with_answer, is_chat, sight_of

MOST_COLUMNS = 1000
MOST_PATHS = 20
_MOST_HASHED = 1 << 20
_TYPES: dict[type, str] = {
    str: "text",
    bool: "boolean",
    int: "integer",
    float: "number",
    list: "list",
    dict: "object",
    bytes: "binary",
}
# The share of a column's values that has to agree on what the column is.
MOST_OF_THEM = 0.9


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """A column of the sample. `filled`: rows where it is neither absent nor null nor empty; `distinct`: values in them.

    `kind` of medium (None: none, or a link that does not say) and the `way` it is given; `is_link`: URLs of whatever.
    `paths`: a few of its local media. `unfit`: values that the API's field of the same name does not take.
    """

    name: str
    type: str
    rows: int
    filled: int
    distinct: int
    example: str
    longest: int = 0
    mean_length: float = 0.0
    is_prose: bool = False
    is_chat: bool = False
    is_answered: bool = False
    is_struct: bool = False
    kind: Kind | None = None
    way: Way | None = None
    is_link: bool = False
    is_list: bool = False
    paths: tuple[str, ...] = ()
    unfit: int = 0
    known_models: int = 0

    @property
    def is_full(self) -> bool:
        return self.filled == self.rows

    @property
    def is_unique(self) -> bool:
        """No row without it, no value twice."""
        return self.is_full and self.distinct == self.rows


class Glance:
    """Collects what rows show. `see` each row, then ask for `columns`."""

    def __init__(self) -> None:
        self._tallies: dict[str, _Tally] = {}
        self._patterns: Counter[frozenset[str]] = Counter()
        self._book = RuleBook()
        self.rows = 0
        self.batch_rows = 0

    @property
    def is_batch(self) -> bool:
        """Are they all lines of the OpenAI batch form?"""
        return 0 < self.rows == self.batch_rows

    def see(self, columns: dict[str, Any]) -> None:
        """Takes note of a row that could be read."""
        self.rows += 1
        self.batch_rows += is_batch_line(columns)
        filled = set()
        for name, value in columns.items():
            tally = self._tallies.get(name)
            if tally is None:
                if len(self._tallies) >= MOST_COLUMNS:
                    continue
                tally = self._tallies[name] = _Tally(name, self._book)
            if value is not None and value != "" and value != [] and value != {}:
                tally.see(value)
                filled.add(name)
        self._patterns[frozenset(filled)] += 1

    def columns(self) -> list[Column]:
        """The columns in the order they were met."""
        return [tally.sum_up(self.rows) for tally in self._tallies.values()]

    def rows_with(self, *names: str) -> int:
        """Rows where at least one of these is filled."""
        return sum(rows for filled, rows in self._patterns.items() if not filled.isdisjoint(names))

    def rows_with_two_of(self, *names: str) -> int:
        """Rows where more than one of these is filled."""
        return sum(rows for filled, rows in self._patterns.items() if len(filled & set(names)) > 1)


class _Tally:
    """One column's values so far."""

    def __init__(self, name: str, book: RuleBook) -> None:
        self.name = name
        self._book = book
        self._types: Counter[str] = Counter()
        self._digests: set[bytes] = set()
        self._sights: Counter[tuple[Kind | None, Way, bool]] = Counter()
        self._example: Any = None
        self._paths: list[str] = []
        self._characters = self._longest = self._prose = self._structs = 0
        self._chats = self._answered = self._unfit = self._known_models = 0
        self.filled = 0

    def see(self, value: Any) -> None:
        if self.filled == 0:
            self._example = show(value) if not isinstance(value, str) else value[:500]
        self.filled += 1
        self._types[_TYPES.get(type(value), "other")] += 1
        self._digests.add(_digest(value))
        self._see_text(value)
        if (sight := sight_of(value)) is not None:
            self._sights[sight.kind, sight.way, sight.is_list] += 1
            self._structs += isinstance(value, dict)
            self._see_path(value)
        if isinstance(value, (list, str)) and is_chat(value):
            self._chats += 1
            self._answered += ends_with_answer(value)
        if self.name in ROW_FIELDS:
            self._unfit += not self._fits(value)
            self._known_models += self.name == "model" and self._book.facts_of(value) is not None

    def _see_text(self, value: Any) -> None:
        if isinstance(value, str):
            self._characters += len(value)
            self._longest = max(self._longest, len(value))
            self._prose += " " in value.strip()

    def _see_path(self, value: Any) -> None:
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, str) and len(self._paths) < MOST_PATHS:
                sight = sight_of(item)
                if sight is not None and sight.way == "path":
                    self._paths.append(item)

    def _fits(self, value: Any) -> bool:
        """Would the field of this name take it? What the model says to it is another question."""
        request = {"model": "x"} if self.name == "messages" else {"model": "x", "prompt": "x"}
        request |= {self.name: coerce(self.name, value)}
        return not any(complaint.field.startswith(self.name) for complaint in check(request, self._book))

    def sum_up(self, rows: int) -> Column:
        enough = MOST_OF_THEM * self.filled
        kinds = Counter[Kind | None]()
        for (kind, _, _), number in self._sights.items():
            kinds[kind] += number
        (kind, seen) = kinds.most_common(1)[0] if kinds else (None, 0)
        is_seen = bool(seen) and seen >= enough
        of_kind = Counter({key: number for key, number in self._sights.items() if key[0] == kind})
        return Column(
            name=self.name,
            type=" or ".join(sorted(self._types)) if len(self._types) < 3 else "mixed",
            rows=rows,
            filled=self.filled,
            distinct=len(self._digests),
            example="" if self._example is None else self._example,
            longest=self._longest,
            mean_length=self._characters / max(self._types["text"], 1),
            is_prose=self._prose > self.filled / 2,
            is_chat=0 < self.filled == self._chats,
            is_answered=0 < self.filled == self._answered,
            is_struct=is_seen and self._structs > 0,
            kind=kind if is_seen else None,
            way=of_kind.most_common(1)[0][0][1] if is_seen else None,
            is_link=is_seen and kind is None,
            is_list=is_seen and any(is_list for _, _, is_list in of_kind),
            paths=tuple(self._paths),
            unfit=self._unfit,
            known_models=self._known_models,
        )


def _digest(value: Any) -> bytes:
    """Values that are the same id are the same here; long ones are told apart by their length and first megabyte."""
    text = value if isinstance(value, str) else id_text(value)
    if text is not None:
        raw = f"{len(text)} {text[:_MOST_HASHED]}".encode("utf-8", "surrogatepass")
    elif isinstance(value, bytes):
        raw = b"%d " % len(value) + value[:_MOST_HASHED]
    else:
        raw = msgspec.msgpack.encode(value, enc_hook=str)
    return blake2b(raw, digest_size=16).digest()


def media_field(kind: Kind) -> str | None:
    """The field of a prompt that takes media of this kind; None for files, which only messages take."""
    return next((field for field, takes in MEDIA_FIELDS.items() if takes == kind), None)
