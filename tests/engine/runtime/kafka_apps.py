"""Apps on a real Kafka, each with a log of its own as if it were another process."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

from headrace.engine.app import App
from headrace.engine.batch import Batch
from headrace.engine.kafka.log import KafkaLog
from headrace.engine.kafka.settings import KafkaSettings
from headrace.engine.log import Append, TopicPartition, TopicSpec, Transaction
from headrace.engine.records import Record, Records
from headrace.engine.runtime.settings import RuntimeSettings

#: Gives up waiting, seconds: many times what anything here takes.
PATIENCE = 120.0
FAST = RuntimeSettings(linger=0, linger_records=0, commit_interval=0.01, poll_timeout=0.1, drain_timeout=0.5)
#: A group hears soon what changed; and no machine is so busy that it gives up a worker which is not dead.
SETTINGS = KafkaSettings(
    session_timeout=30.0, heartbeat_interval=0.3, metadata_max_age=0.5, transaction_timeout=2 * PATIENCE
)
#: Of workers that are to be killed: their group is to notice soon.
MORTAL = SETTINGS.model_copy(update={"session_timeout": 3.0, "transaction_timeout": 10.0})

#: Adds agents to an app.
Build = Callable[[App], None]
MakeLog = Callable[..., KafkaLog]


class Server(Protocol):
    """A running Kafka."""

    @property
    def bootstrap(self) -> str: ...


class Worker:
    """A running app.

    Args:
        task: its run; ends when `stop` is set, or with the error it crashed on.
    """

    def __init__(self, app: App, log: KafkaLog, task: asyncio.Task[None], stop: asyncio.Event) -> None:
        self.app = app
        self.log = log
        self.task = task
        self._stop = stop

    @property
    def consumer(self) -> Any:
        """The app's consumer."""
        return self.app.consumer

    @property
    def partitions(self) -> set[TopicPartition]:
        """What it works on; empty while partitions are given out anew or tables restored."""
        return set() if self.app.rebalancing else {TopicPartition(*each) for each in self.consumer.assignment()}

    async def stop(self) -> None:
        """End it as SIGTERM does."""
        self._stop.set()
        await self.task


class Place:
    """Topics with names that nobody else has, on a Kafka that everybody shares."""

    def __init__(self, server: Server, log: KafkaLog) -> None:
        tag = os.urandom(4).hex()
        self.log = log
        self.group = f"group-{tag}"
        self.topic = f"in-{tag}"
        self.output = f"out-{tag}"
        self.url = f"kafka://{server.bootstrap}"

    def target(self, partition: int) -> TopicPartition:
        """A partition of `topic`."""
        return TopicPartition(self.topic, partition)

    async def create(self, partitions: int) -> None:
        """Make both topics."""
        await self.log.create_topics([TopicSpec(self.topic, partitions), TopicSpec(self.output, partitions)])

    async def append(self, partition: int, *values: bytes, topic: str = "") -> None:
        """Append records to a partition of `topic`, in one commit."""
        records = Records([b"k"] * len(values), list(values), [1_700_000_000_000] * len(values))
        await self.log.commit(Transaction([Append(TopicPartition(topic or self.topic, partition), records)]))

    async def values(self, topic: str = "") -> dict[int, list[bytes | None]]:
        """What was committed to `output`, by partition."""
        reader = self.log.reader()
        found: dict[int, list[bytes | None]] = {}
        for target, end in (await self.log.end_offsets(topic or self.output)).items():
            position = 0
            while position < end:
                fetched = await reader.read(target, position, 100_000)
                if fetched is None:
                    assert await reader.wait({target: position}, PATIENCE)
                else:
                    found.setdefault(target.partition, []).extend(fetched.records.values)
                    position = fetched.next_offset
        await reader.close()
        return found

    async def lag(self, topic: str = "") -> int:
        """Records of `topic` that the group has not committed."""
        ends = await self.log.end_offsets(topic or self.topic)
        positions = await self.log.positions(self.group, topic or self.topic)
        return sum(end - positions[target] for target, end in ends.items())

    async def wait_done(self, topic: str = "") -> None:
        """Wait until the group has committed everything."""
        await wait_until(lambda: _is_zero(self.lag(topic)), "lag does not reach 0")

    @asynccontextmanager
    async def worker(
        self,
        build: Build,
        *,
        runtime: RuntimeSettings = FAST,
        settings: KafkaSettings = SETTINGS,
        make_log: MakeLog = KafkaLog,
        **kafka: Any,
    ) -> AsyncIterator[Worker]:
        """A worker that has joined the group, though it may have no partitions yet.

        Args:
            kafka: settings that differ.
        """
        log = make_log(self.url, settings.model_copy(update=kafka))
        await log.start()
        app = App(self.group, log, runtime=runtime)
        build(app)
        stop = asyncio.Event()
        task = asyncio.create_task(app.run(stop))
        worker = Worker(app, log, task, stop)
        try:
            yield worker
        finally:
            stop.set()
            await asyncio.wait([task])
            await log.close()
            if not task.cancelled():
                task.exception()  # whoever expects one has looked


