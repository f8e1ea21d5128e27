"""Alerts about anomalies, against a plain-Python oracle, and their episodes one by one."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.agents.alerting.alerts import Alerts
from headrace.engine.testkit import readings_log
from headrace.schemas import topics
from headrace.schemas.anomaly import Anomaly
from headrace.schemas.condition import AnomalyCondition
from headrace.schemas.rule import AlertRule
from tests.agents.alerting.living import SECOND, T0, Line, Living, rule

ODD = rule("odd", {"anomaly_score": 4.0, "clear_after": 100})


def anomaly(second: float, device: str = "a", appended: float | None = None, **fields: Any) -> Line:
    """An anomaly of temperature with score 5, unless said otherwise, appended when it was measured."""
    time = T0 + round(second * SECOND)
    document = Anomaly.model_validate(
        {
            "device_id": device, "device_type": "env", "time": time, "metric": "temperature", "value": 45.0,
            "expected": 20.0, "score": 5.0, "probability": 0.7, "detector": "ensemble", "numbers": {},
            "message_id": f"message-{second}", "text": "temperature is 45, expected was 20", **fields,
        }
    )  # fmt: skip
    stamp = time if appended is None else T0 + round(appended * SECOND)
    return topics.ANOMALIES, device, document.model_dump_json().encode(), stamp


def reading(second: float, device: str = "a") -> Line:
    """A reading, appended when it was measured."""
    time = T0 + round(second * SECOND)
    (record,) = readings_log([(device, "env", time, {"temperature": 20.0})], time)
    return topics.READINGS, device, record.value or b"", time


def story(*lines: Line, rules: tuple[AlertRule, ...] = (ODD,)) -> list[tuple[str, float]]:
    """Status and second of each event."""
    return [(status, second) for _, _, status, second in Living(lambda: Alerts(rules)).give(lines).story]


def test_an_anomaly_triggers_and_quiet_ends_it() -> None:
    """The newest anomaly counts, by the device's own clock; the alert says what was found."""
    lines = [anomaly(0), anomaly(60), reading(160), reading(160.5, "b"), reading(161)]
    told = Living(lambda: Alerts([ODD])).give(lines)

    assert told.story == [("odd", "a", "triggered", 0.0), ("odd", "a", "resolved", 160.0)]
    triggered, _ = told.alerts
    assert (triggered.metric, triggered.actualValue, triggered.threshold) == ("anomaly", 5.0, 4.0)
    assert [(each.time, each.value) for each in triggered.evidence] == [(T0, 45.0)]
    assert triggered.metadata == {
        "detector": "ensemble",
        "metric": "temperature",
        "expected": 20.0,
        "probability": 0.7,
        "text": "temperature is 45, expected was 20",
    }
    headers = [record.headers[topics.MESSAGE_ID] for record in told.records]
    assert headers == [b"message-0", b"message-0"]  # of the anomaly, and of the first reading of the log that ended it


def test_only_what_the_condition_names_counts() -> None:
    """Score, metric and detector; a score that nobody could give is higher than any."""
    assert not story(anomaly(0, score=3.9))
    assert story(anomaly(0, score=None)) == [("triggered", 0.0)]
    narrow = rule("odd", {"anomaly_score": 0, "metric": "co2", "detector": "stuck"})
    assert not story(anomaly(0), anomaly(1, metric="co2"), anomaly(2, detector="stuck"), rules=(narrow,))
    assert story(anomaly(3, metric="co2", detector="stuck"), rules=(narrow,)) == [("triggered", 3.0)]


def test_a_device_that_falls_silent_is_not_anomalous_for_ever() -> None:
    """By anomalies of others, or by idle time of their topic; not by time on others."""
    assert story(anomaly(0), anomaly(101, "b"))[1] == ("resolved", 100.0)

    told = Living(lambda: Alerts([ODD])).give([anomaly(0)])
    told.idle(topics.READINGS, 500, T0 + 500 * SECOND)
    assert told.agent.is_waiting(0)
    told.die()
    assert told.agent.is_waiting(0)
    told.idle(topics.ANOMALIES, 100, T0 + 100 * SECOND)
    assert len(told.story) == 1
    told.idle(topics.ANOMALIES, 1, T0 + 101 * SECOND)

    assert told.story[1:] == [("odd", "a", "resolved", 100.0)]
    assert not told.agent.is_waiting(0)


