"""The socket by which a running job is steered: where it is, who serves it, how it is asked.

A Unix socket of the user's own (mode 0600), lines of JSON both ways. It lies in a folder of its own (mode 0700), which
`_batchfox/control` names, and not in the output: there its path may be too long for a socket, the file system may take
none, and what copies the folder may stumble over it. Whoever holds the output's lock may remove what a dead run left.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import msgspec

from batchfox.core.steer import MOST_LINE, Order, Reply, read_order
from batchfox.errors import OutputError, UserError
from batchfox.status import checkpoint_path, is_held

# What a socket's address holds, its final NUL aside; a little less on some systems.
MOST_PATH = 100
MOST_CLIENTS = 16
_SOCKET = "control.sock"
_NAMED = "control"
_PREFIX = "batchfox-"
CLOSE_S = 1.0

CarryOut = Callable[[Order], Awaitable[str]]


@contextlib.asynccontextmanager
async def serving(own: Path, carry_out: CarryOut, warn: Callable[[str], None]) -> AsyncIterator[None]:
    """Serves the socket of the output whose `_batchfox/` this is, until the block ends. Where there can be none, `warn`
    is told why, and the run goes on without."""
    with contextlib.ExitStack() as stack:
        try:
            listener = stack.enter_context(_listening(own))
        except OSError as error:
            warn(str(error))
            yield
            return
        clients: set[asyncio.Task[None]] = set()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            clients.add(task)
            try:
                if len(clients) <= MOST_CLIENTS and _is_own(writer):
                    await _serve(reader, writer, carry_out)
            except (OSError, ValueError, asyncio.CancelledError):
                pass  # whoever asked has gone, or says more than an order takes; or the run ends
            finally:
                clients.discard(task)
                writer.close()

        server = await asyncio.start_unix_server(serve, sock=listener, limit=MOST_LINE)
        try:
            yield
        finally:
            server.close()
            if clients:  # the last reply is on its way
                await asyncio.wait(clients, timeout=CLOSE_S)
            for task in tuple(clients):
                task.cancel()


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, carry_out: CarryOut) -> None:
    while line := await reader.readline():
        try:
            reply = Reply(ok=True, message=await carry_out(read_order(line)))
        except UserError as error:
            reply = Reply(ok=False, message=str(error))
        writer.write(msgspec.json.encode(reply) + b"\n")
        await writer.drain()


def _is_own(writer: asyncio.StreamWriter) -> bool:
    """Is it this user, or root? The socket's mode says so already, wherever modes of sockets count."""
    connection = writer.get_extra_info("socket")
    option = getattr(socket, "SO_PEERCRED", None)
    if connection is None or option is None:
        return True
    _, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, option, struct.calcsize("3i")))
    return user in (0, os.getuid())


@contextlib.contextmanager
def _listening(own: Path) -> Iterator[socket.socket]:
    """A bound socket; it and what was made for it are gone afterwards. Raises `OSError`."""
    named = own / _NAMED
    _clear_away(named)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(_short_folder()))
        bound = stack.enter_context(_bound(folder / _SOCKET))
        stack.callback(named.unlink, missing_ok=True)
        named.write_text(f"{folder / _SOCKET}\n", encoding="utf-8")
        yield bound


def _clear_away(named: Path) -> None:
    """What a dead run left: who holds the output's lock may."""
    with contextlib.suppress(OSError, ValueError):
        there = Path(named.read_text(encoding="utf-8").strip())
        if (
            there.name == _SOCKET
            and there.parent.name.startswith(_PREFIX)
            and there.parent.stat().st_uid == os.getuid()
        ):
            there.unlink(missing_ok=True)
            there.parent.rmdir()
    named.unlink(missing_ok=True)


@contextlib.contextmanager
def _bound(path: Path) -> Iterator[socket.socket]:
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as bound:
        bound.bind(str(path))
        try:
            path.chmod(0o600)  # nobody can connect before `listen`
            yield bound
        finally:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _short_folder() -> Iterator[str]:
    """A new folder with a short path and mode 0700."""
    for parent in (os.environ.get("XDG_RUNTIME_DIR"), "/tmp", tempfile.gettempdir()):
        if parent and len(os.fsencode(parent)) < MOST_PATH - 40 and os.access(parent, os.W_OK | os.X_OK):
            with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=parent, ignore_cleanup_errors=True) as folder:
                yield folder
            return
    raise OSError("no folder with a short path can be written to; set XDG_RUNTIME_DIR to one")


def ask(folder: Path, order: Order) -> Reply:
    """Asks the run that holds this output. Raises `OutputError` where there is no output, or no run alive."""
    checkpoint_path(folder)
    foreign = f"{folder}: this run is another user's: only who began it (or root) can steer it"
    with contextlib.suppress(FileNotFoundError):
        try:
            (folder / "_batchfox" / "lock").open("rb").close()
        except PermissionError as error:  # `is_held` cannot know
            raise OutputError(foreign) from error
    if not is_held(folder):
        raise OutputError(f"{folder}: no run is alive here; `batchfox status {folder}` says how the last one ended")
    try:
        with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as connection:
            connection.connect(str(_address(folder / "_batchfox")))
            connection.sendall(msgspec.json.encode(order) + b"\n")
            with connection.makefile("rb") as replies:
                line = replies.readline(MOST_LINE)
            return msgspec.json.decode(line, type=Reply)
    except (FileNotFoundError, ConnectionError, msgspec.DecodeError) as error:
        raise OutputError(
            f"{folder}: the run that holds this output does not answer: it is beginning or ending just now, or was "
            "begun by an older batchfox; try again"
        ) from error
    except PermissionError as error:
        raise OutputError(foreign) from error


def _address(own: Path) -> Path:
    """Where the socket is. Raises `FileNotFoundError`; `OutputError` where another user may have put it there."""
    named = own / _NAMED
    text = named.read_text(encoding="utf-8").strip()
    if not text:
        raise FileNotFoundError(named)  # it is being written
    socket_path = Path(text)
    there = socket_path.parent.stat()
    if there.st_uid not in (os.getuid(), named.stat().st_uid) or there.st_mode & 0o077:
        raise OutputError(
            f"{socket_path.parent}: open to others than the user whose run this is; nothing was sent there"
        )
    return socket_path
