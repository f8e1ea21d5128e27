"""Conditions on what devices measure: thresholds, rates and expressions, on every reading."""

from collections.abc import Sequence
from functools import partial
from weakref import WeakKeyDictionary

from headrace.agents.alerting.column_values import ColumnValues
from headrace.agents.alerting.column_walk import ColumnWalk
from headrace.agents.alerting.device_order import DeviceOrder, Ordered
from headrace.agents.alerting.evaluation import Seen, evaluate_early
from headrace.agents.alerting.following import drop_ended, drop_uncovered
from headrace.agents.alerting.last_readings import LastReadings
from headrace.agents.alerting.measure_columns import Plan
from headrace.agents.alerting.quiet import QuietDevices
from headrace.agents.alerting.watch_table import WatchTable, draft_of
from headrace.agents.alerting.work import Work
from headrace.engine.operator import State
from headrace.schemas import topics
from headrace.schemas.readings import Readings
from headrace.tables.clocks import ClockColumn
from headrace.tables.rule_book import RuleSet


class MeasureWatcher:
    """Looks at every reading of the measures that rules are about, and evaluates the rules that it may mean news to.

    A batch costs a few passes over columns for each metric, rate and expression that rules look at, whatever the
    number of rules, and for each reading that crosses a threshold, or comes while something is pending, what the rules
    concerned cost. See `headrace.agents.alerting.quiet`.
    """

    topics = (topics.READINGS, topics.READINGS_PRIORITY)

    def __init__(self) -> None:
        self._watches = WatchTable("alert.watches")
        self._order = DeviceOrder()
        self._last = LastReadings("alert.last")
        self.tables: Sequence[State] = (self._watches, *self._order.tables, self._last)
        self._newest: dict[str, Plan] = {}
        self._plans: WeakKeyDictionary[RuleSet, dict[str, Plan]] = WeakKeyDictionary()
        #: By partition and device type.
        self._quiet: dict[tuple[int, str], QuietDevices] = {}

    def is_waiting(self, partition: int) -> bool:
        """See `headrace.agents.alerting.work.Watcher`: readings alone lead to something."""
        return False

    def follow(self, work: Work, *, new_rules: bool) -> None:
        """See `headrace.agents.alerting.work.FollowsRules`."""
        drop_ended(work, self._watches)
        if new_rules:
            drop_uncovered(work, self._watches)
            for device_type in self._last.types(work.partition):
                rated = self._plan(work.rules, device_type).rated
                work.batch.on_finish(partial(self._last.keep, work.partition, device_type, rated))
        for (partition, device_type), quiet in self._quiet.items():
            if partition == work.partition and new_rules:
                quiet.keep(self._plan(work.rules, device_type).columns.values())
            if partition == work.partition:
                quiet.forget(device for _, kind, device in work.staged if kind == device_type)

    def watch(self, work: Work) -> None:
        """See `headrace.agents.alerting.work.Watcher`."""
        if work.batch.idle is not None:
            return
        for readings in work.batch.columns():
            plan = self._plan(work.rules, readings.device_type)
            if not plan.columns:
                continue
            ordered = self._order.of(work, readings)
            values = ColumnValues(work, readings, ordered, self._last)
            quiet = self._quiet_devices(work.partition, readings.device_type, ordered.clocks)
            if work.early:
                self._look_early(work, readings, plan, ordered, values, quiet)
                continue
            organisations = self._organisations(work, readings, plan, ordered, quiet)
            walk = ColumnWalk(work, readings, ordered, values, draft_of(work, self._watches), organisations)
            for looked, column in plan.columns.items():
                found = values.of(looked)
                if found is not None:
                    walk.look(quiet.of(column), found, self._watches)

    def _look_early(
        self, work: Work, readings: Readings, plan: Plan, ordered: Ordered, values: ColumnValues, quiet: QuietDevices
    ) -> None:
        """Alarms are few: each by itself."""
        draft = draft_of(work, self._watches)
        for looked, column in plan.columns.items():
            found = None if looked.kind == "rate" else values.of(looked)
            if found is None:
                continue
            for at, value in zip(ordered.groups.order.tolist(), found.tolist(), strict=True):
                if value != value:
                    continue
                row, device_id = int(readings.rows[at]), readings.device_ids[at]
                time, message_id = int(readings.times[at]), readings.message_ids[at]
                seen = Seen(row, readings.device_type, device_id, time, message_id)
                organisation = work.organisation(device_id, row) if column.by_organisation else None
                sample = (time, value, values.used(looked, at))
                for ladder in column.ladders(device_id, organisation):
                    for number in ladder.holding(ladder.step(value)):
                        if evaluate_early(work, column.rules[number], seen, sample, draft):
                            quiet.forget([device_id])

    def _organisations(
        self, work: Work, readings: Readings, plan: Plan, ordered: Ordered, quiet: QuietDevices
    ) -> dict[int, str | None]:
        """The organisation of every device of the batch, by number, if it matters."""
        if not plan.by_organisation:
            return {}
        registry = work.registry()
        known, groups = quiet.organisations, ordered.groups
        fresh = known.checked if known.registry == registry else set[int]()
        found: dict[int, str | None] = {}
        of_batch: dict[int, str | None] = {}
        heads = groups.order[groups.heads].tolist()
        for number, at in zip(groups.devices[groups.heads].tolist(), heads, strict=True):
            if number in fresh:
                of_batch[number] = known.of[number]
            else:
                device_id = readings.device_ids[at]
                found[number] = of_batch[number] = organisation = work.organisation(device_id, int(readings.rows[at]))
                if number not in known.of or known.of[number] != organisation:
                    quiet.forget([device_id])
        work.batch.on_finish(lambda: known.set(registry, found))
        return of_batch

    def _plan(self, rules: RuleSet, device_type: str) -> Plan:
        plans = self._plans.setdefault(rules, {})
        if device_type not in plans:
            self._newest[device_type] = plans[device_type] = Plan(rules, device_type, self._newest.get(device_type))
        return plans[device_type]

    def _quiet_devices(self, partition: int, device_type: str, clocks: ClockColumn) -> QuietDevices:
        found = self._quiet.get((partition, device_type))
        if found is None or found.clocks is not clocks:
            # The partition has come back: nothing is known of it.
            found = self._quiet[partition, device_type] = QuietDevices(clocks)
        return found