def test_a_backlog_is_judged_by_its_own_times() -> None:
    """Uploaded at once: what followed on each anomaly ends its alert."""
    backlog = [anomaly(0, appended=9000), anomaly(1000, appended=9000)]
    assert story(*backlog) == [("triggered", 0.0), ("resolved", 100.0), ("triggered", 1000.0)]


def test_an_anomaly_that_comes_late_changes_nothing() -> None:
    """One that is older than the newest neither triggers nor prolongs."""
    assert story(anomaly(50), anomaly(20, appended=51), reading(151)) == [("triggered", 50.0), ("resolved", 150.0)]


def test_what_is_no_anomaly_is_dead_lettered() -> None:
    """With the field that is wrong; the rest goes on."""
    topic, key, _, stamp = anomaly(0)
    told = Living(lambda: Alerts([ODD])).give([(topic, key, b"{}", stamp), anomaly(1)])

    assert [reason[:21] for _, reason in told.driven.dead_letters] == ["no anomaly: device_id"]
    assert len(told.story) == 1


def test_a_rule_that_is_gone_leaves_nothing_behind() -> None:
    """What its anomalies were is forgotten; when it comes back, the next one counts."""
    told = Living(lambda: Alerts([ODD])).give([anomaly(0)])
    told._make = lambda: Alerts([])
    told.die()
    told.give([anomaly(10, "b")])
    assert told.story[1:] == [("odd", "a", "resolved", 10.0)]
    told.die()
    assert not told.agent.is_waiting(0)

    told._make = lambda: Alerts([ODD])
    told.die()
    told.give([anomaly(20)])
    assert told.story[2:] == [("odd", "a", "triggered", 20.0)]


RULES = [
    rule("any", {"anomaly_score": 0, "clear_after": 10}),
    rule("high", {"anomaly_score": 4, "clear_after": 60}, cooldown_period=100),
]
#: The oracle does not know of it.
FLAPPING = rule("flaps", {"anomaly_score": 0, "clear_after": 5}, flapping={"triggers": 2, "within": 50})
happenings = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 9, 10, 11, 60, 61]),
        st.sampled_from("ab"),
        st.sampled_from(["reading", "reading", 1.0, 5.0, None]),
    ),
    max_size=30,
)


def lines_of(steps: list[tuple[int, str, Any]]) -> list[Line]:
    """A log of both topics."""
    lines, second = [], 0
    for step, device, what in steps:
        second += step
        lines.append(reading(second, device) if what == "reading" else anomaly(second, device, score=what))
    return lines


def oracle(steps: list[tuple[int, str, Any]]) -> list[tuple[str, str, str, float]]:
    """Rule by rule, with nothing but the newest anomaly of each device in mind."""
    found = []
    for one in RULES:
        condition = one.condition
        assert isinstance(condition, AnomalyCondition)
        last: dict[str, int] = {}
        opened: dict[str, int] = {}
        is_open: set[str] = set()
        second = 0
        for step, device, what in steps:
            second += step
            for other in sorted(last):
                if (other == device or what != "reading") and second > last[other] + condition.clear_after:
                    if other in is_open:
                        found.append((one.rule_id, other, "resolved", last[other] + condition.clear_after))
                    is_open.discard(other)
                    del last[other]
            if what == "reading" or (what or 99) < condition.anomaly_score:
                continue
            last[device] = second
            if device not in is_open and second >= opened.get(device, -999) + max(one.cooldown_period, 1):
                found.append((one.rule_id, device, "triggered", float(second)))
                is_open.add(device)
                opened[device] = second
    return sorted(found)


@settings(max_examples=60, deadline=None)
@given(happenings, st.lists(st.integers(1, 5), max_size=4))
def test_equals_the_oracle_through_batches_and_deaths(steps: list[tuple[int, str, Any]], sizes: list[int]) -> None:
    """Every episode is alerted about as the plain definition says, and once."""
    lines, all_rules = lines_of(steps), [*RULES, FLAPPING]
    whole = Living(lambda: Alerts(all_rules)).give(lines)

    assert sorted(each for each in whole.story if each[0] != "flaps") == oracle(steps)
    assert Living(lambda: Alerts(all_rules)).give(lines, sizes).records == whole.records
    assert Living(lambda: Alerts(all_rules)).give(lines, sizes or [1], deaths=True).records == whole.records
