"""`run --pilot N`: a sample first, a question, and no row paid twice."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from conftest import GUARD_S, MODEL, Simulate, Starter, by_id, environment, rows_with_ids, write_rows

from batchfox.cli.run import _goes_on


@pytest.mark.parametrize("has_ids", [True, False])
def test_a_pilot_is_asked_about_and_its_rows_are_not_paid_again(
    start: Starter, simulate: Simulate, tmp_path: Path, has_ids: bool
) -> None:
    simulator = simulate()
    rows: list[dict[str, Any]] = rows_with_ids(300)
    for number, row in enumerate(rows):
        row["model"] = "gemini-2.5-pro" if number < 100 else MODEL
        if not has_ids:
            del row["id"]
    source, folder = write_rows(tmp_path / "in.jsonl", rows), tmp_path / "out"
    command = ["run", "--input", str(source), "--output", str(folder), "--base-url", simulator.url]
    command += ["--id", "id"] if has_ids else []
    first = start(*command, "--pilot", "12")
    assert first.wait() == 0, first.err
    assert simulator.book()["totals"]["submits_received"] == 12
    asked = [int(line.split()[-1]) for line in first.out.splitlines() if line.startswith("  asked:    question")]
    assert len(asked) == 12
    assert len([number for number in asked if number < 100]) == 4, "a third is of the other model"
    assert first.out.count("  answered: ") == 12
    assert "pilot: 12 rows, 0 did not complete" in first.out
    assert "not completed: 0.0% (95 %: 0.0% to 24.2%)" in first.out
    expected = re.search(r"credits: ([0-9.]+) \(95 %: ([0-9.]+) to ([0-9.]+)", first.out)
    assert expected is not None
    assert "nobody can be asked here: --yes goes on" in first.err
    assert "--pilot" not in first.out.split("next:")[1]

    own, other = pty.openpty()
    words = [sys.executable, "-m", "batchfox", *command, "--pilot=5"]
    env = environment(TERM="xterm")
    with subprocess.Popen(words, stdin=other, stdout=subprocess.PIPE, stderr=other, env=env) as second:
        os.close(other)
        said = b""
        while b"run the other 283 rows?" not in said:
            said += os.read(own, 65_536)
        assert simulator.book()["totals"]["submits_received"] == 17
        os.write(own, b"y\n")
        assert second.stdout is not None
        out = second.stdout.read().decode()
        assert second.wait(GUARD_S) == 0
        os.close(own)
    assert "all 288 rows that are to be sent" in out
    assert simulator.book()["totals"]["submits_received"] == 300
    ends = by_id(folder)
    assert len(ends) == 300
    assert float(expected[1]) == pytest.approx(sum(row["credits"] for row in ends.values()), rel=0.02)


def test_what_a_pilot_cannot_be_is_refused(start: Starter, simulate: Simulate, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(3))
    command = ["run", "--input", str(source), "--output", str(tmp_path / "out"), "--model", MODEL, "--id", "id"]
    command += ["--base-url", simulate().url]
    children = [start(*command, "--pilot", "2", "--retry", "failed"), start(*command, "--yes")]
    assert [child.wait() for child in children] == [2, 2]
    assert "leave out --retry" in children[0].err
    assert "--yes answers the question of --pilot N" in children[1].err
    assert not (tmp_path / "out").exists()


def test_a_question_that_is_broken_off_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    own, other = pty.openpty()
    with os.fdopen(other) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        os.write(own, b"\x04")  # Ctrl-D
        with pytest.raises(click.Abort):
            _goes_on(5, is_yes=False)
    os.close(own)
    told = capfd.readouterr().err
    assert "run the other 5 rows?" in told
    assert "the pilot's rows are kept; the same command without --pilot goes on" in told
