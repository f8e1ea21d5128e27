"""The same windowed job on headrace and its peers: one run of one row. Prints {"value": messages per CPU second, …}.

A row that cannot be, or whose windows were not all right, prints {"cannot": why, …} instead.

Decode JSON → key by device → windows of a minute by event time → send those that closed; on a real Kafka broker of its
own, four partitions. The peer's environment is set up when it is first needed; see peers/README.md.
"""

import argparse
import asyncio
import json
import platform
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))
sys.path.insert(0, str(Path(__file__).parent))  # imported by a test it is not there yet

from local_kafka.cluster import Cluster
from peers.engines import ENGINES, Engine
from peers.readings import Fleet
from peers.run import PeerError, run
from peers.topics import create, fill, outputs
from peers.verify import verify

GUARANTEES = ("at-least-once", "exactly-once")
#: Share of the messages that pass before the clock starts: compilers and connections get warm.
WARM_UP = 0.25


async def measure(engine: Engine, guarantee: str, bootstrap: str, messages: int, timeout: float) -> dict[str, Any]:
    """One run, verified."""
    warm_up = int(messages * WARM_UP)
    fleet = Fleet(messages + warm_up)
    await create(bootstrap)
    await fill(bootstrap, fleet)
    measured = await run(engine, guarantee, bootstrap, fleet, warm_up, timeout)
    verdict = verify(fleet, await outputs(bootstrap), engine.read, guarantee)
    mistakes = list(verdict.mistakes) + ["it was stopped before it had finished"] * (not measured.finished)
    if mistakes:
        print(f"{engine.name} said:\n{measured.log}", file=sys.stderr)
        reason = "its output is wrong: " + "; ".join(mistakes)
        return {"cannot": reason, **described(engine, guarantee), "verified": False}
    return {
        "value": measured.messages / measured.cpu_seconds,
        "per_wall_second": measured.messages / measured.seconds,
        "cpu_seconds": measured.cpu_seconds,
        "rss_mb": measured.rss_mb,
        "messages": measured.messages,
        **described(engine, guarantee),
        "verified": True,
        "windows": verdict.windows,
        "repeated": verdict.repeated,
    }


def described(engine: Engine, guarantee: str) -> dict[str, Any]:
    """What a row is about."""
    return {
        "peer": engine.name,
        "guarantee": guarantee,
        "version": engine.version(),
        "python": platform.python_version(),
        "configuration": engine.configuration.get(guarantee),
    }


def main() -> int:
    """Parse arguments, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", choices=list(ENGINES), required=True)
    parser.add_argument("--guarantee", choices=GUARANTEES, default="exactly-once")
    parser.add_argument("--messages", type=int, default=200_000, help="measured; a quarter more passes before")
    parser.add_argument("--timeout", type=float, default=400.0, help="seconds for the engine, start-up included")
    parser.add_argument("--set-up", action="store_true", help="make the peer's environment and stop")
    arguments = parser.parse_args()
    engine, guarantee = ENGINES[arguments.peer], arguments.guarantee
    if arguments.set_up:
        engine.command()
        return 0
    if reason := engine.cannot.get(guarantee):
        print(json.dumps({"cannot": reason, **described(engine, guarantee)}))
        return 0
    engine.command()
    with Cluster() as cluster:
        try:
            found = asyncio.run(measure(engine, guarantee, cluster.bootstrap, arguments.messages, arguments.timeout))
        except PeerError as error:
            print(error, file=sys.stderr)
            return 1
    print(json.dumps(found))
    # A peer whose windows are wrong has a row that says so; with headrace something is broken.
    return 1 if "cannot" in found and engine.name == "headrace" else 0


if __name__ == "__main__":
    sys.exit(main())
