"""What a commit costs with one transactional producer per worker, and with one per partition.

Both fence a worker that lost its partitions: the first by the group's generation in every offset commit, the second by
the producer's epoch. Prints {"value": records per second, "cpu_us_per_message": …}.
"""

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

from aiokafka import AIOKafkaProducer, TopicPartition
from local_kafka.cluster import Cluster

from headrace.engine.kafka.log import KafkaLog
from headrace.engine.kafka.settings import KafkaSettings
from headrace.engine.log import TopicSpec

#: Records per commit, over all partitions: what a busy worker gathers in 50 ms.
RECORDS = 6_400
VALUE = b"x" * 150


def new_producer(bootstrap: str, name: str) -> AIOKafkaProducer:
    """A transactional producer."""
    return AIOKafkaProducer(
        bootstrap_servers=bootstrap, transactional_id=name, compression_type="zstd", max_batch_size=1 << 20
    )


async def commit(producer: AIOKafkaProducer, numbers: list[int], offset: int, count: int) -> None:
    """One transaction: `count` records and a position for each of these partitions."""
    async with producer.transaction():
        sent = []
        for number in numbers:
            batch = producer.create_batch()
            for _ in range(count):
                batch.append(timestamp=1, key=b"sensor-0001", value=VALUE)
            sent.append(await producer.send_batch(batch, "out", partition=number))
        await producer.send_offsets_to_transaction({TopicPartition("in", n): offset for n in numbers}, "group")
        await asyncio.gather(*sent)


async def measure(bootstrap: str, per_partition: bool, partitions: int, seconds: float) -> dict[str, float]:
    """Commit for `seconds`."""
    log = KafkaLog(f"kafka://{bootstrap}", KafkaSettings())
    await log.start()
    await log.create_topics([TopicSpec("in", partitions), TopicSpec("out", partitions)])
    await log.close()
    numbers = [[number] for number in range(partitions)] if per_partition else [list(range(partitions))]
    producers = [new_producer(bootstrap, f"bench-{index}") for index in range(len(numbers))]
    for producer in producers:
        await producer.start()
    records, rounds = 0, 0
    began, cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() - began < seconds:
        rounds += 1
        count = RECORDS // partitions
        await asyncio.gather(
            *(commit(producer, mine, rounds, count) for producer, mine in zip(producers, numbers, strict=True))
        )
        records += count * partitions
    spent, cpu = time.perf_counter() - began, time.process_time() - cpu
    for producer in producers:
        await producer.stop()
    return {"value": records / spent, "cpu_us_per_message": cpu / records * 1e6, "commits_per_second": rounds / spent}


def main() -> None:
    """Parse arguments, run, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--per-partition", action="store_true")
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=8)
    arguments = parser.parse_args()
    with Cluster() as cluster:
        found = asyncio.run(
            measure(cluster.bootstrap, arguments.per_partition, arguments.partitions, arguments.seconds)
        )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
