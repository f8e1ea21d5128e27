"""HTTP ingest keeps the source contract: who gets no good answer sends again, as HTTP clients do."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Sequence
from itertools import count

import aiohttp
import pytest
from local_kafka.ports import free_ports

from headrace.agents.ingest import IngestConfig
from headrace.agents.payload_judge import PayloadJudge
from headrace.connectors.http.settings import HttpSettings
from headrace.connectors.http.source import HttpSource
from headrace.connectors.topic_profile import SHIPPED
from headrace.connectors.topic_routes import TopicRoutes
from headrace.engine.cancel import cancel_and_wait
from headrace.engine.clock import SystemClock
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.intake import Intake
from headrace.engine.log import TopicSpec
from headrace.schemas import topics
from headrace.tables.device_types import load_device_types
from tests.contract.source_contract import GatedIntake, Message, SourceContract, SourceWorld

#: Messages of a batch.
BATCH = 20
GOOD = (200, 201, 202)
DEVICE_TYPES = load_device_types()


class Device:
    """Posts what it has, one request after the other, each until it is answered well."""

    def __init__(self, name: str, port: int, keys: "count[int] | None") -> None:
        self._name = name
        self._url = f"http://127.0.0.1:{port}"
        self._keys = keys
        self._waiting: deque[bytes] = deque()
        self._arrived = asyncio.Event()

    def offer(self, payload: bytes) -> None:
        """Send this when its turn comes."""
        self._waiting.append(payload)
        self._arrived.set()

    async def run(self) -> None:
        """Until cancelled."""
        async with aiohttp.ClientSession() as session:
            while True:
                await self._arrived.wait()
                path, body, headers, taken = self._next()
                while not await _is_taken(session, self._url + path, body, headers):
                    await asyncio.sleep(0.01)
                for _ in range(taken):
                    self._waiting.popleft()
                if not self._waiting:
                    self._arrived.clear()

    def _next(self) -> tuple[str, bytes, dict[str, str], int]:
        """Path, body and headers of the next request, and how many messages it brings."""
        headers = {"Content-Type": "application/json", "Prefer": "respond-async"}
        if self._keys is None:
            return f"/devices/{self._name}/telemetry", self._waiting[0], headers, 1
        named = [b'{"device_id":"%s",' % self._name.encode() + each[1:] for each in list(self._waiting)[:BATCH]]
        return (
            "/batch",
            b"[" + b",".join(named) + b"]",
            headers | {"Idempotency-Key": f"k{next(self._keys)}"},
            len(named),
        )


async def _is_taken(session: aiohttp.ClientSession, url: str, body: bytes, headers: dict[str, str]) -> bool:
    with contextlib.suppress(aiohttp.ClientError, OSError):
        async with session.post(url, data=body, headers=headers) as response:
            await response.read()
            assert response.status in (*GOOD, 429, 503), await response.text()
            return response.status in GOOD
    return False


class HttpWorld(SourceWorld):
    """Devices around a source on one port."""

    def __init__(self, with_keys: bool) -> None:
        super().__init__()
        (self._port,) = free_ports(1)
        self._keys = count() if with_keys else None
        self._devices: dict[str, Device] = {}
        self.tasks: list[asyncio.Task[None]] = []

    async def begin(self, intake: Intake) -> "asyncio.Task[None]":
        assert isinstance(intake, GatedIntake)
        outputs = [TopicSpec(name, 4) for name in topics.OUTPUTS]
        await intake.log.create_topics([*HttpSource.topic_specs(), *outputs])
        self._source = source(intake, intake.log, HttpSettings(port=self._port))
        task = asyncio.create_task(self._source.run(self.stop))
        await self._source.wait_listening()
        return task

    async def offer(self, messages: Sequence[Message]) -> None:
        for name, payload in messages:
            if name not in self._devices:
                self._devices[name] = Device(name, self._port, self._keys)
                self.tasks.append(asyncio.create_task(self._devices[name].run()))
            self._devices[name].offer(payload)

    def taken(self) -> int:
        return self._source.statistics().received


def source(intake: Intake, log: EmbeddedLog, settings: HttpSettings) -> HttpSource:
    """A source that judges as ingest does."""
    clock = SystemClock()
    judge = PayloadJudge(DEVICE_TYPES, IngestConfig(), clock)
    return HttpSource(settings, intake, log, judge, TopicRoutes(SHIPPED), DEVICE_TYPES, "headrace", clock)


class TestSingles(SourceContract):
    """A request per message."""

    @pytest.fixture
    async def world(self) -> AsyncIterator[HttpWorld]:
        world = HttpWorld(with_keys=False)
        yield world
        await cancel_and_wait(*world.tasks)


class TestBatches(SourceContract):
    """Batches with an Idempotency-Key: nothing comes twice, whatever dies."""

    repeats = False

    @pytest.fixture
    async def world(self) -> AsyncIterator[HttpWorld]:
        world = HttpWorld(with_keys=True)
        yield world
        await cancel_and_wait(*world.tasks)
