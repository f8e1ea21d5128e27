"""One Kafka transaction after another: what a commit is made of, and what becomes of one that fails."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import aiokafka.errors as kafka_errors
import structlog

from headrace.engine.clock import Clock
from headrace.engine.errors import CommitRefused, LogError, first
from headrace.engine.kafka.client import UNAUTHORIZED, UNKNOWN_TOPIC, Rejected
from headrace.engine.kafka.encoding import encode
from headrace.engine.kafka.fetch import is_committed
from headrace.engine.kafka.producer import Producer
from headrace.engine.log import Member, TopicPartition, Transaction
from headrace.engine.records import Records

#: Error codes of a commit that comes too late, the group gave the partitions out anew: illegal generation, unknown
#: member, rebalance in progress, fenced instance id.
MOVED_ON = frozenset({22, 25, 27, 82})
#: The cluster will never take this: record or batch too large, unknown topic, topic name, time stamp, version, message
#: format, policy, timeout of the transaction, compression, invalid record.
FORBIDDEN = UNAUTHORIZED | {10, UNKNOWN_TOPIC, 17, 18, 32, 35, 43, 44, 50, 76, 87}
#: Aborted by the cluster: it took too long, or a process of the same name started.
FENCED = frozenset({47, 90})
#: Longest pause before a transaction is repeated, seconds.
RETRY_PAUSE = 0.5
#: Seconds to abort a transaction in, before it is left to the cluster's timeout.
ABORT_TIMEOUT = 3.0

log = structlog.get_logger(__name__)

#: Makes a producer that is connected.
MakeProducer = Callable[[], Awaitable[Producer]]


@dataclass(slots=True)
class _Progress:
    """How far a transaction came: where its records are, and whether its end was asked for."""

    firsts: dict[TopicPartition, int] = field(default_factory=dict)
    ending: bool = False


class Transactions:
    """Carries out transactions one by one, on the I/O thread.

    A producer of the same name that registers later fences this one: its open transaction is aborted.
    """

    def __init__(self, make_producer: MakeProducer, clock: Clock, compression: str) -> None:
        self._make_producer = make_producer
        self._clock = clock
        self._compression = compression
        self._producer: Producer | None = None
        self._registered = False
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
            producer = await self._ready()
            progress = _Progress()
            self._registered = False
            try:
                await self._attempt(producer, transaction, records, progress)
            except kafka_errors.KafkaError as error:
                if _code(error) not in FENCED:
                    await self._abort()
                _raise_final(error, transaction)
                log.warning("transaction_repeated", name=producer.name, error=str(error))
                # A rival of our name would be fenced in turn: chance lets one of both through.
                await self._clock.sleep(random.uniform(0, RETRY_PAUSE))
                if not (progress.ending and await self._was_committed(progress)):
                    continue
            self._registered = True
            self.count += 1
            return

    async def close(self) -> None:
        """Abort what is open and let go of the connections."""
        if self._producer is not None:
            if not self._registered:
                await self._abort()
            await self._producer.client.close()
            self._producer = None

    async def _ready(self) -> Producer:
        """The producer, known to the cluster: whatever its predecessor left open is aborted or finished by then."""
        while self._producer is None or not self._registered:
            try:
                if self._producer is None:
                    self._producer = await self._make_producer()
                await self._producer.register()
                self._registered = True
            except kafka_errors.KafkaError as error:
                if _code(error) in FORBIDDEN:
                    raise LogError(f"Kafka refuses transactions: {error}") from error
                log.warning("producer_waits_for_kafka", error=str(error))
                await self._clock.sleep(RETRY_PAUSE)
        return self._producer

    async def _attempt(
        self,
        producer: Producer,
        transaction: Transaction,
        records: Mapping[TopicPartition, Records],
        progress: _Progress,
    ) -> None:
        if records:
            await producer.add_partitions(records)
        batches = {target: encode(rows, self._compression) for target, rows in records.items()}
        try:
            async with asyncio.TaskGroup() as group:
                write = group.create_task(producer.write(batches))
                if transaction.positions:
                    group.create_task(self._send_positions(producer, transaction))
        except BaseExceptionGroup as errors:
            raise first(errors) from errors
        progress.firsts = write.result()
        progress.ending = True
        await producer.end()

    @staticmethod
    async def _send_positions(producer: Producer, transaction: Transaction) -> None:
        await producer.add_group(transaction.group)
        await producer.commit_positions(transaction.group, transaction.positions, transaction.member or Member())

    async def _abort(self) -> None:
        """Registering anew aborts what is open, so that readers need not wait for its timeout."""
        assert self._producer is not None
        with contextlib.suppress(TimeoutError, kafka_errors.KafkaError):
            async with asyncio.timeout(ABORT_TIMEOUT):
                await self._producer.register()
                self._registered = True

    async def _was_committed(self, progress: _Progress) -> bool:
        """Whether a transaction was committed after all: its end may not have been answered before a rival came."""
        producer = await self._ready()
        target, offset = next(iter(progress.firsts.items()))
        return await is_committed(producer.client, target, offset, self._clock)


def _raise_final(error: kafka_errors.KafkaError, transaction: Transaction) -> None:
    """Raise what the caller is to see of `error`; nothing if the transaction is to be repeated."""
    if _code(error) in MOVED_ON:
        raise CommitRefused(f"group {transaction.group} has given out its partitions anew") from error
    if _code(error) in FORBIDDEN:
        raise LogError(f"Kafka refuses to write: {error}") from error
    if transaction.positions:
        raise CommitRefused(f"Kafka aborted the transaction: {error}") from error


def _code(error: kafka_errors.KafkaError) -> int:
    code = error.code if isinstance(error, Rejected) else getattr(error, "errno", 0)
    return int(code)
