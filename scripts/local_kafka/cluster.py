"""A real Apache Kafka cluster for tests, benchmarks and trying things out."""

import contextlib
import shutil
import socket
import subprocess
import tempfile
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from pathlib import Path
from random import SystemRandom
from types import TracebackType
from typing import Self

from local_kafka.broker import Broker, StartError, java_command
from local_kafka.jars import class_path, find_tool

#: The oldest release that is supported, and the newest whose jars Maven can resolve. Both run on Java 17.
VERSIONS = ("3.7.2", "4.3.1")
DEFAULT_VERSION = VERSIONS[-1]

JVM_OPTIONS = ("-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")
#: Below the range from which the kernel takes ports for outgoing connections: while a broker is down, no client may
#: get its port (or connect to itself there).
PORTS = range(20_000, 32_000)
#: Starts that lose a race for a port before giving up.
START_ATTEMPTS = 3

_random = SystemRandom()  # pytest-randomly seeds the ordinary one: every test run would try the same ports


class Cluster:
    """A real Apache Kafka cluster in KRaft mode on 127.0.0.1 and free ports, in a temporary folder, ended with the `with` block.

    Every node is broker and controller. Three brokers stay up with any one of them down: internal topics have three
    replicas, of which two must be in sync. Topics are not made automatically.

    Args:
        brokers: how many, 1 or more.
        version: of Kafka, one of `VERSIONS`.
        folder: for properties, data and logs, kept afterwards; must not exist or be empty. By default a temporary one.
        settings: broker settings on top of those here.
    """

    def __init__(
        self,
        brokers: int = 1,
        *,
        version: str = DEFAULT_VERSION,
        folder: Path | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.size = brokers
        self.version = version
        self.folder = folder
        self.bootstrap = ""
        self._temporary = folder is None
        self._settings = dict(settings or {})
        self._brokers: list[Broker] = []

    def start(self) -> None:
        """Start all brokers and block until every one serves requests.

        Raises:
            MissingTool: Java, Maven or the jars are missing.
            StartError: a broker ended or did not serve in time.
        """
        jars = class_path(self.version)
        java = java_command(find_tool("java"), jars, JVM_OPTIONS)
        for attempt in range(START_ATTEMPTS):
            try:
                self._start_once(java)
                return
            except StartError as error:
                self.stop()
                if "Address already in use" not in str(error) or attempt == START_ATTEMPTS - 1:
                    raise

    def _start_once(self, java: list[str]) -> None:
        folder = self.folder = self.folder or Path(tempfile.mkdtemp(prefix="kafka-"))
        ports = free_ports(2 * self.size)
        plain, control = ports[: self.size], ports[self.size :]
        self.bootstrap = ",".join(f"127.0.0.1:{port}" for port in plain)
        voters = ",".join(f"{node}@127.0.0.1:{port}" for node, port in enumerate(control))
        for node in range(self.size):
            home = folder / f"broker-{node}"
            properties = self._properties(node, plain[node], control[node], voters, home / "data")
            self._brokers.append(Broker(node, plain[node], home, java, properties))
        self._format(java)
        for broker in self._brokers:
            broker.launch()
        for broker in self._brokers:
            broker.wait_ready(set(range(self.size)))

    def _properties(self, node: int, plain: int, control: int, voters: str, data: Path) -> dict[str, str]:
        replicas = str(min(3, self.size))
        in_sync = "2" if self.size >= 3 else "1"
        return {
            "node.id": str(node),
            "process.roles": "broker,controller",
            "controller.quorum.voters": voters,
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "listeners": f"PLAINTEXT://127.0.0.1:{plain},CONTROLLER://127.0.0.1:{control}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{plain}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": str(data),
            "auto.create.topics.enable": "false",
            "default.replication.factor": replicas,
            "min.insync.replicas": in_sync,
            "offsets.topic.replication.factor": replicas,
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": replicas,
            "transaction.state.log.min.isr": in_sync,
            "transaction.state.log.num.partitions": "4",
            "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "1000",
            "log.cleaner.dedupe.buffer.size": str(16 << 20),
            **self._settings,
        }

    def _format(self, java: list[str]) -> None:
        cluster_id = urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode().replace("-", "_")
        for broker in self._brokers:
            command = ["kafka.Kafka", "format", "--cluster-id", cluster_id, "--config", str(broker.properties)]
            command[0:1] = ["kafka.tools.StorageTool"]
            done = subprocess.run([*java, *command], capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise StartError(f"formatting the data folder failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")

    def stop(self) -> None:
        """Kill every broker; remove the folder if it was a temporary one."""
        for broker in self._brokers:
            broker.kill()
        self._brokers.clear()
        if self._temporary and self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder = None

    def kill(self, broker: int) -> None:
        """SIGKILL one broker (numbered from 0) and wait for its end."""
        self._brokers[broker].kill()

    def stop_broker(self, broker: int) -> None:
        """End one broker cleanly (SIGTERM): it hands over its partitions first."""
        self._brokers[broker].stop()

    def restart(self, broker: int) -> None:
        """Start one broker again after `kill` or `stop_broker`, on the same port and data; block until it serves."""
        self._brokers[broker].launch()
        self._brokers[broker].wait_ready({broker})

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on, in `PORTS`."""
    ports: list[int] = []
    with contextlib.ExitStack() as held:
        while len(ports) < count:
            port = _random.choice(PORTS)
            with contextlib.suppress(OSError):
                held.enter_context(socket.socket()).bind(("127.0.0.1", port))
                ports.append(port)
    return ports
