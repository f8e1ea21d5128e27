"""The topics of a run: filled before an engine starts, read when it has stopped."""

from collections.abc import Iterable, Iterator

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError

from headrace.engine.partitioner import Partitioner
from headrace.schemas import topics
from peers.readings import DEVICES, Fleet, device_id

PARTITIONS = 4
INPUT = "peers.readings"
#: Where headrace's own agent sends windows, and so everybody.
OUTPUT = topics.ROLLUPS
#: Most bytes of one batch of records.
BATCH_BYTES = 256 << 10


async def create(bootstrap: str) -> None:
    """Make both topics. Nothing is deleted by age: the readings are old."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    made = [NewTopic(name, PARTITIONS, 1, topic_configs={"retention.ms": "-1"}) for name in (INPUT, OUTPUT)]
    await admin.create_topics(made)
    await admin.close()


async def fill(bootstrap: str, fleet: Fleet) -> None:
    """Append all messages in the order of time, keyed by device, without transactions: any client can read them."""
    keys = [device_id(device).encode() for device in range(DEVICES)]
    partition_of = [0] * DEVICES
    for partition, rows in Partitioner(PARTITIONS).split(keys).items():
        for row in rows:
            partition_of[row] = partition
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, max_batch_size=BATCH_BYTES)
    await producer.start()
    batches = [producer.create_batch() for _ in range(PARTITIONS)]
    for device, time, payload in fleet.messages():
        partition = partition_of[device]
        if batches[partition].append(key=keys[device], value=payload, timestamp=time) is None:
            await producer.send_batch(batches[partition], INPUT, partition=partition)
            batches[partition] = producer.create_batch()
            batches[partition].append(key=keys[device], value=payload, timestamp=time)
    for partition, batch in enumerate(batches):
        await producer.send_batch(batch, INPUT, partition=partition)
    await producer.stop()


def partitions_of(topic: str) -> list[TopicPartition]:
    """All of a topic's."""
    return [TopicPartition(topic, number) for number in range(PARTITIONS)]


class Watch:
    """How far an engine is."""

    def __init__(self, bootstrap: str, group: str) -> None:
        self._group = group
        self._consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap)
        self._admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)

    async def __aenter__(self) -> "Watch":
        await self._consumer.start()
        await self._admin.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._admin.close()
        await self._consumer.stop()

    async def sent(self) -> int:
        """Places in the output topic: records, and with transactions the marks of their ends."""
        return sum((await self._consumer.end_offsets(partitions_of(OUTPUT))).values())

    async def committed(self) -> int:
        """Messages of the input that the group has committed."""
        try:
            offsets = await self._admin.list_consumer_group_offsets(self._group, partitions=partitions_of(INPUT))
        except KafkaError as error:
            if not error.retriable:
                raise
            return 0  # the broker is new and still looks for a place for its groups
        return sum(max(0, each.offset) for each in offsets.values())


async def outputs(bootstrap: str) -> list[tuple[bytes, bytes]]:
    """Key and value of every committed record of the output topic."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, isolation_level="read_committed")
    await consumer.start()
    targets = partitions_of(OUTPUT)
    consumer.assign(targets)
    await consumer.seek_to_beginning()
    ends = await consumer.end_offsets(targets)
    found: list[tuple[bytes, bytes]] = []
    while any([await consumer.position(target) < end for target, end in ends.items()]):
        fetched = await consumer.getmany(timeout_ms=100)
        found += _pairs(record for records in fetched.values() for record in records)
    await consumer.stop()
    return found


def _pairs(records: Iterable) -> Iterator[tuple[bytes, bytes]]:  # type: ignore[type-arg]
    return ((record.key, record.value) for record in records)
