"""The watcher of measures against a plain loop over all rules, with everything that may change around it."""

from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.agents.alerting.alerts import Alerts
from headrace.agents.alerting.known_devices import KnownDevice
from headrace.agents.alerting.work import Watcher
from headrace.engine.testkit import Driven, fetched, readings_log, run_batch
from headrace.schemas import topics
from headrace.schemas.rule import AlertRule
from headrace.tables.device_types import load_device_types
from headrace.tables.replicated import Replicated
from headrace.tables.rule_book import rule_table
from tests.agents.alerting.drawn import FIRST, RULE, RULES, STEPS, Log, Step, again, along, commands, named
from tests.agents.alerting.histories import alerts_of
from tests.agents.alerting.naive_watcher import NaiveWatcher

#: Place of the first record that a change applies to, the rule's number, the rule; None deletes it.
RuleChange = tuple[int, int, dict[str, Any] | None]
#: The same of a device: its organisation.
Move = tuple[int, str, str | None]

PLACES = st.integers(0, 70)
RULE_CHANGES = st.lists(st.tuples(PLACES, st.integers(0, 2), st.one_of(st.none(), RULE, RULE)), max_size=6)
MOVES = st.lists(st.tuples(PLACES, st.sampled_from(["a", "b"]), st.sampled_from(["acme", "other", None])), max_size=6)
#: How far ahead of itself a reading comes in the priority lane, records.
ALARMS = st.dictionaries(PLACES, st.integers(0, 6), max_size=10)


def agent(
    rules: Sequence[AlertRule], changes: Sequence[RuleChange], moves: Sequence[Move], *watchers: Watcher
) -> Alerts:
    """With rules and a registry that change; rule r1 is for the organisation acme."""
    table = rule_table(load_device_types())
    for place, number, document in sorted(changes, key=lambda each: each[0]):
        changed = None if document is None else named(f"r{number}", document)
        table.put(f"r{number}", changed and _owned(changed), at_ms=FIRST + place)
    made = Alerts([_owned(each) for each in rules], table, watchers or None)
    for replica in made.replicas:
        if replica.topic == topics.DEVICES:
            assert isinstance(replica, Replicated)
            for place, device, organisation in sorted(moves, key=lambda each: each[0]):
                replica.put(device, KnownDevice(organisation=organisation), at_ms=FIRST + place)
    return made


def _owned(rule: AlertRule) -> AlertRule:
    return rule.model_copy(update={"organization_id": "acme"}) if rule.rule_id == "r1" else rule


def live(naive: Alerts, steps: Sequence[Step], alarms: dict[int, int]) -> tuple[Log, Driven]:
    """What is written and sent while people look on, record by record."""
    driven, log = Driven({}, []), Log()
    for place, step in enumerate(steps):
        new: Log = []
        early = [other for other, ahead in sorted(alarms.items()) if other < len(steps) and other - ahead == place]
        for topic, each in [*((topics.READINGS_PRIORITY, steps[one]) for one in early), (topics.READINGS, step)]:
            row = len(log) + len(new)
            if isinstance(each[0], str):
                new.append((topic, readings_log([each], first_append=FIRST + row)))
            elif topic == topics.READINGS:
                key = (f"r{each[0]}", each[1])
                of_it = [one for one in alerts_of(driven) if (one.ruleId, (one.deviceType, one.deviceId)) == key]
                if of_it and of_it[-1].status == "triggered":
                    new += commands(of_it[-1].alertId, of_it[-1].deviceId, row)
        for topic, records in new:
            log.append((topic, records))
            run_batch(naive, fetched(records, topic, 0, len(log)), driven)
    return log, driven


@settings(max_examples=40, deadline=None)
@given(
    RULES, RULE_CHANGES, MOVES, STEPS.map(along), ALARMS,
    st.sets(st.integers(1, 90)), st.sets(st.integers(1, 90), max_size=8),
)  # fmt: skip
def test_events_are_those_of_a_loop_over_all_rules(
    rules: list[AlertRule],
    changes: list[RuleChange],
    moves: list[Move],
    steps: list[Step],
    alarms: dict[int, int],
    cuts: set[int],
    restarts: set[int],
) -> None:
    """Byte for byte, while rules and organisations change and alarms overtake, in any batches, after restarts."""
    log, driven = live(agent(rules, changes, moves, NaiveWatcher()), steps, alarms)

    assert again(lambda: agent(rules, changes, moves), log, set(), set()) == driven
    assert again(lambda: agent(rules, changes, moves), log, cuts, restarts) == driven
