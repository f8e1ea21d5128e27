"""Random rules on values, histories that they have something to do with, and logs of them."""

from collections.abc import Callable, Sequence
from typing import Any

import orjson
from hypothesis import strategies as st

from headrace.agents.alerting.alerts import Alerts
from headrace.engine.records import Records
from headrace.engine.testkit import Changelog, Driven, fetched, run_batch
from headrace.schemas import topics
from headrace.schemas.rule import AlertRule
from tests.agents.alerting.histories import T0, Row
from tests.agents.alerting.value_oracle import EXPRESSIONS

#: A reading, or the rule and the device whose alert a person ends.
Step = Row | tuple[int, tuple[str, str]]
#: Topic and records, in log order.
Log = list[tuple[str, Records]]
#: Append time of the first record, ms.
FIRST = T0 + 5_000_000


def named(rule_id: str, document: dict[str, Any]) -> AlertRule:
    return AlertRule.model_validate({"rule_id": rule_id, "name": "R", **document})


TIMES = st.sampled_from([0.0, 0.0, 0.0, 4.0, 10.0, 25.0])
METRICS = st.sampled_from(["temperature", "temperature", "co2"])
VALUES = st.sampled_from([5.0, 38.0, 40.0, 41.0, 45.0])
SUSTAINED: dict[str, Any] = {
    "duration": TIMES,
    "clear_for": TIMES,
    "out_of": st.sampled_from([None] * 4 + [{"n": n, "m": m} for n, m in ((1, 2), (2, 3), (3, 3), (2, 5))]),
}
GAPS = st.sampled_from([{}, {}, {"gap": "reset", "max_gap": 12}, {"gap": "no-data", "max_gap": 12}])
THRESHOLDS = st.one_of(
    st.fixed_dictionaries(
        {"metric": METRICS, "operator": st.sampled_from([">", ">="]), "threshold": st.just(40.0)}
        | {"clear": st.sampled_from([None, 38.0, 20.0, 40.0])}
    ),
    st.fixed_dictionaries(
        {"metric": METRICS, "operator": st.sampled_from(["<", "<="]), "threshold": st.just(38.0)}
        | {"clear": st.sampled_from([None, 38.0, 40.0, 50.0])}
    ),
    st.fixed_dictionaries({"metric": METRICS, "operator": st.just("=="), "threshold": st.just(41.0)}),
    st.fixed_dictionaries(
        {"metric": METRICS, "operator": st.sampled_from([">", "<"]), "threshold": st.sampled_from([0.0, 5.0])}
        | {"rate_per": st.sampled_from([1.0, 10.0])}
    ),
    st.fixed_dictionaries({"expression": st.sampled_from(sorted(EXPRESSIONS))}),
)
CONDITIONS = st.builds(
    lambda what, how, gap: {key: value for key, value in (what | how | gap).items() if value is not None},
    THRESHOLDS,
    st.fixed_dictionaries(SUSTAINED),
    GAPS,
)
NIGHTS = {
    "type": "custom",
    "timezone": "Europe/Berlin",
    "stretches": [{"days": ["tue", "thu"], "start": "22:00", "end": "06:00"}, {"start": "12:30", "end": "24:00"}],
}
RULE = st.fixed_dictionaries(
    {
        "condition": CONDITIONS,
        "device_type": st.sampled_from(["all", "env"]),
        "device_ids": st.sampled_from([(), (), ("a",)]),
        "cooldown_period": st.sampled_from([0.0, 0.0, 15.0, 30.0, 300.0]),
        "schedule": st.sampled_from([{}, {}, {}, {}, {"type": "business-hours"}, NIGHTS]),
        "flapping": st.sampled_from([None, {"triggers": 2, "within": 40}, {"triggers": 3, "within": 900}]),
    }
)
RULES = st.lists(RULE, min_size=1, max_size=4).map(
    lambda documents: [named(f"r{place}", each) for place, each in enumerate(documents)]
)
DEVICES = st.sampled_from([*[("env", "a")] * 6, ("env", "b"), ("tilt", "a")])
GAPS_MS = st.sampled_from([0, 1000, 4000, 4000, 4000, 10_000, 10_000, 13_000, 70_000, 25_000_000, -3000])
READINGS = st.one_of(
    st.tuples(DEVICES, GAPS_MS, st.dictionaries(st.sampled_from(["temperature", "co2"]), VALUES, max_size=2)),
    st.tuples(DEVICES, st.just(4000), st.fixed_dictionaries({"temperature": VALUES, "co2": VALUES})),
)
RESOLVES = st.tuples(st.integers(0, 1), DEVICES)
STEPS = st.lists(st.one_of(*[READINGS] * 5, RESOLVES), min_size=25, max_size=70)


def along(steps: Sequence[Any]) -> list[Step]:
    """Event times from steps, each from the device's own last one."""
    clocks: dict[tuple[str, str], int] = {}
    found: list[Step] = []
    for step in steps:
        if isinstance(step[0], int):
            found.append(step)
            continue
        (kind, device), ahead, values = step
        clocks[kind, device] = time = clocks.get((kind, device), T0) + ahead
        found.append((device, kind, time, values))
    return found


def commands(alert_id: str, device: str, row: int) -> list[tuple[str, Records]]:
    """Acknowledges and resolves."""
    common = {"alertId": alert_id, "deviceId": device, "userId": "u"}
    return [
        (topics.ALERT_COMMANDS, Records([device.encode()], [orjson.dumps(common | each)], [FIRST + row + place]))
        for place, each in enumerate(
            [
                {"command": "acknowledge", "commandId": f"a{row}"},
                {"command": "resolve", "commandId": f"r{row}", "resolution": "done"},
            ]
        )
    ]


def again(make: Callable[[], Alerts], log: Log, cuts: set[int], restarts: set[int]) -> Driven:
    """The log read anew, in batches of one topic that end at `cuts`, with restarts from the changelog before others."""
    agent, driven, changelog = make(), Driven({}, []), Changelog()
    at = 0
    while at < len(log):
        end = at + 1
        while end < len(log) and log[end][0] == log[at][0] and end not in cuts | restarts:
            end += 1
        records = Records.concat([each for _, each in log[at:end]])
        run_batch(agent, fetched(records, log[at][0], 0, at + 1), driven)
        if end in restarts:
            changelog.commit(agent)
            agent = make()
            changelog.restore(agent)
        at = end
    return driven
