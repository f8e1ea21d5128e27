"""The agent that alerts: watchers find conditions met, and alerts open, end, and are worked on by people."""

from collections.abc import Sequence
from itertools import accumulate

from headrace.agents.alerting.absence_watcher import AbsenceWatcher
from headrace.agents.alerting.alert_table import AlertTable
from headrace.agents.alerting.anomaly_watcher import AnomalyWatcher
from headrace.agents.alerting.commands import carry_out
from headrace.agents.alerting.events import send_changes
from headrace.agents.alerting.measure_watcher import MeasureWatcher
from headrace.agents.alerting.moments import Moment, Moments, moments_of
from headrace.agents.alerting.offline_watcher import OfflineWatcher
from headrace.agents.alerting.related import relate
from headrace.agents.alerting.review import review
from headrace.agents.alerting.surroundings import Around
from headrace.agents.alerting.work import FollowsRules, Watcher, Work
from headrace.engine.batch import Batch
from headrace.engine.errors import CutBatch
from headrace.engine.operator import State
from headrace.engine.replicas import Replica
from headrace.schemas import topics
from headrace.schemas.rule import AlertRule
from headrace.tables.keyvalue import KeyValue
from headrace.tables.replicated import Replicated
from headrace.tables.rule_book import RuleBook, RuleSet

#: Key of the append time reached, in its table.
_NOW = ("now",)
#: Seconds of append time for which alerts that are over are known: `alerts.state.v1` has them, people may comment.
KEEP_OVER = 30 * 86_400.0
#: How often time moves on while nothing comes, seconds.
IDLE_TIMEOUT = 10.0


