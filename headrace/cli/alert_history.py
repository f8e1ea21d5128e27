"""The events of alerts that the log has, over all partitions by time."""

from collections.abc import AsyncIterator
from typing import NamedTuple

from headrace.engine.log import Fetched, Log, TopicPartition
from headrace.engine.log_range import first_offsets, read_range, reading
from headrace.schemas import topics


class Stretch(NamedTuple):
    """What comes next.

    Args:
        parts: of each partition that has something, in log order; append times are at most `until_ms`.
        until_ms: ms since 1970 UTC; later stretches have what was appended later, but for a clock that was set back.
        done: how much of everything has been read with these, 0 to 1.
    """

    parts: list[Fetched]
    until_ms: int
    done: float


async def oldest_event_ms(log: Log) -> int | None:
    """Append time since which every event is there, ms since 1970 UTC; None if all that there ever were are."""
    if topics.ALERTS not in {spec.name for spec in await log.topics()}:
        return None
    starts, ends = await first_offsets(log, topics.ALERTS), await log.end_offsets(topics.ALERTS)
    found = [0]
    async with reading(log) as reader:
        for target, start in starts.items():
            if 0 < start < ends[target]:
                async for part in read_range(reader, target, start, start + 1, 1):
                    found += part.records.timestamps[:1]
    return max(found) or None


async def alert_history(log: Log, end_ms: int | None = None) -> AsyncIterator[Stretch]:
    """The events of `alerts.v1` that are there now. Memory: a fetch per partition.

    Args:
        end_ms: without those that were appended then or later, ms since 1970 UTC; None for all.
    """
    if topics.ALERTS not in {spec.name for spec in await log.topics()}:
        return
    starts, ends = await first_offsets(log, topics.ALERTS), await log.end_offsets(topics.ALERTS)
    if end_ms is not None:
        later = await log.offsets_at(topics.ALERTS, end_ms)
        ends = {target: min(end, later[target]) for target, end in ends.items()}
    total, done = max(1, sum(ends[target] - start for target, start in starts.items())), 0
    async with reading(log) as reader:
        ranges = {target: read_range(reader, target, start, ends[target]) for target, start in starts.items()}
        heads: dict[TopicPartition, Fetched] = {}

        async def go_on(target: TopicPartition) -> None:
            heads.pop(target, None)
            async for found in ranges[target]:
                if len(found.records):
                    heads[target] = found
                    return

        for target in sorted(ranges):
            await go_on(target)
        while heads:
            # The head that ends first goes whole, so there is an end.
            until_ms = min(max(head.records.timestamps) for head in heads.values())
            parts = []
            for target, head in sorted(heads.items()):
                stamps = head.records.timestamps
                count = next((place for place, stamp in enumerate(stamps) if stamp > until_ms), len(stamps))
                if not count:
                    continue
                parts.append(head.part(0, count))
                done += count
                if count < len(stamps):
                    heads[target] = head.part(count, len(stamps))
                else:
                    await go_on(target)
            yield Stretch(parts, until_ms, min(1.0, done / total))
