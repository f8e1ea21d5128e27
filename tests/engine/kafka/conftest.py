"""A log on the Kafka that all tests share, and a Kafka with settings that tests need and nobody else wants."""

from collections.abc import AsyncIterator, Iterator

import pytest
from local_kafka.cluster import Cluster

from headrace.engine.kafka.log import KafkaLog
from headrace.engine.kafka.settings import KafkaSettings
from tests.conftest import KafkaServer
from tests.contract.log_access import Names

ODD_SETTINGS = {
    # Compacts whatever was appended before the last append, and forgets deleted keys, within a second.
    "log.cleaner.backoff.ms": "200",
    "log.cleaner.min.cleanable.ratio": "0.0",
    "log.cleaner.delete.retention.ms": "0",
    "log.segment.delete.delay.ms": "0",
    # Takes records of a transaction that does not know of them: they hang, as if a marker had got lost.
    "transaction.partition.verification.enable": "false",
    # Everybody may do everything with what nothing is said about.
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found": "true",
}


@pytest.fixture
async def log(kafka: KafkaServer) -> AsyncIterator[KafkaLog]:
    """A log as a worker has it."""
    log = KafkaLog(f"kafka://{kafka.bootstrap}", KafkaSettings())
    await log.start()
    yield log
    await log.close()


@pytest.fixture
async def names(log: KafkaLog) -> Names:
    """Topics of the test's own, made."""
    names = Names.new()
    await log.create_topics(names.specs())
    return names


@pytest.fixture(scope="session")
def odd_kafka(kafka_tools: None) -> Iterator[Cluster]:
    """A broker that compacts as soon as it can, and trusts its producers."""
    with Cluster(settings=ODD_SETTINGS) as cluster:
        yield cluster
