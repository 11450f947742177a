"""Videos cut and lowered in frame rate and resolution, recordings made mono, and how long either plays, by PyAV.

Runs in a worker. Only formats that hold their data themselves are read: a playlist would lead to other files and hosts.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import IO, Any

from batchfox.core.fit import AudioFit, VideoFit
from batchfox.core.pixels import MOST_PIXELS
from batchfox.fit.orders import RefusedError

_READ = "mov,mp4,matroska,webm,avi,mpeg,mpegvideo,mpegts,flv,asf,ogg,wav,w64,mp3,flac,aac,aiff,amr,caf,ac3,m4v,h264"
_RATE = 16_000
_MP3_BITS = 64_000
_SOUND_RATE = 32_000
_SOUND_BITS = 64_000
# Of a stream that does not tell.
_USUAL_FPS = Fraction(25)
_TURNS = {90: ("transpose", "cclock"), 180: ("hflip", ""), -180: ("hflip", ""), -90: ("transpose", "clock")}


def measure(source: IO[bytes]) -> float | None:
    """Seconds that a recording or a video plays; None where it does not tell."""
    with _open(source) as there:
        if there.duration is not None:
            return float(there.duration / 1_000_000)
        tracks = [float(track.duration * track.time_base) for track in there.streams if track.duration is not None]
        return max(tracks, default=None)


def fit_audio(source: IO[bytes], target: IO[bytes], fit: AudioFit) -> str | None:
    """The MIME type of what was written; None where the recording fits as it is."""
    import av

    codec, name = ("libmp3lame", "mp3") if fit.format == "mp3" else ("pcm_s16le", "wav")
    with _open(source) as there:
        if not there.streams.audio:
            raise RefusedError("it has no sound")
        track = there.streams.audio[0]
        track.codec_context.thread_count = 1
        is_mono = track.codec_context.channels == 1 and track.codec_context.sample_rate == _RATE
        if is_mono and there.format.name == name and track.codec_context.name in (codec, "mp3float", "mp3"):
            return None
        with av.open(target, "w", format=name, container_options={"fflags": "+bitexact"}) as made:
            new: Any = made.add_stream(codec, rate=_RATE, layout="mono")
            if name == "mp3":
                new.bit_rate = _MP3_BITS
            samples = 0
            resampler = av.AudioResampler(format=new.codec_context.format, layout="mono", rate=_RATE)
            for packet in there.demux(track):
                for frame in packet.decode():
                    samples += frame.samples
                    _mux_sound(made, new, resampler, frame)
            _mux_sound(made, new, resampler, None)
            if not samples:
                raise RefusedError("it has no sound that can be decoded")
            made.mux(new.encode(None))
    return "audio/mpeg" if name == "mp3" else "audio/wav"


def fit_video(source: IO[bytes], target: IO[bytes], fit: VideoFit) -> str | None:
    """The MIME type of what was written, an MP4 with H.264 and the sound as AAC; None where the video fits as it is."""
    import av

    with _open(source) as there:
        if not there.streams.video:
            raise RefusedError("it has no picture")
        track = there.streams.video[0]
        track.codec_context.thread_count = 1
        if track.codec_context.width * track.codec_context.height > MOST_PIXELS:
            raise RefusedError(f"{track.codec_context.width:,} x {track.codec_context.height:,} pixels")
        first = next((frame for packet in there.demux(track) for frame in packet.decode()), None)
        if first is None:
            raise RefusedError("it has no picture that can be decoded")
        rate = track.average_rate or track.guessed_rate or _USUAL_FPS
        width, height = _size_of(track, first, fit)
        if _fits(there, first, rate, fit):
            return None
        new_rate = rate if fit.fps is None else min(rate, Fraction(fit.fps).limit_denominator(1000))
        there.seek(0)
        options = {"fflags": "+bitexact"}
        with av.open(target, "w", format="mp4", container_options=options) as made:
            new: Any = made.add_stream("libx264", rate=new_rate, options={"preset": "veryfast", "crf": "25"})
            new.width, new.height, new.pix_fmt = width, height, "yuv420p"
            new.codec_context.thread_count = 1
            sound = _Sound(there, made) if there.streams.audio else None
            picture = _graph(track, first, new_rate, width, height)
            for frame in _frames(there, track, sound, fit.seconds):
                picture.push(frame)
                _mux_pictures(made, new, picture)
            picture.push(None)
            _mux_pictures(made, new, picture)
            made.mux(new.encode(None))
            if sound is not None:
                sound.end()
    return "video/mp4"


def _open(source: IO[bytes]) -> Any:
    import av

    return av.open(source, "r", container_options={"format_whitelist": _READ}, metadata_errors="ignore")


def _fits(there: Any, first: Any, rate: Fraction, fit: VideoFit) -> bool:
    if fit.fps is not None and float(rate) > fit.fps * 1.01:
        return False
    if fit.height is not None and (first.width if first.rotation in (90, -90) else first.height) > fit.height:
        return False
    return fit.seconds is None or (there.duration is not None and there.duration <= (fit.seconds + 0.5) * 1_000_000)


def _size_of(track: Any, first: Any, fit: VideoFit) -> tuple[int, int]:
    """Width and height as shown: square pixels, upright, even."""
    aspect = track.sample_aspect_ratio or Fraction(1)
    width, height = first.width * aspect, Fraction(first.height)
    if first.rotation in (90, -90):
        width, height = height, width
    new_height = height if fit.height is None else min(height, Fraction(fit.height))
    return max(2 * round(width * new_height / height / 2), 2), max(2 * int(new_height / 2), 2)


def _graph(track: Any, first: Any, rate: Fraction, width: int, height: int) -> Any:
    """Frames at the new rate, of the new size, upright."""
    import av

    graph = av.filter.Graph()
    steps = [("fps", f"fps={rate}")]
    if first.rotation in _TURNS:
        steps.append(_TURNS[first.rotation])
        if abs(first.rotation) == 180:
            steps.append(("vflip", ""))
    steps += [("scale", f"w={width}:h={height}"), ("setsar", "sar=1"), ("format", "pix_fmts=yuv420p")]
    last = graph.add_buffer(template=track)
    for name, options in steps:
        step = graph.add(name, options) if options else graph.add(name)
        last.link_to(step)
        last = step
    last.link_to(graph.add("buffersink"))
    graph.configure()
    return graph


def _frames(there: Any, track: Any, sound: _Sound | None, seconds: float | None) -> Iterator[Any]:
    """The pictures up to `seconds`; what sound there is between them is taken on the way."""
    begun: float | None = None
    tracks = [track] if sound is None else [track, sound.track]
    for packet in there.demux(tracks):
        if packet.stream is not track:
            if sound is not None:
                sound.take(packet, seconds)
            continue
        for frame in packet.decode():
            if frame.time is None:
                continue
            begun = frame.time if begun is None else begun
            if seconds is not None and frame.time - begun >= seconds:
                return
            yield frame


def _mux_pictures(made: Any, stream: Any, graph: Any) -> None:
    import av

    while True:
        try:
            frame = graph.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        made.mux(stream.encode(frame))


def _mux_sound(made: Any, stream: Any, resampler: Any, frame: Any) -> None:
    for piece in resampler.resample(frame):
        made.mux(stream.encode(piece))


class _Sound:
    """A video's sound, made mono AAC."""

    def __init__(self, there: Any, made: Any) -> None:
        import av

        self.track = there.streams.audio[0]
        self.track.codec_context.thread_count = 1
        self._made = made
        self._new: Any = made.add_stream("aac", rate=_SOUND_RATE, layout="mono")
        self._new.bit_rate = _SOUND_BITS
        self._resampler = av.AudioResampler(format="fltp", layout="mono", rate=_SOUND_RATE)

    def take(self, packet: Any, seconds: float | None) -> None:
        for frame in packet.decode():
            if seconds is None or frame.time is None or frame.time < seconds:
                _mux_sound(self._made, self._new, self._resampler, frame)

    def end(self) -> None:
        _mux_sound(self._made, self._new, self._resampler, None)
        self._made.mux(self._new.encode(None))
