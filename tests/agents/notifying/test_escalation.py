"""Escalations: which one applies, when its steps are due, and whom they tell."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from headrace.agents.notifying.escalation import Due, due, people, reminder, step_of, steps_of
from headrace.agents.notifying.settings import Escalation, NotifySettings, Step
from tests.agents.notifying.people import at, subject, user

NOON = at("2026-01-01T12:00")
SHIFT = {"team": "plant", "start": "2026-01-01T00:00", "hours": 24}


def escalation(name: str = "all", **fields: Any) -> dict[str, Any]:
    return {"name": name, "steps": [{"after": "5m", "team": "plant"}], **fields}


def applied(*policies: dict[str, Any], **alert: Any) -> str | None:
    found = steps_of(subject(**alert).alert, NotifySettings(escalations=policies))
    return None if found is None else found.name


def test_the_first_that_fits_applies() -> None:
    """By severity, and by organisation if it names some."""
    acme = escalation("acme", severities=["warning", "critical"], organization_ids=["acme"])
    rest = escalation("rest")

    assert applied(acme, rest, severity="critical", organizationId="acme") == "acme"
    assert applied(rest, acme, severity="critical", organizationId="acme") == "rest"
    assert applied(acme, rest, severity="critical", organizationId="globex") == "rest"
    assert applied(acme, rest, severity="warning") is None
    assert applied(severity="critical") is None


@given(
    waits=st.lists(st.integers(1, 540_000), min_size=1, max_size=5),
    repeat=st.integers(0, 3),
    triggered=st.integers(0, 2**41),
)
def test_steps_come_one_after_the_other(waits: list[int], repeat: int, triggered: int) -> None:
    """Each so long after the one before, all of them as often as they are repeated, and no more."""
    policy = Escalation.model_validate(escalation(steps=[{"after": f"{each}s", "team": "t"} for each in waits]))
    policy = policy.model_copy(update={"repeat": repeat})
    expected, now = [], triggered
    for step, seconds in enumerate(waits * (repeat + 1), 1):
        now += seconds * 1000
        expected.append(Due(step, now))

    found: list[Due] = []
    while (each := due(policy, triggered, len(found))) is not None:
        found.append(each)

    assert found == expected
    assert [step_of(policy, each.step).after for each in found] == [f"{each}s" for each in waits * (repeat + 1)]


def told(step: dict[str, Any], *users: Any, **alert: Any) -> list[tuple[str, bool, list[str]]]:
    found = people(Step.model_validate({"after": "1m", **step}), users, subject(**alert), NOON)
    return [(each.user_id, match.fits, [reason.text for reason in match.reasons]) for each, match in found]


def test_a_team_is_whoever_is_on_call() -> None:
    """Subscribed or not; with why one of them is not told: inactive, or of another organisation."""
    zoe, ada = user("zoe", on_call=[SHIFT]), user("ada", on_call=[SHIFT], active=False)
    eve, bob = user("eve", on_call=[SHIFT], organization_id="globex"), user("bob")
    other = "belongs to organisation globex, and the alert is about a device of no organisation"

    assert told({"team": "plant"}, zoe, bob, ada, eve) == [
        ("ada", False, ["on call for plant", "is not active"]),
        ("eve", False, ["on call for plant", other]),
        ("zoe", True, ["on call for plant"]),
    ]


def test_users_are_those_that_are_named() -> None:
    """As far as there are such."""
    found = told({"users": ["bob", "nobody"]}, user("ada"), user("bob"))

    assert found == [("bob", True, ["named by the escalation's step"])]


def test_subscribers_are_told_once_more() -> None:
    """They alone, with their channels."""
    by_mail = user("ada", preferences={"subscriptions": [{"channels": ["email"]}]})
    found = people(Step(after="1m", subscribers=True), [user("bob"), by_mail], subject(), NOON)

    assert [(each.user_id, match.channels) for each, match in found] == [("ada", frozenset({"email"}))]


def test_what_was_acknowledged_and_forgotten_comes_again() -> None:
    """If configured, each time so much later."""
    daily = NotifySettings(repeat_acknowledged="24h")

    assert reminder(NotifySettings(), NOON, 0) is None
    assert [reminder(daily, NOON, count) for count in (0, 1)] == [NOON + 86_400_000, NOON + 2 * 86_400_000]
