"""One Kafka transaction after another: what a commit is made of, and what becomes of one that fails."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import aiokafka.errors as kafka_errors
import structlog

from headrace.engine.cancel import cancel_and_wait
from headrace.engine.clock import Clock
from headrace.engine.errors import CommitRefused, LogError, first
from headrace.engine.kafka.claims import Claim
from headrace.engine.kafka.client import UNAUTHORIZED, UNKNOWN_TOPIC, Rejected
from headrace.engine.kafka.encoding import encode
from headrace.engine.kafka.fetch import is_committed
from headrace.engine.kafka.open_transactions import open_partitions
from headrace.engine.kafka.producer import Producer, Scope
from headrace.engine.log import Member, TopicPartition, Transaction
from headrace.engine.records import Records

#: Error codes of a commit that comes too late, the group gave the partitions out anew: illegal generation, unknown
#: member, rebalance in progress, fenced instance id.
MOVED_ON = frozenset({22, 25, 27, 82})
TOO_LARGE = 10
#: The cluster will never take this: record or batch too large, unknown topic, topic name, time stamp, version, message
#: format, policy, timeout of the transaction, compression, invalid record.
FORBIDDEN = UNAUTHORIZED | {TOO_LARGE, UNKNOWN_TOPIC, 17, 18, 32, 35, 43, 44, 50, 76, 87}
#: Aborted by the cluster: it took too long, or a process of the same name started.
FENCED = frozenset({47, 90})
RETRY_PAUSE = 0.2
#: Longest pause, seconds, of a producer that was fenced.
LONGEST_PAUSE = 0.5
#: Seconds to abort a transaction in when the log is closed, before it is left to the cluster's timeout.
CLOSE_TIMEOUT = 2.0

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

    Args:
        group: that positions are committed for.
        claim: of the producer's name, if only the last process that claimed it may write.
    """

    def __init__(
        self, make_producer: MakeProducer, group: str, clock: Clock, compression: str, claim: Claim | None = None
    ) -> None:
        self._make_producer = make_producer
        self._group = group
        self._clock = clock
        self._compression = compression
        self._claim = claim
        self._producer: Producer | None = None
        self._clean = False
        self._failed: Scope | None = None
        #: Whether what failed was committed after all; None where that is to be asked.
        self._took_effect: bool | None = False
        #: How the last transaction of a process that had the name before ended, until that is so in all its partitions.
        self._inherited: bool | None = None
        self._asked = False
        self._hold_off = 0.0
        self._preparing = asyncio.Lock()
        self._background: asyncio.Task[None] | None = None
        self.count = 0

    async def carry_out(
        self, transaction: Transaction, records: Mapping[TopicPartition, Records]
    ) -> Mapping[TopicPartition, int]:
        """Write `records` and the transaction's positions, atomically; retries whatever passes.

        Returns by partition the offset of the last record, if nobody else writes there.

        Args:
            records: all that is written, changelogs included, by partition.
        Raises:
            CommitRefused: the member has lost its partitions, or, with positions, the producer was fenced.
            LogError: Kafka will never take this.
            LogInUse: another process has claimed the name.
        """
        scope = Scope(frozenset(records), transaction.group if transaction.positions else "")
        while True:
            producer = await self.ready()
            progress = _Progress()
            try:
                await self._attempt(producer, transaction, records, scope, progress)
            except kafka_errors.KafkaError as error:
                self._fail(scope, progress, fenced=_code(error) in FENCED)
                self._clean_up_soon()
                _raise_final(error, transaction)
                log.warning("transaction_repeated", name=producer.name, error=str(error))
                if not (progress.ending and await self._was_committed(progress)):
                    continue
            except BaseException:
                self._fail(scope, progress, fenced=False)
                raise
            self.count += 1
            return {target: first + len(records[target]) - 1 for target, first in progress.firsts.items()}

    async def prepare(self) -> None:
        """Begin to end what a predecessor of the same name left open: the owners of its partitions wait for that."""
        self._clean_up_soon()

    async def close(self) -> None:
        """Abort what is open, if Kafka answers soon, and let go of the connections."""
        if self._producer is not None:
            await asyncio.wait([self._clean_up_soon()], timeout=CLOSE_TIMEOUT)
        await cancel_and_wait(self._background)
        if self._producer is not None:
            await self._producer.client.close()
            self._producer = None

    def _fail(self, scope: Scope, progress: _Progress, *, fenced: bool) -> None:
        self._clean, self._failed = False, scope
        self._took_effect = None if progress.ending else False
        # A rival of our name would be fenced in turn: chance lets one of both through.
        self._hold_off = random.uniform(0, LONGEST_PAUSE) if fenced else 0.0

    def _clean_up_soon(self) -> "asyncio.Task[None]":
        """Abort what failed now, not with the next commit: whoever restores these tables waits for it."""
        if self._background is None or self._background.done():
            self._background = asyncio.create_task(self._clean_up())
        return self._background

    async def _clean_up(self) -> None:
        with contextlib.suppress(LogError):
            await self.ready()

    async def ready(self) -> Producer:
        """The producer, known to the cluster: what it or its predecessor left open is aborted or finished by then.

        Raises:
            LogError: Kafka refuses us.
            LogInUse: another process has claimed the name.
        """
        async with self._preparing:
            while self._producer is None or not self._clean:
                if self._claim is not None:
                    self._claim.check()
                try:
                    if self._producer is None:
                        self._producer = await self._make_producer()
                    await self._prepare(self._producer)
                except kafka_errors.KafkaError as error:
                    if _code(error) in FORBIDDEN:
                        raise LogError(f"Kafka refuses transactions: {error}") from error
                    log.warning("producer_waits_for_kafka", error=str(error))
                    await self._clock.sleep(RETRY_PAUSE)
            return self._producer

    async def _prepare(self, producer: Producer) -> None:
        await self._clock.sleep(self._hold_off)
        if not self._asked:
            self._inherited = await producer.outcome()
            self._asked = True
        if self._took_effect is None:
            self._took_effect = await producer.was_committed()
        await producer.register()
        if self._inherited is not None:
            hanging = await open_partitions(producer.client, producer.id)
            await producer.mark(Scope(hanging, self._group), commit=self._inherited)
            self._inherited = None
        await producer.settle()
        if self._failed is not None:
            await producer.finish(self._failed, commit=self._took_effect)
        if self._claim is not None:
            await self._claim.settle(producer)
        self._clean, self._failed, self._took_effect = True, None, False

    async def _attempt(
        self,
        producer: Producer,
        transaction: Transaction,
        records: Mapping[TopicPartition, Records],
        scope: Scope,
        progress: _Progress,
    ) -> None:
        await producer.begin(scope)
        batches = {target: encode(rows, self._compression) for target, rows in records.items()}
        member = transaction.member or Member()
        try:
            async with asyncio.TaskGroup() as group:
                write = group.create_task(producer.write(batches))
                if scope.group:
                    group.create_task(producer.commit_positions(scope.group, transaction.positions, member))
        except BaseExceptionGroup as errors:
            raise first(errors) from errors
        progress.firsts = write.result()
        progress.ending = True
        await producer.end(scope)

    async def _was_committed(self, progress: _Progress) -> bool:
        """Whether a transaction was committed after all: its end may not have been answered before a rival came."""
        producer = await self.ready()
        target, offset = next(iter(progress.firsts.items()))
        return await is_committed(producer.client, target, offset, self._clock)


def _raise_final(error: kafka_errors.KafkaError, transaction: Transaction) -> None:
    """Raise what the caller is to see of `error`; nothing if the transaction is to be repeated."""
    if _code(error) in MOVED_ON:
        raise CommitRefused(f"group {transaction.group} has given out its partitions anew") from error
    if _code(error) in FORBIDDEN:
        hint = "; raise the topic's max.message.bytes or lower kafka.max_message_bytes"
        raise LogError(f"Kafka refuses to write: {error}{hint if _code(error) == TOO_LARGE else ''}") from error
    if transaction.positions:
        raise CommitRefused(f"Kafka aborted the transaction: {error}") from error


def _code(error: kafka_errors.KafkaError) -> int:
    code = error.code if isinstance(error, Rejected) else getattr(error, "errno", 0)
    return int(code)
