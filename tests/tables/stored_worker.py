"""A worker with a table on disk that may kill itself with -9 at a chosen moment; run by `test_stored_tables.py`.

Arguments: URL of the log, group and input topic in one, folder of the stores or "memory", moment, such as "commit 3".
"""

import asyncio
import base64
import hashlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from headrace.engine.app import App
from headrace.engine.batch import Batch
from headrace.engine.embedded import restore
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.kafka.log import KafkaLog
from headrace.engine.kafka.settings import SCHEME, KafkaSettings
from headrace.engine.log import Log, TopicPartition
from headrace.engine.runtime.settings import RuntimeSettings
from headrace.tables.keyvalue import KeyValue
from headrace.tables.rocks import RocksStore, RocksStores
from headrace.tables.store import Codec

RUNTIME = RuntimeSettings(
    max_batch_records=1_000, linger=0, linger_records=0, commit_interval=0.001, poll_timeout=0.1, drain_timeout=120
)
SETTINGS = KafkaSettings(session_timeout=30.0, heartbeat_interval=0.3, metadata_max_age=0.5, instance="stored")
#: Bytes of a value that do not compress: a table is more than one piece of a stream.
PADDING = 450


class DoorKey(NamedTuple):
    """A key."""

    house: str
    number: int


class Door(msgspec.Struct, frozen=True):
    """A value."""

    count: int
    padding: str


@dataclass
class Dying:
    """Kills this process at the `number`-th `what`: before or after a "commit" or a "restore" is written."""

    what: str = ""
    number: int = 0
    count: int = 0

    def reached(self, what: str) -> None:
        self.count += what == self.what
        if what == self.what and self.count == self.number:
            os.kill(os.getpid(), signal.SIGKILL)


class DyingStores(RocksStores):
    """Stores that die when they are told to."""

    def __init__(self, folder: Path, dying: Dying) -> None:
        super().__init__(folder)
        self._dying = dying

    def store(self, table: str, partition: int, codec: Codec[Any]) -> RocksStore[Any]:
        store = super().store(table, partition, codec)
        commit, restore, dying = store.commit, store.restore, self._dying

        def dying_commit(position: int) -> None:
            dying.reached("commit")
            commit(position)
            dying.reached("committed")

        def dying_restore(entries: Sequence[tuple[bytes, bytes | None]], position: int) -> None:
            dying.reached("restore")
            restore(entries, position)
            dying.reached("restored")

        store.commit, store.restore = dying_commit, dying_restore  # type: ignore[method-assign]
        return store


class Doors:
    """Counts the records per key; one without value deletes its key."""

    name = "doors"

    def __init__(self, topic: str, stores: RocksStores | None) -> None:
        self.topic = topic
        self.table = KeyValue.typed("doors", key=DoorKey, value=Door, stores=stores)
        self.tables = (self.table,)

    def process(self, batch: Batch) -> None:
        doors = self.table.draft(batch)
        for row, record in enumerate(batch):
            key = door_key(record.key or b"")
            if record.value:
                before = doors.get(key, row)
                doors.put(key, door(key, before.count + 1 if before else 1), row)
            else:
                doors.delete(key, row)


def door_key(key: bytes) -> DoorKey:
    """The key that a record is about."""
    return DoorKey(f"house {int(key) % 10}", int(key))


def door(key: DoorKey, count: int) -> Door:
    """What the table has for a key that was counted so often."""
    padding = hashlib.shake_128(f"{key} {count}".encode()).digest(PADDING)
    return Door(count, base64.b64encode(padding).decode())


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Log]:
    """A log on Kafka, or in a folder."""
    log: KafkaLog | EmbeddedLog
    if url.startswith(SCHEME):
        log = KafkaLog(url, SETTINGS)
        await log.start()
    else:
        log = EmbeddedLog(Path(url))
        await log.topics()
    try:
        yield log
    finally:
        await log.close()


async def run(
    log: Log, topic: str, stores: RocksStores | None, look: Callable[[Doors], None] = lambda doors: None
) -> None:
    """Work until nothing is left to do; `look` at the table then."""
    app = App(topic, log, runtime=RUNTIME)
    doors = Doors(topic, stores)
    app.add([doors])
    await app.create_topics([], partitions=1)
    stop = asyncio.Event()
    running = asyncio.create_task(app.run(stop))
    target = TopicPartition(topic, 0)
    try:
        async with asyncio.timeout(120):
            while not running.done():
                ends, positions = await log.end_offsets(topic), await log.positions(topic, topic)
                if ends[target] == positions[target] and app.tables.is_restored(target):  # type: ignore[attr-defined]
                    look(doors)
                    break
                await asyncio.sleep(0.01)
    finally:
        stop.set()
        await running


async def main(url: str, topic: str, folder: str, moment: str) -> None:
    """Work and die."""
    what, number = moment.split()
    async with opened(url) as log:
        await run(log, topic, DyingStores(Path(folder), Dying(what, int(number))))


if __name__ == "__main__":
    restore.CHUNK = 1_000  # a restore has several pieces
    asyncio.run(main(*sys.argv[1:]))
