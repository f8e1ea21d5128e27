"""What rules would have said of readings that are there: the very same operator, over stored history."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from headrace.agents.alerting.alerts import Alerts
from headrace.agents.alerting.measure_watcher import MeasureWatcher
from headrace.engine.log import Fetched
from headrace.engine.testkit import Driven, run_batch
from headrace.schemas import topics
from headrace.schemas.alert import Alert, AlertEvent
from headrace.schemas.condition import ThresholdCondition, ValueCondition
from headrace.schemas.readings import Readings, decode_readings
from headrace.schemas.rule import AlertRule

#: Alerts that are kept of each rule; more are only counted.
MOST_KEPT = 10_000


@dataclass(slots=True)
class Episode:
    """One alert that there would have been. Times are event time, ms since 1970 UTC.

    Args:
        alert: as it was when it triggered.
        resolved_at: when it would have ended; None: it would be open at the end.
        by: what would have ended it.
        resolved_value: value that ended it, if one did.
        peak: the most extreme value while it was open, in the direction of the operator; None where there is no such
            thing (==, rates, expressions).
    """

    alert: Alert
    resolved_at: int | None = None
    by: str | None = None
    resolved_value: float | None = None
    peak: float | None = None


@dataclass(slots=True)
class Tried:
    """What one rule would have done.

    Args:
        rule: the rule.
        alerts: those that would have triggered in the range, count.
        devices: ids of the devices that would have had one.
        open_before: alerts that had triggered before the range and were open when it began, count.
        episodes: the alerts, by trigger time; the first `MOST_KEPT` of each stretch that was looked at.
    """

    rule: AlertRule
    alerts: int = 0
    devices: set[str] = field(default_factory=set)
    open_before: int = 0
    episodes: list[Episode] = field(default_factory=list)


class BackTest:
    """Gives rules the readings of one stretch after the other, and notes the alerts that come of it.

    A stretch holds all readings of its devices, in the order in which they are to be judged: a partition of
    `telemetry.readings`, or what the database has of a device. Silences, maintenance and other alerts are left out:
    they change whether people are told, not whether a rule triggers. Memory: that of the rules' watches in one stretch,
    and the alerts.

    Args:
        rules: with different ids, about values; they are taken as active.
        start_ms, end_ms: of the range whose triggers count, event time. Readings before it warm the rules up.
    """

    def __init__(self, rules: Sequence[AlertRule], start_ms: int, end_ms: int) -> None:
        assert all(isinstance(rule.condition, ValueCondition) for rule in rules)
        active = [rule.model_copy(update={"status": "active"}) for rule in rules]
        #: To read its replicated tables before the first readings: rules may be for one organisation.
        self.operator = Alerts(active, None, [MeasureWatcher()])
        self.tried = {rule.rule_id: Tried(rule) for rule in active}
        self.readings = 0
        #: Append time of the oldest reading, ms; None: there was none.
        self.oldest_ms: int | None = None
        self._start_ms = start_ms
        self._end_ms = end_ms
        self._open: dict[str, list[Episode]] = {}

    def take(self, fetched: Fetched) -> None:
        """The next readings of the stretch; records of `telemetry.readings`."""
        if not len(fetched.records):
            return
        driven = Driven({}, [])
        run_batch(self.operator, fetched, driven)
        for table in self.operator.tables:
            table.changes(fetched.target.partition)  # nobody keeps them, but tables drop what is past on this occasion
        self.readings += len(fetched.records)
        oldest = min(fetched.records.timestamps)
        self.oldest_ms = oldest if self.oldest_ms is None else min(oldest, self.oldest_ms)
        over: list[Episode] = []
        for record in driven.sent.get(topics.ALERTS, ()):
            event = AlertEvent.model_validate_json(record.value or b"")
            if isinstance(event.data, Alert):
                over += self._note(event.data, event.type.rpartition(".")[2])
        if self._open or over:
            self._follow(decode_readings(fetched.records.values), over)

    def end_stretch(self, partition: int) -> None:
        """The stretch that came under this partition is over; the next one starts from nothing."""
        for table in self.operator.tables:
            table.forget(partition)
        for episodes in self._open.values():
            for episode in episodes:
                self.tried[episode.alert.ruleId].open_before += episode.alert.triggeredAt < self._start_ms
        self._open.clear()

    def finish(self) -> list[Tried]:
        """What came of it, one per rule, in their order."""
        for tried in self.tried.values():
            tried.episodes.sort(key=lambda each: (each.alert.triggeredAt, each.alert.deviceId))
        return list(self.tried.values())

    def _note(self, alert: Alert, change: str) -> list[Episode]:
        """Take a change of an alert; the episode that ended, if one did."""
        tried = self.tried[alert.ruleId]
        if change == "triggered":
            episode = Episode(alert, peak=alert.actualValue if _direction(tried.rule) else None)
            self._open.setdefault(alert.deviceId, []).append(episode)
            if not self._start_ms <= alert.triggeredAt < self._end_ms:
                return []
            tried.alerts += 1
            tried.devices.add(alert.deviceId)
            if tried.alerts <= MOST_KEPT:
                tried.episodes.append(episode)
            return []
        if change != "resolved":
            return []
        ended = []
        for episode in self._open.get(alert.deviceId, []):
            if episode.alert.alertId == alert.alertId:
                episode.resolved_at, episode.resolved_value = alert.resolvedAt, alert.resolvedValue
                episode.by = alert.resolved.by if alert.resolved else None
                ended.append(episode)
                began = episode.alert.triggeredAt < self._start_ms
                tried.open_before += began and (episode.resolved_at or self._end_ms) >= self._start_ms
        return ended

    def _follow(self, columns: Sequence[Readings], over: Sequence[Episode]) -> None:
        """Look for the most extreme values of open alerts; those that are over are followed no more."""
        for readings in columns:
            for at, device_id in enumerate(readings.device_ids):
                for episode in self._open.get(device_id, ()):
                    self._look(episode, readings, at)
        for episode in over:
            left = [each for each in self._open[episode.alert.deviceId] if each is not episode]
            if left:
                self._open[episode.alert.deviceId] = left
            else:
                del self._open[episode.alert.deviceId]

    def _look(self, episode: Episode, readings: Readings, at: int) -> None:
        alert = episode.alert
        further = _direction(self.tried[alert.ruleId].rule)
        column = readings.measures.get(alert.metric)
        if further is None or column is None or episode.peak is None or readings.device_type != alert.deviceType:
            return
        time, value = int(readings.times[at]), float(column[at])
        if value == value and alert.triggeredAt <= time <= (episode.resolved_at or time):
            episode.peak = further(episode.peak, value)


def looks_back(rule: AlertRule) -> float:
    """Seconds of readings before a range that a rule needs at least, to stand as it would have.

    An alert may have been open for longer, by the clear condition; so give it more where there is more.
    """
    condition = rule.condition
    assert isinstance(condition, ValueCondition)
    parts = condition.duration + condition.clear_for + (condition.max_gap or 0.0) + rule.cooldown_period
    return max(parts, rule.flapping.within if rule.flapping else 0.0, 3600.0)


def _direction(rule: AlertRule) -> Callable[[float, float], float] | None:
    condition = rule.condition
    if not isinstance(condition, ThresholdCondition) or condition.operator == "==" or condition.rate_per is not None:
        return None
    return max if condition.operator in (">", ">=") else min
