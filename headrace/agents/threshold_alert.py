"""Threshold alerts: a metric beyond a limit for some time, one open alert per rule and device."""

from collections.abc import Sequence

import numpy as np

from headrace.agents.alert_event import Candidate, alert_event
from headrace.agents.episode import COMPARE, IDLE, Episode, advance, announce
from headrace.engine.batch import Batch
from headrace.engine.records import Records
from headrace.engine.replicas import Replica
from headrace.schemas import topics
from headrace.schemas.readings import Ints, Readings
from headrace.schemas.rule import AlertRule
from headrace.tables.clocks import ClockColumn, ClockTable
from headrace.tables.grouping import Flags, group
from headrace.tables.keyvalue import KeyValue
from headrace.tables.replicated import Replicated
from headrace.tables.rule_book import RuleBook, RuleSet


class ThresholdAlert:
    """Evaluate rules on every reading, in event time; emit an alert when it triggers and when it resolves.

    An alert triggers at the first reading at which the condition has held for the rule's duration: on every reading of
    the metric from one at least that long ago, however far apart they were. It resolves by itself at the first reading
    on which the condition does not hold. While it is open there is no second one for the same rule and device, and
    the next one triggers no earlier than the cooldown after the trigger of the last; the time for which the
    condition must hold may run meanwhile.

    A reading older than the device's own clock (its largest event time) is not evaluated; one as old is.

    The priority lane brings copies of alarms before the telemetry that they have overtaken. One on which the condition
    of a rule without duration holds triggers at once, unless an alert is open, the cooldown runs, it is older than the
    lane's own clock of the device, or not newer than the ordinary lane's: that has judged it, or is about to. This is
    all that the priority lane does; it never resolves. The ordinary lane does not evaluate readings older than the
    trigger of an open alert, and goes on with the alert at those after it, the copy of the alarm being the first: one
    alert, triggered once. With both lanes read to the end, a rule without cooldown has an alert open exactly where
    the ordinary lane alone would have one. A cooldown runs from the trigger that was sent: where an overtaken reading
    would have triggered first, ends and further triggers are those of the alarm's alert, not of the other.

    Rules may change while it runs: one of the topic `rules` applies to readings appended at its own append time or
    later. An episode goes on under a changed rule. Of a rule that is gone, inactive, or no longer for the device,
    nothing is said any more: its open alert is not resolved, as nobody knows whether it is over, and the episode goes
    on when the rule comes back.

    The same log gives the same events, in log order and then that of the rules, for any batch boundaries and restarts;
    ids are made of rule, device and trigger time. With alarms in the priority lane it depends on how far they overtake
    which of the readings in between are evaluated. Vectorised until something happens: readings cost Python only where
    a condition holds, or held lately. Memory: about 160 bytes per device, and up to 3 KiB per rule and device with an
    episode.

    Args:
        rules: with different ids.
        changes: more rules, which win over those with the same id; see `headrace.tables.rule_book`.
    Raises:
        ConfigError: two rules have the same id.
    """

    name = "alert"
    topic = topics.READINGS
    topics = (topics.READINGS, topics.READINGS_PRIORITY)

    def __init__(self, rules: Sequence[AlertRule], changes: Replicated[AlertRule] | None = None) -> None:
        self._rules = RuleBook(rules, changes)
        self.replicas: Sequence[Replica] = () if changes is None else (changes,)
        self._episodes: KeyValue[tuple[str, str, str], Episode] = KeyValue(
            "alert.episodes", Episode.encode, Episode.decode, ("rule_id", "device_type", "device_id")
        )
        self._clocks = ClockTable("alert.clocks")
        self._priority_clocks = ClockTable("alert.priority-clocks")
        self.tables = (self._episodes, self._clocks, self._priority_clocks)

    def open_alerts(self) -> int:
        """How many alerts are open now, in all partitions; those of rules that are gone do not count."""
        known = {rule.rule_id for rule in self._rules.at().rules}
        views = self._episodes.views().values()
        return sum(episode.open and key[0] in known for view in views for key, episode in view.items())

    def looks_back(self) -> float:
        """How far back, in seconds of event time, the newest rules make events depend on what was there."""
        rules = self._rules.at().rules
        return max((rule.condition.duration + rule.cooldown_period for rule in rules), default=0.0)

    def process(self, batch: Batch) -> None:
        """Evaluate all rules on the batch and stage the alerts that triggered or resolved."""
        early = batch.topic == topics.READINGS_PRIORITY
        table, step = (self._priority_clocks, announce) if early else (self._clocks, advance)
        candidates: list[Candidate] = []
        advanced: list[tuple[ClockColumn, Ints, Ints]] = []
        sets, which = self._rules.sets(batch.records.timestamps)
        for every in batch.columns():
            readings = _covered(every, sets, which)
            if not len(readings):
                continue
            clocks = table.of_type(batch.partition, readings.device_type)
            groups = group(clocks.numbers(readings.device_ids), readings.times, clocks.clocks)
            advanced.append((clocks, groups.devices[groups.tails], groups.after[groups.tails]))
            devices, in_order = np.empty_like(groups.order), np.empty(len(readings), dtype=np.bool_)
            devices[groups.order], in_order[groups.order] = groups.devices, groups.times >= groups.before
            rules = _rules_of(readings, sets, which)
            if early:
                rules = [each for each in rules if not each[1].condition.duration]
                in_order &= self._is_ahead(batch.partition, readings)
            candidates += self._candidates(batch.partition, rules, readings, clocks, devices, in_order)

        candidates.sort(key=lambda candidate: candidate[:2])
        view = self._episodes.view(batch.partition)
        changed: dict[tuple[str, str, str], Episode | None] = {}
        events: list[tuple[Candidate, bytes]] = []
        for candidate in candidates:
            rule = candidate.rule
            key = (rule.rule_id, candidate.device_type, candidate.device_id)
            before = changed[key] if key in changed else view.get(key)
            after, change = step(rule, before or IDLE, candidate.time, candidate.value)
            if after != (before or IDLE):
                changed[key] = after if after != IDLE else None
            if change is not None:
                alert = after if change == "triggered" else before
                events.append((candidate, alert_event(candidate, change, alert or IDLE)))
        self._send(batch, events)

        def apply() -> None:
            self._episodes.update(batch.partition, changed)
            for clocks, devices, times in advanced:
                clocks.set(devices, times)

        batch.on_finish(apply)

    def _is_ahead(self, partition: int, readings: Readings) -> Flags:
        """Whether a reading is newer than all that the ordinary lane has of its device, (n,)."""
        clocks = self._clocks.of_type(partition, readings.device_type)
        numbers = clocks.numbers(readings.device_ids)
        return readings.times > clocks.clocks[numbers]

    def _candidates(
        self,
        partition: int,
        rules: Sequence[tuple[int, AlertRule, Flags]],
        readings: Readings,
        clocks: ClockColumn,
        devices: Ints,
        in_order: Flags,
    ) -> list[Candidate]:
        """The readings that rules must look at one by one; each rule comes with its place and its readings, (n,)."""
        watched: dict[str, Flags] = {}
        for rule_id, device_type, device_id in self._episodes.view(partition):
            number = clocks.devices.number(device_id)
            if device_type == readings.device_type and number is not None:
                _watched(watched, rule_id, clocks)[number] = True
        columns = readings.news()
        # Whatever a device sends is looked at while an episode runs, or from the batch on in which one may begin, be
        # it under another version of the rule.
        for _, rule, covered in rules:
            condition = rule.condition
            if condition.metric in columns:
                holds = COMPARE[condition.operator](columns[condition.metric], condition.threshold) & in_order & covered
                if holds.any():
                    _watched(watched, rule.rule_id, clocks)[devices[holds]] = True
        found = []
        for place, rule, covered in rules:
            column = columns.get(rule.condition.metric)
            if column is None or rule.rule_id not in watched:
                continue
            looked = watched[rule.rule_id]
            if rule.device_ids:
                chosen = np.zeros_like(looked)
                numbers = map(clocks.devices.number, rule.device_ids)
                chosen[[each for each in numbers if each is not None]] = True
                looked = looked & chosen
            for at in np.flatnonzero(looked[devices] & in_order & covered & (column == column)).tolist():
                found.append(Candidate(
                    int(readings.rows[at]), place, rule, int(readings.times[at]), float(column[at]),
                    readings.device_ids[at], readings.device_type, readings.message_ids[at],
                    readings.device(at).get("name"),
                ))  # fmt: skip
        return found

    @staticmethod
    def _send(batch: Batch, events: list[tuple[Candidate, bytes]]) -> None:
        if events:
            stamps = batch.records.timestamps
            records = Records(
                [candidate.device_id.encode() for candidate, _ in events],
                [value for _, value in events],
                [stamps[candidate.row] for candidate, _ in events],
                {topics.MESSAGE_ID: [candidate.message_id.encode() for candidate, _ in events]},
            )
            batch.send_records(topics.ALERTS, records, partition=batch.partition)


def _covered(readings: Readings, sets: Sequence[RuleSet], which: Ints) -> Readings:
    """The readings to which some rule applies: the clocks of others stand still, whatever batch they come in."""
    some = np.array([bool(each.of_type(readings.device_type)) for each in sets])
    if some.all():
        return readings
    return readings.take(np.flatnonzero(some[which[readings.rows]]))


def _rules_of(readings: Readings, sets: Sequence[RuleSet], which: Ints) -> list[tuple[int, AlertRule, Flags]]:
    """Every rule that applies to some of the readings: its place among the others, and to which, (n,)."""
    number = which[readings.rows]
    return [
        (place, each.rules[place], number == index)
        for index, each in enumerate(sets)
        for place in each.of_type(readings.device_type)
    ]


def _watched(watched: dict[str, Flags], rule_id: str, clocks: ClockColumn) -> Flags:
    if rule_id not in watched:
        watched[rule_id] = np.zeros(len(clocks.clocks), dtype=np.bool_)
    return watched[rule_id]
