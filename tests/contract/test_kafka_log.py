"""The log on Kafka keeps the contract, on the newest and on the oldest release that is supported."""

from collections.abc import AsyncIterator
from typing import Protocol

import pytest

from headrace.engine.clock import SystemClock
from headrace.engine.kafka.log import KafkaLog
from headrace.engine.kafka.settings import KafkaSettings
from tests.contract.log_contract import LogContract

pytestmark = pytest.mark.integration


class Server(Protocol):
    """A running Kafka."""

    @property
    def bootstrap(self) -> str: ...


async def connected(server: Server) -> AsyncIterator[KafkaLog]:
    log = KafkaLog(f"kafka://{server.bootstrap}", KafkaSettings(), SystemClock(), role="contract")
    try:
        await log.start()
        yield log
    finally:
        await log.close()


class TestNewestKafka(LogContract):
    """The release that the other tests run on, or the one that `HEADRACE_TEST_KAFKA` names."""

    @pytest.fixture
    async def log(self, kafka: Server) -> AsyncIterator[KafkaLog]:
        async for log in connected(kafka):
            yield log


class TestOldestKafka(LogContract):
    """The oldest release that is supported."""

    @pytest.fixture
    async def log(self, oldest_kafka: Server) -> AsyncIterator[KafkaLog]:
        async for log in connected(oldest_kafka):
            yield log
