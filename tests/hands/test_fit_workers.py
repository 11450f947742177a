"""The workers that make media fit, and what is kept of their results: against real processes and files."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from conftest import GUARD_S, eventually
from fit_media import film, look, picture

from batchfox.core.fit import AudioFit, ImageFit, VideoFit
from batchfox.core.quantity import Size
from batchfox.core.sections import Media
from batchfox.fit.cache import LEAST_BYTES, Cache
from batchfox.fit.fitter import Fitter
from batchfox.fit.orders import Order, RefusedError
from batchfox.fit.workers import Workers
from batchfox.media import MediaDoor, Parcel

# The first lines of an image of 400 million pixels.
_HEAD = b"IHDR" + (20_000).to_bytes(4, "big") * 2 + bytes((8, 2, 0, 0, 0))
BOMB = (
    b"\x89PNG\r\n\x1a\n"
    + (13).to_bytes(4, "big")
    + _HEAD
    + crc32(_HEAD).to_bytes(4, "big")
    + b"\0\0\0\x64IDAT"
    + bytes(99)
)
# Long enough to be met in the middle, short enough for a slow machine not to be hung by it.
LONG = Order(video=VideoFit(height=1000))


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    made = Workers(GUARD_S)
    yield made
    made.close()


@pytest.fixture(scope="module")
def long_film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("media") / "long.mp4"
    path.write_bytes(film(10.0, 1280, 1080, 2))
    return path


def fit(workers: Workers, data: bytes, order: Order, folder: Path) -> tuple[str | None, bytes]:
    source, target = folder / "source", folder / "target"
    source.write_bytes(data)
    with source.open("rb") as given, target.open("w+b") as made:
        answer = workers.ask(order, given.fileno(), made.fileno())
    return answer.mime, target.read_bytes()


def children() -> list[int]:
    """The worker processes of this one."""
    found = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    pids = [int(pid) for path in found for pid in path.read_text().split()]
    return [pid for pid in pids if b"batchfox.fit.worker" in _command(pid)]


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_a_video_is_upright_short_and_slow_and_one_that_fits_stays(workers: Workers, tmp_path: Path) -> None:
    mime, made = fit(workers, film(turned=True), Order(video=VideoFit(height=80, fps=5)), tmp_path)
    assert mime == "video/mp4"
    assert look(made) | {"seconds": 2.0} == {
        "seconds": 2.0,
        "size": (60, 80),
        "frames": 10,
        "sound": ("aac", 32_000, 1),
        "red": "top right",
    }
    assert fit(workers, film(), Order(video=VideoFit(height=120, fps=10, seconds=2)), tmp_path) == (None, b"")


@pytest.mark.parametrize(
    ("given", "order", "form"),
    [
        (picture("JPEG"), ImageFit(format="webp"), "WEBP"),
        (picture("PNG"), ImageFit(format="jpeg", largest_side=50), "JPEG"),
        (picture("GIF"), ImageFit(largest_side=50), "PNG"),
        (picture("TIFF"), ImageFit(), "JPEG"),
        (picture("JPEG"), ImageFit(quality=20), "JPEG"),
        (picture("GIF"), ImageFit(largest_side=400), None),
        (picture("JPEG", turned=True), ImageFit(), None),
    ],
)
def test_an_image_gets_the_format_that_was_asked_for(
    given: bytes, order: ImageFit, form: str | None, workers: Workers, tmp_path: Path
) -> None:
    mime, made = fit(workers, given, Order(image=order), tmp_path)
    assert mime == (None if form is None else f"image/{form.lower()}")
    if form is not None:
        assert (look(made)["form"], max(look(made)["size"])) == (form, order.largest_side or 400)
        assert look(made)["red"] == "top left"


@pytest.mark.parametrize(
    ("data", "order", "why"),
    [
        (b"ffconcat version 1.0\nfile /etc/hostname\n", Order(video=VideoFit(fps=1)), "Invalid argument"),
        (
            b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/hostname\n",
            Order(audio=AudioFit()),
            "Invalid data",
        ),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", Order(image=ImageFit()), "cannot identify"),
        (picture("PNG")[:300], Order(image=ImageFit(largest_side=50)), "truncated"),
        (film()[:2000], Order(video=VideoFit(fps=1)), "Invalid data found"),
        (BOMB, Order(image=ImageFit(largest_side=50)), "20,000 x 20,000 pixels"),
    ],
    ids=["ffconcat", "playlist", "postscript", "torn image", "torn video", "bomb"],
)
def test_what_is_hostile_or_torn_is_refused_and_the_worker_stays(
    data: bytes, order: Order, why: str, workers: Workers, tmp_path: Path
) -> None:
    fit(workers, picture("PNG"), Order(image=ImageFit(format="jpeg")), tmp_path)
    before = children()
    with pytest.raises(RefusedError, match=why):
        fit(workers, data, order, tmp_path)
    assert children() == before != []


def test_a_worker_that_dies_costs_its_medium_only(long_film: Path, tmp_path: Path) -> None:
    own = Workers(GUARD_S)
    killed: set[int] = set()

    def kill_two() -> None:
        for _ in range(2):
            (pid,) = eventually(lambda: [pid for pid in children() if pid not in killed | others], "a worker")
            killed.add(pid)
            os.kill(pid, signal.SIGKILL)

    others = set(children())
    killer = threading.Thread(target=kill_two)
    killer.start()
    with pytest.raises(RefusedError, match="dies of it, twice: SIGKILL"):
        fit(own, long_film.read_bytes(), LONG, tmp_path)
    killer.join()
    assert len(killed) == 2
    assert fit(own, picture("PNG"), Order(image=ImageFit(format="jpeg")), tmp_path)[0] == "image/jpeg"
    own.close()
    assert set(children()) == others


def test_more_threads_than_workers_wait_for_one(tmp_path: Path) -> None:
    own, others = Workers(GUARD_S, most=1), set(children())

    def ask(number: int) -> str | None:
        folder = tmp_path / str(number)
        folder.mkdir()
        return fit(own, picture("PNG"), Order(image=ImageFit(format="jpeg")), folder)[0]

    with ThreadPoolExecutor(3) as threads:
        assert list(threads.map(ask, range(6))) == ["image/jpeg"] * 6
    assert len(set(children()) - others) == 1
    own.close()


def test_a_medium_has_a_time_limit(long_film: Path, tmp_path: Path) -> None:
    own = Workers(0.3)
    with pytest.raises(RefusedError, match=r"more than 0\.3 s \(media\.fit_time\)"):
        fit(own, long_film.read_bytes(), LONG, tmp_path)
    own.close()


PARENT = """
import sys
from batchfox.fit.workers import Workers
from batchfox.core.fit import VideoFit
from batchfox.fit.orders import Order
with open(sys.argv[1], "rb") as source, open(sys.argv[2], "wb") as target:
    Workers(600).ask(Order(video=VideoFit(height=1000)), source.fileno(), target.fileno())
