"""Media made to fit: bytes before and after, are the cores kept busy, and do polls leave in time meanwhile?

Photos of 12 megapixels and videos of 1280 x 720, every one of other bytes, among rows of text that are submitted and
polled all the while (tasks of `LATENCY_S`). How late polls leave is what the log's `run_ended` tells, over the whole
run. **Busy** is how much of the cores the workers wanted while there was something to make fit: the time that they
ran or waited for a core (schedstat), so that what others do on the machine does not count for or against it.

**body**: memory that building a body with one inline medium takes, as a multiple of the medium (base64 alone is 1.33).

Needs the extra `media` and Linux. Exits 1 beyond a limit.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import children

LATENCY_S = 2.0
TEXTS_A_SECOND = 40
PHOTO_FIT = {"largest_side": 1024}
VIDEO_FIT = {"fps": 1, "height": 360, "seconds": 60}


def make_photo() -> bytes:
    """4000 x 3000, as grainy as a photo: some 3 MB."""
    from PIL import Image

    small = Image.effect_noise((1000, 750), 60)
    picture = Image.merge("RGB", [small.resize((4000, 3000), Image.Resampling.BICUBIC)] * 3)
    made = io.BytesIO()
    picture.save(made, "JPEG", quality=92)
    return made.getvalue()


def make_video(seconds: int) -> bytes:
    """1280 x 720 at 25 frames a second, a pan over a landscape of blurs, as grainy as at night: some 20 Mbit/s."""
    import av
    import numpy as np
    from PIL import Image

    made = io.BytesIO()
    draw = np.random.default_rng(1)
    blurs = Image.fromarray(draw.integers(40, 215, (18, 32, 3), np.uint8)).resize((1280, 720), Image.Resampling.BICUBIC)
    ground = np.asarray(blurs).astype(np.int16)
    with av.open(made, "w", format="mp4") as file:
        stream: Any = file.add_stream("libx264", rate=25, options={"preset": "ultrafast", "crf": "23"})
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        for at in range(seconds * 25):
            grain = draw.integers(-9, 10, (720, 1280, 1), np.int16)
            seen = np.clip(np.roll(ground, 6 * at, axis=1) + grain, 0, 255).astype(np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(seen, format="rgb24")))
        file.mux(stream.encode())
    return made.getvalue()


def write_input(folder: Path, photos: int, videos: int, texts: int) -> None:
    """The media, each with a few bytes of its own at its end, and the rows, media spread among text."""
    media = folder / "media"
    media.mkdir()
    photo, video = make_photo(), make_video(8)
    rows: list[dict[str, Any]] = [{"prompt": f"Say something of fox {n}."} for n in range(texts)]
    for n in range(photos):
        (media / f"{n}.jpg").write_bytes(photo + n.to_bytes(8, "big"))
    for n in range(videos):  # a box that players pass over
        (media / f"{n}.mp4").write_bytes(video + (16).to_bytes(4, "big") + b"free" + n.to_bytes(8, "big"))
    given = [{"prompt": "Describe it.", "image_urls": [f"{n}.jpg"]} for n in range(photos)]
    given += [{"prompt": "Describe it.", "video_urls": [f"{n}.mp4"]} for n in range(videos)]
    # All of them within the first half, so that there is work for the workers from beginning to end.
    step = max(texts // (2 * max(len(given), 1)), 1)
    for at, row in enumerate(given):
        rows.insert(at * (step + 1), row)
    lines = (json.dumps({"id": str(n)} | row) + "\n" for n, row in enumerate(rows))
    (folder / "rows.jsonl").write_text("".join(lines))


def write_job(folder: Path, base_url: str) -> Path:
    tables: dict[str, dict[str, Any]] = {
        "input": {"path": str(folder / "rows.jsonl"), "id": "id"},
        "request": {"model": "gemini-2.5-flash"},
        "api": {"base_url": base_url},
        "limits": {"requests_per_minute": TEXTS_A_SECOND * 60, "in_flight": 400},
        "media": {"root": str(folder / "media"), "image": PHOTO_FIT, "video": VIDEO_FIT},
        "output": {"path": str(folder / "out")},
    }
    import tomli_w

    path = folder / "job.toml"
    path.write_text(tomli_w.dumps(tables))
    return path


def watch(command: list[str], fitted: Path, wanted: int) -> tuple[float, float, float]:
    """Runs it: seconds until all media were made to fit, and of the whole; seconds of cores that the workers wanted."""
    began_at = time.monotonic()
    child = subprocess.Popen(
        [sys.executable, *command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=os.environ | children.KEY
    )
    wants: dict[int, float] = {}
    made_s = first_s = 0.0
    while child.poll() is None:
        time.sleep(0.1)
        if made_s:
            continue
        for path in Path(f"/proc/{child.pid}/task").glob("*/children"):
            for pid in path.read_text().split():
                wants[int(pid)] = wanted_by(int(pid))
        first_s = first_s or (time.monotonic() - began_at if wants else 0.0)
        if fitted.is_dir() and sum(not path.name.startswith(".") for path in fitted.iterdir()) == wanted:
            made_s = time.monotonic() - began_at - first_s
    if child.returncode:
        raise SystemExit(f"{' '.join(command)}: exit {child.returncode}")
    return made_s, time.monotonic() - began_at, sum(wants.values())


def wanted_by(pid: int) -> float:
    """Seconds that a process's threads ran or waited for a core."""
    total = 0
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        try:
            ran, waited, _ = path.read_text().split()
        except OSError:
            continue
        total += int(ran) + int(waited)
    return total / 1e9


