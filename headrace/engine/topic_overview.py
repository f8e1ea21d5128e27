"""How topics stand: where their partitions begin and end, who reads them, and how far behind."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from headrace.engine.log import Log, TopicPartition, TopicSpec
from headrace.engine.log_range import first_offsets


@dataclass(frozen=True, slots=True)
class GroupView:
    """A consumer group on one topic: committed positions, and owners as text, both by partition."""

    group: str
    positions: Mapping[TopicPartition, int]
    owners: Mapping[TopicPartition, str]


@dataclass(frozen=True, slots=True)
class TopicView:
    """One topic, all offsets by partition.

    Args:
        starts, ends: the oldest offset kept, and the one the next record gets. Of a compacted topic they say little.
        groups: those that read it.
    """

    spec: TopicSpec
    starts: Mapping[TopicPartition, int]
    ends: Mapping[TopicPartition, int]
    groups: Sequence[GroupView]

    @property
    def records(self) -> int | None:
        """Records that are kept, count; None for a compacted topic. On Kafka its own markers count, too."""
        return None if self.spec.compacted else sum(end - self.starts[target] for target, end in self.ends.items())

    def lag(self, view: GroupView, target: TopicPartition) -> int:
        """Records of a partition that the group has still to read, count."""
        return max(0, self.ends[target] - max(view.positions[target], self.starts[target]))

    def total_lag(self, view: GroupView) -> int:
        """The same over all partitions."""
        return sum(self.lag(view, target) for target in self.ends)


async def overview(
    log: Log,
    names: Collection[str] | None,
    readers: Mapping[str, Collection[str] | None],
    owners: Mapping[str, Mapping[TopicPartition, str]],
) -> list[TopicView]:
    """The topics of the log, by name.

    Args:
        names: only these.
        readers: by group the topics that it reads; None if nobody knows: those in which it has a position.
        owners: by group, who has which partition.
    """
    return [
        await _view(log, spec, readers, owners) for spec in await log.topics() if names is None or spec.name in names
    ]


async def key_counts(log: Log, topic: TopicSpec) -> list[int]:
    """How many keys each partition of a compacted topic has, count. Reads all of it."""
    return [
        sum([len(part) async for part in log.restore(TopicPartition(topic.name, number))])
        for number in range(topic.partitions)
    ]


async def _view(
    log: Log,
    spec: TopicSpec,
    readers: Mapping[str, Collection[str] | None],
    owners: Mapping[str, Mapping[TopicPartition, str]],
) -> TopicView:
    ends = await log.end_offsets(spec.name)
    starts = dict.fromkeys(ends, 0) if spec.compacted else await first_offsets(log, spec.name)
    groups = []
    for group, topics in readers.items():
        if topics is not None and spec.name not in topics:
            continue
        positions = await log.positions(group, spec.name)
        own = {target: name for target, name in owners.get(group, {}).items() if target.topic == spec.name}
        if topics is not None or any(positions.values()) or own:
            groups.append(GroupView(group, positions, own))
    return TopicView(spec, starts, ends, groups)
