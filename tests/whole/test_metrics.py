"""`run --metrics-port`: what Prometheus reads, on loopback, under the documented names."""

from __future__ import annotations

import re
import socket
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from conftest import GUARD_S, MODEL, Simulate, Starter, eventually, put_forward, rows_with_ids, write_rows

from batchfox import run
from batchfox.core.job import Job
from batchfox.errors import UserError

ROOT = Path(__file__).parents[2]
SAMPLE = re.compile(r'([a-z_]+)(?:\{([a-z]+)="([^"\\]+)"\})? (-?[0-9.e+-]+)')


def read(url: str) -> tuple[str, str]:
    with urllib.request.urlopen(url, timeout=GUARD_S) as reply:
        return reply.headers["Content-Type"], reply.read().decode()


def test_a_run_is_measured_while_it_goes_on(start: Starter, simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate(latency="constant:600")
    source, folder = write_rows(tmp_path / "in.jsonl", rows_with_ids(30)), tmp_path / "out"
    command: list[str | Path] = ["run", "--input", source, "--output", folder, "--id", "id", "--model", MODEL]
    command += ["--base-url", simulator.url, "--set", "limits.in_flight=20", "--set", "poll.eagerness=100"]
    child = start(*command, "--metrics-port", "0")
    log = folder / "_batchfox" / "log.jsonl"
    served = eventually(lambda: log.exists() and re.search(r'"url":"([^"]+)"', log.read_text()), "the address")
    eventually(lambda: simulator.book()["totals"]["submits_received"] == 20 or child.is_over(), "tasks")
    eventually(lambda: "batchfox_submits_total 20" in read(served[1])[1], "their replies")
    kind, text = read(served[1])
    assert kind.startswith("text/plain; version=0.0.4")
    families = re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M)
    samples = [SAMPLE.fullmatch(line) for line in text.splitlines() if not line.startswith("#")]
    assert all(samples), text
    found = {(match[1], match[3]): float(match[4]) for match in samples if match}
    assert found["batchfox_in_flight", None] == 20
    assert found["batchfox_rows_total", "completed"] == 0
    assert found["batchfox_binds", "in flight"] in (0, 1)
    assert {name for name, _ in found} <= {name for name, _ in families}
    documented = re.findall(
        r"^\| `(batchfox_\w+)` \| (\w+) \| (\S*) ?\| (.+) \|$", (ROOT / "docs/metrics.md").read_text(), re.M
    )
    assert [(name, kind) for name, kind, _, _ in documented] == families
    says = dict(re.findall(r"^# HELP (\S+) (.+)$", text, re.M))
    assert {name: meaning for name, _, _, meaning in documented} == says
    with pytest.raises(urllib.error.HTTPError, match="404"):
        read(served[1].replace("/metrics", "/else"))
    put_forward(simulator, 600)
    simulator.control(latency="constant:0.02")
    assert child.wait() == 0, child.err


def test_a_port_that_is_taken_is_told_before_anything_begins(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(1))
    job = Job.from_dict(
        {
            "input": {"path": str(source)},
            "request": {"model": MODEL},
            "api": {"base_url": "simulator"},
            "output": {"path": str(tmp_path / "out")},
        }
    )
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"--metrics-port {port}: Address already in use; choose another"):
            run(job, metrics_port=port)
    assert not (tmp_path / "out").exists()