def measure_body(megabytes: int) -> float:
    """In this process: what building a body takes beyond what was there, as a multiple of its medium."""
    from batchfox.core.rulebook import RuleBook
    from batchfox.core.sections import Media, Rules
    from batchfox.loading import Load, Loader
    from batchfox.media import MediaDoor

    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "a.wav").write_bytes(b"RIFF\x24\x00\x00\x00WAVEfmt ")
        with (Path(name) / "a.wav").open("r+b") as file:
            file.truncate(megabytes * 10**6)
        media = Media(mode="inline", root=name)
        loader = Loader(MediaDoor(media), media, RuleBook.build(Rules(off=["body_size"])))
        load = loader.weigh({"model": "m", "prompt": "p", "audio_url": "a.wav"})
        assert isinstance(load, Load)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        body, complaints = loader.make(load, {})
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert len(body) > 1.33 * megabytes * 10**6, complaints
    return (after - before) * 1024 / (megabytes * 10**6)


def main() -> None:
    parser = argparse.ArgumentParser(description="Media made to fit: bytes, busy cores, polls in time.")
    parser.add_argument("--photos", type=int, default=100)
    parser.add_argument("--videos", type=int, default=20)
    parser.add_argument("--texts", type=int, default=1600)
    parser.add_argument("--least-busy", type=float, default=0.9, metavar="SHARE", help="of the cores")
    parser.add_argument("--most-ms", type=float, default=200.0, metavar="MS", help="99th percentile of a poll's delay")
    parser.add_argument("--most-body", type=float, default=1.7, metavar="TIMES", help="memory of a body by its medium")
    parser.add_argument("--body", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where the output goes")
    arguments = parser.parse_args()
    if arguments.body:
        print(measure_body(arguments.body))
        return

    cores = len(os.sched_getaffinity(0))
    print(f"{children.describe_machine()}; output on {children.file_system(arguments.folder)}", flush=True)
    body = float(children.run([__file__, "--body", "60"]).output)
    print(f"body: building one with 60 MB inline takes {body:.2f} times the medium", flush=True)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name, children.serve(LATENCY_S) as served:
        folder = Path(name)
        write_input(folder, arguments.photos, arguments.videos, arguments.texts)
        job = write_job(folder, served.base_url)
        fitted = folder / "out" / "_batchfox" / "fitted"
        wanted = arguments.photos + arguments.videos
        made_s, whole_s, wants_s = watch(["-m", "batchfox", "run", str(job), "--quiet"], fitted, wanted)
        for kind, ending, suffix in (("photos", "*.jpg", "*.jpg"), ("videos", "*.mp4", "*.mp4")):
            before = sum(path.stat().st_size for path in (folder / "media").glob(ending))
            after = sum(path.stat().st_size for path in fitted.glob(suffix))
            if before:
                print(f"{kind}: {before / 1e6:,.1f} MB before, {after / 1e6:,.2f} MB after, {after / before:.1%}")
        log = (folder / "out" / "_batchfox" / "log.jsonl").read_text().splitlines()
        ended = next(json.loads(line) for line in reversed(log) if '"run_ended"' in line)
    late_ms = 1000 * ended["polls_late_p99_s"]
    busy = wants_s / (made_s * cores) if made_s else 0.0
    print(
        f"made to fit in {made_s:.1f} s of the run's {whole_s:.1f} s ({made_s / wanted:.2f} s each by {cores} cores), "
        f"load {os.getloadavg()[0]:.1f}"
    )
    print(f"busy: {busy:.2f} of {cores} cores (least {arguments.least_busy})")
    print(f"polls: {ended['polls']:,}, p99 {late_ms:.0f} ms late (most {arguments.most_ms:.0f})")
    is_good = busy >= arguments.least_busy and late_ms < arguments.most_ms and body <= arguments.most_body
    print("within the limits" if is_good else "BEYOND A LIMIT")
    sys.exit(0 if is_good else 1)


if __name__ == "__main__":
    main()
