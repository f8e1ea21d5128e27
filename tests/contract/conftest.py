"""The oldest Kafka that is supported, beside the newest one that all tests share."""

from collections.abc import Iterator

import pytest
from local_kafka.cluster import VERSIONS, Cluster

from headrace.connectors.mqtt import connection, probe


@pytest.fixture(scope="session")
def oldest_kafka(kafka_tools: None) -> Iterator[Cluster]:
    """One broker of the oldest release that is supported."""
    with Cluster(version=VERSIONS[0]) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """An MQTT broker may stand still for some seconds, as on a machine with much else to do, and is left when it is."""
    for module, name in ((probe, "PATIENCE"), (connection, "ANSWER_TIMEOUT"), (connection, "CLOSE_TIMEOUT")):
        monkeypatch.setattr(module, name, 60.0)
