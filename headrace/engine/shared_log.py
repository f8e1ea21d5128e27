"""What only a log can do that many workers share."""

from collections.abc import Set
from typing import Protocol, runtime_checkable

from headrace.engine.log import TopicPartition


@runtime_checkable
class SharedLog(Protocol):
    """A log on a cluster: several workers take over from each other, and administrators see to it."""

    async def stand_by(self, targets: Set[TopicPartition]) -> None:
        """Keep copies of these compacted partitions from now on, and of no others; returns before they are read.

        They follow in the background, about a second behind. `restore`, and `catch_up` from nothing, take the copy and
        read only what came since. Memory: every key and its newest value, as bytes.
        """
        ...

    async def first_offset(self, target: TopicPartition) -> int:
        """Records before it were deleted, of whatever key; 0 if none ever were. Compaction does not move it."""
        ...
