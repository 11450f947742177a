"""What an output row asked: its request made again from the columns kept, compared with the hash on record.

Nothing is sent. Where columns were not kept, or the job changed, it cannot be made again exactly; that is told.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from batchfox.core.carry import PREFIX, Carry
from batchfox.core.complaint import Complaint
from batchfox.core.job import Job
from batchfox.core.lifecycle import Life
from batchfox.core.outcome import COLUMNS, EXTRA
from batchfox.core.prepare import Preparer
from batchfox.core.render import Renderer
from batchfox.core.row import Row, key_of_position
from batchfox.core.rulebook import RuleBook
from batchfox.core.shape import Medium, media_of
from batchfox.errors import BatchfoxError
from batchfox.jobfile import load_job
from batchfox.parquet_rows import plain

NOT_QUITE = "made again from the columns kept here; what was sent differed"


class Turn(msgspec.Struct, frozen=True):
    """Who says what to the model."""

    role: str
    text: str


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A row's request. `note`: why it is not, or not surely, what was sent."""

    turns: list[Turn]
    media: list[Medium]
    note: str | None = None


class Asker:
    """Makes requests again. For one thread at a time. `job` is None where the one on record cannot be read."""

    def __init__(self, folder: Path) -> None:
        self.job: Job | None = None
        self._trouble = "the job on record cannot be read"
        try:
            job = load_job(folder / "_batchfox" / "job.toml")
            self._renderer = Renderer(job.request, fields=job.input.fields)
            self._preparer = Preparer(Carry([], ()), self._renderer, RuleBook.build(job.rules))
            self.job = job
        except BatchfoxError as error:
            self._trouble = str(error)

    def ask(self, row: pa.Table) -> Asked:
        """The request of the one row of this table, which has all columns of the output."""
        if self.job is None:
            return Asked(turns=[], media=[], note=self._trouble)
        written = row.select(["row_id", "request_hash"]).to_pylist()[0]
        columns = columns_of(row)
        tries = [columns]
        if (unfolded := _unfold(columns)) != columns:
            tries.append(unfolded)  # lists and objects of JSONL are kept as JSON text
        made: list[dict[str, Any]] = []
        for candidate in tries:
            life = self._preparer.prepare(_row(written["row_id"], candidate))
            if isinstance(life, Life) and life.request is not None:
                if life.request_hash == written["request_hash"]:
                    return Asked(turns=turns_of(life.request), media=media_of(life.request))
                made.append(life.request)
        if not made and not isinstance(request := self._renderer.render(_row(written["row_id"], columns)), Complaint):
            made.append(request)
        if not made:
            return Asked(turns=[], media=[], note="cannot be made again from the columns kept here")
        note = NOT_QUITE if written["request_hash"] else None
        return Asked(turns=turns_of(made[0]), media=media_of(made[0]), note=note)


def _row(row_id: str, columns: dict[str, Any]) -> Row:
    return Row(index=0, id=row_id, key=key_of_position(0), columns=columns, line=1)


_CARRY = Carry(["*"], [*COLUMNS, EXTRA])


def columns_of(row: pa.Table) -> dict[str, Any]:
    """The input columns of a row under the names that they had in the input."""
    names = [name for name in row.column_names if name not in COLUMNS and name != EXTRA]
    found: dict[str, Any] = {}
    for batch in row.select(names).combine_chunks().to_batches():
        found = {_name_before(name): value for name, value in plain(batch).to_pylist()[0].items()}
    extra = row[EXTRA][0].as_py() if EXTRA in row.column_names else None
    if extra:
        try:
            found |= {_name_before(name): value for name, value in msgspec.json.decode(extra).items()}
        except (msgspec.DecodeError, AttributeError):
            pass  # it is shown as it is
    return found


def _name_before(name: str) -> str:
    rest = name.removeprefix(PREFIX)
    return rest if rest != name and name in _CARRY.select({rest: 1}) else name


def _unfold(columns: dict[str, Any]) -> dict[str, Any]:
    return {name: _decode(value) if isinstance(value, str) else value for name, value in columns.items()}


def _decode(text: str) -> Any:
    if text[:1] not in ("[", "{"):
        return text
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


def turns_of(request: dict[str, Any]) -> list[Turn]:
    """The text of a request, in order."""
    found = []
    for role, name in (("system", "system_prompt"), ("user", "prompt")):
        if request.get(name) is not None:
            found.append(Turn(role, _text(request[name])))
    messages = request.get("messages")
    for message in messages if isinstance(messages, list) else []:
        who = message.get("role") if isinstance(message, dict) else None
        content = message.get("content") if isinstance(message, dict) else message
        blocks = content if isinstance(content, list) else [content]
        texts = [_text(block.get("text") if isinstance(block, dict) else block) for block in blocks if _is_text(block)]
        found.append(Turn(who if isinstance(who, str) else "user", "\n".join(texts)))
    return found


def _is_text(block: Any) -> bool:
    return block is not None and (not isinstance(block, dict) or block.get("text") is not None)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value, enc_hook=str).decode()
