"""What rules would have said of records that are there: the very same operator, over stored history."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from headrace.agents.alerting.absence_watcher import AbsenceWatcher
from headrace.agents.alerting.alerts import Alerts
from headrace.agents.alerting.anomaly_watcher import AnomalyWatcher
from headrace.agents.alerting.measure_watcher import MeasureWatcher
from headrace.agents.alerting.offline_watcher import OfflineWatcher
from headrace.agents.alerting.work import Watcher
from headrace.engine.batch import Idle
from headrace.engine.log import Fetched
from headrace.engine.records import Records
from headrace.engine.testkit import Driven, fetched, run_batch
from headrace.schemas import topics
from headrace.schemas.alert import Alert, AlertEvent
from headrace.schemas.condition import ThresholdCondition, ValueCondition, kind_of
from headrace.schemas.readings import Readings, decode_readings
from headrace.schemas.rule import AlertRule

#: Who judges, by kind of condition.
JUDGED: Mapping[str, Callable[[], Watcher]] = {
    "threshold": MeasureWatcher,
    "expression": MeasureWatcher,
    "absence": AbsenceWatcher,
    "offline": OfflineWatcher,
    "anomaly": AnomalyWatcher,
}
#: Alerts that are kept of each rule; more are only counted.
MOST_KEPT = 10_000


@dataclass(slots=True, eq=False)
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
    """Gives rules the records of one stretch after the other, and notes the alerts that come of it.

    A stretch holds all records of its devices, in the order in which they are to be judged: a partition of all that
    `topics_of` names, or the readings that the database has of a device. Silences, maintenance and other alerts are
    left out: they change whether people are told, not whether a rule triggers. Memory: that of the rules' watches in
    one stretch, and the alerts.

    Args:
        rules: with different ids; they are taken as active.
        start_ms, end_ms: of the range whose triggers count, event time. Records before it warm the rules up.
    """

    def __init__(self, rules: Sequence[AlertRule], start_ms: int, end_ms: int) -> None:
        watchers = [make() for make in dict.fromkeys(JUDGED[kind_of(rule.condition)] for rule in rules)]
        active = [rule.model_copy(update={"status": "active"}) for rule in rules]
        #: To read its replicated tables before the first readings: rules may be for one organisation.
        self.operator = Alerts(active, None, watchers)
        self.tried = {rule.rule_id: Tried(rule) for rule in active}
        #: Records looked at, count, and the append time of the oldest, ms; None: there was none.
        self.records = 0
        self.oldest_ms: int | None = None
        self._newest_ms: dict[str, int] = {}
        self._follows = any(_direction(rule) for rule in active)
        self._start_ms = start_ms
        self._end_ms = end_ms
        self._open: dict[str, list[Episode]] = {}

    def take(self, fetched: Fetched) -> None:
        """The next records of the stretch."""
        if not len(fetched.records):
            return
        over = self._run(fetched)
        stamps = fetched.records.timestamps
        self.records += len(stamps)
        oldest, newest = min(stamps), max(stamps)
        self.oldest_ms = oldest if self.oldest_ms is None else min(oldest, self.oldest_ms)
        self._newest_ms[fetched.target.topic] = max(newest, self._newest_ms.get(fetched.target.topic, 0))
        if self._open and self._follows and fetched.target.topic == topics.READINGS:
            self._follow(decode_readings(fetched.records.values))
        for episode in over:
            self._open[episode.alert.deviceId].remove(episode)
            if not self._open[episode.alert.deviceId]:
                del self._open[episode.alert.deviceId]

    def end_stretch(self, partition: int) -> None:
        """The stretch that came as this partition is over, and time goes on to the end of the range.

        The next stretch starts from nothing.
        """
        for topic, newest_ms in self._newest_ms.items():
            if newest_ms < self._end_ms:
                passed = Idle(self._end_ms - newest_ms, self._end_ms)
                self._run(fetched(Records([], [], []), topic, partition), passed)
        for table in self.operator.tables:
            table.forget(partition)
        for episodes in self._open.values():
            for episode in episodes:
                open_then = episode.resolved_at is None and episode.alert.triggeredAt < self._start_ms
                self.tried[episode.alert.ruleId].open_before += open_then
        self._open.clear()
        self._newest_ms.clear()

    def finish(self) -> list[Tried]:
        """What came of it, one per rule, in their order."""
        for tried in self.tried.values():
            tried.episodes.sort(key=lambda each: (each.alert.triggeredAt, each.alert.deviceId))
        return list(self.tried.values())

    def _run(self, fetched: Fetched, idle: Idle | None = None) -> list[Episode]:
        """Let the operator work; the episodes that ended."""
        driven = Driven({}, [])
        run_batch(self.operator, fetched, driven, idle)
        for table in self.operator.tables:
            table.changes(fetched.target.partition)  # nobody keeps them, but tables drop what is past on this occasion
        over: list[Episode] = []
        for record in driven.sent.get(topics.ALERTS, ()):
            event = AlertEvent.model_validate_json(record.value or b"")
            if isinstance(event.data, Alert):
                over += self._note(event.data, event.type.rpartition(".")[2])
        return over

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

    def _follow(self, columns: Sequence[Readings]) -> None:
        """Look for the most extreme values of alerts that are open, or were just now."""
        for readings in columns:
            for at, device_id in enumerate(readings.device_ids):
                for episode in self._open.get(device_id, ()):
                    self._look(episode, readings, at)

    def _look(self, episode: Episode, readings: Readings, at: int) -> None:
        alert = episode.alert
        further = _direction(self.tried[alert.ruleId].rule)
        column = readings.measures.get(alert.metric)
        if further is None or column is None or episode.peak is None or readings.device_type != alert.deviceType:
            return
        time, value = int(readings.times[at]), float(column[at])
        if value == value and alert.triggeredAt <= time <= (episode.resolved_at or time):
            episode.peak = further(episode.peak, value)


#: Copies; what they are of is in the ordinary topic.
_EARLY = topics.READINGS_PRIORITY


def topics_of(rules: Sequence[AlertRule]) -> tuple[str, ...]:
    """What rules are judged by, readings first."""
    found = {topic for rule in rules for topic in JUDGED[kind_of(rule.condition)]().topics} - {_EARLY}
    return tuple(sorted(found, key=lambda topic: (topic != topics.READINGS, topic)))


def looks_back(rule: AlertRule) -> float:
    """Seconds of records before a range that a rule needs at least, to stand as it would have.

    An alert may have been open for longer, by the clear condition; so give it more where there is more.
    """
    condition, parts = rule.condition, rule.cooldown_period
    if isinstance(condition, ValueCondition):
        parts += condition.duration + condition.clear_for + (condition.max_gap or 0.0)
    return max(parts, rule.flapping.within if rule.flapping else 0.0, 3600.0)


def _direction(rule: AlertRule) -> Callable[[float, float], float] | None:
    condition = rule.condition
    if not isinstance(condition, ThresholdCondition) or condition.operator == "==" or condition.rate_per is not None:
        return None
    return max if condition.operator in (">", ">=") else min
