"""The memory sink keeps the sink contract."""

import copy
from collections.abc import Sequence
from typing import Any

import orjson
import pytest

from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.errors import Disconnected
from headrace.engine.log import Fetched, TopicPartition
from headrace.engine.memory_sink import MemorySink
from headrace.schemas import topics
from tests.contract.sink_contract import SinkContract
from tests.contract.sink_traffic import Newest, Sent, newest
from tests.contract.sink_world import SinkWorld

READ = (topics.READINGS, topics.ROLLUPS)


class CutMemorySink(MemorySink):
    """Looks at its world: how many more requests get through, and whether their answers do."""

    world: "MemoryWorld"

    async def write(self, fetched: Sequence[Fetched]) -> None:
        self.world.request(self)
        await super().write(fetched)
        if self.world.is_cut():
            self.down = True
            raise Disconnected("the answer did not come")

    async def open(self) -> None:
        self.down = self.world.is_cut()
        await super().open()

    async def close(self) -> None:
        self.down = True


class MemoryWorld(SinkWorld):
    """The other side is the lists of a sink, which its successors get."""

    repeatable = False
    not_repeatable = "it keeps every record that it is given, under no key"
    kind: type[CutMemorySink] = CutMemorySink

    def __init__(self) -> None:
        super().__init__()
        self._allowed: int | None = None
        self.stored: dict[TopicPartition, list[Any]] = {}
        self.store: dict[TopicPartition, int] = {}

    async def make(self, log: EmbeddedLog) -> MemorySink:
        sink = self.kind("memory", READ, refuses=lambda record: record.value == self.refused)
        sink.world, sink.stored, sink.store = self, self.stored, self.store
        return sink

    def request(self, sink: MemorySink) -> None:
        """One request comes."""
        sink.down |= self.is_cut()
        if self._allowed:
            self._allowed -= 1

    async def cut(self, after: int) -> None:
        self._allowed = after

    def is_cut(self) -> bool:
        return self._allowed == 0

    async def mend(self) -> None:
        self._allowed = None

    async def newest(self) -> Newest:
        return newest(
            sent
            for target, records in self.stored.items()
            for record in records
            for sent in readable(target.topic, record.key, record.value)
        )

    async def everything(self) -> Any:
        return copy.deepcopy((self.stored, {target: at for target, at in self.store.items() if at}))

    async def rewind(self, positions: dict[TopicPartition, int]) -> None:
        self.store |= positions

    async def save(self) -> None:
        self._saved = copy.deepcopy((self.stored, self.store))

    async def restore(self) -> None:
        await self.empty()
        stored, store = self._saved
        self.stored |= stored
        self.store |= store

    async def empty(self) -> None:
        self.stored.clear()
        self.store.clear()


def readable(topic: str, key: bytes | None, value: bytes | None) -> list[Sent]:
    """The record, if it is one of ours."""
    try:
        document = orjson.loads(value or b"")
    except orjson.JSONDecodeError:
        return []
    ours = isinstance(document, dict) and isinstance(document.get("measures"), dict)
    return [(topic, (key or b"").decode(), value or b"")] if ours else []


class TestMemorySink(SinkContract):
    """With requests that are whole writes."""

    @pytest.fixture
    async def world(self) -> MemoryWorld:
        return MemoryWorld()
