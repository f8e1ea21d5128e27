"""Histories of devices, and what the alert agent says about them."""

from collections.abc import Iterable, Sequence
from typing import Any

from hypothesis import strategies as st

from headrace.agents.alerting.alerts import Alerts
from headrace.engine.testkit import Driven, drive, readings_log
from headrace.schemas import topics
from headrace.schemas.alert import Alert, AlertEvent
from headrace.schemas.rule import AlertRule

T0 = 1_700_000_000_000
SECOND = 1000

#: Device, device type, event time (ms), measures.
Row = tuple[str, str, int, dict[str, float]]

_CONDITION = {"metric": "temperature", "operator": ">", "threshold": 40, "duration": 60}


def rule(rule_id: str = "hot", **changes: Any) -> AlertRule:
    """A rule: temperature > 40 for 60 s, cooldown 300 s, unless changed."""
    condition = {**_CONDITION, **{key: changes.pop(key) for key in list(changes) if key in _CONDITION}}
    document = {"rule_id": rule_id, "name": rule_id.title(), "condition": condition, "severity": "critical"}
    return AlertRule.model_validate({**document, "cooldown_period": 300, **changes})


def events_of(driven: Driven) -> list[AlertEvent]:
    return [AlertEvent.model_validate_json(record.value or b"") for record in driven.sent.get(topics.ALERTS, [])]


def alerts_of(driven: Driven) -> list[Alert]:
    """The alert after each event; commands are not refused here."""
    alerts = [event.data for event in events_of(driven)]
    assert all(isinstance(each, Alert) for each in alerts)
    return [each for each in alerts if isinstance(each, Alert)]


def history(*samples: tuple[int, float], device: str = "a") -> list[Row]:
    """Temperatures at seconds from T0."""
    return [(device, "env", T0 + seconds * SECOND, {"temperature": value}) for seconds, value in samples]


def status_and_second(alerts: Iterable[Alert]) -> list[tuple[str, int]]:
    """Status of each alert and when it came to that, seconds from T0."""
    return [(one.status, ((one.resolvedAt or one.triggeredAt) - T0) // SECOND) for one in alerts]


def changes(rows: Sequence[Row], *rules: AlertRule) -> list[tuple[str, int]]:
    """Status and second of every event."""
    return status_and_second(alerts_of(drive(Alerts(rules or [rule()]), readings_log(rows))))


RULES = [
    rule(duration=20, cooldown_period=60),
    rule("now", duration=0, cooldown_period=0, operator=">=", device_type="env"),
    rule("cold", operator="<", threshold=10, duration=5, device_ids=["b"], severity="info"),
    rule("exact", operator="==", metric="co2", duration=0, cooldown_period=30),
    rule("off", duration=0, status="inactive"),
]
steps = st.lists(
    st.tuples(
        st.sampled_from(["a", "b"]),
        st.sampled_from(["env", "env", "tilt"]),
        st.sampled_from([0, 1000, 4000, 10_000, 10_000, 30_000, 70_000, -3000]),
        st.dictionaries(st.sampled_from(["temperature", "co2"]), st.sampled_from([5.0, 40.0, 41.0, 45.0]), max_size=2),
    ),
    max_size=80,
)


def along(steps: Sequence[Row]) -> list[Row]:
    """Event times from steps, each from the device's own last one."""
    clocks: dict[str, int] = {}
    rows: list[Row] = []
    for device, device_type, step, measures in steps:
        clocks[device] = clocks.get(device, T0) + step
        rows.append((device, device_type, clocks[device], measures))
    return rows