"""


def test_workers_end_with_a_killed_parent_and_know_no_key(long_film: Path, tmp_path: Path) -> None:
    environment = os.environ | {"FOXAPI_API_KEY": "sk-secret", "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", PARENT, str(long_film), str(tmp_path / "made")]
    with subprocess.Popen(command, env=environment) as parent:

        def worker() -> Any:
            text = "".join(path.read_text() for path in Path(f"/proc/{parent.pid}/task").glob("*/children"))
            return text and b"fit.worker" in _command(int(text)) and int(text)

        pid = eventually(worker, "the worker")
        eventually(lambda: (tmp_path / "made").stat().st_size, "work under way")
        assert b"sk-secret" not in Path(f"/proc/{pid}/environ").read_bytes()
        parent.kill()
    eventually(lambda: b"fit.worker" not in _command(pid), "the end of the worker")


async def test_one_result_for_a_content_wherever_it_comes_from(workers: Workers, tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    data = picture("PNG")
    (tmp_path / "a.png").write_bytes(data)
    fsspec.filesystem("memory").pipe("/photos/a.png", data)
    media = Media(root=[str(tmp_path), "memory://photos"], image=ImageFit(largest_side=50), inline_below=Size(10))
    door = MediaDoor(media)
    uri = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    values = ["a.png", data, uri, "memory://photos/a.png", "https://example.com/a.png"]
    parcels = door.look({"image_urls": values})
    assert isinstance(parcels, list)
    cache = Cache(tmp_path / "fitted", 1)
    with ThreadPoolExecutor(4) as threads:
        fitted = await Fitter(media, door, cache, workers, threads).fit(parcels)
    assert isinstance(fitted, list)
    assert len({parcel.path for parcel in fitted[:4]}) == 1
    assert fitted[4] == parcels[4]
    with door.open(fitted[1]) as file:
        assert look(file.read())["size"] == (50, 25)
    assert [path.name for path in (tmp_path / "fitted").iterdir()] == [Path(fitted[0].path or "").name]
    for parcel in fitted[:4]:
        assert isinstance(parcel, Parcel)
        cache.release(Path(parcel.path or ""))
    assert not any((tmp_path / "fitted").iterdir()), "beyond the bound nothing stays that is not in use"


def test_the_cache_throws_out_what_was_used_longest_ago_and_nothing_in_use(tmp_path: Path) -> None:
    def put(cache: Cache, key: str) -> Path:
        made = cache.begin()
        made.write_bytes(b"x")
        return cache.put(key, ".jpg", made)

    folder = tmp_path / "fitted"
    first = Cache(folder, 3 * LEAST_BYTES)
    for at, key in enumerate("abc"):
        path = put(first, key)
        first.release(path)
        os.utime(path, (at, at))
    first.begin().write_bytes(b"half-done")
    later = Cache(folder, 3 * LEAST_BYTES)
    held = later.take("a")
    assert held is not None
    later.release(put(later, "d"))
    assert sorted(path.name for path in folder.iterdir()) == ["a.jpg", "c.jpg", "d.jpg"]
    put(later, "e")
    put(later, "f")
    put(later, "g")
    assert sorted(path.name for path in folder.iterdir()) == ["a.jpg", "e.jpg", "f.jpg", "g.jpg"], "all in use"
    later.release(held)
    assert later.take("a") is None
    assert later.take("e") == folder / "e.jpg"
