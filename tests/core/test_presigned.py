"""When presigned links end."""

from __future__ import annotations

import pytest

from batchfox.core.presigned import expires_at

AT = 1_790_000_000  # 2026-09-21T14:13:20Z


@pytest.mark.parametrize(
    ("query", "ends"),
    [
        ("X-Amz-Date=20260921T141320Z&X-Amz-Expires=600&X-Amz-Signature=x", AT + 600),
        ("X-Goog-Date=20260921T141320Z&X-Goog-Expires=60", AT + 60),
        ("sv=1&se=2026-09-21T14%3A13%3A20Z&sig=x", AT),
        ("AWSAccessKeyId=a&Expires=1790000000&Signature=x", AT),
        ("Expires=1790000000", None),
        ("X-Amz-Date=never&X-Amz-Expires=600", None),
        ("X-Amz-Date=20260921T141320Z&X-Amz-Expires=99999999999999999999", None),
        ("", None),
    ],
)
def test_the_end_of_a_link(query: str, ends: int | None) -> None:
    assert expires_at(f"https://bucket.example/a.png?{query}") == ends
