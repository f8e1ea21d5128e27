"""The log on Kafka: `headrace.engine.log.Log` for many workers."""

import os
from collections.abc import AsyncIterator, Iterable, Sequence
from functools import partial
from typing import Any

import aiokafka.errors as kafka_errors
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient

from headrace.engine.clock import Clock, SystemClock
from headrace.engine.errors import ConfigError, LogError
from headrace.engine.kafka import tallies, topics
from headrace.engine.kafka.commits import CommitQueue
from headrace.engine.kafka.fetcher import Deliver, Fetcher
from headrace.engine.kafka.loop_thread import LoopThread
from headrace.engine.kafka.membership import GroupMember
from headrace.engine.kafka.offsets import LATEST, group_positions, list_offsets
from headrace.engine.kafka.owners import group_owners
from headrace.engine.kafka.reader import KafkaReader
from headrace.engine.kafka.restore import CompactedView
from headrace.engine.kafka.settings import SCHEME, KafkaSettings
from headrace.engine.kafka.transactions import Transactions
from headrace.engine.kafka.watchdog import Watchdog
from headrace.engine.log import Listener, Reader, Tally, TopicPartition, TopicSpec, Transaction

#: Entries of a compacted partition handed over at once when it is restored.
RESTORE_CHUNK = 10_000


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
    """

    def __init__(
        self, url: str, settings: KafkaSettings, clock: Clock | None = None, *, role: str = "headrace"
    ) -> None:
        self._servers = url.removeprefix(SCHEME)
        self._settings = settings
        self._clock = clock or SystemClock()
        self._options = settings.client_options()
        self._name = f"{role}-{settings.instance or os.urandom(6).hex()}"
        self._thread = LoopThread("headrace-kafka")
        self._client: AIOKafkaClient | None = None
        self._queues: dict[str, CommitQueue] = {}
        self._views: dict[TopicPartition, CompactedView] = {}
        self._readers: list[KafkaReader] = []
        self._members: list[GroupMember] = []

    async def start(self) -> None:
        """Connect.

        Raises:
            ConfigError: no broker answers, or it does not let us in.
        """
        try:
            self._client = await self._thread.run(self._knowing_client())
        except kafka_errors.KafkaError as error:
            await self._thread.stop()
            raise ConfigError(
                f"no Kafka at {self._servers}: {error!r}; check [log] url and the security settings of [kafka]"
            ) from error

    async def create_topics(self, topics_: Iterable[TopicSpec]) -> None:
        specs = [tallies.TOPIC, *topics_]
        await self._thread.run(topics.create_topics(self._new_admin, self._known, specs, self._settings))

    async def extend_topic(self, name: str, partitions: int) -> None:
        """Add partitions to a topic. Keys go to other partitions from then on; running writers keep the old number."""
        await self._thread.run(topics.extend_topic(self._new_admin, name, partitions))
        await self._thread.run(topics.wait_for_leaders(self._known, [TopicSpec(name, partitions)]))

    def partitions(self, topic: str) -> int:
        numbers = self._known.cluster.partitions_for_topic(topic)
        if not numbers:
            raise KeyError(topic)
        return len(numbers)

    async def commit(self, transaction: Transaction) -> None:
        for target in [*(each.target for each in transaction.appends), *(each.target for each in transaction.changes)]:
            self._check(target)
        await self._queue(transaction.group).commit(transaction)

    def reader(self) -> Reader:
        async def make(deliver: Deliver) -> Fetcher:
            return Fetcher(await self._new_client(), SystemClock(), deliver)

        timeouts = self._settings.stall_timeout, self._settings.request_timeout
        watchdog = Watchdog(self._known, SystemClock(), *timeouts)
        reader = KafkaReader(self._thread, make, watchdog, SystemClock())
        self._readers.append(reader)
        return reader

    async def join(self, group: str, topics_: Iterable[str], listener: Listener, assignor: Any = None) -> GroupMember:
        assignors = (assignor,) if assignor is not None else _default_assignors()
        member = GroupMember(
            self._thread, self._new_client, self._settings, SystemClock(), group, topics_, listener, assignors
        )
        self._members.append(member)
        await member.join()
        return member

    async def restore(self, target: TopicPartition) -> AsyncIterator[Sequence[tuple[bytes, bytes]]]:
        view = CompactedView(self._known, target)
        entries = list((await self._thread.run(view.update())).items())
        for start in range(0, len(entries), RESTORE_CHUNK):
            yield entries[start : start + RESTORE_CHUNK]

    async def end_offsets(self, topic: str) -> dict[TopicPartition, int]:
        return await self._thread.run(list_offsets(self._known, self._targets(topic), LATEST))

    async def offsets_at(self, topic: str, time_ms: int) -> dict[TopicPartition, int]:
        ends = await self.end_offsets(topic)
        found = await self._thread.run(list_offsets(self._known, ends, time_ms))
        return {target: ends[target] if offset < 0 else offset for target, offset in found.items()}

    async def topics(self) -> list[TopicSpec]:
        return await self._thread.run(topics.list_topics(self._new_admin, self._known))

    async def owners(self, group: str) -> dict[TopicPartition, str]:
        return await self._thread.run(group_owners(self._new_admin, group))

    async def positions(self, group: str, topic: str) -> dict[TopicPartition, int]:
        return await self._thread.run(group_positions(self._known, group, self._targets(topic)))

    async def tallies(self, topic: str) -> dict[Tally, int]:
        if not self._known.cluster.partitions_for_topic(tallies.TOPIC.name):
            return {}
        view = self._views.setdefault(tallies.PARTITION, CompactedView(self._known, tallies.PARTITION))
        await self._thread.run(view.update())
        return tallies.summed(view, topic)

    async def close(self) -> None:
        for member in self._members:
            await member.leave()
        for reader in self._readers:
            await reader.close()
        for queue in self._queues.values():
            await queue.close()
        if self._client is not None:
            await self._thread.run(self._client.close())
            await self._thread.stop()

    def _queue(self, group: str) -> CommitQueue:
        """Commits of one consumer group, and those of sources, do not wait for each other: each has a producer."""
        queue = self._queues.get(group)
        if queue is None:
            transactions = Transactions(partial(self._new_producer, group), SystemClock(), self._settings.compression)
            queue = self._queues[group] = CommitQueue(self._thread, transactions, self._clock)
        return queue

    @property
    def _known(self) -> AIOKafkaClient:
        if self._client is None:
            raise LogError("the log was not started")
        return self._client

    def _targets(self, topic: str) -> list[TopicPartition]:
        return [TopicPartition(topic, number) for number in range(self.partitions(topic))]

    def _check(self, target: TopicPartition) -> None:
        if target.partition not in (self._known.cluster.partitions_for_topic(target.topic) or ()):
            raise LogError(f"there is no partition {target.partition} of topic {target.topic!r}")

    # -- on the I/O thread

    async def _knowing_client(self) -> AIOKafkaClient:
        """A client that knows every topic: one that asks for none by name is told of all."""
        client = await self._new_client()
        await client.force_metadata_update()
        return client

    async def _new_client(self) -> AIOKafkaClient:
        client = AIOKafkaClient(bootstrap_servers=self._servers, client_id=self._name, **self._options)
        try:
            await client.bootstrap()
        except BaseException:
            await client.close()
            raise
        return client

    def _new_admin(self) -> AIOKafkaAdminClient:
        return AIOKafkaAdminClient(bootstrap_servers=self._servers, client_id=self._name, **self._options)

    def _new_producer(self, group: str) -> AIOKafkaProducer:
        return AIOKafkaProducer(
            bootstrap_servers=self._servers,
            client_id=self._name,
            transactional_id=f"{self._name}-{group}" if group else self._name,
            transaction_timeout_ms=round(self._settings.transaction_timeout * 1000),
            compression_type=None if self._settings.compression == "none" else self._settings.compression,
            max_request_size=self._settings.max_message_bytes,
            acks="all",
            **self._options,
        )


def _default_assignors() -> tuple[Any, ...]:
    from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor  # noqa: PLC0415

    return (StickyPartitionAssignor,)
