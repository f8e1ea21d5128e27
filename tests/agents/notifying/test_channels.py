"""By which channels somebody is told, and why by the others not."""

from typing import Any, get_args

from hypothesis import given
from hypothesis import strategies as st

from headrace.agents.notifying.channels import CHANNELS, Choice, choose
from headrace.agents.notifying.settings import NotifySettings
from headrace.agents.notifying.subscriptions import Match
from headrace.schemas.notification import Kind
from headrace.schemas.rule import Channel, Severity
from headrace.schemas.user import User
from tests.agents.notifying.people import subject, user

ALL = Match(True, ())
DEFAULT = NotifySettings()
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
SOME = st.lists(st.sampled_from(CHANNELS), unique=True).map(tuple)


def sent(
    severity: Severity,
    them: User | None = None,
    kind: Kind = "alert",
    settings: NotifySettings = DEFAULT,
    match: Match = ALL,
    **more: Any,
) -> list[Channel]:
    """The channels by which they are told."""
    return [each.channel for each in choices(severity, them, kind, settings, match, **more) if each.send]


def choices(
    severity: Severity,
    them: User | None = None,
    kind: Kind = "alert",
    settings: NotifySettings = DEFAULT,
    match: Match = ALL,
    step_channels: tuple[Channel, ...] | None = None,
    **alert: Any,
) -> tuple[Choice, ...]:
    return choose(them or user(), subject(severity=severity, **alert), kind, match, settings, step_channels)


def why(found: tuple[Choice, ...], channel: Channel) -> list[tuple[str, str]]:
    return [(each.code, each.text) for each in found[CHANNELS.index(channel)].reasons]


def test_the_matrix_says_by_severity() -> None:
    """Email; email and push; all three; and where to."""
    assert sent("info") == ["email"]
    assert sent("warning") == ["email", "push"]
    assert sent("critical") == ["email", "push", "sms"]
    assert [each.contacts for each in choices("critical")] == [
        ("ada@example.com",),
        ("android:token-1",),
        ("+491701234567",),
    ]
    assert why(choices("info"), "sms") == [("matrix", "info alerts go by email")]
    assert why(choices("warning"), "push") == [("severity", "warning alerts go by email, push")]


def test_people_switch_channels_off() -> None:
    """Altogether, for a severity, or for what they subscribed to; and are told which of these it was."""
    no_push = user(preferences={"notifications": {"push": False}})
    quiet = user(preferences={"severities": {"warning": ["push"], "info": []}})

    assert sent("warning", no_push) == ["email"]
    assert why(choices("warning", no_push), "push") == [("preference", "push is switched off")]
    assert sent("warning", quiet) == ["push"]
    assert why(choices("info", quiet), "email") == [("preference", "wants info alerts by no channel")]
    assert sent("warning", match=Match(True, (), frozenset({"push"}))) == ["push"]
    assert why(choices("warning", match=Match(True, (), frozenset({"sms", "push"}))), "email") == [
        ("subscription-channels", "subscribed by push, sms")
    ]


def test_a_rule_narrows_too() -> None:
    """If it names channels; and not below the floor."""
    by_push: dict[str, Any] = {"actions": {"notifications": ["push"]}}

    assert sent("warning", **by_push) == ["push"]
    assert sent("info", **by_push) == []
    assert sent("critical", **by_push) == ["email", "push"]
    assert why(choices("warning", **by_push), "email") == [("rule-channels", "the rule Hot goes by push")]
    assert why(choices("critical", **by_push), "email") == [
        ("floor", "email cannot be switched off for critical alerts, though the rule Hot goes by push")
    ]


def test_the_floor_is_what_people_cannot_switch_off() -> None:
    """Email of critical alerts, unless configured otherwise."""
    silent = user(preferences={"notifications": {"email": False, "push": False, "sms": False}})

    assert sent("critical", silent) == ["email"]
    assert sent("warning", silent) == []
    assert sent("critical", silent, settings=NotifySettings(floor={})) == []


def test_a_channel_without_contact_is_passed_over() -> None:
    """And says so, after why it would be taken."""
    them = User(user_id="ada", device_tokens=({"token": "t", "platform": "ntfy"}, "u"))

    assert sent("critical", them) == ["push"]
    assert choices("critical", them)[1].contacts == ("ntfy:t", "android:u")
    assert why(choices("critical", them), "sms") == [
        ("severity", "critical alerts go by email, push, sms"),
        ("no-contact", "has no phone number"),
    ]


def test_people_are_told_of_triggers_and_ends() -> None:
    """By sms of triggers alone; of acknowledgements if configured; escalations and digests whatever is configured."""
    of_all = NotifySettings(tell=("triggered", "acknowledged", "resolved"))
    of_none = NotifySettings(tell=())

    assert sent("critical", kind="resolved") == ["email", "push"]
    assert sent("critical", kind="acknowledged") == []
    assert sent("critical", kind="acknowledged", settings=of_all) == ["email", "push"]
    assert sent("critical", settings=of_none) == []
    assert sent("critical", kind="escalation", settings=of_none) == ["email", "push", "sms"]
    assert sent("critical", kind="digest", settings=of_none) == ["email", "push", "sms"]
    assert why(choices("critical", kind="resolved"), "sms") == [
        ("matrix", "sms does not tell that an alert is resolved")
    ]


def test_a_step_has_channels_of_its_own() -> None:
    """Instead of the matrix's; people narrow them likewise."""
    no_sms = user(preferences={"notifications": {"sms": False}})

    assert sent("info", kind="escalation", step_channels=("sms",)) == ["sms"]
    assert sent("critical", kind="escalation", step_channels=("sms",)) == ["sms"]
    assert sent("critical", no_sms, kind="escalation", step_channels=("sms",)) == []
    assert why(choices("info", step_channels=("sms",)), "email") == [("matrix", "the step goes by sms")]


@given(data=st.data())
def test_nobody_gets_more_than_the_matrix_or_less_than_the_floor(data: st.DataObject) -> None:
    """Whatever person, rule and subscription say; and every channel has a reason."""
    severity = data.draw(st.sampled_from(SEVERITIES))
    floor = data.draw(SOME)
    matrix = tuple({*floor, *data.draw(SOME)})
    settings = NotifySettings(matrix={severity: matrix}, floor={severity: floor})
    switches = dict(zip(CHANNELS, data.draw(st.tuples(*[st.booleans()] * 3)), strict=True))
    severities = data.draw(st.dictionaries(st.sampled_from(SEVERITIES), SOME))
    narrowed = data.draw(st.none() | SOME.map(frozenset))
    rule = data.draw(SOME)
    them = user(preferences={"notifications": switches, "severities": severities})

    found = choices(severity, them, settings=settings, match=Match(True, (), narrowed), actions={"notifications": rule})

    wanted = {
        each
        for each in matrix
        if switches[each]
        and each in severities.get(severity, matrix)
        and (narrowed is None or each in narrowed)
        and (not rule or each in rule)
    }
    assert {each.channel for each in found if each.send} == wanted | set(floor)
    assert all(each.reasons for each in found)
