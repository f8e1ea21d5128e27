"""A source at work on a stream of a server that splits and merges shards, and a way to it on which things go wrong."""

import asyncio
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from aiohttp import web

from headrace.connectors.kinesis.shards import open_shards
from headrace.connectors.kinesis.source import KinesisSource
from headrace.connectors.kinesis.source_settings import KinesisSourceSettings
from headrace.connectors.topic_profile import SHIPPED, TopicProfile
from headrace.engine.cancel import cancel_and_wait
from headrace.engine.clock import Clock, SystemClock
from headrace.engine.errors import first
from headrace.engine.health import Health
from headrace.engine.intake import Intake
from headrace.engine.metrics import Metrics
from tests.connectors.kinesis.aws import REGION, Moto
from tests.loop_time import skip

PATIENCE = 60.0
AMZ_JSON = "application/x-amz-json-1.1"
#: What AWS answers, by fault.
ERRORS = {
    "throttled": (400, "ProvisionedThroughputExceededException", "Rate exceeded for shard shardId-000000000000"),
    "error": (500, "InternalFailure", "out of order"),
    "expired": (400, "ExpiredIteratorException", "Iterator expired"),
    "gone": (400, "InvalidArgumentException", "StartingSequenceNumber 1 used in GetShardIterator is invalid"),
    "early": (
        400,
        "InvalidArgumentException",
        "The timestampInMillis parameter cannot be greater than the current one",
    ),
    "denied": (400, "AccessDeniedException", "not authorized to perform kinesis:GetRecords"),
}


class HurriedClock(SystemClock):
    """Every wait is over soon."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    async def sleep(self, delay: float) -> None:
        self.waits.append(delay)
        await super().sleep(min(delay, 0.01))


def sharded_moto() -> Moto:
    """The server."""
    return Moto(str(Path(__file__).parent / "sharded_moto.py"))


def source_settings(url: str, **more: object) -> KinesisSourceSettings:
    """Those of the stream `fleet` on this server."""
    given = {"stream": "fleet", "region": REGION, "endpoint_url": url, "access_key_id": "test"}
    return KinesisSourceSettings.model_validate({**given, "secret_access_key": "test", "read_interval": 0.2, **more})


class Reading:
    """A source at work; leaving the block stops it, and if the source ends with an error so does the block."""

    def __init__(
        self,
        url: str,
        intake: Intake,
        clock: Clock | None = None,
        profiles: Sequence[TopicProfile] = SHIPPED,
        **more: object,
    ) -> None:
        self._settings = source_settings(url, **more)
        self._profiles = profiles
        self._intake = intake
        self._clock = clock or HurriedClock()
        self.metrics, self.health = Metrics(), Health(SystemClock(), expects=["kinesis"])
        self.stop = asyncio.Event()

    async def __aenter__(self) -> "Reading":
        self._opened, self._group = open_shards(self._settings), asyncio.TaskGroup()
        client = await self._opened.__aenter__()
        await self._group.__aenter__()
        self.source = KinesisSource(
            self._settings,
            client,
            self._intake,
            self._clock,
            profiles=self._profiles,
            metrics=self.metrics,
            health=self.health,
        )
        self.task = self._group.create_task(self.source.run(self.stop))
        return self

    async def __aexit__(self, *error: Any) -> None:
        self.stop.set()
        try:
            async with asyncio.timeout(PATIENCE):
                await self._group.__aexit__(*error)
        except ExceptionGroup as errors:
            raise first(errors) from None
        finally:
            await self._opened.__aexit__(None, None, None)

    async def kill(self) -> None:
        """End it as a crash does."""
        await cancel_and_wait(self.task)


class ReadWay:
    """An HTTP proxy to Kinesis. Each request of a kind that has faults takes the next; without one it passes.

    `reset` ends the connection, `silent` never answers, with `lost_` before it the server has carried it out.

    Args:
        url: of Kinesis.
        patience: seconds after which a silent one is given up; they pass at once.
    """

    def __init__(self, url: str, patience: float = 0.0) -> None:
        self._target = url
        self._patience = patience
        self.faults: dict[str, deque[str]] = {}
        #: Requests by operation.
        self.seen: Counter[str] = Counter()
        #: Records that reads asked for, in order.
        self.limits: list[int] = []

    def fail(self, operation: str, faults: Sequence[str]) -> None:
        """The next requests of this operation."""
        self.faults.setdefault(operation, deque()).extend(faults)

    async def __aenter__(self) -> "ReadWay":
        self._session = aiohttp.ClientSession()
        application = web.Application(client_max_size=32 << 20)
        application.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        assert self._runner.addresses
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        operation = request.headers.get("X-Amz-Target", "").rpartition(".")[2]
        self.seen[operation] += 1
        if operation == "GetRecords":
            self.limits.append(orjson.loads(body)["Limit"])
        waiting = self.faults.get(operation)
        fault = waiting.popleft() if waiting else ""
        if fault in ERRORS:
            status, code, message = ERRORS[fault]
            answer = {"__type": code, "message": message}
            return web.json_response(answer, status=status, content_type=AMZ_JSON)
        if fault in ("", "lost_reset", "lost_silent"):
            answered = await self._forward(request, body)
        if fault.endswith("reset"):
            assert request.transport is not None
            request.transport.abort()
        elif fault.endswith("silent"):
            skip(self._patience)
            await asyncio.Event().wait()  # until the client hangs up
        return answered

    async def _forward(self, request: web.Request, body: bytes) -> web.Response:
        own = ("host", "content-length")
        headers = {name: value for name, value in request.headers.items() if name.lower() not in own}
        url = f"{self._target}{request.path}"
        async with self._session.request(request.method, url, data=body, headers=headers) as got:
            content = await got.read()
            return web.Response(body=content, status=got.status, headers={"Content-Type": got.headers["Content-Type"]})


async def put(kinesis: Any, records: Sequence[tuple[str, bytes]], stream: str = "fleet") -> None:
    """Put records, in order."""
    sent, size = list[dict[str, Any]](), 0
    for key, data in records:
        if len(sent) == 500 or size + len(data) > 4 << 20:
            await kinesis.put_records(StreamName=stream, Records=sent)
            sent, size = [], 0
        sent.append({"PartitionKey": key, "Data": data})
        size += len(data)
    if sent:
        await kinesis.put_records(StreamName=stream, Records=sent)


async def open_ids(kinesis: Any, stream: str = "fleet") -> list[tuple[str, int, int]]:
    """Shards that are written to: id and range of hashes, in order."""
    shards = (await kinesis.list_shards(StreamName=stream))["Shards"]
    found = [
        (each["ShardId"], int(each["HashKeyRange"]["StartingHashKey"]), int(each["HashKeyRange"]["EndingHashKey"]))
        for each in shards
        if "EndingSequenceNumber" not in each["SequenceNumberRange"]
    ]
    return sorted(found, key=lambda shard: shard[1])


async def split(kinesis: Any, place: int = 0, stream: str = "fleet") -> None:
    """Split an open shard in the middle."""
    shard_id, start, end = (await open_ids(kinesis, stream))[place]
    middle = str((start + end) // 2)
    await kinesis.split_shard(StreamName=stream, ShardToSplit=shard_id, NewStartingHashKey=middle)


async def merge(kinesis: Any, place: int = 0, stream: str = "fleet") -> None:
    """Merge an open shard with the next."""
    low, high = (await open_ids(kinesis, stream))[place : place + 2]
    await kinesis.merge_shards(StreamName=stream, ShardToMerge=low[0], AdjacentShardToMerge=high[0])
