"""What is stored, as records again: of the log, or readings of the database device by device."""

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from headrace.cli.opened_archive import opened_reader
from headrace.cli.opened_database import opened_database
from headrace.cli.settings import Settings
from headrace.connectors.timescale.answers import RawHistory
from headrace.connectors.timescale.history import MOST_RAW_DAYS
from headrace.connectors.timescale.query_pool import QueryError
from headrace.connectors.timescale.states import MOST_DEVICES
from headrace.connectors.timescale.store import Store
from headrace.engine.clock import SystemClock
from headrace.engine.intake import MINUTE_MS
from headrace.engine.log import Fetched, Log, TopicPartition
from headrace.engine.log_range import first_offsets, read_range, reading
from headrace.engine.records import Records
from headrace.engine.testkit import fetched, reading_records
from headrace.schemas import topics
from headrace.schemas.readings import Readings
from headrace.schemas.window import DAY_MS

#: Readings that one statement brings, and seconds that it may take.
PAGE, TIMEOUT = 10_000, 300.0
#: Length of what one question may be about, ms.
LONGEST_MS = MOST_RAW_DAYS * DAY_MS


@dataclass(frozen=True, slots=True)
class Part:
    """The next records of a stretch; a stretch has all the records of its devices.

    Args:
        fetched: the records; all of a stretch have its topic and partition.
        ends: whether the stretch is over with these.
        done: how much of everything has been read with these, 0 to 1.
    """

    fetched: Fetched
    ends: bool
    done: float


class History(Protocol):
    """Where records are."""

    name: str

    async def as_of_ms(self) -> int:
        """What it knows of the time: about the newest append, at most now; ms since 1970 UTC."""
        ...

    async def reaches(self, time_ms: int) -> bool:
        """Whether it has everything since then."""
        ...

    def read(self, start_ms: int, end_ms: int) -> AsyncIterator[Part]:
        """Everything of a range, stretch by stretch."""
        ...


class LogHistory:
    """What the log still has, partition by partition; within one in log order, of several topics by append time.

    Ranges are of append time.

    Args:
        log: opened.
        clock: real time.
        wanted: names of topics with as many partitions; of records of the same time, those of the first come first.
    """

    name = "the log"

    def __init__(self, log: Log, clock: SystemClock, wanted: Collection[str]) -> None:
        self._log = log
        self._clock = clock
        self._wanted = list(wanted)

    async def as_of_ms(self) -> int:
        now = self._clock.now_ms()
        if topics.RAW not in {spec.name for spec in await self._log.topics()}:
            return now
        minutes = [tally.minute_ms for tally in await self._log.tallies(topics.RAW)]
        return min(now, max(minutes) + MINUTE_MS) if minutes else now

    async def reaches(self, time_ms: int) -> bool:
        starts = await self._at(time_ms)
        if not starts:
            return False
        firsts: dict[TopicPartition, int] = {}
        for topic in {target.topic for target in starts}:
            firsts |= await first_offsets(self._log, topic)
        # Nothing was dropped yet, or there is still something from before.
        return all(first == 0 or first < starts[target] for target, first in firsts.items())

    async def read(self, start_ms: int, end_ms: int) -> AsyncIterator[Part]:
        starts, ends = await self._at(start_ms), await self._at(end_ms)
        total, done = max(1, sum(ends[target] - starts[target] for target in starts)), 0
        async with reading(self._log) as reader:
            for number in sorted({target.partition for target in starts}):
                targets = [target for target in starts if target.partition == number]
                ranges = [read_range(reader, target, starts[target], ends[target]) for target in targets]
                async for part in _by_time(ranges):
                    done += part.next_offset - part.base_offset
                    yield Part(part, False, min(1.0, done / total))
                nothing = fetched(Records([], [], []), topics.READINGS, number)
                yield Part(nothing, True, min(1.0, done / total))

    async def _at(self, time_ms: int) -> dict[TopicPartition, int]:
        known = {spec.name for spec in await self._log.topics()}
        found: dict[TopicPartition, int] = {}
        for topic in self._wanted:
            if topic in known:
                found |= await self._log.offsets_at(topic, time_ms)
        return found


