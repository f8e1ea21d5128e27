"""The life of alerts in random histories, in any batches and over restarts, against a plain model."""

import json
import random
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from headrace.agents.alerting.alerts import Alerts
from headrace.agents.alerting.known_devices import KnownDevice
from headrace.agents.alerting.suppression import Cause
from headrace.engine.records import Record, Records
from headrace.engine.testkit import Changelog, Driven, fetched, readings_log, run_batch
from headrace.schemas import topics
from headrace.schemas.alert import AlertEvent, Refusal
from headrace.schemas.device import Status
from headrace.schemas.rule import AlertRule
from headrace.schemas.silence import Silence
from headrace.tables.device_types import load_device_types
from headrace.tables.replicated import Replicated
from headrace.tables.rule_book import rule_table
from tests.agents.alerting.life_model import KEEP_MS, TYPE, Event, Model, Step

DEVICES = ("a", "b", "g1", "g2")
TABLES = {"device": topics.DEVICES, "silence": topics.SILENCES, "cause": topics.ALERT_CAUSES, "rule": topics.RULES}
T0 = 1_700_000_000_000
TYPES = load_device_types()


def rule(rule_id: str, metric: str, cooldown: int, **more: Any) -> AlertRule:
    condition = {"metric": metric, "operator": ">", "threshold": 40}
    return AlertRule.model_validate(
        {
            "ruleId": rule_id,
            "name": rule_id,
            "condition": condition,
            "cooldownPeriod": cooldown,
            "flapping": None,
            **more,
        }
    )


CHANGES = [("status", "inactive"), ("explains", True), ("organizationId", "acme"), ("name", "other")]
RULES: dict[str, Callable[..., AlertRule]] = {
    "hot": lambda **more: rule("hot", "temperature", 0, **more),
    "wet": lambda **more: rule("wet", "humidity", 60, **more),
}
#: How often each kind of step comes.
WEIGHTS = {"reading": 40, "command": 25, "device": 8, "silence": 12, "cause": 8, "rule": 7}
SILENCED: list[dict[str, list[str]]] = [
    {"device_ids": ["a"]}, {"gateway_ids": ["g1"]}, {"rule_ids": ["hot"]}, {"organization_ids": ["acme"]},
    {"rule_ids": ["hot"], "device_ids": ["b", "g1"]},
]  # fmt: skip
COMMANDS = ["acknowledge", "acknowledge", "resolve", "resolve", "comment", "snooze"]
#: Kind, what it is about, what else, and ms of append time since the step before.
Move = tuple[tuple[str, str, Any], int]


def moves_of(seed: int, length: int) -> list[Move]:
    """A busy history. Short ones are the beginnings of long ones."""
    rng = random.Random(seed)
    made = []
    for _ in range(length):
        (kind,) = rng.choices([*WEIGHTS], [*WEIGHTS.values()])
        # Now and then long enough that what is over is forgotten.
        later = rng.choice([1, 1, 1, 3, 10, 30]) if rng.random() < 0.97 else KEEP_MS + 100
        made.append(((kind, *_MAKE[kind](rng)), later))
    return made


def _reading(rng: random.Random) -> tuple[str, Any]:
    values = {"temperature": rng.choice([20.0, 50.0, 50.0])}
    if rng.random() < 0.5:
        values["humidity"] = rng.choice([20.0, 50.0])
    return rng.choice(DEVICES), values


def _device(rng: random.Random) -> tuple[str, Any]:
    statuses: list[Status] = ["active", "active", "active", "active", "maintenance", "retired"]
    gateway = rng.choice([None, "g1", "g1", "g2", "g2", "a"])
    known = KnownDevice(organisation=rng.choice([None, "acme"]), gateway=gateway, status=rng.choice(statuses))
    return rng.choice(DEVICES), known if rng.random() < 0.9 else None


def _silence(rng: random.Random) -> tuple[str, Any]:
    made = rng.randint(-20, 20), rng.randint(1, 60), rng.choice(SILENCED)
    return rng.choice(["s1", "s2"]), made if rng.random() < 0.85 else None


