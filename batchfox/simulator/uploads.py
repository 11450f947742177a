"""The three ways to upload a file, and the way to get it back."""

from __future__ import annotations

import binascii
import mimetypes
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from aiohttp import BodyPartReader, web

from batchfox.simulator.checks import parse
from batchfox.simulator.draws import letters
from batchfox.simulator.refusal import RefusalError, invalid
from batchfox.simulator.shelf import Draft, How
from batchfox.simulator.wire import reply
from batchfox.simulator.world import World

_CHUNK_BYTES = 1 << 16
_MOST_NAME = 255
_MOST_FIELD_BYTES = 4096


class Uploads:
    """Keeps uploads. One by URL is not fetched: the simulator stays on this machine and keeps a note that says so."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def post_stream(self, request: web.Request) -> web.Response:
        """Multipart: `file`, and `file_name` and `auto_cleanup` where wanted."""
        if not request.content_type.startswith("multipart/"):
            raise invalid(f"body: expected multipart/form-data, found {request.content_type}")
        draft, name = self._draft(), ""
        has_file = False
        try:
            reader = await request.multipart()
            while (part := await reader.next()) is not None:
                if not isinstance(part, BodyPartReader):
                    raise invalid("body: a multipart body within another")
                if part.name == "file":
                    has_file = True
                    name = name or part.filename or ""
                    await self._receive(part, draft)
                elif part.name == "file_name":
                    name = (await part.read_chunk(_MOST_FIELD_BYTES)).decode(errors="replace")
                else:
                    await part.release()
            if not has_file:
                raise invalid("file: required")
        except ValueError as error:
            draft.discard()
            raise invalid(f"body: not valid multipart: {error}", status=400) from error
        except BaseException:
            draft.discard()
            raise
        return self._keep(draft, name, "stream")

    async def post_base64(self, request: web.Request) -> web.Response:
        """JSON: `file_data` (base64, or a data URI), `file_name`."""
        asked = parse(await request.read())
        data = _text(asked, "file_data")
        if data[:5].lower() == "data:":
            data = data.partition(",")[2]
        try:
            content = binascii.a2b_base64(data, strict_mode=True)
        except (binascii.Error, ValueError) as error:
            raise invalid(f"file_data: not valid base64: {error}") from error
        name = _text(asked, "file_name") if asked.get("file_name") is not None else ""
        draft = self._draft()
        self._write(draft, content)
        return self._keep(draft, name, "base64")

    async def post_url(self, request: web.Request) -> web.Response:
        """JSON: `url`, and `file_name` where wanted."""
        asked = parse(await request.read())
        url = _text(asked, "url")
        try:
            parts = urlsplit(url)
            is_web = parts.scheme in ("http", "https") and bool(parts.hostname)
        except ValueError:
            is_web = False
        if not is_web:
            raise invalid("url: expected an http(s) URL")
        name = _text(asked, "file_name") if asked.get("file_name") is not None else unquote(parts.path)
        draft = self._draft()
        self._write(draft, f"The simulator fetches nothing; this stands for {url}\n".encode())
        return self._keep(draft, name, "url", url)

    async def get(self, request: web.Request) -> web.StreamResponse:
        """The bytes of an uploaded file."""
        name = request.match_info["filename"]
        upload = self._world.shelf.find(request.match_info["id"], name, self._world.kept_since())
        if upload is None:
            raise RefusalError(404, "not_found", f"File {name} not found", code="not_found")
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        return web.FileResponse(self._world.shelf.place(upload), headers={"Content-Type": kind})

    def _draft(self) -> Draft:
        place = len(self._world.shelf.uploads())
        drawn = letters(self._world.settings.seed, "file", place, int(self._world.now() * 1e6))
        return self._world.shelf.draft(f"file-{drawn}")

    async def _receive(self, part: BodyPartReader, draft: Draft) -> None:
        while chunk := await part.read_chunk(_CHUNK_BYTES):
            self._write(draft, part.decode(chunk))

    def _write(self, draft: Draft, chunk: bytes) -> None:
        most = self._world.settings.upload_limit_bytes
        draft.write(chunk)
        if draft.size > most:
            draft.discard()
            raise RefusalError(413, "invalid_request_error", f"file: expected at most {most} bytes")

    def _keep(self, draft: Draft, name: str, how: How, source: str | None = None) -> web.Response:
        upload = self._world.shelf.keep(draft, _clean(name), how, self._world.now(), source)
        self._world.add_upload(upload)
        said = {
            "id": upload.id,
            "filename": upload.filename,
            "url": f"{self._world.url}/files/{upload.id}/{quote(upload.filename)}",
            "size": upload.size,
            "created": int(upload.created),
        }
        return reply(said)


def _text(asked: dict[str, Any], field: str) -> str:
    found = asked.get(field)
    if not isinstance(found, str) or not found:
        raise invalid(f"{field}: expected a string")
    return found


def _clean(name: str) -> str:
    """The last part of a path, without what no file name has; `file` where nothing is left."""
    last = name.replace("\\", "/").rpartition("/")[2]
    kept = "".join(char for char in last if char.isprintable()).strip(". ")
    return kept[-_MOST_NAME:] or "file"
