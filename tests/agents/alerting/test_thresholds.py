"""Threshold alerts, against a plain-Python oracle, and their episodes one by one."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.agents.alerting.alerts import Alerts
from headrace.engine.batch import Batch, Shared
from headrace.engine.errors import ConfigError
from headrace.engine.records import Records
from headrace.engine.testkit import Changelog, drive, fetched, readings_log
from headrace.schemas import topics
from headrace.schemas.condition import ThresholdCondition
from headrace.schemas.device import Device, encode_device
from headrace.schemas.rule import AlertRule
from tests.agents.alerting.histories import (
    RULES,
    SECOND,
    T0,
    Row,
    alerts_of,
    along,
    changes,
    events_of,
    history,
    rule,
    status_and_second,
    steps,
)


def oracle(rows: list[Row], rules: list[AlertRule]) -> list[tuple[str, str, str, str, int]]:
    """Message, rule, device, status and trigger time of every event, by looking back at all readings each time."""
    clocks: dict[tuple[str, str], int] = {}
    past: dict[tuple[str, str, str], list[tuple[int, bool]]] = {}
    alerts: dict[tuple[str, str, str], list[list[int | None]]] = {}
    found = []
    for place, (device, kind, time, measures) in enumerate(rows):
        in_order = time >= clocks.get((device, kind), 0)
        clocks[device, kind] = max(time, clocks.get((device, kind), 0))
        for one in rules:
            condition = one.condition
            assert isinstance(condition, ThresholdCondition)
            value = measures.get(condition.metric)
            applies = one.status == "active" and one.device_type in ("all", kind)
            if value is None or not in_order or not applies or (one.device_ids and device not in one.device_ids):
                continue
            holds = {
                ">": value > condition.threshold,
                "<": value < condition.threshold,
                ">=": value >= condition.threshold,
                "<=": value <= condition.threshold,
                "==": value == condition.threshold,
            }[condition.operator]
            key = (one.rule_id, device, kind)
            readings, episodes = past.setdefault(key, []), alerts.setdefault(key, [])
            readings.append((time, holds))
            status = None
            if episodes and episodes[-1][1] is None:
                if not holds:
                    episodes[-1][1], status = time, "resolved"
                    readings.clear()
            elif holds:
                since = time
                for earlier, held in reversed(readings):
                    if not held:
                        break
                    since = earlier
                cool = not episodes or time >= (episodes[-1][0] or 0) + one.cooldown_period * SECOND
                if time - since >= condition.duration * SECOND and cool:
                    episodes.append([time, None])
                    status = "triggered"
            if status:
                found.append((f"message-{place}", one.rule_id, device, status, episodes[-1][0] or 0))
    return found


@settings(max_examples=80, deadline=None)
@given(steps.map(along), st.lists(st.integers(1, 12), max_size=40))
def test_equals_the_oracle(rows: list[Row], sizes: list[int]) -> None:
    """Every alert triggers and resolves when the plain definition says so, in log order."""
    driven = drive(Alerts(RULES), readings_log(rows), batch_sizes=sizes)

    messages = [record.headers[topics.MESSAGE_ID].decode() for record in driven.sent.get(topics.ALERTS, [])]
    found = [
        (message, one.ruleId, one.deviceId, one.status, one.triggeredAt)
        for message, one in zip(messages, alerts_of(driven), strict=True)
    ]
    assert found == oracle(rows, RULES)


@settings(max_examples=80, deadline=None)
@given(steps.map(along), st.lists(st.integers(1, 12), max_size=40))
def test_batch_boundaries_and_crashes_do_not_matter(rows: list[Row], sizes: list[int]) -> None:
    """Any cut into batches, and a crash with restore after each of them, gives the same bytes in the same order."""
    log = readings_log(rows, first_append=T0)
    whole = drive(Alerts(RULES), log)

    cut = drive(Alerts(RULES), log, batch_sizes=sizes)
    crashed = drive(Alerts(RULES), log, batch_sizes=sizes, restart=lambda: Alerts(RULES))

    assert cut == whole
    assert crashed == whole


def test_triggers_after_the_duration_and_resolves() -> None:
    """Hot for 60 s triggers once; the first cooler reading resolves."""
    rows = history((0, 20), (10, 45), (40, 41), (70, 42), (100, 43), (130, 40), (140, 20))

    assert changes(rows) == [("triggered", 70), ("resolved", 130)]


def test_one_reading_below_starts_the_duration_anew() -> None:
    """The condition must hold on every reading of the metric."""
    assert changes(history((0, 45), (50, 40), (60, 45), (110, 45), (120, 45))) == [("triggered", 120)]


def test_readings_out_of_order_are_not_evaluated() -> None:
    """A late cool reading does not reset the duration, a late hot one does not begin it."""
    assert changes(history((0, 45), (30, 45), (20, 10), (60, 45))) == [("triggered", 60)]
    assert changes(history((100, 20), (40, 45), (101, 45), (120, 45))) == []


def test_cooldown_counts_from_the_trigger() -> None:
    """The next alert triggers at the first reading after the cooldown on which the condition has held long enough."""
    rows = history((0, 45), (60, 45), (90, 20), (100, 45), (200, 45), (359, 45), (360, 45), (400, 20))

    assert changes(rows) == [("triggered", 60), ("resolved", 90), ("triggered", 360), ("resolved", 400)]


def test_the_event_says_everything() -> None:
    """A CloudEvent with the rule, the numbers and the readings that made it; ids follow from rule, device and time."""
    rows = history((0, 45), (30, 46), (60, 47.5), (61, 20))

    first, second = (drive(Alerts([rule()]), readings_log(rows)) for _ in range(2))

    assert first == second
    triggered, resolved = events_of(first)
    assert (triggered.type, triggered.subject, triggered.time) == (
        "io.headrace.alert.triggered", "a", "2023-11-14T22:14:20.000Z",
    )  # fmt: skip
    data, over = alerts_of(first)
    assert (data.condition, data.actualValue, data.threshold) == ("temperature > 40", 47.5, 40.0)
    assert (data.severity, data.ruleName, data.resolvedAt) == ("critical", "Hot", None)
    assert [(one.time - T0, one.value) for one in data.evidence] == [(0, 45.0), (30_000, 46.0), (60_000, 47.5)]
    assert over.alertId == data.alertId
    assert (over.resolvedAt, over.resolvedValue) == (T0 + 61 * SECOND, 20.0)
    assert len({triggered.id, resolved.id}) == 2


def test_evidence_is_bounded() -> None:
    """Of a long streak the first reading and the newest are kept."""
    log = readings_log(history(*((second, 45) for second in range(61))))

    (alert,) = alerts_of(drive(Alerts([rule()]), log))

    assert [(one.time - T0) // SECOND for one in alert.evidence] == [0, *range(42, 61)]


def test_open_alerts_are_counted_and_forgotten() -> None:
    """The count follows triggers and resolutions, is right after a restart, and leaves with the partition."""
    alert, after, changelog = Alerts([rule()]), Alerts([rule()]), Changelog()
    drive(alert, readings_log(history((0, 45), (60, 45)) + history((0, 45), (60, 45), (61, 20), device="b")))

    changelog.commit(alert)
    changelog.restore(after)

    assert (alert.open_alerts(), after.open_alerts()) == (1, 1)
    for table in after.tables:
        table.forget(0)
    assert after.open_alerts() == 0


def test_an_alert_that_is_over_stays_known_and_its_watch_leaves_the_changelog() -> None:
    """The newest alert of rule and device is kept for commands and the cooldown; of the streak nothing is."""
    alert, changelog = Alerts([rule()]), Changelog()
    for rows in (history((0, 45), (60, 45)), history((61, 20)), history((361, 20))):
        drive(alert, readings_log(rows))
        changelog.commit(alert)

    counts = {name: len(entries) for name, entries in changelog.tables.items() if entries}
    assert {name: count for name, count in counts.items() if name not in ("alert.last", "alert.reached")} == {
        "alert.alerts": 1,
        "alert.clocks": 1,
    }


def test_nothing_changes_before_the_batch_finishes() -> None:
    """A batch that is computed and then dropped leaves no trace in what is sent or remembered."""
    alert, untouched = Alerts([rule()]), Alerts([rule()])
    for operator in (alert, untouched):
        drive(operator, readings_log(history((0, 45))))

    alert.process(Batch(Shared(fetched(readings_log(history((60, 45), (900, 20))), alert.topic))))

    rest = readings_log(history((30, 45), (60, 45), (61, 20)))
    assert drive(alert, rest) == drive(untouched, rest)
    assert [table.changes(0) for table in alert.tables] == [table.changes(0) for table in untouched.tables]


def test_two_rules_with_one_id_are_refused() -> None:
    """Alerts could not be told apart."""
    with pytest.raises(ConfigError, match="more than one rule 'hot'"):
        Alerts([rule(), rule()])


def test_an_alert_has_the_device_s_name() -> None:
    """As the registry has it when the reading is appended, with organisation and gateway; a stranger has none."""
    alerts = Alerts([rule(duration=0)])
    log = readings_log([*history((0, 45)), *history((0, 45), device="b")], first_append=T0)
    device = Device(id="a", name="Device a", organisation="acme", gateway="gw-1")
    for replica in alerts.replicas:
        if replica.topic == topics.DEVICES:
            replica.take(fetched(Records([b"a"], [encode_device(device)], [T0 - 1]), topics.DEVICES))

    known, stranger = alerts_of(drive(alerts, log))

    assert (known.deviceName, known.organizationId, known.gatewayId) == ("Device a", "acme", "gw-1")
    assert (stranger.deviceName, stranger.organizationId, stranger.gatewayId) == (None, None, None)


def test_a_flapping_alert_ends_after_a_restart_while_it_is_clear() -> None:
    """That it is to end is known from the table of alerts alone: its watch has nothing to remember."""
    flapping = rule(duration=0, cooldown_period=0, flapping={"triggers": 2, "within": 30})
    rows = history((0, 45), (1, 20), (2, 45), (3, 20), (10, 20), (32, 20), (33, 20), (40, 20))

    driven = drive(Alerts([flapping]), readings_log(rows), batch_sizes=[5], restart=lambda: Alerts([flapping]))

    told = [("triggered", 0), ("resolved", 1), ("triggered", 2), ("resolved", 33)]
    assert status_and_second(alerts_of(driven)) == told


def test_n_of_m_counts_anew_after_it_ended_on_a_reading_that_holds() -> None:
    """The reading that ends it counts for nothing, the next ones do, on whichever side of the threshold it was."""
    condition = {"metric": "temperature", "operator": ">", "threshold": 40, "out_of": {"n": 2, "m": 3}, "clear_for": 25}
    often = rule(cooldown_period=0).model_copy(update={"condition": ThresholdCondition.model_validate(condition)})
    rows = history((0, 45), (1, 45), (2, 20), (3, 20), (30, 45), (31, 45), (32, 45))

    assert changes(rows, often) == [("triggered", 1), ("resolved", 30), ("triggered", 32)]
