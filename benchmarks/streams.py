"""A thousand streams at once: memory a stream, and how long after the end of a stream its row is asked about.

A server of its own process streams every task: `CHUNKS` chunks of some 300 bytes, about `EVERY_S` apart, most of
them reasoning. One stream in fifty stands still in the middle for `STALL_S`. The delay is measured by the server, from
the moment that it has written a stream's `done` to the moment that the poll for that task arrives: what lies between
is batchfox hearing the end, deciding, and sending. Memory is the peak of the whole process (wait4), less that of a run
with `--few` streams at once. Exits 1 beyond a limit.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import children

CHUNKS = 50
EVERY_S = 0.4
STALL_S = 5.0
STALLS_ONE_IN = 50
SUBMIT = "/v1/llm/generations"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


class Server:
    """Streams tasks. `delays`: seconds from `done` to the poll, by task, in the order of the polls."""

    def __init__(self) -> None:
        self.tasks = 0
        self.open = 0
        self.most_open = 0
        self.done_at: dict[str, float] = {}
        self.delays: list[float] = []
        self.stalled = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection: requests one after another."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lines = head.lower().split(b"\r\n")
                length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)
                await reader.readexactly(length)
                method, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
                if path.endswith("/stream"):
                    await self.stream(path.split("/")[-2], writer)
                else:
                    self.reply(writer, self.answer(method, path.split("?")[0]))
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def reply(self, writer: asyncio.StreamWriter, said: Any) -> None:
        """JSON."""
        body = json.dumps(said).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)

    def answer(self, method: str, path: str) -> Any:
        """What is said to anything but a stream."""
        if path == "/__figures":
            delays, self.delays = sorted(self.delays), []
            most, self.most_open = self.most_open, 0
            return {"delays": delays, "most_open": most, "stalled": self.stalled}
        if method == "POST":
            self.tasks += 1
            name = f"task-llm-{self.tasks}"
            return {"id": name, "status": "pending", "stream": {"url": f"{SUBMIT}/{name}/stream"}}
        name = path.rsplit("/", 1)[1]
        if (done_at := self.done_at.pop(name, None)) is not None:
            self.delays.append(time.monotonic() - done_at)
        message = {"role": "assistant", "content": "fox " * 10}
        completion = {"object": "chat.completion", "choices": [{"index": 0, "message": message}]}
        return {"id": name, "status": "completed", "results": [completion]}

    async def stream(self, name: str, writer: asyncio.StreamWriter) -> None:
        """All chunks, each at its time."""
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        writer.write(HEAD)
        begun_at = time.monotonic()
        place = int(name.rsplit("-", 1)[1])
        stalls = place % STALLS_ONE_IN == 0
        # They take 0.6 to 1.4 times as long, so that they do not all end at once.
        every_s = EVERY_S * (0.6 + 0.8 * (place * 0.618 % 1.0))
        try:
            for number in range(CHUNKS):
                field = "reasoning_content" if number < CHUNKS - 10 else "content"
                delta = {field: "a thought about foxes, and one more word "[: 40 if number < CHUNKS - 10 else 4]}
                choice = {"index": 0, "delta": delta, "finish_reason": "stop" if number == CHUNKS - 1 else None}
                chunk = {"id": name, "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
                self.write(writer, f"event: chunk\ndata: {json.dumps(chunk | {'padding': 'x' * 80})}\n\n")
                if stalls and number == CHUNKS // 2:
                    self.stalled += 1
                    await asyncio.sleep(STALL_S)
                    begun_at += STALL_S
                await asyncio.sleep(max(begun_at + (number + 1) * every_s - time.monotonic(), 0.0))
            self.done_at[name] = time.monotonic()
            self.write(writer, f'event: done\ndata: {{"total_chunks": {CHUNKS}}}\n\n')
            writer.write(b"0\r\n\r\n")
            await writer.drain()
        finally:
            self.open -= 1

    def write(self, writer: asyncio.StreamWriter, event: str) -> None:
        """One event as one piece of the body."""
        writer.write(f"{len(event):x}\r\n{event}\r\n".encode())


async def serve_forever() -> None:
    """Prints the port; ends with the process."""
    server = await asyncio.start_server(Server().handle, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextlib.contextmanager
def serving() -> Iterator[str]:
    """The server in a process of its own: its address."""
    command = [sys.executable, __file__, "--serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(child.stdout.readline())}"
        finally:
            child.terminate()


def figures(url: str) -> dict[str, Any]:
    """What the server measured since it was asked last."""
    with urllib.request.urlopen(f"{url}/__figures", timeout=10) as reply:
        found: dict[str, Any] = json.load(reply)
        return found


def run(url: str, parent: Path, rows: int, streams: int) -> tuple[children.Used, dict[str, Any]]:
    """One run of so many rows, so many streams at once; every row must have its whole reasoning."""
    with tempfile.TemporaryDirectory(dir=parent) as name:
        folder = Path(name)
        source = folder / "rows.jsonl"
        source.write_text("".join(json.dumps({"id": str(n), "prompt": f"fox {n}"}) + "\n" for n in range(rows)))
        command = ["-m", "batchfox", "run", "--input", str(source), "--output", str(folder / "out"), "--id", "id"]
        command += ["--model", "kimi-k2.6", "--base-url", url, "--quiet"]
        settings = ("request.stream=true", f"limits.in_flight={streams}", "limits.requests_per_minute=60000000")
        for setting in settings:
            command += ["--set", setting]
        used = children.run(command)
        log = (folder / "out" / "_batchfox" / "log.jsonl").read_text()
        assert "stream_broken" not in log, "a stream broke"
        assert f'"completed":{rows}' in log, "not every row is completed"
    return used, figures(url)


def at(share: float, delays: list[float]) -> float:
    """The quantile, milliseconds."""
    return delays[min(int(share * len(delays)), len(delays) - 1)] * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description="A thousand streams at once: memory, and delay at their end.")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=3000)
    parser.add_argument("--few", type=int, default=10)
    parser.add_argument("--most-kb", type=float, default=150.0, metavar="KB", help="memory a stream, at most")
    parser.add_argument("--most-ms", type=float, default=500.0, metavar="MS", help="99th percentile of the delay")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where the output goes")
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(serve_forever())
        return

    print(f"{children.describe_machine()}; output on {children.file_system(arguments.folder)}", flush=True)
    with serving() as url:
        few, _ = run(url, arguments.folder, arguments.few, arguments.few)
        print(f"{arguments.few:>6,} streams: {few.peak_mb:6.1f} MB peak, {few.wall_s:5.1f} s wall", flush=True)
        many, found = run(url, arguments.folder, arguments.rows, arguments.streams)
    delays = found["delays"]
    events = arguments.rows * (CHUNKS + 1)
    each_kb = (many.peak_mb - few.peak_mb) * 1024 / arguments.streams
    print(
        f"{found['most_open']:>6,} streams: {many.peak_mb:6.1f} MB peak, {many.wall_s:5.1f} s wall, "
        f"{(many.cpu_s - few.cpu_s) / events * 1e6:.0f} us CPU an event; "
        f"{found['stalled']} streams stood still for {STALL_S:.0f} s"
    )
    late_ms = at(0.99, delays)
    print(f"from a stream's end to its poll: median {at(0.5, delays):.0f} ms, p99 {late_ms:.0f} ms, of {len(delays):,}")
    limits = f"at most {arguments.most_kb:.0f} kB, {arguments.most_ms:.0f} ms"
    print(f"{each_kb:.0f} kB a stream, p99 of the delay {late_ms:.0f} ms ({limits})")
    is_wide = found["most_open"] >= 0.95 * arguments.streams
    sys.exit(each_kb > arguments.most_kb or late_ms > arguments.most_ms or not is_wide)


if __name__ == "__main__":
    main()
