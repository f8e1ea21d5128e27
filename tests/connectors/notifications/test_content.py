"""Texts of notifications: the seeds' example as golden files, readers' languages, zones and units, own templates."""

from html.parser import HTMLParser
from pathlib import Path
from typing import Any, get_args

import pytest
import structlog.testing
from hypothesis import given
from hypothesis import strategies as st

from headrace.connectors.notifications.content import KINDS, LONGEST_TITLE, WIDTH, Renderer
from headrace.connectors.notifications.example_notifications import example
from headrace.connectors.notifications.gsm import SINGLE, SINGLE_UNICODE, septets
from headrace.connectors.notifications.languages import languages, words
from headrace.connectors.notifications.views import Links, one_line
from headrace.engine.errors import ConfigError
from headrace.schemas.alert import Alert, Person, Resolution
from headrace.schemas.notification import Code, Kind, Notification, Place, Reader, RuleCount, Subject
from tests.connectors.notifications.messages import LINKS, RENDERER

GOLDEN = Path(__file__).parent / "golden"


def of_alert(alert: dict[str, Any], place: Place | None = None, kind: Kind = "alert", **reader: Any) -> Notification:
    """The example with other fields of its alert, and for another reader."""
    notification = example(kind, Reader(**reader))
    subject = notification.subjects[0]
    changed = Subject(alert=subject.alert.model_copy(update=alert), place=place or subject.place)
    return notification.model_copy(update={"subjects": (changed,)})


def test_example_mail_is_that_of_the_design() -> None:
    """Subject, every line and both links of the seeds' example, as text and as HTML."""
    content = RENDERER.render(example("alert").model_copy(update={"reasons": ()}))

    assert content.title == "[WARNING] High temperature at Office 301"
    assert content.text.splitlines()[:5] == [
        "Device: Temp Sensor #123",
        "Location: Office 301, Building A",
        "Condition: Temperature exceeded 30°C",
        "Current Value: 32.5°C",
        "Timestamp: 2025-11-15 10:05:00 UTC",
    ]
    assert content.text == (GOLDEN / "alert.txt").read_text("utf-8")
    assert content.html == (GOLDEN / "alert.html").read_text("utf-8")


@pytest.mark.parametrize("language", sorted(languages()))
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_reads_as_its_golden_file(kind: Kind, language: str) -> None:
    """Title, text and SMS, in every language, for a reader in New York who reads imperial units."""
    reader = Reader(name="Ada", language=language, timezone="America/New_York", units="imperial")

    content = RENDERER.render(example(kind, reader))

    found = f"{content.title}\n\n{content.text}\n{content.short}\n"
    assert found == (GOLDEN / f"{kind}.{language}.txt").read_text("utf-8")


def test_links_are_left_out_without_a_dashboard() -> None:
    """Neither a link nor its words are in any form."""
    content = Renderer().render(example("alert"))

    assert content.link is None
    assert "http" not in content.text + str(content.html) + content.short
    assert "Dashboard" not in content.text + str(content.html)


def test_only_what_is_open_can_be_acknowledged() -> None:
    """The link is in an alert and an escalation, and in nothing else."""
    link = "https://iot.example.com/alerts/alert-123/acknowledge"

    found = [kind for kind in KINDS if link in RENDERER.render(example(kind)).text]

    assert found == ["alert", "escalation"]


def test_a_reminder_says_that_it_is_one() -> None:
    """What was acknowledged, and is told of again, is no new alert."""
    assert RENDERER.render(of_alert({"status": "acknowledged"})).title == (
        "[WARNING] Acknowledged, still open: High temperature at Office 301"
    )


def test_ids_in_links_are_quoted() -> None:
    """An id may have any letters."""
    content = RENDERER.render(of_alert({"alertId": 'a/b?c=1&d #"<ü>'}))

    assert content.link == "https://iot.example.com/alerts/a%2Fb%3Fc%3D1%26d%20%23%22%3C%C3%BC%3E"


@pytest.mark.parametrize(
    ("condition", "sentence"),
    [
        ("temperature > 30", "Temperature exceeded 30°C"),
        ("temperature >= 30", "Temperature reached 30°C or more"),
        ("temperature < 30", "Temperature fell below 30°C"),
        ("temperature <= 30", "Temperature fell to 30°C or less"),
        ("temperature == 30", "Temperature is 30°C"),
        ("temperature per 60 s > 30", "Change of Temperature in 60 s exceeded 30°C"),
        ("temperature > 30 and humidity > 80", "temperature > 30 and humidity > 80"),
        ("silent for 300 s", "silent for 300 s"),
        ("other > 30", "other > 30"),
    ],
)
def test_condition_is_a_sentence(condition: str, sentence: str) -> None:
    """Where it compares the metric; else it is as the rule has it."""
    assert f"Condition: {sentence}\n" in RENDERER.render(of_alert({"condition": condition})).text


