"""One transaction at a time, request by request, on the I/O thread.

aiokafka's producer is not used: it commits positions without saying who commits them, waits 20 or 100 ms where 2 will
do, and after an error forgets what it wrote without telling the cluster, which commits it with the next transaction.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any, NamedTuple

import aiokafka.errors as kafka_errors
from aiokafka.client import ConnectionGroup, CoordinationType
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import (
    AddOffsetsToTxnRequest,
    AddPartitionsToTxnRequest,
    EndTxnRequest,
    InitProducerIdRequest,
)

from headrace.engine.clock import Clock
from headrace.engine.kafka.client import COORDINATOR_GONE, PASSING, UNKNOWN_TOPIC, Client, Rejected, ask, passes
from headrace.engine.kafka.encoding import EncodedBatch
from headrace.engine.kafka.open_transactions import open_partitions
from headrace.engine.kafka.protocol import by_topic, numbers_by_topic
from headrace.engine.kafka.protocol_transactions import DescribeTransaction, FencedOffsetCommit
from headrace.engine.log import Member, TopicPartition

DUPLICATE_SEQUENCE, NO_SUCH_NAME = 46, 105
#: States of a transaction whose outcome is known, and not yet in all its partitions.
ENDING = frozenset({"PrepareCommit", "PrepareAbort", "PrepareEpochFence"})
#: Between two tries of a request, seconds: at first, and at most. The end of the last transaction takes a few ms.
FIRST_PAUSE, LONGEST_PAUSE = 0.002, 0.2
#: Seconds for which a partition may be unknown to the cluster before it counts as gone.
PATIENCE = 30.0
#: Bytes of record batches per request, about; a broker refuses 100 MiB.
REQUEST_BYTES = 16 << 20
ACKS_ALL = -1
#: Seconds from which on a transaction took long: one takes some milliseconds, a very large one a few hundred.
SLOW = 1.0
#: Sequence numbers go on from 0 behind the last one.
SEQUENCES = 2**31

#: Coordinator of a transaction or a group: what of, and its name.
Coordinator = tuple[CoordinationType, str]


class Scope(NamedTuple):
    """What a transaction writes to: partitions, and the positions of a group if there is one."""

    targets: frozenset[TopicPartition]
    group: str = ""


@dataclass(slots=True)
class _Lane:
    """The batches of one partition: `head` is on its way, `ahead` comes after it."""

    batches: Iterator[EncodedBatch]
    head: bytes | None = None
    ahead: bytes | None = None
    unknown_since: float | None = None


class Producer:
    """Writes transactions under a name; whoever registers under the same name later puts an end to that.

    What passes is tried again, for as long as it takes. After any error the transaction is to be given up: `register`
    again, which aborts it. Every method raises KafkaError, `Rejected` where the cluster says why.

    Args:
        client: connected; the producer's own.
        name: the `transactional.id`.
        timeout: seconds after which the cluster aborts a transaction that was not ended.
    """

    def __init__(self, client: Client, name: str, timeout: float, clock: Clock) -> None:
        self.client = client
        self.name = name
        self._timeout_ms = round(timeout * 1000)
        self._clock = clock
        self._self: Coordinator = (CoordinationType.TRANSACTION, name)
        self._coordinators: dict[Coordinator, int] = {}
        #: The id is what partitions know the producer by; both are -1 before `register`.
        self.id, self._epoch = -1, -1
        self._sequences: dict[TopicPartition, int] = {}
        self._last: Scope | None = None
        #: Open at some time of the last transaction; one that is closed since then may mean that a broker has gone.
        self._connections: set[object] = set()
        self._began = 0.0
        #: Seconds that the last transaction took.
        self._took = 0.0

    async def outcome(self) -> bool | None:
        """Whether the last transaction under this name was committed; None if there was none since it was registered.

        To be asked before `register`, which forgets it.
        """
        state, _ = await self._ended()
        return {"CompleteCommit": True, "CompleteAbort": False, "Ongoing": False}.get(state)

    async def was_committed(self) -> bool:
        """Whether this producer's last transaction was committed, though nobody said so. Asked before `register`."""
        return await self._ended() == ("CompleteCommit", self._epoch)

    async def _ended(self) -> tuple[str, int]:
        """State and epoch of the last transaction under this name, once no marker of it is to be written any more."""
        pause = FIRST_PAUSE
        while True:
            try:
                response = await self._coordinate(self._self, DescribeTransaction(self.name), _states)
            except Rejected as error:
                if error.code == NO_SUCH_NAME:
                    return "", -1
                raise
            ((_, _, state, _, _, _, epoch, *_),) = response.transactions
            if state not in ENDING:
                return state, epoch
            await self._clock.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    async def register(self) -> None:
        """Begin anew: waits until whatever was left open under this name is aborted, or finished."""
        response = await self._coordinate(self._self, InitProducerIdRequest(self.name, self._timeout_ms), _code)
        self.id, self._epoch = response.producer_id, response.producer_epoch
        self._sequences.clear()

    async def begin(self, scope: Scope) -> None:
        """Say what the transaction writes to, before it does."""
        self._began = self._clock.monotonic()
        await self._extend(scope.targets, "" if scope.targets else scope.group)
        if self._last is not None and self._disturbed():
            await self.settle()
            await self._extend(scope.targets, "" if scope.targets else scope.group)
        self._last = None
        self._connections, self._began = self.client.connections(), self._clock.monotonic()

    async def commit_positions(self, group: str, positions: Mapping[TopicPartition, int], member: Member) -> None:
        """Commit positions; the group refuses them if `member` is not who it says."""
        await self._extend((), group)
        request = FencedOffsetCommit(self.name, group, self.id, self._epoch, member, positions)
        await self._coordinate((CoordinationType.GROUP, group), request, _codes)

    async def end(self, scope: Scope) -> None:
        """Commit. When this returns all is durable; it becomes visible together, in a few ms."""
        await self._end(True)
        self._last, self._took = scope, self._clock.monotonic() - self._began
        self._connections |= self.client.connections()

    async def mark(self, scope: Scope, commit: bool) -> None:
        """Write markers of a transaction without records: they end what an earlier one may have left hanging there.

        Kafka (seen with 4.3.1, KRaft) takes a partition that has no leader for deleted, and completes a transaction
        that ends just then without its marker. The records hang: nobody reads on there, and the producer's next marker
        counts for them, whatever it says (see `test_hanging_records_end_as_their_transaction_did`).
        """
        if any(scope):  # Kafka refuses to end a transaction without anything in it
            await self._extend(scope.targets, scope.group)
            await self._end(commit)

    async def settle(self) -> None:
        """Make sure that the last transaction, which was committed, is so in all its partitions."""
        if self._last is not None:
            await self.finish(self._last, commit=True)
            self._last = None

    async def finish(self, scope: Scope, commit: bool) -> None:
        """As `mark`, until nothing hangs there: who lost one marker may have no leader for the next one, too."""
        while any(scope):
            await self.mark(scope, commit)
            await self._ended()
            scope = Scope(await self._hanging(scope.targets))

    async def _hanging(self, targets: frozenset[TopicPartition]) -> frozenset[TopicPartition]:
        """Those of `targets` in which a transaction of this producer has not ended."""
        while targets:
            try:
                return await open_partitions(self.client, self.id, targets)
            except kafka_errors.KafkaError as error:
                if not passes(error):
                    raise
            await self._clock.sleep(LONGEST_PAUSE)
        return targets

    def _disturbed(self) -> bool:
        """Whether a partition may have had no leader before its marker of the last transaction was written.

        A broker has gone since that began. Or it took long, until its end was known here and to the coordinator: on a
        machine that is too busy the cluster gives up brokers that still answer.
        """
        gone = not self._connections <= self.client.connections()
        return gone or self._took + self._clock.monotonic() - self._began > SLOW

    async def _extend(self, targets: Iterable[TopicPartition], group: str) -> None:
        if targets:
            rows = list(numbers_by_topic(targets).items())
            await self._coordinate(self._self, AddPartitionsToTxnRequest(self.name, self.id, self._epoch, rows), _codes)
        if group:
            await self._coordinate(self._self, AddOffsetsToTxnRequest(self.name, self.id, self._epoch, group), _code)

    async def _end(self, commit: bool) -> None:
        await self._coordinate(self._self, EndTxnRequest(self.name, self.id, self._epoch, commit), _code)

    async def write(self, parts: Mapping[TopicPartition, Iterator[EncodedBatch]]) -> dict[TopicPartition, int]:
        """Write the batches of each partition, in order; returns the offset of the first one.

        While a batch is on its way the next one of its partition is encoded.
        """
        firsts: dict[TopicPartition, int] = {}
        lanes = {target: _Lane(batches) for target, batches in parts.items()}
        pause = FIRST_PAUSE
        await self._look_ahead(lanes)
        while self._step(lanes):
            written = await self._send(lanes)
            for target, offset in written.items():
                firsts.setdefault(target, offset)
                lanes[target].head = lanes[target].unknown_since = None
            if any(lane.head for lane in lanes.values()):
                await self._find_leaders(lanes)
                await self._clock.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
        return firsts

    async def _look_ahead(self, lanes: Mapping[TopicPartition, _Lane]) -> None:
        for target, lane in lanes.items():
            await self._clock.sleep(0)  # requests and responses of others go in between
            if lane.ahead is None and (batch := next(lane.batches, None)) is not None:
                sequence = self._sequences.get(target, 0)
                self._sequences[target] = (sequence + batch.total) % SEQUENCES
                lane.ahead = batch.build(self.id, self._epoch, sequence)

    @staticmethod
    def _step(lanes: dict[TopicPartition, _Lane]) -> bool:
        """Put the next batch in the place of one that was written; False when all were."""
        for target, lane in list(lanes.items()):
            if lane.head is None:
                lane.head, lane.ahead = lane.ahead, None
            if lane.head is None:
                del lanes[target]
        return bool(lanes)

    async def _send(self, lanes: Mapping[TopicPartition, _Lane]) -> dict[TopicPartition, int]:
        sends = [asyncio.create_task(self._produce(node, batches)) for node, batches in self._requests(lanes)]
        try:
            await self._look_ahead(lanes)
            written = await asyncio.gather(*sends)
            self._connections |= self.client.connections()
        finally:
            for send in sends:
                send.cancel()
            await asyncio.gather(*sends, return_exceptions=True)
        return {target: offset for each in written for target, offset in each.items()}

    def _requests(self, lanes: Mapping[TopicPartition, _Lane]) -> list[tuple[int, dict[TopicPartition, bytes]]]:
        """Which broker gets what; leaves out what has no leader now."""
        requests: list[tuple[int, dict[TopicPartition, bytes]]] = []
        last: dict[int, dict[TopicPartition, bytes]] = {}
        size: dict[int, int] = {}
        for target, lane in lanes.items():
            node = self.client.cluster.leader_for_partition(target)
            if node is None or node == -1 or lane.head is None:
                continue
            size[node] = size.get(node, 0) + len(lane.head)
            if node not in last or size[node] > REQUEST_BYTES:
                last[node], size[node] = {}, len(lane.head)
                requests.append((node, last[node]))
            last[node][target] = lane.head
        return requests

    async def _produce(self, node: int, batches: Mapping[TopicPartition, bytes]) -> dict[TopicPartition, int]:
        topics = list(by_topic(batches).items())
        request = ProduceRequest(self.name, ACKS_ALL, self.client._request_timeout_ms, topics)
        try:
            response = await ask(self.client, node, request)
        except kafka_errors.KafkaError as error:
            if not passes(error):
                raise
            return {}
        written = {}
        for topic, partitions in response.topics:
            for number, code, offset, *_ in partitions:
                if code in (0, DUPLICATE_SEQUENCE):
                    written[TopicPartition(topic, number)] = offset
                elif code not in PASSING:
                    raise Rejected(code, f"write to {topic}/{number}")
        return written

    async def _find_leaders(self, lanes: Mapping[TopicPartition, _Lane]) -> None:
        """Look again where the partitions are that were not written."""
        waiting = {target: lane for target, lane in lanes.items() if lane.head is not None}
        for target in waiting:
            self.client.add_topic(target.topic)
        await asyncio.wait([self.client.force_metadata_update()], timeout=LONGEST_PAUSE)
        now = self._clock.monotonic()
        for target, lane in waiting.items():
            if self.client.cluster.leader_for_partition(target) is not None:
                lane.unknown_since = None
            elif lane.unknown_since is None:
                lane.unknown_since = now
            elif now - lane.unknown_since > PATIENCE:
                raise Rejected(UNKNOWN_TOPIC, f"write to {target.topic}/{target.partition}")

    async def _coordinate(self, coordinator: Coordinator, request: Any, codes: Callable[[Any], Set[int]]) -> Any:
        """The coordinator's response to a request, once there is one without an error."""
        started = self._clock.monotonic()
        pause = FIRST_PAUSE
        while True:
            try:
                node = await self._node(coordinator)
                response = await ask(self.client, node, request, ConnectionGroup.COORDINATION)
            except kafka_errors.KafkaError as error:
                if not passes(error):
                    raise
                self._coordinators.pop(coordinator, None)
            else:
                found = codes(response) - {0}
                if not found:
                    return response
                late = self._clock.monotonic() - started > PATIENCE
                for code in found:
                    if code not in PASSING or (code == UNKNOWN_TOPIC and late):
                        raise Rejected(code, type(request).__name__)
                if found & COORDINATOR_GONE:
                    self._coordinators.pop(coordinator, None)
            await self._clock.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _node(self, coordinator: Coordinator) -> int:
        if coordinator not in self._coordinators:
            self._coordinators[coordinator] = await self.client.coordinator_lookup(*coordinator)
        return self._coordinators[coordinator]


def _states(response: Any) -> Set[int]:
    return {row[0] for row in response.transactions}


def _code(response: Any) -> Set[int]:
    return {response.error_code}


def _codes(response: Any) -> Set[int]:
    """The error codes of all partitions."""
    return {row[1] for _, rows, *_ in response.errors for row in rows}
