"""`[notify]` and `[hooks]`: who is told what, and what must not be told."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import KEY, Hearer, Simulate, eventually, job_of, once, rows_with_ids, write_rows

from batchfox import hook, pool, run, telling
from batchfox.core.job import Job
from batchfox.core.notice import notice_of
from batchfox.errors import InputError, JobError, OutputBusyError, UserError
from batchfox.output import hold

TOKEN = "t0ken-s3cret"


@pytest.fixture
def hearers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Hearer]]:
    monkeypatch.setattr(telling, "FIRST_WAIT_S", 0.01)
    found = [Hearer(503, 200), Hearer(200), Hearer(302)]
    yield found
    for one in found:
        one.close()


def test_a_bad_end_is_told_with_retry_and_without_secrets(
    simulate: Simulate, tmp_path: Path, hearers: list[Hearer], monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    unsteady, apprise, lost = hearers
    monkeypatch.setenv("HOOK_URL", f"http://{unsteady.place}/{TOKEN}")
    simulator = simulate(faults={"task_rejected": 0.3}, seed=2)
    source = write_rows(tmp_path / "in.jsonl", [*rows_with_ids(20), {"id": "bad", "prompt": f"{KEY} {'x' * 100_001}"}])
    saw = tmp_path / "hook.py"
    saw.write_text(
        "import os, sys; print(open('seen.json', 'w').write(sys.stdin.read()), 'FOXAPI_API_KEY' in os.environ)"
    )
    monkeypatch.chdir(tmp_path)
    job = job_of(
        source,
        tmp_path / "out",
        simulator.url,
        notify={"webhook": "$HOOK_URL", "urls": [f"json://{apprise.place}/{TOKEN}", f"json://{lost.place}/{TOKEN}"]},
        hooks={"after": [f"{sys.executable} hook.py", f"{sys.executable} -c 'raise SystemExit(7)'", "no-such-command"]},
    )
    summary = run(job)
    assert summary.exit_status == 3
    told = capfd.readouterr().err
    # The webhook said 503 first; Apprise's first address was told once although its second was never reached.
    assert [path for path, _ in unsteady.heard] == [f"/{TOKEN}"] * 2
    assert len(apprise.heard) == 1
    assert len(lost.heard) == telling.TRIES
    body = unsteady.heard[-1][1]
    short = 21 - summary.by_status["completed"]
    assert (body["event"], body["exit_status"], body["run_id"]) == ("failure", 3, summary.run_id)
    assert body["title"] == f"batchfox: {job.name}: {short} rows did not complete"
    assert "1 x invalid, prompt" in body["text"]
    assert body["title"] == apprise.heard[0][1]["title"]
    assert body["text"] == apprise.heard[0][1]["message"]
    assert json.loads((tmp_path / "seen.json").read_text())["by_status"] == summary.by_status
    assert "False" in told
    assert "notify.urls: json://[hidden] took nothing (3 tries)" in told
    assert f"hooks.after: `{sys.executable} -c 'raise SystemExit(7)'` ended with status 7" in told
    assert "hooks.after: `no-such-command`: No such file or directory" in told
    kept = [path.read_bytes() for path in (tmp_path / "out" / "_batchfox").rglob("*") if path.is_file()]
    for secret in (KEY, TOKEN):
        assert secret not in told + json.dumps(unsteady.heard[-1][1]) + json.dumps(apprise.heard[0][1])
        assert not any(secret.encode() in data for data in kept)


def test_spending_is_told_once_a_run_while_it_goes_on(
    simulate: Simulate, tmp_path: Path, hearers: list[Hearer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "BEAT_EVERY_S", 0.01)
    monkeypatch.setattr(pool, "SHOW_EVERY_S", 0.01)
    monkeypatch.chdir(tmp_path)
    hearer, simulator = hearers[1], simulate()
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(70))
    notify = {"webhook": f"http://{hearer.place}/", "spend": 0.1, "success": True}
    job = job_of(source, Path("out"), simulator.url, limits={"in_flight": 2}, notify=notify)
    hearer.may_reply.clear()
    # Who is told holds on until all rows of this execution are sent: it is not waited for.
    with once(lambda: simulator.book()["totals"]["submits_received"] == 60, "the other rows", hearer.may_reply.set):
        assert run(job, limit=60).exit_status == 0
    summary = run(job)
    assert summary.is_resume
    assert summary.whole_run.credits_spent == pytest.approx(0.7)
    assert [body["event"] for _, body in hearer.heard] == ["spend", "success", "success"]
    told = hearer.heard[0][1]
    assert (told["run_id"], told["exit_status"], told["host"]) == (summary.run_id, None, socket.gethostname())
    assert 0.1 < told["whole_run"]["credits_spent"] < 0.6
    assert told["output"] == str(tmp_path / "out")
    assert "notify.spend = 0.1 is passed and the run goes on" in told["text"]
    assert f"output {tmp_path / 'out'} on {socket.gethostname()}" in hearer.heard[1][1]["text"]


def test_whoever_hangs_holds_a_run_up_for_so_long_only(
    simulate: Simulate, tmp_path: Path, hearers: list[Hearer], monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.setattr(telling, "TRY_S", 0.1)
    monkeypatch.setattr(hook, "MOST_S", 0.5)
    monkeypatch.chdir(tmp_path)
    source, command = write_rows(tmp_path / "in.jsonl", rows_with_ids(2)), "sh -c 'sleep 600 & echo $! > pid; wait'"
    job = job_of(
        source,
        tmp_path / "out",
        simulate().url,
        notify={"webhook": f"http://{hearers[1].place}/", "success": True},
        hooks={"after": [command, "sh -c 'kill -9 $$'"]},
    )
    hearers[1].may_reply.clear()
    try:
        assert run(job).exit_status == 0
    finally:
        hearers[1].may_reply.set()
    told = capfd.readouterr().err
    assert f"nobody was told through http://{hearers[1].place}/: no reply in 0.1 s (3 tries)" in told
    assert f"hooks.after: `{command}` was ended: not done after 0.00833 minutes" in told
    assert "hooks.after: `sh -c 'kill -9 $$'` was killed by SIGKILL" in told
    started = Path("/proc", (tmp_path / "pid").read_text().strip(), "stat")
    eventually(lambda: not started.exists() or ") Z " in started.read_text(), "the end of what the hook started")


def test_a_run_that_could_not_begin_is_told_too(simulate: Simulate, tmp_path: Path, hearers: list[Hearer]) -> None:
    notify = {"webhook": f"http://{hearers[1].place}/"}
    job = job_of(tmp_path / "none.jsonl", tmp_path / "out", simulate().url, notify=notify)
    with pytest.raises(InputError):
        run(job)
    ((_, body),) = hearers[1].heard
    assert body["title"].endswith("could not run")
    assert "none.jsonl: no such file" in body["text"]
    assert body["exit_status"] == 2


def test_who_is_told_of_what() -> None:
    def why(status: int, spent: float = 0.0, stopped: str | None = None, **notify: Any) -> str | None:
        tables = {"input": {"path": "x"}, "output": {"path": "y"}}
        job = Job.from_dict({**tables, "notify": {"webhook": "https://example.org"} | notify})
        summary = {"exit_status": status, "stopped": stopped, "whole_run": {"credits_spent": spent}, "run_id": None}
        summary |= {"output": "/data/out", "host": "fox"}
        notice = notice_of("job", summary, job.notify)
        return None if notice is None else notice.why

    assert [why(status) for status in (0, 1, 2, 3, 4, 5, 130, 143)] == [None, *["failure"] * 4, None, None, None]
    assert why(4, stopped="window") is None  # as it was meant
    assert why(0, success=True) == "success"
    assert why(4, stopped="window", success=True) is None
    assert [why(0, spent, spend=10) for spent in (10.0, 10.1)] == [None, "spend"]
    assert why(4, 10.1, "window", spend=10) == "spend"
    assert why(3, 10.1, spend=10) == "failure"


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"notify": {"urls": [f"slack {TOKEN}"]}}, "notify.urls: expected addresses of Apprise"),
        ({"notify": {"webhook": f"ftp://example.org/{TOKEN}"}}, "notify.webhook: expected an http(s) URL"),
        ({"notify": {"webhook": f"https://user:{TOKEN}@example.org"}}, "notify.webhook: expected an http(s) URL"),
        ({"notify": {"success": True}}, "nobody is named who could be told"),
        ({"notify": {"webhook": "https://example.org", "spend": 0}}, "notify.spend: expected credits"),
        ({"hooks": {"after": ["say 'hello"]}}, "hooks.after: expected commands with their quotes closed"),
        ({"notify": {"urls": ["$NOT_SET_ANYWHERE"]}}, "notify.urls: $NOT_SET_ANYWHERE is not set"),
        ({"notify": {"webhook": "$HOOK_WITH_USER"}}, "$HOOK_WITH_USER holds no http(s) URL without a user name"),
        ({"notify": {"urls": [f"nosuchkind://{TOKEN}"]}}, "nosuchkind://[hidden] is no address that Apprise knows"),
        ({"notify": {"webhook": "https://example.org/[hidden]"}}, "is what was kept of an address"),
    ],
)
def test_what_cannot_be_told_is_refused_before_the_run(
    tables: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK_WITH_USER", f"https://user:{TOKEN}@example.org")
    with pytest.raises((JobError, UserError)) as error:
        run(job_of(tmp_path / "in.jsonl", tmp_path / "out", "simulator", **tables))
    assert said in str(error.value)
    assert TOKEN not in str(error.value)


def test_a_hook_holds_no_key_and_is_not_run_for_who_did_not_get_the_output(simulate: Simulate, tmp_path: Path) -> None:
    simulator = simulate()
    source, folder = write_rows(tmp_path / "in.jsonl", rows_with_ids(2)), tmp_path / "out"
    with pytest.raises(JobError, match="holds the API key itself"):
        run(job_of(source, folder, simulator.url, hooks={"after": [f"curl -H {KEY}"]}))
    job = job_of(source, folder, simulator.url, hooks={"after": [f"touch {tmp_path / 'ran'}"]})
    with hold(folder), pytest.raises(OutputBusyError):
        run(job)
    assert not (tmp_path / "ran").exists()
    run(job)
    assert (tmp_path / "ran").exists()
