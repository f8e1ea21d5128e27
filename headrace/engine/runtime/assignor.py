"""Shares out partitions among the workers of a group: evenly, and so that as few as possible move."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from aiokafka.cluster import ClusterMetadata
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from faust.assignor.client_assignment import ClientAssignment
from faust.assignor.partition_assignor import PartitionAssignor

VERSION = 0


class _Claim(msgspec.Struct, array_like=True):
    """What a worker had after a round. Of two that claim a partition, the one of the later round has it."""

    round: int = 0
    partitions: dict[str, list[int]] = {}


class StickyAssignor(PartitionAssignor):
    """Topics with the same readers and as many partitions are co-partitioned: number 3 of each goes to one worker.

    Of such topics one worker has at most one partition more than another. Faust fills up one worker after another:
    eight partitions for five workers are 2, 2, 2, 2 and none.
    """

    name = "headrace"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._claim = _Claim()

    def metadata(self, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
        """What this worker tells the leader of the group: what it wants to read, and what it had."""
        return ConsumerProtocolMemberMetadata(VERSION, sorted(topics), msgspec.msgpack.encode(self._claim))

    def on_assignment(self, assignment: ConsumerProtocolMemberAssignment) -> None:
        """What this worker got."""
        partitions = {topic: sorted(numbers) for topic, numbers in assignment.assignment}
        self._claim = _Claim(msgspec.msgpack.decode(assignment.user_data, type=int), partitions)
        # What Faust's web view of the assignment shows.
        self._assignment = ClientAssignment(actives=partitions, standbys={})

    def assign(
        self, cluster: ClusterMetadata, members: Mapping[str, ConsumerProtocolMemberMetadata]
    ) -> dict[str, ConsumerProtocolMemberAssignment]:
        """Share out, for the whole group; called on its leader."""
        claims = {member: _decode_claim(said.user_data) for member, said in members.items()}
        before: dict[tuple[str, int], str] = {}
        for member in sorted(claims, key=lambda each: claims[each].round):
            for topic, numbers in claims[member].partitions.items():
                before |= dict.fromkeys(((topic, number) for number in numbers), member)
        given: dict[str, list[tuple[str, list[int]]]] = {member: [] for member in members}
        for (readers, count), topics in sorted(_co_partitioned(cluster, members).items()):
            load = {member: sum(len(numbers) for _, numbers in given[member]) for member in readers}
            had = {number: before.get((topics[0], number), "") for number in range(count)}
            for member, numbers in share_out(count, load, had).items():
                given[member] += [(topic, numbers) for topic in topics if numbers]
        turn = msgspec.msgpack.encode(max(claim.round for claim in claims.values()) + 1)
        return {member: ConsumerProtocolMemberAssignment(VERSION, parts, turn) for member, parts in given.items()}


def share_out(count: int, load: Mapping[str, int], before: Mapping[int, str]) -> dict[str, list[int]]:
    """Partition numbers from 0 to `count` - 1 by member.

    Args:
        load: by member, how many other partitions it has; who has fewer gets one more.
        before: who had a partition; anything else if nobody here did.

    >>> share_out(5, {"new": 0, "old": 0}, {0: "old", 1: "old", 2: "old", 3: "old", 4: "gone"})
    {'new': [3, 4], 'old': [0, 1, 2]}
    """
    least, extra = divmod(count, len(load))
    kept: dict[str, list[int]] = {member: [] for member in load}
    for number in range(count):
        if before.get(number) in kept:
            kept[before[number]].append(number)
    # One more than others is for those who have more already, then for those with the least to do elsewhere.
    by_need = sorted(load, key=lambda member: (len(kept[member]) <= least, load[member], member))
    quota = {member: least + (place < extra) for place, member in enumerate(by_need)}
    shares = {member: kept[member][: quota[member]] for member in load}
    left = [number for number in range(count) if not any(number in share for share in shares.values())]
    for member, share in shares.items():
        missing = quota[member] - len(share)
        share.extend(left[:missing])
        share.sort()
        del left[:missing]
    return shares


def _co_partitioned(
    cluster: ClusterMetadata, members: Mapping[str, ConsumerProtocolMemberMetadata]
) -> dict[tuple[tuple[str, ...], int], Sequence[str]]:
    """Topics by who reads them and how many partitions they have; one that does not exist yet is left out."""
    readers: dict[str, list[str]] = {}
    for member in sorted(members):
        for topic in members[member].subscription:
            readers.setdefault(topic, []).append(member)
    found: dict[tuple[tuple[str, ...], int], list[str]] = {}
    for topic in sorted(readers):
        count = len(cluster.partitions_for_topic(topic) or ())
        if count:
            found.setdefault((tuple(readers[topic]), count), []).append(topic)
    return dict(found)


def _decode_claim(user_data: bytes | None) -> _Claim:
    """A member that says nothing, or nothing that can be read, had nothing."""
    try:
        return msgspec.msgpack.decode(user_data or b"", type=_Claim)
    except msgspec.DecodeError:
        return _Claim()
