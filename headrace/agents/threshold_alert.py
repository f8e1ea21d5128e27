"""Threshold alerts: a metric beyond a limit for some time, one open alert per rule and device."""

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import orjson

from headrace.agents.episode import COMPARE, IDLE, Change, Episode, advance
from headrace.engine.batch import Batch
from headrace.engine.errors import ConfigError
from headrace.engine.records import Records
from headrace.schemas import topics
from headrace.schemas.alert import RESOLVED, SOURCE, TRIGGERED
from headrace.schemas.readings import Ints, Readings
from headrace.schemas.rule import AlertRule
from headrace.tables.clocks import ClockColumn, ClockTable
from headrace.tables.grouping import Flags, group
from headrace.tables.keyvalue import KeyValue

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "io.headrace.alert")


class _Candidate(NamedTuple):
    """A reading that a rule has to look at; sorts in log order, then in the order of the rules."""

    row: int
    rule: int
    time: int
    value: float
    device_id: str
    device_type: str
    message_id: str


class ThresholdAlert:
    """Evaluate rules on every reading, in event time; emit an alert when it triggers and when it resolves.

    An alert triggers at the first reading at which the condition has held for the rule's duration: on every reading of
    the metric from one at least that long ago, however far apart they were. It resolves by itself at the first reading
    on which the condition does not hold. While it is open there is no second one for the same rule and device, and
    the next one triggers no earlier than the cooldown after the trigger of the last; the time for which the
    condition must hold may run meanwhile.

    A reading older than the device's own clock (its largest event time) is not evaluated; one as old is.

    The same log gives the same events, in log order and then that of the rules, for any batch boundaries and restarts;
    ids are made of rule, device and trigger time. Vectorised until something happens: readings cost Python only where a
    condition holds, or held lately. Memory: about 160 bytes per device, and up to 3 KiB per rule and device with an
    episode.

    Args:
        rules: with different ids.
    Raises:
        ConfigError: two rules have the same id.
    """

    name = "alert"
    topic = topics.READINGS

    def __init__(self, rules: Sequence[AlertRule]) -> None:
        ids = [rule.rule_id for rule in rules]
        if doubles := sorted({rule_id for rule_id in ids if ids.count(rule_id) > 1}):
            raise ConfigError(*(f"alert: there is more than one rule {rule_id!r}" for rule_id in doubles))
        self._rules = tuple(rules)
        self._by_type: dict[str, list[int]] = {}
        self._episodes: KeyValue[tuple[str, str, str], Episode] = KeyValue(
            "alert.episodes", Episode.encode, Episode.decode, ("rule_id", "device_type", "device_id")
        )
        self._clocks = ClockTable("alert.clocks")
        self.tables = (self._episodes, self._clocks)

    def open_alerts(self) -> int:
        """How many alerts are open now, in all partitions; those of rules that are gone do not count."""
        known = {rule.rule_id for rule in self._rules}
        views = self._episodes.views().values()
        return sum(episode.open and key[0] in known for view in views for key, episode in view.items())

    def process(self, batch: Batch) -> None:
        """Evaluate all rules on the batch and stage the alerts that triggered or resolved."""
        candidates: list[_Candidate] = []
        advanced: list[tuple[ClockColumn, Ints, Ints]] = []
        for readings in batch.columns():
            rules = self._rules_for(readings.device_type)
            if not rules:
                continue
            clocks = self._clocks.of_type(batch.partition, readings.device_type)
            groups = group(clocks.numbers(readings.device_ids), readings.times, clocks.clocks)
            advanced.append((clocks, groups.devices[groups.tails], groups.after[groups.tails]))
            devices, in_order = np.empty_like(groups.order), np.empty(len(readings), dtype=np.bool_)
            devices[groups.order], in_order[groups.order] = groups.devices, groups.times >= groups.before
            candidates += self._candidates(batch.partition, rules, readings, clocks, devices, in_order)

        candidates.sort(key=lambda candidate: candidate[:2])
        view = self._episodes.view(batch.partition)
        changed: dict[tuple[str, str, str], Episode | None] = {}
        events: list[tuple[_Candidate, bytes]] = []
        for candidate in candidates:
            rule = self._rules[candidate.rule]
            key = (rule.rule_id, candidate.device_type, candidate.device_id)
            before = changed[key] if key in changed else view.get(key)
            after, change = advance(rule, before or IDLE, candidate.time, candidate.value)
            if after != (before or IDLE):
                changed[key] = after if after != IDLE else None
            if change is not None:
                alert = after if change == "triggered" else before
                events.append((candidate, _event(rule, candidate, change, alert or IDLE)))
        self._send(batch, events)

        def apply() -> None:
            self._episodes.update(batch.partition, changed)
            for clocks, devices, times in advanced:
                clocks.set(devices, times)

        batch.on_finish(apply)

    def _rules_for(self, device_type: str) -> list[int]:
        rules = self._by_type.get(device_type)
        if rules is None:
            rules = [number for number, rule in enumerate(self._rules) if rule.applies_to(device_type)]
            self._by_type[device_type] = rules
        return rules

    def _candidates(
        self, partition: int, rules: list[int], readings: Readings, clocks: ClockColumn, devices: Ints, in_order: Flags
    ) -> list[_Candidate]:
        """The readings that rules must look at one by one."""
        running: dict[str, list[int]] = {}
        for rule_id, device_type, device_id in self._episodes.view(partition):
            number = clocks.devices.number(device_id)
            if device_type == readings.device_type and number is not None:
                running.setdefault(rule_id, []).append(number)
        found = []
        columns = readings.news()
        for number in rules:
            rule = self._rules[number]
            column = columns.get(rule.condition.metric)
            if column is None:
                continue
            holds = COMPARE[rule.condition.operator](column, rule.condition.threshold) & in_order
            if rule.rule_id not in running and not holds.any():
                continue
            # Whatever a device sends is looked at while an episode runs, or from the batch on in which one may begin.
            watched = np.zeros(len(clocks.clocks), dtype=np.bool_)
            watched[devices[holds]] = True
            watched[running.get(rule.rule_id, [])] = True
            if rule.device_ids:
                chosen = np.zeros_like(watched)
                numbers = map(clocks.devices.number, rule.device_ids)
                chosen[[each for each in numbers if each is not None]] = True
                watched &= chosen
            for at in np.flatnonzero(watched[devices] & in_order & (column == column)).tolist():
                found.append(_Candidate(
                    int(readings.rows[at]), number, int(readings.times[at]), float(column[at]),
                    readings.device_ids[at], readings.device_type, readings.message_ids[at],
                ))  # fmt: skip
        return found

    @staticmethod
    def _send(batch: Batch, events: list[tuple[_Candidate, bytes]]) -> None:
        if events:
            stamps = batch.records.timestamps
            records = Records(
                [candidate.device_id.encode() for candidate, _ in events],
                [value for _, value in events],
                [stamps[candidate.row] for candidate, _ in events],
                {topics.MESSAGE_ID: [candidate.message_id.encode() for candidate, _ in events]},
            )
            batch.send_records(topics.ALERTS, records, partition=batch.partition)


