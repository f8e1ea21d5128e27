"""Writes the topic of a replicated table."""

from collections.abc import Callable, Mapping
from typing import Generic

from headrace.engine.clock import Clock
from headrace.engine.log import Changes, Log, TopicPartition, TopicSpec, Transaction
from headrace.engine.partitioner import Partitioner
from headrace.tables.replicated import Value, replicated_topic


class Registry(Generic[Value]):
    """Changes entries of a compacted topic that `Replicated` tables copy.

    A change applies to records appended `delay` seconds later, by their append time. By then it is committed, and
    clocks that are less apart agree on the order: a replay finds what was found live. With 0 records that are appended
    while it is being committed may be worked on before it is there.

    Args:
        log: where the topic is; made with the first change if it does not exist.
        topic: its name, or how it is made.
        encode: value to bytes.
        clock: that of those who append records.
        delay: seconds of that clock.
    """

    def __init__(
        self, log: Log, topic: str | TopicSpec, encode: Callable[[Value], bytes], clock: Clock, *, delay: float = 1.0
    ) -> None:
        self._log = log
        self._spec = replicated_topic(topic) if isinstance(topic, str) else topic
        self._encode = encode
        self._clock = clock
        self._delay_ms = round(delay * 1000)
        self._last_ms = 0

    async def put(self, key: str, value: Value) -> int:
        """Give a key a value; returns the append time (ms) from which it applies, once it is durable."""
        return await self.change({key: value})

    async def delete(self, key: str) -> int:
        """Delete a key; returns the append time (ms) from which it is gone, once that is durable."""
        return await self.change({key: None})

    async def change(self, entries: Mapping[str, Value | None]) -> int:
        """Give many keys values, None deletes, in one step; otherwise like `put`.

        Raises:
            LogError: nothing of it happened.
        """
        await self._log.create_topics([self._spec])
        partitions = self._log.partitions(self._spec.name)
        partitioner = Partitioner(partitions)
        parts: list[dict[bytes, bytes | None]] = [{} for _ in range(partitions)]
        for name, value in entries.items():
            key = name.encode()
            if value is None:
                for part in parts:  # in another one it may have been before there were so many
                    part[key] = None
            else:
                parts[partitioner.partition(key)][key] = self._encode(value)
        self._last_ms = max(self._clock.now_ms() + self._delay_ms, self._last_ms + 1)
        targets = [TopicPartition(self._spec.name, number) for number in range(partitions)]
        changes = [Changes(target, part, self._last_ms) for target, part in zip(targets, parts, strict=True) if part]
        await self._log.commit(Transaction(changes=changes))
        return self._last_ms
