"""Windows that lie where the readings do, not on a grid: what sessions, sliding and count windows share, per device.

They go reading by reading, in log order. A batch works on copies (`Spans.copy`); entries are never changed in place.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

from headrace.schemas.readings import Ints
from headrace.schemas.window import Count, Session, Sliding
from headrace.tables.aggregates import Aggregation, Cells, Lists, fold_one, sketch_one

#: Kinds of windows that are not on a grid.
OffGrid = Session | Sliding | Count

CLOSED, CORRECTION, RETRACTION = "closed", "correction", "retraction"
#: Revision of a window of which nothing was sent.
UNSENT = -1

#: What tells the entries of a device and a kind apart.
Key = tuple[int, int]


class Rules(NamedTuple):
    """When windows take no more, and when silence closes them; as on the grid. Times in ms."""

    grace: int
    keep: int

    def is_final(self, end: int, clock: int, mark: int) -> bool:
        """See `WindowColumns.final`."""
        return max(clock, mark - self.keep) >= end + self.grace

    def deadline(self, end: int, seen_at: int) -> int:
        """See `WindowColumns.deadline`."""
        return min(max(seen_at, end), end + self.keep) + self.grace


class Reading(NamedTuple):
    """One reading, and what was known when it came.

    Args:
        row: of the batch.
        offset: in the log.
        time: event time, ms.
        values: one per measure, NaN where there is none.
        completes: whether it only completes an earlier one.
        clock, mark: the device's own clock and the watermark before it, ms.
    """

    row: int
    offset: int
    time: int
    values: Sequence[float]
    completes: bool
    clock: int
    mark: int


class Content(NamedTuple):
    """What a window holds: values and sketches by measure, see `Cells`."""

    values: Lists
    sketches: Ints


@dataclass(frozen=True, slots=True)
class Entry:
    """A window, or what windows are made of.

    Args:
        start, end: ms.
        is_open: whether it is still to be closed.
        revision: the last one that was sent, or `UNSENT`.
        number: what the kind makes of it.
        content: see the kind.
    """

    start: int
    end: int
    is_open: bool
    revision: int
    number: int
    content: Content


class Emission(NamedTuple):
    """A window that is to be sent; `kind` is `CLOSED`, `CORRECTION` or `RETRACTION`."""

    row: int
    window: OffGrid
    start: int
    end: int
    kind: str
    revision: int
    content: Content
    previous: Content


class Spans:
    """The windows of one kind that one device has.

    Args:
        window: the kind.
        aggregation: what is kept of each measure.
        rules: when they are final.
    """

    #: Whether entries that are not open are closed; else they are filling up, whatever the time.
    closes_by_time = True

    def __init__(self, window: OffGrid, aggregation: Aggregation, rules: Rules) -> None:
        self.window = window
        self.aggregation = aggregation
        self.rules = rules
        self.entries: dict[Key, Entry] = {}

    def copy(self) -> Self:
        """To be changed instead of this one."""
        made = type(self)(self.window, self.aggregation, self.rules)
        made.entries = dict(self.entries)
        return made

    def take(self, reading: Reading) -> tuple[list[Emission], int | None]:
        """Take a reading; what that leads to at once, and the end of the window that it came too late for."""
        raise NotImplementedError

    def content(self, entry: Entry) -> Content:
        """What is in the window of an entry."""
        return entry.content

    def open_entries(self) -> list[tuple[Key, Entry]]:
        """Those of windows that time will close."""
        return [(key, entry) for key, entry in self.entries.items() if entry.is_open]

    def pass_clock(self, row: int, clock: int) -> list[Emission]:
        """Close what the device's own clock has passed."""
        return [self.close(row, key, entry) for key, entry in self.open_entries() if entry.end <= clock]

    def pass_mark(self, mark: int, seen_at: int, after: Ints) -> list[Emission]:
        """Close what the watermark has passed, while the device said nothing.

        Args:
            mark: the watermark now.
            seen_at: the watermark at its last reading.
            after: along the batch, for the row that led to it.
        """
        due = [(self.rules.deadline(entry.end, seen_at), key, entry) for key, entry in self.open_entries()]
        return [self.close(int(after.searchsorted(line)), key, entry) for line, key, entry in due if line <= mark]

    def close(self, row: int, key: Key, entry: Entry) -> Emission:
        """Close a window."""
        closed = self.entries[key] = replace(entry, is_open=False, revision=entry.revision + 1)
        return self.emission(row, CLOSED, closed)

    def emission(self, row: int, kind: str, entry: Entry, previous: Content | None = None) -> Emission:
        """The window of an entry, as it is now."""
        content = self.content(entry)
        return Emission(row, self.window, entry.start, entry.end, kind, entry.revision, content, previous or content)

    def drop_final(self, clock: int, mark: int) -> None:
        """Forget what no reading can change any more."""
        for key in [key for key, entry in self.entries.items() if self.rules.is_final(entry.end, clock, mark)]:
            del self.entries[key]

    def empty(self, measures: int) -> Content:
        """No readings."""
        cells = Cells.empty(1, measures, self.aggregation)
        return Content(cells.lists(), cells.sketches[0])

    def folded(self, content: Content, readings: Iterable[tuple[int, Sequence[float]]]) -> Content:
        """With readings more: event time and values of each, in log order; no more values than there are measures."""
        values, sketches = [list(cell) for cell in content.values], content.sketches
        for time, row in readings:
            whole = [*row, *[math.nan] * (len(values) - len(row))]
            fold_one(values, whole, time)
            sketches = sketch_one(sketches, whole)
        return Content(values, sketches)

    def padded(self, content: Content, measures: int) -> Content:
        """With so many measures; those that were not known yet have no readings."""
        have = len(content.values)
        if have == measures:
            return content
        more = self.empty(measures)
        more.sketches[:have] = content.sketches
        return Content(content.values + more.values[have:], more.sketches)