class Alerts:
    """Evaluate rules on every record, in event time, and emit each change of an alert.

    One alert at the most is open per rule and device. It opens when the rule's condition is met, outside of the
    cooldown, while the rule's schedule covers the event time; it ends when the condition is not met any more, when a
    person resolves it, or when its rule is gone. See `headrace.agents.alerting.standing` and `.watch`.

    A reading older than the device's own clock (its largest event time) is not evaluated; one as old is.

    The priority lane brings copies of alarms before the telemetry that they have overtaken. One that meets a condition
    at once (without duration, rate, or "n of m") triggers, unless an alert is open, the cooldown runs, it is older than
    the lane's own clock of the device, or not newer than the ordinary lane's. This is all that the priority lane does.
    The ordinary lane does not evaluate readings older than the trigger of an open alert.

    Rules may change while it runs: one of the topic `rules` applies to records appended at its own append time or
    later. What is remembered goes on under a changed rule. An alert whose rule is deleted, inactive, or no longer for
    the device ends with the next record.

    The same records in the same order give the same events, in log order and then that of the rules, for any batch
    boundaries and restarts; ids are made of rule, device and trigger time.

    Args:
        rules: with different ids.
        changes: more rules, which win over those with the same id; see `headrace.tables.rule_book`.
        watchers: who finds conditions met; None for those that ship.
        keep_over: seconds of append time for which an alert that is over stays known, once its condition is not met;
            then its state is deleted, and a cooldown that still runs is forgotten.
    Raises:
        ConfigError: two rules have the same id.
    """

    name = "alert"
    topic = topics.READINGS
    idle_timeout: float | None = IDLE_TIMEOUT

    def __init__(
        self,
        rules: Sequence[AlertRule],
        changes: Replicated[AlertRule] | None = None,
        watchers: Sequence[Watcher] | None = None,
        *,
        keep_over: float = KEEP_OVER,
    ) -> None:
        self._rules = RuleBook(rules, changes)
        self._around = Around()
        self.replicas: Sequence[Replica] = (*(() if changes is None else (changes,)), *self._around.replicas)
        self._watchers = _watchers() if watchers is None else watchers
        self._alerts = AlertTable()
        #: Append time that each partition has reached, ms: topics that it reads may be apart, and it never goes back.
        self._reached: KeyValue[tuple[str], int] = KeyValue(
            "alert.reached", lambda value: b"%d" % value, int, ("what",)
        )
        watched = (table for each in self._watchers for table in each.tables)
        self.tables: tuple[State, ...] = (self._alerts, self._reached, *watched)
        read = dict.fromkeys(topic for each in self._watchers for topic in each.topics)
        self.topics = tuple(dict.fromkeys((self.topic, *read, topics.ALERT_COMMANDS)))
        self._keep_over_ms = round(keep_over * 1000)
        self._moments: dict[int, Moments] = {}
        self.idle_topics = tuple(dict.fromkeys((self.topic, *(each.topics[0] for each in self._watchers))))

    def open_alerts(self) -> int:
        """How many alerts are open now, in all partitions."""
        return sum(len(self._alerts.open(partition)) for partition in self._alerts.partitions())

    def looks_back(self) -> float:
        """How far back, in seconds of event time, the newest rules make events depend on what was there."""
        rules = self._rules.at().rules
        back = (getattr(rule.condition, "duration", 0.0) + rule.cooldown_period for rule in rules)
        return max(back, default=0.0)

    def is_waiting(self, partition: int) -> bool:
        """See `headrace.engine.operator.Idling`."""
        return bool(self._alerts.open(partition)) or any(each.is_waiting(partition) for each in self._watchers)

    def process(self, batch: Batch) -> None:
        """Evaluate the rules on the batch, and stage what changed about alerts."""
        stamps = batch.records.timestamps if batch.idle is None else [batch.idle.now_ms]
        if not len(stamps):
            return
        moments = self._moments.setdefault(batch.partition, self._new_moments(batch.partition))
        reached = max(self._reached.get(batch.partition, _NOW) or 0, moments.reached_ms)
        commands = batch.topic == topics.ALERT_COMMANDS and batch.idle is None
        # Whoever sends a command dates it: what that says is no time that others go by.
        now_ms = [reached] * len(stamps) if commands else list(accumulate(stamps, max, initial=reached))[1:]
        rules = self._rules_of(now_ms)
        plan = moments.plan(rules, now_ms[0])
        if (row := plan.cut(now_ms)) is not None:
            raise CutBatch(row)
        early = batch.topic == topics.READINGS_PRIORITY
        work = Work(batch, rules, self._alerts, now_ms, self._around, early=early)
        review(work, plan, self._keep_over_ms)
        new_rules = moments.rules is not rules
        for watcher in self._watchers if new_rules or work.staged else ():
            if isinstance(watcher, FollowsRules):
                watcher.follow(work, new_rules=new_rules)
        if commands:
            carry_out(work)
        for watcher in self._watchers:
            if batch.topic in (watcher.topics if batch.idle is None else watcher.topics[:1]):
                watcher.watch(work)
        send_changes(work, relate(work, self._alerts), stamps)

        def apply() -> None:
            more: list[Moment] = []
            for key, standing in work.staged.items():
                if standing != self._alerts.get(batch.partition, key):
                    more += moments_of(standing, now_ms[-1], self._keep_over_ms)
            self._alerts.update(batch.partition, work.staged)
            # Time that passed without consequence need not be known after a restart: nothing is committed for it.
            if now_ms[-1] != self._reached.get(batch.partition, _NOW) and (batch.idle is None or work.staged):
                self._reached.update(batch.partition, {_NOW: now_ms[-1]})
            moments.carried_out(plan, now_ms[-1], more)

        batch.on_finish(apply)

    def _new_moments(self, partition: int) -> Moments:
        return Moments(self._alerts, partition, self._around, self._keep_over_ms)

    def _rules_of(self, now_ms: Sequence[int]) -> RuleSet:
        """The rules for all of a batch; it is cut where others begin to apply."""
        sets, which = self._rules.sets(now_ms)
        if len(sets) > 1:
            other = (which != which[0]).nonzero()[0]
            if len(other):
                raise CutBatch(int(other[0]))
        return sets[int(which[0])]


def _watchers() -> Sequence[Watcher]:
    """New ones of those that ship."""
    return (MeasureWatcher(), AbsenceWatcher(), OfflineWatcher(), AnomalyWatcher())
