"""The Kafka that tests run on is real: it keeps records, survives the loss of a broker, and asks for passwords."""

import asyncio
import re
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError
from local_kafka.broker import StartError
from local_kafka.cluster import VERSIONS, Cluster
from local_kafka.jars import MissingTool
from local_kafka.ports import PORTS, free_ports
from local_kafka.probe import Metadata, metadata
from local_kafka.security import MECHANISMS

from tests.conftest import KafkaServer

pytestmark = pytest.mark.integration

COMMAND = [sys.executable, str(Path(__file__).parents[2] / "scripts" / "local_kafka")]
TOPIC = f"local-kafka-{uuid4().hex}"


@pytest.fixture(scope="module")
def secure(kafka_tools: None) -> Iterator[Cluster]:
    """A broker with every listener."""
    with Cluster(secure=True) as cluster:
        yield cluster


@asynccontextmanager
async def admin(bootstrap: str, **options: Any) -> AsyncIterator[AIOKafkaAdminClient]:
    """An administration client that is closed even if it could not connect."""
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap, **options)
    try:
        await client.start()
        yield client
    finally:
        await client.close()


async def create_topic(bootstrap: str, replicas: int = 1) -> None:
    async with admin(bootstrap) as client:
        await client.create_topics([NewTopic(TOPIC, 1, replicas)])


async def leader(bootstrap: str) -> int:
    """Number of the broker that leads the topic's only partition."""
    async with admin(bootstrap) as client:
        while True:
            (topic,) = await client.describe_topics([TOPIC])
            if topic["partitions"]:  # a broker may hear of a new topic later
                return int(topic["partitions"][0]["leader"])
            await asyncio.sleep(0.1)


async def read(bootstrap: str, count: int) -> list[bytes | None]:
    """The first records of the topic."""
    async with AIOKafkaConsumer(TOPIC, bootstrap_servers=bootstrap, auto_offset_reset="earliest") as consumer:
        return [(await consumer.getone()).value for _ in range(count)]


async def test_shared_kafka_keeps_records(kafka: KafkaServer) -> None:
    """What is produced to the session's Kafka can be read back."""
    await create_topic(kafka.bootstrap)
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, acks="all") as producer:
        await producer.send_and_wait(TOPIC, b"one")

    values = await read(kafka.bootstrap, 1)

    assert values == [b"one"]


async def test_oldest_version_keeps_records_of_a_transaction(kafka_tools: None) -> None:
    """A broker of the oldest supported version, killed and started again, has what was committed."""
    with Cluster(version=VERSIONS[0]) as cluster:
        await create_topic(cluster.bootstrap)
        async with (
            AIOKafkaProducer(bootstrap_servers=cluster.bootstrap, transactional_id="writer") as producer,
            producer.transaction(),
        ):
            await producer.send_and_wait(TOPIC, b"one")
        cluster.kill(0)

        cluster.restart(0)

        assert await read(cluster.bootstrap, 1) == [b"one"]


async def test_three_brokers_lose_nothing_with_one_gone(kafka_tools: None) -> None:
    """A record acknowledged while the partition's leader was dead is still there when the next leader dies."""
    with Cluster(3) as cluster:
        await create_topic(cluster.bootstrap, replicas=3)
        async with AIOKafkaProducer(bootstrap_servers=cluster.bootstrap, acks="all") as producer:
            first = await leader(cluster.bootstrap)
            cluster.kill(first)
            await producer.send_and_wait(TOPIC, b"one")
        await asyncio.to_thread(cluster.restart, first)
        await asyncio.to_thread(cluster.wait_in_sync)

        cluster.kill(await leader(cluster.bootstrap))

        assert await read(cluster.bootstrap, 1) == [b"one"]


