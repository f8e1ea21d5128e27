"""Conditions on silence: nothing has come from a device for some time."""

from collections.abc import Sequence
from heapq import heapify, heappop, heappush

import numpy as np

from headrace.agents.alerting.alert_table import Key
from headrace.agents.alerting.arrival_table import SAID, ArrivalTable
from headrace.agents.alerting.silence_fold import Occurrence, Plan, SilenceFold
from headrace.agents.alerting.standing import Standing
from headrace.agents.alerting.timers import look_again
from headrace.agents.alerting.work import Finding, Work
from headrace.agents.usual_interval import ARRIVED, usual
from headrace.engine.operator import State
from headrace.schemas import topics
from headrace.schemas.readings import Floats

#: `Occurrence.place` of a device that came back, and of a moment to look again.
_BACK, _AGAIN = -1, -2


class AbsenceWatcher:
    """Looks at who has been silent for too long, measured in append time.

    A device is awaited from its first record under a rule for its type on; of those that an absence rule covers,
    arrivals are remembered also for rules that come later. A condition is met when the limit is reached, and not met
    any more with the device's next record. Devices that the registry calls retired are not awaited.

    Time moves on with every record of `telemetry.readings`, and while none comes. The priority lane is not looked at:
    its records come in the ordinary lane as well, and there in order. After a pause of everybody that is an outage (see
    `headrace.agents.alerting.silence_fold`) everyone's silence begins anew. The same log gives the same events for any
    batch boundaries and restarts; whether idle time moved on is not in the log.

    O(1) per reading. Every device is looked at only when the first of them may have reached a limit. 57 bytes per
    device beside its name, a changelog entry per commit for each that spoke.
    """

    topics = (topics.READINGS,)

    def __init__(self) -> None:
        self._table = ArrivalTable()
        self.tables: Sequence[State] = (self._table,)

    def is_waiting(self, partition: int) -> bool:
        """See `headrace.agents.alerting.work.Watcher`: whether some device is known that may fall silent."""
        return any(len(columns.devices) for columns in self._table.types(partition).values())

    def watch(self, work: Work) -> None:
        """See `headrace.agents.alerting.work.Watcher`."""
        # Taken until the batch is finished: should it fail, the plan is made anew from what is committed.
        plan = self._table.plans.pop(work.partition, None)
        newest = self._table.newest(work.partition)
        if plan is None or plan.rules is not work.rules:
            plan = Plan(work.rules, newest if plan is None else plan.reached)
            _make_timers(work, self._table, plan)
        if not plan.places and not self._table.types(work.partition):
            self._table.plans[work.partition] = plan
            return
        idle = work.batch.idle
        if idle is not None:
            running = np.array([max(plan.reached, newest) + idle.elapsed_ms])
        else:
            stamps = np.array(work.batch.records.timestamps, dtype=np.float64)
            running = np.maximum.accumulate(np.maximum(stamps, newest))
        readings = {} if idle is not None else {each.device_type: each for each in work.batch.columns()}
        fold = SilenceFold(self._table, work.partition, plan, readings, running, idle=idle is not None)
        _Reports(work, self._table, plan, running).run(fold.occurrences)
        plan.reached = float(running[-1])

        def apply() -> None:
            fold.apply()
            self._table.plans[work.partition] = plan

        work.batch.on_finish(apply)


