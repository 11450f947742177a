"""What names of columns tell: data for `guess.py`, and how a name falls into words."""

from __future__ import annotations

import keyword
import re

from batchfox.core.shape import Kind

# The first that fits wins. An id by one of these names is believed although only a part of the rows was seen.
ID_NAMES = ("id", "custom_id", "uuid", "guid", "key", "row_id", "sample_id", "item_id", "record_id", "_id", "pk")
# These only where every row was seen and no value stood there twice.
WEAK_ID_WORDS = (
    "index",
    "idx",
    "sku",
    "isbn",
    "doi",
    "slug",
    "hash",
    "sha256",
    "md5",
    "filename",
    "file",
    "path",
    "code",
)

ASKING = ("question", "query", "instruction", "instructions", "request", "task", "problem", "message", "input")
BESIDE = ("context", "passage", "input", "document", "background")
TELLING = (
    "text",
    "content",
    "body",
    "review",
    "article",
    "document",
    "sentence",
    "paragraph",
    "comment",
    "post",
    "abstract",
    "description",
    "transcript",
    "email",
    "tweet",
    "headline",
    "title",
    "subject",
    "topic",
    "name",
)
# What a row knows already is not what to ask about.
ANSWERS = frozenset(
    {
        "answer",
        "answers",
        "label",
        "labels",
        "output",
        "response",
        "target",
        "completion",
        "reference",
        "truth",
        "expected",
        "prediction",
        "caption",
        "chosen",
        "rejected",
    }
)
SYSTEM = ("system", "system_message", "system_instruction")

KIND_WORDS: dict[str, Kind] = {
    "image": "image",
    "images": "image",
    "img": "image",
    "photo": "image",
    "picture": "image",
    "thumbnail": "image",
    "screenshot": "image",
    "video": "video",
    "videos": "video",
    "clip": "video",
    "movie": "video",
    "youtube": "video",
    "audio": "audio",
    "sound": "audio",
    "recording": "audio",
    "speech": "audio",
    "voice": "audio",
    "pdf": "file",
    "document": "file",
    "attachment": "file",
}
LESSER = frozenset({"thumbnail", "thumb", "preview", "icon", "avatar", "logo", "cover", "poster", "mask"})

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
# Words of Python and Jinja2, and names that every template has.
_RESERVED = {*keyword.kwlist, "true", "false", "none", "loop", "self", "super", "range", "dict", "namespace"}
_RESERVED |= {"caller", "varargs", "kwargs", "lipsum", "cycler", "joiner"}


def words_of(name: str) -> list[str]:
    """ "imageURL" → image, url; "Product title (EN)" → product, title, en."""
    return [word.lower() for word in _WORD.findall(name)]


def kind_word(name: str) -> Kind | None:
    """The kind of medium that a name speaks of."""
    return next((KIND_WORDS[word] for word in words_of(name) if word in KIND_WORDS), None)


def reach(name: str) -> str:
    """How a template reaches a column: by its name, or as `row["…"]` where the name is no plain identifier."""
    if _PLAIN.fullmatch(name) and name not in _RESERVED:
        return name
    quoted = "".join(letter if letter.isprintable() and letter not in '"\\' else _escape(letter) for letter in name)
    return f'row["{quoted}"]'


def _escape(letter: str) -> str:
    if letter in '"\\':
        return f"\\{letter}"
    return f"\\u{ord(letter):04x}" if ord(letter) < 0x10000 else f"\\U{ord(letter):08x}"
