"""The agent that alerts: watchers find conditions met, and alerts open, end, and are worked on by people."""

from collections.abc import Sequence
from itertools import accumulate

from headrace.agents.alerting.alert_table import AlertTable
from headrace.agents.alerting.commands import carry_out
from headrace.agents.alerting.events import send_changes
from headrace.agents.alerting.measure_watcher import MeasureWatcher
from headrace.agents.alerting.related import relate
from headrace.agents.alerting.review import end_uncovered, review_suppressions
from headrace.agents.alerting.surroundings import Around
from headrace.agents.alerting.work import Watcher, Work
from headrace.engine.batch import Batch
from headrace.engine.errors import CutBatch
from headrace.engine.replicas import Replica
from headrace.schemas import topics
from headrace.schemas.rule import AlertRule
from headrace.tables.replicated import Replicated
from headrace.tables.rule_book import RuleBook, RuleSet

#: Suppressions of open alerts are looked at anew when so much append time has passed, ms.
REVIEW_MS = 1_000
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
    ) -> None:
        self._rules = RuleBook(rules, changes)
        self._around = Around()
        self.replicas: Sequence[Replica] = (*(() if changes is None else (changes,)), *self._around.replicas)
        self._watchers = [MeasureWatcher()] if watchers is None else watchers
        self._alerts = AlertTable()
        self.tables = (self._alerts, *(table for each in self._watchers for table in each.tables))
        read = dict.fromkeys(topic for each in self._watchers for topic in each.topics)
        self.topics = tuple(dict.fromkeys((self.topic, *read, topics.ALERT_COMMANDS)))
        #: By partition: the rules that were last applied, append time reached, and when and on what suppressions were
        #: last reviewed.
        self._applied: dict[int, RuleSet] = {}
        self._now_ms: dict[int, int] = {}
        self._reviewed: dict[int, tuple[int, tuple[int, int, int]]] = {}

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
        rules = self._rules_of(batch)
        now_ms = list(accumulate(stamps, max, initial=self._now_ms.get(batch.partition, 0)))[1:]
        early = batch.topic == topics.READINGS_PRIORITY
        work = Work(batch, rules, self._alerts, now_ms, self._around, early=early)
        if self._applied.get(batch.partition) is not rules:
            end_uncovered(work)
        if batch.topic == topics.ALERT_COMMANDS and batch.idle is None:
            carry_out(work)
        for watcher in self._watchers:
            if batch.idle is not None or batch.topic in watcher.topics:
                watcher.watch(work)
        reviewed = self._review(work)
        send_changes(batch, relate(work, self._alerts), stamps)

        def apply() -> None:
            self._alerts.update(batch.partition, work.staged)
            self._applied[batch.partition] = rules
            self._now_ms[batch.partition] = now_ms[-1]
            self._reviewed[batch.partition] = reviewed

        batch.on_finish(apply)

    def _rules_of(self, batch: Batch) -> RuleSet:
        """The rules for all of the batch; it is cut where others begin to apply."""
        if batch.idle is not None:
            return self._rules.at()
        sets, which = self._rules.sets(batch.records.timestamps)
        if len(sets) > 1:
            other = (which != which[0]).nonzero()[0]
            if len(other):
                raise CutBatch(int(other[0]))
        return sets[int(which[0])]

    def _review(self, work: Work) -> tuple[int, tuple[int, int, int]]:
        """Look at the suppressions of open alerts, if time or what suppresses them has changed."""
        last_ms, revision = self._reviewed.get(work.partition, (0, (-1, -1, -1)))
        now = work.now_ms[-1]
        if now < last_ms + REVIEW_MS and revision == self._around.revision:
            return last_ms, revision
        review_suppressions(work, self._around)
        return now, self._around.revision
