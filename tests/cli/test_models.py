"""`batchfox models`: what the key may use, as a table and as JSON."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import KEY, LOOPBACK_PEM, Simulate, Starter, environment, http_reply, raw_server, saying

from batchfox.cli import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def models(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `batchfox models` in this process: exit status, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FOXAPI_API_KEY", KEY)
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            main(["models", *arguments])
        said = capfd.readouterr()
        assert isinstance(left.value.code, int)
        return left.value.code, said.out, said.err

    return run


def test_the_table_fits_into_80_columns_a_line_a_model(models: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FOXAPI_API_KEY")
    status, out, err = models("--base-url", "simulator")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == ["model", "image", "video", "audio", "file", "in", "out", "notes"]
    rows = {line.split()[0]: line.split()[1:] for line in lines[2 : lines.index("")] if not line.startswith(" ")}
    assert rows["claude-opus-4-7"] == ["10", "-", "-", "yes", "5.00", "25.00", "max_tokens", "needed"]
    assert rows["gpt-5.5"] == ["1", "-", "-", "-", "5.00", "30.00", "max_tokens", "16+"]
    assert rows["gemini-2.5-pro"] == ["10", "10", "yes", "yes", "1.25", "10.00", "thinks;", "YouTube"]
    assert rows["nemotron-3-nano-omni"][:8] == ["1", "1", "yes", "-", "0.01", "a", "call", "one"]
    assert all(len(line) <= 80 for line in lines)
    assert list(rows) == sorted(rows)


def test_json_is_one_object(models: Run, simulate: Simulate) -> None:
    simulator = simulate(models=("house-1",))
    status, out, _ = models("--base-url", simulator.url, "--json")
    assert (status, out.count("\n")) == (0, 1)
    found = json.loads(out)
    assert found["base_url"] == simulator.url
    by_name = {model["id"]: model for model in found["models"]}
    assert by_name["gpt-5.5"]["most_images"] == 1
    assert by_name["house-1"]["is_known"] is False
    assert simulator.book()["totals"]["submits_received"] == 0


def test_a_job_names_its_api_and_its_rules(models: Run, simulate: Simulate) -> None:
    Path("job.toml").write_text(
        f'[input]\npath = "nowhere.jsonl"\n[output]\npath = "out"\n[api]\nbase_url = "{simulate().url}"\n'
        '[[rules.models]]\nmatch = "gpt-5.5"\nmedia = ["image"]\nmost_images = 7\n'
    )
    status, out, _ = models("job.toml", "--json")
    assert status == 0
    assert next(model for model in json.loads(out)["models"] if model["id"] == "gpt-5.5")["most_images"] == 7


def test_a_key_that_is_missing_or_refused(models: Run, simulate: Simulate, monkeypatch: pytest.MonkeyPatch) -> None:
    simulator = simulate(keys=("sk-another",))
    status, out, err = models("--base-url", simulator.url)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "refuses the key in FOXAPI_API_KEY" in err
    assert KEY not in err
    monkeypatch.delenv("FOXAPI_API_KEY")
    status, _, err = models("--base-url", simulator.url, "--key-env", "MY_KEY")
    assert (status, "set the environment variable MY_KEY" in err) == (2, True)
    monkeypatch.setenv("MY_KEY", "sk-another")
    assert models("--base-url", simulator.url, "--key-env", "MY_KEY")[0] == 0


def test_an_api_that_is_gone_or_down(models: Run, simulate: Simulate) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        status, out, err = models("--base-url", f"http://127.0.0.1:{taken.getsockname()[1]}")
    assert (status, out) == (4, "")
    assert "cannot be asked for its models" in err
    status, _, err = models("--base-url", simulate(outage="503").url)
    assert (status, "HTTP 503" in err) == (4, True)


def test_an_address_that_is_no_api(models: Run, simulate: Simulate) -> None:
    status, _, err = models("--base-url", simulate().url + "/elsewhere")
    assert (status, "is api.base_url right?" in err) == (2, True)
    status, _, err = models("--base-url", "simulatr")
    assert (status, 'did you mean "simulator"' in err) == (2, True)


async def test_an_api_behind_a_certificate_of_ones_own(start: Starter) -> None:
    """`SSL_CERT_FILE` names whom to trust beside, or instead of, the system's authorities; nobody else is."""
    models = http_reply(b'{"object":"list","data":[{"id":"m-1","object":"model","capabilities":["text"]}]}')
    async with raw_server(saying(models), is_tls=True) as server:
        for trusted, exit_status in ({}, 4), ({"SSL_CERT_FILE": str(LOOPBACK_PEM)}, 0):
            child = start("models", "--base-url", f"{server.url}/gateway/", env=environment() | trusted)
            assert await asyncio.to_thread(child.wait) == exit_status, child.err
            assert ("certificate verify failed" in child.err) == (exit_status == 4)
            assert ("m-1" in child.out) == (exit_status == 0)
    assert {request.split()[1] for request in server.requests} >= {b"/gateway/v1/configs/llm_generations_models"}
