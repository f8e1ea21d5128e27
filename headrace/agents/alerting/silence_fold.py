"""Who falls silent in a batch, and who comes back: computed, then applied.

A device is silent when nothing has come from it for longer than a limit, measured in append time from its last record,
or from when the partition's devices spoke again after they all had been away (`resumed`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from headrace.agents.alerting.arrival_table import SAID, ArrivalColumns, ArrivalTable
from headrace.agents.alerting.silence_limits import Limit, Limits
from headrace.agents.alerting.timers import Timers
from headrace.agents.usual_interval import ARRIVED, GAPS, hear, usual
from headrace.schemas.condition import AbsenceCondition
from headrace.schemas.readings import Floats, Ints, Readings
from headrace.tables.grouping import Flags, rounds
from headrace.tables.rule_book import RuleSet

#: A pause of everybody is an outage if more than so many devices that were in time until then
CROWD = 4
#: have missed their turn in it, more than half of those: it is longer than so many of their usual intervals.
MISSED = 1.5
#: Shorter pauses are none, ms.
LEAST_PAUSE = 1_000.0


class Occurrence(NamedTuple):
    """A device fell silent, or came back; sorts in log order.

    Args:
        row: place in the batch of the record that shows it.
        time: append time of that: when the limit was reached, or of the record that ended the silence, ms.
        place: of the rule whose limit was reached; -1: it came back.
        last_seen: append time of its last record before, ms.
        limit, usual: its limit, 0 if it came back, and its usual interval, ms.
        message_id: of the record that ended the silence.
    """

    row: int
    time: int
    device_type: str
    device_id: str
    place: int
    last_seen: int
    limit: float
    usual: float
    message_id: str | None = None


@dataclass
class Plan:
    """What follows from the table and the rules, for one partition.

    Args:
        rules: those it was made for.
        reached: append time reached, of records and of idle time, ms.
        limits: by device type.
        due: by device type, a time before which nobody reaches a limit, ms.
        timers: when to look at alerts again.
        fresh: whether it was just made: then every limit is looked at, not only those reached since the last time.
        places: of the absence rules, by their ids.
    """

    rules: RuleSet
    reached: float = 0.0
    limits: dict[str, Limits] = field(default_factory=dict)
    due: dict[str, float] = field(default_factory=dict)
    timers: Timers = field(default_factory=Timers)
    fresh: bool = True
    places: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.places = {
            rule.rule_id: place
            for place, rule in enumerate(self.rules.rules)
            if isinstance(rule.condition, AbsenceCondition) and rule.status == "active"
        }

    def limits_of(self, device_type: str) -> Limits:
        """The limits for a device type."""
        found = self.limits.get(device_type)
        if found is None:
            found = self.limits[device_type] = Limits(self.rules, device_type)
        return found


class SilenceFold:
    """What a batch, or idle time, does to the devices of a partition.

    Args:
        table: the state.
        partition: which.
        plan: is brought up to date.
        readings: of the batch.
        running: (n,) append time reached in each row of the batch, ms; ascending. Of idle time (1,).
        idle: whether it is idle time.
    """

    def __init__(
        self,
        table: ArrivalTable,
        partition: int,
        plan: Plan,
        readings: Mapping[str, Readings],
        running: Floats,
        *,
        idle: bool,
    ) -> None:
        self._table, self._partition, self._plan = table, partition, plan
        self._running, self._idle = running, idle
        self._resumed = table.resumed(partition)
        types = dict.fromkeys([*readings, *table.types(partition)])
        covered = [name for name in types if plan.limits_of(name)]
        self._uncovered = [] if idle else [name for name in types if name not in covered]
        self._types = [
            _OfType(name, table.of_type(partition, name), plan, readings.get(name), running) for name in covered
        ]
        first = 0
        for row, since in self._pauses(table.newest(partition)):
            self._go(first, row)
            if self._is_outage(since, float(running[row])):
                self._resumed = float(running[row])
            first = row
        self._go(first, len(running))

    @property
    def occurrences(self) -> list[Occurrence]:
        """In log order."""
        return sorted(each for part in self._types for each in part.occurrences)

    def apply(self) -> None:
        """For `Batch.on_finish`."""
        for part in self._types:
            part.apply()
        for name in self._uncovered:
            self._table.drop(self._partition, name)
            self._plan.due.pop(name, None)
        if not self._idle and self._types:
            self._table.move(self._partition, float(self._running[-1]), self._resumed)

    def _pauses(self, newest: float) -> Iterator[tuple[int, float]]:
        """Rows before which nothing came for as long as the shortest limit, and since when."""
        if self._idle:
            return
        before = np.concatenate([[newest], self._running[:-1]])
        least = max(LEAST_PAUSE, min((part.limits.floor for part in self._types), default=np.inf))
        for row in np.flatnonzero((self._running - before > least) & (before > 0)).tolist():
            yield row, float(before[row])

    def _go(self, first: int, until: int) -> None:
        if first == until:
            return
        for part in self._types:
            part.take(first, until, self._resumed)
            part.scan(until - 1, self._resumed)
        self._plan.fresh = False

    def _is_outage(self, since: float, until: float) -> bool:
        in_time = missed = 0
        for part in self._types:
            state = part.everybody()
            interval = usual(state)
            awaited = (state[GAPS] > 0) & (since - state[ARRIVED] <= MISSED * interval)
            in_time += int(np.count_nonzero(awaited))
            missed += int(np.count_nonzero(awaited & (until - since > MISSED * interval)))
        return missed > CROWD and 2 * missed > in_time


class _OfType:
    """The devices of one type.

    Those that the batch brings something of are worked on in a copy; of the others it may only be noted that their
    silence was reported.
    """

    def __init__(
        self, name: str, columns: ArrivalColumns, plan: Plan, readings: Readings | None, running: Floats
    ) -> None:
        self._name, self._columns, self._plan = name, columns, plan
        self._readings, self._running = readings, running
        self.limits = plan.limits_of(name)
        self.occurrences: list[Occurrence] = []
        numbers = columns.numbers(readings.device_ids if readings is not None else [])
        self._mine, self._which = np.unique(numbers, return_inverse=True)
        self._state = columns.state[:, self._mine]
        self._said: Floats | None = None

    def apply(self) -> None:
        """For `Batch.on_finish`."""
        self._columns.set(self._mine, self._state)
        if self._said is not None:
            others = np.flatnonzero(self._said != self._columns.state[SAID])
            others = others[~np.isin(others, self._mine)]
            state = self._columns.state[:, others]
            state[SAID] = self._said[others]
            self._columns.set(others, state)

    def everybody(self) -> Floats:
        """What is known of all devices at this point of the batch, (fields, d)."""
        state = self._columns.state.copy()
        state[:, self._mine] = self._state
        return state

    def take(self, first: int, until: int, resumed: float) -> None:
        """The readings in these rows: who was silent has come back."""
        if self._readings is None:
            return
        low, high = np.searchsorted(self._readings.rows, [first, until]).tolist()
        order = np.argsort(self._which[low:high], kind="stable") + low
        for places in rounds(self._which[order]):
            at = order[places]
            who, rows = self._which[at], self._readings.rows[at]
            now, state = self._running[rows], self._state[:, who]
            late = np.maximum(state[ARRIVED], resumed) + self.limits.least(state) < now
            for place in np.flatnonzero((state[ARRIVED] > 0) & (late | (state[SAID] > 0))).tolist():
                self._come_back(int(at[place]), state[:, place], resumed)
            hear(state, now, self._readings.times[at].astype(np.float64))
            state[SAID] = 0.0
            self._state[:, who] = state
        if high > low:
            heard = self._state[:, self._state[ARRIVED] > 0]
            earliest = float((heard[ARRIVED] + self.limits.least(heard)).min(initial=np.inf))
            self._plan.due[self._name] = min(self._plan.due.get(self._name, -np.inf), earliest)

    def scan(self, row: int, resumed: float) -> None:
        """Look for devices that have reached a limit before the time of a row."""
        now = float(self._running[row])
        if self._plan.due.get(self._name, -np.inf) >= now and not self._plan.fresh:
            return
        state = self._columns.state
        if len(self._mine) or self._said is not None:
            state = self.everybody() if len(self._mine) else state.copy()
            if self._said is not None:
                others = ~self._is_mine()
                state[SAID, others] = self._said[others]
        first = np.maximum(state[ARRIVED], resumed) + self.limits.least(state)
        deadline = np.where(state[ARRIVED] > 0, first, np.inf)
        late = np.flatnonzero(deadline < now)
        deadline[late] = np.inf
        due = float(deadline.min(initial=np.inf))
        if len(late):
            due = min(due, self._reach(late, state[:, late], now, resumed))
        self._plan.due[self._name] = due

    def _reach(self, devices: Ints, state: Floats, now: float, resumed: float) -> float:
        """Devices that have reached the least limit; when the next of them reaches another one, ms."""
        since, due = np.maximum(state[ARRIVED], resumed), np.inf
        said = state[SAID].copy()
        for limit in self.limits:
            deadline = since + limit.of(state)
            reached = deadline < now
            due = min(due, float(np.where(reached, np.inf, deadline).min()))
            newly = reached & (deadline >= state[SAID])
            for place in np.flatnonzero(reached if self._plan.fresh else newly).tolist():
                self._add(limit, int(devices[place]), state[:, place], float(deadline[place]))
            said[newly] = now
        self._say(devices, said)
        return due

    def _say(self, devices: Ints, said: Floats) -> None:
        mine = np.isin(devices, self._mine)
        self._state[SAID, np.searchsorted(self._mine, devices[mine])] = said[mine]
        if not mine.all():
            if self._said is None:
                self._said = self._columns.state[SAID].copy()
            self._said[devices[~mine]] = said[~mine]

    def _come_back(self, at: int, state: Floats, resumed: float) -> None:
        """A reading of a device that may have been silent."""
        assert self._readings is not None
        row = int(self._readings.rows[at])
        now, since, said = float(self._running[row]), max(float(state[ARRIVED]), resumed), float(state[SAID])
        device = int(self._mine[self._which[at]])
        was = said > 0
        for limit in self.limits:
            deadline = since + float(limit.of(state[:, np.newaxis])[0])
            if deadline < now and (self._plan.fresh or deadline >= said):
                self._add(limit, device, state, deadline)
                was = True
        if was:
            message_id = self._readings.message_ids[at]
            self.occurrences.append(self._occurrence(row, now, device, -1, state, 0.0, message_id))

    def _add(self, limit: Limit, device: int, state: Floats, deadline: float) -> None:
        row = int(np.searchsorted(self._running, deadline, side="right"))
        span = float(limit.of(state[:, np.newaxis])[0])
        for place in self.limits.places(limit, self._columns.devices.names[device]):
            self.occurrences.append(self._occurrence(row, deadline, device, place, state, span))

    def _occurrence(
        self, row: int, time: float, device: int, place: int, state: Floats, limit: float, message_id: str | None = None
    ) -> Occurrence:
        name, last = self._columns.devices.names[device], int(state[ARRIVED])
        return Occurrence(row, int(time), self._name, name, place, last, limit, float(usual(state)), message_id)

    def _is_mine(self) -> Flags:
        mine = np.zeros(self._columns.state.shape[1], dtype=np.bool_)
        mine[self._mine] = True
        return mine