class _Reports:
    """Reports occurrences, and what timers bring, in the order in which they happened."""

    def __init__(self, work: Work, table: ArrivalTable, plan: Plan, running: Floats) -> None:
        self._work, self._table, self._plan, self._running = work, table, plan, running
        self._places = plan.places
        self._agenda: list[Occurrence] = []
        #: Moments on the agenda that still count.
        self._again: dict[Key, int] = {}
        #: What the batch has found met.
        self._met: dict[Key, Occurrence] = {}

    def run(self, occurrences: list[Occurrence]) -> None:
        """Report these."""
        self._agenda = occurrences
        heapify(self._agenda)
        while (due := self._plan.timers.pop(float(self._running[-1]))) is not None:
            self._look_again(due[1], due[0])
        while self._agenda:
            each = heappop(self._agenda)
            if each.place == _BACK:
                self._end(each)
            elif each.place == _AGAIN:
                key = (each.message_id or "", each.device_type, each.device_id)
                if self._again.get(key) == each.time:
                    del self._again[key]
                    self._report_again(key, each)
            else:
                self._begin(each)

    def _begin(self, found: Occurrence) -> None:
        rule = self._work.rules.rules[found.place]
        key = (rule.rule_id, found.device_type, found.device_id)
        standing = self._work.standing(key)
        if standing.met or not self._work.applies(rule, found.device_id, found.row):
            return
        if self._work.device(found.device_id, found.row).status == "retired":
            return
        self._met[key] = found
        self._report(key, found, found.time, met=True)

    def _end(self, found: Occurrence) -> None:
        limits = self._plan.limits_of(found.device_type)
        for place in sorted(place for limit in limits for place in limits.places(limit, found.device_id)):
            key = (self._work.rules.rules[place].rule_id, found.device_type, found.device_id)
            standing = self._work.standing(key)
            if standing.met or standing.open:
                self._report(key, found, found.time, met=False, message_id=found.message_id)
                self._met.pop(key, None)

    def _report_again(self, key: Key, found: Occurrence) -> None:
        standing = self._work.standing(key)
        if not standing.met:
            self._report(key, found, found.time, met=False)
        elif self._work.device(found.device_id, found.row).status != "retired":
            self._report(key, self._met.get(key) or self._known(key, found), found.time, met=True, row=found.row)

    def _report(
        self,
        key: Key,
        found: Occurrence,
        time: int,
        *,
        met: bool,
        row: int | None = None,
        message_id: str | None = None,
    ) -> None:
        place = self._places[key[0]]
        rule = self._work.rules.rules[place]
        before = self._work.standing(key)
        if before.alert is not None and before.open:
            # Idle time may have brought the trigger before a record whose append time is earlier.
            time = max(time, before.alert.triggeredAt)
        silence = (time - found.last_seen) / 1000 if found.last_seen else None
        metadata = {"lastSeen": found.last_seen, "usualInterval": round(found.usual) / 1000}
        standing = self._work.report(
            Finding(
                rule, place, found.row if row is None else row, found.device_type, found.device_id, time, met,
                "silence", silence, found.limit / 1000 or None, message_id=message_id,
                metadata={name: value for name, value in metadata.items() if value},
            )
        )  # fmt: skip
        due = look_again(rule, standing, time)
        within = due is not None and due < self._running[-1]
        self._again.pop(key, None)
        self._plan.timers.set(key, None if within else due)
        if due is not None and within:
            self._look_again(key, due, found.row if row is None else row)

    def _look_again(self, key: Key, due: int, least_row: int = 0) -> None:
        """Put on the agenda that a moment comes within the batch."""
        if key[0] not in self._places:
            return
        self._again[key] = due
        row = max(least_row, int(np.searchsorted(self._running, due, side="right")))
        # The rule's id takes the place of a message's.
        heappush(self._agenda, Occurrence(row, due, key[1], key[2], _AGAIN, 0, 0.0, 0.0, key[0]))

    def _known(self, key: Key, found: Occurrence) -> Occurrence:
        """What to say of a device that has been silent since before the batch."""
        columns = self._table.of_type(self._work.partition, key[1])
        number = columns.devices.number(key[2])
        if number is None:
            return found
        state = columns.state[:, [number]]
        limits = self._plan.limits_of(key[1])
        place = self._places[key[0]]
        limit = next((float(each.of(state)[0]) for each in limits if place in limits.places(each, key[2])), 0.0)
        return found._replace(last_seen=int(state[ARRIVED, 0]), limit=limit, usual=float(usual(state)[0]))


def _make_timers(work: Work, table: ArrivalTable, plan: Plan) -> None:
    """Set the timers that follow from what is known of alerts."""
    for device_type, columns in table.types(work.partition).items():
        limits = plan.limits_of(device_type)
        for device in np.flatnonzero(columns.state[SAID] > 0).tolist():
            name, said = columns.devices.names[device], int(columns.state[SAID, device])
            for place in {place for limit in limits for place in limits.places(limit, name)}:
                rule = work.rules.rules[place]
                key = (rule.rule_id, device_type, name)
                standing: Standing = work.standing(key)
                if standing.met:
                    plan.timers.set(key, look_again(rule, standing, said))
    for key, standing in work.open_alerts():
        if not standing.met and key[0] in plan.places:
            plan.timers.set(key, look_again(work.rules.rules[plan.places[key[0]]], standing, 0))
