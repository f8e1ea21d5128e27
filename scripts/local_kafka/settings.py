"""Settings of a broker: quick to start and to notice a failure, and as durable as the number of brokers allows."""

from collections.abc import Mapping
from pathlib import Path

CONTROLLER = "CONTROLLER"


def broker_settings(
    node: int, ports: Mapping[str, int], protocols: Mapping[str, str], voters: Mapping[int, int], data: Path
) -> dict[str, str]:
    """What goes into `server.properties`.

    Args:
        node: number of the broker.
        ports: port on 127.0.0.1 by listener, that of the controller included.
        protocols: security protocol by listener.
        voters: port of the controller by number of the broker.
        data: folder of its logs.
    """
    client_ports = {name: port for name, port in ports.items() if name != CONTROLLER}
    return {
        "node.id": str(node),
        "process.roles": "broker,controller",
        "controller.quorum.voters": ",".join(f"{voter}@127.0.0.1:{port}" for voter, port in voters.items()),
        "controller.listener.names": CONTROLLER,
        "inter.broker.listener.name": "PLAINTEXT",
        "listeners": _addresses(ports),
        "advertised.listeners": _addresses(client_ports),
        "listener.security.protocol.map": ",".join(f"{name}:{protocols[name]}" for name in ports),
        "log.dirs": str(data),
        **_durability(len(voters)),
        **_PACE,
    }


def _durability(brokers: int) -> dict[str, str]:
    """With three brokers or more, every topic stays writable and complete with any one of them gone."""
    replicas, in_sync = str(min(3, brokers)), "2" if brokers >= 3 else "1"
    return {
        "auto.create.topics.enable": "false",
        "default.replication.factor": replicas,
        "min.insync.replicas": in_sync,
        "offsets.topic.replication.factor": replicas,
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync,
    }


_PACE = {
    # 50 partitions each by default, which take seconds to make.
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    # A killed broker keeps its partitions, and may not come back, until its session has timed out.
    "broker.heartbeat.interval.ms": "500",
    "broker.session.timeout.ms": "3000",
    # Twice a second by default: a third of what a broker costs that nobody talks to, and tests keep some all the time.
    "metadata.max.idle.interval.ms": "10000",
    # 128 MB of heap by default.
    "log.cleaner.dedupe.buffer.size": str(16 << 20),
}


def _addresses(ports: Mapping[str, int]) -> str:
    return ",".join(f"{name}://127.0.0.1:{port}" for name, port in ports.items())
