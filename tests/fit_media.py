"""Small media that do not fit, made for tests, and what a result is."""

from __future__ import annotations

import io
import wave
from typing import Any

import av
import numpy as np
from PIL import Image

# The matrix of a track that is shown as it is, and of one that is turned to the right.
_UPRIGHT = b"\0\1\0\0" + bytes(12) + b"\0\1\0\0" + bytes(12) + b"\x40\0\0\0"
_TURNED = bytes(4) + b"\0\1\0\0" + bytes(4) + b"\xff\xff\0\0" + bytes(16) + b"\x40\0\0\0"


def picture(form: str, width: int = 400, height: int = 200, *, turned: bool = False) -> bytes:
    """White, with a red corner at the top left; `turned`: its EXIF says to turn it to the right."""
    image = Image.new("RGB", (width, height), "white")
    image.paste((200, 0, 0), (0, 0, width // 4, height // 4))
    if form == "HEIF":
        import pillow_heif

        pillow_heif.register_heif_opener()
    exif = Image.Exif()
    if turned:
        exif[0x112] = 6
    made = io.BytesIO()
    image.save(made, form, exif=exif) if turned else image.save(made, form)
    return made.getvalue()


def film(seconds: float = 2.0, width: int = 160, height: int = 120, fps: int = 10, *, turned: bool = False) -> bytes:
    """A red square that crosses from the left, and a tone."""
    made = io.BytesIO()
    with av.open(made, "w", format="mp4") as file:
        stream: Any = file.add_stream("libx264", rate=fps, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        sound: Any = file.add_stream("aac", rate=16_000, layout="stereo")
        for at in range(int(seconds * fps)):
            shown = np.full((height, width, 3), 255, np.uint8)
            shown[10:30, at : at + 20] = (200, 0, 0)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
        file.mux(stream.encode())
        for frame in _beep(seconds, 16_000):
            file.mux(sound.encode(frame))
        file.mux(sound.encode())
    data = made.getvalue()
    if turned:
        at = data.index(_UPRIGHT, data.index(b"tkhd"))
        data = data[:at] + _TURNED + data[at + len(_UPRIGHT) :]
    return data


def _beep(seconds: float, rate: int) -> Any:
    for at in range(0, int(seconds * rate), 1024):
        sine = np.sin(np.arange(at, at + 1024) * 2 * np.pi * 440 / rate).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(np.stack([sine, sine]), format="fltp", layout="stereo")
        frame.sample_rate, frame.pts = rate, at
        yield frame


def look(data: bytes) -> dict[str, Any]:
    """Size, frames and seconds of what a worker made, and where its red is."""
    if data[4:8] == b"ftyp" or data[8:12] == b"WAVE" or data[:3] == b"ID3":
        with av.open(io.BytesIO(data), "r") as file:
            found: dict[str, Any] = {"seconds": round(float((file.duration or 0) / 1e6), 1)}
            if file.streams.audio:
                context: Any = file.streams.audio[0].codec_context
                found["sound"] = (context.name, context.sample_rate, context.channels)
            if file.streams.video:
                frames = list(file.decode(video=0))
                found |= {"size": (frames[0].width, frames[0].height), "frames": len(frames)}
                found["red"] = _red(frames[0].to_ndarray(format="rgb24"))
            return found
    with Image.open(io.BytesIO(data)) as image:
        return {"form": image.format, "size": image.size, "red": _red(np.asarray(image.convert("RGB")))}


def _red(pixels: Any) -> str:
    """The corner where the red is."""
    rows, columns = np.nonzero(pixels[..., 0].astype(int) - pixels[..., 1] > 100)
    if not len(rows):
        return "nowhere"
    down = "top" if rows.mean() < pixels.shape[0] / 2 else "bottom"
    return f"{down} {'left' if columns.mean() < pixels.shape[1] / 2 else 'right'}"


def silence(seconds: float) -> bytes:
    """A silent recording: WAV, stereo, 44.1 kHz."""
    made = io.BytesIO()
    with wave.open(made, "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(44_100)
        file.writeframes(bytes(4 * int(44_100 * seconds)))
    return made.getvalue()
