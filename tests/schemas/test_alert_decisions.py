"""What may be done with an alert, and when others have to be told, over all that an alert can be."""

from hypothesis import given
from hypothesis import strategies as st

from headrace.schemas import topics
from headrace.schemas.alert import Alert, Suppression
from headrace.schemas.alert_decisions import (
    can_acknowledge,
    can_resolve,
    should_escalate,
    why_not_acknowledge,
    why_not_resolve,
)
from headrace.schemas.public_topics import BY_NAME
from headrace.schemas.topic_schemas import examples

EXAMPLE = Alert.model_validate(examples(BY_NAME[topics.ALERT_STATES])[0]["value"])
SUPPRESSED = Suppression(by="snooze", id="x", text="snoozed")
STATUSES = st.sampled_from(["triggered", "acknowledged", "resolved"])


@given(status=STATUSES)
def test_acknowledged_first_resolved_then(status: str) -> None:
    """An alert allows one of both at the most, and nothing once it is over; what it does not allow has a reason."""
    alert = EXAMPLE.model_copy(update={"status": status})

    assert can_acknowledge(alert) == (status == "triggered") == (why_not_acknowledge(alert) is None)
    assert can_resolve(alert) == (status == "acknowledged") == (why_not_resolve(alert) is None)


@given(
    status=STATUSES, suppressed=st.booleans(), triggered=st.integers(0, 10_000), now=st.integers(0, 10_000),
    after=st.integers(0, 10),
)  # fmt: skip
def test_escalates_while_nobody_looks_after_it(
    status: str, suppressed: bool, triggered: int, now: int, after: int
) -> None:
    """Only what people are told of, only before somebody acknowledges; once it is time, it stays so."""
    told = SUPPRESSED if suppressed else None
    alert = EXAMPLE.model_copy(update={"status": status, "suppressed": told, "triggeredAt": triggered})

    found = should_escalate(alert, now, after)

    assert found == (status == "triggered" and not suppressed and now >= triggered + after * 1000)
    assert not found or should_escalate(alert, now + 1, after)
