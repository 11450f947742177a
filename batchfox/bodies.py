"""A request's body, built right before it is sent: local media put in place, the final rules checked, JSON."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from typing import Any

import msgspec

from batchfox.core.complaint import Complaint
from batchfox.core.event import ApiError, Unsendable
from batchfox.core.lifecycle import Life
from batchfox.core.rulebook import RuleBook
from batchfox.core.rules import check, check_body
from batchfox.core.shape import Medium, media_of
from batchfox.media import MediaDoor

_encode = msgspec.json.Encoder().encode
_REMOTE = ("http://", "https://")


def make_body(request: dict[str, Any], door: MediaDoor, book: RuleBook) -> tuple[bytes, list[str], list[Complaint]]:
    """The body with its media in place, how each travels, and what the rules say of it. Reads files."""
    sent = door.send(request)
    if isinstance(sent, Complaint):
        return b"", [], [sent]
    request, ways = sent
    complaints = check(request, book, final=True)
    body = _encode(request)
    return body, ways, [*complaints, *check_body(body, request, book)]


def is_remote(media: list[Medium]) -> bool:
    """Are all of a request's media http(s) URLs, if it has any, so that nothing has to be read?"""
    return all(isinstance(medium.value, str) and medium.value.startswith(_REMOTE) for medium in media)


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
        if is_remote(media):
            life.media = ["url"] * len(media)
            body = _encode(request)
            return self._checked(life, body, check_body(body, request, self._book))
        loop = asyncio.get_running_loop()
        body, complaints = await loop.run_in_executor(self._thread, self._build_with_files, life)
        return self._checked(life, body, complaints)

    def _build_with_files(self, life: Life) -> tuple[bytes, list[Complaint]]:
        assert life.request is not None
        body, life.media, complaints = make_body(life.request, self._door, self._book)
        return body, complaints

    def _checked(self, life: Life, body: bytes, complaints: list[Complaint]) -> bytes | Unsendable:
        refusals = [complaint for complaint in complaints if complaint.severity == "refusal"] if complaints else []
        if not refusals:
            return body
        message = "; ".join(complaint.message for complaint in refusals[:5])
        return Unsendable(error=ApiError(code=refusals[0].rule, type="invalid_row", message=message))
