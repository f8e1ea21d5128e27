"""The Kinesis source keeps the source contract, on a server that speaks for AWS. Nothing comes twice."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest

from headrace.connectors.kinesis.shards import ShardsClient, open_shards
from headrace.connectors.kinesis.source import KinesisSource
from headrace.connectors.kinesis.source_settings import KinesisSourceSettings
from headrace.engine.intake import Intake
from tests.connectors.kinesis.aws import Stream, client
from tests.connectors.kinesis.reading import HurriedClock, merge, put, sharded_moto, source_settings, split
from tests.contract.source_contract import Message, SourceContract, SourceWorld


class KinesisWorld(SourceWorld):
    """A stream; offering is putting records into it. `reshard` splits and merges shards meanwhile."""

    def __init__(self, kinesis: Any, shards: ShardsClient, settings: KinesisSourceSettings, reshard: bool) -> None:
        super().__init__()
        self._kinesis = kinesis
        self._shards = shards
        self._settings = settings
        self._reshard = reshard

    async def begin(self, intake: Intake) -> "asyncio.Task[None]":
        self._source = KinesisSource(self._settings, self._shards, intake, HurriedClock())
        return asyncio.create_task(self._source.run(self.stop))

    async def offer(self, messages: Sequence[Message]) -> None:
        third = len(messages) // 3
        await put(self._kinesis, messages[:third])
        if self._reshard:
            await split(self._kinesis)
        await put(self._kinesis, messages[third : 2 * third])
        if self._reshard:
            await merge(self._kinesis, 1)
        await put(self._kinesis, messages[2 * third :])

    def taken(self) -> int:
        return self._source.statistics().received


@pytest.fixture(scope="module")
def kinesis_url() -> Iterator[str]:
    """Where the server listens."""
    with sharded_moto() as url:
        yield url


class TestKinesisSource(SourceContract):
    """Checkpoints are committed with the messages."""

    repeats = False
    large = 0  # a source asks for as many as it takes

    @pytest.fixture(params=["still", "resharded"])
    async def world(self, request: pytest.FixtureRequest, kinesis_url: str) -> AsyncIterator[KinesisWorld]:
        settings = source_settings(kinesis_url, max_records=100, max_batch=70, requests=2)
        async with client(kinesis_url) as kinesis, open_shards(settings) as shards:
            await Stream(kinesis, "fleet").make(3)
            yield KinesisWorld(kinesis, shards, settings, request.param == "resharded")
