"""Starts a consumer group over on one topic: other positions, empty tables, in one step."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from headrace.engine.changelog import changelog_topic
from headrace.engine.log import Changes, Log, TopicPartition, Transaction
from headrace.engine.log_range import first_offsets
from headrace.engine.runtime.restoring import BEGIN_KEY
from headrace.engine.shared_log import SharedLog

#: Where a group starts over: where it is, as far as the log has that; at the oldest record; at the end; or at the first
#: record appended at a time, ms since 1970 UTC.
Where = Literal["current", "earliest", "latest"] | int


@dataclass(frozen=True, slots=True)
class Move:
    """What happens to the position in one partition; negative `skipped` counts records that are read once more."""

    target: TopicPartition
    before: int
    after: int

    @property
    def skipped(self) -> int:
        """Records that the group will not read, count; less than 0: that it will read again."""
        return self.after - self.before


@dataclass(frozen=True, slots=True)
class Growth:
    """A topic that gets more partitions; counts."""

    topic: str
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class Reset:
    """A plan for `carry_out`.

    Args:
        grown: topics that get more partitions first, those of tables included.
        emptied: topics of tables whose entries are deleted.
    """

    group: str
    moves: Sequence[Move]
    grown: Sequence[Growth]
    emptied: Sequence[str]

    def and_also(self, other: "Reset") -> "Reset":
        """Both in one, for the same group."""
        return Reset(
            self.group,
            [*self.moves, *other.moves],
            list(dict.fromkeys([*self.grown, *other.grown])),
            list(dict.fromkeys([*self.emptied, *other.emptied])),
        )


async def plan_reset(
    log: Log,
    group: str,
    topic: str,
    where: Where,
    tables: Collection[str],
    sums: Collection[str] = (),
    *,
    outputs: Collection[str] = (),
    partitions: int | None = None,
) -> Reset:
    """What a reset would do.

    Args:
        group: whose positions and tables.
        topic: must exist, and not be compacted.
        tables: names of tables of the group's agents that read the topic: kept per key, so they are emptied.
        sums: names of such tables that only add up, whatever the partition of a key: they stay.
        outputs: topics that are partitioned like this one, as its agents send to them from the same partition.
        partitions: how many the topic will have by then, if it is not as many as it has.
    """
    starts, ends = await first_offsets(log, topic), await log.end_offsets(topic)
    before = await log.positions(group, topic)
    if isinstance(where, int):
        after: Mapping[TopicPartition, int] = await log.offsets_at(topic, where)
    elif where == "current":
        after = {t: before[t] if starts[t] <= before[t] <= end else starts[t] for t, end in ends.items()}
    else:
        after = starts if where == "earliest" else ends
    found = {spec.name: spec.partitions for spec in await log.topics()}
    changelogs = {changelog_topic(group, name): name for name in (*tables, *sums)}
    # A topic that was made anew may have fewer than its tables, which cannot lose any.
    total = max([partitions or len(ends), *(found.get(name, 0) for name in changelogs)])
    growing = outputs if partitions else [topic, *outputs]
    return Reset(
        group,
        [Move(target, before[target], after[target]) for target in sorted(ends)],
        [Growth(name, found[name], total) for name in (*growing, *changelogs) if found.get(name, total) < total],
        [name for name, table in changelogs.items() if table in tables and name in found],
    )


async def carry_out(log: Log, reset: Reset) -> int:
    """Do it; returns how many table entries were deleted. No worker of the group may run.

    Partitions are added first; a crash then leaves what only a worker with other tables would read. Entries and
    positions are one commit: there is either the old state or the new one. Keys are held in memory until then.
    """
    for growth in reset.grown:
        await log.extend_topic(growth.topic, growth.after)
    changes, count = [], 0
    for name in reset.emptied:
        for number in range(log.partitions(name)):
            target = TopicPartition(name, number)
            entries: dict[bytes, bytes | None] = {}
            async for chunk in log.restore(target):
                entries.update((key, None) for key, _ in chunk)
            count += len(entries)
            if isinstance(log, SharedLog) and (first := await log.first_offset(target)):
                entries[BEGIN_KEY] = b"%d" % first  # what was deleted before is not missed any more
            if entries:
                changes.append(Changes(target, entries))
    positions = {move.target: move.after for move in reset.moves}
    await log.commit(Transaction(changes=changes, group=reset.group, positions=positions))
    return count
