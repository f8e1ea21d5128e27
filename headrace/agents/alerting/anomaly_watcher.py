"""Conditions on anomalies: a detector has found something, and not for so long that it is over."""

from collections.abc import Sequence
from math import inf

from headrace.agents.alerting.alert_table import Key
from headrace.agents.alerting.anomaly_table import NOBODY, Active, AnomalyTable, Plan
from headrace.agents.alerting.planned import go_through
from headrace.agents.alerting.standing import Standing
from headrace.agents.alerting.timers import look_again
from headrace.agents.alerting.work import Finding, Work
from headrace.engine.operator import State
from headrace.schemas import topics
from headrace.schemas.anomaly import Anomaly
from headrace.schemas.condition import AnomalyCondition
from headrace.schemas.rule import AlertRule


class AnomalyWatcher:
    """Looks at what detectors find.

    A condition is met with an anomaly that it fits, and not met any more when `clear_after` has passed since the newest
    of them without another: in event time, by the device's own later readings; or in append time, by later anomalies of
    other devices and idle time of `telemetry.anomalies`, should the device fall silent. An anomaly without a score, as
    where a series had never varied before, counts as higher than any.
    """

    topics = (topics.ANOMALIES, topics.READINGS)

    def __init__(self) -> None:
        self._table = AnomalyTable()
        self.tables: Sequence[State] = (self._table,)

    def is_waiting(self, partition: int) -> bool:
        """See `headrace.agents.alerting.work.Watcher`: whether a condition is met."""
        plan = self._table.plans.get(partition)
        if plan is None:
            return any(key != NOBODY for key in self._table.view(partition))
        return len(plan.timers) > 0

    def watch(self, work: Work) -> None:
        """See `headrace.agents.alerting.work.Watcher`."""
        plan = self._table.plans.pop(work.partition, None)
        _Turn(work, self._table, plan).run()


class _Turn:
    """One batch, or idle time."""

    def __init__(self, work: Work, table: AnomalyTable, plan: Plan | None) -> None:
        self._work, self._table = work, table
        self._view = table.view(work.partition)
        self._changed: dict[Key, Active | None] = {}
        known = plan is not None and plan.rules is work.rules
        self._plan = plan if plan is not None and known else Plan(work.rules, 0.0 if plan is None else plan.now)
        self._rules = {rule.rule_id: (place, rule) for place, rule in self._plan.own}
        if not known:
            self._make_plan()

    def run(self) -> None:
        """Go through the batch in order."""
        work, plan = self._work, self._plan
        if work.batch.idle is not None:
            plan.now += work.batch.idle.elapsed_ms
            self._pass(0, plan.now)
        elif work.batch.topic == topics.ANOMALIES:
            plan.now = go_through(work.batch, Anomaly, plan.now, self._pass, self._take)
            self._changed[NOBODY] = Active(0, round(plan.now))
        elif any(plan.by_device.values()):
            self._follow_clocks()

        def apply() -> None:
            self._table.update(work.partition, self._changed)
            self._table.plans[work.partition] = plan

        work.batch.on_finish(apply)

    def _take(self, row: int, anomaly: Anomaly, stamp: int) -> None:
        device_type, device_id, time = anomaly.device_type, anomaly.device_id, anomaly.time
        self._clear(row, device_type, device_id, time, anomaly.message_id)
        for place, rule in self._plan.own:
            applies = rule.applies_to(device_type) and _fits(_condition(rule), anomaly)
            if not applies or not self._work.applies(rule, device_id, row):
                continue
            key = (rule.rule_id, device_type, device_id)
            before = self._active(key)
            if before is not None and time < before.time:
                continue  # it came late, and what came since says more
            standing = self._work.report(
                Finding(
                    rule, place, row, device_type, device_id, time, True, "anomaly", anomaly.score,
                    _condition(rule).anomaly_score, ((time, anomaly.value, None),), anomaly.message_id,
                    metadata=_said(anomaly),
                )
            )  # fmt: skip
            self._keep(rule, key, Active(time, stamp), standing)

    def _follow_clocks(self) -> None:
        """Clear what the devices' own readings have left behind."""
        for readings in self._work.batch.columns():
            devices = self._plan.by_device.get(readings.device_type)
            if not devices:
                continue
            for place, device_id in enumerate(readings.device_ids):
                if device_id in devices:
                    row, time = int(readings.rows[place]), int(readings.times[place])
                    self._clear(row, readings.device_type, device_id, time, readings.message_ids[place])

    def _clear(self, row: int, device_type: str, device_id: str, time: int, message_id: str | None) -> None:
        """Report what is over on a device at an event time."""
        while found := list(self._plan.over(device_type, device_id, time)):
            for due, key in found:
                self._end(row, key, due, message_id)

    def _pass(self, row: int, now: float) -> None:
        """Report what is over although nothing came from the device."""
        while (found := self._plan.timers.pop(now)) is not None:
            _, key = found
            due = self._plan.by_device.get(key[1], {}).get(key[2], {}).get(key)
            if due is not None:
                self._end(row, key, due, None)

    def _end(self, row: int, key: Key, due: int, message_id: str | None) -> None:
        active = self._active(key)
        if active is None or key[0] not in self._rules:
            self._plan.set(key, None, None)
            return
        place, rule = self._rules[key[0]]
        before = self._work.standing(key)
        if before.alert is not None and before.open:
            due = max(due, before.alert.triggeredAt)
        finding = Finding(rule, place, row, key[1], key[2], due, False, "anomaly", message_id=message_id)
        self._keep(rule, key, active, self._work.report(finding))

    def _keep(self, rule: AlertRule, key: Key, active: Active, standing: Standing) -> None:
        """Remember an anomaly for as long as it keeps the condition met, or an alert that is flapping open."""
        due = _due(rule, active, standing)
        if due is None:
            self._changed[key] = None
            self._plan.set(key, None, None)
        else:
            self._changed[key] = active
            self._plan.set(key, due, active.appended + due - active.time)

    def _active(self, key: Key) -> Active | None:
        return self._changed[key] if key in self._changed else self._view.get(key)

    def _make_plan(self) -> None:
        """What there is to wait for under these rules; what is of none is forgotten."""
        for key, active in self._view.items():
            self._plan.now = max(self._plan.now, active.appended)
            if key == NOBODY:
                continue
            if key[0] in self._rules:
                self._keep(self._rules[key[0]][1], key, active, self._work.standing(key))
            else:
                self._changed[key] = None


def _condition(rule: AlertRule) -> AnomalyCondition:
    assert isinstance(rule.condition, AnomalyCondition)
    return rule.condition


def _due(rule: AlertRule, active: Active, standing: Standing) -> int | None:
    if standing.met:
        return active.time + round(_condition(rule).clear_after * 1000)
    return look_again(rule, standing, active.time)


def _fits(condition: AnomalyCondition, anomaly: Anomaly) -> bool:
    score = inf if anomaly.score is None else anomaly.score
    return (
        score >= condition.anomaly_score
        and condition.metric in (None, anomaly.metric)
        and condition.detector in (None, anomaly.detector)
    )


def _said(anomaly: Anomaly) -> dict[str, object]:
    said = {
        "detector": anomaly.detector,
        "metric": anomaly.metric,
        "expected": anomaly.expected,
        "probability": anomaly.probability,
        "text": anomaly.text,
    }
    return {name: value for name, value in said.items() if value is not None}
