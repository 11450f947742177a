"""The log: JSON lines in `_batchfox/log.jsonl`, and what a person asked to see on stderr. The key is never in it.

Events are named noun_verbed. A line that cannot be written raises nothing: `full` says that the disk is full.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

import msgspec
import structlog

from batchfox.core.complaint import mask, printable
from batchfox.core.secret import Secret
from batchfox.reserve import FULL

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class _Terminal:
    """Standard error as it is now: a live display puts itself in between, so that a line does not go through it."""

    def write(self, text: str) -> None:
        if sys.stderr is not None:
            sys.stderr.write(text)

    def flush(self) -> None:
        if sys.stderr is not None:
            sys.stderr.flush()


class _Console(structlog.dev.ConsoleRenderer):
    """Lines for people, in colours that are read on a light ground as on a dark one: no yellow, green or cyan text."""

    @classmethod
    def get_default_column_styles(cls, colors: bool, force_colors: bool = False) -> structlog.dev.ColumnStyles:
        styles = super().get_default_column_styles(colors, force_colors)
        return replace(styles, kv_key=styles.timestamp) if colors else styles

    @staticmethod
    def get_default_level_styles(colors: bool = True) -> dict[str, str]:
        styles = structlog.dev.ConsoleRenderer.get_default_level_styles(colors)
        reverse = "\x1b[7m"
        return styles | {"warn": reverse, "warning": reverse, "info": "", "debug": ""} if colors else styles


def _tame(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """What rows and the API say, without what a terminal takes for a command or another line."""
    for name, value in event.items():
        if isinstance(value, str) and name != "exception":
            event[name] = printable(value)
    return event


class Log:
    """Both sinks at once. `level` None: info to the file, warnings to the terminal."""

    def __init__(
        self, path: Path | None, *, key: str = "", level: str | None = None, form: str = "console", quiet: bool = False
    ) -> None:
        self._file: TextIO | None = path.open("a", encoding="utf-8") if path is not None else None
        self._secret = Secret(key)
        self.lost_lines = 0
        self.full: OSError | None = None
        self._level = _LEVELS[level or "info"]
        self._sinks: list[tuple[int, Any]] = []
        shared: list[Any] = [structlog.processors.TimeStamper(fmt="iso", utc=True), self._hide_secrets]
        as_json = structlog.processors.JSONRenderer(serializer=_to_json)
        if self._file is not None:
            self._sinks.append((self._level, self._make(self._file, [*shared, as_json])))
        if not quiet:
            is_colored = form == "console" and sys.stderr is not None and sys.stderr.isatty()
            form_of = as_json if form == "json" else _Console(colors=is_colored)
            to_people = [] if form == "json" else [_tame]
            self._sinks.append((_LEVELS[level or "warning"], self._make(_Terminal(), [*shared, *to_people, form_of])))
        self.lowest = min((least for least, _ in self._sinks), default=logging.ERROR)

    def _make(self, stream: Any, processors: list[Any]) -> Any:
        return structlog.wrap_logger(
            structlog.WriteLogger(stream),
            processors=[structlog.processors.add_log_level, *processors, self._hide_key],
            wrapper_class=structlog.BoundLogger,
            cache_logger_on_first_use=True,
        )

    def _hide_secrets(self, _: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        for name, value in event.items():
            if isinstance(value, str):
                text = self._secret.hide(value)
                event[name] = mask(text) if "://" in text else text
        return event

    def _hide_key(self, _: Any, __: str, line: Any) -> Any:
        """The whole line again: what stood inside a list or an exception is text only now."""
        return self._secret.hide(line)

    def debugs(self) -> bool:
        """Does anybody read debug lines? Ask before building one."""
        return self.lowest <= logging.DEBUG

    def debug(self, event: str, **values: Any) -> None:
        self._tell("debug", event, values)

    def info(self, event: str, **values: Any) -> None:
        self._tell("info", event, values)

    def warning(self, event: str, **values: Any) -> None:
        self._tell("warning", event, values)

    def error(self, event: str, **values: Any) -> None:
        self._tell("error", event, values)

    def _tell(self, level: str, event: str, values: dict[str, Any]) -> None:
        number = _LEVELS[level]
        for place, (least, sink) in enumerate(self._sinks):
            if number >= least:
                try:
                    getattr(sink, level)(event, **values)
                except (OSError, ValueError) as error:
                    self.lost_lines += 1
                    is_file = self._file is not None and place == 0
                    if is_file and isinstance(error, OSError) and error.errno in FULL:
                        self.full = error

    def close(self) -> None:
        if self._file is not None:
            try:
                self._file.close()
            except OSError:
                self.lost_lines += 1


def _to_json(value: Any, **_: Any) -> str:
    return msgspec.json.encode(value, enc_hook=str).decode()
