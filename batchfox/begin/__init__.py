"""The first minute: a data file is looked at, and a job file is written for it."""

from batchfox.begin.drafting import Drafted, begin
from batchfox.begin.showing import describe

__all__ = ["Drafted", "begin", "describe"]
