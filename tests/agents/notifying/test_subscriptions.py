"""Whether an alert concerns somebody, and why or why not."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.agents.notifying.subscriptions import Match, subscribed
from headrace.schemas.notification import Subject
from tests.agents.notifying.people import subject, user


def match(alert: Subject | None = None, **preferences: Any) -> Match:
    return subscribed(user(preferences=preferences), alert or subject())


def said(found: Match) -> list[tuple[str, str]]:
    return [(each.code, each.text) for each in found.reasons]


@pytest.mark.parametrize(
    ("mine", "role", "other", "sees"),
    [
        ("acme", "viewer", "acme", True),
        ("acme", "viewer", "globex", False),
        ("acme", "super_admin", "globex", False),
        ("acme", "viewer", None, False),
        (None, "viewer", None, True),
        (None, "viewer", "acme", False),
        (None, "org_admin", "acme", False),
        (None, "super_admin", "acme", True),
        (None, "super_admin", None, True),
    ],
)
def test_organisations_are_kept_apart(mine: str | None, role: str, other: str | None, sees: bool) -> None:
    """Nobody is told of what another one's devices do, whatever they subscribe to."""
    them = user(organization_id=mine, role=role, preferences={"subscribed_devices": ["*"], "subscriptions": [{}]})
    found = subscribed(them, subject(organizationId=other))

    assert found.fits is sees
    assert ("other-organisation" in dict(said(found))) is not sees


def test_who_is_not_active_is_told_of_nothing() -> None:
    """Though they are subscribed."""
    them = user(active=False, preferences={"subscribed_devices": ["*"]})

    assert said(subscribed(them, subject())) == [("user-inactive", "is not active")]
    assert not subscribed(them, subject()).fits


def test_devices_are_named_or_all() -> None:
    """By all channels then."""
    assert match(subscribed_devices=["*"]) == match(subscribed_devices=["*"], subscriptions=[{"rule_ids": ["x"]}])
    assert said(match(subscribed_devices=["d-1"])) == [("subscribed", "subscribed to device d-1")]
    assert match(subscribed_devices=["d-1"]).channels is None
    assert said(match(subscribed_devices=["d-2"])) == [
        ("not-subscribed", "device d-1 is not among the 1 subscribed ones")
    ]
    assert said(match()) == [("not-subscribed", "has no subscriptions")]


FIELDS: list[tuple[str, list[str], list[str]]] = [
    ("device_ids", ["d-0", "d-1"], ["d-0"]),
    ("device_types", ["environmental"], ["meter"]),
    ("gateway_ids", ["gw-1"], ["gw-2"]),
    ("gateway_ids", ["d-1"], ["gw-2"]),
    ("rule_ids", ["hot"], ["cold"]),
    ("tags", ["roof", "x"], ["cellar"]),
    ("severities", ["warning"], ["critical", "info"]),
]


@given(data=st.data())
def test_a_subscription_fits_if_every_field_does(data: st.DataObject) -> None:
    """Those that it has, one of their values each."""
    chosen = data.draw(st.lists(st.sampled_from(FIELDS), unique_by=lambda each: each[0]))
    fits = [data.draw(st.booleans()) for _ in chosen]
    subscription = {name: good if fit else bad for (name, good, bad), fit in zip(chosen, fits, strict=True)}

    assert match(subject(tags=("roof",)), subscriptions=[subscription]).fits is all(fits)


def test_why_not_names_the_first_field_of_each() -> None:
    """Of the first five; of more there is the count."""
    misses = [{"rule_ids": ["cold"]}, {"tags": ["roof"]}, *[{"severities": ["critical"]}] * 5]
    (reason,) = match(subscribed_devices=["d-7", "d-8"], subscriptions=misses).reasons

    assert reason.code == "not-subscribed"
    assert reason.text == (
        "device d-1 is not among the 2 subscribed ones; subscription 1: not for rule hot; "
        "subscription 2: not for a device without its tags; subscription 3: not for warning alerts; "
        "subscription 4: not for warning alerts; subscription 5: not for warning alerts; and 2 more do not fit"
    )


def test_channels_are_those_of_all_that_fit() -> None:
    """One that names none gives all of them; one that does not fit gives none."""
    by_mail = {"channels": ["email"]}
    by_sms = {"rule_ids": ["hot"], "channels": ["sms"]}
    other = {"rule_ids": ["cold"], "channels": ["push"]}

    assert match(subscriptions=[by_mail]).channels == frozenset({"email"})
    assert match(subscriptions=[by_mail, by_sms, other]).channels == frozenset({"email", "sms"})
    assert match(subscriptions=[by_mail, {}]).channels is None
    assert match(subscribed_devices=["d-1"], subscriptions=[by_mail]).channels is None
    assert said(match(subscriptions=[by_sms])) == [("subscribed", "subscription 1 has it: rules hot, by sms")]