class DatabaseHistory:
    """Readings of the database and the archive, device by device by event time. Ranges are of event time.

    Args:
        store: opened.
        metrics: those that are wanted, by device type.
        device_ids: of these devices only; None for all.
    """

    name = "the database"

    def __init__(
        self, store: Store, metrics: Mapping[str, Collection[str]], device_ids: Collection[str] | None
    ) -> None:
        self._store = store
        self._metrics = metrics
        self._device_ids = None if device_ids is None else sorted(device_ids)

    async def as_of_ms(self) -> int:
        return await self._store.as_of_ms()

    async def reaches(self, time_ms: int) -> bool:
        return True

    async def read(self, start_ms: int, end_ms: int) -> AsyncIterator[Part]:
        wanted: list[tuple[str, str]] = []
        for device_type in sorted(self._metrics.keys() & set(await self._store.device_types())):
            found = await self._store.state(self._device_ids, device_type=device_type, limit=MOST_DEVICES)
            wanted += [(device_type, each.device_id) for each in found.devices]
        for number, (device_type, device_id) in enumerate(wanted):
            for start in range(start_ms, end_ms, LONGEST_MS):
                end = min(end_ms, start + LONGEST_MS)
                async with aclosing(self._pages(device_type, device_id, start, end)) as pages:
                    async for page in pages:
                        yield Part(fetched(_records(page), topics.READINGS), False, number / len(wanted))
            yield Part(fetched(_records(None), topics.READINGS), True, (number + 1) / len(wanted))

    async def _pages(self, device_type: str, device_id: str, start_ms: int, end_ms: int) -> AsyncGenerator[RawHistory]:
        """The readings of a device; none if its table lacks a metric: then nothing of it was stored yet."""
        metrics = sorted(self._metrics[device_type])
        pages = self._store.stream(device_id, start_ms, end_ms, metrics, limit=PAGE, device_type=device_type)
        try:
            async with aclosing(pages):  # type: ignore[type-var]
                async for page in pages:
                    yield page
        except QueryError:
            return


async def _by_time(ranges: Sequence[AsyncIterator[Fetched]]) -> AsyncIterator[Fetched]:
    """The records of all ranges, each in its order, cut where another range's next record comes before.

    Append times of a partition grow, but for a clock that was set back: then its records come as they lie.
    """
    heads: dict[int, Fetched] = {}

    async def go_on(rank: int) -> None:
        heads.pop(rank, None)
        async for found in ranges[rank]:
            if len(found.records):
                heads[rank] = found
                return

    for rank in range(len(ranges)):
        await go_on(rank)
    while heads:
        rank, head = min(heads.items(), key=lambda each: (each[1].records.timestamps[0], each[0]))
        others = [(each.records.timestamps[0], other) for other, each in heads.items() if other != rank]
        stamps = head.records.timestamps
        border = min(others, default=None)
        count = len(stamps) if border is None else next(
            (place for place, stamp in enumerate(stamps) if (stamp, rank) > border), len(stamps)
        )  # fmt: skip
        yield head.part(0, count)
        if count < len(stamps):
            heads[rank] = head.part(count, len(stamps))
        else:
            await go_on(rank)


@asynccontextmanager
async def database_history(
    settings: Settings,
    data: Path | None,
    metrics: Mapping[str, Collection[str]],
    device_ids: Collection[str] | None,
) -> AsyncIterator[DatabaseHistory]:
    """The history in the database of the settings, or of the data folder.

    Raises:
        ConfigError: there is no database.
        Disconnected, RetryLater: it cannot be reached.
    """
    async with (
        opened_database(settings, data) as connect,
        opened_reader(settings, data, connect) as archive,
        Store(
            connect, SystemClock(), grace=settings.rollup.grace, archive=archive, timeout=TIMEOUT, connections=1
        ) as store,
    ):
        yield DatabaseHistory(store, metrics, device_ids)


def _records(page: RawHistory | None) -> Records:
    count = 0 if page is None else len(page.times)
    if page is None or not count:
        return Records([], [], [])
    names = [""] * count
    rows = np.arange(count)
    return reading_records(
        Readings(page.device_type, rows, [page.device_id] * count, page.times, names, dict(page.metrics))
    )
