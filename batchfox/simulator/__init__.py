"""The API, embedded: seeded, with faults on request and a book of what was billed. Imports nothing of batchfox.

`Simulator` runs in the present event loop, `SimulatorThread` in a thread of its own; `answer` is what a valid request
is answered with; `FAULTS` is the table of all faults.
"""

from batchfox.simulator.answers import answer
from batchfox.simulator.draws import digest_of
from batchfox.simulator.faults import TABLE as FAULTS
from batchfox.simulator.server import Simulator
from batchfox.simulator.settings import Settings, SettingsError
from batchfox.simulator.store import StateError
from batchfox.simulator.thread import SimulatorThread, fastest_loop

__all__ = [
    "FAULTS",
    "Settings",
    "SettingsError",
    "Simulator",
    "SimulatorThread",
    "StateError",
    "answer",
    "digest_of",
    "fastest_loop",
]
