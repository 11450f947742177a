"""`--where`: which rows of a part a condition fits, and what is said of one that is wrong."""

from __future__ import annotations

import pyarrow as pa
import pytest

from batchfox.errors import UserError
from batchfox.narrowing import Where

TABLE = pa.table(
    {
        "row": [0, 1, 2, 3],
        "code": ["x", "y", None, "it's 5%"],
        "n": pa.array([1, 2, 3, None], pa.int16()),
        "share": [0.5, None, -1e3, 2.0],
        "at": pa.array([0, 10**12, None, 5], pa.timestamp("us", "UTC")),
        "day": pa.array([0, 1, None, 3], pa.date32()),
        "is_on": [True, False, None, True],
        "list": [["a"], [], None, ["b"]],
        "a column": ["p", "q", "r", "s"],
        "and": [1, 2, 3, 4],
    }
)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("code = 'x'", [0]),
        ("code == 'x' OR code='y'", [0, 1]),
        ("code != 'x'", [1, 3]),
        ("not code = 'x'", [1, 3]),
        ("not not code = 'x'", [0]),
        ("code = 'it''s 5%'", [3]),
        ("code in ('x', 'y')", [0, 1]),
        ("code not in ('x')", [1, 3]),
        ("not (code in ('x'))", [1, 3]),
        ("code like '%5%' and n is null", [3]),
        ("code not like '_'", [3]),
        ("code is null", [2]),
        ("code is not null and n >= 2", [1]),
        ("n > 1.5", [1, 2]),
        ("n in (1, 3)", [0, 2]),
        ("n not in (1, 2.5, 1e9)", [1, 2]),
        (f"n in ({', '.join(map(str, range(2, 5000)))})", [1, 2]),
        ("n < 100000", [0, 1, 2]),
        ("share <= -1e3 or share = 2", [2, 3]),
        ("at > '1970-01-05'", [1]),
        ("at = '1970-01-01T01:00:00+01:00'", [0]),
        ("day <> '1970-01-01'", [1, 3]),
        ("is_on = true", [0, 3]),
        ("list is not null", [0, 1, 3]),
        ("\"a column\" = 'q'", [1]),
        ('"and" = 2', [1]),
        # and binds closer than or
        ("code = 'x' or code = 'y' and n = 7", [0]),
        ("(code = 'x' or code = 'y') and n = 7", []),
    ],
)
def test_what_fits(text: str, rows: list[int]) -> None:
    assert TABLE.filter(Where(text).fit(TABLE.schema).expression)["row"].to_pylist() == rows


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        ("", "at its end", "a column's name"),
        ("code", "at its end", "is null"),
        ("code =", "at its end", "a value"),
        ("code = x", "at character 8", "a value: 'text'"),
        ("code = 'x", "at character 8", "not closed"),
        ("code ~ 'x'", "at character 6", "'~'"),
        ("code = 'x' n = 1", "at character 12", "got n"),
        ("(code = 'x'", "at its end", "expected )"),
        ("code in ()", "at character 10", "a value"),
        ("code in 'x'", "at character 9", "expected ("),
        ("code = null", "at character 8", "is null"),
        ("code like 5", "at character 11", "text"),
        ("'x' = code", "at character 1", "a column's name"),
        ("cod = 'x'", "at character 1", 'did you mean "code"'),
        ("n = 1 and gone = 'x'", "at character 11", "there are row, code, n"),
        ("code = 1", "at character 8", "code is string, and 1"),
        ("n = 'x'", "at character 5", "int16"),
        ("n = true", "at character 5", "int16"),
        ("n in (1, 'x')", "at character 7", "int16"),
        ("n like 'x'", "at character 1", "int16"),
        ("list = 'a'", "at character 8", "list"),
        ("at > 'soon'", "at character 6", "2026-01-31"),
        ("n in (" + "9" * 40 + ")", "at character 7", "no value of it"),
        ("(" * 300 + "n = 1" + ")" * 300, "at character 101", "deep"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text: str, place: str, said: str) -> None:
    with pytest.raises(UserError) as found:
        Where(text).fit(TABLE.schema)
    assert f"{place}: " in str(found.value)
    assert said in str(found.value)