def test_change_is_converted_as_a_difference() -> None:
    """10 °C more are 18 °F more, not 50."""
    alert = {"condition": "temperature per 60 s > 10", "threshold": 10.0, "actualValue": 12.5}

    text = RENDERER.render(of_alert(alert, units="imperial")).text

    assert "Change of Temperature in 60 s exceeded 18°F" in text
    assert "Current Value: 22.5°F" in text


def test_language_that_nobody_has_translated_is_english() -> None:
    """And a region reads its language."""
    titles = [RENDERER.render(example("alert", Reader(language=each))).title for each in ("fr", "de-CH")]

    assert titles == ["[WARNING] High temperature at Office 301", "[WARNUNG] High temperature: Office 301"]


def test_languages_have_the_same_texts() -> None:
    """Every key, with the same names in it, and something for each reason that speaks for telling."""
    import string

    for language in languages():
        assert words(language).keys() == words("en").keys()
        for key, text in words(language).items():
            names = {name for _, name, _, _ in string.Formatter().parse(text) if name}
            assert names == {name for _, name, _, _ in string.Formatter().parse(words("en")[key]) if name}, key
    codes = {f"why_{each.replace('-', '_')}" for each in get_args(Code)}
    assert {key for key in words("en") if key.startswith("why_")} <= codes


# What anything that comes from outside may be.
ATTACKS = ["{{ 7*7 }}", "{% for x in y %}", "<b>x</b>", '"><script>', "a\r\nBcc: b@c", "\u202egnp.exe"]
names = st.text(max_size=60) | st.sampled_from([*ATTACKS, "x" * 5000, "", "\x00"])
numbers = st.none() | st.floats(allow_nan=True, allow_infinity=True)
times = st.integers(-(2**63), 2**63)


@st.composite
def alerts(draw: st.DrawFn) -> Alert:
    """An alert whose every text is anything."""
    person = Person(userId=draw(names), name=draw(st.none() | names))
    return Alert.model_construct(
        **{
            **dict(example(draw(st.sampled_from(KINDS))).subjects[0].alert),
            "alertId": draw(names),
            "ruleName": draw(names),
            "ruleId": draw(names),
            "deviceId": draw(names),
            "deviceName": draw(st.none() | names),
            "condition": draw(names | st.just("x per 9 s >= 1e300")),
            "metric": draw(names | st.sampled_from(["x", "silence"])),
            "actualValue": draw(numbers),
            "threshold": draw(numbers),
            "triggeredAt": draw(times),
            "resolvedAt": draw(st.none() | times),
            "acknowledgedBy": draw(st.none() | st.just(person)),
            "resolved": draw(st.none() | st.just(Resolution(by="person", person=person, resolution=draw(names)))),
        }
    )


@st.composite
def notifications(draw: st.DrawFn) -> Notification:
    """A notification of anything, to anybody."""
    place = st.builds(Place, location=st.none() | names, unit=st.none() | names, label=st.none() | names)
    subjects = draw(st.lists(st.tuples(alerts(), place), min_size=1, max_size=3))
    count = st.builds(
        RuleCount,
        ruleId=names,
        ruleName=names,
        severity=st.sampled_from(["info", "warning", "critical"]),
        alerts=st.integers(0, 10**6),
        open=st.integers(0, 10**6),
        devices=st.integers(0, 10**6),
    )
    reader = st.builds(
        Reader,
        name=st.none() | names,
        language=st.sampled_from(["en", "de", "de-AT", "zz"]),
        timezone=st.sampled_from(["UTC", "Europe/Berlin", "America/Sao_Paulo", "Asia/Kathmandu"]),
        units=st.sampled_from(["metric", "imperial"]),
    )
    return example(draw(st.sampled_from(KINDS))).model_copy(
        update={
            "subjects": tuple(Subject.model_construct(alert=alert, place=place) for alert, place in subjects),
            "counts": tuple(draw(st.lists(count, max_size=3))),
            "reader": draw(reader),
            "team": draw(st.none() | names),
            "severity": draw(st.sampled_from(["info", "warning", "critical"])),
        }
    )


