"""Templates: types kept, nulls refused, text verbatim, no way out of the sandbox and no hang."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchfox.core.sandbox import Sandbox
from batchfox.core.template import Template, TemplateFailure, is_template
from batchfox.errors import JobError

COLUMNS: dict[str, Any] = {
    "title": "a <cat> & 'dog'",
    "n": 3,
    "x": 1.5,
    "yes": True,
    "null": None,
    "tags": ["a", "b"],
    "holes": ["a", None],
    "meta": {"kind": "k", "null": None, "items": "own", "deep": {"er": 1}, "_id": 7},
    "data": b"\x89PNG",
    "sneaky": "{{ 7*7 }}{% for i in range(9) %}x{% endfor %}{# c #}",
    "image url": "https://e.com/a.png",
}


GROWING = "{%% set ns = namespace(x='aa') %%}{%% for i in range(99) %%}%s{%% endfor %%}"


def template(text: str) -> Template:
    return Template(text, "request.prompt", Sandbox())


def render(text: str, columns: dict[str, Any] | None = None) -> Any:
    return template(text).render(COLUMNS if columns is None else columns)


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
    "text",
    [
        "{{ ''.__class__ }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ ''['__class__'] }}",
        "{{ '' | attr('__class__') }}",
        "{{ tags | map(attribute='__class__') | list }}",
        "{{ title.__init__.__globals__ }}",
        "{{ nowhere.__init__.__globals__ }}",
        "{{ self.__init__.__globals__ }}",
        "{{ range.__globals__ }}",
        "{{ namespace.__init__.__globals__ }}",
        "{{ dict.mro() }}",
        "{{ '{0.__class__}'.format(n) }}",
        "{{ '{x.__class__}'.format_map({'x': n}) }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ cycler('a') }}",
        "{{ joiner() }}",
        "{{ lipsum.__globals__ }}",
        "{{ lipsum(5) }}",
        "{{ tags.append('c') }}",
        "{{ meta.update({'a': 1}) }}",
        "{{ meta.deep.pop('er') }}",
        "{% macro m() %}{{ m.__globals__ }}{% endmacro %}{{ m() }}",
        "{{ (tags | map('upper')).gi_frame }}",
        # Bombs.
        "{{ 'a' * 10**9 }}",
        "{{ 10**9 * 'a' }}",
        "{{ [0] * 10**9 }}",
        "{{ 10 ** 10000 }}",
        "{{ 10 ** 10 ** 10 ** 10 ** 10 }}",
        "{{ range(10**12) }}",
        "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
        "{% for i in range(100000) %}{{ 'abcdefghij' * 1000 }}{% endfor %}",
        GROWING % "{% set ns.x = ns.x ~ ns.x %}",
        GROWING % "{% set ns.x = ns.x + ns.x %}",
        GROWING % "{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}",
        GROWING % "{% set ns.x = ns.x | replace('a', 'aa') %}",
        GROWING % "{% set ns.x = ns.x.replace('a', 'aa') %}",
        GROWING % "{% set ns.x = ns.x.join([ns.x, ns.x]) %}",
        "{% set ns = namespace(x=9) %}{% for i in range(99) %}{% set ns.x = ns.x * ns.x %}{% endfor %}{{ ns.x }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% macro m(i) %}{% if i %}{{ m(i - 1) }}{{ m(i - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
        "{{ '%999999999d' % 5 }}",
        "{{ '%*d' % (999999999, 5) }}",
        "{{ '%999999999d' | format(5) }}",
        "{{ '{:999999999}'.format(5) }}",
        "{{ '{:{}}'.format(5, 999999999) }}",
        "{{ '{x:999999999}'.format_map({'x': 5}) }}",
        "{{ 'a'.center(10**9) }}",
        "{{ 'a'.ljust(10**9) }}",
        "{{ 'a'.zfill(10**9) }}",
        "{{ 'a\tb'.expandtabs(10**9) }}",
        "{{ 'a'.translate({97: 'b'}) }}",
        "{{ 'a' | center(10**9) }}",
        "{{ 'a' | center(width=10**9) }}",
        "{{ 'a' | indent(10**9) }}",
        "{{ 'a' | indent(width=10**9, first=true) }}",
        "{{ tags | batch(10**9, 'x') | list }}",
        "{{ tags | slice(10**9) | list }}",
    ],
)
def test_what_is_unsafe_fails_soon_and_changes_nothing(text: str) -> None:
    before = repr(COLUMNS)
    with pytest.raises(TemplateFailure):
        render(text)
    assert repr(COLUMNS) == before


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
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
