"""The oldest Kafka that is supported, beside the newest one that all tests share."""

from collections.abc import Iterator

import pytest
from local_kafka.cluster import VERSIONS, Cluster


@pytest.fixture(scope="session")
def oldest_kafka(kafka_tools: None) -> Iterator[Cluster]:
    """One broker of the oldest release that is supported."""
    with Cluster(version=VERSIONS[0]) as cluster:
        yield cluster
