"""Runs an app on a log until something is so, and looks into the log."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import orjson

from headrace.engine.app import App
from headrace.engine.clock import ManualClock, SystemClock
from headrace.engine.log import Append, Log, TopicPartition, Transaction
from headrace.engine.records import Record, Records
from headrace.engine.runtime.settings import RuntimeSettings

#: Gives up waiting, seconds: many times what anything here takes.
PATIENCE = 120.0
FAST = RuntimeSettings(linger=0, linger_records=0, commit_interval=0.001, poll_timeout=0.1, drain_timeout=PATIENCE)


class HandClock(ManualClock):
    """Real seconds too pass only by hand; waiting takes its time."""

    def monotonic(self) -> float:
        return self.now_ms() / 1000


class NoWait(SystemClock):
    """Does not wait between tries."""

    async def sleep(self, delay: float) -> None:
        await asyncio.sleep(0)


async def append(log: Log, topic: str, *values: bytes, key: bytes | None = b"k", partition: int = 0) -> None:
    """Append records, all in one commit."""
    records = Records([key] * len(values), list(values), [1_700_000_000_000] * len(values))
    await log.commit(Transaction([Append(TopicPartition(topic, partition), records)]))


async def everything(log: Log, topic: str) -> list[Record]:
    """All records of a topic, partition by partition."""
    reader, found = log.reader(), []
    for target, end in (await log.end_offsets(topic)).items():
        position = 0
        while position < end:
            fetched = await reader.read(target, position, 1_000_000)
            if fetched is None:
                await reader.wait({target: position}, 1)
            else:
                found += list(fetched.records)
                position = fetched.next_offset
    await reader.close()
    return found


async def values(log: Log, topic: str) -> list[bytes | None]:
    """The values of a topic."""
    return [record.value for record in await everything(log, topic)]


async def table(log: Log, name: str) -> dict[Any, Any]:
    """What the changelog of a table of JSON keys and values holds; a list as key is a tuple here."""
    found: dict[Any, Any] = {}
    for partition in range(log.partitions(f"{name}-changelog")):
        async for entries in log.restore(TopicPartition(f"{name}-changelog", partition)):
            for key, value in entries:
                decoded = orjson.loads(key)
                found[str(decoded) if isinstance(decoded, list) else decoded] = orjson.loads(value)
    return found


async def lag(log: Log, group: str, topic: str) -> int:
    """Records of a topic that the group has not committed."""
    ends, positions = await log.end_offsets(topic), await log.positions(group, topic)
    return sum(end - positions[target] for target, end in ends.items())


def committed(log: Log, group: str, *topics: str) -> Callable[[], Awaitable[bool]]:
    """Whether the group is done with everything in these topics."""

    async def done() -> bool:
        return not any([await lag(log, group, topic) for topic in topics])

    return done


def holds(condition: Callable[[], Any]) -> Callable[[], Awaitable[bool]]:
    """The condition, to be waited for."""

    async def done() -> bool:
        return bool(condition())

    return done


async def run_until(app: App, done: Callable[[], Awaitable[bool]]) -> None:
    """Run the app until `done()`, then stop it."""
    stop = asyncio.Event()
    task = asyncio.create_task(app.run(stop))
    try:
        async with asyncio.timeout(PATIENCE):
            while not task.done() and not await done():
                await asyncio.sleep(0.005)
    finally:
        stop.set()
        await task
