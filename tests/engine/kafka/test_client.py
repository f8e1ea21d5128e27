"""The connection to a cluster finds it again, and fails in one way only."""

import aiokafka.errors as kafka_errors
import pytest
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.structs import BrokerMetadata

from headrace.engine.kafka.client import Rejected, ask, passes
from headrace.engine.kafka.log import KafkaLog
from tests.conftest import KafkaServer
from tests.contract.log_access import Names
from tests.engine.kafka.held_log import connected

pytestmark = pytest.mark.integration

NOBODY = ("127.0.0.1", 1)


async def test_brokers_that_have_all_moved_are_found_again(kafka: KafkaServer, log: KafkaLog, names: Names) -> None:
    """When no known broker answers any more, the configured addresses are asked, as after a cluster got new ones."""
    async with connected(kafka.bootstrap) as client:
        for connection in list(client._conns.values()):
            connection.close()
        client.cluster._brokers = {node: BrokerMetadata(node, *NOBODY, None) for node in client.cluster._brokers}

        assert await client.force_metadata_update()

        assert {(broker.host, broker.port) for broker in client.cluster.brokers()} != {NOBODY}
        assert client.cluster.partitions_for_topic(names.events) == {0, 1}


async def test_every_failure_is_of_one_kind(kafka: KafkaServer) -> None:
    """A broker that is not there, and one that does not answer in time, give the same kind of error, worth a retry."""
    async with connected(kafka.bootstrap) as client:
        with pytest.raises(kafka_errors.KafkaError) as unknown:
            await ask(client, 77, MetadataRequest([]))
        (node,) = {broker.nodeId for broker in client.cluster.brokers()}
        await ask(client, node, MetadataRequest([]))
        for connection in client._conns.values():
            connection._request_timeout = 0.0
        with pytest.raises(kafka_errors.KafkaError) as late:
            await ask(client, node, MetadataRequest([]))

    assert passes(unknown.value)
    assert passes(late.value)


def test_a_rejection_says_what_and_why() -> None:
    """The error of a request that will never be taken names the request, the code and its meaning."""
    error = Rejected(29, "write to t/0")

    assert str(error) == "Rejected: write to t/0: error 29 (TopicAuthorizationFailedError)"
    assert not passes(error)
