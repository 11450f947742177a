"""What puremagic's table says of a medium's first bytes, where our own short one is silent."""

from __future__ import annotations

from pathlib import Path

from batchfox.core.mime import mime_of, sniff
from batchfox.core.shape import Kind


def type_of(head: bytes, name: str, kind: Kind) -> str | None:
    """The MIME type of a medium of `kind` that begins with `head`; None where it is none. `name`: a path, or ""."""
    suffix = Path(name).suffix
    if (found := mime_of(head, suffix, kind)) is not None and sniff(head) is not None:
        return found
    return mime_of(head, suffix, kind, tell(head)) or found


def tell(head: bytes) -> list[str]:
    """The types that these bytes may be of, the likeliest first."""
    import puremagic

    try:
        return [match.mime_type for match in puremagic.magic_string(head) if match.mime_type]
    except (puremagic.PureError, ValueError):
        return []
