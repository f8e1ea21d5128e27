"""Reader and group membership on the embedded log, where one worker has everything."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Protocol

from headrace.engine.errors import HeadraceError
from headrace.engine.log import Fetched, TopicPartition


class Readable(Protocol):
    """What a `SharedReader` reads from."""

    async def read(self, target: TopicPartition, offset: int, max_records: int) -> Fetched | None: ...

    async def wait(self, positions: Mapping[TopicPartition, int], timeout: float) -> bool: ...


class SharedReader:
    """A `Reader` that keeps nothing: the log itself remembers what was just appended."""

    def __init__(self, log: Readable) -> None:
        self.read = log.read
        self.wait = log.wait

    def forget(self, targets: Iterable[TopicPartition]) -> None:
        """Nothing was fetched ahead."""

    async def close(self) -> None:
        """Nothing to stop."""


class SoleMember:
    """A `Membership` in a group of one."""

    async def leave(self) -> None:
        """Nobody else is there to take over."""

    async def wait_lost(self) -> HeadraceError:
        """Nobody else is there to take its place."""
        await asyncio.Event().wait()
        raise AssertionError("nobody sets it")
