"""Event-time rollups: aggregates per device and window."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import repeat
from typing import Literal

import numpy as np
import orjson

from headrace.agents.rollup_documents import rollup_documents
from headrace.engine.batch import Batch, Send
from headrace.engine.errors import ConfigError
from headrace.engine.records import Records
from headrace.schemas import topics
from headrace.schemas.readings import Ints, Readings
from headrace.schemas.window import LONGEST_MS, Hopping, Tumbling, Window, parse_window, sort_size
from headrace.tables.aggregates import Aggregation
from headrace.tables.grid_fold import GridFold
from headrace.tables.grouping import NEVER
from headrace.tables.span_fold import SpanFold, changed_outputs
from headrace.tables.span_table import SpanTable, TypeSpans
from headrace.tables.window_outputs import RETRACTION, UPDATE, Late, Outputs, Silence, Watermarks, outputs_of_slots
from headrace.tables.windows import WindowTable

MINUTE = 60
HOUR = 3600
DAY = 86400

#: When a window is sent: once it is closed, with every commit while it is open, or both.
Emit = Literal["close", "update", "both"]


class Rollup:
    """Aggregates every device's readings in event-time windows, and emits each window when it closes.

    A window [start, end) closes when the device's own clock (its largest event time) reaches `end`. For a silent device
    it closes when the partition's watermark (largest event time of all devices) has passed `end`, and the watermark
    at the device's last reading, by `grace`: whoever is uploading a backlog is not silent, however far others went on.
    From then on each reading for the window emits a correction, until the device's own clock reaches
    `end` + `grace`, or the window is `keep` further behind the watermark; later ones go to `telemetry.late`.

    While a partition gets nothing for `idle_timeout`, its watermark moves on with the time that passes, so that windows
    of a fleet that went silent close as well.

    The same log gives the same records, byte for byte and in the same order, for any batch boundaries and restarts;
    but for updates, which follow the commits, and for what silence of the whole partition closed.
    Records have the append time of the record that caused them; they are sorted by its offset, then window size, kind,
    start and device.

    Args:
        windows: which, as settings write them (see `headrace.schemas.window.parse_window`), or objects of that module.
        grace: how long a closed window takes late readings, by the device's own clock, seconds; > 0.
        keep: how far behind the watermark the windows of a silent device are kept, seconds; >= 0.
        cadences: seconds between two readings of a device, by device type. Shorter windows would hold one reading
            each; they are skipped.
        aggregation: what is kept of each measure.
        emit: what is sent: windows that closed, and their corrections; open ones that changed, with every commit; both.
        idle_timeout: see above, seconds; None for never.
    Raises:
        ConfigError: a bound above is broken.
    """

    name = "rollup"
    topic = topics.READINGS

    def __init__(
        self,
        windows: Iterable[str | Window] = ("1m", "1h"),
        grace: float = 5 * MINUTE,
        *,
        keep: float = DAY,
        cadences: Mapping[str, float] | None = None,
        aggregation: Aggregation | None = None,
        emit: Emit = "close",
        idle_timeout: float | None = MINUTE,
    ) -> None:
        kinds, mistakes = _parsed(windows)
        if not 1 <= grace * 1000 <= LONGEST_MS:
            mistakes.append(f"rollup: grace must be positive and at most a year, not {grace} s")
        if not 0 <= keep * 1000 <= LONGEST_MS:
            mistakes.append(f"rollup: keep must be 0 to a year, not {keep} s")
        if idle_timeout is not None and not idle_timeout > 0:
            mistakes.append(f"rollup: idle_timeout must be positive, not {idle_timeout} s")
        if mistakes:
            raise ConfigError(*mistakes)
        aggregation = aggregation or Aggregation()
        on_grid = [each for each in kinds if isinstance(each, Tumbling | Hopping)]
        self._table = WindowTable("rollup.windows", on_grid, aggregation, grace, keep, cadences or {})
        off_grid = [each for each in kinds if not isinstance(each, Tumbling | Hopping)]
        self._spans = SpanTable("rollup.spans", off_grid, aggregation, grace, keep)
        self.tables = (self._table, self._spans) if off_grid else (self._table,)
        self.idle_timeout = idle_timeout
        self._emit = emit
        #: Readings that missed a window, since this object was made.
        self.late_count = 0

    def watermark(self) -> int | None:
        """The largest event time in the partition that is furthest behind, ms since 1970 UTC; None before any."""
        return min(self._table.watermarks().values(), default=None)

    def watermark_of(self, partition: int) -> int | None:
        """The largest event time in a partition, ms since 1970 UTC; None before any."""
        return self._table.watermarks().get(partition)

    def is_waiting(self, partition: int) -> bool:
        """See `headrace.engine.operator.Idling`: whether a window is open."""
        return self._table.partition(partition).is_open() or self._spans.is_open(partition)

    def process(self, batch: Batch) -> None:
        """Fold the batch into its windows and stage what closed, what was corrected and what was late."""
        state = self._table.partition(batch.partition)
        marks = self._marks(batch, state.watermark)
        if marks is None:
            return
        outputs: list[Outputs] = []
        late: list[tuple[Late, Readings]] = []
        steps: list[GridFold | Silence | SpanFold] = []
        present: dict[str, Ints] = {}
        for readings in batch.columns():
            windows = state.of_type(readings.device_type)
            if windows is not None:
                fold = GridFold(windows, readings, marks)
                present[readings.device_type] = fold.devices
                steps.append(fold)
                outputs += fold.outputs
                late += [(missed, readings) for missed in fold.late()]
        nobody = np.zeros(0, dtype=np.int64)
        for device_type, windows in state.types.items():
            silence = Silence(windows, device_type, marks, present.get(device_type, nobody))
            steps.append(silence)
            outputs.append(silence.outputs)
        for spans, of_type in self._span_folds(batch, marks):
            steps.append(spans)
            outputs += spans.outputs()
            late += [(missed, of_type) for missed in spans.late if of_type is not None]

        late = _joined(late)
        if self._emit == "update":
            outputs = [each if each.kind == RETRACTION else replace(each, kind=UPDATE) for each in outputs]
        stamps = [batch.idle.now_ms] if batch.idle else batch.records.timestamps
        rows = [(o.row, r.device_ids[o.place], _late(o, r)) for o, r in late]
        for topic, documents in ((topics.ROLLUPS, _documents(outputs)), (topics.LATE, rows)):
            batch.send_records(topic, _records(documents, stamps), partition=batch.partition)

        def apply() -> None:
            for step in steps:
                step.apply()
            state.watermark = int(marks.after[-1])
            self._spans.sweep(batch.partition, state.watermark)
            state.appended_at = stamps[-1]
            self.late_count += len(late)

        batch.on_finish(apply)

    def _span_folds(self, batch: Batch, marks: Watermarks) -> Iterator[tuple[SpanFold, Readings | None]]:
        """What the batch does to windows that are not on a grid, type by type."""
        if not self._spans.windows:
            return
        types = self._spans.types(batch.partition)
        by_type = {readings.device_type: readings for readings in batch.columns()}
        offsets = [batch.offset(row) for row in range(len(batch))]
        for device_type in dict.fromkeys([*by_type, *types]):
            state, readings = types.setdefault(device_type, TypeSpans()), by_type.get(device_type)
            yield SpanFold(self._spans, device_type, state, readings, offsets, marks), readings

    @staticmethod
    def _marks(batch: Batch, watermark: int) -> Watermarks | None:
        """The watermark along the batch; None if nothing can come of it. An idle one has one row, without a reading."""
        if batch.idle is not None:
            return None if watermark == NEVER else Watermarks.move(watermark, batch.idle.elapsed_ms)
        return Watermarks.follow(watermark, _times(batch.columns(), len(batch))) if len(batch) else None

    def view(self, partition: int) -> list[Send]:
        """See `headrace.engine.operator.Viewed`: the open windows that changed."""
        if self._emit == "close":
            return []
        state = self._table.partition(partition)
        outputs = [outputs_of_slots(*each, UPDATE) for each in state.take_changed()]
        outputs += changed_outputs(self._spans, self._spans.types(partition))
        documents = _documents(outputs)
        return [Send(topics.ROLLUPS, _records(documents, [state.appended_at]), partition)] if documents else []


def _parsed(windows: Iterable[str | Window]) -> tuple[list[Window], list[str]]:
    """The kinds of windows, and what is wrong with them."""
    kinds, mistakes = list[Window](), list[str]()
    for each in windows:
        try:
            kinds.append(each if isinstance(each, Window) else parse_window(str(each)))
        except ValueError as error:
            mistakes.append(f"rollup: {error}")
    if not kinds and not mistakes:
        mistakes.append("rollup: needs at least one kind of window")
    return kinds, mistakes


def _times(columns: Sequence[Readings], rows: int) -> Ints:
    """Event time per row of the batch, (rows,), ms."""
    if len(columns) == 1 and len(columns[0]) == rows:
        return columns[0].times
    times = np.full(rows, NEVER)
    for readings in columns:
        times[readings.rows] = readings.times
    return times


def _joined(late: Iterable[tuple[Late, Readings]]) -> list[tuple[Late, Readings]]:
    """In log order, one for each reading."""
    by_row: dict[int, tuple[Late, Readings]] = {}
    for missed, readings in late:
        first = by_row.get(missed.row)
        windows = [*(first[0].windows if first else ()), *missed.windows]
        by_row[missed.row] = (first[0] if first else missed)._replace(windows=windows), readings
    return [by_row[row] for row in sorted(by_row)]


#: Row of the batch, device and document.
_Row = tuple[int, str, bytes]


def _documents(outputs: Iterable[Outputs]) -> list[_Row]:
    """One per window, in the order in which they are sent."""
    records: list[tuple[int, int, str, int, str, str, int, bytes]] = []
    for windows in outputs:
        if len(windows):
            records += zip(
                windows.rows.tolist(),
                map(sort_size, windows.windows),
                map(str, windows.windows),
                windows.starts.tolist(),
                windows.device_ids,
                repeat(windows.device_type),
                windows.revisions.tolist(),
                rollup_documents(windows),
                strict=False,
            )
    return [(row, device_id, document) for row, _, _, _, device_id, _, _, document in sorted(records)]


def _records(documents: Sequence[_Row], stamps: Sequence[int]) -> Records:
    return Records(
        [device_id.encode() for _, device_id, _ in documents],
        [document for _, _, document in documents],
        [stamps[row] for row, _, _ in documents],
    )


def _late(late: Late, readings: Readings) -> bytes:
    limit = "the device's own clock was past its grace" if late.by_own_clock else "it is too far behind other devices"
    return orjson.dumps(
        {
            "message_id": readings.message_ids[late.place],
            "device_id": readings.device_ids[late.place],
            "device_type": readings.device_type,
            "time": int(readings.times[late.place]),
            "measures": readings.measures_of(late.place),
            "missed_windows": [str(window) for window in late.windows],
            "behind_ms": late.behind,
            "reason": f"the window takes no more readings: {limit}, by {late.behind / 1000:g} s",
        }
    )
