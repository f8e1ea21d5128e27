"""HTTP ingest is killed under load: what clients send again under its key until it is answered is in the log once."""

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from local_kafka.cluster import Cluster

from headrace.engine.cancel import cancel_and_wait
from tests.chaos.bridge_world import PATIENCE, Bridge, clock, read_folder, read_kafka
from tests.chaos.listener_devices import port_below_ephemeral

pytestmark = [pytest.mark.chaos, pytest.mark.integration, pytest.mark.timeout(1800)]
CLIENTS, BATCH = 6, 20
#: Of so many kills one is on Kafka, where a start takes longer.
KAFKA_SHARE = 10
START_MS = 1_750_000_000_000


class Clients:
    """Each posts batches of a device of its own, one after the other, each under its key until it is answered."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/batch"
        #: Answered batches by device, and answers that had been given before.
        self.answered = [0] * CLIENTS
        self.replayed = 0

    @asynccontextmanager
    async def posting(self) -> AsyncIterator[None]:
        """Post until the block ends; then finish what was begun."""
        stop = asyncio.Event()
        tasks = [asyncio.create_task(self._run(number, stop)) for number in range(CLIENTS)]
        try:
            yield
            stop.set()
            async with asyncio.timeout(PATIENCE):
                await asyncio.gather(*tasks)
        finally:
            await cancel_and_wait(*tasks)

    async def wait_answered(self) -> None:
        """Wait until every client has one more answer."""
        wanted = [count + 1 for count in self.answered]
        async with asyncio.timeout(PATIENCE):
            while any(count < least for count, least in zip(self.answered, wanted, strict=True)):
                await clock.sleep(0.01)

    async def _run(self, number: int, stop: asyncio.Event) -> None:
        async with aiohttp.ClientSession() as session:
            while not stop.is_set():
                first = self.answered[number] * BATCH
                body = [
                    {"device_id": f"d{number}", "timestamp": START_MS + each, "temperature": 20, "seq": each}
                    for each in range(first, first + BATCH)
                ]
                headers = {"Content-Type": "application/json", "Idempotency-Key": f"d{number}-{first}"}
                while not await self._is_answered(session, orjson.dumps(body), headers):
                    await clock.sleep(0.02)
                self.answered[number] += 1

    async def _is_answered(self, session: aiohttp.ClientSession, body: bytes, headers: dict[str, str]) -> bool:
        with suppress(aiohttp.ClientError, OSError):
            async with session.post(self._url, data=body, headers=headers) as response:
                answer = await response.json(content_type=None)
                if response.status == 202:
                    assert answer["accepted"] == BATCH
                    self.replayed += "Idempotency-Replayed" in response.headers
                    return True
                assert response.status in (429, 503), answer
        return False

    def check(self, payloads: Sequence[bytes]) -> None:
        """Everything that was answered is there, once, in order."""
        found = defaultdict[str, list[int]](list)
        for payload in payloads:
            message = orjson.loads(payload)
            found[message["device_id"]].append(message["seq"])
        assert found == {f"d{number}": [*range(count * BATCH)] for number, count in enumerate(self.answered)}
        print(f"{sum(self.answered)} batches, {self.replayed} answered again")


@pytest.fixture
def port() -> int:
    """Where to listen."""
    return port_below_ephemeral()


@pytest.fixture
def bridge(tmp_path: Path, port: int) -> Iterator[Bridge]:
    """HTTP ingest on the embedded log; started."""
    found = Bridge(tmp_path, f"[http]\nport = {port}\n")
    found.start()
    yield found
    found.end()


async def kill_again_and_again(bridge: Bridge, clients: Clients, rng: random.Random, kills: int) -> None:
    """kill -9 at random points, between receive, append and answer, and start again."""
    for _ in range(kills):
        await clients.wait_answered()
        await clock.sleep(rng.uniform(0.0, 0.3))
        bridge.kill()
        bridge.start()
    await clients.wait_answered()


async def test_killed_ingest_takes_all_once(bridge: Bridge, port: int, chaos_size: Any, chaos_seed: int) -> None:
    """On the embedded log."""
    clients = Clients(port)
    async with clients.posting():
        await kill_again_and_again(bridge, clients, random.Random(chaos_seed), chaos_size.kills)

    assert bridge.stop() == 0, bridge.said()
    clients.check(await read_folder(bridge.data))


async def test_killed_ingest_takes_all_once_on_kafka(
    tmp_path: Path, port: int, chaos_size: Any, chaos_seed: int, kafka_tools: None
) -> None:
    """The same on Kafka."""
    clients = Clients(port)
    with Cluster() as cluster:
        bridge = Bridge(tmp_path, f"[http]\nport = {port}\n", f"kafka://{cluster.bootstrap}")
        bridge.start()
        try:
            async with clients.posting():
                kills = max(1, chaos_size.kills // KAFKA_SHARE)
                await kill_again_and_again(bridge, clients, random.Random(chaos_seed), kills)
            assert bridge.stop() == 0, bridge.said()
            clients.check(await read_kafka(cluster))
        finally:
            bridge.end()


async def test_stopped_under_load(bridge: Bridge, port: int) -> None:
    """SIGTERM while clients post: it ends with 0, and goes on where it was."""
    clients = Clients(port)
    async with clients.posting():
        await clients.wait_answered()
        assert await asyncio.to_thread(bridge.stop) == 0, bridge.said()
        bridge.start()
        await clients.wait_answered()
    assert bridge.stop() == 0, bridge.said()

    clients.check(await read_folder(bridge.data))
