"""Conditions on what devices measure: thresholds, rates and expressions, reading by reading."""

from collections.abc import Iterable, Mapping, Sequence

import msgspec
import numpy as np

from headrace.agents.alerting.alert_table import Key
from headrace.agents.alerting.sample import at_once, metric_of, sample_of
from headrace.agents.alerting.watch import IDLE, Sampled, Watch, observe, threshold_of
from headrace.agents.alerting.work import Finding, Work
from headrace.engine.operator import State
from headrace.schemas import topics
from headrace.schemas.condition import ThresholdCondition, ValueCondition
from headrace.schemas.readings import Readings
from headrace.schemas.rule import AlertRule
from headrace.tables.clocks import ClockTable
from headrace.tables.grouping import Flags, group
from headrace.tables.keyvalue import KeyValue

#: Event time in ms, and value.
Last = tuple[int, float]


class MeasureWatcher:
    """Looks at every reading of the measures that rules are about."""

    topics = (topics.READINGS, topics.READINGS_PRIORITY)

    def __init__(self) -> None:
        self._watches: KeyValue[Key, Watch] = KeyValue(
            "alert.watches",
            msgspec.json.encode,
            msgspec.json.Decoder(Watch).decode,
            ("rule_id", "device_type", "device_id"),
        )
        self._clocks = ClockTable("alert.clocks")
        self._priority_clocks = ClockTable("alert.priority-clocks")
        #: Event time and value of the last reading of a metric that some rule watches the rate of.
        self._last: KeyValue[tuple[str, str, str], tuple[int, float]] = KeyValue(
            "alert.last",
            msgspec.json.encode,
            lambda data: tuple(msgspec.json.decode(data)),
            ("device_type", "device_id", "metric"),
        )
        self.tables: Sequence[State] = (self._watches, self._clocks, self._priority_clocks, self._last)

    def is_waiting(self, partition: int) -> bool:
        """See `headrace.agents.alerting.work.Watcher`: readings alone lead to something."""
        return False

    def watch(self, work: Work) -> None:
        """See `headrace.agents.alerting.work.Watcher`."""
        if work.batch.idle is not None:
            return
        staged = _Staged(self._watches.view(work.partition), self._last.view(work.partition))
        for readings in work.batch.columns():
            rules = [(place, work.rules.rules[place]) for place in work.rules.of_type(readings.device_type)]
            rules = [each for each in rules if isinstance(each[1].condition, ValueCondition)]
            if rules:
                self._look_at(work, readings, rules, staged)

        def apply() -> None:
            self._watches.update(work.partition, {key: None if each == IDLE else each for key, each in staged.watches})
            self._last.update(work.partition, staged.last)

        work.batch.on_finish(apply)

    def _look_at(
        self, work: Work, readings: Readings, rules: Sequence[tuple[int, AlertRule]], staged: "_Staged"
    ) -> None:
        columns = readings.news()
        for at in np.flatnonzero(self._in_order(work, readings)).tolist():
            values = {name: value for name, column in columns.items() if (value := float(column[at])) == value}
            row, device_id, time = int(readings.rows[at]), readings.device_ids[at], int(readings.times[at])
            known = {name: staged.last_of((readings.device_type, device_id, name)) for name in values}
            for place, rule in rules:
                condition = rule.condition
                assert isinstance(condition, ValueCondition)
                if (work.early and not at_once(condition)) or not work.applies(rule, device_id, row):
                    continue
                before = known.get(condition.metric) if isinstance(condition, ThresholdCondition) else None
                sample = sample_of(condition, time, values, before)
                if sample is None:
                    continue
                finding = Finding(
                    rule, place, row, readings.device_type, device_id, time, False, metric_of(condition), sample[1],
                    threshold_of(condition), message_id=readings.message_ids[at],
                )  # fmt: skip
                _observe(work, finding, condition, sample, staged)
            if not work.early:
                staged.last.update({(readings.device_type, device_id, name): (time, values[name]) for name in values})

    def _in_order(self, work: Work, readings: Readings) -> Flags:
        """Which readings are to be evaluated, (n,); the clocks of their devices move on."""
        table = self._priority_clocks if work.early else self._clocks
        clocks = table.of_type(work.partition, readings.device_type)
        groups = group(clocks.numbers(readings.device_ids), readings.times, clocks.clocks)
        in_order = np.empty(len(readings), dtype=np.bool_)
        in_order[groups.order] = groups.times >= groups.before
        devices, ends = groups.devices[groups.tails], groups.after[groups.tails]
        work.batch.on_finish(lambda: clocks.set(devices, ends))
        if work.early:
            ordinary = self._clocks.of_type(work.partition, readings.device_type)
            numbers = ordinary.numbers(readings.device_ids)
            in_order &= readings.times > ordinary.clocks[numbers]
        return in_order


class _Staged:
    """What a batch changes."""

    def __init__(self, watches: Mapping[Key, Watch], last: Mapping[Key, Last]) -> None:
        self._watches, self._last = watches, last
        self.changed: dict[Key, Watch] = {}
        self.last: dict[Key, Last] = {}

    @property
    def watches(self) -> Iterable[tuple[Key, Watch]]:
        return self.changed.items()

    def watch_of(self, key: Key) -> Watch:
        return self.changed[key] if key in self.changed else self._watches.get(key, IDLE)

    def last_of(self, key: Key) -> Last | None:
        return self.last[key] if key in self.last else self._last.get(key)


def _observe(work: Work, finding: Finding, condition: ValueCondition, sample: Sampled, staged: _Staged) -> None:
    key = finding.key
    before, standing = staged.watch_of(key), work.standing(key)
    if standing.alert is not None and standing.open and finding.time < standing.alert.triggeredAt:
        return
    after, no_data_at = observe(condition, before, sample)
    if work.early:
        if after.met and not before.met:
            opened = work.report(finding._replace(met=True, evidence=(sample,)))
            if opened.open and not standing.open:
                staged.changed[key] = after
        return
    if no_data_at is not None:
        work.report(finding._replace(met=False, time=no_data_at, value=None, by="no-data"))
    work.report(finding._replace(met=after.met, evidence=after.evidence))
    if after != before:
        staged.changed[key] = after
