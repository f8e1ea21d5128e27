"""aiokafka's client, made to find a cluster again whose brokers have all moved, and to fail in one way only."""

import asyncio
from collections.abc import Iterable
from typing import Any

import aiokafka.errors as kafka_errors
from aiokafka.client import AIOKafkaClient, ConnectionGroup

from headrace.engine.cancel import cancel_and_wait
from headrace.engine.log import TopicPartition

UNKNOWN_TOPIC = 3
#: Error codes that pass, what was asked for may be asked for again: unknown topic or partition (yet), leader not
#: available, not leader, timed out, network, coordinator loading, not available or elsewhere, too few replicas in sync,
#: transaction still being finished, not attempted, storage, leader epochs, offset not available.
PASSING = frozenset({UNKNOWN_TOPIC, 5, 6, 7, 13, 14, 15, 16, 19, 20, 51, 55, 56, 74, 75, 78})
#: … of these, those that say that the coordinator is elsewhere.
COORDINATOR_GONE = frozenset({7, 13, 15, 16})
#: Not for this user: topic, group, cluster, transactional id.
UNAUTHORIZED = frozenset({29, 30, 31, 53})

#: Seconds that a broker gets to answer whoever has just been cancelled.
MOMENT = 1.0
#: What aiokafka keeps the connection by over which it was told of a cluster without brokers.
BOOTSTRAP = ("bootstrap", ConnectionGroup.DEFAULT)


class Rejected(kafka_errors.KafkaError):  # type: ignore[misc]
    """The cluster answered with an error that asking again does not change.

    Args:
        code: of the error, as in the Kafka protocol.
        what: was asked for.
    """

    def __init__(self, code: int, what: str) -> None:
        self.code = code
        super().__init__(f"{what}: error {code} ({kafka_errors.for_code(code).__name__})")


class Client(AIOKafkaClient):  # type: ignore[misc]
    """A connection to a cluster. When no broker that it knows answers, it asks the configured addresses again."""

    def connections(self) -> set[object]:
        """The connections that are open."""
        return {connection for connection in self._conns.values() if connection.connected()}

    def find(self, topics: Iterable[str]) -> "asyncio.Future[bool]":
        """Ask anew where partitions are, those of `topics` included.

        A client that has asked for some topics by name is told of no others any more.
        """
        if self._topics:
            self._topics |= set(topics)
        return self.force_metadata_update()  # type: ignore[no-any-return]

    async def bootstrap(self) -> None:
        """Ask the configured addresses for the cluster.

        Cancelled, it gets a moment to end: aiokafka leaves the connection open that it was asking then. It also does
        so with the one it keeps while the cluster shows no broker, once it has asked again.
        """
        kept = self._conns.get(BOOTSTRAP)
        asking = asyncio.create_task(super().bootstrap())
        try:
            await asyncio.shield(asking)
        except asyncio.CancelledError:
            await asyncio.wait([asking], timeout=MOMENT)
            await cancel_and_wait(asking)
            if not asking.cancelled():
                asking.exception()  # nobody waits for it any more
            raise
        finally:
            if kept is not None and self._conns.get(BOOTSTRAP) is not kept:
                kept.close()

    async def _metadata_update(self, cluster_metadata: Any, topics: Any) -> bool:
        if await super()._metadata_update(cluster_metadata, topics):
            return True
        try:
            await self.bootstrap()
        except kafka_errors.KafkaError:
            return False
        return bool(await super()._metadata_update(cluster_metadata, topics))


async def ask(client: Client, node: int, request: Any, group: object = ConnectionGroup.DEFAULT) -> Any:
    """The response of a broker.

    Raises:
        KafkaError: there was none.
    """
    try:
        return await client.send(node, request, group=group)
    except (OSError, TimeoutError, KeyError) as error:
        # KeyError: two requests on one connection timed out, and the first took it away.
        raise kafka_errors.KafkaConnectionError(f"no answer from broker {node}: {error!r}") from error


def by_leader(client: Client, targets: Iterable[TopicPartition]) -> dict[int, list[TopicPartition]]:
    """Partitions by the broker that leads them; those without one now are left out."""
    nodes: dict[int, list[TopicPartition]] = {}
    for target in targets:
        node = client.cluster.leader_for_partition(target)
        if node is not None and node != -1:
            nodes.setdefault(node, []).append(target)
    return nodes


def passes(error: kafka_errors.KafkaError) -> bool:
    """Whether it is worth trying again."""
    return bool(error.retriable) or getattr(error, "errno", None) in PASSING
