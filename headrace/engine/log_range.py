"""Reads a stretch of a partition, beside whoever else reads it, and comes to an end."""

from bisect import bisect_left
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from headrace.engine.errors import LogError
from headrace.engine.log import Fetched, Log, Reader, TopicPartition

#: A reader fetches ahead in its own time: look again after this many seconds, and give up after so many looks.
WAIT = 0.5
MAX_WAITS = 60


async def first_offsets(log: Log, topic: str) -> dict[TopicPartition, int]:
    """Per partition the oldest offset that is kept; the end where nothing is."""
    return await log.offsets_at(topic, 0)


@asynccontextmanager
async def reading(log: Log) -> AsyncIterator[Reader]:
    """A reader, closed at the end."""
    reader = log.reader()
    try:
        yield reader
    finally:
        await reader.close()


async def read_range(
    reader: Reader, target: TopicPartition, start: int, end: int, max_records: int = 5_000
) -> AsyncIterator[Fetched]:
    """The records at `start` and later, before `end`, in order, about `max_records` at a time.

    The last part may hold no record, where the end is nothing but a gap. At the end the reader forgets the partition.

    Args:
        start: at or behind the oldest offset that is kept, see `first_offsets`.
        end: at or before the end of the partition.
    Raises:
        LogError: nothing comes, for about 30 s.
    """
    waits = 0
    while start < end:
        fetched = await reader.read(target, start, max_records)
        if fetched is None:
            waits += 1
            if waits > MAX_WAITS:
                raise LogError(
                    f"nothing could be read from {target.topic}/{target.partition} at {start}, before its end, {end}; "
                    "a broker may be down, or the records were dropped meanwhile. Try again"
                )
            await reader.wait({target: start}, WAIT)
            continue
        waits = 0
        start = fetched.next_offset
        yield before(fetched, end)
    reader.forget([target])


def before(fetched: Fetched, end: int) -> Fetched:
    """The records of `fetched` with an offset less than `end`; a fetch holds whole batches and may go on behind it."""
    if fetched.next_offset <= end:
        return fetched
    return split(fetched, end)[0]


def split(fetched: Fetched, offset: int) -> tuple[Fetched, Fetched]:
    """The records of `fetched` before `offset`, and the others; either part may be empty."""
    target, base, next_offset, records, offsets = fetched
    place = bisect_left(range(len(records)), offset, key=fetched.offset)
    border = min(max(offset, base), next_offset)
    return (
        Fetched(target, base, border, records.slice(0, place), offsets and offsets[:place]),
        Fetched(target, border, next_offset, records.slice(place, len(records)), offsets and offsets[place:]),
    )
