"""The Kafka that tests run on is real: it keeps records, survives a broker and asks for passwords."""

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

import pytest

from tests.conftest import KafkaServer

pytestmark = pytest.mark.integration


async def test_shared_kafka_keeps_records(kafka: KafkaServer) -> None:
    """What is produced to the session's broker can be read back."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic("local-kafka-keeps", 1, 1)])
    await admin.close()
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, acks="all") as producer:
        await producer.send_and_wait("local-kafka-keeps", b"one")

    async with AIOKafkaConsumer(
        "local-kafka-keeps", bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest"
    ) as consumer:
        record = await consumer.getone()

    assert record.value == b"one"