async def wait_until(condition: Callable[[], bool | Awaitable[bool]], otherwise: str) -> None:
    """Wait for a condition; AssertionError after `PATIENCE`."""
    try:
        async with asyncio.timeout(PATIENCE):
            while True:
                found = condition()
                if found if isinstance(found, bool) else await found:
                    return
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(otherwise) from None


async def wait_shared(workers: Sequence[Worker], partitions: int) -> None:
    """Wait until the workers have all partitions between them, and each has some."""

    def shared() -> bool:
        for worker in workers:
            if worker.task.done():
                worker.task.result()
        parts = [worker.partitions for worker in workers]
        return all(parts) and sum(map(len, parts)) == partitions

    await wait_until(shared, "the partitions are not shared out")


async def _is_zero(number: Awaitable[int]) -> bool:
    return await number == 0


class Counts:
    """A table of counts by value, for one input partition each; says what was restored."""

    def __init__(self, name: str = "count") -> None:
        self.name = name
        self.by_partition: dict[int, dict[bytes, int]] = {}
        self.restores: list[int] = []
        self._changed: dict[int, set[bytes]] = {}

    def add(self, partition: int, values: Sequence[bytes | None]) -> None:
        """Count up."""
        counts = self.by_partition.setdefault(partition, {})
        for value in values:
            counts[value or b""] = counts.get(value or b"", 0) + 1
            self._changed.setdefault(partition, set()).add(value or b"")

    def restore(self, partition: int, entries: Sequence[tuple[bytes, bytes]]) -> None:
        self.by_partition.setdefault(partition, {}).update({key: int(value) for key, value in entries})

    def restored(self, partition: int) -> None:
        self.restores.append(partition)

    def changes(self, partition: int) -> dict[bytes, bytes | None]:
        counts = self.by_partition.get(partition, {})
        return {key: b"%d" % counts[key] for key in self._changed.pop(partition, set())}

    def forget(self, partition: int) -> None:
        self.by_partition.pop(partition, None)
        self._changed.pop(partition, None)


class Count:
    """Sends for each record its value and how often it has come: `a=1`, `a=2`."""

    def __init__(self, topic: str, output: str) -> None:
        self.name = f"count {topic}"
        self.topic = topic
        self.output = output
        self.table = Counts()
        self.tables = [self.table]

    def process(self, batch: Batch) -> None:
        seen = dict(self.table.by_partition.get(batch.partition, {}))
        sent: list[bytes | None] = []
        for record in batch:
            value = record.value or b""
            seen[value] = seen.get(value, 0) + 1
            sent.append(b"%s=%d" % (value, seen[value]))
        records = batch.records
        batch.send_records(self.output, Records(records.keys, sent, records.timestamps), partition=batch.partition)
        batch.on_finish(lambda: self.table.add(batch.partition, records.values))


class CountBoth(Count):
    """The same over several topics, with one table."""

    def __init__(self, topics: Sequence[str], output: str) -> None:
        super().__init__(topics[0], output)
        self.topics = topics


def copy_records(batch: Batch, output: str, records: Sequence[Record]) -> None:
    """Send these records of a batch on, to the same partition."""
    sent = Records([r.key for r in records], [r.value for r in records], [r.timestamp for r in records])
    batch.send_records(output, sent, partition=batch.partition)
