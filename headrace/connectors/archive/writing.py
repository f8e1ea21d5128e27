"""Writes the rows of a day as parts, and reads each back before anything is deleted."""

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

import asyncpg
import polars as pl

from headrace.connectors.archive import parts
from headrace.connectors.archive.dataset import Dataset, file_dataset
from headrace.connectors.archive.digest import Digests, content_digest, differences, digests, from_records
from headrace.connectors.archive.due import Due
from headrace.connectors.archive.erase import RowsChanged, Verified
from headrace.connectors.archive.late import Sorted, sort_out
from headrace.connectors.archive.layout import Place
from headrace.connectors.archive.object_store import ObjectStore
from headrace.connectors.archive.parquet import ArchiveDamaged, columns_of, decode, encode, frame_of
from headrace.connectors.archive.parts import Part
from headrace.engine.clock import Clock

#: Bytes of text, as it is in rows, that a part holds at most.
PART_BYTES = 64 << 20
#: Rows fetched at once, at most, and bytes of them as far as the rows before tell.
FETCH_ROWS, FETCH_BYTES = 10_000, 8 << 20

#: Told of each step, so that a test can stop the run there.
Step = Callable[[str], None]
Rows = list[Any]


class PartWriter:
    """Makes parts.

    Args:
        connection: notes them in `archive_parts`.
        reading: where rows are read, in a transaction of its own.
        store: where they go.
        part_rows: rows of a part, at most.
        step: told `begun`, `put`, `written`, `read back` and `verified` of each part.
    """

    def __init__(
        self,
        connection: asyncpg.Connection,
        reading: asyncpg.Connection,
        store: ObjectStore,
        clock: Clock,
        part_rows: int,
        step: Step,
    ) -> None:
        self._connection = connection
        self._reading = reading
        self._store = store
        self._clock = clock
        self._part_rows = part_rows
        self._step = step

    async def parts(self, due: Due) -> AsyncGenerator[tuple[Part, Verified]]:
        """Each part, in the store and verified; memory is bounded by one part.

        Raises:
            RetryLater: the store does not answer now.
            ArchiveDamaged: what it gave back is not what it got.
            RowsChanged: the rows in the database are not what was read.
        """
        dataset = due.dataset
        begin, end = parts.bounds(due.day)
        async with self._reading.transaction(isolation="repeatable_read", readonly=True):
            cursor = await self._reading.cursor(dataset.select, begin, end, due.organisation)
            async for rows in self._cut(cursor):
                yield await self._part(due, rows)

    async def _cut(self, cursor: Any) -> AsyncIterator[Rows]:
        held: Rows = []
        size, count = 0, 100
        while records := await cursor.fetch(count):
            for record in records:
                size += sum(len(cell) for cell in record if isinstance(cell, str))
                held.append(record)
                if len(held) >= self._part_rows or size >= PART_BYTES:
                    yield held
                    held, size = [], 0
            average = max(1, size // len(held)) if held else 1
            count = max(1, min(FETCH_ROWS, FETCH_BYTES // average))
        if held:
            yield held

    async def _part(self, due: Due, rows: Rows) -> tuple[Part, Verified]:
        dataset = due.dataset
        first, last = (rows[0][0], rows[0][1]), (rows[-1][0], rows[-1][1])
        source = frame_of(dataset.columns, [tuple(row)[2:] for row in rows])
        rows.clear()
        groups = digests(source, dataset)
        found = await sort_out(source, dataset, await self._older(due, source), self._store)
        place = Place(dataset.name, dataset.device_type, due.organisation, due.day)
        number = await parts.next_number(self._connection, place)
        kept = groups if found.kept is source else digests(found.kept, dataset)
        part, data = _plan(place, number, dataset, found, kept, _span(source, dataset))
        part_id = await parts.begin(self._connection, part)
        self._step("begun")
        if part.object is not None:
            await self._store.put(part.object, data)
        self._step("put")
        await parts.advance(self._connection, part_id, "written", self._clock.now_ms())
        self._step("written")
        if part.object is not None:
            await read_back(self._store, part)
        self._step("read back")
        verified = Verified(
            part_id, due.organisation, due.day, first, last, source.height, content_digest(groups), found.conflicts
        )
        await self._compare(dataset, verified, groups)
        await parts.advance(self._connection, part_id, "verified", self._clock.now_ms())
        self._step("verified")
        return part, verified

    async def _older(self, due: Due, frame: pl.DataFrame) -> list[Part]:
        """Parts of the same day, of any organisation, that may hold some of these rows already."""
        dataset = due.dataset
        span = _span(frame, dataset) if dataset.group else None
        return await parts.archived(self._connection, dataset.name, dataset.device_type, (due.day, due.day), span)

    async def _compare(self, dataset: Dataset, rows: Verified, expected: Digests) -> None:
        """Let PostgreSQL say what it has: rows, sums and digest of each device."""
        found = from_records(await self._connection.fetch(dataset.digest, *rows.arguments))
        if wrong := differences(found, expected):
            more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
            raise RowsChanged(f"rows changed since they were read: {'; '.join(wrong[:3])}{more}")


def _plan(
    place: Place, number: int, dataset: Dataset, found: Sorted, groups: Digests, span: tuple[str, str]
) -> tuple[Part, bytes]:
    """The part, and the bytes of its object; without an object where every row is in the archive already."""
    frame, counts = found.kept, (found.duplicates, len(found.conflicts))
    if not frame.height:
        return Part(place, number, None, 0, 0, 0, b"", b"", *span, None, None, *counts), b""
    data = encode(frame, place, groups)
    digest = hashlib.sha256(data).digest()
    times: Any = frame["time"].min(), frame["time"].max()
    name = place.object(number, digest.hex())
    content = content_digest(groups)
    span = _span(frame, dataset)
    part = Part(
        place, number, name, frame.height, len(data), len(groups), digest, content, *span, times[0], times[1], *counts
    )
    return part, data


async def read_back(store: ObjectStore, part: Part) -> pl.DataFrame:
    """The rows of a part, from the store, found to be what was written.

    Raises:
        RetryLater: the store does not answer now.
        ArchiveDamaged: they are not.
    """
    assert part.object is not None
    try:
        data = await store.get(part.object)
    except FileNotFoundError as error:
        raise ArchiveDamaged(f"{part.object} is not in the store") from error
    if len(data) != part.size or hashlib.sha256(data).digest() != part.sha256:
        raise ArchiveDamaged(f"{part.object} is not what was written: {len(data)} bytes, {part.size} expected")
    frame = decode(data)
    groups = digests(frame, file_dataset(part.place.dataset, columns_of(frame)))
    if frame.height != part.rows or content_digest(groups) != part.content:
        raise ArchiveDamaged(f"{part.object} holds other rows than were written")
    return frame


def _span(frame: pl.DataFrame, dataset: Dataset) -> tuple[str, str]:
    """Least and greatest group; rows are in order."""
    if not dataset.group:
        return "", ""
    column = frame[dataset.group]
    return str(column[0]), str(column[-1])
