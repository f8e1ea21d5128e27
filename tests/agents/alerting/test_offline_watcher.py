"""Devices that are offline, against a plain-Python oracle, and their connections one by one."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.agents.alerting.alerts import Alerts
from headrace.schemas import topics
from headrace.schemas.condition import OfflineCondition
from headrace.schemas.device import Device, encode_device
from headrace.schemas.presence import Presence
from tests.agents.alerting.living import SECOND, T0, Line, Living, rule

OFFLINE = rule("gone", {"offline_for": 60})


def event(second: float, device: str, state: str, connection: str = "1", client: str = "c", **more: Any) -> Line:
    """A presence event, appended when it happened."""
    time = T0 + round(second * SECOND)
    document = {"device_id": device, "client_id": client, "connection_id": connection, "state": state, "time": time}
    return topics.PRESENCE, device, Presence.model_validate({**document, **more}).model_dump_json().encode(), time


def story(*lines: Line) -> list[tuple[str, float]]:
    """Status and second of each event about the device a."""
    told = Living(lambda: Alerts([OFFLINE])).give([*lines, event(10_000, "other", "connected")]).story
    return [(status, second) for _, device, status, second in told if device == "a"]


def test_who_does_not_come_back_in_time_is_offline() -> None:
    """From `offline_for` after the disconnect until the next connection; who comes back before is not."""
    living = Living(lambda: Alerts([OFFLINE])).give(
        [
            event(0, "a", "connected"),
            event(10, "a", "disconnected", reason="keep alive timeout"),
            event(70, "a", "connected", "2"),
            event(80, "a", "disconnected", "2", reason="connection lost"),
            event(140, "b", "connected"),
            event(141, "b", "connected"),
            event(200, "a", "connected", "3"),
        ]
    )

    assert living.story == [("gone", "a", "triggered", 140.0), ("gone", "a", "resolved", 200.0)]
    triggered, resolved = living.alerts
    assert (triggered.metric, triggered.actualValue, triggered.threshold) == ("connection", 60.0, 60.0)
    assert triggered.metadata == {"reason": "connection lost", "clientId": "c", "offlineSince": T0 + 80 * SECOND}
    assert (triggered.deviceType, resolved.resolvedValue) == ("unknown", 120.0)


def test_a_connection_that_was_taken_over_does_not_count() -> None:
    """Its end comes after the new one began; the end of the new one counts."""
    assert not story(
        event(0, "a", "connected", "1"),
        event(5, "a", "connected", "2"),
        event(5, "a", "disconnected", "1", reason="taken over"),
    )
    assert story(
        event(0, "a", "connected", "1"),
        event(5, "a", "connected", "2"),
        event(5, "a", "disconnected", "1", reason="taken over"),
        event(9, "a", "disconnected", "2", reason="goodbye"),
    ) == [("triggered", 69.0)]


def test_the_last_connection_of_a_device_counts() -> None:
    """A device may have several clients; a client that a dead listener left behind takes its own place again."""
    assert story(
        event(0, "a", "connected", "1", "c"),
        event(1, "a", "connected", "2", "d"),
        event(2, "a", "disconnected", "1", "c"),
        event(300, "a", "disconnected", "2", "d"),
    ) == [("triggered", 360.0)]
    assert story(
        event(0, "a", "connected", "old-1", "c"),
        event(300, "a", "connected", "new-1", "c"),
        event(400, "a", "disconnected", "new-1", "c"),
    ) == [("triggered", 460.0)]


def test_a_listener_that_shuts_down_leaves_its_devices_offline() -> None:
    """Counted from there, for each; also for one whose connection began before anybody looked."""
    lines = [event(0, "a", "connected")]
    lines += [event(100, device, "disconnected", reason="server shutting down") for device in "ab"]
    lines += [event(130, "b", "connected", "2")]

    assert story(*lines) == [("triggered", 160.0)]


def test_time_alone_shows_who_is_offline() -> None:
    """When nothing comes from `devices.presence`; time on other topics does not count, and a will changes nothing."""
    living = Living(lambda: Alerts([OFFLINE]))
    living.give([event(0, "a", "connected"), event(1, "a", "disconnected"), event(1, "a", "will")])
    living.idle(topics.READINGS, 600, T0 + 600 * SECOND)
    living.idle(topics.PRESENCE, 60, T0 + 61 * SECOND)
    assert not living.story
    assert living.agent.is_waiting(0)

    living.die()
    living.idle(topics.PRESENCE, 60.5, T0 + 62 * SECOND)

    assert living.story == [("gone", "a", "triggered", 61.0)]
    assert living.records[0].timestamp == T0 + 62 * SECOND


def test_at_once() -> None:
    """With `offline_for` 0 the disconnect itself triggers."""
    living = Living(lambda: Alerts([rule("gone", {"offline_for": 0})]))
    living.give([event(3, "a", "disconnected"), event(4, "a", "connected", "2")])

    assert living.story == [("gone", "a", "triggered", 3.0), ("gone", "a", "resolved", 4.0)]


def test_who_stays_offline_is_alerted_about_after_the_cooldown() -> None:
    """Not only who goes offline anew: the condition is met all the time."""
    lines = [event(0, "a", "disconnected"), event(100, "a", "connected"), event(110, "a", "disconnected")]
    living = Living(lambda: Alerts([rule("gone", {"offline_for": 60}, cooldown_period=300)]))
    living.give(lines).idle(topics.PRESENCE, 250, T0 + 360 * SECOND)
    assert living.story == [("gone", "a", "triggered", 60.0), ("gone", "a", "resolved", 100.0)]

    living.die()
    living.idle(topics.PRESENCE, 251, T0 + 361 * SECOND)

    assert living.story[2:] == [("gone", "a", "triggered", 360.0)]
    assert living.alerts[2].cooldownSuppressed == 1


def test_who_stays_offline_is_alerted_about_when_the_schedule_begins() -> None:
    """Offline in the night from Tuesday to Wednesday: at nine."""
    living = Living(lambda: Alerts([rule("gone", {"offline_for": 60}, schedule={"type": "business-hours"})]))
    living.give([event(0, "a", "disconnected"), event(86_400, "b", "connected")])

    (alert,) = living.alerts
    assert alert.triggeredAt == 1_700_038_800_000  # 2023-11-15T09:00Z


def test_rules_are_for_types_and_organisations_of_the_registry() -> None:
    """And a retired device is not awaited."""

    def agent() -> Alerts:
        agent = Alerts([rule("tilt", {"offline_for": 60}, device_type="tilt", organization_id="acme"), OFFLINE])
        devices = agent.replicas[0]
        for name, more in (("a", {"organisation": "acme"}), ("b", {}), ("c", {"status": "retired"})):
            value = encode_device(Device(id=name, name=f"Device {name}", type="tilt", **more))
            devices.put(name, devices._decode(value), at_ms=0)  # type: ignore[attr-defined]
        return agent

    living = Living(agent).give([*(event(0, device, "disconnected") for device in "abc"), event(61, "d", "connected")])

    assert living.story == [
        ("tilt", "a", "triggered", 60.0),
        ("gone", "a", "triggered", 60.0),
        ("gone", "b", "triggered", 60.0),
    ]
    assert {each.deviceType for each in living.alerts} == {"tilt"}


def test_a_device_that_is_retired_has_no_alert_any_more() -> None:
    """Its alert ends with the next record; nothing of it would come to end it."""
    agent = Alerts([OFFLINE])
    living = Living(lambda: agent).give([event(0, "a", "disconnected"), event(61, "b", "connected")])
    devices = agent.replicas[0]
    value = encode_device(Device(id="a", name="Device a", status="retired"))
    devices.put("a", devices._decode(value), at_ms=T0 + 70 * SECOND)  # type: ignore[attr-defined]

    living.give([event(80, "b", "connected")])

    assert living.story == [("gone", "a", "triggered", 60.0), ("gone", "a", "resolved", 80.0)]
    assert living.alerts[1].resolved is not None
    assert living.alerts[1].resolved.by == "rule"


def test_what_is_no_presence_is_dead_lettered() -> None:
    """With the field that is wrong; the rest goes on."""
    topic, key, _, stamp = event(0, "a", "disconnected")
    living = Living(lambda: Alerts([OFFLINE]))
    living.give(
        [(topic, key, b'{"device_id": "a"}', stamp), event(0, "a", "disconnected"), event(61, "b", "connected")]
    )

    assert [(offset, reason.startswith("no presence: client_id")) for offset, reason in living.driven.dead_letters] == [
        (0, True)
    ]
    assert len(living.story) == 1


RULES = [
    rule("now", {"offline_for": 0}),
    rule("minute", {"offline_for": 60}),
    rule("cool", {"offline_for": 5}, cooldown_period=100),
]
#: The oracle does not know of it.
FLAPPING = rule("flaps", {"offline_for": 5}, flapping={"triggers": 2, "within": 200}, cooldown_period=40)
happenings = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 4, 30, 60, 61, 150]),
        st.sampled_from("ab"),
        st.sampled_from("cd"),
        st.sampled_from(["connected", "connected", "disconnected", "stale"]),
    ),
    max_size=30,
)


def lines_of(steps: list[tuple[int, str, str, str]]) -> list[Line]:
    """What a listener writes: a new connection ends the client's one before, a stale end comes late."""
    current: dict[tuple[str, str], int] = {}
    lines, second = [], 0
    for number, (step, device, client, what) in enumerate(steps):
        second += step
        before = current.get((device, client))
        if what == "connected":
            lines.append(event(second, device, "connected", str(number), client))
            current[device, client] = number
        if before is not None and what != "stale":
            lines.append(event(second, device, "disconnected", str(before), client))
            current = {key: each for key, each in current.items() if each != before}
        if what == "stale" and before is not None:
            lines.append(event(second, device, "disconnected", "long ago", client))
    return lines


