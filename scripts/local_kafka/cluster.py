"""A real Apache Kafka cluster for tests, benchmarks and trying things out."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from local_kafka.broker import Broker, StartError
from local_kafka.java import Java
from local_kafka.ports import free_ports, is_free
from local_kafka.security import LISTENERS, Security
from local_kafka.settings import CONTROLLER, broker_settings
from local_kafka.storage import format_folders

#: The oldest release that is supported, and the newest whose jars Maven can resolve. Both run on Java 17.
VERSIONS = ("3.7.2", "4.3.1")
DEFAULT_VERSION = VERSIONS[-1]
PLAINTEXT = "PLAINTEXT"
#: Starts that lose a race for a port before giving up.
START_ATTEMPTS = 3


class Cluster:
    """A real Apache Kafka cluster in KRaft mode on 127.0.0.1 and free ports, ended with the `with` block.

    Every node is broker and controller. Three brokers stay up with any one of them gone: internal topics have three
    replicas, of which two must be in sync. Topics are not made by themselves. A broker that was killed keeps its
    partitions for 3 s. On Linux the brokers end with this process, `kill -9` included.

    With `secure=True` there are more listeners beside PLAINTEXT: SASL_PLAINTEXT, SSL, SASL_SSL (SASL with PLAIN,
    SCRAM-SHA-256 and SCRAM-SHA-512) and MTLS (TLS that asks for a client certificate). `listeners` has the addresses
    of each, `security` the user, password and PEM files.

    Args:
        brokers: how many, 1 or more.
        version: of Kafka, one of `VERSIONS`.
        folder: for properties, data and logs (`broker-0/broker.log`), new or empty, and kept afterwards; by default
            a temporary one.
        secure: whether to add the listeners above.
        port: of the first broker's PLAINTEXT listener, the others get the following ones; by default free ones.
        settings: broker settings that win over those of `local_kafka.settings`.
    """

    def __init__(
        self,
        brokers: int = 1,
        *,
        version: str = DEFAULT_VERSION,
        folder: Path | None = None,
        secure: bool = False,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.version = version
        #: Addresses of all brokers by listener, host:port[,host:port].
        self.listeners: dict[str, str] = {}
        self._count = brokers
        self._given_folder = folder
        self._secure = secure
        self._first_port = port
        self._settings = dict(settings or {})
        self._folder: Path | None = None
        self._security: Security | None = None
        self._brokers: list[Broker] = []
        self._java: Java | None = None

    @property
    def bootstrap(self) -> str:
        """Addresses of all brokers without security, host:port[,host:port]; known once started."""
        return self.listeners[PLAINTEXT]

    @property
    def folder(self) -> Path:
        """Where properties, data and logs are; there once started."""
        if self._folder is None:
            raise StartError("the cluster is not running")
        return self._folder

    @property
    def security(self) -> Security:
        """What clients log in with; there once a cluster with `secure=True` has started."""
        if self._security is None:
            raise StartError("the cluster has no security, or is not running")
        return self._security

    def start(self) -> None:
        """Start all brokers and block until every one serves requests: 2 s for one broker, 5 s for three.

        Raises:
            MissingTool: Java, Maven, OpenSSL or the jars are missing.
            StartError: a broker ended or did not serve in time, a port is in use, or the folder is not empty.
        """
        if self._given_folder and self._given_folder.exists() and any(self._given_folder.iterdir()):
            raise StartError(f"{self._given_folder} is not empty")
        for attempt in range(1, START_ATTEMPTS + 1):
            try:
                self._start_once()
                return
            except StartError as error:
                folder = self.folder
                self.stop()
                if "Address already in use" not in str(error) or attempt == START_ATTEMPTS:
                    raise
                shutil.rmtree(folder, ignore_errors=True)  # a given one, too: the next attempt needs it empty
            except BaseException:
                self.stop()
                raise

    def stop(self) -> None:
        """Kill every broker, and remove the folder if it is a temporary one."""
        for broker in self._brokers:
            if self._java and self._java.records:
                broker.stop()
                self._java.keep_archive()
            broker.kill()
        self._brokers.clear()
        self.listeners.clear()
        if self._folder and self._folder != self._given_folder:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._folder = self._security = self._java = None

    def kill(self, broker: int) -> None:
        """End one broker, numbered from 0, with SIGKILL."""
        self._brokers[broker].kill()

    def stop_broker(self, broker: int) -> None:
        """End one broker cleanly: it hands over its partitions first, if there is a broker to take them."""
        self._brokers[broker].stop()

    def restart(self, broker: int) -> None:
        """Start one broker again after `kill` or `stop_broker`, on the same ports and data; block until it serves.

        Takes 2 s, and 3 s more right after `kill`: the controllers refuse a broker whose former session is alive.
        """
        self._brokers[broker].launch()
        self._brokers[broker].wait_until(self._brokers[broker].serves)

    def wait_in_sync(self) -> None:
        """Block until all brokers run and have every record: from then on another one may be lost."""
        for broker in self._brokers:
            broker.wait_until(lambda known: len(known.brokers) == self._count and known.behind == 0)

    def pid(self, broker: int) -> int | None:
        """Process id of one broker; None if it does not run."""
        return self._brokers[broker].pid

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start_once(self) -> None:
        self._folder = self._given_folder or Path(tempfile.mkdtemp(prefix="kafka-"))
        self._java = Java(self.version, recording=self._folder / "classes.jsa" if self._count == 1 else None)
        if self._secure:
            self._security = Security(self._folder / "security")
            self._security.make_certificates()
        self._make_brokers(self._folder, self._java)
        format_folders(self._brokers, self._java, self._security.format_options() if self._security else [])
        for broker in self._brokers:
            broker.launch()
        # Each by itself first: one that cannot start is noticed at once, not when the others give up waiting for it.
        for broker in self._brokers:
            broker.wait_until(broker.serves)
        for broker in self._brokers:
            broker.wait_until(lambda known: len(known.brokers) == self._count)

    def _make_brokers(self, folder: Path, java: Java) -> None:
        protocols = {PLAINTEXT: PLAINTEXT, CONTROLLER: PLAINTEXT, **(LISTENERS if self._security else {})}
        free = iter(free_ports(self._count * len(protocols)))
        ports = [{listener: next(free) for listener in protocols} for _ in range(self._count)]
        if self._first_port is not None:
            for number, port in enumerate(range(self._first_port, self._first_port + self._count)):
                if not is_free(port):
                    raise StartError(f"port {port} is in use")
                ports[number][PLAINTEXT] = port
        voters = {node: own[CONTROLLER] for node, own in enumerate(ports)}
        extra = self._security.broker_settings() if self._security else {}
        for node, own in enumerate(ports):
            home = folder / f"broker-{node}"
            settings = broker_settings(node, own, protocols, voters, home / "data") | extra | self._settings
            others = [port for listener, port in own.items() if listener not in (PLAINTEXT, CONTROLLER)]
            self._brokers.append(Broker(node, own[PLAINTEXT], others, home, java, settings))
        for listener in protocols.keys() - {CONTROLLER}:
            self.listeners[listener] = ",".join(f"127.0.0.1:{own[listener]}" for own in ports)