_MAKE: dict[str, Callable[[random.Random], tuple[str, Any]]] = {
    "reading": _reading,
    "command": lambda rng: (
        rng.choice(DEVICES),
        (rng.choice(COMMANDS), rng.randint(0, 2), rng.randint(0, 40), rng.randint(-5, 60), rng.random() < 0.9),
    ),
    "device": _device,
    "silence": _silence,
    "cause": lambda rng: (rng.choice(["g1", "g2"]), rng.random() < 0.6),
    "rule": lambda rng: (rng.choice([*RULES]), rng.choice([None, (), (), *CHANGES])),
}


def steps_of(found: list[Move]) -> tuple[list[Step], Model]:
    """What the moves are, and what the model makes of them; commands are about alerts that there are by then."""
    model, steps, at, time = Model(), list[Step](), T0, T0
    for name, make in RULES.items():
        steps.append(Step(T0, "rule", name, make()))
    for step in steps:
        model.take(step)
    seen: list[tuple[str, str]] = []
    for (kind, name, value), later in found:
        at += later
        if kind == "reading":
            time += 20_000
            # Those who append are not quite of one time.
            step = Step(at - time // 20_000 % 3 * 4, kind, name, value, time)
        elif kind == "command":
            step = command_of(at, name, value, seen)
        elif kind == "silence" and value is not None:
            start, length, fields = value
            made = Silence(
                id=name, starts_at=at + start, ends_at=at + start + length, comment="c", created_by="ada", **fields
            )
            step = Step(at, kind, name, made)
        elif kind == "cause":
            key = orjson.dumps([name, "down"]).decode()
            step = Step(at, kind, key, Cause(f"cause-{name}", "Down", name, at) if value else None)
        elif kind == "rule" and value is not None:
            step = Step(at, kind, name, RULES[name](**dict([value] if value else [])))
        else:
            step = Step(at, kind, name, value)
        steps.append(step)
        model.take(step)
        seen += [(each.id, each.device) for each in model.events if each.change == "triggered"][len(seen) :]
    return steps, model


def command_of(at: int, device: str, value: tuple[str, int, int, int, bool], seen: list[tuple[str, str]]) -> Step:
    name, back, number, until, honest = value
    alert, of = seen[-1 - back % len(seen)] if seen else ("none", device)
    command = {"command": name, "commandId": f"c{number}", "alertId": alert, "userId": "ada"}
    texts: dict[str, dict[str, Any]] = {
        "resolve": {"resolution": "r"}, "comment": {"comment": "c"}, "snooze": {"until": at + until},
    }  # fmt: skip
    whose = of if honest else device
    return Step(at, "command", whose, {**command, **texts.get(name, {}), "deviceId": whose})


class Run:
    """An agent that is given steps.

    Args:
        steps: all of them.
        upfront: whether the replicated tables hold everything before it begins.
    """

    def __init__(self, steps: list[Step], *, upfront: bool) -> None:
        self.driven = Driven({}, [])
        self._changelog = Changelog()
        self._told: list[Step] = []
        self._agent = Alerts((), rule_table(TYPES), keep_over=KEEP_MS / 1000)
        self._offsets = {topics.READINGS: 0, topics.ALERT_COMMANDS: 0}
        if upfront:
            self.tell([step for step in steps if step.kind in TABLES])

    def tell(self, steps: list[Step]) -> None:
        """Change the replicated tables."""
        self._told += steps
        tables: dict[str, Replicated[Any]] = {each.topic: each for each in self._agent.replicas}  # type: ignore[misc]
        for step in steps:
            tables[TABLES[step.kind]].put(step.name, step.value, at_ms=step.at_ms)

    def give(self, steps: list[Step]) -> None:
        """A batch of one topic."""
        if steps[0].kind == "reading":
            topic = topics.READINGS
            records = Records.concat(
                [readings_log([(each.name, TYPE, each.time_ms, each.value)], each.at_ms) for each in steps]
            )
        else:
            topic = topics.ALERT_COMMANDS
            records = Records(
                [each.name.encode() for each in steps],
                [orjson.dumps(each.value) for each in steps],
                [each.at_ms for each in steps],
            )
        run_batch(self._agent, fetched(records, topic, 0, self._offsets[topic]), self.driven)
        self._offsets[topic] += len(records)

    def restart(self) -> None:
        """Commit and die; another agent goes on."""
        self._changelog.commit(self._agent)
        told, self._told = self._told, []
        self._agent = Alerts((), rule_table(TYPES), keep_over=KEEP_MS / 1000)
        self._changelog.restore(self._agent)
        self.tell(told)

    def records(self) -> dict[str, list[Record]]:
        return {
            name: self.driven.sent.get(name, []) for name in (topics.ALERTS, topics.ALERT_STATES, topics.ALERT_CAUSES)
        }


def run_whole(steps: list[Step]) -> Run:
    """Everything is known before, and batches are as large as can be."""
    run, waiting = Run(steps, upfront=True), list[Step]()
    for step in [*(each for each in steps if each.kind not in TABLES), Step(0, "end", "", None)]:
        if waiting and step.kind != waiting[0].kind:
            run.give(waiting)
            waiting = []
        waiting.append(step)
    return run


def run_live(steps: list[Step], sizes: list[int]) -> Run:
    """Changes come when they come; batches are of these sizes, and after each of size 1 it starts again."""
    run, waiting, sizes = Run(steps, upfront=False), list[Step](), sizes or [1]
    batches = 0
    for step in [*steps, Step(0, "end", "", None)]:
        size = sizes[batches % len(sizes)]
        if waiting and (step.kind != waiting[0].kind or len(waiting) >= size):
            run.give(waiting)
            waiting, batches = [], batches + 1
            if size == 1:
                run.restart()
        if step.kind in TABLES:
            run.tell([step])
        else:
            waiting.append(step)
    return run


def events_of(driven: Driven) -> list[Event]:
    """What the events say, as the model says it."""
    found = []
    for record in driven.sent.get(topics.ALERTS, []):
        event = AlertEvent.model_validate_json(record.value or b"")
        change, alert = event.type.rpartition(".")[2], event.data
        if isinstance(alert, Refusal):
            found.append(Event(change, "", alert.deviceId, alert.commandId))
            continue
        assert event.id == f"{alert.alertId}/{alert.revision}"
        why = alert.suppressed
        found.append(
            Event(
                change, alert.ruleId, alert.deviceId, alert.alertId, alert.revision, alert.status,
                None if why is None else (why.by, why.id, why.until), alert.metadata.get("explainedBy"),
                "explains" in alert.metadata, len(alert.comments),
            )
        )  # fmt: skip
    return found


# A history is short where it has to be; making one smaller takes minutes.
@settings(max_examples=10, deadline=None, phases=(Phase.explicit, Phase.generate))
@given(
    seed=st.integers(0, 2**32 - 1),
    length=st.integers(100, 250),
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=6),
)
def test_alerts_live_as_the_model_says_whatever_the_batches(seed: int, length: int, sizes: list[int]) -> None:
    """Rules, registry, silences and causes change, people command, workers die: byte for byte the same, and right."""
    steps, model = steps_of(moves_of(seed, length))

    whole, live = run_whole(steps), run_live(steps, sizes)

    assert events_of(whole.driven) == model.events
    assert live.records() == whole.records()
    assert whole.driven.dead_letters == live.driven.dead_letters == []
    states = {record.key: record.value for record in whole.records()[topics.ALERT_STATES]}
    assert {key for key, value in states.items() if value is not None} == {
        known.id.encode() for known in model.known.values()
    }
    newest = {
        event["data"]["alertId"].encode(): event["data"]
        for record in whole.records()[topics.ALERTS]
        if "revision" in (event := orjson.loads(record.value or b""))["data"]
    }
    assert all(orjson.loads(value) == newest[key] for key, value in states.items() if value is not None and key)


