"""Starts a consumer group over on one topic: other positions, empty tables, in one step."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from headrace.engine.errors import ConfigError
from headrace.engine.log import Changes, Log, TopicPartition, Transaction
from headrace.engine.log_range import first_offsets
from headrace.engine.runtime.tables import changelog_topic

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
class Table:
    """What happens to one changelog.

    Args:
        topic: its topic.
        partitions: how many it has, and will have.
        emptied: whether its entries are deleted.
    """

    topic: str
    partitions: tuple[int, int]
    emptied: bool


@dataclass(frozen=True, slots=True)
class Reset:
    """A plan for `carry_out`."""

    group: str
    moves: Sequence[Move]
    tables: Sequence[Table]


async def plan_reset(
    log: Log, group: str, topic: str, where: Where, tables: Collection[str], sums: Collection[str] = ()
) -> Reset:
    """What a reset would do.

    Args:
        group: whose positions and tables.
        topic: must exist, and not be compacted.
        tables: names of tables of the group's agents that read the topic: kept per key, so they are emptied.
        sums: names of such tables that only add up, whatever the partition of a key: they stay.
    Raises:
        ConfigError: a table has more partitions than the topic, which nothing can take away.
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
    changes = []
    mistakes = []
    for name in (*tables, *sums):
        changelog = changelog_topic(group, name)
        if changelog not in found:
            continue
        if found[changelog] > len(ends):
            mistakes.append(
                f"{changelog} has {found[changelog]} partitions, more than {topic} with {len(ends)}: "
                f"add partitions to {topic}, or delete {changelog}"
            )
        changes.append(Table(changelog, (found[changelog], len(ends)), name in tables))
    if mistakes:
        raise ConfigError(*mistakes)
    return Reset(group, [Move(target, before[target], after[target]) for target in sorted(ends)], changes)


async def carry_out(log: Log, reset: Reset) -> int:
    """Do it; returns how many table entries were deleted. No worker of the group may run.

    Partitions are added first; that alone changes nothing that a worker would read. Entries and positions then are one
    commit: a crash leaves either the old state or the new one. Keys are held in memory until then.
    """
    for table in reset.tables:
        if table.partitions[0] < table.partitions[1]:
            await log.extend_topic(table.topic, table.partitions[1])
    changes = []
    for table in reset.tables:
        for number in range(table.partitions[1] if table.emptied else 0):
            target = TopicPartition(table.topic, number)
            entries: dict[bytes, bytes | None] = {}
            async for chunk in log.restore(target):
                entries.update((key, None) for key, _ in chunk)
            if entries:
                changes.append(Changes(target, entries))
    positions = {move.target: move.after for move in reset.moves}
    await log.commit(Transaction(changes=changes, group=reset.group, positions=positions))
    return sum(len(change.entries) for change in changes)
