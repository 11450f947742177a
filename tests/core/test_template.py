"""Templates: types kept, nulls refused, text verbatim. (No way out and no hang: `test_sandbox.py`.)"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from template_world import COLUMNS, render, template

from batchfox.core.template import TemplateFailure, is_template
from batchfox.errors import JobError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Describe {{ title }}.", "Describe a <cat> & 'dog'."),
        ("{{ title }}\n", "a <cat> & 'dog'\n"),
        ("a{# nothing #}b", "ab"),
        ("{{ n }} of {{ x }}", "3 of 1.5"),
        # One whole expression keeps its type.
        ("{{ n }}", 3),
        ("{{- n -}}", 3),
        ("{{ x * 2 }}", 3.0),
        ("{{ yes }}", True),
        ("{{ tags }}", ["a", "b"]),
        ("{{ holes }}", ["a", None]),
        ("{{ meta.deep }}", {"er": 1}),
        ("{{ data }}", b"\x89PNG"),
        ("{{ tags | map('upper') }}", ["A", "B"]),
        ("{{ (n, x) }}", [3, 1.5]),
        ("{{ meta.deep.items() }}", [["er", 1]]),
        ("{{ range(3) }}", [0, 1, 2]),
        ("{{ title | escape }}", "a &lt;cat&gt; &amp; &#39;dog&#39;"),
        (" {{ n }}", " 3"),
        # An object's own key before Python's method.
        ("{{ meta.items }}", "own"),
        ("{{ meta._id }}", 7),
        ("{{ meta['kind'] }}", "k"),
        ('{{ row["image url"] }}', "https://e.com/a.png"),
        # A default serves what is undefined and what is null, at any depth.
        ("{{ null | default('d') }}", "d"),
        ("{{ nowhere | default('d') }}", "d"),
        ("{{ null | d(n) }}", 3),
        ("{{ null or 'd' }}", "d"),
        ("{{ nowhere or 'd' }}", "d"),
        ("{{ nowhere.at.all | default('d') }}", "d"),
        ("{{ null.at.all or 'd' }}", "d"),
        ("{{ meta.null | default('d') }}", "d"),
        ("{{ meta['null'].x | default('d') }}", "d"),
        ("{{ row.null | default('d') }}", "d"),
        ("<{{ null | default('') }}>", "<>"),
        ("{{ '' | default('d', true) }}", "d"),
        ("{{ 0 | default('d') }}", 0),
        ("{% if null %}a{% else %}b{% endif %}", "b"),
        ("{% if meta.kind %}a{% endif %}", "a"),
        (
            "{{ null is none }} {{ null is defined }} {{ n is defined }} {{ nowhere is undefined }}",
            "True False True True",
        ),
        ("{{ 'a' if null else 'b' }}", "b"),
        # JSON and joins as a model should read them.
        ("{{ meta.deep | tojson }} {{ title | tojson }}", '{"er": 1} "a <cat> & \'dog\'"'),
        ("{{ tags | join(', ') }}", "a, b"),
        ("{{ tags | map('upper') | join }}", "AB"),
        ("{% for t in tags %}{{ loop.index }}/{{ loop.length }}{{ t }} {% endfor %}", "1/2a 2/2b "),
        ("{% set y = n + 1 %}{{ y }}{{ title | replace('a', 'o') | truncate(5) }}", None),
        ("{% macro m(v) %}[{{ v }}]{% endmacro %}{{ m(n) }}{{ m('x') }}", "[3][x]"),
        ("{% raw %}{{ n }}{% endraw %}", "{{ n }}"),
        # Text that comes from rows is never a template.
        ("{{ sneaky }}", COLUMNS["sneaky"]),
        ("> {{ sneaky }}", "> " + COLUMNS["sneaky"]),
        ("{{ '%s-%02d' | format(n, 5) }} {{ '{:>4}'.format(n) }} {{ 'ab'.center(6) }}", "3-05    3   ab  "),
        ("{{ 'ab' * 2 }} {{ 2 ** 10 }} {{ 7 % 4 }} {{ tags + ['c'] }}", "abab 1024 3 ['a', 'b', 'c']"),
    ],
)
def test_what_a_template_makes(text: str, value: Any) -> None:
    made = render(text)
    if value is not None:
        assert made == value
        assert type(made) is type(value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{{ titel }}", '`titel` is no column (did you mean "title"?); columns: title, n,'),
        ("a {{ titel }}", "`titel` is no column (did you mean"),
        ("{{ null }}", "`null` is null"),
        ("a {{ null }}", "`null` is null"),
        ("{{ null.x }}", "`null` is null"),
        ("{{ null ~ 'x' }}", "`null` is null"),
        ("{{ 'x' + null }}", "`null` is null"),
        ("{{ null == 'x' }}", "`null` is null"),
        ("{{ [null] }}", "`null` is null"),
        ("{{ null | upper }}", "`null` is null"),
        ("{% for t in null %}{% endfor %}", "`null` is null"),
        ("{{ meta.null }}", "`meta.null` is null or missing"),
        ("a {{ meta['nul'] }}", "`meta[nul]` is null or missing"),
        ("{{ row.nul }}", "`row.nul` is null or missing"),
        ("{{ null or meta.null }}", "is null or missing"),
        ("{{ none }}", "is null"),
        ("{{ holes | join }}", "`an item of join` is null"),
        ("{% for t in holes %}{{ t }}{% endfor %}", "`t` is null"),
        ("a {{ 1 if null }}", "no else section"),
        ("a {{ data }}", "`data` is binary"),
        ("a {{ meta.deep.keys }}", "is no value but"),
        ("a {{ tags | map('upper') }}", "is no value but generator"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ n + 'x' }}", "TypeError"),
        ("{{ title.nothing() }}", "has no attribute"),
        ("{{ 'x' | int('y') + 1 }}", "TypeError"),
        ("{{ n() }}", "TypeError"),
    ],
)
def test_what_cannot_be_rendered_is_said_with_the_name_of_the_variable(text: str, said: str) -> None:
    with pytest.raises(TemplateFailure) as failure:
        render(text)
    assert said in str(failure.value)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("{{ tags | urlize }}", 1, "urlize"),
        ("{% for i in tags %}" * 30 + "{% endfor %}" * 30, 1, "nested too deep"),
        ("{{ a", 1, "end of template"),
        ("a\n{{ b }\n", 2, "unexpected"),
        ("{% if a %}", 1, "end of template"),
        ("\n\n{% endif %}", 3, "endif"),
        ("{{ a | nothing }}", 1, "nothing"),
        ("{{ tags | random }}", 1, "random"),
        ("{{ a is nothing }}", 1, "nothing"),
        ("{% include 'a' %}", 1, "cannot load"),
        ("{% import 'a' as b %}", 1, "cannot load"),
        ("{% from 'a' import b %}", 1, "cannot load"),
        ("a\n{% extends 'a' %}", 2, "cannot load"),
        ("{% do x %}", 1, "do"),
    ],
)
def test_what_is_no_template_is_refused_with_place_and_line(text: str, line: int, said: str) -> None:
    with pytest.raises(JobError) as error:
        template(text)
    assert str(error.value).startswith(f"request.prompt: line {line}: ")
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("{{ a }} {{ b.c }} {{ d['e'] }}", {"a", "b", "d"}),
        ("{{ a | default('') }} {{ b or 'x' }} {{ c.d | d(1) }} {{ e.f or 'x' }}", set()),
        ("{{ a | default(b) }} {{ c or d }}", {"b", "d"}),
        ("{{ a | default('') }} {{ a }}", {"a"}),
        ("{{ a | upper | default('') }}", {"a"}),
        ("{% if a %}{{ a }}{% endif %}", set()),
        ("{% if not a and b == 1 %}{{ a }}{% endif %}", {"b"}),
        ("{{ a if a is defined else b }}", {"b"}),
        ("{% for t in tags %}{{ t }}{{ loop.index }}{% endfor %}", {"tags"}),
        ("{% set y = a %}{{ y }}", {"a"}),
        ("{{ range(3) }}{{ dict(a=1) }}{{ row['x'] }}{{ true }}{{ none }}", set()),
        ("plain {# {{ a }} #}", set()),
    ],
)
def test_required_variables_are_those_without_a_default(text: str, names: set[str]) -> None:
    assert template(text).required == names


@pytest.mark.parametrize(
    ("text", "answer"), [("{{ a }}", True), ("{% x %}", True), ("{# x #}", True), ("{ a }", False), ("{", False)]
)
def test_a_string_is_a_template_where_it_says_so(text: str, answer: bool) -> None:
    assert is_template(text) is answer


def test_a_column_may_bear_the_name_of_what_the_sandbox_has() -> None:
    columns = {"range": "r", "row": "w", "dict": None}
    assert render("{{ range }}", columns) == "r"
    assert render("{{ range }} {{ row }}", columns) == "r w"
    assert render("{{ dict(a=1) }}", columns) == {"a": 1}


@given(st.text())
def test_any_text_of_a_column_appears_verbatim(text: str) -> None:
    columns = {"a": text}
    assert WHOLE.render(columns) == text
    assert INSIDE.render(columns) == f"<{text}>"
    assert LOOPED.render({"all": [text, text]}) == text + text


WHOLE, INSIDE = template("{{ a }}"), template("<{{ a }}>")
LOOPED = template("{% for a in all %}{{ a }}{% endfor %}")


@given(st.text(st.sampled_from("{}%#ab. |'\"()[]*\n-~"), max_size=30))
def test_any_string_is_a_template_or_refused_and_renders_or_fails(text: str) -> None:
    try:
        compiled = template(text)
    except JobError:
        return
    try:
        compiled.render({"a": "1", "b": None})
    except TemplateFailure as failure:
        assert str(failure)  # noqa: PT017