class Elements(HTMLParser):
    """Counts elements and attributes of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: set[tuple[str, str]] = set()
        self.links: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found |= {(tag, "")} | {(tag, name) for name, _ in attrs}
        self.links += [value or "" for name, value in attrs if name == "href"]


def page_elements() -> set[tuple[str, str]]:
    """Elements and attributes of all pages of the examples."""
    return {each for kind in KINDS for each in Elements(RENDERER.render(example(kind)).html or "").found}


@given(notifications())
def test_whatever_devices_are_called_it_is_only_text(notification: Notification) -> None:
    """One line for a title, one SMS, no element of HTML that the template has not, no link that leads elsewhere.

    And a repeat, which is made anew, is the same.
    """
    content = RENDERER.render(notification)

    assert ANOTHER.render(notification) == content
    assert 0 < len(content.title) <= LONGEST_TITLE
    assert content.title == one_line(content.title, LONGEST_TITLE)
    assert "\x00" not in content.text
    assert "\u202e" not in content.text + content.title + content.short
    assert content.short.splitlines() == [content.short]
    size = septets(content.short)
    assert (size <= SINGLE) if size is not None else len(content.short.encode("utf-16-le")) // 2 <= SINGLE_UNICODE
    page = Elements(content.html or "")
    assert page.found <= ALLOWED
    assert all(each.startswith("https://iot.example.com/") for each in page.links)
    for line in content.text.splitlines():
        assert len(line) <= WIDTH or " " not in line.strip()[: WIDTH - 2]


ALLOWED = page_elements()
ANOTHER = Renderer(links=LINKS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "templates"
    (path / "de").mkdir(parents=True)
    return path


def test_own_template_goes_before_the_shipped(folder: Path) -> None:
    """The most special one first: language and kind, language, kind, then the form alone."""
    (folder / "alert.title").write_text("{{ alert.rule }}!")
    (folder / "title").write_text("anything")
    (folder / "de" / "alert.title").write_text("Achtung: {{ alert.rule }}")
    renderer = Renderer(folder)

    cases: list[tuple[Kind, str]] = [("alert", "en"), ("resolved", "en"), ("alert", "de"), ("resolved", "de")]
    found = [renderer.render(example(kind, Reader(language=language))).title for kind, language in cases]

    assert found == ["High temperature!", "anything", "Achtung: High temperature", "anything"]


def test_own_html_is_escaped_too(folder: Path) -> None:
    """Without a word in the template."""
    (folder / "alert.html").write_text("<p>{{ alert.device }}</p>")

    assert Renderer(folder).render(of_alert({"deviceName": "<b>"})).html == "<p>&lt;b&gt;</p>"


def test_every_mistake_in_templates_is_told_at_start(folder: Path) -> None:
    """What is no template, what names nothing, what has another name; with file and line."""
    (folder / "alert.title").write_text("\n{% if %}")
    (folder / "alert.txt").write_text("{{ alert.nosuch }}")
    (folder / "short").write_text("{{ missing }}")
    (folder / "alarm.txt").write_text("x")
    (folder / "html").write_bytes(b"\xff\xfe")

    with pytest.raises(ConfigError) as raised:
        Renderer(folder)

    mistakes = "\n".join(raised.value.mistakes)
    assert len(raised.value.mistakes) == 5
    assert "alert.title: line 2" in mistakes
    assert "nosuch" in mistakes
    assert "'missing' is undefined" in mistakes
    assert "alarm.txt: not a template's name" in mistakes


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ alert._replace(rule='x') }}",
        "{{ alerts.append(1) }}",
        "{{ say.__globals__ }}",
        "{% include '/etc/passwd' %}",
        "{{ '%s' | format(alert.__init__) }}",
    ],
)
def test_template_gets_at_nothing_but_its_values(folder: Path, source: str) -> None:
    """It is refused at start."""
    (folder / "alert.txt").write_text(source)

    with pytest.raises(ConfigError):
        Renderer(folder)


def test_template_that_fails_at_sending_costs_no_alert(folder: Path) -> None:
    """The shipped one takes its place, and a warning says which and why."""
    (folder / "title").write_text("{{ 1 / (alert.device != 'zero') }}")
    renderer = Renderer(folder)

    with structlog.testing.capture_logs() as logs:
        content = renderer.render(of_alert({"deviceName": "zero"}))

    assert content.title == "[WARNING] High temperature at Office 301"
    assert [each["event"] for each in logs] == ["notification_template_failed"]
    assert logs[0]["template"] == "title"


@pytest.mark.parametrize(
    ("language", "title"),
    [
        ("en", "[WARNING] High temperature at Office 301: 1 alert since 10:05 UTC"),
        ("de", "[WARNUNG] High temperature: Office 301: 1 Alarm seit 10:05 UTC"),
    ],
)
def test_a_digest_of_one_alert_is_named_by_it(language: str, title: str) -> None:
    """Title and SMS say what it is about, and the SMS says it once."""
    digest = example("digest", Reader(language=language))
    one = digest.model_copy(
        update={
            "subjects": digest.subjects[:1],
            "counts": (digest.counts[0].model_copy(update={"alerts": 1, "open": 1, "devices": 1}),),
            "since": digest.subjects[0].alert.triggeredAt,
        }
    )

    content = Renderer().render(one)

    assert content.title == content.short == title


def test_a_digest_of_one_alert_that_is_over_says_so() -> None:
    """Its title is that of the end: nobody gets up for it."""
    ended = example("resolved")
    count = example("digest").counts[0].model_copy(update={"alerts": 1, "open": 0, "devices": 1})

    content = Renderer().render(ended.model_copy(update={"kind": "digest", "counts": (count,)}))

    assert content.title == "[RESOLVED] High temperature at Office 301"


def test_folder_that_is_none_is_told_at_start(tmp_path: Path) -> None:
    """With its name."""
    with pytest.raises(ConfigError, match="nowhere is no folder"):
        Renderer(tmp_path / "nowhere")


def test_links_know_their_dashboard() -> None:
    """A digest leads to where it begins."""
    assert Links("https://a.example/x/{device}").home() == "https://a.example/"
    assert Links().home() == ""
