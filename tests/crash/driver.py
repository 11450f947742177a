"""A server of forks: runs `batchfox` commands in children of a process that has imported everything already.

Orders come as lines of JSON on stdin; for each, its child's pid is answered, and its exit status once it is over. A
child with a boundary is killed there; one without is the plain command.
"""

from __future__ import annotations

import gc
import json
import os
import random
import sys
import traceback
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from boundaries import Trace, install, trace_posts

# What a run imports on its way; a child imports the rest by itself. pyarrow takes pandas where it finds it.
IMPORTED = (
    "batchfox.cli.run",
    "batchfox.columns",
    "batchfox.open_part",
    "batchfox.parts",
    "batchfox.running",
    "batchfox.show",
    "dotenv.main",
    "encodings.idna",
    "pandas",
    "pyarrow.compute",
    "pyarrow.pandas_compat",
    "pyarrow.parquet",
    "tomli_w",
    "uvloop",
)
BROKEN = 70  # the child could not do what it was ordered


def live(order: dict[str, Any]) -> NoReturn:
    """The child's life."""
    status: Any = BROKEN
    try:
        for number, path, flags in (
            (0, os.devnull, os.O_RDONLY),
            (1, order["out"], os.O_WRONLY | os.O_CREAT),
            (2, order["err"], os.O_WRONLY | os.O_CREAT),
        ):
            os.dup2(os.open(path, flags, 0o600), number)
        os.chdir(order["folder"])
        random.seed()
        trace, knife = Trace(Path(order["trace"])), None
        trace_posts(trace)
        if order["boundary"] is not None:
            # Outside the trace: a POST that was cut off before it could leave is not noted.
            knife = install(order["boundary"], order["nth"], trace)
        try:
            command(order["arguments"])
        except SystemExit as error:
            status = error.code
        if knife is not None:
            trace.note(seen=knife.seen)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status if isinstance(status, int) else BROKEN)


def command(arguments: list[str]) -> None:
    """The command line's `main`, which raises `SystemExit`."""
    sys.argv = ["batchfox", *arguments]
    import_module("batchfox.cli").main(arguments)


def serve() -> None:
    """Until stdin ends."""
    for name in IMPORTED:
        import_module(name)
    gc.freeze()  # a collection in a child leaves these pages shared
    for line in sys.stdin:
        with warnings.catch_warnings():
            # pyarrow has threads, and sees to them in a fork.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            live(json.loads(line))
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()
        _, status = os.waitpid(pid, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
