"""How the events of one connection stand on the wire: with names, line ends, comments and splits as its faults say."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from aiohttp import web

from batchfox.simulator.draws import number_of

_MOST_PIECE = 7
_ENDS = (b"\n", b"\r\n", b"\r")


class Style(msgspec.Struct, frozen=True, kw_only=True):
    """What is odd about a connection's events; each by the fault of its name."""

    unnamed: bool = False
    marker: bool = False
    crlf: bool = False
    comments: bool = False
    multiline: bool = False
    split: bool = False


class Scribe:
    """Writes events to one connection. Same style and words, same bytes in the same pieces."""

    def __init__(self, response: web.StreamResponse, style: Style, words: tuple[str | int, ...]) -> None:
        self._response = response
        self._style = style
        self._words = words
        self._count = 0

    async def chunk(self, data: dict[str, Any]) -> None:
        """One chunk of the answer."""
        await self.event(None if self._style.unnamed else "chunk", data)

    async def done(self, total: int) -> None:
        """The end."""
        if self._style.marker:
            await self._write(b"data: [DONE]\n\n")
        else:
            await self.event("done", {"total_chunks": total})

    async def event(self, name: str | None, data: dict[str, Any]) -> None:
        """Any event."""
        lines = [] if name is None else [b"event: " + name.encode()]
        if self._style.multiline:
            lines += [b"data: " + line for line in json.dumps(data, indent=1).encode().split(b"\n")]
        else:
            lines.append(b"data: " + msgspec.json.encode(data))
        if self._style.comments:
            lines = [b": keep-alive", b"", b"retry: 100", b"event: ping", b"", b"id:7", *lines, b": end", b"unknown"]
        await self._write(b"".join(line + b"\n" for line in lines) + b"\n")

    async def scrap(self, data: bytes) -> None:
        """A chunk that says something else than JSON."""
        await self._write(b"event: chunk\ndata: " + data + b"\n\n")

    async def _write(self, event: bytes) -> None:
        self._count += 1
        if self._style.crlf:
            event = event.replace(b"\n", _ENDS[self._draw() % len(_ENDS)])
        if not self._style.split:
            await self._response.write(event)
            return
        at = 0
        while at < len(event):
            size = 1 + self._draw(at) % _MOST_PIECE
            await self._response.write(event[at : at + size])
            at += size

    def _draw(self, *more: int) -> int:
        return number_of(0, "scribe", *self._words, self._count, *more)
