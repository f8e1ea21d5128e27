"""The log on Kafka: `headrace.engine.log.Log` for many workers."""

import asyncio
import os
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping, Sequence, Set
from functools import partial
from typing import Any

import aiokafka.errors as kafka_errors
import structlog

from headrace.engine.clock import Clock, SystemClock
from headrace.engine.errors import ConfigError, LogError
from headrace.engine.health import Health
from headrace.engine.heart import Heart
from headrace.engine.kafka import claims, tallies, topics
from headrace.engine.kafka.changelogs import Changelogs
from headrace.engine.kafka.claims import Claim
from headrace.engine.kafka.client import Client
from headrace.engine.kafka.commits import CommitQueue
from headrace.engine.kafka.fetch import offsets_at
from headrace.engine.kafka.fetcher import Deliver, Fetcher
from headrace.engine.kafka.loop_thread import LoopThread, Result
from headrace.engine.kafka.membership import GroupMember
from headrace.engine.kafka.offsets import group_positions, settled_ends
from headrace.engine.kafka.owners import group_owners
from headrace.engine.kafka.producer import Producer
from headrace.engine.kafka.reader import KafkaReader
from headrace.engine.kafka.restore import CompactedView
from headrace.engine.kafka.settings import SCHEME, KafkaSettings
from headrace.engine.kafka.standbys import Standbys
from headrace.engine.kafka.transactions import Transactions
from headrace.engine.kafka.watchdog import Watchdog
from headrace.engine.log import Known, Listener, Piece, Reader, Tally, TopicPartition, TopicSpec, Transaction
from headrace.engine.metrics import Metrics

#: Bytes of a record batch that are left for key and headers: MQTT topics of 64 KiB, and reasons of dead letters.
ROOM = 160 << 10
#: Looks for a partition that somebody else knows of, and seconds between two.
LOOKS, LOOK_PAUSE = 50, 0.1
#: Seconds between two tries to connect.
CONNECT_PAUSE = 0.5

log = structlog.get_logger(__name__)


