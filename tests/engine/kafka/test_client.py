"""A client that is cancelled while it connects, and one that has asked for some topics by name."""

import asyncio
import gc
import warnings

import pytest

from headrace.engine.kafka.client import BOOTSTRAP, Client
from headrace.engine.kafka.offsets import LATEST, list_offsets
from headrace.engine.kafka.open_transactions import open_partitions
from headrace.engine.kafka.settings import KafkaSettings
from headrace.engine.log import TopicPartition
from tests.conftest import KafkaServer
from tests.contract.log_access import PATIENCE, Names
from tests.engine.kafka.held_log import HeldLog, connected

pytestmark = pytest.mark.integration
#: Steps of the event loop that connecting takes about, and some more.
STEPS = 60


async def test_cancelled_at_any_step_it_leaves_no_connection_open(
    kafka: KafkaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it was waiting for, what it had opened is closed with it."""
    monkeypatch.setattr("headrace.engine.kafka.client.MOMENT", PATIENCE)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        for steps in range(STEPS):
            client = Client(bootstrap_servers=kafka.bootstrap)
            connecting = asyncio.create_task(client.bootstrap())
            for _ in range(steps):
                await asyncio.sleep(0)
            # What the broker answers comes when it comes.
            await asyncio.sleep(steps % 7 / 2000)
            connecting.cancel()
            await asyncio.wait([connecting])
            await client.close()
            del client, connecting
        gc.collect()

    assert not [warning for warning in caught if issubclass(warning.category, ResourceWarning)]


async def test_asking_a_cluster_without_brokers_again_leaves_no_connection_open(
    kafka: KafkaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cluster that has given up its brokers shows none: the connection that said so is kept, one at a time."""
    client = Client(bootstrap_servers=kafka.bootstrap)
    monkeypatch.setattr(client.cluster, "update_metadata", lambda metadata: None)

    await client.bootstrap()
    first = client._conns[BOOTSTRAP]
    await client.bootstrap()
    second = client._conns[BOOTSTRAP]

    assert (first.connected(), second.connected()) == (False, True)
    await client.close()


async def test_topics_that_it_has_not_asked_for_are_found(kafka: KafkaServer) -> None:
    """The cluster tells a client that has named topics of those alone; others are still found."""
    names = Names.new()
    log = HeldLog(f"kafka://{kafka.bootstrap}", KafkaSettings(), role="test")
    await log.start()
    await log.create_topics(names.specs())
    await log.close()
    async with connected(kafka.bootstrap) as client, asyncio.timeout(PATIENCE):
        await client.add_topic(names.events)

        assert await list_offsets(client, [TopicPartition(names.other, 0)], LATEST) == {names.o0: 0}
        assert await open_partitions(client, 1, {names.o0}) == frozenset()
