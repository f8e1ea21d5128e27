"""The replay source: real data sets from files, on a clock that follows the data."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from headrace.connectors.file_delivery import Deliver, IntakeDelivery, Rows
from headrace.connectors.file_formats import Place, find_files
from headrace.connectors.file_merge import Cursor, Merge, Merged
from headrace.connectors.file_open import open_files
from headrace.connectors.file_position import ReplayPosition
from headrace.connectors.mapping import Mapping
from headrace.connectors.row_mapper import RowMapper
from headrace.engine.clock import ManualClock, SystemClock
from headrace.engine.errors import ConfigError
from headrace.engine.intake import Intake, Mark

#: Longest and shortest wait for the next row at a given speed, real seconds: to notice a stop, and to make batches.
_LONGEST_WAIT = 0.1
_SHORTEST_WAIT = 0.02
#: Text loaded at once per file, and over all files of a folder.
_CHUNK_BYTES = 256 << 10
_LOADED_BYTES = 16 << 20

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a replay is, earlier runs on the same data folder included.

    Args:
        rows_done: rows delivered.
        rows_total: rows of the whole data set; an estimate for text files until the end; None before any was read.
        rows_total_exact: whether `rows_total` is no estimate.
        bytes_done, bytes_total: of the files on disk; read so far (up to a chunk ahead of `rows_done`), and in all.
        event_time_ms: event time reached, ms since 1970 UTC; None before the first.
        unmapped: rows passed on as raw bytes because they have no device or time, or are broken.
        disordered: rows older than an earlier row of their file; delivered in file order.
        finished: everything is delivered.
    """

    rows_done: int
    rows_total: int | None
    rows_total_exact: bool
    bytes_done: int
    bytes_total: int
    event_time_ms: int | None
    unmapped: int
    disordered: int
    finished: bool


