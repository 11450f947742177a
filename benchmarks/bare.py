"""The bare loop: the least that any aiohttp client pays for a submit and one poll a row.

uvloop, msgspec JSON, one session, 64 workers; nothing is read, checked, limited or kept. `throughput.py` measures
what batchfox adds to it.
"""

from __future__ import annotations

import argparse
import asyncio
from itertools import count

import aiohttp
import msgspec
import uvloop

WORKERS = 64


class Task(msgspec.Struct, gc=False):
    """What is looked at of a reply; the rest is passed over undecoded."""

    id: str
    status: str
    results: msgspec.Raw = msgspec.Raw(b"null")


async def run(base_url: str, rows: int) -> None:
    """Submits `rows` requests and polls each until it is completed."""
    encode = msgspec.json.Encoder().encode
    decode = msgspec.json.Decoder(Task).decode
    submit_url = f"{base_url}/v1/llm/generations"
    numbers = count()
    headers = {"Authorization": "Bearer none", "Accept": "application/json", "Content-Type": "application/json"}

    async def work(session: aiohttp.ClientSession) -> None:
        while (number := next(numbers)) < rows:
            body = encode(
                {
                    "model": "gemini-2.5-flash",
                    "prompt": f"Describe Fox number {number} in one sentence, for a reader who cannot see it.",
                    "image_urls": [f"https://images.example.org/foxes/{number:08d}.jpg"],
                    "max_tokens": 128,
                }
            )
            async with session.post(submit_url, data=body) as response:
                task = decode(await response.read())
            poll_url = f"{base_url}/v1/tasks/{task.id}"
            while task.status != "completed":
                async with session.get(poll_url) as response:
                    task = decode(await response.read())

    connector = aiohttp.TCPConnector(limit=WORKERS)
    async with (
        aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), headers=headers) as session,
        asyncio.TaskGroup() as group,
    ):
        for _ in range(WORKERS):
            group.create_task(work(session))


def main() -> None:
    parser = argparse.ArgumentParser(description="The bare aiohttp loop: submit and one poll a row, nothing kept.")
    parser.add_argument("base_url")
    parser.add_argument("--rows", type=int, default=20_000)
    arguments = parser.parse_args()
    uvloop.run(run(arguments.base_url, arguments.rows))


if __name__ == "__main__":
    main()
