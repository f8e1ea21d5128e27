"""Reads what a sink writes next: every partition in its turn, as much as one write may have."""

import asyncio
from collections.abc import Iterator, Mapping

from headrace.engine.cancel import cancel_and_wait
from headrace.engine.log import Fetched, Reader, TopicPartition
from headrace.engine.sink import record_count

#: Longest that the log is asked to wait for new records at a time, seconds.
IDLE_WAIT = 0.25
#: A partition gives at most this part of a batch at a time, so that a long backlog in one leaves room for the others.
SHARES = 4
#: A batch takes no more records once it has this many bytes of values.
MAX_BATCH_BYTES = 32 << 20
#: Reads bring whole batches of the log, however large; into a batch of at most so many records they are cut to fit.
CUT_BELOW = 1024


class SinkBatches:
    """Reads batches from given positions on.

    Args:
        reader: of the log.
        positions: by partition, where the next read starts.
    """

    def __init__(self, reader: Reader, positions: Mapping[TopicPartition, int]) -> None:
        self._reader = reader
        self._read = dict(positions)
        self._turn = 0

    async def fetch(self, limit: int, stop: asyncio.Event) -> list[Fetched]:
        """The next batch, of `limit` records about; waits for one, and is empty only when `stop` is set."""
        batch: list[Fetched] = []
        while not stop.is_set():
            await self.fill(batch, limit)
            if batch:
                break
            await self._wait(stop)
        return batch

    async def fill(self, batch: list[Fetched], limit: int) -> None:
        """Add what there is, up to the size of a batch."""
        room = limit - record_count(batch)
        room_bytes = MAX_BATCH_BYTES - sum(_size(fetched) for fetched in batch)
        share = max(1, limit // SHARES)
        more = True
        while more:
            more = False
            for target in self._targets():
                if room <= 0 or room_bytes <= 0:
                    return
                wanted = min(room, share)
                fetched = await self._reader.read(target, self._read[target], wanted)
                if fetched is not None:
                    if limit <= CUT_BELOW and len(fetched.records) > wanted:
                        fetched = fetched.part(0, wanted)
                    batch.append(fetched)
                    self._read[target] = fetched.next_offset
                    room -= len(fetched.records)
                    room_bytes -= _size(fetched)
                    more |= len(fetched.records) >= wanted // 2

    async def _wait(self, stop: asyncio.Event) -> None:
        """Wait until there may be more to read, or `stop` is set."""
        more, stopped = asyncio.create_task(self._reader.wait(self._read, IDLE_WAIT)), asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({more, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if more.done():
                more.result()  # the log may have failed
        finally:
            await cancel_and_wait(more, stopped)

    def _targets(self) -> Iterator[TopicPartition]:
        """All partitions, each time from another one on."""
        targets = list(self._read)
        self._turn = (self._turn + 1) % len(targets)
        yield from targets[self._turn :]
        yield from targets[: self._turn]


def _size(fetched: Fetched) -> int:
    return sum(len(value) for value in fetched.records.values if value is not None)
