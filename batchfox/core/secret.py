"""`Secret`: the API key, and how it is hidden in whatever comes back: raw, or in the escapes of JSON, URLs and HTML.

An echo may spell each letter in its own way (`\\u0073k-…`, `%73k-…`, `&#115;k-…`), and a JSON text inside a JSON text
escapes the escapes. One pattern knows them all; it is tried only where the bytes that every such spelling needs are
there, so that an ordinary reply costs a few searches for a substring.
"""

from __future__ import annotations

import re
from typing import Any, Final

HIDDEN: Final = "[key]"
# What JSON escapes with a bare backslash.
_BARE = '/"\\'
_NAMED = {'"': "quot", "&": "amp", "'": "apos|#39", "<": "lt", ">": "gt"}


class Secret:
    """A key that must not be seen; the empty one is none. It shows itself to nobody by accident."""

    __slots__ = (
        "_bytes",
        "_bytes_escaped",
        "_bytes_pattern",
        "_bytes_signs",
        "_signs",
        "_text",
        "_text_escaped",
        "_text_pattern",
    )

    def __init__(self, key: str) -> None:
        self._text = key
        self._bytes = key.encode()
        pattern = _spellings(key)
        self._text_pattern = re.compile(pattern)
        self._bytes_pattern = re.compile(pattern.encode())
        # What must be there for any letter to be escaped: cheaper to look for than any pattern.
        self._signs = ["%", "&", "\\u00", *(f"\\{letter}" for letter in _BARE if letter in key)]
        self._bytes_signs = [sign.encode() for sign in self._signs if sign[0] == "\\"]
        escaped = _escaped(key)
        self._text_escaped = re.compile(escaped)
        self._bytes_escaped = re.compile(escaped.encode())

    def __repr__(self) -> str:
        return HIDDEN

    def is_in(self, text: str) -> bool:
        """Does the key stand there as it is? Cheap enough for every row."""
        return self._text in text and bool(self._text)

    def is_in_bytes(self, data: bytes) -> bool:
        """The same for what is encoded in a way that leaves text as it is."""
        return self._bytes in data and bool(self._bytes)

    def hide_in(self, value: Any) -> Any:
        """A JSON-like value with the key hidden wherever it stands: in texts, in bytes, in names, at any depth."""
        if isinstance(value, str):
            return self.hide(value)
        if isinstance(value, bytes):
            return self.hide_bytes(value)
        if isinstance(value, dict):
            return {self.hide_in(name): self.hide_in(item) for name, item in value.items()}
        return [self.hide_in(item) for item in value] if isinstance(value, list) else value

    def hide(self, text: str) -> str:
        """The text with `[key]` where the key stood."""
        if not self._text:
            return text
        if self._text in text:
            text = text.replace(self._text, HIDDEN)
        if any(sign in text for sign in self._signs) and self._text_escaped.search(text):
            text = self._text_pattern.sub(HIDDEN, text)
        return text

    def hide_bytes(self, body: bytes) -> bytes:
        """The same for a reply as it came. JSON stays JSON."""
        if not self._bytes:
            return body
        if self._bytes in body:
            body = body.replace(self._bytes, HIDDEN.encode())
        # Every reply passes here: one byte is found in no time, several are not.
        if b"%" in body or b"&" in body or (b"\\" in body and any(sign in body for sign in self._bytes_signs)):
            return self._bytes_pattern.sub(HIDDEN.encode(), body) if self._bytes_escaped.search(body) else body
        return body


def _escaped(key: str) -> str:
    """A pattern for the escape of any letter of the key: found in few replies, and in every spelling but the raw."""
    letters = sorted(set(key))
    codes = "|".join(f"{ord(letter):02x}" for letter in letters)
    bare = "".join(re.escape(letter) for letter in letters if letter in _BARE)
    return rf"[%&\\](?:u00(?i:{codes})|(?:25)*(?i:{codes})|#|[a-z]{{2,4}};{f'|[{bare}]' if bare else ''})"


def _spellings(key: str) -> str:
    """A pattern for the key, each letter raw or escaped. A run of backslashes is taken from its beginning, and whole:
    half of one would leave a broken escape behind."""
    return "".join(_spell(letter, is_first=place == 0) for place, letter in enumerate(key))


def _spell(letter: str, *, is_first: bool) -> str:
    code = ord(letter)
    escape = r"(?<!\\)\\+" if is_first else r"\\+"
    ways = [
        re.escape(letter),
        rf"{escape}u00(?i:{code:02x})",
        rf"%(?:25)*(?i:{code:02x})",
        rf"&(?:amp;)*(?:#0*{code}|#[xX]0*(?i:{code:x}){f'|{_NAMED[letter]}' if letter in _NAMED else ''});",
    ]
    if letter in _BARE:
        ways.append(rf"{escape}{re.escape(letter)}")
    return f"(?:{'|'.join(ways)})"


# No key, nothing to hide.
NO_SECRET: Final = Secret("")