@pytest.mark.parametrize("listener", ["SASL_PLAINTEXT", "SASL_SSL"])
@pytest.mark.parametrize("mechanism", MECHANISMS)
async def test_sasl_listeners_ask_for_the_password(secure: Cluster, listener: str, mechanism: str) -> None:
    """The right password is let in, a wrong one is not."""
    trust = ssl.create_default_context(cafile=secure.security.ca) if listener == "SASL_SSL" else None
    options: dict[str, Any] = {
        "security_protocol": listener,
        "sasl_mechanism": mechanism,
        "sasl_plain_username": secure.security.username,
        "ssl_context": trust,
    }

    async with admin(secure.listeners[listener], sasl_plain_password=secure.security.password, **options) as client:
        assert await client.list_topics() == []
    with pytest.raises(KafkaError):
        async with admin(secure.listeners[listener], sasl_plain_password="wrong", **options):
            pass


async def test_tls_listener_is_signed_by_the_authority(secure: Cluster) -> None:
    """A client that trusts the cluster's authority gets in; one that trusts the usual ones refuses the broker."""
    options = {"security_protocol": "SSL"}
    trust = ssl.create_default_context(cafile=secure.security.ca)

    async with admin(secure.listeners["SSL"], ssl_context=trust, **options) as client:
        assert await client.list_topics() == []
    with pytest.raises(KafkaError):
        async with admin(secure.listeners["SSL"], ssl_context=ssl.create_default_context(), **options):
            pass


async def test_mtls_listener_asks_for_a_certificate(secure: Cluster) -> None:
    """The client's certificate is let in; without one there is no connection."""
    options = {"security_protocol": "SSL"}
    anonymous = ssl.create_default_context(cafile=secure.security.ca)
    known = ssl.create_default_context(cafile=secure.security.ca)
    known.load_cert_chain(secure.security.client_certificate, secure.security.client_key)

    async with admin(secure.listeners["MTLS"], ssl_context=known, **options) as client:
        assert await client.list_topics() == []
    with pytest.raises(KafkaError):
        async with admin(secure.listeners["MTLS"], ssl_context=anonymous, **options):
            pass


def test_command_runs_until_interrupted(kafka_tools: None) -> None:
    """`python scripts/local_kafka` says where Kafka is, and Ctrl-C ends it cleanly with nothing left."""
    with subprocess.Popen(COMMAND, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address, last = process.stdout.readline(), process.stdout.readline()
        served = metadata(int(address.rpartition(":")[2]))

        process.send_signal(signal.SIGINT)
        status = process.wait()

    folder = re.search(r"logs are in (\S+)\. ", last)
    assert (served, status) == (Metadata({0}, behind=0), 0)
    assert folder is not None
    assert not Path(folder[1]).exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent has gone")
def test_broker_ends_with_its_parent(kafka_tools: None) -> None:
    """`kill -9` of the process that started a broker leaves no broker behind."""
    with subprocess.Popen(COMMAND, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (broker,) = psutil.Process(process.pid).children()

        process.kill()

        broker.wait(60)


def test_failed_start_shows_why(kafka_tools: None, tmp_path: Path) -> None:
    """A broker that ends while starting is reported with the errors in its log."""
    settings = {"metric.reporters": "no.such.Reporter"}

    with pytest.raises(StartError, match=r"(?s)broker 0 is not running.*no\.such\.Reporter"):
        Cluster(folder=tmp_path, settings=settings).start()


def test_taken_port_is_named(kafka_tools: None) -> None:
    """A port that was asked for and is in use is an error that names it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        with pytest.raises(StartError, match=f"port {port} is in use"):
            Cluster(port=port).start()


def test_missing_program_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without Java the error says what to install."""
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(MissingTool, match="java is missing; apt-get install default-jre-headless"):
        Cluster().start()


def test_free_ports_are_different_and_never_given_to_clients() -> None:
    """The ports of a cluster differ, and lie where the kernel takes none for outgoing connections."""
    ports = free_ports(50)

    assert len(set(ports)) == 50
    assert set(ports) <= set(PORTS)