def test_a_gateway_explains_what_is_behind_gateways_behind_it() -> None:
    """An alert that is open is explained when the cause comes, and not any more when it goes; not in a circle."""
    behind = [("a", "g1"), ("g1", "g2"), ("b", "b")]
    at = iter(range(T0, T0 + 1_000, 10))
    key = orjson.dumps(["g2", "down"]).decode()
    steps = [
        Step(next(at), "rule", "hot", RULES["hot"]()),
        *(Step(next(at), "device", name, KnownDevice(gateway=gateway)) for name, gateway in behind),
        *(Step(next(at), "reading", name, {"temperature": 50.0}, T0) for name in ("a", "b", "g1", "g2")),
        Step(next(at), "cause", key, Cause("x", "Down", "g2", T0)),
        Step(next(at), "cause", orjson.dumps(["b", "down"]).decode(), Cause("y", "Down", "b", T0)),
        Step(next(at), "reading", "other", {"temperature": 20.0}, T0),
        Step(next(at), "cause", key, None),
        Step(next(at), "reading", "other", {"temperature": 20.0}, T0 + 1),
    ]

    run = run_live(steps, [2])

    later = [(each.change, each.device, each.explained_by) for each in events_of(run.driven)[4:]]
    assert sorted(later[:2]) == [("suppressed", "a", "x"), ("suppressed", "g1", "x")]
    assert sorted(later[2:]) == [("unsuppressed", "a", None), ("unsuppressed", "g1", None)]


