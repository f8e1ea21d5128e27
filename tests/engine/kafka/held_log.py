"""A log whose commits can be held back before their end, and what a rival or the cluster does meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from headrace.engine.clock import SystemClock
from headrace.engine.errors import CommitRefused
from headrace.engine.kafka.client import Client
from headrace.engine.kafka.encoding import encode
from headrace.engine.kafka.log import KafkaLog
from headrace.engine.kafka.offsets import LATEST, READ_UNCOMMITTED, list_offsets
from headrace.engine.kafka.producer import Producer, Scope
from headrace.engine.kafka.settings import KafkaSettings
from headrace.engine.log import Append, Changes, TopicPartition, Transaction
from headrace.engine.records import Records
from tests.contract.log_access import PATIENCE, Names, records

#: Seconds that a transaction may take which is to be aborted; the cluster looks once a second.
IMPATIENT = 1.0
#: For everybody else: no machine is so busy that the cluster loses patience with one that was stopped for a while.
CALM = KafkaSettings(transaction_timeout=2 * PATIENCE, session_timeout=PATIENCE)


class Gate:
    """Holds up whoever passes while it is shut; may be used from any thread."""

    def __init__(self) -> None:
        self._shut = False
        self._waiting = 0

    @property
    def is_shut(self) -> bool:
        return self._shut

    def shut(self) -> None:
        self._shut = True

    def open(self) -> None:
        self._shut = False

    async def pass_through(self) -> None:
        self._waiting += 1
        while self._shut:
            await asyncio.sleep(0.005)
        self._waiting -= 1

    async def wait_for_somebody(self) -> None:
        """Until one waits at the gate."""
        async with asyncio.timeout(PATIENCE):
            while not (self._shut and self._waiting):
                await asyncio.sleep(0.005)


class HeldProducer(Producer):
    """A producer that waits at a gate before it ends a transaction; those after that one may take their time."""

    gate = Gate()

    async def end(self, scope: Scope) -> None:
        if self.gate.is_shut:
            self._timeout_ms = round(CALM.transaction_timeout * 1000)
        await self.gate.pass_through()
        await super().end(scope)


class HeldLog(KafkaLog):
    """A log whose commits are all but finished while `gate` is shut.

    With `impatient` the cluster aborts the first transaction of each producer that is held there.
    """

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.gate = Gate()
        self.impatient = False

    async def _new_producer(self, name: str) -> Producer:
        made = await super()._new_producer(name)
        timeout = IMPATIENT if self.impatient else made._timeout_ms / 1000
        held = HeldProducer(made.client, made.name, timeout, SystemClock())
        held.gate = self.gate
        return held


@asynccontextmanager
async def connected(bootstrap: str) -> AsyncIterator[Client]:
    """A connection of the test's own."""
    client = Client(bootstrap_servers=bootstrap)
    await client.bootstrap()
    await client.force_metadata_update()
    try:
        yield client
    finally:
        await client.close()


async def take_over(bootstrap: str, name: str) -> None:
    """Register under a producer's name, as a process does that takes its place: what it left open is aborted."""
    async with connected(bootstrap) as client:
        await Producer(client, name, 10.0, SystemClock()).register()


@asynccontextmanager
async def opened(bootstrap: str, written: Mapping[TopicPartition, Records], name: str) -> AsyncIterator[Producer]:
    """A producer of the test's own that has written records in a transaction, which is open."""
    async with connected(bootstrap) as client:
        producer = Producer(client, name, CALM.transaction_timeout, SystemClock())
        await producer.register()
        await producer.begin(Scope(frozenset(written)))
        await producer.write({target: encode(rows, "none") for target, rows in written.items()})
        yield producer


async def abort(bootstrap: str, written: Mapping[TopicPartition, Records]) -> None:
    """Write records in a transaction, and abort it."""
    async with opened(bootstrap, written, "aborts") as producer:
        await producer.register()


async def wait_until_settled(bootstrap: str, target: TopicPartition) -> int:
    """Until something was written to a partition, a marker at least, and no transaction is open in it; its end."""
    async with connected(bootstrap) as client, asyncio.timeout(PATIENCE):
        while True:
            written = await list_offsets(client, [target], LATEST, READ_UNCOMMITTED)
            if written[target] and await list_offsets(client, [target], LATEST) == written:
                return written[target]
            await asyncio.sleep(0.05)


def everything(names: Names, value: bytes, **more: object) -> Transaction:
    """A transaction of every kind of content."""
    return Transaction(
        [Append(names.p0, records(value)), Append(names.p1, records(value))],
        [Changes(names.s0, {value: b"set"})],
        names.group,
        **more,  # type: ignore[arg-type]
    )


async def held(log: HeldLog, transaction: Transaction) -> "asyncio.Task[Mapping[TopicPartition, int]]":
    """A commit that has done all but end."""
    log.gate.shut()
    while True:
        task = asyncio.create_task(log.commit(transaction))
        waiting = asyncio.create_task(log.gate.wait_for_somebody())
        await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
        if waiting.done():
            await waiting
            return task
        # Nobody but an impatient cluster comes before the gate: from there on it is what the test is about.
        waiting.cancel()
        assert log.impatient
        assert isinstance(task.exception(), CommitRefused)


def name_of(log: KafkaLog, group: str = "") -> str:
    """What Kafka knows the producer of a group by."""
    return f"{log._name}-{group}" if group else log._name
