"""What must not leave, and what must not be reached: the key, files outside `media.root`, Python, other users' eyes.

The key in answers, errors and pages that echo it is `test_run.py`'s; the doors for media and templates, case by case,
are `test_media.py`'s and `test_template.py`'s. Here all of it holds for commands and whole runs.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import (
    KEY,
    MODEL,
    Child,
    Simulate,
    Starter,
    by_id,
    environment,
    eventually,
    http_reply,
    job_of,
    put_forward,
    raw_server,
    rows_with_ids,
    write_rows,
)

from batchfox import run
from batchfox.api import Api
from batchfox.cli import main
from batchfox.core.sandbox import Sandbox
from batchfox.core.template import Template, TemplateFailure
from batchfox.errors import JobError
from batchfox.simulator import SimulatorThread, digest_of

PASSWORD = "hunter2-swordfish"
SIGNATURE = "c0ffee5igned"
PNG = b"\x89PNG\r\n\x1a\n"


def command_of(source: Path, folder: Path, url: str, *more: str) -> list[str | Path]:
    return ["run", "--input", source, "--id", "id", "--output", folder, "--model", MODEL, "--base-url", url, *more]


def files_of(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# The key.


@pytest.mark.parametrize("form", ["console", "json"])
def test_no_command_shows_the_key_or_leaves_it_in_a_file(
    start: Starter, simulate: Simulate, capsys: pytest.CaptureFixture[str], tmp_path: Path, form: str
) -> None:
    simulator = simulate(faults={"task_rejected": 0.2, "http_502": 0.1, "refuse_503_html": 0.1, "poll_500": 0.1})
    rows = [*rows_with_ids(30), {"id": "bad", "prompt": KEY[:4], "max_tokens": -1}]
    source, out = write_rows(tmp_path / "in.jsonl", rows), tmp_path / "out"
    talk = ("--log-level", "debug", "--log-format", form)
    run_it = command_of(source, out, simulator.url, "--set", "limits.requests_per_minute=60000")
    child = start(*run_it, *talk)
    assert child.wait() == 3, child.err
    assert "Traceback" not in child.err
    said = child.out + child.err
    commands: list[list[str | Path]] = [
        [*run_it, "--dry-run"],
        ["status", out],
        ["status", out, "--json"],
        ["validate", out / "_batchfox" / "job.toml"],
        ["doctor", out],
        command_of(tmp_path / "none.jsonl", out, simulator.url),
    ]
    commands += [["export", out, tmp_path / f"results.{kind}"] for kind in ("jsonl", "csv", "parquet")]
    for command in commands:
        with pytest.raises(SystemExit):
            main([str(word) for word in (*command, *talk)])
        said += "".join(capsys.readouterr())
    assert "Traceback" not in said
    assert KEY not in said
    assert "row_settled" in (out / "_batchfox" / "log.jsonl").read_text()
    for path in files_of(tmp_path):
        assert KEY.encode() not in path.read_bytes(), path


def test_the_process_shows_the_key_to_nobody_while_it_runs(start: Starter, simulate: Simulate, tmp_path: Path) -> None:
    """`ps` shows the command line and the names of the threads; the environment is for the user's own eyes."""
    simulator = simulate(latency="constant:600")
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(3))
    (tmp_path / ".env").write_text(f"FOXAPI_API_KEY={KEY}\n")
    child = start(*command_of(source, tmp_path / "out", simulator.url), env=environment(FOXAPI_API_KEY=""))
    eventually(lambda: simulator.book()["totals"]["submits_accepted"] == 3 or child.is_over(), "tasks")
    proc = Path("/proc") / str(child.pid)
    seen = [proc / "cmdline", *proc.glob("task/*/comm"), *files_of(tmp_path / "out")]
    assert len(seen) > 5
    for path in seen:
        assert KEY.encode() not in path.read_bytes(), path
    environ = (proc / "environ").read_bytes()
    assert KEY.encode() not in environ, "a key from a file is not put into the environment that children inherit"


