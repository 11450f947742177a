"""Templates: types kept, nulls refused, text verbatim, no way out of the sandbox and no hang."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2.sandbox import SandboxedEnvironment

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


NESTED = "{% set ns = namespace(l=[1, 1]) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}"
CHAINED = NESTED.replace("[ns.l, ns.l]", "namespace(a=ns.l, b=ns.l)")
TWINS = "{% set a = namespace(l=[1]) %}{% set b = namespace(l=[1]) %}{% for i in range(60) %}{% set a.l = [a.l, a.l] %}"
TWINS += "{% set b.l = [b.l, b.l] %}{% endfor %}"
LONG = "x" * 100_000
TEN = "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]"
BOMBS = [
    "{{ ('x' * 60000000) | batch(1) | list | length }}",
    "a {{ ('x' * 60000000) | batch(1) | list | length }}",
    "{{ ('x' * 60000000) | list | length }}",
    "{{ ('x' * 60000000) | slice(2) | list | length }}",
    "{{ 'ab' | slice(100000000) | list | length }}",
    "{{ ('x' * 60000000) | groupby('x') }}",
    "{{ (1).to_bytes(2000000000, 'big') | length }}",
    "{{ '%(a)1000000000d' % {'a': 1} }}",
    "{{ '%(a(b))1000000000d' % {'a(b)': 1} }}",
    "{{ ('%99999d' * 1000) | format(*range(1000)) }}",
    "{{ ('%(a)s' * 100000) % {'a': 'x' * 10000} }}",
    "{{ ('{0:99999}' * 100000).format(5) }}",
    "{{ ('{0}' * 100000).format('x' * 10000) }}",
    "{{ ('{0:' ~ ':' * 1000000 ~ '}').format(1) }}",
    "{{ ('x' * 1000000) | wordwrap(1) }}",
    "{{ ('x ' * 1000000) | wordwrap(3) }}",
    "{{ ('x\\r' * 1000000) | indent(1000) }}",
    "{{ 'x' | replace('x', 'y' * 100000000) }}",
    "{{ ('x' * 1000000).join(range(100000) | map('string')) }}",
    "{{ range(100000) | map('string') | join('x' * 1000000) }}",
    "{{ range(100000) | map('center', 10000) | list | length }}",
    "{{ ((1,) * 60000000) | length }}",
    "{{ ('\U0001f600' * 60000000) | length }}",
    "{{ 1 << 100000000 }}",
    "{{ 1 | round(1000000000, 'floor') }}",
    "{{ ('f' * 20000000) | int(0, 16) // ('f' * 10000000) | int(0, 16) }}",
    "{{ ([[1] * 1000] * 10000) | sum(start=[]) | length }}",
    "{{ [[1]] | tojson(100000000) }}",
    "{{ ('<' * 60000000) | e }}",
    "{{ ('<!--' * 1000000) | striptags }}",
    "{{ ('ab ' * 10000000).split() | length }}",
    "{{ ('a\\n' * 10000000).splitlines() | length }}",
    "{{ ('a' * 1000000).strip('b' * 1000000 ~ 'a') }}",
    "{{ ('a' * 1000000).rfind('b' ~ 'a' * 500000) }}",
    "{{ ('é' * 100000).encode('punycode') }}",
    "{{ ('http://a.' * 100000) | urlize }}",
    "{{ tags | pprint }}",
    "{% for i in range(100000) %}{{ 'x' | center(1000000) }}{% endfor %}",
    "{% for i in range(100000) %}" + LONG + "{% endfor %}",
    "{% for i in range(100000) %}{{ '" + LONG + "' }}{% endfor %}",
    "{% for i in range(100000) %}" + "{% set a = 1 %}" * 500 + "{% endfor %}",
    "{% macro m() %}" + LONG + "{% endmacro %}{% for i in range(60000) %}{{ m() }}{% endfor %}",
    "{% macro m() %}" + "{% set a = 1 %}" * 500 + "{% endmacro %}{% for i in range(60000) %}{{ m() }}{% endfor %}",
    "{% macro m() %}{{ caller() }}{% endmacro %}{% for i in range(60000) %}{% call m() %}"
    + LONG
    + "{% endcall %}{% endfor %}",
    "{% block a %}" + LONG + "{% endblock %}{% for i in range(60000) %}{{ self.a() }}{% endfor %}",
    "{% for x in range(9999) recursive %}{% if loop.depth < 4 %}{{ loop(range(9999)) }}{% endif %}{% endfor %}",
    "".join(f"{{% for {name} in {TEN} %}}" for name in "abcdefgh") + "{% endfor %}" * 8,
    "{% for i in range(200000) %}{% if big == also_big %}{% endif %}{% endfor %}",
    "{% for i in range(200000) %}{% if 'zz' in big %}{% endif %}{% endfor %}",
    "{% for i in range(90000) %}{% if 'zz' in range(90000) %}{% endif %}{% endfor %}",
    "{% for i in range(90000) %}{% set x = big[::-1] %}{% endfor %}",
    *(
        NESTED + use
        for use in ("{{ ns.l }}", "a {{ ns.l }}", "{{ ns.l | tojson }}", "{{ ns.l | upper }}", "{{ ns.l ~ 1 }}")
    ),
    *(
        NESTED + use
        for use in ("{{ '%s' % ns.l }}", "{{ '{}'.format(ns.l) }}", "{{ [ns.l] | join }}", "{{ ns.l | string }}")
    ),
    *(TWINS + use for use in ("{{ a.l == b.l }}", "{{ a.l is eq(b.l) }}", "{{ [a.l, b.l] | unique | list }}")),
    TWINS + "{{ [a.l].index(b.l) }}",
    *(CHAINED + use for use in ("{{ [ns.l] }}", "{{ ns | string }}", "{{ '%s' % ns }}", "{{ '{}'.format(ns) }}")),
]


@pytest.mark.parametrize("text", BOMBS)
def test_no_template_takes_more_than_a_second_or_so(text: str) -> None:
    before = time.process_time()
    with pytest.raises((TemplateFailure, JobError)):
        render(text, COLUMNS | {"big": "x" * 1_000_000, "also_big": "".join(["x"] * 1_000_000)})
    assert time.process_time() - before < 2.5


def test_no_template_takes_much_memory() -> None:
    code = "\n".join(
        [
            "import json, pathlib, re, sys",
            "from batchfox.core.sandbox import Sandbox",
            "from batchfox.core.template import Template, TemplateFailure",
            "from batchfox.errors import JobError",
            "for text in json.load(sys.stdin):",
            "    try:",
            "        Template(text, 'request.prompt', Sandbox()).render({'tags': ['a']})",
            "    except (TemplateFailure, JobError):",
            "        continue",
            "    print('rendered', text[:80])",
            "print(re.search(r'VmHWM:\\s*(\\d+) kB', pathlib.Path('/proc/self/status').read_text())[1])",
        ]
    )
    bombs = [text for text in BOMBS if "60000000" in text or "00000)" in text or LONG in text]
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(bombs), capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 200_000, "kB"


@pytest.mark.parametrize(
    "text",
    [
        "{{ rows | map(attribute='n') | sum }} {{ rows | sum('n') }} {{ rows | map(attribute='s') | join('-') }}",
        "{{ rows | sort(attribute='n', reverse=true) | map(attribute='s') | list }}",
        "{{ rows | groupby('s') | map('first') | list }}",
        "{% for g in rows | groupby('s') %}{{ g.grouper }}{{ g.list | length }}{% endfor %}",
        "{{ rows | selectattr('n', 'gt', 1) | list | length }}",
        "{{ rows | rejectattr('n', 'equalto', 1) | list | length }}",
        "{{ [3, 1, 2, 1] | unique | list }} {{ [3, 1, 2] | sort | list }}",
        "{{ [3, 1, 2] | min }} {{ rows | max(attribute='n') }}",
        "{{ range(7) | batch(3, 'x') | list }} {{ range(7) | slice(3) | map('list') | list }}",
        "{{ range(7) | batch(linecount=2) | list }}",
        "{{ range(6) | select('odd') | list }} {{ range(6) | reject('divisibleby', 3) | list }}",
        "{{ [0, 1] | select | list }}",
        "{{ 'one two three' | wordwrap(5) }} {{ 'one two' | title }}",
        "{{ 'one two' | wordcount }} {{ 'a b&c' | urlencode }}",
        "{{ 'one two three' | truncate(8) }} {{ 'a\\nb' | indent(2, first=true) }}",
        "{{ 'abc' | center(9) }} {{ ' x ' | trim }}",
        "{{ 'xxaxx' | trim('x') }} {{ '<b>x</b>' | striptags }}",
        "{{ 'x' | replace('x', 'y') }} {{ 'aaa' | replace('a', 'b', 2) }}",
        "{{ {'b': 1, 'a': 2} | dictsort }} {{ {'b': 1} | items | list }}",
        "{{ {'b': 1}.items() | list }} {{ {'b': 1}.get('c', 3) }}",
        "{{ 3.14159 | round(2) }} {{ 2.5 | round(method='floor') }} {{ '12' | int + 1 }}",
        "{{ 'ff' | int(0, 16) }} {{ '1.5' | float }}",
        "{{ -3 | abs }} {{ 12345 | filesizeformat }} {{ [1, 2] | first }}",
        "{{ [1, 2] | last }} {{ 'abc' | reverse }} {{ [1] | length }}",
        "{{ 'ABC' | lower | capitalize }} {{ 'abc' | list }} {{ 'abc' | first }}",
        "{{ 5 | string }} {{ 'x' | attr('y') | d('n') }}",
        "{{ 'a,b;c'.split(',') }} {{ 'a b'.split() }} {{ 'a\\nb'.splitlines() }}",
        "{{ ', '.join(['a', 'b']) }} {{ 'abc'.find('c') }}",
        "{{ 'x'.ljust(3) }}| {{ 'x'.zfill(3) }} {{ 'é'.encode('utf-8') | length }}",
        "{{ 'ab'.startswith('a') }} {{ 'aXb'.partition('X') }}",
        "{{ '{:>5.1f}|{!r}|{n}'.format(2.55, 'q', n=1) }} {{ '%05d %-4s| %(x)s' | replace('%(x)s', '') }}",
        "{{ '%05d %s' % (5, 'a') }}",
        "{{ '%(x)3d' % {'x': 5} }} {{ '%(x)s' | format(x=1) }} {{ '5 %' }} {{ '%d%%' % 5 }} {{ '{{}}'.format() }}",
        "{{ 'a' in 'abc' }} {{ 2 in [1, 2] }} {{ 1 < 2 < 3 }} {{ 'abc'[1:] }}",
        "{{ [1, 2, 3][::-1] }} {{ 'b' is in('abc') }} {{ 4 is even }}",
        "{{ 3 is divisibleby 3 }} {{ 'x' is string }} {{ rows is iterable }}",
        "{{ {} is mapping }} {{ 1 is sameas 1 }} {{ 'A' is upper }}",
        "{% for r in rows %}{{ loop.cycle('o', 'e') }}{{ loop.index }}{{ loop.changed(r.s) }}{% endfor %}",
        "{% for x in tree recursive %}{{ x.n }}{% if x.c %}({{ loop(x.c) }}){% endif %}{% endfor %}",
        "{% macro m(a, b=2) %}{{ a }}{{ b }}{{ varargs | length }}{% endmacro %}{{ m(1) }}{{ m(1, 3, 4) }}",
        "{% macro m() %}<{{ caller('x') }}>{% endmacro %}{% call(y) m() %}{{ y }}{% endcall %}",
        "{% block b %}B{% endblock %}{{ self.b() }}",
        "{% filter upper %}abc{% endfilter %}{% set x %}y{{ 1 }}{% endset %}{{ x }}",
        "{% with a = 1 %}{{ a }}{% endwith %}",
        "{% set ns = namespace(n=0) %}{% for r in rows if r.n > 1 %}{% set ns.n = ns.n + r.n %}{% endfor %}{{ ns.n }}",
        "{% for r in rows if r.n > 5 %}{{ r.n }}{% else %}none{% endfor %}",
        "{{ [1, 2] + [3] }} {{ (1, 2) + (3,) }} {{ 7 // 2 }} {{ 7 / 2 }}",
        "{{ 7 - 2 }} {{ 2 ** 8 }} {{ 'ab' ~ 1 }} {{ not false }}",
    ],
)
def test_what_is_listed_does_as_in_jinja2(text: str) -> None:
    columns = {
        "rows": [{"n": 1, "s": "a"}, {"n": 2, "s": "b"}, {"n": 3, "s": "a"}],
        "tree": [{"n": 1, "c": [{"n": 2}, {"n": 3, "c": [{"n": 4}]}]}, {"n": 5}],
    }
    assert render(f"<{text}>", columns) == SandboxedEnvironment().from_string(f"<{text}>").render(columns)


def test_looking_a_thousand_words_up_in_a_thousand_is_no_bomb() -> None:
    words = [f"word-{number}" for number in range(1000)]
    found = render(
        "{% for w in words %}{% if w in known and w in text %}x{% endif %}{% endfor %}",
        {"words": words, "known": words, "text": " ".join(words)},
    )
    assert found == "x" * 1000


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
