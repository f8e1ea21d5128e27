"""A replicated table that commands change beside running workers."""

from collections.abc import Callable, Mapping
from typing import Generic

from headrace.engine.clock import Clock, ManualClock
from headrace.engine.intake import MINUTE_MS
from headrace.engine.log import Log, TopicPartition
from headrace.engine.log_time import is_virtual, log_now_ms
from headrace.schemas import topics
from headrace.tables.registry import Registry
from headrace.tables.replicated import Value

#: A change applies to what is appended so much later, ms; see `headrace.tables.registry.Registry`.
DELAY_MS = 1000


class LiveRegistry(Generic[Value]):
    """The entries of a compacted topic.

    A change applies to records appended a second later. Where append times are not those of this machine's clock (a
    demo runs on virtual time, a replay on that of its data) it applies about two minutes of theirs after the newest
    record. Before the first record it applies to all.

    Args:
        log: where the topic is, or will be.
        topic: its name.
        encode: value to bytes.
        clock: real time.
    """

    def __init__(self, log: Log, topic: str, encode: Callable[[Value], bytes], clock: Clock) -> None:
        self._log = log
        self._topic = topic
        self._clock = clock
        self._applies = ManualClock()
        self._registry = Registry(log, topic, encode, self._applies, delay=0)

    async def stored(self) -> dict[str, bytes]:
        """Every value as it is in the topic, by key."""
        if self._topic not in {spec.name for spec in await self._log.topics()}:
            return {}
        targets = [TopicPartition(self._topic, number) for number in range(self._log.partitions(self._topic))]
        found = {}
        for target in targets:
            async for entries in self._log.restore(target):
                found.update({key.decode(errors="replace"): value for key, value in entries})
        return found

    async def change(self, entries: Mapping[str, Value | None]) -> int:
        """Set values by key, None removes; all in one step. Returns the append time (ms) from which it applies.

        Raises:
            LogError: nothing of it happened.
        """
        self._applies.follow(await self.applies_at())
        return await self._registry.change(entries)

    async def applies_at(self) -> int:
        """Append time (ms) from which a change would apply that is made now; 0 before the first record."""
        now = self._clock.now_ms() + DELAY_MS
        if topics.RAW not in {spec.name for spec in await self._log.topics()}:
            return 0
        if not any((await self._log.end_offsets(topics.RAW)).values()):
            return 0
        if not await is_virtual(self._log):
            return now
        return min(now, await log_now_ms(self._log, self._clock) + MINUTE_MS)