def as_json(value: object) -> bytes:
    """As JSON, as far as it can be."""
    return json.dumps(value).encode()


commands = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.binary(max_size=5).map(repr),
    lambda inner: st.dictionaries(
        st.sampled_from(["command", "commandId", "alertId", "deviceId", "userId", "comment", "until", "x"]), inner
    ),
    max_leaves=8,
)


@settings(max_examples=60)
@given(value=st.binary(max_size=30) | commands.map(as_json), key=st.sampled_from([b"a", b"\xff", b""]))
def test_what_is_no_command_is_dead_lettered_with_the_reason(value: bytes, key: bytes) -> None:
    """Whatever somebody writes there, the agent goes on and says in a line what is wrong with it."""
    agent = Alerts([RULES["hot"]()])
    driven = Driven({}, [])
    good = {"command": "comment", "commandId": "c", "alertId": "x", "deviceId": "a", "userId": "u", "comment": "hi"}

    run_batch(agent, fetched(Records([key, b"a"], [value, orjson.dumps(good)], [1, 2]), topics.ALERT_COMMANDS), driven)

    assert [event.change for event in events_of(driven)] == ["refused"]
    ((offset, reason),) = driven.dead_letters
    assert offset == 0
    assert reason.startswith("no command: ")
    assert "\n" not in reason


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"command": "delete"}, "command must be one of 'acknowledge', "),
        ({"comment": "nul \0"}, "comment.comment: must not hold control characters"),
        ({"userId": "two\nlines"}, "comment.userId: must not hold control characters"),
        ({"comment": ""}, "comment.comment: must not be empty"),
        ({"more": 1}, "comment.more: is not known"),
        ({"deviceId": "b"}, "the record's key must be its deviceId"),
    ],
)
def test_a_command_with_a_mistake_is_dead_lettered(change: dict[str, Any], told: str) -> None:
    """The reason names the field."""
    good = {"command": "comment", "commandId": "c", "alertId": "x", "deviceId": "a", "userId": "u", "comment": "hi"}
    driven = Driven({}, [])

    records = Records([b"a"], [json.dumps({**good, **change}).encode()], [1])
    run_batch(Alerts([RULES["hot"]()]), fetched(records, topics.ALERT_COMMANDS), driven)

    assert told in driven.dead_letters[0][1]
