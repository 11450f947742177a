"""A request's body, built right before it is sent: local media put in place, the final rules checked, JSON."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor

import msgspec

from batchfox.core.complaint import Complaint
from batchfox.core.event import ApiError, Unsendable
from batchfox.core.lifecycle import Life
from batchfox.core.rulebook import RuleBook
from batchfox.core.rules import check, check_body
from batchfox.core.shape import media_of
from batchfox.media import MediaDoor

_encode = msgspec.json.Encoder().encode
_REMOTE = ("http://", "https://")


class Bodies:
    """Builds bodies. Local files are read in a thread; a request without any is built at once."""

    def __init__(self, door: MediaDoor, book: RuleBook, thread: Executor) -> None:
        self._door = door
        self._book = book
        self._thread = thread

    async def build(self, life: Life) -> bytes | Unsendable:
        """The body to POST; `life.media` says how each medium travels."""
        request = life.request
        assert request is not None, life.id
        media = media_of(request)
        if all(isinstance(medium.value, str) and medium.value.startswith(_REMOTE) for medium in media):
            life.media = ["url"] * len(media)
            body = _encode(request)
            return self._checked(life, body, check_body(body, request, self._book))
        loop = asyncio.get_running_loop()
        body, complaints = await loop.run_in_executor(self._thread, self._build_with_files, life)
        return self._checked(life, body, complaints)

    def _build_with_files(self, life: Life) -> tuple[bytes, list[Complaint]]:
        assert life.request is not None
        sent = self._door.send(life.request)
        if isinstance(sent, Complaint):
            return b"", [sent]
        request, life.media = sent
        complaints = check(request, self._book, final=True)
        body = _encode(request)
        return body, [*complaints, *check_body(body, request, self._book)]

    def _checked(self, life: Life, body: bytes, complaints: list[Complaint]) -> bytes | Unsendable:
        refusals = [complaint for complaint in complaints if complaint.severity == "refusal"]
        if not refusals:
            return body
        message = "; ".join(complaint.message for complaint in refusals[:5])
        return Unsendable(error=ApiError(code=refusals[0].rule, type="invalid_row", message=message))
