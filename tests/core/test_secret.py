"""The key is hidden however it is spelt, JSON stays JSON, and what is not the key stays as it is."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchfox.core.secret import Secret

KEY = 'sk-A1/b+"c\\d=9'
SPELLINGS: dict[str, Callable[[str], str]] = {
    "raw": lambda sign: sign,
    "u": lambda sign: f"\\u{ord(sign):04x}",
    "U": lambda sign: f"\\u{ord(sign):04X}",
    "json": lambda sign: json.dumps(sign)[1:-1],
    "percent": lambda sign: f"%{ord(sign):02x}",
    "PERCENT": lambda sign: f"%{ord(sign):02X}",
    "twice": lambda sign: f"%25{ord(sign):02X}",
    "html": lambda sign: f"&#{ord(sign)};",
    "hex": lambda sign: f"&#x{ord(sign):X};",
}


@given(st.lists(st.sampled_from(sorted(SPELLINGS)), min_size=len(KEY), max_size=len(KEY)))
def test_any_mixture_of_spellings_is_hidden(ways: list[str]) -> None:
    spelt = "".join(SPELLINGS[way](sign) for way, sign in zip(ways, KEY, strict=True))
    secret = Secret(KEY)
    assert secret.hide(f"<{spelt}>") == "<[key]>"
    assert secret.hide_bytes(f"<{spelt}>".encode()) == b"<[key]>"


@pytest.mark.parametrize(
    "spelt",
    [
        KEY,
        KEY.replace("/", "\\/"),
        json.dumps(KEY)[1:-1],
        quote(KEY, safe=""),
        quote(KEY),
        "".join(f"\\u{ord(sign):04x}" for sign in KEY),
        KEY.replace("/", "&#x2F;").replace('"', "&quot;"),
    ],
)
@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_it_is_hidden_in_json_inside_json_which_stays_json(spelt: str, depth: int) -> None:
    try:
        text = json.dumps({"said": json.loads(f'"{spelt}"'), "more": 1})
        text = text.replace(json.dumps(KEY), f'"{spelt}"')
    except ValueError:
        text = json.dumps({"said": spelt, "more": 1})
    for _ in range(depth - 1):
        text = json.dumps({"said": text, "more": 1})
    value = json.loads(Secret(KEY).hide_bytes(text.encode()))
    for _ in range(depth - 1):
        value = json.loads(value["said"])
    assert value == {"said": "[key]", "more": 1}


@pytest.mark.parametrize(
    "text",
    ["", "sk-A1", "50 % of it", "\\u00e9t\\u00e9 %20 &amp; \\/ \\\\", KEY[:-1] + "8", KEY.replace("A", "a"), "\\" * 99],
)
def test_what_is_not_the_key_stays_as_it_is(text: str) -> None:
    assert Secret(KEY).hide(text) == text
    assert Secret(KEY).hide_bytes(text.encode()) == text.encode()


def test_without_a_key_nothing_is_hidden() -> None:
    assert Secret("").hide("%73 \\u0073 sk-") == "%73 \\u0073 sk-"
    assert Secret("").hide_bytes(b"%73 \\u0073 sk-") == b"%73 \\u0073 sk-"


def test_it_does_not_show_itself() -> None:
    assert KEY not in repr(Secret(KEY))


@pytest.mark.parametrize("unit", ["\\", "s\\", "%25", "%", "s", "\\u0073", "%73", "&amp;", "&#0", "sk-A1", "\\u0073k-"])
def test_no_reply_makes_it_slow(unit: str) -> None:
    body = (unit * (1_000_000 // len(unit)) + "%\\u00&").encode()
    before = time.process_time()
    Secret(KEY).hide_bytes(body)
    assert time.process_time() - before < 2


def test_an_ordinary_reply_is_not_searched_for_spellings() -> None:
    secret = Secret("sk-0123456789")

    class Unused:
        def sub(self, *_: object) -> str:
            raise AssertionError

    secret._bytes_pattern = Unused()  # type: ignore[assignment]
    body = json.dumps({"content": 'the "answer"\n with https://e.com/a and \u4f60'}).encode()
    assert not re.search(rb"%|&", body)
    assert secret.hide_bytes(body) == body
