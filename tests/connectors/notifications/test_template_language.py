"""Templates of one's own: what they may do, and that none of them runs on, grows without end, or gets out."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import TemplateError, TemplateSyntaxError

from headrace.connectors.notifications.content import Renderer
from headrace.connectors.notifications.example_notifications import example
from headrace.connectors.notifications.template_language import LONGEST_OUTPUT, TemplateLanguage, TooMuch, rendered
from headrace.engine.errors import ConfigError

PLAIN, HTML = TemplateLanguage(autoescape=False), TemplateLanguage(autoescape=True)


def made(source: str, language: TemplateLanguage = PLAIN, **values: object) -> str:
    """What a template makes."""
    return rendered(language.compiled(source), values)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{% for a in alerts if a != 'b' %}{{ loop.index }}{{ a }}{{ ', ' if not loop.last }}{% endfor %}", "1a, 2c"),
        ("{% for a in [] %}{% else %}none{% endfor %}", "none"),
        ("{% for a in alerts %}{{ loop.cycle('-', '+') }}{{ loop.length }}{% endfor %}", "-3+3-3"),
        ("{% macro m(x, y='!') %}<{{ x }}{{ y }}>{% endmacro %}{{ m('a') }}{{ m('b', y='?') }}", "<a!><b?>"),
        ("{{ 'x' ~ n ~ 'y' }} {{ 'x' + 'y' }} {{ n * 2 + 1 }} {{ n % 4 }} {{ -n }}", "x7y xy 15 3 -7"),
        ("{{ alerts | map('upper') | join(', ') }} {{ alerts | length }} {{ alerts[:2] | last }}", "A, B, C 3 b"),
        ("{{ missing | default('-') }} {{ 'a-b' | replace('-', '+') }} {{ 2.345 | round(1) }}", "- a+b 2.3"),
        ("{{ {'a': 1}['a'] }} {{ 'yes' if 'a' in ('a', 'b') else 'no' }} {% set x = 3 %}{{ x }}", "1 yes 3"),
        ("{% for i in range(3) %}{{ i }}{% endfor %}{% with y = 2 %}{{ y is even }}{% endwith %}", "012True"),
        ("{% if missing is defined %}a{% elif n > 3 and not n == 8 %}b{% endif %}{# c #}", "b"),
    ],
)
def test_what_texts_need_is_there(source: str, text: str) -> None:
    """As Jinja has it."""
    assert made(source, alerts=["a", "b", "c"], n=7) == text


@pytest.mark.parametrize("source", ["{{ x }}", "{{ 'a' ~ x }}", "{{ x | upper }}", "{{ [ 'a' ] | join(x) ~ x }}"])
def test_html_escapes_what_comes_from_outside(source: str) -> None:
    """However it gets there; nothing marks it as safe."""
    assert "<" not in made(source, HTML, x="<b>")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{{ ''.__class__ }}", "unsafe"),
        ("{{ x.upper() }}", "only say, range, loop.cycle and macros can be called"),
        ("{{ '{0.__class__}'.format(1) }}", "can be called"),
        ("{{ x(*y) }}", "can be called"),
        ("{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}", "recursive"),
        ("{% include 'x' %}", "include cannot be used here"),
        ("{% import 'x' as y %}", "import cannot be used here"),
        ("{% from 'x' import y %}", "from cannot be used here"),
        ("{% extends 'x' %}", "extends cannot be used here"),
        ("{% block a %}{% endblock %}", "block cannot be used here"),
        ("{% set x %}a{% endset %}", "a block of set cannot be used here"),
        ("{% filter upper %}a{% endfilter %}", "filter cannot be used here"),
        ("{% autoescape false %}a{% endautoescape %}", "autoescape cannot be used here"),
        ("{{ 2 ** 9 }}", "** cannot be used here"),
        ("{{ x | safe }}", "No filter named 'safe'"),
        ("{{ 'a' | center(9) }}", "No filter named 'center'"),
        ("{{ [x, x] }}", "a list can only have constants in it"),
        ("{{ {'a': x} }}", "a list can only have constants in it"),
        ("{{ y }}", "puts out a list"),
        ("{{ say }}", "puts out a list"),
        ("{% for c in x %}{% endfor %}", "loops over a text"),
        ("{{ lipsum(9) }}", "'lipsum' is undefined"),
    ],
)
def test_what_gets_out_or_around_limits_is_not_in_it(source: str, said: str) -> None:
    """Each with what is wrong with it; most of them before anything runs."""
    with pytest.raises(TemplateError, match=said.replace("*", r"\*")):
        made(source, x="<b>", y=["a"], say=len)


BOMBS = [
    "{% for a in range(1000) %}{% for b in range(1000) %}{% for c in range(9) %}{% endfor %}{% endfor %}{% endfor %}",
    "{% for a in range(1000) %}{% for b in range(1000) if false %}{% endfor %}{% endfor %}",
    "{% for a in range(10 * 9) %}{% for b in range(900) %}" + "x" * 90_000 + "{% endfor %}{% endfor %}",
    "{% for a in range(99999999) %}{% endfor %}",
    "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
    "{% macro n() %}{% endmacro %}{% macro m() %}{{ n() }}{% endmacro %}{% macro n() %}{{ m() }}{{ m() }}{% endmacro %}"
    "{{ n() }}",
    "{% macro m(x) %}{{ x }}{{ x }}{% endmacro %}{% set x = 'aaaaaaaaaa' %}" + "{% set x = m(x) %}" * 60,
    "{% set x = 'aaaaaaaaaa' %}" + "{% set x = x ~ x %}" * 60 + "{{ x }}",
    "{% set x = 'aaaaaaaaaa' %}" + "{% set x = x + x %}" * 60 + "{{ x }}",
    "{% set x = 'aaaaaaaaaa' %}" + "{% set x = x | replace('a', x) %}" * 60,
    "{% set x = 'aaaaaaaaaa' %}" + "{% set x = [1, 1, 1] | join(x) | replace('1', x) %}" * 60,
    "{% set x = 99 %}" + "{% set x = x * x %}" * 60,
    "{{ 'a' * 999999999 }}",
    "{{ '%999999999d' % 1 }}",
    "{{ [1] * 999999999 }}",
    "{{ 1.5 | round(999999999, 'ceil') }}",
    "{{ range(999999999) | list | length }}",
    "{{ ['a', 'b'] | join('x' ~ range(1000) | join(range(1000) | join('aaaaaaaaaa'))) }}",
    "{% set x = range(1000) | join(range(20) | join('aa')) %}{% for a in range(1000) %}{{ x }}{% endfor %}",
    "{% set x = range(1000) | join(range(20) | join('aa')) %}"
    "{% for a in range(999) %}{% set y = x | upper %}{% endfor %}",
    "{% set x = range(1000) | join(' ') %}{% for a in range(999) %}{% set y = x | list | sort | unique %}{% endfor %}",
]


@pytest.mark.parametrize("source", BOMBS)
def test_what_runs_on_or_grows_ends(source: str) -> None:
    """With an error, whatever it does; shipped templates cannot be made to either."""
    with pytest.raises((TemplateError, RecursionError)):
        made(source)


def test_more_than_a_mail_may_have_is_refused() -> None:
    """Also where every piece of it is short."""
    template = PLAIN.compiled("{% for a in range(1000) %}" + "x" * 1_100 + "{% endfor %}")

    with pytest.raises(TooMuch, match="makes more than 1,000,000 characters"):
        rendered(template, {})
    assert len(rendered(PLAIN.compiled("{% for a in range(1000) %}" + "x" * 900 + "{% endfor %}"), {})) < LONGEST_OUTPUT


def test_a_template_that_runs_on_is_told_at_start(tmp_path: Path) -> None:
    """With its file, and in words that say what to change."""
    (tmp_path / "alert.txt").write_text(BOMBS[0])
    (tmp_path / "title").write_text("a\n{% include 'x' %}")
    (tmp_path / "short").write_text("{{ say('devise') }}")

    with pytest.raises(ConfigError) as raised:
        Renderer(tmp_path)

    mistakes = "\n".join(raised.value.mistakes)
    assert "alert.txt: takes too many steps: its loops, macros or filters do too much" in mistakes
    assert "title: line 2: include cannot be used here" in mistakes
    assert "short: there is no text 'devise'; did you mean 'device'?" in mistakes


def test_the_largest_digest_is_well_within_the_limits(tmp_path: Path) -> None:
    """A copy of the shipped templates makes what the shipped ones make, also of twenty alerts and a hundred rules."""
    shipped = Path(Renderer.__init__.__code__.co_filename).with_name("templates")
    for path in shipped.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    digest = example("digest")
    large = digest.model_copy(update={"subjects": digest.subjects * 20, "counts": digest.counts * 100})

    assert Renderer(tmp_path).render(large) == Renderer().render(large)


pieces = st.sampled_from(
    ["{% for a in range(30) %}", "{% endfor %}", "{{ x }}", "{% set x = x ~ x %}", "{% macro m(x) %}", "{% endmacro %}",
     "{{ m(x) }}", "{% set x = m(x) %}", "{{ x | upper | list | join(x) }}", "{% if x %}", "{% endif %}", "text"]
)  # fmt: skip


@given(st.lists(pieces, max_size=60))
def test_every_template_ends(parts: list[str]) -> None:
    """With a text that is short enough, or an error."""
    try:
        text = made("{% set x = 'ab' %}" + "".join(parts))
    except (TemplateSyntaxError, TemplateError, RecursionError):
        return

    assert len(text) <= LONGEST_OUTPUT
