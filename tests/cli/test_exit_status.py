"""Every exit status of the contract, by the command that a person types."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from conftest import MODEL, Child, Simulate, Starter, environment, eventually, rows_with_ids, write_rows

from batchfox.simulator import SimulatorThread


def command_of(tmp_path: Path, simulator: SimulatorThread, *more: str) -> list[str | Path]:
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(20))
    command: list[str | Path] = ["run", "--input", source, "--output", tmp_path / "out", "--id", "id"]
    return [*command, "--model", MODEL, "--base-url", simulator.url, *more]


def ended(child: Child, status: int) -> Child:
    assert child.wait() == status, child.err
    assert "Traceback" not in child.err
    return child


def test_0_when_every_row_is_completed_and_the_summary_is_on_stdout(
    start: Starter, simulate: Simulate, tmp_path: Path
) -> None:
    command = command_of(tmp_path, simulate())
    first = ended(start(*command, "--limit", "5"), 0)
    assert "20 rows" not in first.out
    whole = ended(start(*command), 0)
    assert "completed         20" in whole.out
    assert "exit 0: every row is completed" in whole.out
    quiet = ended(start(*command, "--quiet"), 0)
    assert quiet.err == ""


def test_2_when_it_cannot_start(start: Starter, tmp_path: Path, simulate: Simulate) -> None:
    assert ended(start("run", "none.toml"), 2).out == ""
    no_key = environment(FOXAPI_API_KEY="")
    assert "FOXAPI_API_KEY" in ended(start(*command_of(tmp_path, simulate()), env=no_key), 2).err


def test_3_when_rows_did_not_complete_and_the_summary_says_why_and_what_next(
    start: Starter, simulate: Simulate, tmp_path: Path
) -> None:
    command = command_of(tmp_path, simulate(faults={"task_rejected": 0.5}))
    child = ended(start(*command), 3)
    assert "why rows did not complete:" in child.out
    assert "exit 3: finished, some rows did not complete" in child.out
    assert child.out.rstrip().endswith("--retry failed")
    ended(start(*command), 3)


@pytest.mark.parametrize(
    ("settings", "options", "says"),
    [
        ({"key_refused": True}, [], "the API refused the key"),
        ({"balance": 0.05}, [], "the balance is spent"),
        ({}, ["--set", "limits.credits=0.05"], "the credit limit is reached"),
        ({"outage": "503"}, ["--set", "limits.time=1s"], "the time limit is reached"),
    ],
    ids=["key", "balance", "credits", "time"],
)
def test_4_when_it_stopped_early(
    start: Starter,
    simulate: Simulate,
    tmp_path: Path,
    settings: dict[str, object],
    options: list[str],
    says: str,
) -> None:
    child = ended(start(*command_of(tmp_path, simulate(**settings), *options)), 4)
    assert says in child.out
    assert " -m batchfox run --input " in child.out


@pytest.mark.parametrize(("number", "status"), [(signal.SIGHUP, 129), (signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_5_while_another_run_holds_the_output_and_128_and_the_signal_when_one_ends_it(
    start: Starter, simulate: Simulate, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    simulator = simulate(latency="constant:600")
    command = command_of(tmp_path, simulator)
    first = start(*command)
    eventually(lambda: simulator.book()["totals"]["submits_accepted"] == 20 or first.is_over(), "tasks in flight")
    assert "another live run holds this output" in ended(start(*command), 5).err
    first.send(number)
    ended(first, status)


def test_1_for_a_bug_and_only_then_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from batchfox import status
    from batchfox.cli import main

    monkeypatch.setattr(status, "look", lambda _: 1 / 0)
    with pytest.raises(SystemExit) as left:
        main(["status", str(tmp_path)])
    assert left.value.code == 1
    said = capsys.readouterr().err
    assert "ZeroDivisionError" in said
    assert "this is a bug; what was recorded is safe" in said


def test_a_signal_ends_the_simulator_as_a_shell_expects(start: Starter) -> None:
    child = start("simulate")
    eventually(lambda: child.out.endswith("\n") or child.is_over(), "the simulator's address")
    child.send(signal.SIGTERM)
    assert child.wait() == 143
