"""Which stretch of the log a replay reads: what warms the agent up, and what it sends the results of."""

from dataclasses import dataclass

from headrace.engine.log import Log, TopicPartition
from headrace.engine.log_range import first_offsets, read_range, reading


@dataclass(frozen=True, slots=True)
class Stretch:
    """What is read of one partition, as offsets.

    Args:
        kept: the oldest record that the log keeps.
        warm_up: from here on records are read, to know what the agent knew then.
        first: from here on what they lead to is sent.
        end: up to here, not included.
    """

    target: TopicPartition
    kept: int
    warm_up: int
    first: int
    end: int

    @property
    def records(self) -> int:
        """How many are read, at most, count."""
        return max(0, self.end - self.warm_up)


async def stretches(
    log: Log, topic: str, group: str, from_ms: int, to_ms: int | None, warm_up_ms: int | None
) -> list[Stretch]:
    """What a replay would read, by partition, where it would read anything.

    Args:
        group: of the live agents: a replay ends where they are. What they have still to read they will send themselves.
        from_ms, to_ms: append times, ms since 1970 UTC; `to_ms` is not included.
        warm_up_ms: how much is read before `from_ms`; None is all that the log keeps.
    """
    ends, kept = await log.positions(group, topic), await first_offsets(log, topic)
    firsts = await log.offsets_at(topic, from_ms)
    begins = kept if warm_up_ms is None else await log.offsets_at(topic, max(0, from_ms - warm_up_ms))
    if to_ms is not None:
        ends = {target: min(ends[target], end) for target, end in (await log.offsets_at(topic, to_ms)).items()}
    return [
        Stretch(target, kept[target], begins[target], first, ends[target])
        for target, first in sorted(firsts.items())
        if first < ends[target]
    ]


async def cut_short(log: Log, plan: list[Stretch], from_ms: int, needs_ms: int) -> int | None:
    """The earliest `from_ms` that the log keeps enough for, if it does not keep enough for this one; else None.

    Args:
        needs_ms: how far back the agent's results depend on what was there.
    """
    earliest = None
    async with reading(log) as reader:
        # Of a partition that still has its very first record nothing was dropped.
        for stretch in (each for each in plan if each.kept > 0):
            async for fetched in read_range(reader, stretch.target, stretch.kept, stretch.end, 1):
                if len(fetched.records):
                    if fetched.records.timestamps[0] > from_ms - needs_ms:
                        earliest = max(earliest or 0, fetched.records.timestamps[0] + needs_ms)
                    break
    return earliest
