"""Kafka's own Java client and we agree: on the partition of a key, and on what is in a record batch."""

import asyncio
import random
import subprocess

import pytest
from local_kafka.cluster import VERSIONS
from local_kafka.jars import class_path, find_tool

from headrace.engine.kafka.log import KafkaLog
from headrace.engine.log import TopicPartition, TopicSpec
from headrace.engine.partitioner import Partitioner
from tests.conftest import KafkaServer
from tests.contract.log_access import Names, read_records

pytestmark = pytest.mark.integration

PARTITIONS = 50
KEYS_PER_CODEC = 2_500
#: The console producer of this version is in the jars that a broker needs; it is the Java client with a main method.
CONSOLE_PRODUCER = "kafka.tools.ConsoleProducer"


def some_keys(seed: int) -> list[str]:
    """Keys of every length and alphabet, the empty one and very long ones among them."""
    chance = random.Random(seed)
    alphabets = [
        "abcdefgh0123456789-",
        "äöüßñ€",
        "日本語キー",
        "\U0001f600\U0001f4a9",
        "".join(map(chr, range(32, 127))),
    ]
    keys = ["", "a", "ab", "abc", "abcd", "x" * 10_000, "\x7f", "\u0080", "\u07ff\u0800"]
    while len(keys) < KEYS_PER_CODEC:
        keys.append("".join(chance.choices(chance.choice(alphabets), k=chance.randrange(40))))
    return keys


async def produce(bootstrap: str, topic: str, codec: str, keys: list[str]) -> None:
    """Write one record per key, its number as the value, with the Java client."""
    jvm = [find_tool("java"), "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-cp", class_path(VERSIONS[0])]
    options = ["--bootstrap-server", bootstrap, "--topic", topic, "--compression-codec", codec]
    properties = ["--property", "parse.key=true", "--property", "key.separator=\t"]
    lines = "".join(f"{key}\t{number}\n" for number, key in enumerate(keys))
    await asyncio.to_thread(
        subprocess.run,
        [*jvm, CONSOLE_PRODUCER, *options, *properties],
        input=lines.encode(),
        check=True,
        capture_output=True,
    )


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
async def test_partitions_of_keys_are_those_of_the_java_client(kafka: KafkaServer, log: KafkaLog, codec: str) -> None:
    """Each of 10,000 keys is in the partition that we compute for it, and what Java compressed we can read."""
    topic = f"{Names.new().events}-{codec}"
    await log.create_topics([TopicSpec(topic, PARTITIONS)])
    keys = some_keys(int.from_bytes(codec.encode()))
    await produce(kafka.bootstrap, topic, codec, keys)

    partitioner = Partitioner(PARTITIONS)
    found: dict[int, int] = {}
    for number in range(PARTITIONS):
        for record in await read_records(log, TopicPartition(topic, number)):
            found[int(record.value or b"")] = number
            assert record.key == keys[int(record.value or b"")].encode()

    assert found == {number: partitioner.partition(key.encode()) for number, key in enumerate(keys)}
