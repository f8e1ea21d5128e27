"""A source at work on a log in memory, and clients of it: aiohttp's own, and bytes on a socket."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import aiohttp
import orjson

from headrace.agents.ingest import IngestConfig
from headrace.agents.payload_judge import PayloadJudge
from headrace.connectors.http.judge import NewestValues
from headrace.connectors.http.settings import HttpSettings
from headrace.connectors.http.source import HttpSource
from headrace.connectors.topic_profile import SHIPPED, TopicProfile
from headrace.connectors.topic_routes import TopicRoutes
from headrace.engine.cancel import cancel_and_wait
from headrace.engine.clock import Clock, SystemClock
from headrace.engine.embedded.database import MEMORY
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.health import Health
from headrace.engine.intake import Intake
from headrace.engine.log import TopicPartition, TopicSpec
from headrace.schemas import topics
from headrace.tables.device_types import load_device_types
from tests.contract.source_contract import GatedIntake

DEVICE_TYPES = load_device_types()
PARTITIONS = 2
GROUP = "headrace"
#: A good message, and where to post it.
READING = b'{"timestamp": 1750000000000, "temperature": 21.5}'
TELEMETRY = "/devices/roof-7/telemetry"
JSON = {"Content-Type": "application/json"}


class Answer(NamedTuple):
    """An answer, and its body as JSON."""

    status: int
    headers: dict[str, str]
    document: Any


class Server:
    """A source at work."""

    def __init__(
        self,
        source: HttpSource,
        intake: GatedIntake,
        port: int,
        session: aiohttp.ClientSession,
        stop: asyncio.Event,
        health: Health,
    ) -> None:
        self.health = health
        self.stop = stop
        self.source = source
        self.intake = intake
        self.log = intake.log
        self.port = port
        self._session = session

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Ask, and read the answer. `_` in names of headers is `-`; bytes are sent as they are, others as JSON."""
        data = body if isinstance(body, bytes) or body is None else orjson.dumps(body)
        given = ({} if body is None else JSON) | {name.replace("_", "-"): value for name, value in headers.items()}
        url = f"http://127.0.0.1:{self.port}{path}"
        async with self._session.request(method, url, data=data, headers=given) as response:
            said = await response.read()
            return Answer(response.status, dict(response.headers), orjson.loads(said) if said else None)

    async def post(self, path: str, body: Any, **headers: str) -> Answer:
        """Post; see `ask`. Does not wait for ingest unless asked to."""
        return await self.ask("POST", path, body, **({"Prefer": "respond-async"} | headers))

    async def raw(self, *pieces: bytes) -> Answer:
        """Send pieces on a connection of their own; the answer."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            async with asyncio.timeout(60):
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(parse(head).headers["Content-Length"])
                return parse(head + await reader.readexactly(length))
        finally:
            writer.close()

    async def appended(self) -> list[tuple[str, bytes]]:
        """Device and payload of every raw message in the log."""
        found = []
        for partition in range(PARTITIONS):
            fetched = await self.log.read(TopicPartition(topics.RAW, partition), 0, 100_000)
            records = [] if fetched is None else zip(fetched.records.keys, fetched.records.values, strict=True)
            found += [((key or b"").decode(), value or b"") for key, value in records]
        return found


def parse(answer: bytes) -> Answer:
    """An answer from its bytes."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    return Answer(int(status.split()[1]), headers, orjson.loads(body) if body else None)


@asynccontextmanager
async def opened_memory() -> AsyncIterator[EmbeddedLog]:
    """A log with all topics."""
    log = EmbeddedLog(MEMORY)
    names = [TopicSpec(name, PARTITIONS) for name in topics.OUTPUTS]
    await log.create_topics([*Intake.topic_specs(PARTITIONS), *HttpSource.topic_specs(), *names])
    yield log
    await log.close()


@asynccontextmanager
async def serving(
    log: EmbeddedLog | None = None,
    *,
    values: NewestValues | None = None,
    profiles: Sequence[TopicProfile] = SHIPPED,
    clock: Clock | None = None,
    **settings: Any,
) -> AsyncIterator[Server]:
    """A source on a free port, until the block ends; on a log of its own unless it is given one.

    It waits for verdicts as long as it may, unless told otherwise: tests are not always quick to give one.
    """
    if log is None:
        more: dict[str, Any] = {"values": values, "profiles": profiles, "clock": clock}
        async with opened_memory() as own, serving(own, **more, **settings) as server:
            yield server
        return
    clock, intake, stop = clock or SystemClock(), GatedIntake(log), asyncio.Event()
    judge = PayloadJudge(DEVICE_TYPES, IngestConfig(), clock)
    health = Health(clock, expects=[HttpSource.name])
    source = HttpSource(
        HttpSettings(port=0, **{"verdict_timeout": 60, **settings}),
        intake,
        log,
        judge,
        TopicRoutes(profiles),
        DEVICE_TYPES,
        GROUP,
        clock,
        values=values,
        health=health,
    )
    running = asyncio.create_task(source.run(stop))
    try:
        port = await source.wait_listening()
        async with aiohttp.ClientSession() as session:
            yield Server(source, intake, port, session, stop, health)
        stop.set()
        await running
    finally:
        await cancel_and_wait(running)


def statuses(answer: Answer) -> Sequence[str]:
    """Of the messages of a batch, in order."""
    return [item["status"] for item in answer.document["items"]]
