"""Devices that are late: silent for longer than several of their own intervals."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from headrace.agents import usual_interval
from headrace.agents.anomalies import Found, duration, send_anomalies
from headrace.agents.detector import check
from headrace.agents.usual_interval import (
    ARRIVAL,
    ARRIVED,
    GAPS,
    INTERVAL,
    LONG_GAP,
    MEMORY,
    TIME,
    TOGETHER,
    hear,
    usual,
)
from headrace.engine.batch import Batch
from headrace.schemas import topics
from headrace.schemas.readings import Floats, Ints, Readings
from headrace.tables.grouping import Flags, rounds
from headrace.tables.series import SeriesTable
from headrace.tables.series_columns import SeriesColumns

FIELDS = (*usual_interval.FIELDS, "reported")
REPORTED = len(usual_interval.FIELDS)
#: Stands for all devices of a type; no device has this name.
EVERYONE = ""
#: So many devices of a type in a partition make a pause of all of them an outage, and no silence of theirs.
CROWD = 4


class Cadence:
    """Emit an anomaly when nothing has come from a device for `times` its own interval; once per silence.

    The interval is learned per device: the time between its readings, or between their arrivals where many come
    at once. Silence is measured in append time, up to the newest record: a device with a wrong clock, or with a
    backlog, is judged by when it spoke. After a pause of all devices of a type in a partition, as after an outage of
    the broker or of headrace, everyone's silence begins anew; while headrace runs and nothing comes, time moves on.

    Events have the metric "cadence", the time of the device's last reading, and the message id of the record that
    showed how late it is; none if time did. The same log gives the same events for any batch boundaries and restarts,
    but for those of idle time, which is not in the log and begins anew with a restart. O(1) per reading, and per batch
    a glance at every device; 60 bytes per device.

    Args:
        times: intervals that a device may be silent; >= 2.
        least: silence that is never an anomaly, seconds; >= 0.
        warm_up: arrivals, not counting what comes together, before a device is judged, count; >= 3.
        idle_timeout: time moves on after so long without a record, seconds; None for never.
    Raises:
        ConfigError: a bound above is broken.
    """

    name = "cadence"
    topic = topics.READINGS

    def __init__(
        self, times: float = 5.0, least: float = 60.0, warm_up: int = 10, *, idle_timeout: float | None = 60.0
    ) -> None:
        check(self.name, times=(times, 2.0, True), least=(least, 0.0, True), warm_up=(warm_up, 3, True))
        self._rule = _Rule(times, least * 1000, warm_up)
        self.idle_timeout = idle_timeout
        self._table = SeriesTable("cadence", FIELDS)
        self.tables = (self._table,)
        #: How far idle time has moved partitions on, ms of append time.
        self._idle: dict[int, float] = {}

    def is_waiting(self, partition: int) -> bool:
        """See `headrace.engine.operator.Idling`: whether a device may still turn out to be late."""
        for columns in self._table.types(partition).values():
            awaited = self._rule.awaited(_states(columns))
            awaited[columns.devices.number(EVERYONE)] = False
            if awaited.any():
                return True
        return False

    def process(self, batch: Batch) -> None:
        """Stage what `find` finds."""
        send_anomalies(batch, self.find(batch))

    def find(self, batch: Batch) -> list[Found]:
        """Learn from the batch; an anomaly for every device that was late during it."""
        types, before = self._table.types(batch.partition), self._idle.get(batch.partition, 0.0)
        clock = max([before, *map(_newest, types.values())])
        if batch.idle is not None:
            stamps = [clock + batch.idle.elapsed_ms]
        else:
            stamps = [float(stamp) for stamp in batch.records.timestamps]
        running = np.maximum.accumulate(np.maximum(np.array(stamps), clock))
        if not len(running):
            return []
        by_type = {readings.device_type: readings for readings in batch.columns()}
        found: list[Found] = []
        for device_type in dict.fromkeys([*by_type, *types]):
            columns = self._table.of_type(batch.partition, device_type)
            fold = _Fold(self._rule, columns, device_type, by_type.get(device_type), running)
            batch.on_finish(fold.apply)
            found += fold.found
        found.sort(key=lambda each: (each[0], each[1]["device_type"], each[1]["device_id"]))
        if batch.idle is not None:
            batch.on_finish(lambda: self._idle.__setitem__(batch.partition, float(running[-1])))
        return found


class _Rule(NamedTuple):
    """Who is late; times in ms."""

    times: float
    least: float
    warm_up: int

    def limit(self, state: Floats) -> Floats:
        """How long devices may be silent, (k,); `state` is (fields, k)."""
        limit: Floats = np.maximum(self.times * usual(state), self.least)
        return limit

    def limit_of(self, state: Sequence[float]) -> float:
        """`limit` of one device: numpy takes thirty times as long for one number."""
        return max(self.times * max(state[INTERVAL], state[ARRIVAL]), self.least)

    def awaits(self, state: Sequence[float]) -> bool:
        """`awaited` of one device."""
        return state[GAPS] >= self.warm_up and state[REPORTED] == 0

    def awaited(self, state: Floats) -> Flags:
        """Which devices would be reported if they were late."""
        awaited: Flags = (state[GAPS] >= self.warm_up) & (state[REPORTED] == 0)
        return awaited


class _Fold:
    """What a batch does to the devices of one type: computed, then applied.

    Device 0, with an empty name, stands for all of them: what comes from anyone comes from it.

    Args:
        rule: who is late.
        columns: the state.
        device_type: name.
        readings: of the batch; None if there are none.
        running: (n,) append time reached in each row of the batch, ms; ascending.
    """

    def __init__(
        self, rule: _Rule, columns: SeriesColumns, device_type: str, readings: Readings | None, running: Floats
    ) -> None:
        self._rule, self._columns, self._device_type = rule, columns, device_type
        self._readings, self._running = readings, running
        self.found: list[Found] = []
        columns.measures.add(["cadence"])
        everyone = columns.devices.numbers([EVERYONE])
        numbers = columns.devices.numbers(readings.device_ids if readings is not None else [])
        self._state = _states(columns)
        self._changed = np.zeros(self._state.shape[1], dtype=np.bool_)
        first = 0
        if readings is not None:
            for place, pause in self._pauses(int(everyone[0]), readings.rows):
                self._take(numbers, slice(first, place))
                if pause and np.count_nonzero(self._state[ARRIVED]) > CROWD:
                    self._report_all(int(readings.rows[place]) - 1)
                    self._state[ARRIVED] = np.maximum(self._state[ARRIVED], running[readings.rows[place]])
                    self._changed[:] = True
                first = place
        self._report_all(len(running) - 1)

    def apply(self) -> None:
        """For `Batch.on_finish`."""
        devices = np.flatnonzero(self._changed)
        if len(devices):
            self._columns.write(devices, np.zeros_like(devices), self._state[:, devices, np.newaxis])

    def _pauses(self, everyone: int, rows: Ints) -> list[tuple[int, bool]]:
        """Places of the readings before which all had paused, and the end."""
        state = self._state[:, everyone].tolist()
        found = []
        arrivals = self._running[rows]
        for place in np.flatnonzero(np.diff(arrivals, prepend=state[ARRIVED]) > 0).tolist():
            arrived = float(arrivals[place])
            if arrived - state[ARRIVED] > self._rule.limit_of(state) and self._rule.awaits(state):
                found.append((place, True))
            _hear_of(state, arrived)
        self._state[:, everyone] = state
        self._changed[everyone] = True
        return [*found, (len(rows), False)]

    def _take(self, numbers: Ints, part: slice) -> None:
        """Some readings, in log order."""
        assert self._readings is not None
        order = np.argsort(numbers[part], kind="stable") + part.start
        for places in rounds(numbers[order]):
            at = order[places]
            devices, rows = numbers[at], self._readings.rows[at]
            self._report(devices, rows)
            state = self._state[:, devices]
            hear(state, self._running[rows], self._readings.times[at].astype(np.float64))
            state[REPORTED] = 0.0
            self._state[:, devices] = state
            self._changed[devices] = True

    def _report_all(self, until: int) -> None:
        devices = np.flatnonzero(self._rule.awaited(self._state))
        devices = devices[devices != self._columns.devices.number(EVERYONE)]
        self._report(devices, np.full(len(devices), until))

    def _report(self, devices: Ints, until: Ints) -> None:
        """Report those of the devices that are late in some row up to `until`, (k,)."""
        state = self._state[:, devices]
        # Later than the deadline, not at it: a device is in time to the millisecond.
        rows = np.searchsorted(self._running, state[ARRIVED] + self._rule.limit(state), side="right")
        for place in np.flatnonzero(self._rule.awaited(state) & (rows <= until)).tolist():
            device = int(devices[place])
            self.found.append((int(rows[place]), self._document(device, int(rows[place]))))
            self._state[REPORTED, device] = 1.0
            self._changed[device] = True

    def _document(self, device: int, row: int) -> dict[str, Any]:
        state = self._state[:, device]
        silent, interval = float(self._running[row] - state[ARRIVED]), float(usual(state))
        device_id = self._columns.devices.names[device]
        limit = float(self._rule.limit(state[:, np.newaxis])[0])
        return {
            "device_id": device_id,
            "device_type": self._device_type,
            "time": int(state[TIME]),
            "metric": "cadence",
            "value": silent / 1000,
            "expected": interval / 1000,
            "score": silent / limit,
            "probability": None,
            "detector": Cadence.name,
            "numbers": {"limit": limit / 1000, "gaps": float(state[GAPS])},
            "message_id": self._message_id(row),
            "text": f"{device_id} is silent for {duration(silent / 1000)}; usual are {duration(interval / 1000)}",
        }

    def _message_id(self, row: int) -> str | None:
        if self._readings is None:
            return None
        place = int(np.searchsorted(self._readings.rows, row))
        found = place < len(self._readings.rows) and self._readings.rows[place] == row
        return self._readings.message_ids[place] if found else None


def _hear_of(state: list[float], arrived: float) -> None:
    """`hear` of one device, in place, whose event time stays as it is."""
    before, apart = state[ARRIVAL], arrived - state[ARRIVED]
    if state[ARRIVED] > 0 and apart >= TOGETHER * max(state[INTERVAL], before):
        if before > 0:
            state[ARRIVAL] = before + (min(apart, LONG_GAP * before) - before) / min(max(state[GAPS] + 1, 1.0), MEMORY)
        else:
            state[ARRIVAL] = apart
        state[GAPS] += 1
    state[ARRIVED], state[REPORTED] = arrived, 0.0


def _newest(columns: SeriesColumns) -> float:
    """Append time of the newest reading, ms."""
    everyone = columns.devices.number(EVERYONE)
    if everyone is None:
        return 0.0
    return float(columns.read(np.array([everyone]), np.zeros(1, dtype=np.int64))[ARRIVED, 0, 0])


def _states(columns: SeriesColumns) -> Floats:
    """A copy of what is known of all devices, (fields, d)."""
    columns.reserve()
    everybody = np.arange(len(columns.devices))
    states = columns.read(everybody, np.zeros_like(everybody))
    return states[:, :, 0] if states.shape[2] else np.zeros((len(FIELDS), len(everybody)))