def test_a_bug_tells_its_traceback_without_the_key(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], simulate: Simulate, tmp_path: Path
) -> None:
    async def stumble(self: Api, body: bytes, *, is_sync: bool) -> Any:
        held = {"Authorization": f"Bearer {KEY}"}  # among the locals of the frame that fails
        raise ZeroDivisionError(f"{len(held)} header of {len(body)} bytes, {is_sync}")

    monkeypatch.setattr(Api, "submit", stumble)
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(3))
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in command_of(source, tmp_path / "out", simulate().url, "--log-level", "debug")])
    said = capsys.readouterr()
    assert left.value.code == 1
    assert "ZeroDivisionError" in said.err
    assert KEY not in said.out + said.err
    assert all(KEY.encode() not in path.read_bytes() for path in files_of(tmp_path / "out"))


async def test_nothing_goes_to_another_host_whatever_api_and_rows_say(tmp_path: Path, start: Starter) -> None:
    """Redirects, ids, links and streams that lead elsewhere, media that lie elsewhere, proxies: nobody else hears."""
    polls = 0

    async def elsewhere(_: bytes, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(http_reply(b"{}"))

    async with raw_server(elsewhere) as other:
        host = other.url.removeprefix("http://")

        async def talk(request: bytes, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal polls
            target = request.split(b" ")[1]
            if b"redirect" in request:
                writer.write(http_reply(b"", "307 Temporary Redirect", f"Location: {other.url}/v1/llm/generations"))
            elif target.startswith(b"/v1/tasks/"):
                polls += 1
                assert b"/v1/tasks/" + other.url.encode() not in target, "an id is quoted"
                if polls <= 2:
                    writer.write(http_reply(b"", "302 Found", f"Location: {other.url}/v1/tasks/x"))
                else:
                    said = {"role": "assistant", "content": other.url, "image_url": other.url}
                    results = [{"choices": [{"message": said}], "url": other.url, "stream": {"url": other.url}}]
                    body: dict[str, Any] = {"status": "completed", "results": results, "next": other.url}
                    writer.write(http_reply(json.dumps(body).encode(), "200 OK", f"Link: <{other.url}>; rel=next"))
            else:
                name = json.loads(request.partition(b"\r\n\r\n")[2])["prompt"]
                ids = {"url": f"{other.url}/task", "host": f"//{host}/x", "dots": f"../..//{host}", "at": f"@{host}/"}
                body = {"id": ids.get(name, "task-1"), "stream": {"url": f"{other.url}/stream"}, "status": "pending"}
                writer.write(http_reply(json.dumps(body).encode(), "200 OK", f"Refresh: 0; url={other.url}"))
            await writer.drain()

        names = ["redirect", "url", "host", "dots", "at", "media"]
        rows: list[dict[str, Any]] = [{"id": name, "prompt": name} for name in names]
        rows[-1]["image_urls"] = [f"{other.url}/a.png"]
        async with raw_server(talk) as server:
            source = write_rows(tmp_path / "in.jsonl", rows)
            proxies = dict.fromkeys(("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"), other.url)
            netrc = tmp_path / "netrc"
            netrc.write_text(f"machine 127.0.0.1 login bob password {PASSWORD}\n")
            child = start(
                *command_of(source, tmp_path / "out", server.url, "--set", 'retry.in_doubt="hold"'),
                env=environment(NETRC=str(netrc), NO_PROXY="", no_proxy="", **proxies),
            )
            while not child.is_over():
                await asyncio.sleep(0.05)
            assert child.wait() == 3, child.err
            assert (other.connections, other.requests) == (0, [])
            bearers = {
                line for request in server.requests for line in request.split(b"\r\n") if b"uthorization" in line
            }
            assert bearers == {f"Authorization: Bearer {KEY}".encode()}
    statuses = {name: row["status"] for name, row in by_id(tmp_path / "out").items()}
    assert statuses == dict.fromkeys(names, "completed") | {"redirect": "in_doubt"}


# Passwords and signatures in the rows' URLs.


SECRET_URLS = [
    f"ftp://bob:{PASSWORD}@files.example/a.png",
    f"ftp://files.example/a.png?X-Amz-Algorithm=AWS4&X-Amz-Signature={SIGNATURE}&X-Amz-Expires=60",
    f"ftp://bob:{PASSWORD}@files.example:8443/a.png?sig={SIGNATURE}#x",
    f"s3://bucket/a.png?token={SIGNATURE}",
    f"gs://{PASSWORD}@bucket/a.png?X-Goog-Signature={SIGNATURE}",
    f"  FTP://bob:{PASSWORD}@files.example/?{SIGNATURE}",
]


@pytest.mark.parametrize("form", ["console", "json"])
def test_passwords_and_signatures_in_urls_are_masked_in_logs_and_in_the_summary(
    start: Starter, simulate: Simulate, tmp_path: Path, form: str
) -> None:
    rows: list[dict[str, Any]] = [
        {"id": f"r{n}", "prompt": "x", "image_urls": [url]} for n, url in enumerate(SECRET_URLS)
    ]
    rows += [{"id": f"v{n}", "prompt": "x", "video_urls": [url]} for n, url in enumerate(SECRET_URLS)]
    rows += [{"id": f"u{n}", "prompt": "x", "image_urls": url} for n, url in enumerate(SECRET_URLS)]
    rows += [{"id": f"m{n}", "prompt": "x", "model": url} for n, url in enumerate(SECRET_URLS)]
    rows += [{"id": f"t{n}", "prompt": "x", "max_tokens": url} for n, url in enumerate(SECRET_URLS)]
    fine = f"https://bob:{PASSWORD}@files.example/a.png?X-Amz-Signature={SIGNATURE}"
    rows.append({"id": "fine", "prompt": "x", "image_urls": [fine]})
    source = write_rows(tmp_path / "in.jsonl", rows)
    talk = ("--log-level", "debug", "--log-format", form)
    child = start(*command_of(source, tmp_path / "out", simulate().url, *talk))
    assert child.wait() == 3, child.err
    log = (tmp_path / "out" / "_batchfox" / "log.jsonl").read_text()
    assert log.count('"row_settled"') == len(rows)
    assert "files.example" in log
    for text in (log, child.err, child.out):
        assert PASSWORD not in text
        assert SIGNATURE not in text


# Files outside `media.root`.


def outside_paths(root: Path, secret: Path) -> list[str]:
    (root / "link.png").symlink_to(secret)
    (root / "parent").symlink_to(secret.parent)
    (root / "chain").symlink_to("parent")
    (root / "proc").symlink_to("/proc/self")
    (root / "far").mkdir()
    return [
        f"../{secret.name}",
        f"far/../../{secret.name}",
        str(secret),
        f"file:{secret}",
        f"file://{secret}",
        f"FILE://LOCALHOST{secret}",
        f"file:..%2F{secret.name}",
        f"file:%2e%2e/{secret.name}",
        f"{root}/../{secret.name}",
        "link.png",
        f"parent/{secret.name}",
        f"chain/{secret.name}",
        "/proc/self/environ",
        "/proc/self/../self/environ",
        "/proc/thread-self/environ",
        "file:///proc/self/environ",
        "proc/environ",
        "/dev/stdin",
        "/dev/fd/0",
        "/etc/passwd",
        "~/.ssh/id_rsa",
        f"~root/../..{secret}",
    ]


def test_no_row_reads_a_file_outside_the_root_in_any_field(simulate: Simulate, tmp_path: Path) -> None:
    """What a row names is sent nowhere, whichever field names it; what lies below the root is."""
    root = tmp_path / "root"
    root.mkdir()
    secret = tmp_path / "secret.png"
    secret.write_bytes(PNG + b"the secret of another folder")
    (root / "mine.png").write_bytes(PNG + b"my own picture")
    paths = outside_paths(root, secret)
    rows: list[dict[str, Any]] = [{"id": "mine", "prompt": "x", "image_urls": ["mine.png"]}]
    for number, path in enumerate(paths):
        blocks = [{"type": kind, kind: {"url": path}} for kind in ("image_url", "video_url", "audio_url", "file_url")]
        rows.append({"id": f"image-{number}", "prompt": "x", "image_urls": [path]})
        rows.append({"id": f"video-{number}", "prompt": "x", "video_urls": [path]})
        rows.append({"id": f"audio-{number}", "audio_url": path})
        for block in blocks:
            message = {"role": "user", "content": [{"type": "text", "text": "x"}, block]}
            rows.append({"id": f"{block['type']}-{number}", "messages": [message]})
    simulator = simulate()
    job = job_of(
        write_rows(tmp_path / "in.jsonl", rows),
        tmp_path / "out",
        simulator.url,
        request={"model": "gemini-2.5-pro"},
        media={"root": str(root)},
    )
    summary = run(job)
    found = by_id(tmp_path / "out")
    assert summary.by_status == {"completed": 1, "invalid": len(rows) - 1}
    assert simulator.book()["totals"]["submits_received"] == 1
    for row in found.values():
        if row["row_id"] != "mine":
            assert row["submits"] == 0
            assert "media.root" in row["error_message"] or row["error_code"].startswith("media"), row["error_message"]
    mine: dict[str, Any] = {"model": "gemini-2.5-pro", "prompt": "x"}
    mine |= {"image_urls": [f"data:image/png;base64,{base64.b64encode(PNG + b'my own picture').decode()}"]}
    assert [entry["digest"] for entry in simulator.book()["entries"]] == [digest_of(mine)]
    for file in files_of(tmp_path / "out"):
        content = file.read_bytes()
        assert b"secret of another" not in content
        assert KEY.encode() not in content


# Templates.


def test_text_of_rows_is_never_a_template(simulate: Simulate, tmp_path: Path) -> None:
    sneaky = "{{ 7 * 7 }}{% for x in range(9) %}x{% endfor %}{{ ''.__class__ }}"
    rows = [{"id": "plain", "prompt": sneaky}, {"id": "nested", "prompt": "{{ prompt }}"}]
    simulator = simulate()
    source = write_rows(tmp_path / "in.jsonl", rows)
    for name, template in (("filled", None), ("rendered", "{{ prompt }}"), ("inside", "> {{ prompt }}")):
        before = len(simulator.book()["entries"])
        run(job_of(source, tmp_path / name, simulator.url, request={"prompt": template}))
        asked = {entry["digest"] for entry in simulator.book()["entries"][before:]}
        prefix = "> " if name == "inside" else ""
        assert asked == {digest_of({"model": MODEL, "prompt": prefix + row["prompt"]}) for row in rows}


ESCAPES = [
    "{{ [].append.__self__ }}",
    "{{ ''.join.__class__ }}",
    "{{ ''.format.__func__ }}",
    "{{ ''.format.__globals__ }}",
    "{{ row.items.__self__.__class__ }}",
    "{{ row | attr('__class__') }}",
    "{{ row | attr('\\x5f\\x5fclass\\x5f\\x5f') }}",
    "{{ row['__class__'] }}",
    "{{ row.__getitem__('a') }}",
    "{{ row.__dict__ }}",
    "{{ tags | map('attr', '__class__') | list }}",
    "{{ tags | groupby('__class__') | list }}",
    "{{ tags | sort(attribute='__class__.__name__') }}",
    "{{ tags | sum(attribute='__class__') }}",
    "{{ tags | map(attribute='__doc__') | join }}",
    "{{ tags | unique(attribute='__class__') | map(attribute='__init__') | list }}",
    "{{ (tags | map('upper')).gi_frame.f_globals }}",
    "{{ (tags | map('upper')).gi_code }}",
    "{{ (tags | map('upper')).__next__.__self__ }}",
    "{{ dict.__subclasses__() }}",
    "{{ dict.fromkeys.__self__.__mro__ }}",
    "{{ range.__class__.__base__ }}",
    "{{ range(1).__class__ }}",
    "{{ namespace.__init__.__globals__['__builtins__'] }}",
    "{{ namespace(x=1)._Namespace__attrs }}",
    "{% set ns = namespace() %}{% set ns.__class__ = 1 %}{{ ns.__class__ }}",
    "{% for x in tags %}{{ loop.__class__ }}{% endfor %}",
    "{% for x in tags %}{{ loop._iterable.__class__ }}{% endfor %}",
    "{% macro m() %}{{ caller.__globals__ }}{% endmacro %}{% call m() %}{% endcall %}",
    "{% macro m() %}x{% endmacro %}{{ m._func.__globals__ }}",
    "{% macro m() %}x{% endmacro %}{{ m._environment }}",
    "{{ self._TemplateReference__context }}",
    "{{ self.__init__ }}",
    "{{ '%s' | format(tags.__class__) }}",
    "{{ '{0.__class__.__mro__}' | format(tags) ~ '{0.__class__}'.format(tags) }}",
    "{{ '{a.__class__}'.format(a=tags) }}",
    "{{ '{0[__class__]}{0.__init__}'.format(tags) }}",
    "{{ ('{0.__class__}' | string).format(1) }}",
    "{{ ('{0.__class__}' | safe).format(1) }}",
    "{{ ('{0.__class__}' | e).format(1) }}",
    "{{ (1).__class__ }}",
    "{{ 1.0.__class__ }}",
    "{{ none.__class__ }}",
    "{{ true.__class__.__subclasses__() }}",
    "{{ nowhere.__class__ }}",
    "{{ nowhere._fail_with_undefined_error.__func__.__globals__ }}",
    "{{ environment }}",
    "{{ config }}",
    "{{ context }}",
    "{{ __builtins__ }}",
    "{{ __import__('os') }}",
    "{{ open('/etc/passwd').read() }}",
    "{{ eval('1') }}",
    "{{ debug() }}",
    "{{ lipsum.__globals__.os }}",
    "{{ 'batchfox need' | attr('__class__') }}",
]


@pytest.mark.parametrize("text", ESCAPES)
def test_no_template_reaches_python(text: str) -> None:
    with pytest.raises((TemplateFailure, JobError)):
        Template(text, "request.prompt", Sandbox()).render({"tags": ["a", "b"], "title": "x"})


# Who may read what.


def kept_open(start: Starter, simulator: SimulatorThread, folder: Path) -> Child:
    """A run that waits for its tasks."""
    source = write_rows(folder / "in.jsonl", rows_with_ids(3))
    child = start(*command_of(source, folder / "out", simulator.url, "--set", "output.rows_per_part=1"))
    eventually(lambda: simulator.book()["totals"]["submits_accepted"] == 3 or child.is_over(), "tasks")
    assert not child.is_over(), child.err
    return child


SECRET_FILES = {"checkpoint.db", "checkpoint.db-wal", "checkpoint.db-shm", "checkpoint.db-reserve", "lock"}


@pytest.mark.parametrize("mask", [0o000, 0o027], ids=oct)
def test_files_are_made_with_the_users_umask_and_the_checkpoint_for_the_user_alone(
    start: Starter, simulate: Simulate, tmp_path: Path, mask: int
) -> None:
    simulator = simulate(latency="constant:600")
    before = os.umask(mask)
    try:
        child = kept_open(start, simulator, tmp_path)
        own = tmp_path / "out" / "_batchfox"
        while_running = {path.name: mode_of(path) for path in own.iterdir() if path.is_file()}
        put_forward(simulator, 600)
        assert child.wait() == 0, child.err
        with pytest.raises(SystemExit) as left:
            main(["export", str(tmp_path / "out"), str(tmp_path / "results.jsonl")])
        assert left.value.code == 0
    finally:
        os.umask(before)
    assert while_running.keys() >= SECRET_FILES
    assert {name: mode for name, mode in while_running.items() if name in SECRET_FILES and mode != 0o600} == {}
    paths = [path for path in (tmp_path / "out").rglob("*") if path.name not in SECRET_FILES]
    assert len(paths) >= 8
    for path in (*paths, tmp_path / "out", tmp_path / "results.jsonl"):
        assert mode_of(path) == (0o777 if path.is_dir() else 0o666) & ~mask, path
    assert {mode_of(path) for path in own.iterdir() if path.name in SECRET_FILES} == {0o600}


def test_a_checkpoint_that_lies_elsewhere_is_for_the_user_alone_too(
    start: Starter, simulate: Simulate, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    simulator = simulate(latency="constant:600")
    source = write_rows(tmp_path / "in.jsonl", rows_with_ids(3))
    more = ("--set", f"output.checkpoint={json.dumps(str(elsewhere / 'state.db'))}")
    before = os.umask(0)
    try:
        child = start(*command_of(source, tmp_path / "out", simulator.url, *more))
        eventually(lambda: simulator.book()["totals"]["submits_accepted"] == 3 or child.is_over(), "tasks")
    finally:
        os.umask(before)
    modes = {path.name: mode_of(path) for path in elsewhere.iterdir()}
    assert modes == dict.fromkeys(("state.db", "state.db-wal", "state.db-shm", "state.db-reserve"), 0o600)
