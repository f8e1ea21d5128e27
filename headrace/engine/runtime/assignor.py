"""Shares out partitions among the workers of a group: evenly, and so that as few as possible move."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from aiokafka.cluster import ClusterMetadata
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from faust.assignor.client_assignment import ClientAssignment
from faust.assignor.partition_assignor import PartitionAssignor

from headrace.engine.log import TopicPartition

VERSION = 0


class _Claim(msgspec.Struct, array_like=True):
    """What a worker had after a round. Of two that claim a partition, the one of the later round has it."""

    round: int = 0
    partitions: dict[str, list[int]] = {}
    standbys: dict[str, list[int]] = {}


class _Given(msgspec.Struct, array_like=True):
    """What a worker is told beside its partitions: the round, and the partitions whose tables it keeps a copy of."""

    round: int
    standbys: dict[str, list[int]]


class _Past(NamedTuple):
    """Who had each partition, and who kept copies of its tables."""

    owners: dict[tuple[str, int], str]
    copies: dict[tuple[str, int], list[str]]


class StickyAssignor(PartitionAssignor):
    """Topics with the same readers and as many partitions are co-partitioned: number 3 of each goes to one worker.

    Of such topics one worker has at most one partition more than another. Faust fills up one worker after another:
    eight partitions for five workers are 2, 2, 2, 2 and none.

    Beside its owner each partition has `table_standby_replicas` workers that keep copies of its tables, as far as there
    are others. They come first when the owner is gone (see `test_standby_takes_over`).
    """

    name = "headrace"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._claim = _Claim()
        #: Partitions whose tables this worker keeps a copy of.
        self.standbys: frozenset[TopicPartition] = frozenset()

    def metadata(self, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
        """What this worker tells the leader of the group: what it wants to read, and what it had."""
        return ConsumerProtocolMemberMetadata(VERSION, sorted(topics), msgspec.msgpack.encode(self._claim))

    def on_assignment(self, assignment: ConsumerProtocolMemberAssignment) -> None:
        """What this worker got."""
        partitions = {topic: sorted(numbers) for topic, numbers in assignment.assignment}
        given = msgspec.msgpack.decode(assignment.user_data, type=_Given)
        self._claim = _Claim(given.round, partitions, given.standbys)
        self.standbys = frozenset(
            TopicPartition(topic, number) for topic, numbers in given.standbys.items() for number in numbers
        )
        # What Faust's web view of the assignment shows.
        self._assignment = ClientAssignment(actives=partitions, standbys=given.standbys)

    def assign(
        self, cluster: ClusterMetadata, members: Mapping[str, ConsumerProtocolMemberMetadata]
    ) -> dict[str, ConsumerProtocolMemberAssignment]:
        """Share out, for the whole group; called on its leader."""
        claims = {member: _decode_claim(said.user_data) for member, said in members.items()}
        past = _past(claims)
        given: dict[str, dict[str, list[int]]] = {member: {} for member in members}
        standbys: dict[str, dict[str, list[int]]] = {member: {} for member in members}
        for (readers, count), topics in sorted(_co_partitioned(cluster, members).items()):
            load = {member: sum(map(len, given[member].values())) for member in readers}
            had = {number: past.owners.get((topics[0], number), "") for number in range(count)}
            copies = {number: past.copies.get((topics[0], number), []) for number in range(count)}
            shares = share_out(count, load, had, copies)
            for member, numbers in shares.items():
                given[member] |= {topic: numbers for topic in topics if numbers}
            for member, numbers in share_copies(self.replicas, shares, copies).items():
                standbys[member] |= {topic: numbers for topic in topics if numbers}
        turn = max(claim.round for claim in claims.values()) + 1
        return {
            member: ConsumerProtocolMemberAssignment(
                VERSION, list(parts.items()), msgspec.msgpack.encode(_Given(turn, standbys[member]))
            )
            for member, parts in given.items()
        }


def share_out(
    count: int, load: Mapping[str, int], before: Mapping[int, str], copies: Mapping[int, Collection[str]] | None = None
) -> dict[str, list[int]]:
    """Partition numbers from 0 to `count` - 1 by member.

    Args:
        load: by member, how many other partitions it has; who has fewer gets one more.
        before: who had a partition; anything else if nobody here did.
        copies: who keeps a copy of its tables, and is given it first when it has to move.

    >>> share_out(5, {"new": 0, "old": 0}, {0: "old", 1: "old", 2: "old", 3: "old", 4: "gone"})
    {'new': [3, 4], 'old': [0, 1, 2]}
    """
    least, extra = divmod(count, len(load))
    kept: dict[str, list[int]] = {member: [] for member in load}
    for number in range(count):
        if before.get(number) in kept:
            kept[before[number]].append(number)
    moving = [(copies or {}).get(number, ()) for number in range(count) if before.get(number) not in kept]
    warm = Counter(member for holders in moving for member in holders)
    # One more than others is for those who have more already, then for those with the least to do elsewhere.
    by_need = sorted(load, key=lambda each: (len(kept[each]) <= least, load[each], -warm[each], each))
    quota = {member: least + (place < extra) for place, member in enumerate(by_need)}
    shares = {member: kept[member][: quota[member]] for member in load}
    left = [number for number in range(count) if not any(number in share for share in shares.values())]
    for number in list(left):
        holders = [
            each for each in (copies or {}).get(number, ()) if each in shares and len(shares[each]) < quota[each]
        ]
        if holders:
            shares[max(holders, key=lambda member: quota[member] - len(shares[member]))].append(number)
            left.remove(number)
    for member, share in shares.items():
        missing = quota[member] - len(share)
        share.extend(left[:missing])
        share.sort()
        del left[:missing]
    return shares


def share_copies(
    wanted: int, shares: Mapping[str, Sequence[int]], before: Mapping[int, Collection[str]]
) -> dict[str, list[int]]:
    """Partition numbers by member that keeps copies of their tables; of each partition `wanted`, if there are so many.

    Args:
        shares: who has what; nobody keeps a copy of his own.
        before: who keeps copies already, and goes on with it unless that is more than others have.

    >>> share_copies(1, {"a": [0, 1], "b": [2], "c": [3]}, {})
    {'a': [], 'b': [0, 3], 'c': [1, 2]}
    """
    wanted = min(wanted, len(shares) - 1)
    owners = {number: member for member, numbers in shares.items() for number in numbers}
    most = -(-wanted * len(owners) // len(shares))
    kept: dict[str, list[int]] = {member: [] for member in shares}
    spread = Counter[tuple[str, str]]()

    def keep(number: int, member: str) -> None:
        kept[member].append(number)
        spread[owners[number], member] += 1

    for number in sorted(owners):
        for member in before.get(number, ()):
            here = sum(number in numbers for numbers in kept.values())
            if member in kept and member != owners[number] and here < wanted and len(kept[member]) < most:
                keep(number, member)
    for number in sorted(owners):
        while sum(number in numbers for numbers in kept.values()) < wanted:
            others = [member for member in kept if member != owners[number] and number not in kept[member]]
            # Spread over all others, and with those who have little to do: they get one more when the owner is gone.
            keep(
                number, min(others, key=lambda each: (spread[owners[number], each], len(shares[each]), len(kept[each])))
            )
    return {member: sorted(numbers) for member, numbers in kept.items()}


def _past(claims: Mapping[str, _Claim]) -> _Past:
    past = _Past({}, {})
    for member in sorted(claims, key=lambda each: claims[each].round):
        for topic, numbers in claims[member].partitions.items():
            past.owners.update(((topic, number), member) for number in numbers)
    latest = max(claim.round for claim in claims.values())
    for member, claim in sorted(claims.items()):
        for topic, numbers in claim.standbys.items() if claim.round == latest else ():
            for number in numbers:
                past.copies.setdefault((topic, number), []).append(member)
    return past


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
