"""Runs detectors over readings of one device type, of one partition or several: computed, then applied.

A device's readings are looked at one after the other, those of different devices together: the first of each, then
the second of each, and so on. So it takes as many rounds as the busiest device has readings.
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


class SeriesPart:
    """The readings of one device type in a batch of one partition, and what is remembered of their devices.

    A reading older than its device's newest is not looked at.

    Args:
        tables: the state.
        partition: which.
        readings: not empty, with measures.
    """

    def __init__(self, tables: SeriesTables, partition: int, readings: Readings) -> None:
        self.readings = readings
        self._columns = [table.of_type(partition, readings.device_type) for table in tables.all]
        usual = self._columns[0]
        matrix = measure_matrix(readings.news(), len(readings), usual.measures)
        #: Names of the measures that the device type has in this partition, in the order of the columns.
        self.metrics = tuple(usual.measures.names)
        for columns in self._columns[1:]:
            columns.measures.add(self.metrics)
        numbers = usual.devices.numbers(readings.device_ids)
        usual.reserve()
        groups = group(numbers, readings.times, _clocks(usual, numbers))
        rows = np.flatnonzero(groups.times >= groups.before)
        #: Of the r readings looked at: place in `readings`, which device, ascending, event time, (r, m) values.
        self.places, self.rank, self.times = groups.order[rows], groups.rank[rows], groups.times[rows]
        self.values = np.clip(matrix[:, self.places].T, -LARGEST, LARGEST)
        self._names = [readings.device_ids[place] for place in groups.order[groups.heads].tolist()]
        self.devices = len(self._names)
        self.found: list[Found] = []
        self._writes: list[Callable[[], None]] = []

    def apply(self) -> None:
        """For `Batch.on_finish`: make the tables what a `SeriesFold` made of them."""
        for write in self._writes:
            write()

    def cells(self, table: int, places: Ints) -> "_Cells":
        """The rows of a table that the readings touch.

        Args:
            table: which of `SeriesTables.all`.
            places: (r,) of the rows, see `SeriesColumns`.
        """
        span = int(places.max()) + 1 if len(places) else 1
        cells, which = np.unique(self.rank * span + places, return_inverse=True)
        rank, place = np.divmod(cells, span)
        columns = self._columns[table]
        devices = columns.devices.numbers(self._names)[rank]
        columns.reserve()
        self._writes.append(lambda: columns.write(devices, place, touched.rows))
        touched = _Cells(columns.read(devices, place), which)
        return touched


class _Cells:
    """Rows of a table, (width, c, m), and which of them each of r readings touches, (r,)."""

    def __init__(self, rows: Floats, which: Ints) -> None:
        self.rows = rows
        self.which = which


class SeriesFold:
    """Judges the readings of some partitions, and learns from them.

    What becomes of one does not depend on which others come with it.

    Args:
        parts: of one device type, with the same metrics; each gets its anomalies as `found`.
        detectors: those that the tables were made for.
        counters: measures that only rise.
        quiet: see `headrace.agents.quiet`.
    """

    def __init__(
        self, parts: Sequence[SeriesPart], detectors: Sequence[Detector], counters: frozenset[str], quiet: Quiet
    ) -> None:
        self._parts, self._detectors, self._quiet = parts, detectors, quiet
        self._metrics = parts[0].metrics
        self._ends = np.cumsum([len(part.times) for part in parts])
        first = np.cumsum([0, *(part.devices for part in parts)])
        self._rank = np.concatenate([part.rank + start for part, start in zip(parts, first[:-1], strict=True)])
        self._times = np.concatenate([part.times for part in parts])
        self._values = np.concatenate([part.values for part in parts])
        #: (detectors, r, m) scores that were not muted, of the readings of all parts that are looked at.
        self.scores: Floats = np.zeros((len(detectors), *self._values.shape))
        self._counters: Flags = np.array([name in counters for name in self._metrics], dtype=np.bool_)
        self._run()

    def _run(self) -> None:
        hour, week_hour = hours(self._times)
        nowhere = np.zeros_like(hour)
        usual, device = self._rows_of(0, nowhere)
        day, day_cell = self._rows_of(1, hour)
        week, week_cell = self._rows_of(2, week_hour)
        noted = [self._rows_of(3 + number, nowhere)[0] for number in range(len(self._detectors))]
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

    def _rows_of(self, table: int, places: Ints) -> tuple[Floats, Ints]:
        """The rows that the readings touch, (width, c, m), and which of them each reading touches, (r,)."""
        cells = [part.cells(table, own) for part, own in zip(self._parts, self._split(places), strict=True)]
        rows = np.concatenate([each.rows for each in cells], axis=1)
        ends = np.cumsum([each.rows.shape[1] for each in cells])
        starts = ends - [each.rows.shape[1] for each in cells]
        for each, start, end in zip(cells, starts, ends, strict=True):
            each.rows = rows[:, start:end]
        return rows, np.concatenate([each.which + start for each, start in zip(cells, starts, strict=True)])

    def _split(self, column: Ints) -> list[Ints]:
        return np.split(column, self._ends[:-1])

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
            number = int(np.searchsorted(self._ends, at[row], side="right"))
            part, start = self._parts[number], self._ends[number - 1] if number else 0
            part.found.append(Found(
                int(part.places[at[row] - start]), self._metrics[measure], detector,
                float(score[row, measure]), float(moment.values[row, measure]), numbers,
            ))  # fmt: skip


def _clocks(usual: SeriesColumns, numbers: Ints) -> Ints:
    """Newest event time per device number, ms, for the devices in `numbers`."""
    clocks = np.full(len(usual.devices), NEVER)
    some = np.unique(numbers)
    newest = usual.read(some, np.zeros_like(some))[TIME].max(axis=1, initial=0.0).astype(np.int64)
    clocks[some] = np.where(newest > 0, newest, NEVER)
    return clocks
