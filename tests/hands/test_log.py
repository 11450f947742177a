"""The log: one JSON object a line, never the key, and never the end of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import KEY

from batchfox.log import Log


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_line_is_one_object_with_its_time_and_level(tmp_path: Path) -> None:
    log = Log(tmp_path / "log.jsonl", quiet=True)
    log.info("row_settled", row="a\nb", text="é", path=Path("/x"))
    log.warning("display_failed")
    log.close()
    first, second = lines_of(tmp_path / "log.jsonl")
    assert (first["event"], first["level"], first["row"], first["text"], first["path"]) == (
        "row_settled",
        "info",
        "a\nb",
        "é",
        "/x",
    )
    assert first["timestamp"].endswith("Z")
    assert second["level"] == "warning"


def test_a_later_run_goes_on_in_the_same_file(tmp_path: Path) -> None:
    for number in range(2):
        log = Log(tmp_path / "log.jsonl", quiet=True)
        log.info("run_begun", run=str(number))
        log.close()
    assert [line["run"] for line in lines_of(tmp_path / "log.jsonl")] == ["0", "1"]


@pytest.mark.parametrize(
    ("level", "file", "terminal"),
    [
        (None, ["i", "w", "e"], ["w", "e"]),
        ("debug", ["d", "i", "w", "e"], ["d", "i", "w", "e"]),
        ("error", ["e"], ["e"]),
    ],
)
def test_levels_say_how_much_is_told_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], level: str | None, file: list[str], terminal: list[str]
) -> None:
    log = Log(tmp_path / "log.jsonl", level=level, form="json")
    assert log.debugs() == (level == "debug")
    for event, tell in (("d", log.debug), ("i", log.info), ("w", log.warning), ("e", log.error)):
        tell(event)
    log.close()
    assert [line["event"] for line in lines_of(tmp_path / "log.jsonl")] == file
    assert [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()] == terminal


def test_quiet_is_silent_on_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = Log(tmp_path / "log.jsonl", level="debug", quiet=True)
    log.error("e")
    log.close()
    assert capsys.readouterr().err == ""
    assert len(lines_of(tmp_path / "log.jsonl")) == 1


def test_secrets_are_hidden_in_both_sinks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = Log(tmp_path / "log.jsonl", key=KEY, level="debug")
    log.debug("request_sent", header=f"Bearer {KEY}", url=f"https://user:password@host/x?X-Signature={KEY}&a=1")
    log.info(KEY, nested={"deep": [KEY]}, error=ValueError(KEY), spelt=KEY.replace("-", "%2D"))
    log.close()
    for text in ((tmp_path / "log.jsonl").read_text(), capsys.readouterr().err):
        assert "request_sent" in text
        assert KEY not in text
        assert "%2D" not in text
        assert "password" not in text


def test_a_log_that_cannot_be_written_costs_lines_and_nothing_else() -> None:
    log = Log(Path("/dev/full"), quiet=True)
    for _ in range(2_000):
        log.info("row_settled", text="x" * 100)
    log.close()
    assert log.lost_lines > 0


def test_there_may_be_no_file_at_all(capsys: pytest.CaptureFixture[str]) -> None:
    log = Log(None)
    log.warning("w")
    log.close()
    assert "w" in capsys.readouterr().err
