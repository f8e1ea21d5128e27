"""One Kafka transaction after another: what a commit is made of, on the I/O thread."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import aiokafka.errors as kafka_errors
import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.client import ConnectionGroup, CoordinationType
from aiokafka.producer.sender import BaseHandler, Sender
from aiokafka.structs import TopicPartition as KafkaPartition

from headrace.engine.clock import Clock
from headrace.engine.errors import CommitRefused, LogError
from headrace.engine.kafka.codec import encode
from headrace.engine.kafka.protocol import FencedOffsetCommit
from headrace.engine.log import Member, TopicPartition, Transaction
from headrace.engine.records import Records

#: Error codes of a commit that comes too late, the group gave the partitions out anew: illegal generation, unknown
#: member, rebalance in progress, fenced instance id.
MOVED_ON = frozenset({22, 25, 27, 82})
#: … of a group coordinator that is elsewhere now: not available, not coordinator, timed out.
COORDINATOR_GONE = frozenset({15, 16, 7})
#: … that pass: loading, topic not known yet.
NOT_YET = frozenset({14, 3})
#: The cluster refuses for good: trying again does not help.
FORBIDDEN = (
    kafka_errors.TopicAuthorizationFailedError,
    kafka_errors.GroupAuthorizationFailedError,
    kafka_errors.ClusterAuthorizationFailedError,
    kafka_errors.TransactionalIdAuthorizationFailed,
    kafka_errors.MessageSizeTooLargeError,
    kafka_errors.InvalidTimestampError,
)
RETRY_PAUSE = 0.2
CLOSE_TIMEOUT = 3.0

log = structlog.get_logger(__name__)

#: Starts a transactional producer.
MakeProducer = Callable[[], AIOKafkaProducer]


class Transactions:
    """Carries out transactions one by one with a single producer, and makes a new one when the cluster forgot it.

    A producer of the same `transactional_id` that starts later fences this one: its open transaction is aborted.
    """

    def __init__(self, make_producer: MakeProducer, clock: Clock, compression: str) -> None:
        self._make_producer = make_producer
        self._clock = clock
        self._compression = compression
        self._producer: AIOKafkaProducer | None = None
        self.count = 0

    async def carry_out(self, transaction: Transaction, records: Mapping[TopicPartition, Records]) -> None:
        """Write `records` and the transaction's positions, atomically; retries whatever passes.

        Args:
            records: all that is written, changelogs included, by partition.
        Raises:
            CommitRefused: the member has lost its partitions, or, with positions, the producer was fenced.
            LogError: Kafka will never take this.
        """
        while True:
            producer = await self._started()
            try:
                await self._attempt(producer, transaction, records)
                self.count += 1
                return
            except _MovedOn as error:
                await self._discard(producer)
                raise CommitRefused(f"group {transaction.group} has given out its partitions anew") from error
            except FORBIDDEN as error:
                await self._discard(producer)
                raise LogError(f"Kafka refuses to write: {error!r}") from error
            except kafka_errors.KafkaError as error:
                # Fenced: the transaction took too long and was aborted, or a process of the same name started.
                log.warning("transaction_repeated", error=repr(error), positions=len(transaction.positions))
                await self._discard(producer)
                if transaction.positions:
                    raise CommitRefused(f"Kafka aborted the transaction: {error!r}") from error
                await self._clock.sleep(RETRY_PAUSE)

    async def close(self) -> None:
        """Let go of the producer; an open transaction is aborted by the cluster."""
        if self._producer is not None:
            await self._discard(self._producer)

    async def _started(self) -> AIOKafkaProducer:
        """The producer, known to the cluster: whatever its predecessor left open is aborted or finished by then."""
        while self._producer is None:
            producer = self._make_producer()
            producer._sender = _FencedSender.of(producer)
            try:
                await producer.start()
            except FORBIDDEN as error:
                await self._discard(producer)
                raise LogError(f"Kafka refuses transactions: {error!r}") from error
            except kafka_errors.KafkaError as error:
                log.warning("producer_waits_for_kafka", error=repr(error))
                await self._discard(producer)
                await self._clock.sleep(RETRY_PAUSE)
            else:
                self._producer = producer
        return self._producer

    async def _attempt(
        self, producer: AIOKafkaProducer, transaction: Transaction, records: Mapping[TopicPartition, Records]
    ) -> None:
        await producer.begin_transaction()
        sends = [asyncio.ensure_future(self._send(producer, target, rows)) for target, rows in records.items()]
        try:
            if transaction.positions:
                await self._send_positions(producer, transaction)
            for send in sends:
                await send
        finally:
            for send in sends:
                send.cancel()
            await asyncio.gather(*sends, return_exceptions=True)
        await producer.commit_transaction()

    async def _send(self, producer: AIOKafkaProducer, target: TopicPartition, records: Records) -> None:
        written = [
            await producer.send_batch(batch, target.topic, partition=target.partition)
            for batch in encode(records, self._compression)
        ]
        for each in written:
            # A batch that failed does not fail aiokafka's transaction by itself.
            await each

    async def _send_positions(self, producer: AIOKafkaProducer, transaction: Transaction) -> None:
        sender = producer._sender
        assert isinstance(sender, _FencedSender)
        sender.member = transaction.member or Member()
        await producer.send_offsets_to_transaction(
            {KafkaPartition(*target): offset for target, offset in transaction.positions.items()}, transaction.group
        )

    async def _discard(self, producer: AIOKafkaProducer) -> None:
        """Let go without sending what is left; the next producer's start aborts it.

        Not `abort_transaction`: after an error aiokafka forgets what it wrote and does not tell the cluster, which
        would commit it with the next transaction (see `test_refused_commit_is_not_committed_with_the_next`).
        """
        self._producer = None
        producer._closed = True
        with contextlib.suppress(TimeoutError, kafka_errors.KafkaError):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await producer._sender.close()
        await producer.client.close()


class _MovedOn(kafka_errors.KafkaError):
    """A `TxnOffsetCommit` was answered with one of `MOVED_ON`."""


class _FencedSender(Sender):
    """aiokafka's sender, whose offset commits say which member of the group they are from.

    aiokafka knows version 0 of the request, which any worker may send for any partition, however late.
    """

    member = Member()

    @classmethod
    def of(cls, producer: AIOKafkaProducer) -> "_FencedSender":
        """A replacement for the sender that `producer` was made with."""
        made = producer._sender
        return cls(
            made.client,
            acks=made._acks,
            txn_manager=made._txn_manager,
            message_accumulator=made._message_accumulator,
            retry_backoff_ms=made._retry_backoff * 1000,
            request_timeout_ms=made._request_timeout_ms,
        )

    async def _do_txn_offset_commit(self, offsets: dict[Any, Any], group_id: str) -> None:
        node = await self._find_coordinator(CoordinationType.GROUP, group_id)
        await _FencedCommitHandler(self, offsets, group_id).do(node)


class _FencedCommitHandler(BaseHandler):
    group = ConnectionGroup.COORDINATION

    def __init__(self, sender: _FencedSender, offsets: dict[Any, Any], group: str) -> None:
        super().__init__(sender)
        self._offsets = offsets
        self._group = group

    def create_request(self) -> FencedOffsetCommit:
        manager = self._sender._txn_manager
        positions = {TopicPartition(*target): each.offset for target, each in self._offsets.items()}
        return FencedOffsetCommit(
            manager.transactional_id,
            self._group,
            manager.producer_id,
            manager.producer_epoch,
            self._sender.member,
            positions,
        )

    def handle_response(self, response: Any) -> float | None:
        manager = self._sender._txn_manager
        codes = {code for _, rows, _ in response.errors for _, code, _ in rows} - {0}
        if codes & COORDINATOR_GONE:
            self._sender._coordinator_dead(CoordinationType.GROUP)
            return self._default_backoff
        if codes & NOT_YET:
            return self._default_backoff
        if codes:
            code = min(codes)
            error = _MovedOn(f"error code {code}") if codes & MOVED_ON else kafka_errors.for_code(code)(self._group)
            manager.error_transaction(error)
            return None
        for target, each in list(self._offsets.items()):
            manager.offset_committed(target, each.offset, self._group)
        return None

    def handle_error(self) -> float:
        self._sender._coordinator_dead(CoordinationType.GROUP)
        return self._default_backoff
