"""Runs detectors over the readings of one device type in a batch: computed, then applied.

A device's readings are looked at one after the other, those of different devices together: the first of each, then
the second of each, and so on. So a batch costs as many rounds as its busiest device has readings in it.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from headrace.agents import expectation
from headrace.agents.detector import Detector, Moment, Verdict
from headrace.agents.expectation import DAY_FIELDS, FIELDS, TIME, WEEK_FIELDS, expect, hours
from headrace.agents.quiet import QUIET_FIELDS, Quiet
from headrace.schemas.readings import Floats, Ints, Readings
from headrace.tables.grouping import NEVER, Flags, group, measure_matrix, rounds
from headrace.tables.series import SeriesTable
from headrace.tables.series_columns import SeriesColumns

#: Values beyond count as this: their squares, and sums of those, must stay finite.
LARGEST = 1e30


class SeriesTables:
    """What is remembered of all series: what is usual for them, and what each detector notes.

    Args:
        detectors: with different names.
    """

    def __init__(self, detectors: Sequence[Detector]) -> None:
        self.usual = SeriesTable("detect.usual", FIELDS)
        self.day = SeriesTable("detect.day", DAY_FIELDS, expectation.HOURS_OF_DAY)
        self.week = SeriesTable("detect.week", WEEK_FIELDS, expectation.HOURS_OF_WEEK, np.float32)
        self.noted = [
            SeriesTable(f"detect.{each.name}", (*each.fields, *QUIET_FIELDS), version=each.version)
            for each in detectors
        ]

    @property
    def all(self) -> tuple[SeriesTable, ...]:
        """Every table."""
        return (self.usual, self.day, self.week, *self.noted)


class Found(NamedTuple):
    """One anomaly: place in the readings, metric, detector, score, and the numbers that made it."""

    place: int
    metric: str
    detector: Detector
    score: float
    value: float
    numbers: dict[str, float]


class SeriesFold:
    """The anomalies of the readings of one device type; `apply` makes the tables what they made of them.

    A reading older than its device's newest is not looked at.

    Args:
        tables: the state.
        partition: which.
        readings: not empty.
        detectors: those that `tables` were made for.
        counters: measures that only rise.
        quiet: see `headrace.agents.quiet`.
    """

    def __init__(
        self,
        tables: SeriesTables,
        partition: int,
        readings: Readings,
        detectors: Sequence[Detector],
        counters: frozenset[str],
        quiet: Quiet,
    ) -> None:
        self._detectors, self._quiet = detectors, quiet
        device_type = readings.device_type
        usual = tables.usual.of_type(partition, device_type)
        matrix = measure_matrix(readings.news(), len(readings), usual.measures)
        self._metrics = usual.measures.names
        numbers = usual.devices.numbers(readings.device_ids)
        every, self._writes = [usual], list[Callable[[], None]]()
        for table in tables.all[1:]:
            columns = table.of_type(partition, device_type)
            columns.measures.add(self._metrics)
            every.append(columns)
        usual.reserve()

        groups = group(numbers, readings.times, _clocks(usual, numbers))
        rows = np.flatnonzero(groups.times >= groups.before)
        self._places, self._rank = groups.order[rows], groups.rank[rows]
        self._times = groups.times[rows]
        self._values = np.clip(matrix[:, self._places].T, -LARGEST, LARGEST)
        #: (detectors, r, m) scores that were not muted.
        self.scores: Floats = np.zeros((len(detectors), *self._values.shape))
        self.found: list[Found] = []
        self._counters: Flags = np.array([name in counters for name in self._metrics], dtype=np.bool_)
        names = [readings.device_ids[place] for place in groups.order[groups.heads].tolist()]
        self._run(every, names)

    def apply(self) -> None:
        """For `Batch.on_finish`."""
        for write in self._writes:
            write()

    def places(self) -> Ints:
        """Place in the readings of each row of `scores`, (r,)."""
        return self._places

    def _run(self, every: Sequence[SeriesColumns], names: Sequence[str]) -> None:
        hour, week_hour = hours(self._times)
        usual, device = self._rows_of(every[0], names, np.zeros_like(hour))
        day, day_cell = self._rows_of(every[1], names, hour)
        week, week_cell = self._rows_of(every[2], names, week_hour)
        noted = [self._rows_of(columns, names, np.zeros_like(hour))[0] for columns in every[3:]]
        with np.errstate(all="ignore"):
            for at in rounds(self._rank):
                who = device[at]
                mine, mine_day, mine_week = usual[:, who], day[:, day_cell[at]], week[:, week_cell[at]]
                moment = expect(mine, mine_day, mine_week, self._times[at], self._values[at], self._counters)
                usual[:, who], day[:, day_cell[at]], week[:, week_cell[at]] = mine, mine_day, mine_week
                for number, (detector, notes) in enumerate(zip(self._detectors, noted, strict=True)):
                    mine = notes[:, who]
                    self._judge(number, detector, mine, moment, at)
                    notes[:, who] = mine

    def _rows_of(self, columns: SeriesColumns, names: Sequence[str], places: Ints) -> tuple[Floats, Ints]:
        """The rows that the readings touch, (width, c, m), and which of them each reading touches, (r,)."""
        span = int(places.max()) + 1 if len(places) else 1
        cells, which = np.unique(self._rank * span + places, return_inverse=True)
        rank, place = np.divmod(cells, span)
        devices = columns.devices.numbers(names)
        columns.reserve()
        rows = columns.read(devices[rank], place)
        self._writes.append(lambda: columns.write(devices[rank], place, rows))
        return rows, which

    def _judge(self, number: int, detector: Detector, state: Floats, moment: Moment, at: Ints) -> None:
        complete = bool(moment.present.all())
        kept = None if complete else state.copy()
        own, muted = state[: len(detector.fields)], state[len(detector.fields) :]
        verdict = detector.step(own, moment)
        score = self._quiet.pass_on(muted, verdict.score, detector.threshold, moment.times)
        if kept is not None:
            np.copyto(state, kept, where=~moment.present)
            score = np.where(moment.present, score, 0.0)
        self.scores[number, at] = score
        hit = score >= detector.threshold
        if hit.any():
            self._note(detector, verdict, moment, score, np.argwhere(hit), at)

    def _note(self, detector: Detector, verdict: Verdict, moment: Moment, score: Floats, hits: Ints, at: Ints) -> None:
        for row, measure in hits.tolist():
            numbers = {name: float(column[row, measure]) for name, column in verdict.numbers.items()}
            self.found.append(Found(
                int(self._places[at[row]]), self._metrics[measure], detector,
                float(score[row, measure]), float(moment.values[row, measure]), numbers,
            ))  # fmt: skip


def _clocks(usual: SeriesColumns, numbers: Ints) -> Ints:
    """Newest event time per device number, ms, for the devices in `numbers`."""
    clocks = np.full(len(usual.devices), NEVER)
    some = np.unique(numbers)
    newest = usual.read(some, np.zeros_like(some))[TIME].max(axis=1, initial=0.0).astype(np.int64)
    clocks[some] = np.where(newest > 0, newest, NEVER)
    return clocks
