"""Files keep the source contract: what is acknowledged is the position, committed together with the rows."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import orjson
import pytest

from headrace.connectors.files import FileSource
from headrace.engine.clock import ManualClock
from headrace.engine.intake import Intake
from tests.contract.source_contract import START_MS, Message, SourceContract, SourceWorld


class FileWorld(SourceWorld):
    """An NDJSON file, written before the source begins."""

    offers_more = False

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._rows = 0

    async def begin(self, intake: Intake) -> "asyncio.Task[None]":
        self._source = FileSource(self._path, None, intake, ManualClock(START_MS), batch_rows=100)
        return asyncio.create_task(self._source.run(self.stop))

    async def offer(self, messages: Sequence[Message]) -> None:
        rows = [{"device_id": device, **orjson.loads(payload)} for device, payload in messages]
        self._path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
        self._rows = len(rows)

    def taken(self) -> int:
        progress = self._source.progress()
        return self._rows * progress.bytes_done // progress.bytes_total


class TestFileSource(SourceContract):
    """Exactly once."""

    repeats = False

    @pytest.fixture
    def world(self, tmp_path: Path) -> FileWorld:
        return FileWorld(tmp_path / "rows.ndjson")
