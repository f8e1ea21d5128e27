"""Starts Kafka on this machine and keeps it until Ctrl-C: `python scripts/local_kafka --brokers 3`."""

import argparse
import signal
import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).parents[1])

from local_kafka.broker import StartError
from local_kafka.cluster import DEFAULT_VERSION, VERSIONS, Cluster
from local_kafka.jars import MissingTool


def main() -> int:
    """Run the command line; returns the exit status."""
    arguments = _parser().parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        if arguments.prepare:
            _prepare()
        else:
            _run(arguments)
    except KeyboardInterrupt:
        pass
    except (MissingTool, StartError) as error:
        print(f"local_kafka: {error}", file=sys.stderr)
        return 1
    return 0


def _run(arguments: argparse.Namespace) -> None:
    brokers, version, port = arguments.brokers, arguments.version, arguments.port
    with Cluster(brokers, version=version, port=port, secure=arguments.secure) as cluster:
        for listener, addresses in sorted(cluster.listeners.items()):
            print(f"{listener:15} {addresses}")
        if arguments.secure:
            security = cluster.security
            print(f"user {security.username}, password {security.password}, certificates in {security.folder}")
        print(f"Kafka {version} runs; logs are in {cluster.folder}. Ctrl-C stops it and removes its data.", flush=True)
        signal.pause()


def _prepare() -> None:
    for version in VERSIONS:
        with Cluster(version=version):
            print(f"Kafka {version} starts")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="local_kafka", description="Start Apache Kafka on this machine.")
    parser.add_argument("--brokers", type=int, default=1, help="how many (default: 1)")
    parser.add_argument("--version", default=DEFAULT_VERSION, choices=VERSIONS, help="of Kafka (default: %(default)s)")
    parser.add_argument("--port", type=int, help="of the first broker (default: free ones)")
    parser.add_argument("--secure", action="store_true", help="add listeners with SASL and TLS")
    parser.add_argument(
        "--prepare", action="store_true", help="fetch the jars of every version, see that it starts, and end"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
