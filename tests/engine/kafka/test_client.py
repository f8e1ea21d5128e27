"""A client that is cancelled while it connects."""

import asyncio
import gc
import warnings

import pytest

from headrace.engine.kafka.client import Client
from tests.conftest import KafkaServer

pytestmark = pytest.mark.integration
#: Steps of the event loop that connecting takes about, and some more.
STEPS = 60


async def test_cancelled_at_any_step_it_leaves_no_connection_open(kafka: KafkaServer) -> None:
    """Whatever it was waiting for, what it had opened is closed with it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        for steps in range(STEPS):
            client = Client(bootstrap_servers=kafka.bootstrap)
            connecting = asyncio.create_task(client.bootstrap())
            for _ in range(steps):
                await asyncio.sleep(0)
            # What the broker answers comes when it comes.
            await asyncio.sleep(steps % 7 / 2000)
            connecting.cancel()
            await asyncio.wait([connecting])
            await client.close()
            del client, connecting
        gc.collect()

    assert not [warning for warning in caught if issubclass(warning.category, ResourceWarning)]
