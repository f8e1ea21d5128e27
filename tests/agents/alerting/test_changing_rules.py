"""Threshold alerts while their rules change."""

import asyncio
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from headrace.agents.alerting.alerts import Alerts
from headrace.engine.clock import ManualClock
from headrace.engine.embedded.database import MEMORY
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.log import TopicPartition
from headrace.engine.replicas import read_replicas
from headrace.engine.testkit import drive, fetched, readings_log
from headrace.schemas import topics
from headrace.schemas.rule import AlertRule
from headrace.tables.device_types import load_device_types
from headrace.tables.registry import Registry
from headrace.tables.replicated import Replicated
from headrace.tables.rule_book import RuleBook, encode_rule, rule_table
from tests.agents.alerting.histories import T0, alerts_of
from tests.agents.alerting.histories import rule as hot

#: Place of the first record that it applies to, rule id, the rule; None deletes it.
Change = tuple[int, str, AlertRule | None]


def rule(rule_id: str = "hot", **changes: Any) -> AlertRule:
    """A rule: temperature > 40 at once, no cooldown, unless changed."""
    return hot(rule_id, **{"duration": 0, "cooldown_period": 0, **changes})


def table(*changes: Change) -> Replicated[AlertRule]:
    """The topic's rules, changed just before these records."""
    rules = rule_table(load_device_types())
    for place, key, value in changes:
        rules.put(key, value, at_ms=place)
    return rules


def events(alert: Alerts, temperatures: list[float], **options: Any) -> list[tuple[str, str, int]]:
    """Rule, status, and the place of the reading of every event; record n is appended at n ms and measured at n s."""
    rows = [
        ("a", "environmental", T0 + place * 1000, {"temperature": value}) for place, value in enumerate(temperatures)
    ]
    driven = drive(alert, readings_log(rows), **options)
    return [
        (alert.ruleId, alert.status, event.timestamp)
        for event, alert in zip(driven.sent.get(topics.ALERTS, []), alerts_of(driven), strict=True)
    ]


def test_a_rule_applies_from_its_append_time_until_it_is_deleted() -> None:
    """In the middle of a batch; an alert that is open then ends, and the rule begins anew when it comes back."""
    rules = table((2, "hot", rule()), (4, "hot", None), (7, "hot", rule()))

    assert events(Alerts([], rules), [50, 50, 50, 50, 50, 20, 50, 50, 20]) == [
        ("hot", "triggered", 2),
        ("hot", "resolved", 4),
        ("hot", "triggered", 7),
        ("hot", "resolved", 8),
    ]


def test_a_rule_of_the_topic_takes_the_place_of_the_file_s() -> None:
    """Until it is deleted: then the file's one applies again. An episode goes on under the changed rule."""
    rules = table((2, "hot", rule(threshold=60)), (5, "hot", None))

    assert events(Alerts([rule()], rules), [50, 50, 50, 70, 70, 50, 20]) == [
        ("hot", "triggered", 0),
        ("hot", "resolved", 2),
        ("hot", "triggered", 3),
        ("hot", "resolved", 6),
    ]


def test_an_inactive_rule_of_the_topic_switches_the_file_s_off() -> None:
    """And a rule that is gone has no open alerts."""
    rules = table((1, "hot", rule(status="inactive")), (1, "warm", rule("warm")), (3, "warm", None))
    alert = Alerts([rule()], rules)

    assert events(alert, [20, 50, 50, 50]) == [("warm", "triggered", 1), ("warm", "resolved", 3)]
    assert alert.open_alerts() == 0


def test_rules_of_a_record_come_in_one_order() -> None:
    """The file's first, then those of the topic by id; the id is the key."""
    book = RuleBook([rule("b"), rule("a")], table((0, "c", rule("other")), (0, "a", rule("a", name="A2"))))

    assert [(each.rule_id, each.name) for each in book.at(0).rules] == [("b", "B"), ("a", "A2"), ("c", "Other")]


def test_rules_that_could_never_fire_are_refused() -> None:
    """An unknown metric, or no rule at all: the one before stays."""
    rules = rule_table(load_device_types())
    target = TopicPartition(topics.RULES, 0)
    records = readings_log([("a", "b", 0, {})] * 3)
    records.keys = [b"hot"] * 3
    records.values = [encode_rule(rule()), encode_rule(rule(metric="tmeperature")), b"{}"]

    assert rules.take(fetched(records, *target)) == 2
    assert rules.get("hot", 9) == rule()


TEMPERATURES = st.sampled_from([20.0, 50.0, 70.0])
RULES = st.one_of(
    st.none(),
    st.builds(
        rule,
        threshold=st.sampled_from([40, 60]),
        duration=st.sampled_from([0, 2]),
        cooldown_period=st.sampled_from([0, 3]),
        device_type=st.sampled_from(["all", "environmental", "tilt"]),
        status=st.sampled_from(["active", "active", "inactive"]),
    ),
)
CHANGES = st.lists(st.tuples(st.integers(0, 20), st.sampled_from(["hot", "warm"]), RULES), max_size=8).map(
    lambda changes: sorted(changes, key=lambda change: change[0])
)


@given(temperatures=st.lists(TEMPERATURES, min_size=1, max_size=20), changes=CHANGES, sizes=st.lists(st.integers(1, 5)))
def test_boundaries_and_restarts_change_nothing(
    temperatures: list[float], changes: list[Change], sizes: list[int]
) -> None:
    """The same log and the same changes give the same events, whatever is read at once, and after any crash."""

    def alert() -> Alerts:
        return Alerts([rule()], table(*changes))

    whole = events(alert(), temperatures)

    assert events(alert(), temperatures, batch_sizes=sizes) == whole
    assert events(alert(), temperatures, batch_sizes=[1] * len(temperatures), restart=alert) == whole


async def test_rules_are_written_by_a_registry() -> None:
    """A published rule comes back as it was."""
    log = EmbeddedLog(MEMORY)
    registry = Registry(log, topics.RULES, encode_rule, ManualClock(T0), delay=0)
    await registry.put("hot", rule(duration=2.5, device_ids=("a",)))
    alert = Alerts([], rule_table(load_device_types()))

    async with asyncio.timeout(120):
        await read_replicas(log, alert, ManualClock(T0))

    assert alert.looks_back() == 2.5
    await log.close()
