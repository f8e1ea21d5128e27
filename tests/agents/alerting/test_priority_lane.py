"""Alarms that overtake telemetry: the alert agent over both lanes."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.agents.alerting.alerts import Alerts
from headrace.engine.testkit import Changelog, Driven, drive, fetched, readings_log, run_batch
from headrace.schemas import topics
from headrace.schemas.alert import Alert
from headrace.schemas.condition import ThresholdCondition
from headrace.schemas.rule import AlertRule
from tests.agents.alerting.histories import (
    RULES,
    T0,
    Row,
    alerts_of,
    along,
    changes,
    history,
    rule,
    status_and_second,
    steps,
)

#: A lane and how many of its records come next.
Turn = tuple[bool, int]

NOW = rule("now", duration=0, cooldown_period=0)
turns = st.lists(st.tuples(st.booleans(), st.integers(1, 12)), max_size=40)


def forward(steps: list[Row]) -> list[Row]:
    """As `along`, and no device goes back in time."""
    return along([(device, kind, abs(step), measures) for device, kind, step, measures in steps])


class Lanes:
    """The alert agent on both lanes of one history, in turns.

    Args:
        alarms: places of the rows that are alarms.
        restart: commit after every batch and go on in a fresh agent.
    """

    def __init__(
        self, rules: Sequence[AlertRule], rows: list[Row], alarms: Sequence[int], *, restart: bool = False
    ) -> None:
        self.agent = Alerts(rules)
        self.driven = Driven({}, [])
        self._rules = rules
        self._restart = restart
        self._changelog = Changelog()
        records = readings_log(rows)
        self._lanes = {topics.READINGS: records, topics.READINGS_PRIORITY: records.take(list(alarms))}
        self._at = dict.fromkeys(self._lanes, 0)

    def run(self, turns: Sequence[Turn]) -> Iterator[bool]:
        """Each turn, then what is left, the ordinary lane last; after each batch its lane."""
        for priority, count in [*turns, (True, 1000), (False, 1000)]:
            topic = topics.READINGS_PRIORITY if priority else topics.READINGS
            start = self._at[topic]
            part = self._lanes[topic].slice(start, start + count)
            if len(part):
                self._at[topic] += len(part)
                run_batch(self.agent, fetched(part, topic, 0, start), self.driven)
                if self._restart:
                    self._changelog.commit(self.agent)
                    self.agent = Alerts(self._rules)
                    self._changelog.restore(self.agent)
                yield priority

    def alerts(self) -> list[Alert]:
        return alerts_of(self.driven)


def still_open(alerts: Sequence[Alert]) -> set[tuple[str, str, str]]:
    """Rule, type and device of the alerts that are open after these events."""
    found: set[tuple[str, str, str]] = set()
    for one in alerts:
        key = (one.ruleId, one.deviceType, one.deviceId)
        (found.add if one.status == "triggered" else found.remove)(key)
    return found


@settings(max_examples=150, deadline=None)
@given(steps.map(along), st.sets(st.integers(0, 79)), turns, st.booleans())
def test_each_alert_is_triggered_once_however_the_lanes_are_interleaved(
    rows: list[Row], chosen: set[int], turns: list[Turn], restart: bool
) -> None:
    """One alert is open per rule and device, triggers are a cooldown apart, and none comes twice; restarts or not."""
    alarms = [place for place in sorted(chosen) if place < len(rows)]
    lanes = Lanes(RULES, rows, alarms, restart=restart)
    list(lanes.run(turns))

    open_alerts: dict[tuple[str, str, str], str] = {}
    last: dict[tuple[str, str, str], int] = {}
    cooldowns = {one.rule_id: one.cooldown_period * 1000 for one in RULES}
    for one in lanes.alerts():
        key = (one.ruleId, one.deviceType, one.deviceId)
        if one.status == "triggered":
            assert key not in open_alerts
            assert key not in last or one.triggeredAt >= last[key] + cooldowns[one.ruleId]
            open_alerts[key], last[key] = one.alertId, one.triggeredAt
        else:
            assert open_alerts.pop(key) == one.alertId
            assert one.resolvedAt is not None
            assert one.resolvedAt >= one.triggeredAt


@settings(max_examples=150, deadline=None)
@given(steps.map(forward), st.sets(st.integers(0, 79)), turns, st.booleans())
def test_once_both_lanes_are_read_alerts_are_open_as_the_ordinary_lane_alone_says(
    rows: list[Row], chosen: set[int], turns: list[Turn], restart: bool
) -> None:
    """Of a rule without cooldown, and alarms in the order of event time; late ones have a test of their own."""
    rules = [
        NOW,
        rule("long", duration=20, cooldown_period=0),
        rule("cold", duration=0, operator="<", cooldown_period=0),
    ]
    alarms = [place for place in sorted(chosen) if place < len(rows)]
    lanes, alone = Lanes(rules, rows, alarms, restart=restart), Lanes(rules, rows, [])
    list(lanes.run(turns))
    list(alone.run([]))

    assert still_open(lanes.alerts()) == still_open(alone.alerts())
    assert lanes.agent.open_alerts() == len(still_open(lanes.alerts()))


@settings(max_examples=100, deadline=None)
@given(steps.map(along), turns)
def test_without_alarms_events_are_those_of_one_lane(rows: list[Row], turns: list[Turn]) -> None:
    """Byte for byte, whatever the batches."""
    lanes = Lanes(RULES, rows, [])
    list(lanes.run(turns))

    assert lanes.driven == drive(Alerts(RULES), readings_log(rows))


@settings(max_examples=100, deadline=None)
@given(steps.map(along), st.sets(st.integers(0, 79)), turns)
def test_the_priority_lane_triggers_in_the_order_of_each_device_and_resolves_nothing(
    rows: list[Row], chosen: set[int], turns: list[Turn]
) -> None:
    """Only rules without duration, at the time of the alarm."""
    alarms = [place for place in sorted(chosen) if place < len(rows)]
    lanes = Lanes(RULES, rows, alarms)
    at_once = {
        one.rule_id for one in RULES if isinstance(one.condition, ThresholdCondition) and not one.condition.duration
    }
    seen, early = 0, defaultdict[tuple[str, str, str], list[int]](list)
    for priority in lanes.run(turns):
        new, seen = lanes.alerts()[seen:], len(lanes.alerts())
        for one in new if priority else ():
            assert one.status == "triggered"
            assert one.ruleId in at_once
            early[one.ruleId, one.deviceType, one.deviceId].append(one.triggeredAt)

    alarm_times = {rows[place][2] for place in alarms}
    assert all(times == sorted(set(times)) and alarm_times.issuperset(times) for times in early.values())


def test_an_alarm_triggers_before_what_it_has_overtaken_and_its_own_copy_goes_on() -> None:
    """Overtaken readings neither resolve the alert nor move its beginning; the first one after it that is fine does."""
    rows = history((1, 50), (2, 20), (3, 50), (4, 50), (5, 20))
    lanes = Lanes([NOW], rows, [2])
    run = lanes.run([(True, 1), (False, 2), (False, 2), (False, 1)])
    found = []
    for _ in run:
        found.append(status_and_second(lanes.alerts()))

    assert found == [[("triggered", 3)]] * 3 + [[("triggered", 3), ("resolved", 5)]]


def test_an_alarm_that_comes_after_its_own_copy_does_nothing() -> None:
    """The priority lane may be the later one, after a restart say: what was resolved is not triggered again."""
    rows = history((1, 50), (2, 20))
    lanes = Lanes([NOW], rows, [0])
    list(lanes.run([(False, 2), (True, 1)]))

    assert status_and_second(lanes.alerts()) == [("triggered", 1), ("resolved", 2)]


def test_overtaken_telemetry_is_not_late() -> None:
    """Each lane has a clock of the device: a rule with a duration sees every reading of the ordinary lane."""
    rows = history((0, 50), (30, 50), (60, 50), (90, 50))
    lanes = Lanes([rule()], rows, [3])
    list(lanes.run([(True, 1), (False, 4)]))

    assert status_and_second(lanes.alerts()) == changes(rows) == [("triggered", 60)]


def test_an_alarm_older_than_what_it_has_overtaken_triggers_all_the_same() -> None:
    """The ordinary lane ignores it as late; the priority lane cannot know. The next reading of the metric resolves."""
    rows: list[Row] = [("a", "env", T0 + 3000, {}), *history((1, 50), (4, 20))]
    lanes = Lanes([NOW], rows, [1])
    list(lanes.run([(True, 1)]))

    assert changes(rows, NOW) == []
    assert status_and_second(lanes.alerts()) == [("triggered", 1), ("resolved", 4)]


def test_the_cooldown_runs_from_the_trigger_that_was_sent() -> None:
    """An overtaken reading would have triggered first: nobody heard of that."""
    one = rule(duration=0, cooldown_period=10)
    rows = history((1, 50), (2, 20), (5, 50), (6, 20), (12, 50), (15, 50))
    lanes = Lanes([one], rows, [2])
    list(lanes.run([(True, 1)]))

    assert changes(rows, one) == [("triggered", 1), ("resolved", 2), ("triggered", 12)]
    assert status_and_second(lanes.alerts()) == [("triggered", 5), ("resolved", 6), ("triggered", 15)]
