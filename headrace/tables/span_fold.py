"""What a batch does to windows that are not on a grid: computed on copies, applied afterwards."""

from collections.abc import Mapping, Sequence

import numpy as np

from headrace.schemas.readings import Floats, Readings
from headrace.tables.aggregates import Aggregation, Cells
from headrace.tables.grouping import measure_matrix
from headrace.tables.span_table import DeviceSpans, SpanTable, TypeSpans
from headrace.tables.spans import CLOSED, CORRECTION, RETRACTION, Content, Emission, OffGrid, Reading, Spans
from headrace.tables.window_outputs import UPDATE, Late, Outputs, Watermarks


class SpanFold:
    """The readings of one device type in one batch, one after the other; and the devices that said nothing.

    Construction computes and leaves the table as it is; `apply` changes it.

    Args:
        table: whose parameters to use.
        device_type: of the readings.
        state: of the type.
        readings: the batch's readings of this type, or None.
        offsets: of the batch's rows.
        marks: the partition's watermark along the batch.
    """

    def __init__(
        self,
        table: SpanTable,
        device_type: str,
        state: TypeSpans,
        readings: Readings | None,
        offsets: Sequence[int],
        marks: Watermarks,
    ) -> None:
        self._table = table
        self._type = device_type
        self._state = state
        self._marks = marks
        self._made: dict[str, DeviceSpans] = {}
        self._emitted: list[tuple[str, Emission]] = []
        self.late: list[Late] = []
        if readings is not None:
            self._take(readings, offsets)
        self._last_mark = int(marks.after[-1])
        for device in sorted(state.due_at(self._last_mark) | self._made.keys()):
            self._pass_mark(device, self._device(device), self._last_mark)

    def _device(self, name: str) -> DeviceSpans:
        made = self._made.get(name)
        if made is None:
            known = self._state.devices.get(name)
            made = self._made[name] = known.copy() if known is not None else self._table.new_device()
        return made

    def _take(self, readings: Readings, offsets: Sequence[int]) -> None:
        rows = measure_matrix(readings.news(), len(readings), self._state.measures).T.tolist()
        before, after = self._marks.before[readings.rows].tolist(), self._marks.after[readings.rows].tolist()
        columns = zip(
            readings.rows.tolist(), readings.device_ids, readings.times.tolist(), rows, before, after, strict=True
        )
        for place, (row, name, time, values, mark, seen_at) in enumerate(columns):
            device = self._device(name)
            self._pass_mark(name, device, mark)
            completes = readings.repeats is not None and readings.repeats[place] is not None
            reading = Reading(row, offsets[row], time, values, completes, device.clock, mark)
            missed: list[tuple[OffGrid, int]] = []
            device.clock = max(device.clock, time)
            for spans in device.kinds:
                emitted, end = spans.take(reading)
                emitted += spans.pass_clock(row, device.clock)
                self._emitted += [(name, each) for each in emitted]
                if end is not None:
                    missed.append((spans.window, end))
            device.seen_at = seen_at
            if missed:
                limit = mark - self._table.rules.keep
                behind = max(reading.clock, limit) - missed[0][1] - self._table.rules.grace
                late = [window for window, _ in missed]
                self.late.append(Late(row, place, [*late], behind, reading.clock >= limit))

    def _pass_mark(self, name: str, device: DeviceSpans, mark: int) -> None:
        for spans in device.kinds:
            self._emitted += [(name, each) for each in spans.pass_mark(mark, device.seen_at, self._marks.after)]

    def outputs(self) -> list[Outputs]:
        """What is to be sent."""
        by_kind = {kind: [e for e in self._emitted if e[1].kind == kind] for kind in (CLOSED, CORRECTION, RETRACTION)}
        return [_outputs(self._table, self._type, self._state, kind, e) for kind, e in by_kind.items() if e]

    def apply(self) -> None:
        """Make the windows what the batch made of them."""
        self._state.looked_at(self._last_mark)
        for name, device in self._made.items():
            self._state.replace(name, device)


def changed_outputs(table: SpanTable, types: Mapping[str, TypeSpans]) -> list[Outputs]:
    """The open windows that changed since the last call."""
    found = []
    for device_type, state in types.items():
        emitted = []
        for device, place, key in sorted(state.changed):
            known = state.devices.get(device)
            entry = known.kinds[place].entries.get(key) if known is not None else None
            if known is not None and entry is not None and _is_growing(known.kinds[place], entry.is_open):
                emitted.append((device, known.kinds[place].emission(0, UPDATE, entry)))
        state.changed.clear()
        if emitted:
            found.append(_outputs(table, device_type, state, UPDATE, emitted))
    return found


def _is_growing(spans: Spans, is_open: bool) -> bool:
    return is_open or not spans.closes_by_time


def _outputs(
    table: SpanTable, device_type: str, state: TypeSpans, kind: str, emitted: Sequence[tuple[str, Emission]]
) -> Outputs:
    measures = len(state.measures)
    emissions = [emission for _, emission in emitted]
    return Outputs(
        device_type,
        table.aggregation,
        state.measures.by_name(),
        np.array([e.row for e in emissions]),
        [e.window for e in emissions],
        np.array([e.start for e in emissions]),
        np.array([e.end for e in emissions]),
        [device for device, _ in emitted],
        np.array([e.revision for e in emissions]),
        _cells([e.content for e in emissions], measures, table.aggregation),
        _cells([e.previous for e in emissions], measures, table.aggregation),
        kind,
    )


def _cells(contents: Sequence[Content], measures: int, aggregation: Aggregation) -> Cells:
    """Cells of windows that may know fewer measures."""
    cells = Cells.empty(len(contents), measures, aggregation)
    for place, content in enumerate(contents):
        if content.values:
            values: Floats = np.array(content.values)
            cells.values[place, : len(values)], cells.sketches[place, : len(values)] = values, content.sketches
    return cells
