"""The sandbox: no way out of it, no hang, and what is listed does as in Jinja2."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest
from jinja2.sandbox import SandboxedEnvironment
from template_world import COLUMNS, render

from batchfox.core.template import TemplateFailure
from batchfox.errors import JobError

GROWING = "{%% set ns = namespace(x='aa') %%}{%% for i in range(99) %%}%s{%% endfor %%}"


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