def oracle(lines: list[Line]) -> list[tuple[str, str, str, float]]:
    """By looking at each stretch without a connection, rule by rule."""
    found = []
    last = (lines[-1][3] - T0) / SECOND if lines else 0.0
    for device in "ab":
        open_now: set[str] = set()
        clients: dict[str, str] = {}
        stretches: list[list[float]] = []
        for _, key, value, stamp in lines:
            one = Presence.model_validate_json(value)
            if key != device:
                continue
            before = bool(open_now)
            if one.state == "connected":
                open_now = {each for each in open_now if clients[each] != one.client_id} | {one.connection_id}
                clients[one.connection_id] = one.client_id
            else:
                open_now.discard(one.connection_id)
            second = (stamp - T0) / SECOND
            if before and not open_now:
                stretches.append([second, float("inf")])
            elif open_now and stretches and stretches[-1][1] == float("inf"):
                stretches[-1][1] = second
        for one_rule in RULES:
            ready = 0.0
            for since, back in stretches:
                assert isinstance(one_rule.condition, OfflineCondition)
                after = one_rule.condition.offline_for
                start = max(since + after, ready)
                if start >= (back if start > since else back + 1) or (start >= last and start > since):
                    continue
                found.append((one_rule.rule_id, device, "triggered", start))
                ready = max(start + one_rule.cooldown_period, start + 0.001)
                if back < float("inf"):
                    found.append((one_rule.rule_id, device, "resolved", back))
    return sorted(found)


@settings(max_examples=60, deadline=None)
@given(happenings.map(lines_of), st.lists(st.integers(1, 5), max_size=4))
def test_equals_the_oracle_through_batches_and_deaths(lines: list[Line], sizes: list[int]) -> None:
    """Every stretch without a connection is alerted about as the plain definition says, and once."""
    all_rules = [*RULES, FLAPPING]
    whole = Living(lambda: Alerts(all_rules)).give(lines)

    assert sorted(each for each in whole.story if each[0] != "flaps") == oracle(lines)
    assert Living(lambda: Alerts(all_rules)).give(lines, sizes).records == whole.records
    assert Living(lambda: Alerts(all_rules)).give(lines, sizes or [1], deaths=True).records == whole.records