def _event(rule: AlertRule, candidate: _Candidate, change: Change, alert: Episode) -> bytes:
    """The CloudEvent for a change of `alert` that `candidate` caused; see `headrace.schemas.alert`."""
    name = "\0".join((rule.rule_id, candidate.device_type, candidate.device_id, str(alert.triggered_at)))
    alert_id = str(uuid.uuid5(_NAMESPACE, name))
    data: dict[str, Any] = {
        "alertId": alert_id,
        "ruleId": rule.rule_id,
        "ruleName": rule.name,
        "deviceId": candidate.device_id,
        "deviceType": candidate.device_type,
        "severity": rule.severity,
        "status": change,
        "condition": str(rule.condition),
        "metric": rule.condition.metric,
        "actualValue": alert.evidence[-1][1],
        "threshold": rule.condition.threshold,
        "triggeredAt": alert.triggered_at,
    }
    if change == "resolved":
        data |= {"resolvedAt": candidate.time, "resolvedValue": candidate.value}
    data["evidence"] = [{"time": time, "value": value} for time, value in alert.evidence]
    moment = datetime.fromtimestamp(candidate.time / 1000, UTC).isoformat(timespec="milliseconds")
    return orjson.dumps(
        {
            "specversion": "1.0",
            "id": f"{alert_id}/{change}",
            "source": SOURCE,
            "type": TRIGGERED if change == "triggered" else RESOLVED,
            "subject": candidate.device_id,
            "time": moment.replace("+00:00", "Z"),
            "datacontenttype": "application/json",
            "data": data,
        }
    )
