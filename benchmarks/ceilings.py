"""What the parts allow without an engine: one run of a variant. Prints {"value": messages per CPU second, …}.

The messages of the windowed job (see peers/README.md), read from a Kafka broker by aiokafka alone, or decoded alone.
Bare COPY is `sink.py --variant bare`, and a bare MQTT socket `mqtt_source.py --variant raw`.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

import msgspec
import orjson
import psutil
from aiokafka import AIOKafkaConsumer
from local_kafka.cluster import Cluster
from peers.readings import Fleet
from peers.topics import INPUT, create, fill, partitions_of

#: Most messages of one poll, as many as headrace takes in one batch.
BATCH = 5_000
#: Share of the messages that pass before the clock starts.
WARM_UP = 0.25


class Reading(msgspec.Struct, gc=False):
    """The payload, for a decoder that knows its type."""

    device_id: str
    timestamp: int
    temperature: float
    humidity: float
    co2: float
    pm25: float


def keep(value: bytes) -> bytes:
    """No decoder."""
    return value


DECODERS: dict[str, Callable[[bytes], Any]] = {
    "aiokafka": keep,
    "orjson": orjson.loads,
    "msgspec": msgspec.json.Decoder(Reading).decode,
}
#: By variant, whether the messages come from a broker, and what decodes them.
VARIANTS = {
    "aiokafka": (True, "aiokafka"),
    "aiokafka-orjson": (True, "orjson"),
    "aiokafka-msgspec": (True, "msgspec"),
    "orjson": (False, "orjson"),
    "msgspec": (False, "msgspec"),
}


def decoded(payloads: Iterable[bytes], decode: Callable[[bytes], Any]) -> int:
    """Decode them in batches, as they come from a log; how many they were."""
    return len([decode(payload) for payload in payloads])


async def consume(bootstrap: str, fleet: Fleet, decode: Callable[[bytes], Any]) -> dict[str, float]:
    """By `getmany`, its documented way to batch."""
    await create(bootstrap)
    await fill(bootstrap, fleet)
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    consumer.assign(partitions_of(INPUT))
    warm_up, seen, passed, began, cpu = int(len(fleet) * WARM_UP), 0, 0, 0.0, 0.0
    while seen < len(fleet):
        fetched = await consumer.getmany(timeout_ms=1000, max_records=BATCH)
        seen += sum(decoded((record.value for record in records), decode) for records in fetched.values())
        if not passed and seen >= warm_up:
            passed, began, cpu = seen, time.perf_counter(), time.process_time()
    found = figures(seen - passed, began, cpu)
    await consumer.stop()
    return found


def in_memory(fleet: Fleet, decode: Callable[[bytes], Any]) -> dict[str, float]:
    """Of bytes that are there."""
    payloads = [message.payload for message in fleet.messages()]
    decoded(payloads[: int(len(payloads) * WARM_UP)], decode)
    began, cpu = time.perf_counter(), time.process_time()
    for start in range(0, len(payloads), BATCH):
        decoded(payloads[start : start + BATCH], decode)
    return figures(len(payloads), began, cpu)


def figures(messages: int, began: float, cpu: float) -> dict[str, float]:
    """What a variant prints, from its times at the start."""
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    return {
        "value": messages / cpu,
        "per_wall_second": messages / seconds,
        "cpu_seconds": cpu,
        "rss_mb": psutil.Process().memory_info().rss / 1e6,
        "messages": messages,
    }


def main() -> None:
    """Parse arguments, run, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--variant", choices=list(VARIANTS), required=True)
    parser.add_argument("--messages", type=int, default=400_000)
    arguments = parser.parse_args()
    on_kafka, decoder = VARIANTS[arguments.variant]
    fleet, decode = Fleet(arguments.messages), DECODERS[decoder]
    if on_kafka:
        with Cluster() as cluster:
            found = asyncio.run(consume(cluster.bootstrap, fleet, decode))
    else:
        found = in_memory(fleet, decode)
    versions = {name: version(name) for name in ("aiokafka", "msgspec", "orjson")}
    print(json.dumps({**found, "version": ", ".join(f"{name} {each}" for name, each in versions.items())}))


if __name__ == "__main__":
    main()
