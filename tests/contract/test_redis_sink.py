"""The cache sink keeps the sink contract, on a real Redis."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import orjson
import pytest
from redis.asyncio import Redis

from headrace.connectors.redis.settings import RedisSettings
from headrace.connectors.redis.sink import RedisSink
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.log import TopicPartition
from tests.contract.cut_proxy import CutProxy
from tests.contract.sink_contract import SinkContract
from tests.contract.sink_traffic import Newest
from tests.contract.sink_world import SinkWorld

POSITIONS = b"headrace:positions:redis"


class RedisWorld(SinkWorld):
    """The server of the session, emptied, behind a proxy; a backup has every key as Redis dumps it."""

    refused = None
    refuses_nothing = "a cache is no place of record: it leaves out what it cannot read, and dead-letters nothing"

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self._redis: Any = Redis.from_url(url)
        self._proxy = CutProxy(self._dial)
        self._saved: dict[bytes, bytes] = {}

    async def start(self) -> None:
        """Begin."""
        await self._proxy.start()
        await self._redis.flushall()

    async def stop(self) -> None:
        """End."""
        await self._proxy.stop()
        await self._redis.aclose()

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        url = urlsplit(self._url)
        if url.scheme == "unix":
            return await asyncio.open_unix_connection(url.path)
        return await asyncio.open_connection(url.hostname, url.port or 6379)

    async def make(self, log: EmbeddedLog) -> RedisSink:
        settings = RedisSettings.model_validate(
            {"url": f"redis://{self._proxy.host}:{self._proxy.port}", "timeout": 60}
        )
        return RedisSink(settings, log, self.clock)

    async def cut(self, after: int) -> None:
        await self._proxy.cut(after)

    def is_cut(self) -> bool:
        return self._proxy.is_cut

    async def mend(self) -> None:
        self._proxy.mend()

    async def newest(self) -> Newest:
        found: Newest = {}
        for key in await self._redis.keys("headrace:[sr]*"):
            document = orjson.loads(await self._redis.get(key))
            if b":status:" in key:
                entry = {"time": document["asOf"], "values": document["metrics"]}
                found["reading", document["deviceId"]] = entry
            else:
                entry = {name: document[name] for name in ("start", "revision", "measures")}
                found["rollup", document["deviceId"], document["window"]] = entry
        return found

    async def everything(self) -> Any:
        found: dict[bytes, Any] = {
            key: orjson.loads(await self._redis.get(key)) for key in await self._redis.keys("headrace:[sr]*")
        }
        positions = await self._redis.hgetall(POSITIONS)
        return found | {field: position for field, position in positions.items() if position != b"0"}

    async def rewind(self, positions: dict[TopicPartition, int]) -> None:
        fields = {f"{topic}/{partition}": position for (topic, partition), position in positions.items()}
        await self._redis.hset(POSITIONS, mapping=fields)

    async def save(self) -> None:
        self._saved = {key: await self._redis.dump(key) for key in await self._redis.keys()}

    async def restore(self) -> None:
        async with self._redis.pipeline() as everything:
            everything.flushall()
            for key, value in self._saved.items():
                everything.restore(key, 0 if key == POSITIONS else 60_000, value)
            await everything.execute()

    async def empty(self) -> None:
        await self._redis.flushall()


@pytest.mark.integration
class TestRedisSink(SinkContract):
    """Skips refusals: it refuses nothing."""

    @pytest.fixture
    async def world(self, redis_url: str) -> AsyncIterator[RedisWorld]:
        world = RedisWorld(redis_url)
        await world.start()
        yield world
        await world.stop()
