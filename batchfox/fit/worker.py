"""A worker: a process that makes media fit, one after another, until its run is gone. `main` is all of it.

It is given open handles, opens nothing itself, knows no key, and has a limit on its memory and on what it writes.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import re
import signal
import socket
import sys
import threading
from typing import IO

import msgspec

from batchfox.core.fit import AudioFit, ImageFit, VideoFit
from batchfox.fit.orders import Answer, Order, RefusedError

MOST_ORDER_BYTES = 4096
# Beside what the libraries take: a picture of 200 million pixels and its copy.
MOST_MEMORY_BYTES = 3 << 30
MOST_FILE_BYTES = 100_000_000
_OUR_NAMES = re.compile(r"image file <[^>]*>|'(<none>|\d+)'")
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def main() -> None:
    """Answers orders on the socket whose handle is the first argument; ends with its standard input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_run, daemon=True).start()
    _limit()
    with socket.socket(fileno=int(sys.argv[1])) as line:
        while True:
            said, handles, _, _ = socket.recv_fds(line, MOST_ORDER_BYTES, 2)
            if not said:
                return
            answer = _follow(msgspec.json.decode(said, type=Order), handles)
            line.sendall(msgspec.json.encode(answer) + b"\n")
            gc.collect()


def _end_with_the_run() -> None:
    """Nobody ever writes there: the end comes when the run's process does, however it ends."""
    with contextlib.suppress(OSError):
        while os.read(0, 1):
            pass
    os._exit(0)


def _limit() -> None:
    import resource

    os.nice(10)  # what asks and answers goes first
    wanted = (
        (resource.RLIMIT_AS, MOST_MEMORY_BYTES),
        (resource.RLIMIT_FSIZE, MOST_FILE_BYTES),
        (resource.RLIMIT_CORE, 0),
    )
    for what, most in wanted:
        with contextlib.suppress(OSError, ValueError):  # a lower one is in force already
            resource.setrlimit(what, (most, resource.getrlimit(what)[1]))


def _follow(order: Order, handles: list[int]) -> Answer:
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(os.fdopen(handle, mode)) for handle, mode in zip(handles, ("rb", "wb"))]  # noqa: B905 - one handle where it is measured
        try:
            answer = _work(order, files)
            if len(files) == 2:
                files[1].flush()
            return answer
        except RefusedError as refusal:
            return Answer(problem=str(refusal))
        except MemoryError:
            return Answer(problem=f"it takes more than {MOST_MEMORY_BYTES >> 30} GB of memory")
        except ImportError as error:
            return Answer(problem=str(error), fault="package")
        except OSError as error:
            if error.errno == errno.EFBIG:
                return Answer(problem=f"the result has more than {MOST_FILE_BYTES // 10**6} MB")
            return Answer(problem=_say(error), fault="machine" if error.errno in _FULL else "medium")
        except Exception as error:  # each decoder raises errors of its own
            return Answer(problem=_say(error))


def _say(error: BaseException) -> str:
    why = " ".join(_OUR_NAMES.sub("", getattr(error, "strerror", None) or str(error)).split())[:200]
    return f"{type(error).__name__}: {why}" if why else type(error).__name__


def _work(order: Order, files: list[IO[bytes]]) -> Answer:
    for fit in (order.image, order.video, order.audio):
        if isinstance(fit, ImageFit):
            from batchfox.fit.images import fit_image

            return Answer(mime=fit_image(files[0], files[1], fit))
        if isinstance(fit, VideoFit):
            from batchfox.fit.films import fit_video

            return Answer(mime=fit_video(files[0], files[1], fit))
        if isinstance(fit, AudioFit):
            from batchfox.fit.films import fit_audio

            return Answer(mime=fit_audio(files[0], files[1], fit))
    from batchfox.fit.films import measure

    return Answer(seconds=measure(files[0]))