class FileSource:
    """Delivers every row of a file or folder once, by event time, and resumes where the last run on this log ended.

    Memory is bounded by a chunk per file that overlaps in time, whatever the length of the files. Reading and mapping
    run in a thread; delivery in the event loop.

    Args:
        path: a data file, or a folder of data files of one format.
        mapping: how rows become messages; None takes the shipped mapping that fits the columns.
        intake: keeps the position, and takes the rows unless `deliver` is given.
        clock: is moved along with the data: to a row's event time before the row is delivered.
        speed: seconds of data per real second; None is as fast as `deliver` and `wait_capacity` allow.
        deliver: where the rows go; into the log if left out.
        wait_capacity: awaited before each batch; holds the replay back while the pipeline is behind.
        batch_rows: most rows delivered at once.
        source_id: name of the position in the log.
        latest_ms: event times after this move no clock; the machine's present if left out.
    Raises:
        ConfigError: the files cannot be read with the mapping; with every mistake.
    """

    def __init__(
        self,
        path: Path,
        mapping: Mapping | None,
        intake: Intake,
        clock: ManualClock,
        speed: float | None = None,
        *,
        deliver: Deliver | None = None,
        wait_capacity: Callable[[], Awaitable[Any]] | None = None,
        batch_rows: int = 4_000,
        source_id: str = "replay",
        latest_ms: int | None = None,
    ) -> None:
        if speed is not None and not speed > 0:
            raise ConfigError(f"speed {speed} is not above 0; leave it out, or say max, for as fast as possible")
        paths = find_files(path)
        self.mapping, self._files = open_files(paths, mapping)
        self._intake = intake
        self._clock = clock
        self._speed = speed
        self._deliver = deliver or IntakeDelivery(intake)
        self._wait_capacity = wait_capacity
        self._batch_rows = batch_rows
        self._source_id = source_id
        self._latest_ms = SystemClock().now_ms() if latest_ms is None else latest_ms
        self._position = ReplayPosition.start(paths, self.mapping)
        self._bytes_total = sum(file.stat().st_size for file in paths)
        self._cursors: list[Cursor] = []
        self._rows_before = 0
        self._pace: tuple[float, int] | None = None
        self._finished = False

    async def run(self, stop: asyncio.Event) -> None:
        """Deliver until the end of the data or until `stop` is set; what is delivered then is committed.

        Raises:
            ConfigError: the log holds the position of another replay, or a file is damaged; what was before the damage
                may be delivered.
            LogError: the log takes nothing more.
        """
        saved = await self._intake.position(self._source_id)
        if saved is not None:
            self._position = self._position.resume(saved)
        self._rows_before = self._position.rows
        self._cursors = [
            Cursor(index, file, RowMapper(self.mapping, file), place, self._latest_ms)
            for index, (file, place) in enumerate(zip(self._files, self._position.places, strict=True))
        ]
        merge = Merge(self._cursors, max(_CHUNK_BYTES >> 4, min(_CHUNK_BYTES, _LOADED_BYTES // len(self._files))))
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, "replay") as thread:
            try:
                first_ms = await loop.run_in_executor(thread, merge.peek)
                # Rows before the first event time have none; they are delivered at it.
                known_ms = (self._position.time_ms, first_ms, self._latest_ms)
                self._clock.follow(next(time_ms for time_ms in known_ms if time_ms is not None))
                while not stop.is_set():
                    merged = await loop.run_in_executor(thread, merge.next)
                    if merged is None:
                        self._finished = True
                        return
                    await self._deliver_all(merged, stop)
            finally:
                # In its thread, behind whatever a cancelled `run` left it doing.
                thread.submit(merge.close)

    def deliver_to(self, deliver: Deliver) -> None:
        """Deliver there; before `run`."""
        self._deliver = deliver

    def progress(self) -> Progress:
        """A snapshot; cheap."""
        position = self._position
        exact = [file.rows_total for file in self._files if file.rows_total is not None]
        bytes_done = self._bytes_total if self._finished else sum(cursor.disk_bytes for cursor in self._cursors)
        total: int | None = None
        if self._finished:
            total = position.rows
        elif len(exact) == len(self._files):
            total = sum(exact)
        elif bytes_done:
            rows_read = self._rows_before + sum(cursor.rows_read for cursor in self._cursors)
            total = max(position.rows, rows_read * self._bytes_total // bytes_done)
        return Progress(
            rows_done=position.rows,
            rows_total=total,
            rows_total_exact=self._finished or len(exact) == len(self._files),
            bytes_done=bytes_done,
            bytes_total=self._bytes_total,
            event_time_ms=position.time_ms,
            unmapped=position.unmapped,
            disordered=position.disordered,
            finished=self._finished,
        )

    async def _deliver_all(self, merged: Merged, stop: asyncio.Event) -> None:
        start = 0
        while start < len(merged) and not stop.is_set():
            due = await self._wait_due(merged, start)
            if due == start:
                continue
            if self._wait_capacity is not None and not await _unless(stop, self._wait_capacity()):
                return
            await self._deliver_some(merged, start, due)
            start = due

    async def _wait_due(self, merged: Merged, start: int) -> int:
        """The end of the rows from `start` on that are due; `start` itself after a wait, to look at `stop` again."""
        most = min(len(merged), start + self._batch_rows)
        if self._speed is None:
            return most
        now = self._clock.monotonic()
        if self._pace is None:
            self._pace = (now, max(int(merged.times[start]), self._clock.now_ms()))
        begun, begun_ms = self._pace
        reached_ms = begun_ms + int((now - begun) * 1000 * self._speed)
        due = int(np.searchsorted(merged.times[:most], reached_ms, side="right"))
        if due > start:
            return due
        next_ms = int(merged.times[start])
        self._clock.follow(min(reached_ms, next_ms))
        wait = (next_ms - reached_ms) / 1000 / self._speed
        await self._clock.sleep(min(max(wait, _SHORTEST_WAIT), _LONGEST_WAIT))
        return start

    async def _deliver_some(self, merged: Merged, start: int, end: int) -> None:
        times = np.maximum(merged.times[start:end], self._clock.now_ms()).tolist()
        files, lines = merged.files[start:end].tolist(), merged.lines[start:end].tolist()
        names = [file.path.name for file in self._files]
        position = self._advanced(merged, start, end, times[-1])
        rows = Rows(
            device_ids=merged.device_ids[start:end].tolist(),
            payloads=merged.payloads[start:end].tolist(),
            timestamps=times,
            sources=[f"{names[file]}:{line}".encode() for file, line in zip(files, lines, strict=True)],
            device_type=self.mapping.device_type,
            mark=Mark(self._source_id, position.dumps()),
        )
        self._clock.follow(times[-1])
        await self._deliver.deliver(rows)
        self._position = position

    def _advanced(self, merged: Merged, start: int, end: int, time_ms: int) -> ReplayPosition:
        """The position behind row `end - 1` of `merged`."""
        before = self._position
        places = list(before.places)
        last_rows = np.full(len(places), -1, dtype=np.int64)
        last_rows[merged.files[start:end]] = np.arange(start, end)  # of repeated indices the last one stays
        for file in np.flatnonzero(last_rows >= 0).tolist():
            row = last_rows[file]
            places[file] = Place(int(merged.offsets[row]), int(merged.lines[row]), int(merged.times[row]))
        disordered = before.disordered + int(merged.disordered[start:end].sum())
        if disordered and not before.disordered:
            row = start + int(merged.disordered[start:end].argmax())
            _log.warning(
                "replay_not_sorted", file=self._files[merged.files[row]].path.name, line=int(merged.lines[row])
            )
        return ReplayPosition(
            data_set=before.data_set,
            mapping=before.mapping,
            places=places,
            rows=before.rows + end - start,
            unmapped=before.unmapped + int(merged.unmapped[start:end].sum()),
            disordered=disordered,
            time_ms=time_ms,
        )


async def _unless(stop: asyncio.Event, work: Awaitable[Any]) -> bool:
    """Whether `work` was finished before `stop` was set; it is cancelled otherwise."""
    working, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
        return working.done()
    finally:
        for task in (working, stopping):
            task.cancel()
