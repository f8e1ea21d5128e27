"""Event-time rollups: count, sum, average, min, max, first and last per device and tumbling window."""

from collections.abc import Mapping, Sequence
from itertools import repeat

import numpy as np
import orjson

from headrace.agents.rollup_documents import rollup_documents, seconds
from headrace.engine.batch import Batch
from headrace.engine.errors import ConfigError
from headrace.engine.records import Records
from headrace.schemas import topics
from headrace.schemas.readings import Ints, Readings
from headrace.tables.grouping import NEVER
from headrace.tables.tumbling import TumblingFold
from headrace.tables.window_outputs import Late, Outputs, Silence, Watermarks
from headrace.tables.windows import WindowTable

MINUTE = 60
HOUR = 3600
DAY = 86400


class Rollup:
    """Aggregates every device's readings in tumbling windows, and emits each window when it closes.

    A window [start, end) closes when the device's own clock (its largest event time) reaches `end`. For a silent device
    it closes when the partition's watermark (largest event time of all devices) has passed `end`, and the watermark
    at the device's last reading, by `grace`: whoever is uploading a backlog is not silent, however far others went on.
    From then on each reading for the window emits a correction, until the device's own clock reaches
    `end` + `grace`, or the window is `keep` further behind the watermark; later ones go to `telemetry.late`.

    The same log gives the same records, byte for byte and in the same order, for any batch boundaries and restarts.
    Records have the append time of the record that caused them; they are sorted by its offset, then window size, start
    and device.

    Args:
        sizes: window lengths, seconds, a whole number of milliseconds; windows begin at multiples since 1970 UTC.
        grace: how long a closed window takes late readings, by the device's own clock, seconds; > 0.
        keep: how far behind the watermark the windows of a silent device are kept, seconds; >= 0.
        cadences: seconds between two readings of a device, by device type. Shorter windows would hold one reading
            each; they are skipped.
    Raises:
        ConfigError: a bound above is broken.
    """

    name = "rollup"
    topic = topics.READINGS

    def __init__(
        self,
        sizes: Sequence[float] = (MINUTE, HOUR),
        grace: float = 5 * MINUTE,
        *,
        keep: float = DAY,
        cadences: Mapping[str, float] | None = None,
    ) -> None:
        mistakes = [f"rollup: a window of {size} s is too short" for size in sizes if not size * 1000 >= 1]
        if not sizes:
            mistakes.append("rollup: needs at least one window size")
        if not grace * 1000 >= 1:
            mistakes.append(f"rollup: grace must be positive, not {grace} s")
        if not keep >= 0:
            mistakes.append(f"rollup: keep must not be negative, as {keep} s is")
        if mistakes:
            raise ConfigError(*mistakes)
        self._table = WindowTable("rollup.windows", sizes, grace, keep, cadences or {})
        self.tables = (self._table,)
        #: Readings that missed a window, since this object was made.
        self.late_count = 0

    def watermark(self) -> int | None:
        """The largest event time in the partition that is furthest behind, ms since 1970 UTC; None before any."""
        return min(self._table.watermarks().values(), default=None)

    def watermark_of(self, partition: int) -> int | None:
        """The largest event time in a partition, ms since 1970 UTC; None before any."""
        return self._table.watermarks().get(partition)

    def process(self, batch: Batch) -> None:
        """Fold the batch into its windows and stage what closed, what was corrected and what was late."""
        columns = batch.columns()
        if not len(batch):
            return
        state = self._table.partition(batch.partition)
        marks = Watermarks.follow(state.watermark, _times(columns, len(batch)))
        outputs: list[Outputs] = []
        late: list[tuple[Late, Readings]] = []
        steps: list[TumblingFold | Silence] = []
        present: dict[str, Ints] = {}
        for readings in columns:
            windows = state.of_type(readings.device_type)
            if windows is not None:
                fold = TumblingFold(windows, readings, marks)
                present[readings.device_type] = fold.devices
                steps.append(fold)
                outputs += fold.outputs
                late += [(missed, readings) for missed in fold.late()]
        nobody = np.zeros(0, dtype=np.int64)
        for device_type, windows in state.types.items():
            silence = Silence(windows, device_type, marks, present.get(device_type, nobody))
            steps.append(silence)
            outputs.append(silence.outputs)

        late.sort(key=lambda pair: pair[0].row)
        self._send(batch, topics.ROLLUPS, _records(outputs))
        self._send(batch, topics.LATE, [(o.row, r.device_ids[o.place], _late(o, r)) for o, r in late])

        def apply() -> None:
            for step in steps:
                step.apply()
            state.watermark = int(marks.after[-1])
            self.late_count += len(late)

        batch.on_finish(apply)

    @staticmethod
    def _send(batch: Batch, topic: str, documents: list[tuple[int, str, bytes]]) -> None:
        stamps = batch.records.timestamps
        batch.send_records(
            topic,
            Records(
                [device_id.encode() for _, device_id, _ in documents],
                [document for _, _, document in documents],
                [stamps[row] for row, _, _ in documents],
            ),
            partition=batch.partition,
        )


def _times(columns: Sequence[Readings], rows: int) -> Ints:
    """Event time per row of the batch, (rows,), ms."""
    if len(columns) == 1 and len(columns[0]) == rows:
        return columns[0].times
    times = np.full(rows, NEVER)
    for readings in columns:
        times[readings.rows] = readings.times
    return times


def _records(outputs: Sequence[Outputs]) -> list[tuple[int, str, bytes]]:
    """Row of the batch, device and document of every window, in the order in which they are sent."""
    records: list[tuple[int, int, int, str, str, bytes]] = []
    for windows in outputs:
        if len(windows):
            records += zip(
                windows.rows.tolist(),
                windows.sizes.tolist(),
                windows.starts.tolist(),
                windows.device_ids,
                repeat(windows.device_type),
                rollup_documents(windows),
                strict=False,
            )
    return [(row, device_id, document) for row, _, _, device_id, _, document in sorted(records)]


def _late(late: Late, readings: Readings) -> bytes:
    limit = "the device's own clock was past its grace" if late.by_own_clock else "it is too far behind other devices"
    return orjson.dumps(
        {
            "message_id": readings.message_ids[late.place],
            "device_id": readings.device_ids[late.place],
            "device_type": readings.device_type,
            "time": int(readings.times[late.place]),
            "measures": readings.measures_of(late.place),
            "missed_window_seconds": [seconds(size) for size in late.sizes],
            "behind_ms": late.behind,
            "reason": f"the window takes no more readings: {limit}, by {late.behind / 1000:g} s",
        }
    )