class KafkaLog:
    """A log on an Apache Kafka cluster, 3.7 or newer.

    All traffic runs on a thread of its own (`LoopThread`): the group hears from this process while an agent computes.
    A commit is one Kafka transaction, read by `read_committed` readers only once it is whole. One producer per consumer
    group, and one for sources, carries out the commits of the process, each one after another; those without positions
    are joined.

    Args:
        url: `kafka://host:port,host:port`.
        settings: security, timeouts.
        clock: stamps what the log itself writes.
        role: what this process is, such as "worker"; with `settings.instance` the name that Kafka knows it by, so that
            a process that starts again ends what its predecessor left open.
        metrics, health: of the process; told when fetching was rebuilt, and that the thread runs.
    """

    def __init__(
        self,
        url: str,
        settings: KafkaSettings,
        clock: Clock | None = None,
        *,
        role: str = "headrace",
        metrics: Metrics | None = None,
        health: Health | None = None,
    ) -> None:
        self._servers = url.removeprefix(SCHEME)
        self._settings = settings
        self._clock = clock or SystemClock()
        self._options = settings.client_options()
        self._role = role
        self._name = f"{role}-{settings.instance or os.urandom(6).hex()}"
        self._thread = LoopThread("headrace-kafka")
        self._metrics = metrics or Metrics()
        self._health = health
        self._heart: asyncio.Task[None] | None = None
        self._client: Client | None = None
        self._queues: dict[str, CommitQueue] = {}
        standbys = Standbys(self._new_client, SystemClock(), self._metrics)
        self._changelogs = Changelogs(lambda: self._known, standbys, SystemClock(), self._metrics)
        self._tallies: CompactedView | None = None
        self._readers: list[KafkaReader] = []
        self._members: list[GroupMember] = []
        self._closed = False

    async def start(self) -> None:
        """Connect.

        Raises:
            ConfigError: no broker answers, or it does not let us in.
        """
        try:
            self._client = await self._thread.run(self._knowing_client())
        except kafka_errors.KafkaError as error:
            raise ConfigError(
                f"no Kafka at {self._servers}: {error!r}; check [log] url and the security settings of [kafka]; "
                "the messages above say how each broker failed"
            ) from error
        if self._health is not None:
            self._heart = await self._thread.run(self._beat(self._health))

    @property
    def largest_value(self) -> int:
        return self._settings.max_message_bytes - ROOM

    async def create_topics(self, topics_: Iterable[TopicSpec]) -> None:
        specs = [tallies.TOPIC, claims.TOPIC, *topics_]
        await self._run(topics.create_topics(self._known, specs, self._settings))

    async def extend_topic(self, name: str, partitions: int) -> None:
        """Add partitions to a topic. Keys go to other partitions from then on; running writers keep the old number."""
        await self._run(topics.extend_topic(self._known, name, partitions))

    def partitions(self, topic: str) -> int:
        numbers = self._known.cluster.partitions_for_topic(topic)
        if not numbers:
            raise KeyError(topic)
        return len(numbers)

    async def commit(self, transaction: Transaction) -> Mapping[TopicPartition, int]:
        targets = {*(each.target for each in transaction.appends), *(each.target for each in transaction.changes)}
        if not targets <= self._existing(targets):
            await self._run(self._refresh())
        for target in targets - self._existing(targets):
            raise LogError(f"there is no partition {target.partition} of topic {target.topic!r}")
        return await self._queue(transaction.group, transaction.claim).commit(transaction)

    async def claim(self, name: str) -> None:
        await self._queue("", name).claim()

    def reader(self) -> Reader:
        async def make(deliver: Deliver) -> Fetcher:
            return Fetcher(await self._new_client(), SystemClock(), deliver)

        timeouts = self._settings.stall_timeout, self._settings.request_timeout
        watchdog = Watchdog(self._known, SystemClock(), *timeouts)
        reader = KafkaReader(self._thread, make, watchdog, SystemClock(), self._metrics, self._readers.remove)
        self._readers.append(reader)
        return reader

    async def join(self, group: str, topics_: Iterable[str], listener: Listener, assignor: Any = None) -> GroupMember:
        member = GroupMember(
            self._thread,
            self._new_client,
            self._settings,
            SystemClock(),
            group,
            topics_,
            listener,
            assignor,
            self._learn,
        )
        self._members.append(member)
        if self._settings.instance is not None:
            await self._queue(group).prepare()
        await member.join()
        return member

    async def restore(self, target: TopicPartition) -> AsyncIterator[Sequence[tuple[bytes, bytes]]]:
        pieces = await self._run(self._changelogs.newest(target))
        while (piece := await self._run(pieces.read())) is not None:
            yield [(key, value) for key, value in piece.entries if value is not None]

    async def catch_up(self, target: TopicPartition, known: Known | None = None) -> AsyncIterator[Piece]:
        pieces = await self._run(self._changelogs.changes(target, known))
        while (piece := await self._run(pieces.read())) is not None:
            yield piece

    async def stand_by(self, targets: Set[TopicPartition]) -> None:
        await self._run(self._changelogs.standbys.keep(targets))

    async def first_offset(self, target: TopicPartition) -> int:
        return await self._run(self._changelogs.first_offset(target))

    async def end_offsets(self, topic: str) -> dict[TopicPartition, int]:
        return await self._run(settled_ends(self._known, await self._targets(topic)))

    async def offsets_at(self, topic: str, time_ms: int) -> dict[TopicPartition, int]:
        ends = await self.end_offsets(topic)
        return await self._run(offsets_at(self._known, ends, time_ms, SystemClock()))

    async def topics(self) -> list[TopicSpec]:
        return await self._run(topics.list_topics(self._known))

    async def owners(self, group: str) -> dict[TopicPartition, str]:
        return await self._run(group_owners(self._known, group))

    async def positions(self, group: str, topic: str) -> dict[TopicPartition, int]:
        return await self._run(group_positions(self._known, group, await self._targets(topic)))

    async def tallies(self, topic: str) -> dict[Tally, int]:
        return await self._run(self._tallies_of(topic))

    async def close(self) -> None:
        """Leave the groups, finish the commits that Kafka takes soon, end the thread."""
        if self._closed:
            return
        self._closed = True
        for member in self._members:
            await member.leave()
        for reader in list(self._readers):
            await reader.close()
        for queue in self._queues.values():
            await queue.close()
        if self._client is not None:
            await self._thread.run(self._changelogs.standbys.close())
            await self._thread.run(self._client.close())
        await self._thread.stop()

    def _queue(self, group: str, claim: str = "") -> CommitQueue:
        """Commits of one consumer group, those of sources and those of a claim do not wait for each other.

        Each has a producer. That of a claim has the same name in every process, so that one fences the other.
        """
        name = f"{self._role}-{claim}" if claim else f"{self._name}-{group}" if group else self._name
        queue = self._queues.get(name)
        if queue is None:
            transactions = Transactions(
                partial(self._new_producer, name),
                group,
                SystemClock(),
                self._settings.compression,
                Claim(claim, SystemClock()) if claim else None,
            )
            queue = self._queues[name] = CommitQueue(self._thread, transactions, self._clock)
        return queue

    @property
    def _known(self) -> Client:
        if self._client is None:
            raise LogError("the log was not started")
        return self._client

    async def _targets(self, topic: str) -> list[TopicPartition]:
        if not self._known.cluster.partitions_for_topic(topic):
            await self._run(self._refresh())
        return [TopicPartition(topic, number) for number in range(self.partitions(topic))]

    def _existing(self, targets: Set[TopicPartition]) -> set[TopicPartition]:
        """Those of `targets` that exist, as far as it is known."""
        return {
            target
            for target in targets
            if target.partition in (self._known.cluster.partitions_for_topic(target.topic) or ())
        }

    async def _run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        try:
            return await self._thread.run(coroutine)
        except kafka_errors.KafkaError as error:
            raise LogError(f"Kafka does not answer as it should: {error}") from error

    # -- on the I/O thread

    async def _beat(self, health: Health) -> asyncio.Task[None]:
        return asyncio.create_task(Heart(health, self._metrics, SystemClock(), "kafka").run())

    async def _knowing_client(self) -> Client:
        """A client that knows every topic: one that asks for none by name is told of all."""
        client = await self._connect()
        await client.force_metadata_update()
        return client

    async def _new_client(self) -> Client:
        """Waits for a broker that answers: one did when the log was started."""
        while True:
            try:
                return await self._connect()
            except kafka_errors.KafkaError as error:
                log.warning("waits_for_kafka", error=str(error))
                await SystemClock().sleep(CONNECT_PAUSE)

    async def _connect(self) -> Client:
        client = Client(bootstrap_servers=self._servers, client_id=self._name, **self._options)
        try:
            await client.bootstrap()
        except BaseException:
            await client.close()
            raise
        return client

    async def _new_producer(self, name: str) -> Producer:
        return Producer(await self._new_client(), name, self._settings.transaction_timeout, SystemClock())

    async def _refresh(self) -> None:
        await self._known.force_metadata_update()

    async def _learn(self, targets: Set[TopicPartition]) -> None:
        """Look until these partitions are known: the leader of a group may have heard of new ones before us."""
        for _ in range(LOOKS):
            if targets <= self._existing(targets):
                return
            await self._refresh()
            await SystemClock().sleep(LOOK_PAUSE)

    async def _tallies_of(self, topic: str) -> dict[Tally, int]:
        if not self._known.cluster.partitions_for_topic(tallies.TOPIC.name):
            return {}
        if self._tallies is None:
            self._tallies = CompactedView(self._known, tallies.PARTITION, SystemClock())
        return tallies.summed(await self._tallies.update(), topic)
