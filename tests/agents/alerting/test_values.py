"""Alerts about measured values against an oracle that looks back over whole histories."""

from collections.abc import Sequence

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.agents.alerting.alerts import Alerts
from headrace.engine.testkit import Driven, fetched, readings_log, run_batch
from headrace.schemas import topics
from headrace.schemas.rule import AlertRule
from tests.agents.alerting.drawn import FIRST, RULES, STEPS, Log, Step, again, along, commands
from tests.agents.alerting.histories import alerts_of
from tests.agents.alerting.value_oracle import Event, Oracle


def live(rules: list[AlertRule], steps: Sequence[Step]) -> tuple[Log, Driven, list[Event]]:
    """What is written and sent while people look on, record by record, and what the oracle says of it."""
    agent, oracle, driven, log = Alerts(rules), Oracle(rules), Driven({}, []), Log()
    for step in steps:
        row = len(log)
        if isinstance(step[0], str):
            oracle.read(row, step)
            new = [(topics.READINGS, readings_log([step], first_append=FIRST + row))]
        else:
            rule_id, device = f"r{step[0]}", step[1]
            if not oracle.resolve(row, FIRST + row, rule_id, device):
                continue
            key = (rule_id, *device)
            of_it = [each for each in alerts_of(driven) if (each.ruleId, each.deviceType, each.deviceId) == key]
            new = list(commands(of_it[-1].alertId, of_it[-1].deviceId, row))
        for each in new:
            log.append(each)
            run_batch(agent, fetched(each[1], each[0], 0, len(log)), driven)
    return log, driven, oracle.events


def events_of(driven: Driven) -> list[Event]:
    """What was sent, as the oracle says it."""
    found = []
    records = driven.sent.get(topics.ALERTS, [])
    for record, one in zip(records, alerts_of(driven), strict=True):
        change = orjson.loads(record.value or b"")["type"].rsplit(".", 1)[1]
        row, device = record.timestamp - FIRST, (one.deviceType, one.deviceId)
        event = Event(row, one.ruleId, device, change, one.triggeredAt)
        if change == "triggered":
            event = event._replace(
                value=one.actualValue, evidence=tuple(each.time for each in one.evidence),
                triggers=one.flaps.triggers, flapping=one.flaps.flapping, cooled=one.cooldownSuppressed,
            )  # fmt: skip
        elif one.resolved is not None:
            event = event._replace(resolved_at=one.resolvedAt, by=one.resolved.by, value=one.resolvedValue)
        found.append(event)
    return found


@settings(max_examples=60, deadline=None)
@given(RULES, STEPS.map(along), st.sets(st.integers(1, 80)), st.sets(st.integers(1, 80), max_size=8))
def test_alerts_equal_the_oracle_in_any_batches_and_after_restarts(
    rules: list[AlertRule], steps: list[Step], cuts: set[int], restarts: set[int]
) -> None:
    """None is missed, none comes twice, and the bytes do not depend on batches or restarts at any commit."""
    log, driven, expected = live(rules, steps)

    assert events_of(driven) == expected
    assert again(lambda: Alerts(rules), log, set(), set()) == driven
    assert again(lambda: Alerts(rules), log, cuts, restarts) == driven
