"""Conditions on values the plain way: a loop over all rules for every reading. What the quick way must equal."""

from collections.abc import Sequence
from typing import Any

from headrace.agents.alerting.device_order import DeviceOrder
from headrace.agents.alerting.evaluation import Seen, Watched, evaluate, evaluate_early, watched
from headrace.agents.alerting.following import drop_ended, drop_uncovered
from headrace.agents.alerting.sample import sample_of
from headrace.agents.alerting.watch_table import WatchDraft, WatchTable, draft_of
from headrace.agents.alerting.work import Work
from headrace.engine.operator import State
from headrace.schemas import topics
from headrace.schemas.condition import ThresholdCondition
from headrace.schemas.readings import Readings
from headrace.tables.rule_book import RuleSet

#: Device type, device and metric; event time (ms) and value.
Last = dict[tuple[str, str, str], tuple[int, float]]


class NaiveWatcher:
    """As `headrace.agents.alerting.measure_watcher.MeasureWatcher`, but slow; it remembers the readings before, of
    which rates are made, in memory only."""

    topics = (topics.READINGS, topics.READINGS_PRIORITY)

    def __init__(self) -> None:
        self._watches = WatchTable("alert.watches")
        self._order = DeviceOrder()
        self._last: Last = {}
        self.tables: Sequence[State] = (self._watches, *self._order.tables)

    def is_waiting(self, partition: int) -> bool:
        return False

    def follow(self, work: Work, *, new_rules: bool) -> None:
        drop_ended(work, self._watches)
        if not new_rules:
            return
        drop_uncovered(work, self._watches)
        kept = {key: last for key, last in self._last.items() if key[2] in rated(work.rules, key[0])}
        work.batch.on_finish(lambda: setattr(self, "_last", kept))

    def watch(self, work: Work) -> None:
        if work.batch.idle is not None:
            return
        draft, last = draft_of(work, self._watches), dict[Any, Any]()
        for readings in work.batch.columns():
            places = work.rules.of_type(readings.device_type)
            rules = [found for place in places if (found := watched(work.rules.rules[place], place)) is not None]
            if rules:
                self._look_at(work, readings, rules, draft, last)

        work.batch.on_finish(lambda: self._last.update(last))

    def _look_at(self, work: Work, readings: Readings, rules: Sequence[Watched], draft: WatchDraft, last: Last) -> None:
        ordered = self._order.of(work, readings)
        measures, news, metrics = readings.measures, readings.news(), rated(work.rules, readings.device_type)
        for at in sorted(ordered.groups.order[ordered.in_order].tolist()):
            values = {name: value for name, column in measures.items() if (value := float(column[at])) == value}
            new = {name for name in values if news[name][at] == news[name][at]}
            device_type, device, time = readings.device_type, readings.device_ids[at], int(readings.times[at])
            seen = Seen(int(readings.rows[at]), device_type, device, time, readings.message_ids[at])
            for rule in rules:
                if not work.applies(rule.rule, device, seen.row):
                    continue
                metric = rule.condition.metric if isinstance(rule.condition, ThresholdCondition) else ""
                key = (device_type, device, metric)
                before = last[key] if key in last else self._last.get(key)
                sample = sample_of(rule.condition, time, values, before, new)
                if sample is not None:
                    (evaluate_early if work.early else evaluate)(work, rule, seen, sample, draft)
            if not work.early:
                last.update({(device_type, device, name): (time, values[name]) for name in new & metrics})


def rated(rules: RuleSet, device_type: str) -> set[str]:
    """Metrics that some rule watches the rate of."""
    conditions = [rules.rules[place].condition for place in rules.of_type(device_type)]
    return {each.metric for each in conditions if isinstance(each, ThresholdCondition) and each.rate_per is not None}
