"""Makes the sample data beside this file. Needs Pillow, PyAV, NumPy and pyarrow; the results are in the repository.

python sample_inputs/make.py
"""

from __future__ import annotations

import json
import math
import struct
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
MEDIA = HERE / "media"
FILMS = HERE / "films"
TALKS = HERE / "talks"
GOOGLE = "https://storage.googleapis.com/cloud-samples-data"
WIKIMEDIA = "https://upload.wikimedia.org/wikipedia/commons"
LION = "https://fal.media/files/lion/AOtzfcyHpx-MOITAUeMrK.jpeg"
ANIMALS = f"{GOOGLE}/video/animals.mp4"


def write_lines(name: str, rows: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (HERE / name).write_text(text, encoding="utf-8")


def draw_images() -> None:
    from PIL import Image, ImageDraw

    for number, (name, color) in enumerate((("sun.png", "gold"), ("sea.jpg", "teal"), ("brick.webp", "firebrick"))):
        image = Image.new("RGB", (320, 240), "white")
        draw = ImageDraw.Draw(image)
        for ring in range(6):
            inset = 15 + ring * 18
            draw.ellipse((inset + number * 8, inset, 320 - inset, 240 - inset), outline=color, width=6)
        image.save(MEDIA / name)


def record_tone() -> None:
    for name, pitch in (("tone_low.wav", 220), ("tone_high.wav", 660)):
        with wave.open(str(MEDIA / name), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(8000)
            samples = (int(9000 * math.sin(2 * math.pi * pitch * at / 8000)) for at in range(8000))
            file.writeframes(b"".join(struct.pack("<h", sample) for sample in samples))


def film_a_ball() -> None:
    import av
    import numpy as np

    with av.open(str(MEDIA / "ball.mp4"), "w") as file:
        stream = file.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for at in range(20):
            picture = np.full((120, 160, 3), 235, np.uint8)
            left = 5 + at * 6
            picture[50:70, left : left + 20] = (200, 40, 40)
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                file.mux(packet)
        for packet in stream.encode():
            file.mux(packet)


def tone(pitch: float, seconds: float, rate: int) -> Iterator[Any]:
    """Frames of a tone, a little to the left."""
    import av
    import numpy as np

    for at in range(0, int(seconds * rate), 1024):
        wave = np.sin(np.arange(at, at + 1024) * 2 * np.pi * pitch / rate).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(np.stack([0.3 * wave, 0.2 * wave]), format="fltp", layout="stereo")
        frame.sample_rate, frame.pts = rate, at
        yield frame


def film_large() -> None:
    """Larger than a model needs: a ball in four seconds of 640 x 480 at 25 frames a second, with sound."""
    import av
    import numpy as np

    FILMS.mkdir(exist_ok=True)
    draw = np.random.default_rng(1)
    for name, color in (("ball_red.mp4", (200, 40, 40)), ("ball_blue.mov", (40, 40, 200))):
        with av.open(str(FILMS / name), "w", container_options={"fflags": "+bitexact"}) as file:
            stream: Any = file.add_stream("libx264", rate=25, options={"crf": "23"})
            stream.width, stream.height, stream.pix_fmt = 640, 480, "yuv420p"
            sound: Any = file.add_stream("aac", rate=44_100, layout="stereo")
            for at in range(100):
                grain = draw.integers(-4, 5, (480, 640, 1))
                picture = (np.linspace(90, 240, 640)[None, :, None] + grain).repeat(3, axis=2).astype(np.uint8)
                left = 10 + at * 5
                picture[200:280, left : left + 80] = color
                file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            file.mux(stream.encode())
            for frame in tone(330, 4.0, 44_100):
                file.mux(sound.encode(frame))
            file.mux(sound.encode())


def record_talks() -> None:
    """Recordings in formats that some models do not take."""
    import av

    TALKS.mkdir(exist_ok=True)
    talks = (
        ("low.flac", "flac", "s16", 110.0),
        ("middle.m4a", "aac", "fltp", 220.0),
        ("high.ogg", "libopus", "fltp", 440.0),
    )
    for name, codec, form, pitch in talks:
        with av.open(str(TALKS / name), "w", container_options={"fflags": "+bitexact"}) as file:
            stream: Any = file.add_stream(codec, rate=48_000, layout="stereo")
            resampler = av.AudioResampler(format=form, layout="stereo", rate=48_000)
            for frame in tone(pitch, 2.0, 48_000):
                for piece in resampler.resample(frame):
                    file.mux(stream.encode(piece))
            file.mux(stream.encode())


def list_demo() -> None:
    subjects = ("a lighthouse", "a night train", "an old harbour", "a fox in the snow", "a market at noon")
    rows: list[dict[str, Any]] = []
    for number in range(100):
        row: dict[str, Any] = {
            "demo_id": f"demo-{number:03d}",
            "subject": subjects[number % 5],
            "words": 5 + number % 7,
        }
        if number % 10 == 3:
            row["image_urls"] = [LION]
        if number % 10 == 7:
            row["video_urls"] = [ANIMALS]
        rows.append(row)
    write_lines("demo.jsonl", rows)


def list_media() -> None:
    images = [
        ("lion", LION, "A lion"),
        ("wikipedia-cat", f"{WIKIMEDIA}/3/3a/Cat03.jpg", "A cat"),
        ("earth", f"{WIKIMEDIA}/9/97/The_Earth_seen_from_Apollo_17.jpg", "The Earth from Apollo 17"),
        ("mona-lisa", f"{WIKIMEDIA}/6/6a/Mona_Lisa.jpg", "A portrait"),
    ]
    rows = [{"image_id": name, "url": url, "title": title} for name, url, title in images]
    write_lines("images.jsonl", rows)
    local = [("sun", "media/sun.png"), ("sea", "media/sea.jpg"), ("brick", "media/brick.webp")]
    write_lines("local_images.jsonl", [{"image_id": name, "path": path} for name, path in local])
    videos = [
        {"video_id": "animals", "url": ANIMALS, "most_labels": 5, "tags": ["animals", "zoo"]},
        {"video_id": "cat", "url": f"{GOOGLE}/video/cat.mp4", "most_labels": 3, "tags": ["cat"]},
        {"video_id": "short", "url": "https://www.youtube.com/shorts/jNQXAC9IVRw", "most_labels": 3, "tags": []},
        {"video_id": "ball", "url": "media/ball.mp4", "most_labels": 3, "tags": ["local"]},
    ]
    write_lines("videos.jsonl", videos)
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(videos), HERE / "videos.parquet")
    photos = [("sun", "sun.png", "a sun"), ("sea", "sea.jpg", "the sea"), ("brick", "brick.webp", "a wall")]
    held = [{"image_id": name, "title": title, "image": (MEDIA / file).read_bytes()} for name, file, title in photos]
    pq.write_table(pa.Table.from_pylist(held), HERE / "images.parquet")
    sounds = [("low", "media/tone_low.wav"), ("high", "media/tone_high.wav")]
    write_lines("audio.jsonl", [{"clip": name, "path": path} for name, path in sounds])


def list_chats() -> None:
    block = {"type": "image_url", "image_url": {"url": LION}}
    turns = ("You are a terse assistant.", "1+1?", "2", "3+3?")
    roles = ("system", "user", "assistant", "user")
    several = [{"role": role, "content": text} for role, text in zip(roles, turns, strict=True)]
    question = [{"type": "text", "text": "What animal is this?"}, block]
    rows: list[dict[str, Any]] = [
        {"chat_id": "plain", "messages": [{"role": "user", "content": "count 1 to 3"}]},
        {"chat_id": "blocks", "messages": [{"role": "user", "content": question}]},
        {"chat_id": "several-turns", "messages": several},
        {"chat_id": "umlaute", "messages": [{"role": "user", "content": "Grüße an den 🦊"}], "temperature": 0.2},
    ]
    write_lines("chat.jsonl", rows)
    bodies = [{"model": "gpt-5.5", "messages": row["messages"], "max_tokens": 64} for row in rows]
    batch = [
        {"custom_id": f"request-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        for number, body in enumerate(bodies)
    ]
    write_lines("openai_batch.jsonl", batch)


if __name__ == "__main__":
    MEDIA.mkdir(exist_ok=True)
    draw_images()
    record_tone()
    film_a_ball()
    film_large()
    record_talks()
    list_demo()
    list_media()
    list_chats()
