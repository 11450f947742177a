"""The page's server: loopback only, a token for everything that rows say, every answer to its own origin alone."""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import msgspec
from aiohttp import web

from batchfox.errors import BatchfoxError
from batchfox.marks import Mark, Marked, Marks
from batchfox.status import is_held
from batchfox.view.browser import Browser
from batchfox.view.question import Question
from batchfox.words import shorten

if TYPE_CHECKING:
    from batchfox.view.whole_row import Reader

HOST = "127.0.0.1"
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'{remote}; "
    "media-src 'self'{remote}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_ASSETS = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
_T = TypeVar("_T")


class _Name(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A row."""

    index: int
    id: str


class _Marking(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rows to be marked; `mark` None takes their mark away."""

    rows: list[_Name]
    mark: Mark | None


class ViewServer:
    """`async with ViewServer(folder) as server: server.url`. Raises `UserError`, `OutputError`, or OSError where the
    port is taken. The URL holds the token, behind a `#`, where no server and no log sees it."""

    def __init__(self, folder: Path, *, port: int = 0) -> None:
        self._folder = folder
        self._port = port
        self.token = secrets.token_urlsafe(24)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="view")
        self._browser = Browser(folder)
        self._reader_made: Reader | None = None
        self._marks = Marks(folder)
        self._runner: web.AppRunner | None = None

    @property
    def _reader(self) -> Reader:
        """Made when the first row is opened: what it imports is not to delay the first page."""
        if self._reader_made is None:
            from batchfox.view.whole_row import Reader

            self._reader_made = Reader(self._folder)
        return self._reader_made

    @property
    def url(self) -> str:
        """Where the page is; while it is served."""
        assert self._runner is not None
        return f"http://{HOST}:{self._runner.addresses[0][1]}/#token={self.token}"

    async def __aenter__(self) -> Self:
        application = web.Application(middlewares=[self._guard], client_max_size=4 << 20)
        application.add_routes(
            [
                *(web.get(path, self._asset) for path in _ASSETS),
                web.get("/favicon.ico", _no_icon),
                web.get("/api/state", self._state),
                web.post("/api/rows", self._rows),
                web.post("/api/row", self._row),
                web.post("/api/mark", self._mark),
                web.get("/api/marks", self._export),
                web.get("/media", self._medium),
            ]
        )
        self._runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, HOST, self._port).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
        self._thread.shutdown(wait=True)
        self._browser.close()

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Who asks must know the token, and must have asked this very server: a name that another site made lead here
        is another host."""
        try:
            response = self._refuse(request) or await handler(request)
        except web.HTTPException as error:
            response = _json({"error": error.reason}, status=error.status)
        except BatchfoxError as error:
            response = _json({"error": str(error)}, status=400)
        except msgspec.ValidationError as error:
            response = _json({"error": f"not understood: {error}"}, status=400)
        except msgspec.DecodeError as error:
            response = _json({"error": f"no JSON: {error}"}, status=400)
        remote = " http: https:" if request.path == "/" and request.query.get("remote") == "1" else ""
        response.headers.update(_HEADERS)
        response.headers["Content-Security-Policy"] = _POLICY.format(remote=remote)
        return response

    def _refuse(self, request: web.Request) -> web.StreamResponse | None:
        assert self._runner is not None
        own = f"{HOST}:{self._runner.addresses[0][1]}"
        origin = request.headers.get("Origin")
        if request.host != own or origin not in (None, f"http://{own}"):
            return _json({"error": "another host or origin"}, status=403)
        if request.path in _ASSETS or request.path == "/favicon.ico":
            return None
        given = request.headers.get("X-Token") or request.query.get("token", "")
        if not hmac.compare_digest(given.encode(), self.token.encode()):
            return _json(
                {"error": "the token is missing or wrong: open the address that the command printed"}, status=401
            )
        return None

    async def _run(self, task: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, task)

    async def _asset(self, request: web.Request) -> web.Response:
        name, kind = _ASSETS[request.path]
        text = files("batchfox.view").joinpath(name).read_text(encoding="utf-8")
        return web.Response(text=text, content_type=kind)

    async def _state(self, request: web.Request) -> web.Response:
        """What the page needs to know first, and whether there is anything new."""

        def look() -> dict[str, Any]:
            self._browser.refresh()
            self._marks.refresh()
            return {
                "folder": str(self._folder),
                "version": self._browser.version,
                "types": self._browser.types,
                "total": self._browser.total(),
                "is_running": is_held(self._folder),
                "marks": self._marks.counts(),
                "trouble": self._marks.trouble,
            }

        return _json(await self._run(look))

    async def _rows(self, request: web.Request) -> web.Response:
        question = msgspec.json.decode(await request.read(), type=Question)

        def find() -> dict[str, Any]:
            self._browser.refresh()
            self._marks.refresh()
            answer = self._browser.answer(question, self._marks.ids())
            for row in answer.rows:
                row["_mark"] = self._marks.of(row["_index"], row["_id"])
            found: dict[str, Any] = msgspec.to_builtins(answer)
            return found

        return _json(await self._run(find))

    async def _row(self, request: web.Request) -> web.Response:
        name = msgspec.json.decode(await request.read(), type=_Name)

        def read() -> dict[str, Any] | None:
            spot = self._browser.spot(name.index, name.id)
            row = self._reader.read(spot) if spot is not None else None
            return None if row is None else {**row, "mark": self._marks.of(name.index, name.id)}

        row = await self._run(read)
        return _json(row) if row is not None else _json({"error": "this row is no longer there"}, status=404)

    async def _mark(self, request: web.Request) -> web.Response:
        marking = msgspec.json.decode(await request.read(), type=_Marking)
        named = [(row.index, row.id) for row in marking.rows]

        def put() -> list[str]:
            """Marks all of them, or says which are not there; what is marked and gone can still be unmarked."""
            self._marks.refresh()
            there = self._browser.finished(named)
            gone = [key for key in named if key not in there and (marking.mark or not self._marks.of(*key))]
            if not gone:
                self._marks.put([Marked(*key, finished_at=there.get(key)) for key in named], marking.mark)
            return [row_id for _, row_id in gone]

        if gone := await self._run(put):
            said = f"no such row in the output: {shorten(gone[0])}" + (f", and {len(gone) - 1} more" * (len(gone) > 1))
            return _json({"error": f"{said}; nothing is marked"}, status=404)
        return _json({"marks": self._marks.counts(), "trouble": self._marks.trouble})

    async def _export(self, request: web.Request) -> web.Response:
        mark = msgspec.convert(request.query.get("mark"), Mark | None)
        name = f'attachment; filename="{mark or "marks"}.jsonl"'
        body = self._marks.export(mark)
        return web.Response(body=body, content_type="application/jsonl", headers={"Content-Disposition": name})

    async def _medium(self, request: web.Request) -> web.Response:
        try:
            index, number = int(request.query["index"]), int(request.query["number"])
        except (KeyError, ValueError) as error:
            raise web.HTTPBadRequest from error
        row_id = request.query.get("id", "")
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(None, self._reader.medium, index, row_id, number)
        if found is None:
            raise web.HTTPNotFound
        mime, data = found
        return _ranged(request, mime, data)


def _ranged(request: web.Request, mime: str, data: bytes) -> web.Response:
    """Players ask for parts of a clip, so that they can jump in it."""
    headers = {"Accept-Ranges": "bytes", "Content-Disposition": "inline"}
    try:
        wanted = request.http_range
    except ValueError:
        return web.Response(status=416, headers={"Content-Range": f"bytes */{len(data)}"})
    if wanted.start is None and wanted.stop is None:
        return web.Response(body=data, content_type=mime, headers=headers)
    start, stop, _ = wanted.indices(len(data))
    if start >= stop:
        return web.Response(status=416, headers={"Content-Range": f"bytes */{len(data)}"})
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
    return web.Response(status=206, body=data[start:stop], content_type=mime, headers=headers)


async def _no_icon(request: web.Request) -> web.Response:
    return web.Response(status=204)


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(value, enc_hook=str), content_type="application/json", status=status)
