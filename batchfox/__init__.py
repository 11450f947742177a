"""batchfox: a batch job runner for multimodal LLM work that survives anything.

    from batchfox import Job, load_job, run

    summary = run(load_job("jobs/demo.toml"), limit=10)

`run` is what the command line uses; `arun` is the same for a program with an event loop of its own, a notebook among
them. `Options` are their keywords as a record. docs/python.md says more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchfox.version import __version__

if TYPE_CHECKING:
    from batchfox.core.job import Job
    from batchfox.errors import BatchfoxError
    from batchfox.jobfile import load_job
    from batchfox.options import Options
    from batchfox.running import arun, run
    from batchfox.summary import Summary

__all__ = ["BatchfoxError", "Job", "Options", "Summary", "__version__", "arun", "load_job", "run"]

_HOMES = {
    "BatchfoxError": "batchfox.errors",
    "Job": "batchfox.core.job",
    "Options": "batchfox.options",
    "Summary": "batchfox.summary",
    "arun": "batchfox.running",
    "load_job": "batchfox.jobfile",
    "run": "batchfox.running",
}


def __getattr__(name: str) -> Any:
    """Loads the public names when they are first asked for: `batchfox --help` must not wait for pyarrow."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
