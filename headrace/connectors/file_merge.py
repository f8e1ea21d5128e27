"""Files merged by event time, streaming: what is held is one chunk of every file that overlaps in time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.connectors.event_times import NO_TIME
from headrace.connectors.file_formats import DataFile, Ints, Place
from headrace.connectors.row_mapper import RowMapper

#: What of a file is read to learn when it starts, bytes.
_PEEK_BYTES = 8 << 10
#: Before this no device reports (2000-01-01, as in `agents.ingest`); such a time says nothing about the row's place.
EARLIEST_MS = 946_684_800_000

Objects = NDArray[np.object_]


@dataclass(slots=True)
class Merged:
    """n rows in the order of the merge.

    Args:
        times: (n,) int64, the time that the merge goes by: the latest event time of the row's file so far.
        files: (n,) int64, index of the row's file.
        offsets, lines: (n,) int64, the file's `Place` after the row.
        unmapped: (n,) bool, the payload is the row's own bytes.
        disordered: (n,) bool, the row's event time is before that of an earlier row of its file.
    """

    device_ids: Objects
    payloads: Objects
    times: Ints
    files: Ints
    offsets: Ints
    lines: Ints
    unmapped: NDArray[np.bool_]
    disordered: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.times)


class Cursor:
    """One file of the merge: the chunk that is loaded, and how far it was taken."""

    def __init__(self, index: int, file: DataFile, mapper: RowMapper, place: Place, latest_ms: int) -> None:
        self.index = index
        self.disk_bytes = 0
        self.rows_read = 0
        #: Not before this does the file have a row; known before it is opened.
        self.start_ms = NO_TIME
        self.first_time_ms: int | None = None
        self.ended = False
        self._file = file
        self._mapper = mapper
        self._place = place
        self._latest_ms = latest_ms
        self._chunks: Iterator[Any] | None = None
        self._rows: Merged | None = None

    def peek(self) -> None:
        """Learn when the file's next row is due, and close the file again."""
        if self._place.offset:
            # Reading a gzip file up to its place once is enough.
            self.start_ms = self._place.latest
            return
        for chunk in self._file.chunks(self._place, self._mapper.columns, _PEEK_BYTES):
            times = self._plausible(self._mapper.map(chunk).times)
            known = times[times > NO_TIME]
            self.start_ms = int(times[0])
            self.first_time_ms = int(known[0]) if len(known) else None
            return
        self.ended = True

    @property
    def opened(self) -> bool:
        return self._chunks is not None

    @property
    def last_ms(self) -> int:
        """The time of the last row that is loaded."""
        assert self._rows is not None
        return int(self._rows.times[-1])

    def load(self, chunk_bytes: int) -> None:
        """Load the next chunk if everything loaded was taken; at the end of the file `ended` is True."""
        if self._chunks is None:
            self._chunks = self._file.chunks(self._place, self._mapper.columns, chunk_bytes)
        if self._rows is not None and len(self._rows):
            return
        chunk = next(self._chunks, None)
        if chunk is None:
            self.ended = True
            return
        mapped = self._mapper.map(chunk)
        times = self._plausible(mapped.times)
        latest = np.maximum.accumulate(np.concatenate(([self._place.latest], times)))
        self._place = Place(int(chunk.offsets[-1]), int(chunk.lines[-1]), int(latest[-1]))
        self.disk_bytes = chunk.disk_bytes
        self.rows_read += len(chunk)
        self._rows = Merged(
            _objects(mapped.device_ids),
            _objects(mapped.payloads),
            latest[1:],
            np.full(len(chunk), self.index, dtype=np.int64),
            chunk.offsets,
            chunk.lines,
            mapped.times == NO_TIME,
            (times > NO_TIME) & (times < latest[:-1]),
        )

    def take(self, until_ms: int, *, inclusive: bool) -> Merged:
        """The loaded rows before `until_ms`, or up to it."""
        assert self._rows is not None
        count = int(np.searchsorted(self._rows.times, until_ms, side="right" if inclusive else "left"))
        taken, self._rows = _slice(self._rows, slice(0, count)), _slice(self._rows, slice(count, None))
        return taken

    def close(self) -> None:
        """Let go of the file."""
        close = getattr(self._chunks, "close", None)
        if close is not None:
            close()

    def _plausible(self, times: Ints) -> Ints:
        # One row of the year 9999 must not carry the merge, and with it the virtual clock, into the future.
        return np.where((times >= EARLIEST_MS) & (times <= self._latest_ms), times, NO_TIME)


class Merge:
    """Rows of all files by event time; rows of the same time in the order of the files, then of their lines.

    Each file is taken to be sorted. Rows that are not, or have no time, keep their place within their file. The order
    depends on nothing but the files. Blocks on the disk: run it in a thread.
    """

    def __init__(self, cursors: Sequence[Cursor], chunk_bytes: int) -> None:
        self._cursors = cursors
        self._chunk_bytes = chunk_bytes

    def peek(self) -> int | None:
        """Look at the start of every file. Returns the first event time of unread files, ms, if any starts with one."""
        for cursor in self._cursors:
            cursor.peek()
        return min((cursor.first_time_ms for cursor in self._cursors if cursor.first_time_ms is not None), default=None)

    def next(self) -> Merged | None:
        """The next rows, at least one; None at the end."""
        waiting = [cursor for cursor in self._cursors if not cursor.opened and not cursor.ended]
        while True:
            for cursor in self._cursors:
                if cursor.opened and not cursor.ended:
                    cursor.load(self._chunk_bytes)
            active = [cursor for cursor in self._cursors if cursor.opened and not cursor.ended]
            # Of the file whose loaded rows end first, all can go; of the others what sorts before its last row. A row
            # sorts by (time, file), so nothing that is still on disk can come before these.
            horizon = min(((cursor.last_ms, cursor.index) for cursor in active), default=None)
            due = [cursor for cursor in waiting if horizon is None or (cursor.start_ms, cursor.index) <= horizon]
            if not due:
                break
            first = min(due, key=lambda cursor: (cursor.start_ms, cursor.index))
            first.load(self._chunk_bytes)
            waiting.remove(first)
        if horizon is None:
            return None
        until_ms, last_file = horizon
        return _in_order([cursor.take(until_ms, inclusive=cursor.index <= last_file) for cursor in active])

    def close(self) -> None:
        """Let go of all files."""
        for cursor in self._cursors:
            cursor.close()


def _in_order(parts: Sequence[Merged]) -> Merged:
    if len(parts) == 1:
        return parts[0]
    joined = Merged(*(np.concatenate([getattr(part, name) for part in parts]) for name in Merged.__slots__))
    return _slice(joined, np.argsort(joined.times, kind="stable"))


def _slice(rows: Merged, index: Any) -> Merged:
    return Merged(*(getattr(rows, name)[index] for name in Merged.__slots__))


def _objects(values: Sequence[bytes]) -> Objects:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array
